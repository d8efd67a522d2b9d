//! The second act: the year of flights as real writes on a fast clock. The worker learns their rhythm, one
//! airport grows, and the program only looks on: what is predicted and done about it is the extension's.

mod chart;
mod check;
mod clients;
mod observer;
mod panel;
mod regions;
mod report;
mod series;
mod timetable;

use std::sync::Arc;

use anyhow::{Context, Result};
use postgres::Client;

use crate::clock::Clock;
use crate::data::Data;
use crate::interrupt::Interrupt;
use crate::server::{self, Embedded};
use clients::{Book, Clients};
use observer::{Observer, Seen};
use timetable::{DAY_US, HOT, Timetable, weekday};

pub use chart::draw;
pub use report::print;

pub const WEEKS: u64 = 4;
/// Hours of the replay's day that are looked ahead: half of it, so several times as long as a move takes.
pub const HORIZON_HOURS: u64 = 12;

/// A day passes in seconds; the calendar's lengths follow it.
const SETTINGS: [(&str, &str); 7] = [
    ("shadowpart.history_interval", "100ms"),
    ("shadowpart.predict_slot", "400ms"),
    ("shadowpart.day_length", "9600ms"),
    ("shadowpart.predict_interval", "400ms"),
    ("shadowpart.predict_horizon", "720min"), // HORIZON_HOURS
    // Clients, server and worker share the machine: it is busy, and that is no reason to wait.
    ("shadowpart.autopilot_busy", "100"),
    // As often in a day of the replay as in one of ours, about.
    ("autovacuum_naptime", "3s"),
];

/// What was compared, and what was found: nothing, if all is well.
pub struct Check {
    pub name: &'static str,
    pub differences: Vec<String>,
}

pub struct Outcome {
    pub server: String,
    pub table: Timetable,
    /// When the replay's first day began, on the demo's clock.
    pub begin_us: u64,
    pub book: Book,
    pub seen: Seen,
    pub checks: Vec<Check>,
    pub figures: series::Figures,
}

impl Outcome {
    /// What the act promises and did not keep.
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let figures = &self.figures;
        if figures.announced_us.is_none() {
            broken.push("no saturation was announced by the model".to_owned());
        }
        match (figures.announced_us, figures.would_cross_us) {
            (Some(announced), Some(crossing)) if announced >= crossing => {
                broken.push("it was announced after it had come".to_owned());
            }
            (_, None) => broken.push("the load would not have reached the capacity".to_owned()),
            _ => {}
        }
        if self.seen.swaps.is_empty() {
            broken.push("nothing was migrated".to_owned());
        }
        if !self.book.failed.is_empty() {
            broken.push(format!("{} transactions failed", self.book.failed.len()));
        }
        let differences: usize = self
            .checks
            .iter()
            .map(|check| check.differences.len())
            .sum();
        if differences > 0 {
            broken.push(format!("{differences} differences"));
        }
        broken
    }
}

pub fn run(weeks: u64, interrupt: &Interrupt) -> Result<Outcome> {
    let clock = Clock::start();
    clock.say("starting a PostgreSQL of its own");
    let server = Embedded::start(false, &SETTINGS)?;
    let outcome = act_out(&server, weeks, clock, interrupt);
    if outcome.is_err() && interrupt.check().is_ok() {
        eprintln!("\nend of the server's log:\n{}", server.log_end());
    }
    // For whoever wants to know more of a run.
    if let Some(path) = std::env::var_os("SHADOWPART_DEMO_LOG") {
        let _ = std::fs::write(path, server.log());
    }
    clock.say("stopping the server");
    interrupt.check()?;
    outcome
}

fn act_out(server: &Embedded, weeks: u64, clock: Clock, interrupt: &Interrupt) -> Result<Outcome> {
    let mut client = server.connect(clock, interrupt)?;
    clock.say(&format!(
        "{} is up; reading the flights of 2013",
        server.version()
    ));
    let flights = Arc::new(Data::read()?.flights);
    let table = Timetable::new(&flights, weeks)?;
    interrupt.check()?;
    prepare(server, &mut client, &table, clock)?;

    let begin_us = next_midnight(clock);
    let clients = Clients::start(server.config(), &flights, &table.events, clock, begin_us)?;
    let mut observer = Observer::new(clock, &table, begin_us, clients.meter.clone());
    observer.watch(&mut client, interrupt)?;
    clock.say("all flights have landed; the clients stop");
    let book = clients.stop()?;
    let seen = observer.finish(&mut client)?;

    let mut checks = vec![Check {
        name: "rows that each UPDATE found",
        differences: book.wrong.clone(),
    }];
    clock.say("comparing the table with the timetable, row by row");
    check::prepare(&mut client, &flights, &table)?;
    checks.push(check::differences(
        &mut client,
        "table, hidden rows still there",
    )?);
    for swap in &seen.swaps {
        clock.say(&format!("SELECT * FROM shadow_verify({})", swap.id));
        checks.push(check::shadow_differences(&mut client, swap.id)?);
    }
    for swap in &seen.swaps {
        clock.say(&format!("SELECT shadow_finalize({})", swap.id));
        client
            .execute("SELECT shadow_finalize($1)", &[&swap.id])
            .context("shadow_finalize failed")?;
    }
    if !seen.swaps.is_empty() {
        checks.push(check::differences(
            &mut client,
            "table, after shadow_finalize",
        )?);
    }
    let figures = series::Figures::of(&table, &book, &seen, begin_us);
    Ok(Outcome {
        server: server.version().to_owned(),
        table,
        begin_us,
        book,
        seen,
        checks,
        figures,
    })
}

/// Table, extension, policy: all that a person does in this act.
fn prepare(server: &Embedded, client: &mut Client, table: &Timetable, clock: Clock) -> Result<()> {
    client.batch_execute(&regions::schema())?;
    server.tablespace(crate::story::TABLESPACE)?;
    server::create_extension(client, false)?;
    let target = crate::story::TABLESPACE;
    let policy = format!(
        "SELECT shadow_set_policy('flights', autopilot => 'advise', write_rows_s => {}, shadow_threshold => 0.25, threshold => 0.4, cooldown => '5 min')",
        table.capacity
    );
    for call in [
        "SELECT shadow_manage('flights', 'dest')".to_owned(),
        format!("SELECT shadow_add_target('{target}')"),
        policy,
    ] {
        clock.say(&call);
        client.batch_execute(&call)?;
    }
    let layers = 52.0 / table.weeks as f64;
    clock.say(&format!(
        "{} flights of 2013, their 52 weeks in {}: each day of {:.1} s carries the same weekday of {layers:.0} weeks",
        table.real_flights,
        table.weeks,
        DAY_US as f64 / 1e6
    ));
    clock.say(
        "each is an INSERT when it leaves and an UPDATE when it lands; five partitions by region",
    );
    clock.say(&format!(
        "capacity of a partition: {} rows/s; the busiest hour of the real flights has {:.0}",
        table.capacity,
        table.usual_peaks.iter().copied().fold(0.0, f64::max)
    ));
    clock.say(&format!(
        "MADE UP: from day {} ({}) on a second airline flies to {HOT}, more each day, {} extra flights in the end",
        table.hot_from_day + 1,
        weekday(table.hot_from_day),
        table.made_up_flights
    ));
    Ok(())
}

/// Days of the replay begin when those of the extension's calendar do: multiples of their length since 2000.
fn next_midnight(clock: Clock) -> u64 {
    const EPOCH_2000_US: u64 = 946_684_800_000_000;
    // The clients need a moment to connect.
    let soon_us = clock.epoch_us(clock.now_us()) + 500_000 - EPOCH_2000_US;
    let midnight_us = soon_us.next_multiple_of(DAY_US) + EPOCH_2000_US;
    clock.at_epoch_us(midnight_us as f64 / 1e6)
}

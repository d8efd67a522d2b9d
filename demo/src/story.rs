//! What happens, in order: load, manage, a calm stretch, move, back, move again, compare, finalize.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use postgres::Client;

use crate::check;
use crate::clock::Clock;
use crate::data::{Data, Flight};
use crate::interrupt::Interrupt;
use crate::server::{self, Embedded};
use crate::watch::{Phase, Watch};
use crate::writers::{Book, Lane, Order, Sample, Writers};

pub const TABLESPACE: &str = "fast";
/// Slow enough that the copy can be watched, fast enough for a demo.
const SETTINGS: [(&str, &str); 1] = [("shadowpart.copy_rate_limit", "4096")];
const CALM: Duration = Duration::from_secs(10);
/// After each swap the clients go on for a while, so that its wake is seen too.
const AFTER: Duration = Duration::from_secs(5);

/// One move, or the calm before: from its begin to the begin of the next.
pub struct Act {
    pub name: &'static str,
    pub from_us: u64,
    pub to_us: u64,
    /// How long the user waited for the call; none in the calm.
    pub call_us: Option<u64>,
    /// How many the carrier had right after the swap.
    pub rows: Option<i64>,
    pub swap: Option<Swap>,
}

pub struct Swap {
    pub at_us: u64,
    /// Lock wait plus swap: what a writer can have waited.
    pub stall_ms: f64,
    pub lock_wait_ms: Option<f64>,
    pub attempts: Option<i64>,
}

/// What was compared, and what was found: nothing, if all is well.
pub struct Check {
    pub name: String,
    pub differences: Vec<String>,
}

pub struct Outcome {
    pub server: String,
    pub dry_run: bool,
    pub carrier: String,
    pub others: Vec<String>,
    pub acts: Vec<Act>,
    pub phases: Vec<Phase>,
    pub samples: Vec<Sample>,
    pub inserts: u64,
    pub updates: u64,
    pub deletes: u64,
    pub reads: u64,
    pub failed: Vec<String>,
    pub checks: Vec<Check>,
}

impl Outcome {
    pub fn differences(&self) -> usize {
        self.checks
            .iter()
            .map(|check| check.differences.len())
            .sum()
    }

    pub fn is_clean(&self) -> bool {
        self.failed.is_empty() && self.differences() == 0
    }
}

pub fn run(dry_run: bool, interrupt: &Interrupt) -> Result<Outcome> {
    let clock = Clock::start();
    clock.say("starting a PostgreSQL of its own");
    let server = Embedded::start(dry_run, &SETTINGS)?;
    let outcome = act_out(&server, dry_run, clock, interrupt);
    if outcome.is_err() && interrupt.check().is_ok() {
        eprintln!("\nend of the server's log:\n{}", server.log_end());
    }
    clock.say("stopping the server");
    // Whatever went wrong after a Ctrl-C, the Ctrl-C is why.
    interrupt.check()?;
    outcome
}

fn act_out(
    server: &Embedded,
    dry_run: bool,
    clock: Clock,
    interrupt: &Interrupt,
) -> Result<Outcome> {
    let mut client = server.connect(clock, interrupt)?;
    clock.say(&format!(
        "{} is up; reading the flights of 2013",
        server.version()
    ));
    let data = Data::read()?;
    interrupt.check()?;
    let rows_loaded = data.load(&mut client)?;
    clock.say(&format!(
        "{rows_loaded} flights lie in a table of 4 partitions by hash of the carrier"
    ));
    ensure!(
        rows_loaded == data.flights.len() as i64,
        "the file has {} rows",
        data.flights.len()
    );

    server.tablespace(TABLESPACE)?;
    server::create_extension(&mut client, dry_run)?;
    client.batch_execute("SELECT shadow_manage('flights', 'carrier')")?;
    clock.say("CREATE EXTENSION shadowpart; SELECT shadow_manage('flights', 'carrier')");

    let cast = choose(&mut client)?;
    clock.say(&format!(
        "busiest carrier: {} with {} rows, in {}; clients write to it (2), to {}",
        cast.moved,
        cast.rows,
        cast.partition,
        cast.others.join(" and to ")
    ));

    let played = play(server, &mut client, &data.flights, &cast, clock, interrupt)?;

    let mut checks = vec![Check {
        name: "answers to the clients while they wrote".into(),
        differences: played
            .books
            .iter()
            .flat_map(|book| book.wrong.clone())
            .collect(),
    }];
    clock.say("comparing the table with the file plus what the clients were told is committed");
    check::prepare(&mut client, &played.books)?;
    compare(&mut client, "table, hidden rows still there", &mut checks)?;
    clock.say(&format!("SELECT * FROM shadow_verify({})", played.id));
    checks.push(Check {
        name: "primary and shadow (shadow_verify)".into(),
        differences: check::shadow_differences(&mut client, played.id)?,
    });
    interrupt.check()?;
    clock.say(&format!("SELECT shadow_finalize({})", played.id));
    client
        .execute("SELECT shadow_finalize($1)", &[&played.id])
        .context("shadow_finalize failed")?;
    compare(&mut client, "table, after shadow_finalize", &mut checks)?;
    tell_where(&mut client, &cast, clock)?;

    let sum = |count: fn(&Book) -> u64| played.books.iter().map(count).sum();
    Ok(Outcome {
        server: server.version().to_owned(),
        dry_run,
        carrier: cast.moved,
        others: cast.others,
        acts: played.acts,
        phases: played.phases,
        inserts: sum(|book| book.inserts),
        updates: sum(|book| book.updates),
        deletes: sum(|book| book.deletes),
        reads: sum(|book| book.reads),
        failed: played
            .books
            .iter()
            .flat_map(|book| book.failed.clone())
            .collect(),
        samples: played
            .books
            .into_iter()
            .flat_map(|book| book.samples)
            .collect(),
        checks,
    })
}

/// Who moves, and whom the others' clients write to: one neighbour in the same partition, one elsewhere.
struct Cast {
    moved: String,
    rows: i64,
    partition: String,
    others: Vec<String>,
}

fn choose(client: &mut Client) -> Result<Cast> {
    let carriers: Vec<(String, i64, String)> = client
        .query(
            "SELECT carrier, count(*), tableoid::regclass::text FROM flights GROUP BY 1, 3 ORDER BY 2 DESC",
            &[],
        )?
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    let (moved, rows, partition) = carriers.first().context("there are no flights")?.clone();
    // A client must own its rows alone, so nobody is chosen twice.
    let rest: Vec<_> = carriers
        .iter()
        .filter(|(name, ..)| *name != moved)
        .collect();
    let neighbour = rest.iter().find(|(_, _, at)| *at == partition);
    let elsewhere = rest.iter().find(|(name, _, at)| {
        *at != partition && neighbour.is_none_or(|(other, ..)| other != name)
    });
    let others = [neighbour, elsewhere]
        .into_iter()
        .flatten()
        .map(|(name, ..)| name.clone())
        .collect();
    Ok(Cast {
        moved,
        rows,
        partition,
        others,
    })
}

struct Played {
    id: i64,
    acts: Vec<Act>,
    phases: Vec<Phase>,
    books: Vec<Book>,
}

/// The part with the clients.
fn play(
    server: &Embedded,
    client: &mut Client,
    flights: &[Flight],
    cast: &Cast,
    clock: Clock,
    interrupt: &Interrupt,
) -> Result<Played> {
    let mut orders = vec![Order {
        carrier: &cast.moved,
        lane: Lane::Moved,
        clients: 2,
    }];
    let clients = if cast.others.len() == 1 { 2 } else { 1 };
    orders.extend(cast.others.iter().map(|carrier| Order {
        carrier,
        lane: Lane::Others,
        clients,
    }));
    let writers = Writers::start(server.config(), flights, &orders, clock)?;
    let watch = Watch::start(server.config(), clock, writers.meter.clone())?;

    clock.say("calm: how the clients fare without a move");
    let from_us = clock.now_us();
    interrupt.sleep(CALM)?;
    let mut acts = vec![Act {
        name: "calm",
        from_us,
        to_us: clock.now_us(),
        call_us: None,
        rows: None,
        swap: None,
    }];

    let migrate = format!(
        "SELECT shadow_migrate('flights', '{}', tablespace => '{TABLESPACE}')",
        cast.moved
    );
    let mut stage = Stage {
        client,
        carrier: &cast.moved,
        clock,
        interrupt,
    };
    let (id, act) = stage.perform("first move", &migrate, "swap")?;
    acts.push(act);
    acts.push(
        stage
            .perform("way back", &format!("SELECT shadow_revert({id})"), "revert")?
            .1,
    );
    let (id, act) = stage.perform("second move", &migrate, "swap")?;
    acts.push(act);

    clock.say("the clients stop");
    let books = writers.stop()?;
    Ok(Played {
        id,
        acts,
        phases: watch.stop()?,
        books,
    })
}

struct Stage<'a> {
    client: &'a mut Client,
    carrier: &'a str,
    clock: Clock,
    interrupt: &'a Interrupt,
}

impl Stage<'_> {
    /// One call, told by its notices, and some time after it. Gives the id of the shadow.
    fn perform(&mut self, name: &'static str, call: &str, event: &str) -> Result<(i64, Act)> {
        self.interrupt.check()?;
        self.clock.say(call);
        let from_us = self.clock.now_us();
        let answer = self.client.query_one(call, &[]);
        let id: i64 = answer.with_context(|| format!("{call} failed"))?.get(0);
        let call_us = self.clock.now_us() - from_us;
        let swap = self.swap(id, event)?;
        let rows: i64 = self
            .client
            .query_one(
                "SELECT count(*) FROM flights WHERE carrier = $1",
                &[&self.carrier],
            )?
            .get(0);
        self.clock.say(&format!(
            "  {rows} rows, {:.2} s; writers stood still for {:.2} ms at most",
            call_us as f64 / 1e6,
            swap.stall_ms
        ));
        self.interrupt.sleep(AFTER)?;
        let act = Act {
            name,
            from_us,
            to_us: self.clock.now_us(),
            call_us: Some(call_us),
            rows: Some(rows),
            swap: Some(swap),
        };
        Ok((id, act))
    }

    /// The last swap or revert, as the extension measured it.
    fn swap(&mut self, id: i64, event: &str) -> Result<Swap> {
        let row = self
            .client
            .query_opt(
                "SELECT extract(epoch FROM at)::float8, took_ms,
                        (details->>'lock_wait_ms')::float8, (details->>'attempts')::int8
                   FROM shadow_history WHERE id = $1 AND event = $2 ORDER BY at DESC LIMIT 1",
                &[&id, &event],
            )?
            .with_context(|| format!("shadow_history has no {event} of {id}"))?;
        Ok(Swap {
            at_us: self.clock.at_epoch_us(row.get(0)),
            stall_ms: row.get(1),
            lock_wait_ms: row.get(2),
            attempts: row.get(3),
        })
    }
}

fn compare(client: &mut Client, name: &str, checks: &mut Vec<Check>) -> Result<()> {
    let differences = check::differences(client)?;
    checks.push(Check {
        name: name.to_owned(),
        differences,
    });
    Ok(())
}

/// Where the carrier's rows lie in the end, and those of its neighbours.
fn tell_where(client: &mut Client, cast: &Cast, clock: Clock) -> Result<()> {
    let rows = client.query(
        "SELECT f.carrier, c.relname::text, coalesce(t.spcname::text, 'the default tablespace'), count(*)
           FROM flights f JOIN pg_class c ON c.oid = f.tableoid
           LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
          WHERE f.carrier = $1 OR f.carrier = ANY ($2)
          GROUP BY 1, 2, 3 ORDER BY f.carrier <> $1, 1",
        &[&cast.moved, &cast.others],
    )?;
    for row in rows {
        let (carrier, relation, space, count): (&str, &str, &str, i64) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        clock.say(&format!("  {carrier}: {count} rows in {relation}, {space}"));
    }
    Ok(())
}

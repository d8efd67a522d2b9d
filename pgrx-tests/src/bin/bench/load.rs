//! What it costs to know who loads a table: the same work on a managed table, whose reads and writes are
//! counted, and on a table that nobody manages; and on another such table, which shows how far two tables
//! without any difference are apart here.

use super::report::{Pairs, Report, timed};
use super::tables;
use shadowpart_tests::{Context, Dice, Result, Server, anyhow};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const TENANTS: u64 = 100;
const ROUNDS: usize = 9;
const WARM_UP: Duration = Duration::from_secs(4);
const SLOT: Duration = Duration::from_millis(500);
const SLOTS: usize = 45;
/// No table's turn.
const STOP: usize = usize::MAX;
const NAMES: [&str; 3] = ["counted", "plain", "twin"];

/// Rows that clients add get ids from here on.
static NEXT_ID: AtomicI64 = AtomicI64::new(1_000_000_000);

pub fn measure(server: &mut Server, report: &mut Report, rows: u64) -> Result<()> {
    let mut session = server.connect()?;
    let each = (rows / 10 / TENANTS).max(100);
    for name in NAMES {
        tables::create(&mut session, name)?;
        for tenant in 1..=TENANTS {
            tables::fill(&mut session, name, tenant as i32, each)?;
        }
    }
    tables::manage(&mut session, NAMES[0])?;
    // Not the disk is to be measured.
    server.configure("synchronous_commit", "off")?;
    server.reload()?;
    for clients in [1, 8] {
        tables::settle(&mut session, &NAMES)?;
        let (pairs, control) = mixed(server, each, clients)?;
        report.at_least(
            format!("single-row reads and writes, {clients} clients, counted / not"),
            pairs.ratio(),
            "x",
            0.98,
            &pairs.behind(" tps"),
        );
        report.note(
            format!("the same, {clients} clients, not / not"),
            format!("{:.2}x{}", control.ratio(), control.behind(" tps")),
        );
    }
    let mut pairs = Pairs::default();
    for round in 0..=ROUNDS {
        let mut times = [0.0; 2];
        for i in 0..2 {
            let i = (i + round) % 2;
            session.run(&format!("TRUNCATE {}; CHECKPOINT", NAMES[i]))?;
            let sql = format!("INSERT INTO {} {}", NAMES[i], tables::rows_of(1, 1, rows));
            times[i] = timed(|| session.run(&sql))?;
        }
        if round > 0 {
            // Rows a second: the other way round than times.
            pairs.add(times[1], times[0]);
        }
    }
    report.at_least(
        format!("INSERT of {rows} rows, counted / not"),
        pairs.ratio(),
        "x",
        0.97,
        &pairs.behind(" ms (not, counted)"),
    );
    Ok(())
}

/// Transactions a second of so many clients, each of which has its session for all of the time and goes from
/// one table to the other and back with the others: of ten, four read a row, three change one, two add one,
/// and one takes one away.
fn mixed(server: &Server, rows: u64, clients: u64) -> Result<(Pairs, Pairs)> {
    let turn = AtomicUsize::new(0);
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..clients)
            .map(|n| {
                let (turn, done) = (&turn, &done);
                scope.spawn(move || work(server, rows, n, turn, done))
            })
            .collect();
        // The first seconds are connections, caches, and rows that are counted one by one.
        std::thread::sleep(WARM_UP);
        let (mut pairs, mut control) = (Pairs::default(), Pairs::default());
        for round in 0..SLOTS {
            let mut rates = [0.0; NAMES.len()];
            for i in 0..NAMES.len() {
                // Another one begins each time: a machine that grows slower is so for all.
                let table = (i + round) % NAMES.len();
                turn.store(table, Ordering::Relaxed);
                // Until everybody has come.
                std::thread::sleep(SLOT / 20);
                let (begin, before) = (Instant::now(), done.load(Ordering::Relaxed));
                std::thread::sleep(SLOT);
                let count = done.load(Ordering::Relaxed) - before;
                rates[table] = count as f64 / begin.elapsed().as_secs_f64();
            }
            pairs.add(rates[0], rates[1]);
            control.add(rates[2], rates[1]);
        }
        turn.store(STOP, Ordering::Relaxed);
        for worker in workers {
            worker
                .join()
                .map_err(|_| anyhow!("a client panicked"))?
                .context("a client")?;
        }
        Ok((pairs, control))
    })
}

fn work(
    server: &Server,
    rows: u64,
    number: u64,
    turn: &AtomicUsize,
    done: &AtomicU64,
) -> Result<()> {
    let mut session = server.connect()?;
    let mut statements = Vec::new();
    for table in NAMES {
        statements.push([
            session.prepare(&format!(
                "SELECT b FROM {table} WHERE tenant = $1 AND id = $2"
            ))?,
            session.prepare(&format!(
                "UPDATE {table} SET b = b + 1 WHERE tenant = $1 AND id = $2"
            ))?,
            session.prepare(&format!(
                "INSERT INTO {table} VALUES ($1, $2, 1, 2, 3, 4, repeat('x', 64))"
            ))?,
            session.prepare(&format!(
                "DELETE FROM {table} WHERE tenant = $1 AND id = $2"
            ))?,
        ]);
    }
    let mut dice = Dice::new(number + 1);
    let mut mine = [const { Vec::new() }; NAMES.len()];
    loop {
        let table = turn.load(Ordering::Relaxed);
        let Some([read, update, insert, delete]) = statements.get(table) else {
            return Ok(());
        };
        let tenant = 1 + dice.below(TENANTS) as i32;
        let id = 1 + dice.below(rows) as i64;
        match dice.below(10) {
            0..4 => session.execute(read, &[&tenant, &id])?,
            4..7 => session.execute(update, &[&tenant, &id])?,
            7..9 => {
                let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
                mine[table].push((tenant, id));
                session.execute(insert, &[&tenant, &id])?
            }
            _ => match mine[table].pop() {
                Some((tenant, id)) => session.execute(delete, &[&tenant, &id])?,
                None => continue,
            },
        };
        done.fetch_add(1, Ordering::Relaxed);
    }
}

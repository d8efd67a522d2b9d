//! What it costs to know who loads a table: the same work on a managed table, whose reads and writes are
//! counted, and on a table that nobody manages.

use super::report::{Pairs, Report, timed};
use super::tables;
use shadowpart_tests::{Context, Dice, Result, Server, anyhow};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const TENANTS: u64 = 100;
const ROUNDS: usize = 9;
const LEG: Duration = Duration::from_secs(4);
const NAMES: [&str; 2] = ["counted", "plain"];

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
        let mut pairs = Pairs::default();
        for round in 0..=ROUNDS {
            tables::settle(&mut session, &NAMES)?;
            let mut rates = [0.0; 2];
            for i in 0..2 {
                // A, B, B, A: a machine that grows slower is so for both.
                let i = (i + round) % 2;
                rates[i] = rate(server, NAMES[i], each, clients)?;
            }
            // The first one warms up.
            if round > 0 {
                pairs.add(rates[0], rates[1]);
            }
        }
        report.at_least(
            format!("single-row reads and writes, {clients} clients, counted / not"),
            pairs.ratio(),
            "x",
            0.98,
            &pairs.behind(" tps"),
        );
    }
    let mut pairs = Pairs::default();
    for round in 0..=ROUNDS {
        let mut times = [0.0; 2];
        for i in 0..2 {
            let i = (i + round) % 2;
            session.run(&format!("TRUNCATE {}", NAMES[i]))?;
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

/// Transactions a second of so many clients: of ten, four read a row, three change one, two add one, and
/// one takes one away.
fn rate(server: &Server, table: &str, rows: u64, clients: u64) -> Result<f64> {
    let stop = AtomicBool::new(false);
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..clients)
            .map(|n| {
                let (stop, done) = (&stop, &done);
                scope.spawn(move || work(server, table, rows, n, stop, done))
            })
            .collect();
        // The first moments are connections and caches.
        std::thread::sleep(LEG / 8);
        let (begin, before) = (Instant::now(), done.load(Ordering::Relaxed));
        std::thread::sleep(LEG);
        let count = done.load(Ordering::Relaxed) - before;
        let rate = count as f64 / begin.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker
                .join()
                .map_err(|_| anyhow!("a client panicked"))?
                .context("a client")?;
        }
        Ok(rate)
    })
}

fn work(
    server: &Server,
    table: &str,
    rows: u64,
    number: u64,
    stop: &AtomicBool,
    done: &AtomicU64,
) -> Result<()> {
    let mut session = server.connect()?;
    let read = session.prepare(&format!(
        "SELECT b FROM {table} WHERE tenant = $1 AND id = $2"
    ))?;
    let update = session.prepare(&format!(
        "UPDATE {table} SET b = b + 1 WHERE tenant = $1 AND id = $2"
    ))?;
    let insert = session.prepare(&format!(
        "INSERT INTO {table} VALUES ($1, $2, 1, 2, 3, 4, repeat('x', 64))"
    ))?;
    let delete = session.prepare(&format!(
        "DELETE FROM {table} WHERE tenant = $1 AND id = $2"
    ))?;
    let mut dice = Dice::new(number + 1);
    let mut mine = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let tenant = 1 + dice.below(TENANTS) as i32;
        let id = 1 + dice.below(rows) as i64;
        match dice.below(10) {
            0..4 => session.execute(&read, &[&tenant, &id])?,
            4..7 => session.execute(&update, &[&tenant, &id])?,
            7..9 => {
                let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
                mine.push((tenant, id));
                session.execute(&insert, &[&tenant, &id])?
            }
            _ => match mine.pop() {
                Some((tenant, id)) => session.execute(&delete, &[&tenant, &id])?,
                None => continue,
            },
        };
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

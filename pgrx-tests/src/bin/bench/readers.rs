//! Long reads in each isolation level, begun before swaps and still there after them: they do not hold
//! the swaps up, the swaps do not hold them up, and they show the rows of the moment they began.

use super::report::{Report, largest, median, ms};
use super::tables::{self, MOVED, OTHER, TABLESPACE};
use shadowpart_tests::{LEVELS, Result, Server, Session, ensure, eventually};
use std::time::{Duration, Instant};

/// Both stand beside a shadow, only the first is swapped. They are read at the same time, so that
/// whatever else the machine does slows both readers.
const TABLES: [&str; 2] = ["swapped", "still"];
/// Of each tenant: that a swap takes the same time with more of them is measured elsewhere.
const ROWS: u64 = 20_000;
/// Swaps and reverts in turn, so many together.
const SWAPS: u32 = 20;
/// After each look at all rows. Readers rest most of the time, so that what a swap has to wait for is
/// locks and not one of the machine's processors.
const PAUSE: Duration = Duration::from_millis(100);

struct Read {
    /// Looks that showed something else, or nothing.
    wrong: usize,
    /// Of a look, without the pause that follows it.
    look_ms: f64,
    ended: Instant,
}

/// Looks at all rows so many times, in one statement. `turn` is in there so that none is spared.
fn looks(table: &str, count: u32, pause: Duration) -> String {
    let of = |tenant: i32| {
        format!(
            "SELECT count(*) || ' ' || sum(a) FROM {table} WHERE tenant = {tenant} AND id > -turn"
        )
    };
    format!(
        "SELECT concat_ws(' ', ({}), ({})), pg_sleep({}) FROM generate_series(1, {count}) turn",
        of(MOVED),
        of(OTHER),
        pause.as_secs_f64()
    )
}

/// In READ COMMITTED one statement. In the other levels a cursor that was opened before the swaps, and
/// in turn with it statements that are planned between them.
fn read(server: &Server, table: &str, level: &str, rounds: u32, expected: &str) -> Result<Read> {
    // By index: a scan of the whole partition would read hidden rows, too, while there are any.
    let options = "-c enable_seqscan=off -c enable_bitmapscan=off";
    let mut session = server.connect_with("postgres", "postgres", options)?;
    let begin = Instant::now();
    session.run(&format!("BEGIN ISOLATION LEVEL {level}"))?;
    let mut seen = Vec::new();
    if level == "READ COMMITTED" {
        seen = session.column(&looks(table, 2 * rounds, PAUSE))?;
    } else {
        let [all, one] = [rounds, 1].map(|count| looks(table, count, PAUSE));
        session.run(&format!("DECLARE c CURSOR FOR {all}"))?;
        for _ in 0..rounds {
            seen.append(&mut session.column("FETCH c")?);
            seen.append(&mut session.column(&one)?);
        }
    }
    session.run("COMMIT")?;
    let right = seen.iter().filter(|s| *s == expected).count();
    Ok(Read {
        wrong: seen.len().max(2 * rounds as usize) - right,
        look_ms: ms(begin.elapsed()) / f64::from(2 * rounds) - ms(PAUSE),
        ended: Instant::now(),
    })
}

/// Swaps and reverts, each after a change that a reader who began earlier must not see.
fn swaps(session: &mut Session, id: i64, every: Duration) -> Result<()> {
    let begin = Instant::now();
    for n in 0..SWAPS {
        std::thread::sleep((every * n).saturating_sub(begin.elapsed()));
        for table in TABLES {
            session.run(&format!(
                "UPDATE {table} SET a = a + 1 WHERE tenant IN ({MOVED}, {OTHER}) AND id <= 5;
                 DELETE FROM {table} WHERE tenant IN ({MOVED}, {OTHER})
                     AND id = (SELECT max(id) FROM {table} WHERE tenant = {MOVED})"
            ))?;
        }
        match n % 2 {
            0 => session.swap(id)?,
            _ => session.revert(id)?,
        }
    }
    Ok(())
}

/// Swaps beside a reader of each table in each level; the readers begin before and end after them.
fn beside(server: &Server, session: &mut Session, id: i64, seconds: u32) -> Result<Vec<[Read; 2]>> {
    let rounds = seconds * 1000 / PAUSE.as_millis() as u32 / 2;
    let every = Duration::from_secs(seconds.into()) / (SWAPS + 2);
    let expected = &session.column(&looks(TABLES[0], 1, Duration::ZERO))?[0];
    std::thread::scope(|scope| {
        let readers = LEVELS.map(|level| {
            TABLES.map(|table| scope.spawn(move || read(server, table, level, rounds, expected)))
        });
        // One that sleeps in a look has its snapshot.
        let reading = "SELECT count(*) = 6 FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        eventually("all readers read", Duration::from_secs(30), || {
            Ok(session.value(reading)? == "t")
        })?;
        swaps(session, id, every)?;
        let swapped = Instant::now();
        let mut reads = Vec::new();
        for pair in readers {
            let [a, b] = pair.map(|reader| reader.join().expect("readers do not panic"));
            reads.push([a?, b?]);
        }
        let late = reads.iter().flatten().all(|read| read.ended > swapped);
        ensure!(late, "a reader ended before the last swap");
        Ok(reads)
    })
}

pub fn measure(server: &mut Server, report: &mut Report, _rows: u64) -> Result<()> {
    server.tablespace(TABLESPACE)?;
    let mut session = server.connect()?;
    let id = tables::with_shadow(&mut session, TABLES[0], ROWS)?;
    tables::with_shadow(&mut session, TABLES[1], ROWS)?;
    // The first swap compares both sides.
    session.swap(id)?;
    session.revert(id)?;

    let seconds = std::env::var("SHADOWPART_BENCH_READ_SECONDS").unwrap_or("60".into());
    let seconds: u32 = seconds.parse()?;
    swaps(&mut session, id, PAUSE)?;
    let alone = tables::last_swaps(&mut session, id, SWAPS, "took_ms")?;
    let reads = beside(server, &mut session, id, seconds)?;
    let stalls = tables::last_swaps(&mut session, id, SWAPS, "took_ms")?;
    let waited = "(details ->> 'lock_wait_ms')::float8";
    let waits = tables::last_swaps(&mut session, id, SWAPS, waited)?;

    let (all, calm, wait) = (median(&stalls), median(&alone), largest(&waits));
    report.at_most(
        format!("longest of {SWAPS} swaps and reverts beside reads of {seconds} s"),
        largest(&stalls),
        " ms",
        5.0,
        &format!(" (for locks {wait:.2}, median {all:.2}, without reads {calm:.2})"),
    );
    for (level, pair) in LEVELS.iter().zip(&reads) {
        let (across, without) = (pair[0].look_ms, pair[1].look_ms);
        report.at_most(
            format!("read in {level}, across swaps / without"),
            across / without,
            "x",
            1.05,
            &format!(" ({across:.2} / {without:.2} ms a look)"),
        );
    }
    let wrong = reads.iter().flatten().map(|read| read.wrong).sum();
    report.zero("looks that showed other rows than the first", wrong, "");
    Ok(())
}

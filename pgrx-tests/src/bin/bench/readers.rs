//! Long reads in each isolation level, begun before swaps and still there after them: they do not hold
//! the swaps up, the swaps do not hold them up, and they show the rows of the moment they began.

use super::report::{Report, largest, median, ms};
use super::tables::{self, MOVED, OTHER, TABLESPACE};
use shadowpart_tests::{Context, LEVELS, Result, Server, Session, ensure, eventually};
use std::time::{Duration, Instant};

/// Swaps and reverts in turn, so many together.
const SWAPS: u32 = 20;
/// The reads without swaps are so much shorter.
const SHORTER: u32 = 4;
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

fn seconds() -> Result<u32> {
    let text = std::env::var("SHADOWPART_BENCH_READ_SECONDS").unwrap_or("60".into());
    let seconds = text.parse().context("SHADOWPART_BENCH_READ_SECONDS")?;
    ensure!(seconds >= 5, "the swaps need 5 seconds, not {seconds}");
    Ok(seconds)
}

/// Looks at all rows so many times, in one statement.
fn looks(count: u32, pause: Duration) -> String {
    let of = |tenant: i32| {
        format!(
            "count(*) FILTER (WHERE tenant = {tenant}), sum(a) FILTER (WHERE tenant = {tenant})"
        )
    };
    format!(
        "SELECT seen, pg_sleep({}) FROM generate_series(1, {count}) turn,
         LATERAL (SELECT concat_ws(' ', {}, {}) AS seen FROM t WHERE turn > 0) x",
        pause.as_secs_f64(),
        of(MOVED),
        of(OTHER)
    )
}

/// In READ COMMITTED one statement. In the other levels a cursor that was opened before the swaps, and
/// in turn with it statements that are planned between them.
fn read(server: &Server, level: &str, rounds: u32, expected: &str) -> Result<Read> {
    let options = "-c max_parallel_workers_per_gather=0";
    let mut session = server.connect_with("postgres", "postgres", options)?;
    let begin = Instant::now();
    session.run(&format!("BEGIN ISOLATION LEVEL {level}"))?;
    let mut seen = Vec::new();
    if level == "READ COMMITTED" {
        seen = session.column(&looks(2 * rounds, PAUSE))?;
    } else {
        session.run(&format!("DECLARE c CURSOR FOR {}", looks(rounds, PAUSE)))?;
        for _ in 0..rounds {
            seen.append(&mut session.column("FETCH c")?);
            seen.append(&mut session.column(&looks(1, PAUSE))?);
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

/// Changes rows again and again, so that a reader who sees more than at its beginning is found out; and
/// swaps or reverts after each change if there is a shadow to swap.
fn change(session: &mut Session, id: Option<i64>, times: u32, every: Duration) -> Result<()> {
    let begin = Instant::now();
    for n in 0..times {
        std::thread::sleep((every * n).saturating_sub(begin.elapsed()));
        session.run(&format!(
            "UPDATE t SET a = a + 1 WHERE tenant IN ({MOVED}, {OTHER}) AND id <= 5;
             DELETE FROM t WHERE tenant IN ({MOVED}, {OTHER}) AND id = {}",
            100 + n
        ))?;
        match id {
            Some(id) if n % 2 == 0 => session.swap(id)?,
            Some(id) => session.revert(id)?,
            None => {}
        }
    }
    Ok(())
}

/// One reader of each level, and the changes, which begin after the readers and end before them.
fn beside(
    server: &Server,
    session: &mut Session,
    rounds: u32,
    changes: impl FnOnce(&mut Session) -> Result<()>,
) -> Result<Vec<Read>> {
    let expected = &session.column(&looks(1, Duration::ZERO))?.remove(0);
    std::thread::scope(|scope| {
        let readers =
            LEVELS.map(|level| scope.spawn(move || read(server, level, rounds, expected)));
        // One that sleeps in a look has its snapshot.
        let reading = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        eventually("all readers read", Duration::from_secs(30), || {
            Ok(session.number(reading)? == LEVELS.len() as i64)
        })?;
        changes(session)?;
        let changed = Instant::now();
        let reads = readers.into_iter().map(|r| r.join().expect("no panic"));
        let reads: Vec<Read> = reads.collect::<Result<_>>()?;
        let late = reads.iter().all(|read| read.ended > changed);
        ensure!(late, "a reader ended before the last swap");
        Ok(reads)
    })
}

pub fn measure(server: &mut Server, report: &mut Report, rows: u64) -> Result<()> {
    server.tablespace(TABLESPACE)?;
    let mut session = server.connect()?;
    let id = tables::with_shadow(&mut session, (rows / 10).max(20_000))?;
    // The first swap compares both sides.
    session.swap(id)?;
    session.revert(id)?;

    let seconds = seconds()?;
    let every = Duration::from_secs(seconds.into()) / (SWAPS + 2);
    let rounds = seconds * 1000 / PAUSE.as_millis() as u32 / 2;
    change(&mut session, Some(id), SWAPS, PAUSE)?;
    let alone = tables::last_swaps(&mut session, id, SWAPS)?;
    let without = beside(server, &mut session, rounds / SHORTER, |session| {
        change(session, None, SWAPS / SHORTER, every)
    })?;
    let with = beside(server, &mut session, rounds, |session| {
        change(session, Some(id), SWAPS, every)
    })?;
    let stalls = tables::last_swaps(&mut session, id, SWAPS)?;

    let (middle, calm, most) = (median(&stalls), median(&alone), largest(&alone));
    report.at_most(
        format!("longest of {SWAPS} swaps and reverts beside 3 reads of {seconds} s"),
        largest(&stalls),
        " ms",
        5.0,
        &format!(" (median {middle:.2}; alone {calm:.2}, max {most:.2})"),
    );
    for ((level, with), without) in LEVELS.iter().zip(&with).zip(&without) {
        let (a, b) = (with.look_ms, without.look_ms);
        report.at_most(
            format!("read in {level}, across swaps / without"),
            a / b,
            "x",
            1.05,
            &format!(" ({a:.2} / {b:.2} ms a look)"),
        );
    }
    let wrong = with.iter().chain(&without).map(|read| read.wrong).sum();
    report.zero("looks that showed other rows than the first", wrong, "");
    Ok(())
}

//! Long reads in each isolation level, begun before swaps and still there after them: they do not hold
//! the swaps up, the swaps do not hold them up, and they show the rows of the moment they began.

use super::report::{Pairs, Report, largest, median, ms};
use super::tables::{self, MOVED, OTHER, TABLESPACE};
use shadowpart_tests::{LEVELS, Result, Server, Session, ensure, eventually};
use std::time::{Duration, Instant};

const SECONDS_DEFAULT: u64 = 60;
/// Swaps and reverts in turn, so many together.
const SWAPS: u32 = 20;
/// The reads without swaps are so much shorter.
const SHORTER: u32 = 4;
/// After each look at all rows. Readers rest most of the time, so that what a swap has to wait for is
/// locks and not one of the machine's processors.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const STALL_GOAL_MS: f64 = 5.0;
const DELAY_GOAL: f64 = 1.05;

/// What one reader saw and when.
struct Read {
    wrong: usize,
    took: Duration,
    /// Of a look, without the pause that follows it.
    look_ms: f64,
    ended: Instant,
}

fn seconds() -> Result<u64> {
    let seconds = match std::env::var("SHADOWPART_BENCH_READ_SECONDS") {
        Ok(text) => text.parse()?,
        Err(_) => SECONDS_DEFAULT,
    };
    ensure!(
        seconds >= 5,
        "SHADOWPART_BENCH_READ_SECONDS is {seconds}; the swaps need 5 at least"
    );
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

/// In READ COMMITTED one statement. In the other levels, half of the looks each: a cursor that was
/// opened before the swaps, and statements that are planned between them.
fn read(server: &Server, level: &str, turns: u32, expected: &str) -> Result<Read> {
    let options = "-c max_parallel_workers_per_gather=0";
    let mut session = server.connect_with("postgres", "postgres", options)?;
    let begin = Instant::now();
    session.run(&format!("BEGIN ISOLATION LEVEL {level}"))?;
    let mut seen = Vec::new();
    if level == LEVELS[0] {
        seen = session.column(&looks(turns, PAUSE))?;
    } else {
        let all = looks(turns / 2, PAUSE);
        session.run(&format!("DECLARE c NO SCROLL CURSOR FOR {all}"))?;
        for _ in 0..turns / 2 {
            seen.append(&mut session.column("FETCH c")?);
            seen.append(&mut session.column(&looks(1, PAUSE))?);
        }
    }
    session.run("COMMIT")?;
    let took = begin.elapsed();
    let right = seen.iter().filter(|s| *s == expected).count();
    Ok(Read {
        // One that is missing is wrong, too.
        wrong: (turns as usize).max(seen.len()) - right,
        took,
        look_ms: ms(took) / f64::from(turns) - ms(PAUSE),
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

/// One reader of each level beside the changes, which end before the readers do.
fn beside(
    server: &Server,
    session: &mut Session,
    turns: u32,
    changes: impl FnOnce(&mut Session) -> Result<()>,
) -> Result<Vec<Read>> {
    let expected = &session.value(&format!(
        "SELECT seen FROM ({}) once",
        looks(1, Duration::ZERO)
    ))?;
    let (changed, reads) = std::thread::scope(|scope| {
        let readers = LEVELS.map(|level| scope.spawn(move || read(server, level, turns, expected)));
        // One that sleeps in a look has its snapshot.
        let changed = eventually("all readers read", LONGEST_WAIT, || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            Ok(session.number(sql)? == LEVELS.len() as i64)
        })
        .and_then(|()| changes(session))
        .map(|()| Instant::now());
        (changed, readers.map(|r| r.join().expect("no panic")))
    });
    let changed = changed?;
    let reads: Vec<Read> = reads.into_iter().collect::<Result<_>>()?;
    ensure!(
        reads.iter().all(|read| read.ended > changed),
        "a reader ended before the last swap"
    );
    Ok(reads)
}

/// The stalls of the last swaps and reverts.
fn stalls(session: &mut Session, id: i64) -> Result<Vec<f64>> {
    let mut all = tables::events(session, id, "swap", "took_ms")?;
    let mut reverts = tables::events(session, id, "revert", "took_ms")?;
    let each = SWAPS as usize / 2;
    let mut last = all.split_off(all.len() - each);
    last.append(&mut reverts.split_off(reverts.len() - each));
    Ok(last)
}

pub fn measure(server: &mut Server, report: &mut Report, rows: u64) -> Result<()> {
    server.tablespace(TABLESPACE)?;
    let mut session = server.connect()?;
    tables::create(&mut session, "t")?;
    for tenant in [MOVED, OTHER] {
        tables::fill(&mut session, "t", tenant, (rows / 10).max(20_000))?;
    }
    tables::settle(&mut session, &["t"])?;
    tables::manage(&mut session, "t")?;
    let id = session.create_shadow("t", &MOVED.to_string(), TABLESPACE)?;
    // The first swap compares both sides.
    session.swap(id)?;
    session.revert(id)?;

    let lasts = Duration::from_secs(seconds()?);
    let every = lasts / (SWAPS + 2);
    let turns = (lasts.as_millis() / PAUSE.as_millis()) as u32;
    change(&mut session, Some(id), SWAPS, PAUSE)?;
    let alone = stalls(&mut session, id)?;
    let without = beside(server, &mut session, turns / SHORTER, |session| {
        change(session, None, SWAPS / SHORTER, every)
    })?;
    let with = beside(server, &mut session, turns, |session| {
        change(session, Some(id), SWAPS, every)
    })?;
    let stalls = stalls(&mut session, id)?;

    report.at_most(
        format!(
            "longest of {SWAPS} swaps and reverts beside {} long reads",
            LEVELS.len()
        ),
        largest(&stalls),
        " ms",
        STALL_GOAL_MS,
        &format!(
            " (median {:.2}; alone {:.2}, max {:.2})",
            median(&stalls),
            median(&alone),
            largest(&alone)
        ),
    );
    for ((level, with), without) in LEVELS.iter().zip(&with).zip(&without) {
        let mut pair = Pairs::default();
        pair.add(with.look_ms, without.look_ms);
        report.at_most(
            format!(
                "{level} read of {:.0} s, across swaps / without",
                with.took.as_secs_f64()
            ),
            pair.ratio(),
            "x",
            DELAY_GOAL,
            &pair.behind(" ms a look"),
        );
    }
    report.zero(
        format!(
            "wrong answers of {} looks",
            LEVELS.len() as u32 * (turns + turns / SHORTER)
        ),
        with.iter().chain(&without).map(|read| read.wrong).sum(),
        "",
    );
    Ok(())
}

//! The clock of one database: starts workers for shadows whose state is not their goal, and gives up the
//! way back when a revert window ends. Where there are managed tables it also records their load. Exits when
//! there is nothing left to watch.

use super::{launcher, shared};
use crate::guc;
use crate::pg::error::Result;
use crate::pg::{latch, sql, xact};
use crate::record::{self, clock::Clock};
use lifecycle::{Goal, State};
use pgrx::prelude::*;
use std::time::{Duration, Instant};

/// Between two looks at jobs that are under way.
const JOBS_PAUSE: Duration = Duration::from_millis(500);
/// Between two starts of an autopilot.
const AUTOPILOT_PAUSE: Duration = Duration::from_secs(10);

#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn shadowpart_scheduler(database: pg_sys::Datum) {
    let database = database.value() as u32;
    // Before anybody can end this process: it may be ended while it connects.
    shared::want_successor(Some(database));
    shared::release_at_exit();
    launcher::be_interruptible();
    // SAFETY: connects as the bootstrap superuser, as the argument allows.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database.into(), pg_sys::InvalidOid, 0)
    };
    // A lock that is not to be had at once is waited for in the next round. Above all, DROP EXTENSION takes
    // the same locks in another order and must not be the one that a deadlock ends.
    launcher::harden(c"shadowpart scheduler", c"100ms");
    crate::load::ignore_this_process();
    watch(database);
    shared::want_successor(None);
}

/// Until there is nothing to watch.
fn watch(database: u32) {
    if shared::leaves() || !shared::become_scheduler() {
        return;
    }
    let mut clock = Clock::new();
    let mut told = None;
    let mut autopilot_at = None;
    loop {
        launcher::reload_if_asked();
        if shared::leaves() {
            return;
        }
        let mut pause = JOBS_PAUSE;
        match xact::transaction(look) {
            Ok(Some(seen)) => {
                told = None;
                start_workers(database, seen.work);
                if seen.history {
                    start_autopilot(database, &mut autopilot_at);
                    clock.work();
                    pause = clock.rest();
                }
                if seen.jobs {
                    pause = pause.min(JOBS_PAUSE);
                }
            }
            Ok(None) => {
                // Whoever came with work in this moment saw a scheduler and woke it. So first stop being
                // one, for all to see, and then look again: whoever comes later asks for a new one.
                shared::release();
                match xact::transaction(look) {
                    Ok(None) => return,
                    _ if shared::become_scheduler() => continue,
                    _ => return,
                }
            }
            // Twice a second, the same again would fill the log.
            Err(e) => {
                if !e.is_transient() && told.as_ref() != Some(&e.message) {
                    log!("shadowpart scheduler: {e}");
                    told = Some(e.message);
                }
            }
        }
        latch::nap(pause);
    }
}

fn start_workers(database: u32, work: Vec<i64>) {
    for id in work {
        if shared::running() >= guc::MAX_JOBS.get() as usize {
            break;
        }
        if !shared::is_running(id) {
            let name = format!("shadowpart job {id}");
            launcher::start_worker(&name, "shadowpart_worker", database, &format!("id={id}"), 0);
        }
    }
}

/// Starts the process that predicts and decides, where there is none. One that has failed is not started
/// again at once: what has ended it may end the next.
fn start_autopilot(database: u32, started_at: &mut Option<Instant>) {
    if guc::PREDICT_INTERVAL_MS.get() == 0
        || shared::has_autopilot()
        || started_at.is_some_and(|at| at.elapsed() < AUTOPILOT_PAUSE)
    {
        return;
    }
    *started_at = Some(Instant::now());
    launcher::start_worker(
        "shadowpart autopilot",
        "shadowpart_autopilot",
        database,
        "",
        0,
    );
}

/// What there is to watch.
struct Seen {
    /// Shadows that want a worker now.
    work: Vec<i64>,
    /// Some shadow wants one now or later.
    jobs: bool,
    /// There are managed tables, whose load is recorded.
    history: bool,
}

/// `None` when there is nothing to watch.
fn look() -> Result<Option<Seen>> {
    if sql::value::<bool>(
        "SELECT to_regclass('shadowpart.shadow') IS NOT NULL
            AND EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'shadowpart')",
        &[],
    )? != Some(true)
    {
        return Ok(None);
    }
    let due = sql::value::<bool>(
        "SELECT EXISTS (SELECT FROM shadowpart.shadow
          WHERE state = 'migrated' AND goal = 'migrated' AND revert_until <= clock_timestamp())",
        &[],
    )?;
    if due == Some(true) {
        sql::execute(
            "UPDATE shadowpart.shadow SET goal = 'finalized'
              WHERE state = 'migrated' AND goal = 'migrated' AND revert_until <= clock_timestamp()",
            &[],
        )?;
    }
    let live = sql::query(
        "SELECT id, state, goal, coalesce(not_before <= clock_timestamp(), true), revert_until < 'infinity'
           FROM shadowpart.shadow WHERE state NOT IN ('finalized', 'dropped', 'failed', 'cancelled') ORDER BY id",
        &[],
        |row| {
            Ok((
                row.get::<i64>(1)?.unwrap_or(0),
                row.get::<String>(2)?.unwrap_or_default(),
                row.get::<String>(3)?.unwrap_or_default(),
                row.get::<bool>(4)?.unwrap_or(true),
                row.get::<bool>(5)?.unwrap_or(false),
            ))
        },
    )?;
    // Triggers that a table has kept, which is managed no more, are taken off first.
    let history = record::is_wanted()? || crate::load::triggers::any()?;
    let mut watch = false;
    let mut work = Vec::new();
    for (id, state, goal, due, clock) in live {
        let (Ok(state), Ok(goal)) = (state.parse::<State>(), goal.parse::<Goal>()) else {
            continue;
        };
        if lifecycle::next(state, goal).is_some() {
            watch = true;
            if due {
                work.push(id);
            }
        }
        watch |= clock;
    }
    Ok((watch || history).then_some(Seen {
        work,
        jobs: watch,
        history,
    }))
}

//! The clock of one database: starts workers for shadows whose state is not their goal, and gives up the
//! way back when a revert window ends. Exits when there is nothing left to watch.

use super::{launcher, shared};
use crate::guc;
use crate::pg::error::Result;
use crate::pg::{latch, sql, xact};
use lifecycle::{Goal, State};
use pgrx::prelude::*;
use std::time::Duration;

#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn shadowpart_scheduler(database: pg_sys::Datum) {
    launcher::be_interruptible();
    let database = database.value() as u32;
    // SAFETY: connects as the bootstrap superuser, as the argument allows.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database.into(), pg_sys::InvalidOid, 0)
    };
    shared::release_at_exit();
    crate::load::ignore_this_process();
    if !shared::become_scheduler() {
        return;
    }
    loop {
        launcher::reload_if_asked();
        match xact::transaction(look) {
            Ok(Some(work)) => {
                for id in work {
                    if shared::running() >= guc::MAX_JOBS.get() as usize {
                        break;
                    }
                    if !shared::is_running(id) {
                        let name = format!("shadowpart job {id}");
                        launcher::start_worker(
                            &name,
                            "shadowpart_worker",
                            database,
                            &format!("id={id}"),
                            0,
                        );
                    }
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
            Err(e) => log!("shadowpart scheduler: {e}"),
        }
        latch::nap(Duration::from_millis(500));
    }
}

/// Shadows that want a worker now; `None` when nothing will ever want one.
fn look() -> Result<Option<Vec<i64>>> {
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
    Ok(if watch { Some(work) } else { None })
}

//! Leads one shadow to its goal.

use super::{accept, catalog, launcher, shared, steps};
use crate::guc;
use crate::pair::Shadow;
use crate::pg::error::{Error, Result};
use crate::pg::{sql, xact};
use lifecycle::{Goal, State};
use pgrx::prelude::*;

/// The message by which a step that was asked to stop is told from one that was interrupted.
const STOPPED: &str = "stopped on request";

/// What a worker was started for, from its extra text: `id=N` or `request=HANDLE`.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn shadowpart_worker(database: pg_sys::Datum) {
    launcher::be_interruptible();
    let database = database.value() as u32;
    // SAFETY: connects as the bootstrap superuser, as the argument allows.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database.into(), pg_sys::InvalidOid, 0)
    };
    shared::release_at_exit();
    launcher::harden(c"shadowpart job", c"0");
    crate::load::ignore_this_process();
    let extra = launcher::extra();
    let (id, requested) = if let Some(id) = extra
        .strip_prefix("id=")
        .and_then(|t| t.parse::<i64>().ok())
    {
        (Some(id), false)
    } else if let Some(handle) = extra
        .strip_prefix("request=")
        .and_then(|t| t.parse::<u32>().ok())
    {
        (accept::accept(handle), true)
    } else {
        (None, false)
    };
    let Some(id) = id else { return };
    // Whatever ends this process, the scheduler starts another for what is unfinished.
    shared::wake_scheduler();
    crate::failpoint!("request-accepted");
    // The worker before this one may be on its last steps.
    let mut claimed = shared::claim(id, guc::MAX_JOBS.get() as usize);
    for _ in 0..200 {
        if claimed != Err(shared::Refused::Taken) {
            break;
        }
        crate::pg::latch::nap(std::time::Duration::from_millis(5));
        claimed = shared::claim(id, guc::MAX_JOBS.get() as usize);
    }
    match claimed {
        Ok(()) => {
            lead(id, requested);
            shared::release();
            // Revert windows end by the clock of the scheduler.
            shared::wake_scheduler();
        }
        // Somebody is at it, or there are enough jobs: the scheduler will see to it.
        Err(_) => shared::wake_scheduler(),
    }
}

/// Takes steps until the shadow rests or has to be left to the scheduler.
fn lead(id: i64, requested: bool) {
    if !requested {
        // After a crash nobody waits any more. A waiter who is alive stays known: the scheduler may have
        // been quicker than the worker of the request, and the job must not wait for its own waiter.
        let _ = xact::transaction(|| {
            let waiter = Shadow::load(id)?.waiter_pid;
            if waiter.is_some_and(|pid| !shared::is_alive(pid)) {
                sql::execute(
                    "UPDATE shadowpart.shadow SET waiter_pid = NULL WHERE id = $1",
                    &[id.into()],
                )?;
            }
            Ok(())
        });
    }
    loop {
        launcher::reload_if_asked();
        let shadow = match xact::transaction(|| Shadow::load(id)) {
            Ok(shadow) => shadow,
            Err(e) => {
                log!("shadowpart job {id}: {e}");
                return;
            }
        };
        if stop_if_asked(&shadow) {
            continue;
        }
        let Some(action) = lifecycle::next(shadow.state, shadow.goal) else {
            return;
        };
        match steps::perform(&shadow, action) {
            Ok(steps::Outcome::Go) => {}
            Ok(steps::Outcome::Later) => return,
            Err(error) => {
                if error.sqlstate == "57014" && error.message == STOPPED {
                    continue;
                }
                if !fail(&shadow, &error) {
                    return;
                }
            }
        }
    }
}

/// Turns a cancel request, or the end of whoever waits, into a new goal. True when the goal changed.
fn stop_if_asked(shadow: &Shadow) -> bool {
    let deserted = shadow.waiter_pid.is_some_and(|pid| !shared::is_alive(pid));
    if !deserted && !shared::is_cancelled() {
        return false;
    }
    shared::clear_cancel();
    let changed = xact::transaction(|| {
        // Somebody may have given it another goal since it was read.
        let goal = catalog::lock(shadow.id)?.goal;
        let goal = lifecycle::command(Goal::Cancelled, shadow.state, goal);
        sql::execute(
            "UPDATE shadowpart.shadow SET waiter_pid = NULL WHERE id = $1",
            &[shadow.id.into()],
        )?;
        match goal {
            Ok(Some(goal)) => {
                let error = Error::new(
                    PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
                    if deserted {
                        "the session that waited has ended"
                    } else {
                        "cancelled"
                    },
                );
                catalog::set_error(shadow.id, &error)?;
                catalog::set_goal(shadow.id, goal)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    });
    changed.unwrap_or(false)
}

/// Records an error and decides what becomes of the shadow. False: leave it to the scheduler.
fn fail(shadow: &Shadow, error: &Error) -> bool {
    log!(
        "shadowpart job {}: {} [{}]",
        shadow.id,
        error,
        error.sqlstate
    );
    let goal = |now: Goal| match shadow.state {
        State::Queued | State::Building => Some(Goal::Failed),
        // What was to be added leaves again, unless all is to go anyway.
        State::Adding => Some(match lifecycle::command(Goal::Failed, shadow.state, now) {
            Ok(Some(goal)) => goal,
            _ => now,
        }),
        // The swap did not come about: the shadow stands as it was.
        State::Ready => Some(Goal::Ready),
        State::Migrated if shadow.goal != Goal::Finalized => Some(Goal::Migrated),
        _ => None,
    };
    let recorded = xact::transaction(|| {
        let goal = goal(catalog::lock(shadow.id)?.goal);
        catalog::set_error(shadow.id, error)?;
        match goal {
            Some(goal) => catalog::set_goal(shadow.id, goal).map(|()| true),
            None => {
                // Cleaning up is tried for ever, less and less often.
                sql::execute(
                    "UPDATE shadowpart.shadow
                        SET not_before = clock_timestamp() + least(attempts, 60) * interval '1 s' WHERE id = $1",
                    &[shadow.id.into()],
                )?;
                Ok(false)
            }
        }
    });
    if let Err(e) = &recorded {
        log!(
            "shadowpart job {}: could not record an error: {e}",
            shadow.id
        );
    }
    recorded.unwrap_or(false)
}

/// The result of a step that may be asked to stop at any time.
pub fn check_stop(shadow: &Shadow) -> Result<()> {
    let deserted = shadow.waiter_pid.is_some_and(|pid| !shared::is_alive(pid));
    if deserted || shared::is_cancelled() {
        return Err(Error::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, STOPPED));
    }
    Ok(())
}

//! What the load was: once a minute the scheduler of a database looks at the counters of entities
//! (`entities`), at PostgreSQL's statistics of partitions (`partitions`) and at the machine (`host`), and
//! writes what has come since it last looked; `rollup` sums minutes up to coarser rows and removes old ones.
//!
//! The look before is in the memory of the process that looks. So the first after a start, and one after a
//! gap, writes nothing: what was not measured is missing, not zero. `host` also serves the view of the
//! moment. Called by `job::scheduler`; knows `load` (counters of entities) and `pg`, and nothing of shadows.

pub mod clock;
mod entities;
pub mod host;
mod partitions;
mod rollup;

use crate::guc;
use crate::pg::error::Result;
use crate::pg::{sql, xact};
use pgrx::prelude::*;
use std::time::Duration;

/// Two looks further apart than this (microseconds) say how much, but not when: nothing is written.
const STRETCH_MAX_US: i64 = 150_000_000;
/// No step holds a transaction open for longer.
const STEP_LIMIT: Duration = Duration::from_secs(5);

/// One thing to do each minute, in a transaction of its own. Its argument is the time, in microseconds
/// since 2000, which all that one minute writes agrees on.
type Step = Box<dyn Fn(i64) -> Result<()>>;

fn steps() -> Vec<Step> {
    let mut steps: Vec<Step> = vec![
        Box::new(forget_dropped),
        Box::new(entities::record),
        Box::new(partitions::record),
        Box::new(host::record),
    ];
    steps.extend(rollup::steps());
    steps
}

/// The time, in microseconds since 2000.
pub fn now_us() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// SQL for a time that is a parameter in microseconds since 2000.
pub fn time(parameter: &str) -> String {
    format!(
        "(timestamptz '2000-01-01 00:00:00+00' + {parameter}::bigint * interval '1 microsecond')"
    )
}

/// How far the history goes back; microseconds. Zero: there is none.
fn retention_us() -> i64 {
    i64::from(guc::HISTORY_RETENTION_MIN.get()) * 60_000_000
}

/// The minute's work, each step in a transaction of its own; the errors of those that failed, which keep
/// no other from its work.
pub fn tick() -> Vec<crate::pg::error::Error> {
    let now_us = now_us();
    let failed = steps()
        .iter()
        .filter_map(|step| {
            xact::transaction(|| {
                xact::arm(STEP_LIMIT);
                xact::commit_without_wait();
                step(now_us)
            })
            .err()
        })
        .collect();
    // Backends do this between statements; here nobody would. Without it autovacuum never hears of what
    // is written and deleted here.
    // SAFETY: outside any transaction.
    unsafe {
        pg_sys::pgstat_report_stat(true);
    }
    failed
}

/// Who waits for which lock, in a transaction of its own.
pub fn sample_waits() -> Result<()> {
    if retention_us() == 0 {
        return Ok(());
    }
    xact::transaction(|| {
        xact::arm(STEP_LIMIT);
        partitions::sample_waits()
    })
}

/// Whether the database has managed tables, and so a history to write.
pub fn is_wanted() -> Result<bool> {
    let any = sql::value::<bool>("SELECT EXISTS (SELECT FROM shadowpart.managed)", &[])?;
    Ok(any == Some(true))
}

/// The managed tables that exist.
fn managed() -> Result<Vec<pg_sys::Oid>> {
    let list = sql::query(
        "SELECT m.relation::oid FROM shadowpart.managed m JOIN pg_catalog.pg_class c ON c.oid = m.relation
          WHERE c.relkind = 'p'",
        &[],
        |row| row.get::<pg_sys::Oid>(1),
    )?;
    Ok(list.into_iter().flatten().collect())
}

/// A table that was dropped without `shadow_unmanage` is managed no more, and what is managed no more is not
/// counted.
fn forget_dropped(_now_us: i64) -> Result<()> {
    let stale = "SELECT FROM shadowpart.managed m
          WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = m.relation AND c.relkind = 'p')
            AND NOT EXISTS (SELECT FROM shadowpart.shadow s WHERE s.relation = m.relation
                  AND s.state NOT IN ('finalized', 'dropped', 'failed', 'cancelled'))";
    // Looked for first: a DELETE would lock the table each minute, for nothing.
    if sql::value::<bool>(&format!("SELECT EXISTS ({stale})"), &[])? == Some(true) {
        sql::execute(
            &format!(
                "DELETE FROM shadowpart.managed WHERE relation IN ({})",
                stale.replacen("SELECT", "SELECT m.relation", 1)
            ),
            &[],
        )?;
    }
    crate::load::forget_unmanaged();
    Ok(())
}

/// The minute's work at once, in the caller's transaction and with the memory of the caller's process.
#[cfg(feature = "failpoints")]
#[pg_extern(sql = false)]
fn tick_now() {
    // SAFETY: what pg_stat_clear_snapshot() does.
    unsafe { pg_sys::pgstat_clear_snapshot() };
    let now_us = now_us();
    let outcome =
        partitions::sample_waits().and_then(|()| steps().iter().try_for_each(|step| step(now_us)));
    if let Err(error) = outcome {
        error.raise();
    }
}

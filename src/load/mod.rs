//! Who loads the database: reads and writes of each entity of the managed tables.
//!
//! * `statement` (executor hooks) and `writes` (row triggers, put on the partitions by `triggers`) note what
//!   is done, as often as `sampler` says; `spare` takes the triggers off small statements that are not
//!   counted, `pick` switches them on and off in large ones;
//! * `search` and `join` find the entities that a statement names, `entity` turns values into keys and back,
//!   `managed` knows which relations are of interest;
//! * `local` adds up what a transaction does; `memory` holds the sums of the cluster, a fixed block of shared
//!   memory with one lock a shard; `show` is what SQL and the history see of them.
//!
//! Depends on `pg` and on the crate `load`; knows nothing of pairs and jobs.

mod entity;
mod join;
mod local;
mod managed;
mod memory;
mod pick;
mod sampler;
mod search;
mod show;
mod spare;
mod statement;
pub mod triggers;
mod writes;

use crate::pg::error::Result;
use crate::pg::sql;
use pgrx::pg_sys;

/// What is counted of an entity. The numbers are places in its counters.
#[derive(Clone, Copy)]
#[repr(usize)]
pub enum Measure {
    /// Rows.
    Inserts,
    /// Rows.
    Updates,
    /// Rows.
    Deletes,
    /// Bytes of rows inserted, and of the new versions of rows updated.
    BytesWritten,
    /// Bytes of rows deleted, and of the old versions of rows updated.
    BytesRemoved,
    /// Statements that read and name the entity.
    Reads,
    /// Rows that they returned.
    RowsRead,
    /// Time for which statements on the entity ran, in microseconds.
    ExecUs,
    /// CPU time of their sessions meanwhile, in microseconds.
    CpuUs,
    /// Blocks that they did not find in shared buffers.
    BlocksRead,
}

/// How many there are.
pub const MEASURES: usize = 10;

/// So much of each measure.
pub type Amounts = [u64; MEASURES];

/// Installs hooks and asks for memory. Called once, in the postmaster, before hooks are installed that
/// look at the triggers of statements.
pub fn init() {
    memory::init();
    local::init();
    statement::install();
}

/// What this process does is no load of anybody: jobs copy and compare, and count for nobody.
pub fn ignore_this_process() {
    statement::ignore();
}

/// A table is managed from now on, or no more: every session looks at its partitions again, and the
/// triggers that count are put on or taken off where that is possible at once.
pub fn managed_changed(root: pg_sys::Oid) -> Result<()> {
    let relations = sql::query(
        "SELECT relid FROM shadowpart.tree($1)",
        &[root.into()],
        |row| Ok(row.get::<pg_sys::Oid>(1)?.unwrap_or(pg_sys::InvalidOid)),
    )?;
    for relid in relations {
        crate::pg::trigger::invalidate(relid);
    }
    triggers::put_right(root, None)
}

/// Gives the slots of tables of this database that are not managed any more to others. In a transaction.
pub fn forget_unmanaged() {
    // SAFETY: set once, when the process connects.
    let database = unsafe { pg_sys::MyDatabaseId.to_u32() };
    let (entries, _) = memory::read(database);
    let mut gone: Vec<u32> = entries.iter().map(|e| e.key.relation()).collect();
    gone.sort_unstable();
    gone.dedup();
    gone.retain(|relid| managed::lookup(pg_sys::Oid::from(*relid)).is_none());
    if !gone.is_empty() {
        memory::retain(|key| {
            key.database() != database || gone.binary_search(&key.relation()).is_err()
        });
    }
}

/// The managed table that a relation is, or is a partition of.
pub fn root_of(relid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    managed::lookup(relid).map(|m| m.root)
}

/// Whether a trigger is the one that counts.
///
/// # Safety
/// A trigger from the relation cache, or a copy of it.
pub unsafe fn counts(trigger: &pg_sys::Trigger) -> bool {
    // SAFETY: as required.
    unsafe { crate::pg::trigger::is_internal_named(trigger, spare::TRIGGER) }
}

pub use show::{partition_totals, sample};

//! Transactions on a standby whose snapshot is older than a shadow.
//!
//! The job on the primary server waits until no snapshot is left that cannot see the rows that were copied;
//! it knows nothing of those on standbys. A REPEATABLE READ transaction there may begin before the copy and
//! first read the table when the swap has been replayed. Its snapshot sees the old side as it was, and
//! nothing of the shadow. So the shadow's mark carries the id of a transaction that came after the copy; a
//! plan that meets a shadow which the snapshot is too old for is made again, without pruning by bounds, with
//! such shadows empty and the old sides owning what they owned.

use super::bounds::{self, Bound};
use super::hide;
use crate::pg::partition::Comparison;
use pgrx::pg_sys;
use std::ffi::CStr;

struct State {
    /// The plan being made has met a shadow that is younger than the snapshot.
    met: bool,
    /// Such shadows are looked past; the setting to go back to afterwards.
    looking_past: Option<bool>,
}

static mut STATE: State = State {
    met: false,
    looking_past: None,
};

/// Whether there can be a snapshot that nobody has waited for.
pub fn possible() -> bool {
    // SAFETY: plain reads of this backend's state.
    unsafe {
        pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32
            && pg_sys::RecoveryInProgress()
            && pg_sys::ActiveSnapshotSet()
    }
}

pub fn looking_past() -> bool {
    // SAFETY: a backend has one thread.
    unsafe { (*&raw const STATE).looking_past.is_some() }
}

/// Makes a plan, and makes it again, looking past shadows that are too young, where it has met one.
///
/// # Safety
/// `plan` plans the query that it is given, which it may change. No destructors in this frame: errors of
/// the planner pass through it as they are.
pub unsafe fn plan_again_if_met(
    query: *mut pg_sys::Query,
    plan: impl Fn(*mut pg_sys::Query) -> *mut pg_sys::PlannedStmt,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: a backend has one thread; the variable of `enable_partition_pruning`. A planner that runs
    // within another's work leaves what the outer one has met as it was.
    unsafe {
        if !possible() || looking_past() {
            return plan(query);
        }
        let copy = pg_sys::copyObjectImpl(query.cast()).cast();
        let outer = std::mem::replace(&mut (*&raw mut STATE).met, false);
        let mut statement = plan(query);
        if (*&raw const STATE).met {
            (*&raw mut STATE).looking_past = Some(pg_sys::enable_partition_pruning);
            pg_sys::enable_partition_pruning = false;
            statement = plan(copy);
            end();
        }
        (*&raw mut STATE).met = outer;
        statement
    }
}

/// Looks at everything again, also after an error in the middle of it.
pub fn end() {
    // SAFETY: as above.
    unsafe {
        let state = &mut *&raw mut STATE;
        state.met = false;
        if let Some(pruning) = state.looking_past.take() {
            pg_sys::enable_partition_pruning = pruning;
        }
    }
}

pub fn note() {
    // SAFETY: as above.
    unsafe { (*&raw mut STATE).met = true };
}

/// Whether a relation is a shadow whose rows the snapshot is too old for.
pub unsafe fn is_too_young(relid: pg_sys::Oid) -> bool {
    // SAFETY: the relation cache is read; arguments of triggers are C strings.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(relid);
        if relation.is_null() {
            return false;
        }
        let mut young = false;
        for mark in hide::marks_of(relation) {
            if mark.tgnargs == 4 {
                young |= !is_seen(CStr::from_ptr(*mark.tgargs.add(3)));
            }
        }
        pg_sys::RelationClose(relation);
        young
    }
}

/// Whether the active snapshot sees a transaction, given as the text of its full id.
unsafe fn is_seen(id: &CStr) -> bool {
    // SAFETY: a snapshot is active; ids of the last two billion transactions can be compared.
    unsafe {
        let Some(id) = id.to_str().ok().and_then(|t| t.parse::<u64>().ok()) else {
            return true;
        };
        let next = pg_sys::ReadNextFullTransactionId().value;
        if next.saturating_sub(id) > 1 << 30 {
            return true;
        }
        let xid = pg_sys::TransactionId::from(id as u32);
        !pg_sys::XidInMVCCSnapshot(xid, pg_sys::GetActiveSnapshot())
    }
}

/// What a primary owns when the shadows that are too young are looked past.
pub unsafe fn with_young_shadows(
    relid: pg_sys::Oid,
    mut bound: Bound,
    descriptor: pg_sys::PartitionDesc,
    comparison: &Comparison,
) -> Bound {
    // SAFETY: as above; the descriptor is pinned by the plan.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(relid);
        if relation.is_null() {
            return bound;
        }
        for mark in hide::marks_of(relation) {
            let other = CStr::from_ptr(*mark.tgargs.add(1)).to_str().unwrap_or("0");
            let other = pg_sys::Oid::from(other.parse::<u32>().unwrap_or(0));
            if is_too_young(other)
                && let Some(theirs) = bounds::of_descriptor(descriptor, other)
            {
                bound = bound.with(theirs, comparison);
            }
        }
        pg_sys::RelationClose(relation);
        bound
    }
}

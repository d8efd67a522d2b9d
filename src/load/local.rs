//! What the transaction has done so far, before it is added to the sums of the cluster.
//!
//! Once a transaction, or once a second of a long one, not once a row, the locks of shards are taken. Work
//! of a transaction that is rolled back was work: it counts, as in PostgreSQL's own statistics.

use super::memory::Counted;
use super::{Amounts, Measure, entity, memory, statement};
use load::sketch::Key;
use pgrx::pg_sys;

struct Sum {
    key: Key,
    leaf: pg_sys::Oid,
    amounts: Amounts,
}

/// More entities in one transaction than this are added up in between.
const SUMS_MAX: usize = 64;

/// A statement of a long transaction adds to the sums of the cluster after this much time, microseconds.
const OLD_US: i64 = 1_000_000;

static mut SUMS: Vec<Sum> = Vec::new();
static mut FLUSHED_US: i64 = 0;
static mut COUNTED: Counted = Counted {
    rows: 0,
    rows_estimated: 0,
    statements: 0,
    statements_estimated: 0,
};

pub fn init() {
    // SAFETY: callbacks live as long as the process; forked children inherit the registration.
    unsafe {
        pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_sub_end), std::ptr::null_mut());
    }
}

/// Notes what has been done to, or for, an entity, and in which partition if that is known; and that the
/// partition has seen as much.
pub fn note(key: &Key, leaf: pg_sys::Oid, amounts: &Amounts) {
    add(key, leaf, amounts);
    if leaf != pg_sys::InvalidOid
        && let Some(total) = entity::total(leaf)
    {
        add(&total, leaf, amounts);
    }
}

/// A row has been looked at, for so many.
pub fn row_counted(weight: u64) {
    // SAFETY: a backend has one thread.
    unsafe {
        COUNTED.rows += 1;
        COUNTED.rows_estimated += weight;
    }
}

/// A statement that reads has been looked at, for so many.
pub fn statement_counted(weight: u64) {
    // SAFETY: as above.
    unsafe {
        COUNTED.statements += 1;
        COUNTED.statements_estimated += weight;
    }
}

fn add(key: &Key, leaf: pg_sys::Oid, amounts: &Amounts) {
    // SAFETY: a backend has one thread.
    let sums = unsafe { &mut *&raw mut SUMS };
    if let Some(sum) = sums.iter_mut().rev().find(|sum| sum.key == *key) {
        for (total, more) in sum.amounts.iter_mut().zip(amounts) {
            *total = total.saturating_add(*more);
        }
        if leaf != pg_sys::InvalidOid {
            sum.leaf = leaf;
        }
        return;
    }
    if sums.len() >= SUMS_MAX {
        flush();
    }
    sums.push(Sum {
        key: *key,
        leaf,
        amounts: *amounts,
    });
}

unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _: *mut std::ffi::c_void) {
    match event {
        pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT
        | pg_sys::XactEvent::XACT_EVENT_PRE_PREPARE
        | pg_sys::XactEvent::XACT_EVENT_ABORT => {
            statement::forget_all();
            flush();
        }
        _ => {}
    }
}

unsafe extern "C-unwind" fn at_sub_end(
    event: pg_sys::SubXactEvent::Type,
    _: pg_sys::SubTransactionId,
    _: pg_sys::SubTransactionId,
    _: *mut std::ffi::c_void,
) {
    // SAFETY: the level of the subtransaction that is ending.
    let nest = unsafe { pg_sys::GetCurrentTransactionNestLevel() };
    match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => statement::forget_from(nest),
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => statement::pass_on(nest),
        _ => {}
    }
}

/// Adds to the sums of the cluster what has been noted, if the last time was some time ago.
pub fn flush_if_old() {
    // SAFETY: a backend has one thread.
    let last = unsafe { FLUSHED_US };
    if memory::now_us() - last > OLD_US {
        flush();
    }
}

fn flush() {
    // SAFETY: a backend has one thread.
    let sums = unsafe { &mut *&raw mut SUMS };
    if sums.is_empty() {
        return;
    }
    let now = memory::now_us();
    for sum in sums.iter() {
        memory::add(&sum.key, weight(&sum.amounts), &sum.amounts, sum.leaf, now);
    }
    sums.clear();
    // SAFETY: as above.
    unsafe {
        FLUSHED_US = now;
        memory::add_counted(&std::mem::take(&mut *&raw mut COUNTED));
    }
}

/// What entities are ranked by: rows written and statements that read.
fn weight(amounts: &Amounts) -> u64 {
    [
        Measure::Inserts,
        Measure::Updates,
        Measure::Deletes,
        Measure::Reads,
    ]
    .iter()
    .map(|m| amounts[*m as usize])
    .fold(0, u64::saturating_add)
}

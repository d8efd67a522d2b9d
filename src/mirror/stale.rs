//! A pair that can no longer be trusted says so in the user's own transaction: the statement goes on,
//! the pair is never swapped.

use pgrx::prelude::*;
use std::ffi::CStr;

/// Records that a pair is stale. Inserting never conflicts with anybody, whatever the isolation level.
///
/// # Safety
/// Called by a trigger of the pair.
pub unsafe fn mark(pair: i64, reason: &CStr) {
    // SAFETY: the text lives as long as the call.
    unsafe { insert(pair, reason.as_ptr()) }
}

#[pg_guard]
unsafe extern "C-unwind" fn insert(pair: i64, reason: *const std::ffi::c_char) {
    // SAFETY: a plain insert into a table of this extension that has no index. Allocates in the memory of
    // the trigger call.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"shadowpart".as_ptr(), true);
        let relid = pg_sys::get_relname_relid(c"stale".as_ptr(), schema);
        if relid == pg_sys::InvalidOid {
            return;
        }
        let relation = pg_sys::table_open(relid, pg_sys::RowExclusiveLock as i32);
        let mut values = [
            pg_sys::Datum::from(pair),
            pg_sys::Datum::from(pg_sys::cstring_to_text(reason)),
        ];
        let mut nulls = [false; 2];
        let tuple =
            pg_sys::heap_form_tuple((*relation).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::simple_heap_insert(relation, tuple);
        pg_sys::heap_freetuple(tuple);
        pg_sys::table_close(relation, pg_sys::RowExclusiveLock as i32);
    }
}

/// Whether a relation has no blocks at all, as after TRUNCATE.
#[pg_guard]
pub unsafe extern "C-unwind" fn is_empty(relid: pg_sys::Oid) -> bool {
    // SAFETY: opened and closed here.
    unsafe {
        let relation = pg_sys::try_table_open(relid, pg_sys::AccessShareLock as i32);
        if relation.is_null() {
            return true;
        }
        let blocks =
            pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM);
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
        blocks == 0
    }
}

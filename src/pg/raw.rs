//! PostgreSQL functions called without pgrx's guard, for hooks: an error of theirs must pass through
//! untouched, with constraint name, detail and cursor position, which a guard would lose. Frames that
//! call these hold nothing with a destructor.

use pgrx::pg_sys;
use std::ffi::c_char;

unsafe extern "C-unwind" {
    pub fn standard_planner(
        parse: *mut pg_sys::Query,
        query_string: *const c_char,
        cursor_options: i32,
        bound_params: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::PlannedStmt;

    pub fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: i32);

    pub fn standard_ProcessUtility(
        pstmt: *mut pg_sys::PlannedStmt,
        query_string: *const c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        params: pg_sys::ParamListInfo,
        query_env: *mut pg_sys::QueryEnvironment,
        dest: *mut pg_sys::DestReceiver,
        qc: *mut pg_sys::QueryCompletion,
    );

    pub fn InstrAlloc(n: i32, options: i32, asynchronous: bool) -> *mut pg_sys::Instrumentation;
    pub fn InstrEndLoop(instrumentation: *mut pg_sys::Instrumentation);
}

/// Whether a node gave a row: a slot with something in it.
///
/// # Safety
/// What a plan's node has returned.
pub unsafe fn holds_row(slot: *const pg_sys::TupleTableSlot) -> bool {
    // SAFETY: null, or a slot.
    unsafe { !slot.is_null() && u32::from((*slot).tts_flags) & pg_sys::TTS_FLAG_EMPTY == 0 }
}

/// `STATEMENT_TIMEOUT` of `utils/timeout.h`: the fourth of its reasons in every version from 14 to 18.
pub const STATEMENT_TIMEOUT: i32 = 3;

/// PostgreSQL functions that pgrx's bindings lack. Those that can raise an error are called by code that
/// holds nothing with a destructor.
pub mod missing {
    use pgrx::pg_sys::{Datum, List, Oid};
    unsafe extern "C-unwind" {
        pub fn enable_timeout_after(id: i32, delay_ms: i32);
        pub fn disable_timeout(id: i32, keep_indicator: bool);
        pub fn update_default_partition_oid(parent: Oid, partition: Oid);
        pub fn get_default_partition_oid(parent: Oid) -> Oid;
        pub fn get_partition_ancestors(relid: Oid) -> *mut List;
        pub fn datumCopy(value: Datum, byval: bool, len: i32) -> Datum;
    }
}

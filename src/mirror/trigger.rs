//! The functions that PostgreSQL calls for triggers. Their arguments are in the trigger itself, which
//! the relation cache holds: firing looks nothing up.
//!
//! * `shadowpart.mirror(pair, other side's OID, entity column, members as an array, key columns...)`
//! * `shadowpart.capture(pair, delta table's OID, entity column, key columns...)`
//! * `shadowpart.mark(pair, other side's OID, 'primary', 'shadow' or 'wrapper')`: marks for the planner; fires on TRUNCATE.
//! * `shadowpart.refuse_reserved(value)`: nobody may write the value with which a side holds its place.

use super::{apply, capture, stale};
use crate::pg::trigger::finfo;
use pgrx::prelude::*;
use std::ffi::CStr;

finfo!(
    pg_finfo_shadowpart_mirror,
    pg_finfo_shadowpart_capture,
    pg_finfo_shadowpart_mark,
    pg_finfo_shadowpart_refuse_reserved
);

/// Which argument of a trigger names the entity column, for those that do.
///
/// # Safety
/// A trigger of ours from the relation cache, or a copy of it.
pub unsafe fn entity_argument(trigger: &pg_sys::Trigger) -> Option<usize> {
    // SAFETY: names of triggers are C strings.
    let name = unsafe { CStr::from_ptr(trigger.tgname) }.to_bytes();
    let named = [&b"!shadowpart_mirror_"[..], b"!shadowpart_capture_"]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    named.then_some(2)
}

/// The slots of the event: (old, new), null where there is none.
unsafe fn event_slots(
    data: *const pg_sys::TriggerData,
) -> (*mut pg_sys::TupleTableSlot, *mut pg_sys::TupleTableSlot) {
    // SAFETY: a row trigger's data.
    unsafe {
        match (*data).tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => (std::ptr::null_mut(), (*data).tg_trigslot),
            pg_sys::TRIGGER_EVENT_DELETE => ((*data).tg_trigslot, std::ptr::null_mut()),
            _ => ((*data).tg_trigslot, (*data).tg_newslot),
        }
    }
}

unsafe fn trigger_data(fcinfo: pg_sys::FunctionCallInfo) -> *const pg_sys::TriggerData {
    // SAFETY: fmgr passes either nothing or a tagged node.
    unsafe {
        let node = (*fcinfo).context;
        if node.is_null() || (*node).type_ != pg_sys::NodeTag::T_TriggerData {
            not_a_trigger();
        }
        node.cast()
    }
}

#[pg_guard]
extern "C-unwind" fn not_a_trigger() {
    ereport!(
        ERROR,
        PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
        "this function belongs to triggers of shadowpart"
    );
}

/// No destructors in this frame: errors of PostgreSQL pass through it.
#[unsafe(no_mangle)]
#[doc(hidden)]
pub unsafe extern "C-unwind" fn shadowpart_mirror(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: called by the trigger manager.
    unsafe {
        let data = trigger_data(fcinfo);
        let (old, new) = event_slots(data);
        apply::apply(apply::link_of(data), old, new);
        pg_sys::Datum::from(0)
    }
}

/// No destructors in this frame: errors of PostgreSQL pass through it.
#[unsafe(no_mangle)]
#[doc(hidden)]
pub unsafe extern "C-unwind" fn shadowpart_capture(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: called by the trigger manager.
    unsafe {
        let data = trigger_data(fcinfo);
        let (old, new) = event_slots(data);
        capture::capture(data, old, new);
        pg_sys::Datum::from(0)
    }
}

/// A marked leaf is being truncated, rows of the other side's owners with it: the pair is stale.
#[unsafe(no_mangle)]
#[doc(hidden)]
pub unsafe extern "C-unwind" fn shadowpart_mark(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: called by the trigger manager.
    unsafe {
        let data = trigger_data(fcinfo);
        let trigger = (*data).tg_trigger;
        let number = |i: usize| {
            CStr::from_ptr(*(*trigger).tgargs.add(i))
                .to_str()
                .ok()
                .and_then(|t| t.parse::<i64>().ok())
                .unwrap_or(0)
        };
        // TRUNCATE of the whole table, or of a wrapper, empties both sides, which stay equal.
        if (*trigger).tgnargs > 2
            && CStr::from_ptr(*(*trigger).tgargs.add(2)) != c"wrapper"
            && !stale::is_empty(pg_sys::Oid::from(number(1) as u32))
        {
            stale::mark(number(0), c"a side was truncated");
        }
        pg_sys::Datum::from(0)
    }
}

#[unsafe(no_mangle)]
#[doc(hidden)]
#[pg_guard]
pub unsafe extern "C-unwind" fn shadowpart_refuse_reserved(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: called by the trigger manager.
    unsafe {
        let data = trigger_data(fcinfo);
        let name =
            CStr::from_ptr(pg_sys::get_rel_name((*(*data).tg_relation).rd_id)).to_string_lossy();
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
            "value is reserved while a shadow of this partition exists",
            format!("Shadow \"{name}\" holds its place among the partitions with this value.")
        );
    }
}

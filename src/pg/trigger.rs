//! Triggers as the relation cache, or a statement's copy of it, has them.

use pgrx::pg_sys;
use std::ffi::CStr;

/// All triggers of a relation; none where there is no descriptor.
///
/// # Safety
/// A descriptor of an open relation, or null; it outlives the result.
pub unsafe fn all<'a>(descriptor: *const pg_sys::TriggerDesc) -> &'a [pg_sys::Trigger] {
    // SAFETY: the array has the length that is stated.
    unsafe {
        if descriptor.is_null() {
            return &[];
        }
        std::slice::from_raw_parts((*descriptor).triggers, (*descriptor).numtriggers as usize)
    }
}

/// Whether a trigger is an internal one whose name begins like this. Most names fail at the first byte.
///
/// # Safety
/// A trigger from `all`; the prefix is not empty.
pub unsafe fn is_internal_named(trigger: &pg_sys::Trigger, prefix: &CStr) -> bool {
    // SAFETY: names of triggers are C strings.
    unsafe {
        trigger.tgisinternal
            && *trigger.tgname == *prefix.as_ptr()
            && CStr::from_ptr(trigger.tgname)
                .to_bytes()
                .starts_with(prefix.to_bytes())
    }
}

//! Triggers as the relation cache, or a statement's copy of it, has them.

use super::error::Result;
use super::sql;
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

/// Tells every backend that a relation's triggers, bound or place have changed.
pub fn invalidate(relid: pg_sys::Oid) {
    // SAFETY: a no-op for a relation that is gone would raise; callers pass relations that they hold a
    // lock on, or have just found in the catalog.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relid) }
}

/// Removes the internal triggers of a relation whose names begin like this. The caller holds a lock that
/// keeps writers out, so that no event that names one is queued anywhere.
pub fn remove(relid: pg_sys::Oid, prefix: &str) -> Result<()> {
    sql::execute(
        "WITH gone AS (
             DELETE FROM pg_catalog.pg_trigger
              WHERE tgrelid = $1 AND starts_with(tgname, $2) AND tgisinternal RETURNING oid)
         DELETE FROM pg_catalog.pg_depend d USING gone
          WHERE d.classid = 'pg_catalog.pg_trigger'::regclass AND d.objid = gone.oid",
        &[relid.into(), prefix.into()],
    )?;
    invalidate(relid);
    Ok(())
}

/// Tells the function manager that these functions are called in its present way.
macro_rules! finfo {
    ($($name:ident),+) => { $(
        #[unsafe(no_mangle)]
        #[doc(hidden)]
        pub extern "C" fn $name() -> &'static pg_sys::Pg_finfo_record {
            const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
            &V1
        }
    )+ };
}
pub(crate) use finfo;

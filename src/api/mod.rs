//! What SQL calls: checks first, under the caller's own identity, then a registration or a request.
//!
//! Everything that can be refused is refused here, before anything has changed and without a lock on
//! the table: a lock would outlive the call and be in the way of the worker.

pub mod checks;
mod functions;
mod query;

use crate::pg::error::{Error, Result};
use pgrx::prelude::*;

/// One clear error when the library is not preloaded: nothing would hide what must not be seen.
pub fn require_preload() -> Result<()> {
    if crate::utility::is_installed() {
        return Ok(());
    }
    Err(Error::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "shadowpart is not in shared_preload_libraries",
    )
    .detail("Its planner hook has to be in every process before a partition can have a shadow.")
    .hint("Add shadowpart to shared_preload_libraries in postgresql.conf and restart the server."))
}

/// Runs catalog reads of this extension for a caller who has no privilege on its tables. Names and
/// operators are those of PostgreSQL, whatever the caller's search_path offers.
pub fn as_superuser<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: set back on both ways out; an error that unwinds aborts the (sub)transaction, which sets
    // the user back too. Only constant SQL of this extension runs inside.
    unsafe {
        let mut user = pg_sys::InvalidOid;
        let mut context = 0;
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        pg_sys::SetUserIdAndSecContext(
            pg_sys::BOOTSTRAP_SUPERUSERID.into(),
            context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32,
        );
        let level = pg_sys::NewGUCNestLevel();
        pg_sys::set_config_option(
            c"search_path".as_ptr(),
            c"pg_catalog, pg_temp".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
        let outcome = work();
        pg_sys::AtEOXact_GUC(true, level);
        pg_sys::SetUserIdAndSecContext(user, context);
        outcome
    }
}

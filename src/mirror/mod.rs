//! Writes reach both sides of a pair.
//!
//! Owns the trigger functions and the raw writes into the other side: `trigger` is what PostgreSQL
//! calls for each row, `apply` decides what the other side needs, `side` reads and writes one relation
//! without executor, constraints or triggers, `capture` notes keys while a shadow is being built,
//! `quiet` spares statements the triggers that could not fire.
//! Called by users' statements (through the triggers) and by `pair` (catch-up). Knows nothing of jobs.

mod apply;
mod capture;
mod quiet;
pub mod side;
mod stale;
mod trigger;

pub use apply::{Ends, Link, copy_row, level_key, link_between};
use pgrx::prelude::*;

/// Installs the callbacks that close what a transaction opened. Called once, in the postmaster.
pub fn init() {
    // SAFETY: callbacks live as long as the process; forked children inherit the registration.
    unsafe {
        pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_subtransaction_end), std::ptr::null_mut());
    }
    quiet::install();
}

/// Closes what triggers of this transaction hold open. Utility statements need that: TRUNCATE and ALTER
/// TABLE refuse a relation that their own session has open.
pub fn release() {
    apply::close_all();
    capture::close_all();
}

unsafe extern "C-unwind" fn at_transaction_end(
    event: pg_sys::XactEvent::Type,
    _: *mut std::ffi::c_void,
) {
    match event {
        pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT
        | pg_sys::XactEvent::XACT_EVENT_PARALLEL_PRE_COMMIT
        | pg_sys::XactEvent::XACT_EVENT_PRE_PREPARE => release(),
        pg_sys::XactEvent::XACT_EVENT_ABORT | pg_sys::XactEvent::XACT_EVENT_PARALLEL_ABORT => {
            apply::forget_all();
            capture::forget_all();
            crate::planner::at_abort();
        }
        _ => {}
    }
}

unsafe extern "C-unwind" fn at_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    _: pg_sys::SubTransactionId,
    _: pg_sys::SubTransactionId,
    _: *mut std::ffi::c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        apply::after_subtransaction_abort();
        crate::planner::at_abort();
    }
}

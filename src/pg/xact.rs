//! Transactions in a background worker: one that fails is rolled back and its error returned.

use super::error::{Error, Result};
use super::raw;
use pgrx::prelude::*;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

/// Runs `work` in a transaction of its own, with an active snapshot.
///
/// An error, returned or raised, rolls it back; the worker goes on.
pub fn transaction<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: only called outside a transaction, in a worker's main loop; the abort below undoes
    // whatever the work had begun, whichever way it failed, exactly as the main loop of
    // PostgreSQL's own workers does.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
    }
    // SAFETY: inside the transaction begun above; what is pushed is popped, or goes with the abort.
    let body = || unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let value = work()?;
        disarm();
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
        Ok(value)
    };
    let outcome = PgTryBuilder::new(AssertUnwindSafe(body))
        .catch_others(|error| Err(Error::caught(error)))
        .catch_rust_panic(|error| Err(Error::caught(error)))
        .execute();
    if outcome.is_err() {
        // SAFETY: as the main loop of PostgreSQL's own workers does.
        unsafe {
            disarm();
            pg_sys::AbortOutOfAnyTransaction();
            pg_sys::FlushErrorState();
        }
    }
    outcome
}

/// Bounds everything the transaction does from here to its end: lock waits and work together.
/// Past it the transaction fails with SQLSTATE 57014.
pub fn arm(limit: Duration) {
    // SAFETY: the statement timeout is registered in every process that has connected to a database,
    // and nothing else uses it in a worker; its handler cancels the query as SIGINT does.
    unsafe {
        raw::missing::enable_timeout_after(raw::STATEMENT_TIMEOUT, limit.as_millis().max(1) as i32);
    }
}

/// Takes the bound away again.
pub fn disarm() {
    // SAFETY: disabling a timeout that is not active is harmless.
    unsafe {
        raw::missing::disable_timeout(raw::STATEMENT_TIMEOUT, false);
        // A timeout that fired in the last moment must not cancel what comes next.
        pg_sys::QueryCancelPending = 0;
    }
}

/// Milliseconds since `start`, with fractions.
pub fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

/// The transaction is committed without waiting for the disk. For steps that hold others up: their
/// record precedes, in the log, that of every transaction that depends on it, so a crash loses the
/// step only together with everything that came after it.
pub fn commit_without_wait() {
    super::sql::execute("SET LOCAL synchronous_commit = off", &[]).expect("a constant statement");
}

/// Runs `work` in a subtransaction: an error rolls only that back and is returned.
pub fn attempt<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: begun and ended in pairs; memory context and resource owner are set back, as PL/pgSQL does
    // around a block with an exception handler.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::CurrentMemoryContext = context;
        let outcome = PgTryBuilder::new(AssertUnwindSafe(work))
            .catch_others(|error| Err(Error::caught(error)))
            .catch_rust_panic(|error| Err(Error::caught(error)))
            .execute();
        if outcome.is_ok() {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::CurrentMemoryContext = context;
        pg_sys::CurrentResourceOwner = owner;
        outcome
    }
}

/// Runs `work` with a snapshot taken now.
pub fn fresh_snapshot<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: pushed and popped here; an error aborts the transaction, which pops it.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let value = work()?;
        pg_sys::PopActiveSnapshot();
        Ok(value)
    }
}

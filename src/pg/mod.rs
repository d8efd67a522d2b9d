//! The few wrappers around PostgreSQL's C functions that the other folders share: transactions that
//! a background worker can survive, deadlines, latches, SQL with parameters, and errors with
//! SQLSTATE, detail and hint. Nothing here knows what a shadow is.

pub mod disk;
pub mod error;
pub mod latch;
pub mod list;
pub mod partition;
pub mod pins;
pub mod raw;
pub mod sql;
pub mod trigger;
pub mod xact;

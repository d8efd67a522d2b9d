//! What to move, where and when: the pure part of the autopilot.
//!
//! - [`resource`]: what a partition can run out of, and amounts of it;
//! - [`capacity`]: how much a partition can bear, configured or learned;
//! - [`estimate`]: how long a move takes and how long it stalls writers, from moves already made;
//! - [`selection`]: the entities to move and their targets: enough, and with the fewest bytes;
//! - [`policy`]: what the autopilot may do, thresholds, cooldowns, budgets;
//! - [`machine`]: one tick: what is seen and remembered into decisions, each with its reason;
//! - [`training`]: the windows that our own migrations changed.
//!
//! Dependencies point down this list. Nothing here touches PostgreSQL, reads a clock or draws a
//! random number: time is given by the caller, in microseconds since any one epoch, and the same
//! input gives the same output. Nothing panics on any input: what is not a number, infinite or
//! negative counts as missing.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable
    )
)]

mod words;

pub mod capacity;
pub mod estimate;
pub mod machine;
pub mod policy;
pub mod resource;
pub mod selection;
pub mod training;

/// A minute in microseconds, the unit of every time in this crate.
pub const MINUTE_US: i64 = 60_000_000;
/// An hour in microseconds.
pub const HOUR_US: i64 = 60 * MINUTE_US;
/// A day in microseconds.
pub const DAY_US: i64 = 24 * HOUR_US;

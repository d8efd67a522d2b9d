//! Who loads the database, and how much: the pure part.
//!
//! - [`sketch`]: the entities with the most load, in a fixed block of memory;
//! - [`values`]: long values by their digest, in another such block;
//! - [`rates`]: decayed counters, events per second over one minute, five minutes and an hour;
//! - [`sampling`]: count every event of a quiet table and one in 2^k of a busy one, without bias;
//! - [`meter`]: how many events happen per second, as many processes see it together;
//! - [`history`]: cumulative counters into deltas, deltas into coarser rows, rows into the bin;
//! - [`minutes`]: two looks at the counters of all entities into the rows of one minute;
//! - [`clock`]: time that never runs backwards, made of time that may.
//!
//! Nothing here touches PostgreSQL, takes a lock or reads a clock. Time is always given by the
//! caller, in microseconds since any epoch. Nothing panics: this code runs inside statements of
//! people who did not ask for statistics.

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

pub mod clock;
pub mod history;
pub mod meter;
pub mod minutes;
pub mod rates;
mod region;
pub mod sampling;
pub mod sketch;
pub mod values;

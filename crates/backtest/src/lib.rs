//! What the predictor would have said: walk-forward over a recorded trace.
//!
//! [`run`] feeds a [`Trace`] slot by slot to the [`Predictor`](predict::Predictor) that the worker
//! uses, retrains it every day, and holds what it said against what came: a forecast never sees
//! anything later than the slot that it was made in. The [`Report`]'s figures are defined in
//! docs/prediction.md.
//!
//! - [`trace`]: loads of entities on a grid;
//! - [`file`]: traces from CSV files, for the command line;
//! - [`report`]: the figures;
//! - `walk`, `units`, `moves`: the walk, the trigger's record, the selection's.

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

pub mod file;
mod moves;
pub mod report;
pub mod trace;
mod units;
mod walk;

pub use report::Report;
pub use trace::Trace;
pub use walk::{Options, Refused, run, run_with};

//! Which partition will saturate, which entities make it, and how sure that is: the pure part.
//!
//! [`Predictor`] is what a worker holds: it takes the loads of one slot after the other, is told to
//! retrain when a day has passed, and says at any time what comes. The rest is what it is made of:
//!
//! - [`calendar`]: slots, days and horizons;
//! - [`store`]: the recent past of every series, in bounded memory;
//! - [`forecast`]: what is said about entities and units;
//! - [`metrics`]: how good that was, as pure functions of probabilities and outcomes;
//! - [`growth`]: sizes that grow slowly, by their slope.
//!
//! A *unit* is a resource of a partition (its write rows, its CPU, ...) with a capacity. What the
//! resources are, and that the confidence of a partition is the largest of its units', is the
//! caller's business.
//!
//! Nothing here touches PostgreSQL, takes a lock, reads a clock or starts a thread. The same pushes
//! with the same seed give the same forecasts, to the last bit. Nothing panics, whatever the data.

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

pub mod calendar;
mod calibration;
pub mod config;
mod features;
pub mod forecast;
mod gbm;
pub mod growth;
pub mod metrics;
mod predictor;
mod random;
mod rows;
mod series_model;
pub mod store;
mod trigger;

pub use calendar::{Calendar, HORIZONS};
pub use config::Config;
pub use forecast::{Alarm, Driver, EntityForecast, Interval, Stage, UnitForecast};
pub use predictor::{Decision, Predictor, PushError, Pushed, RestoreError, SaveError, Verdict};
pub use random::mix;
pub use store::SeriesId;

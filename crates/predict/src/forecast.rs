//! What is said about entities and units.

use serde::{Deserialize, Serialize};

use crate::calendar::HORIZONS;
use crate::store::SeriesId;

/// A forecast value with the range that eight of ten outcomes are expected in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// One of ten outcomes lies below.
    pub low: f64,
    /// The forecast.
    pub mid: f64,
    /// One of ten outcomes lies above.
    pub high: f64,
}

/// The load of an entity in the slots that begin 5, 15 and 60 minutes after the newest one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EntityForecast {
    /// Whose.
    pub id: SeriesId,
    /// The load in the newest slot, if it was measured.
    pub now: Option<f64>,
    /// The load at each of [`HORIZON_MINUTES`](crate::calendar::HORIZON_MINUTES), in the unit of
    /// the series. All equal to the last value while too little is known.
    pub at: [Interval; HORIZONS],
    /// The mean load at the time of day that the trigger's horizon covers, over the last seven
    /// days, if any of them was measured. Together with `at` it ranks entities for a move.
    pub same_time: Option<f64>,
}

/// Which model a probability comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// No model yet: the reactive rule, with a probability of at most one half.
    Reactive,
    /// The logistic regression: less than a week is known of this unit.
    Linear,
    /// The forest, mixed with the logistic regression.
    Forest,
}

/// Why somebody should look at a unit now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Alarm {
    /// No reason.
    None,
    /// The probability was high in enough of the newest slots ([`Config`](crate::Config)).
    Predicted,
    /// The reactive net: the averaged load is at least .95 of the capacity, for two slots in a row.
    Reactive,
}

/// How much a feature contributes to a probability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Driver {
    /// The name of the feature.
    pub name: &'static str,
    /// By how much the probability exceeds what it would be if the feature had its typical value
    /// (the mean over the training rows). Negative if the feature speaks against saturation.
    pub contribution: f64,
}

/// What is said about a unit: will its averaged load reach its capacity within the horizon?
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UnitForecast {
    /// Which unit.
    pub unit: SeriesId,
    /// When the newest slot begins, in microseconds.
    pub at_us: i64,
    /// The averaged load now, if any of its slots was measured.
    pub now: Option<f64>,
    /// The capacity, given or learned; none if neither.
    pub capacity: Option<f64>,
    /// The capacity was learned from the unit's past.
    pub capacity_learned: bool,
    /// The load at each of [`HORIZON_MINUTES`](crate::calendar::HORIZON_MINUTES), as for entities.
    pub at: [Interval; HORIZONS],
    /// The largest averaged load within the horizon.
    pub peak: Interval,
    /// The calibrated probability that it reaches the capacity, in [0, 1]. Zero without a capacity
    /// or a load.
    pub probability: f64,
    /// Which model it comes from.
    pub stage: Stage,
    /// Is there reason to act now?
    pub alarm: Alarm,
    /// The load is at least .8 of the capacity: what a reactive system goes by.
    pub warm: bool,
    /// What contributes most to the probability, the largest (by amount) first; at most five.
    pub drivers: Vec<Driver>,
}

//! What a predictor is told when it is made. The defaults are what the documentation's figures were
//! measured with.

use serde::{Deserialize, Serialize};

use crate::calendar::Calendar;

/// The settings of a [`Predictor`](crate::Predictor).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The grid of all series.
    pub calendar: Calendar,
    /// Makes everything that is drawn at random repeatable.
    pub seed: u64,
    /// How far ahead saturation is predicted, in minutes of the calendar. Shorter horizons are much
    /// harder to predict; longer ones tell less about when.
    pub trigger_minutes: u32,
    /// Over how many minutes of the calendar the load of a unit is averaged before it is compared
    /// with its capacity.
    pub smooth_minutes: u32,
    /// At most so many series of entities (9 KB each at eight days of five-minute slots).
    pub entities_max: usize,
    /// At most so many units.
    pub units_max: usize,
    /// At most so many training rows of each kind, and as many pairs for the calibration.
    pub rows_max: usize,
    /// Training rows are not older than so many days.
    pub rows_days: u32,
    /// Where a unit has no capacity, this quantile of its averaged load over the days in memory
    /// stands for it.
    pub learned_quantile: f64,
    /// An alarm needs a probability of at least this...
    pub alarm_probability: f64,
    /// ... in so many...
    pub alarm_ticks: u32,
    /// ... of so many newest slots (at most 8).
    pub alarm_window: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            calendar: Calendar::default(),
            seed: 1,
            trigger_minutes: 60,
            smooth_minutes: 15,
            entities_max: 20_000,
            units_max: 2_000,
            rows_max: 20_000,
            rows_days: 14,
            learned_quantile: 0.95,
            alarm_probability: 0.7,
            alarm_ticks: 2,
            alarm_window: 3,
        }
    }
}

impl Config {
    /// The trigger's horizon, in slots.
    pub fn trigger_slots(&self) -> i64 {
        self.calendar.slots(self.trigger_minutes)
    }

    /// The slots that a unit's load is averaged over.
    pub fn smooth_slots(&self) -> i64 {
        self.calendar.slots(self.smooth_minutes)
    }
}

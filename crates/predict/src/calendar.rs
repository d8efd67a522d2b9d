//! Time as the predictor counts it: slots, days and weeks.
//!
//! A slot is a stretch of time of equal length, numbered from the epoch of the caller's clock. How
//! many slots make a day and a week is configuration: a replay that runs a thousand times as fast
//! as life has days of minutes. Everything else that has a length (horizons, windows) is given in
//! minutes of such a day and becomes at least one slot.

use serde::{Deserialize, Serialize};

/// How many horizons entities are forecast at.
pub const HORIZONS: usize = 3;

/// The horizons of entity forecasts, in minutes.
pub const HORIZON_MINUTES: [u32; HORIZONS] = [5, 15, 60];

/// A day has at least this many slots: with fewer there is no time of day.
pub const SLOTS_PER_DAY_MIN: u32 = 4;

/// A day has at most this many slots, one a minute: a bound on memory and on the time that a
/// feature takes.
pub const SLOTS_PER_DAY_MAX: u32 = 1_440;

/// The grid that all series lie on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calendar {
    step_us: i64,
    slots_per_day: u32,
    slots_per_week: u32,
}

impl Default for Calendar {
    /// Slots of five minutes.
    fn default() -> Self {
        Calendar {
            step_us: 300_000_000,
            slots_per_day: 288,
            slots_per_week: 7 * 288,
        }
    }
}

impl Calendar {
    /// A calendar of slots that are `step_us` microseconds long, of which so many make a day.
    /// A week has seven days. Lengths out of bounds become the nearest within.
    pub fn new(step_us: i64, slots_per_day: u32) -> Calendar {
        let slots_per_day = slots_per_day.clamp(SLOTS_PER_DAY_MIN, SLOTS_PER_DAY_MAX);
        Calendar {
            step_us: step_us.max(1),
            slots_per_day,
            slots_per_week: 7 * slots_per_day,
        }
    }

    /// The calendar of real days for slots of this length (microseconds). Slots that are too short
    /// or too long for it ([`SLOTS_PER_DAY_MIN`], [`SLOTS_PER_DAY_MAX`]) get longer or shorter days.
    pub fn of_step(step_us: i64) -> Calendar {
        let step_us = step_us.max(1);
        let slots = (86_400_000_000 + step_us / 2) / step_us;
        Calendar::new(step_us, u32::try_from(slots).unwrap_or(SLOTS_PER_DAY_MAX))
    }

    /// The length of a slot, in microseconds.
    pub fn step_us(&self) -> i64 {
        self.step_us
    }

    /// How many slots make a day.
    pub fn slots_per_day(&self) -> u32 {
        self.slots_per_day
    }

    /// How many slots make a week.
    pub fn slots_per_week(&self) -> u32 {
        self.slots_per_week
    }

    /// The slot that a time (microseconds) lies in.
    pub fn slot(&self, at_us: i64) -> i64 {
        at_us.div_euclid(self.step_us)
    }

    /// When a slot begins, in microseconds.
    pub fn start_us(&self, slot: i64) -> i64 {
        slot.saturating_mul(self.step_us)
    }

    /// How many slots so many minutes of the calendar's day are: the nearest number, at least one.
    pub fn slots(&self, minutes: u32) -> i64 {
        let slots = (u64::from(minutes) * u64::from(self.slots_per_day) + 720) / 1_440;
        i64::try_from(slots.max(1)).unwrap_or(1)
    }

    /// The horizons of entity forecasts, in slots.
    pub fn horizons(&self) -> [i64; HORIZONS] {
        HORIZON_MINUTES.map(|minutes| self.slots(minutes))
    }

    /// Where in its day a slot lies, from 0 up to 1.
    pub fn day_fraction(&self, slot: i64) -> f64 {
        slot.rem_euclid(i64::from(self.slots_per_day)) as f64 / f64::from(self.slots_per_day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_slots_of_the_calendar() {
        let five = Calendar::default();
        assert_eq!(five.horizons(), [1, 3, 12]);
        let hours = Calendar::of_step(3_600_000_000);
        assert_eq!((hours.slots_per_day(), hours.horizons()), (24, [1, 1, 1]));
        // A replay: a day in 24 slots of a second.
        let replay = Calendar::new(1_000_000, 24);
        assert_eq!((replay.slots(60), replay.slots_per_week()), (1, 168));
        assert_eq!(replay.slot(-1), -1);
        assert_eq!(replay.slot(1_999_999), 1);
    }

    #[test]
    fn absurd_lengths_are_bounded() {
        assert_eq!(Calendar::new(0, 0).slots_per_day(), SLOTS_PER_DAY_MIN);
        assert_eq!(Calendar::of_step(1).slots_per_day(), SLOTS_PER_DAY_MAX);
        assert_eq!(
            Calendar::of_step(i64::MAX).slots_per_day(),
            SLOTS_PER_DAY_MIN
        );
    }
}

//! What a worker holds: series in, forecasts out.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::calendar::HORIZONS;
use crate::config::Config;
use crate::forecast::{Alarm, EntityForecast, Interval, Stage, UnitForecast};
use crate::store::{SeriesId, Store};

/// Days of the past that series are kept for: a week of features and the horizon.
const RING_DAYS: i64 = 8;

/// A unit keeps at most so many excluded stretches; the oldest are forgotten first.
const EXCLUDED_MAX: usize = 64;

/// What a push did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The slot that is the newest now.
    pub slot: i64,
    /// Values that were dropped because there are too many series.
    pub dropped: u64,
    /// A day has passed since the last training: call [`Predictor::retrain`].
    pub retrain_due: bool,
}

/// Why a push did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// The time does not lie in a later slot than the newest one.
    NotLater {
        /// The slot that the time lies in.
        slot: i64,
        /// The newest slot.
        newest: i64,
    },
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PushError::NotLater { slot, newest } => {
                write!(f, "slot {slot} is not later than the newest one, {newest}")
            }
        }
    }
}

impl std::error::Error for PushError {}

/// Why a state could not be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaveError(String);

impl fmt::Display for SaveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not encode the predictor: {}", self.0)
    }
}

impl std::error::Error for SaveError {}

/// Why a state could not be restored. Begin with a new predictor and replay the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// It was written by another version of this crate, or is none at all.
    Version,
    /// It was made with another calendar, horizon or average.
    Config,
    /// It is damaged.
    Damaged(String),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Version => f.write_str("the predictor was saved by another version"),
            RestoreError::Config => f.write_str("the predictor was saved with other settings"),
            RestoreError::Damaged(why) => write!(f, "the saved predictor is damaged: {why}"),
        }
    }
}

impl std::error::Error for RestoreError {}

/// What became of a candidate model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// It is the current model now.
    pub promoted: bool,
    /// Why, or why not, in words.
    pub reason: String,
    /// Rows it was trained on.
    pub rows: usize,
    /// Rows of the newest day it was judged on.
    pub judged: usize,
    /// The candidate's score on those rows: smaller is better.
    pub candidate: Option<f64>,
    /// The score of the current model, if there is one.
    pub current: Option<f64>,
    /// The score of what needs no model.
    pub baseline: Option<f64>,
}

/// What a training led to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The trigger. Scores are Brier scores; the baseline is the reactive rule (load at least .8 of
    /// the capacity), which gets the benefit of the frequencies that it should say.
    pub trigger: Verdict,
    /// The forecasts of entities. Scores are rMAE over all horizons; the baseline is the last value
    /// and scores 1.
    pub entities: Verdict,
}

/// What is known of a unit besides its load.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Unit {
    capacity: Option<f64>,
    members: Vec<SeriesId>,
    /// Stretches of slots (from, to) that do not become training rows.
    excluded: Vec<(i64, i64)>,
}

/// The predictor of one database: see the [crate] documentation.
#[derive(Clone, Debug)]
pub struct Predictor {
    config: Config,
    entities: Store,
    loads: Store,
    units: BTreeMap<SeriesId, Unit>,
}

impl Predictor {
    /// A predictor that knows nothing yet.
    pub fn new(config: Config) -> Predictor {
        let ring = RING_DAYS * i64::from(config.calendar.slots_per_day());
        let ring = (ring + config.trigger_slots() + config.smooth_slots()) as usize;
        Predictor {
            config,
            entities: Store::new(ring, config.entities_max),
            loads: Store::new(ring, config.units_max),
            units: BTreeMap::new(),
        }
    }

    /// The settings it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The newest slot, if anything was pushed.
    pub fn newest(&self) -> Option<i64> {
        self.loads.newest()
    }

    /// Makes a unit known, or changes it: its capacity, in the measure of its series (none: learn
    /// it), and the series of the entities that its load comes from. Returns false if there are too
    /// many units already.
    pub fn set_unit(
        &mut self,
        unit: SeriesId,
        capacity: Option<f64>,
        members: &[SeriesId],
    ) -> bool {
        if !self.units.contains_key(&unit) && self.units.len() >= self.config.units_max {
            return false;
        }
        let entry = self.units.entry(unit).or_default();
        entry.capacity = capacity.filter(|capacity| capacity.is_finite() && *capacity > 0.0);
        entry.members = members.to_vec();
        true
    }

    /// Forgets a unit and its series.
    pub fn remove_unit(&mut self, unit: SeriesId) {
        self.units.remove(&unit);
        self.loads.remove(unit);
    }

    /// Forgets the series of an entity. Those without any value for eight days go by themselves.
    pub fn remove_entity(&mut self, id: SeriesId) {
        self.entities.remove(id);
    }

    /// The load of a unit between these times (microseconds; the end may lie in the future) is our
    /// own doing, say because we moved entities away: what was forecast then, and about then, is
    /// neither learned from nor counted in the calibration.
    pub fn exclude(&mut self, unit: SeriesId, from_us: i64, to_us: i64) {
        let calendar = self.config.calendar;
        if let Some(unit) = self.units.get_mut(&unit) {
            if unit.excluded.len() >= EXCLUDED_MAX {
                unit.excluded.remove(0);
            }
            unit.excluded
                .push((calendar.slot(from_us), calendar.slot(to_us)));
        }
    }

    /// Takes the loads of the slot that a time (microseconds) lies in: of entities and of units, in
    /// any order. The slot is complete; it must be later than the newest one, and slots left out in
    /// between are missing. So is a series that is not mentioned, and a value that is no load (not a
    /// number, infinite, negative). Loads of units that are not known ([`set_unit`](Self::set_unit))
    /// are dropped.
    ///
    /// This is where training rows are collected and outcomes of earlier forecasts are settled, so
    /// the history is replayed through it too.
    pub fn push(
        &mut self,
        at_us: i64,
        entities: &[(SeriesId, f64)],
        units: &[(SeriesId, f64)],
    ) -> Result<Pushed, PushError> {
        let slot = self.config.calendar.slot(at_us);
        if let Some(newest) = self.newest().filter(|newest| slot <= *newest) {
            return Err(PushError::NotLater { slot, newest });
        }
        self.entities.advance(slot);
        self.loads.advance(slot);
        let mut dropped = 0;
        for (id, load) in entities {
            dropped += u64::from(!self.entities.put(*id, *load));
        }
        for (unit, load) in units {
            if self.units.contains_key(unit) {
                dropped += u64::from(!self.loads.put(*unit, *load));
            }
        }
        Ok(Pushed {
            slot,
            dropped,
            retrain_due: false,
        })
    }

    /// Trains candidates on the rows before the newest day and makes each the current model if it is
    /// better there than the current one and than what needs no model. Takes less than a second; does
    /// nothing while there is too little data.
    pub fn retrain(&mut self) -> Decision {
        Decision::default()
    }

    /// Forecasts the loads of these entities; unknown ones are left out.
    pub fn forecast_entities(&self, ids: &[SeriesId]) -> Vec<EntityForecast> {
        let forecast = |id: &SeriesId| {
            let view = self.entities.view(*id)?;
            let now = f64::from(view.lag(0));
            let value = if now.is_nan() { view.mean(0, 3)? } else { now };
            let interval = Interval {
                low: value,
                mid: value,
                high: value,
            };
            Some(EntityForecast {
                id: *id,
                now: (!now.is_nan()).then_some(now),
                at: [interval; HORIZONS],
                same_time: None,
            })
        };
        ids.iter().filter_map(forecast).collect()
    }

    /// Says of every unit, in order of their ids, whether it will saturate.
    pub fn forecast_units(&self) -> Vec<UnitForecast> {
        let at_us = self.config.calendar.start_us(self.newest().unwrap_or(0));
        let forecast = |(id, unit): (&SeriesId, &Unit)| {
            let now = self
                .loads
                .view(*id)
                .and_then(|view| view.mean(0, self.config.smooth_slots()));
            let ratio = unit
                .capacity
                .zip(now)
                .map_or(0.0, |(capacity, now)| now / capacity);
            let value = now.unwrap_or(0.0);
            UnitForecast {
                unit: *id,
                at_us,
                now,
                capacity: unit.capacity,
                capacity_learned: false,
                peak: Interval {
                    low: value,
                    mid: value,
                    high: value,
                },
                probability: (ratio / 2.0).clamp(0.0, 0.5),
                stage: Stage::Reactive,
                alarm: if ratio >= 0.95 {
                    Alarm::Reactive
                } else {
                    Alarm::None
                },
                warm: ratio >= 0.8,
                drivers: Vec::new(),
            }
        };
        self.units.iter().map(forecast).collect()
    }

    /// Everything that was learned (models, calibration, training rows, settings of units), as bytes
    /// in the format of [`postcard`] behind a version. The series are not part of it: after
    /// [`restore`](Self::restore) push the last eight days of the history.
    pub fn save(&self) -> Result<Vec<u8>, SaveError> {
        postcard::to_stdvec(&self.units).map_err(|error| SaveError(error.to_string()))
    }

    /// Makes a predictor of what [`save`](Self::save) gave. The settings may be others, but for the
    /// calendar and the minutes of the trigger and its average.
    pub fn restore(bytes: &[u8], config: Config) -> Result<Predictor, RestoreError> {
        let mut predictor = Predictor::new(config);
        predictor.units = postcard::from_bytes(bytes)
            .map_err(|error| RestoreError::Damaged(error.to_string()))?;
        Ok(predictor)
    }
}

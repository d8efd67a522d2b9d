//! What a worker holds: series in, forecasts out.
//!
//! [`Predictor`] owns the recent past and everything that was learned from it. A push writes the
//! loads of a slot, settles what was said an horizon ago (training rows and calibration pairs get
//! their outcome), describes every unit and a sample of the series, and scores the units with the
//! current model: what the calibration learns from was said before its outcome was known. The parts:
//!
//! - `outcome`: what is answered;
//! - `learn`: rows, pairs and models, and when they are trained;
//! - `promotion`: candidates, and what they have to be better than;
//! - `say`: forecasts;
//! - `state`: what outlives the process.

mod learn;
mod outcome;
mod promotion;
mod say;
mod state;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::features::unit::{self, Features, Loads, Spans};
use crate::store::{SeriesId, Store, View};
use learn::Learner;
pub use outcome::{Decision, PushError, Pushed, RestoreError, SaveError, Verdict};

/// Days of the past that series are kept for: a week of features and the horizon.
const RING_DAYS: i64 = 8;

/// A unit keeps at most so many excluded stretches; the oldest are forgotten first.
const EXCLUDED_MAX: usize = 64;

/// Of so many newest slots the probabilities are kept.
const TICKS_MAX: usize = 8;

/// Slots are not further from zero than this.
const SLOT_MAX: i64 = 1 << 60;

/// What is known of a unit besides its load.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Unit {
    /// As it was set.
    capacity: Option<f64>,
    /// As it was learned.
    learned: Option<f64>,
    members: Vec<SeriesId>,
    kind: u8,
    /// Stretches of slots (from, to) that are not learned from.
    excluded: Vec<(i64, i64)>,
    /// The calibrated probabilities of the newest slots, the newest last; NaN where there was none.
    ticks: Vec<f32>,
}

impl Unit {
    fn capacity(&self) -> Option<f64> {
        self.capacity.or(self.learned)
    }

    fn is_excluded(&self, from: i64, to: i64) -> bool {
        self.excluded
            .iter()
            .any(|(begin, end)| *begin <= to && from <= *end)
    }
}

/// What is known of a unit as of the newest slot.
#[derive(Clone, Debug)]
struct Present {
    unit: SeriesId,
    features: Features,
    /// The averaged load now.
    now: f64,
    capacity: f64,
    /// How many slots ago it had its first load.
    age: i64,
    /// What the model says, before it is calibrated. None without a model.
    score: Option<f64>,
    /// What is said.
    probability: f64,
}

/// The predictor of one database: see the [crate] documentation.
#[derive(Debug)]
pub struct Predictor {
    config: Config,
    spans: Spans,
    entities: Store,
    loads: Store,
    averaged: Store,
    units: BTreeMap<SeriesId, Unit>,
    /// The kinds of entities' series, where they are not 0.
    kinds: BTreeMap<SeriesId, u8>,
    learner: Learner,
    /// The units that have a load and a capacity, in order of their ids.
    present: Vec<Present>,
}

impl Predictor {
    /// A predictor that knows nothing yet.
    pub fn new(config: Config) -> Predictor {
        let spans = Spans {
            calendar: config.calendar,
            smooth: config.smooth_slots(),
            horizon: config.trigger_slots(),
        };
        let ring = RING_DAYS * i64::from(config.calendar.slots_per_day());
        let ring = (ring + spans.horizon + spans.smooth) as usize;
        Predictor {
            config,
            spans,
            entities: Store::new(ring, config.entities_max),
            loads: Store::new(ring, config.units_max),
            averaged: Store::new(ring, config.units_max),
            units: BTreeMap::new(),
            kinds: BTreeMap::new(),
            learner: Learner::new(&config),
            present: Vec::new(),
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
        let kind = entry.kind;
        self.set_kinds(members, kind);
        true
    }

    /// Says what a unit and its members are measured in, by any number: writes, bytes, CPU. One
    /// model serves all kinds, but large numbers of one kind must not drown those of another.
    pub fn set_kind(&mut self, unit: SeriesId, kind: u8) {
        if let Some(entry) = self.units.get_mut(&unit) {
            entry.kind = kind;
            let members = entry.members.clone();
            self.set_kinds(&members, kind);
        }
    }

    fn set_kinds(&mut self, members: &[SeriesId], kind: u8) {
        for member in members {
            if kind == 0 {
                self.kinds.remove(member);
            } else {
                self.kinds.insert(*member, kind);
            }
        }
    }

    /// Forgets a unit and its series.
    pub fn remove_unit(&mut self, unit: SeriesId) {
        self.units.remove(&unit);
        self.loads.remove(unit);
        self.averaged.remove(unit);
        self.present.retain(|present| present.unit != unit);
    }

    /// Forgets the series of an entity. Those without any value for eight days go by themselves.
    pub fn remove_entity(&mut self, id: SeriesId) {
        self.entities.remove(id);
        self.kinds.remove(&id);
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
        // Differences of slots have to fit, even at the ends of time.
        let slot = self.config.calendar.slot(at_us).clamp(-SLOT_MAX, SLOT_MAX);
        if let Some(newest) = self.newest().filter(|newest| slot <= *newest) {
            return Err(PushError::NotLater { slot, newest });
        }
        let dropped = self.write(slot, entities, units);
        self.present = self.describe_units();
        let retrain_due = self.learn(slot, entities);
        Ok(Pushed {
            slot,
            dropped,
            retrain_due,
        })
    }

    /// Writes the loads of a slot. Returns how many were dropped.
    fn write(&mut self, slot: i64, entities: &[(SeriesId, f64)], units: &[(SeriesId, f64)]) -> u64 {
        self.entities.advance(slot);
        self.loads.advance(slot);
        self.averaged.advance(slot);
        let mut dropped = 0;
        for (id, load) in entities {
            dropped += u64::from(!self.entities.put(*id, *load));
        }
        for (unit, load) in units {
            if self.units.contains_key(unit) {
                dropped += u64::from(!self.loads.put(*unit, *load));
            }
        }
        for unit in self.units.keys() {
            if let Some(load) = self
                .loads
                .view(*unit)
                .and_then(|view| view.mean(0, self.spans.smooth))
            {
                self.averaged.put(*unit, load);
            }
        }
        let day = i64::from(self.config.calendar.slots_per_day());
        if slot % day == 0 {
            self.entities
                .remove_silent_since(slot.saturating_sub(RING_DAYS * day));
        }
        dropped
    }

    /// The series of a unit.
    fn series_of(&self, unit: SeriesId) -> Option<Loads<'_>> {
        Some(Loads {
            raw: self.loads.view(unit)?,
            averaged: self.averaged.view(unit)?,
        })
    }

    /// Describes the units that have a load and a capacity, and scores them.
    fn describe_units(&self) -> Vec<Present> {
        let describe = |(id, unit): (&SeriesId, &Unit)| {
            let (series, capacity) = (self.series_of(*id)?, unit.capacity()?);
            let shares = self.shares(unit);
            Some(Present {
                unit: *id,
                features: unit::describe(&series, capacity, &self.spans, shares)?,
                now: f64::from(series.averaged.lag(0)),
                capacity,
                age: series.raw.age(),
                score: None,
                probability: 0.0,
            })
        };
        self.units.iter().filter_map(describe).collect()
    }

    /// The shares of the largest entity and of the three largest in what a unit's entities had in
    /// the last hour, if they had anything.
    fn shares(&self, unit: &Unit) -> Option<(f64, f64)> {
        let hour = self.config.calendar.slots(60);
        let load = |view: View| view.mean(0, hour);
        let (mut sum, mut top) = (0.0, [0.0_f64; 3]);
        for member in &unit.members {
            let mut load = self.entities.view(*member).and_then(load).unwrap_or(0.0);
            sum += load;
            for place in &mut top {
                if load > *place {
                    std::mem::swap(place, &mut load);
                }
            }
        }
        let [first, second, third] = top;
        (sum > 0.0).then(|| (first / sum, (first + second + third) / sum))
    }
}

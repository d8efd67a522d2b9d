//! What is collected for the models, and when they are trained.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::promotion::{retrain_series, retrain_trigger};
use super::{Decision, Predictor, TICKS_MAX};
use crate::calibration::Calibrator;
use crate::config::Config;
use crate::features::{series, unit};
use crate::forecast::Stage;
use crate::metrics::Pair;
use crate::random::uniform;
use crate::rows::{Dated, Rows};
use crate::series_model::{KINDS, SeriesModel, SeriesRow};
use crate::store::{SeriesId, Store, clean};
use crate::trigger::{Scores, TriggerModel, UnitRow};

/// Pairs older than so many days say nothing of the calibration any more.
const PAIRS_DAYS: i64 = 7;

/// A score and what came of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Scored {
    slot: i64,
    priority: f32,
    score: f32,
    outcome: bool,
}

impl Dated for Scored {
    fn slot(&self) -> i64 {
        self.slot
    }

    fn priority(&self) -> f32 {
        self.priority
    }
}

/// What is known of a unit whose outcome is not.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct PendingUnit {
    /// Without features if it is not going to be a row.
    row: UnitRow,
    capacity: f64,
    score: Option<f32>,
}

/// Everything that was learned.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Learner {
    /// The first slot that anything was learned from.
    pub first: Option<i64>,
    /// The newest.
    pub newest: Option<i64>,
    /// The slot of the last training.
    trained: Option<i64>,
    entity_rows: Rows<SeriesRow>,
    total_rows: Rows<SeriesRow>,
    unit_rows: Rows<UnitRow>,
    pairs: Rows<Scored>,
    pending_entities: VecDeque<(SeriesId, SeriesRow)>,
    pending_totals: VecDeque<(SeriesId, SeriesRow)>,
    pending_units: VecDeque<PendingUnit>,
    pub entities: Option<SeriesModel>,
    pub totals: Option<SeriesModel>,
    pub trigger: Option<TriggerModel>,
    pub calibrator: Calibrator,
}

impl Learner {
    pub fn new(config: &Config) -> Learner {
        Learner {
            first: None,
            newest: None,
            trained: None,
            entity_rows: Rows::new(config.rows_max),
            total_rows: Rows::new(config.rows_max / TOTALS_PART),
            unit_rows: Rows::new(config.rows_max),
            pairs: Rows::new(config.rows_max),
            pending_entities: VecDeque::new(),
            pending_totals: VecDeque::new(),
            pending_units: VecDeque::new(),
            entities: None,
            totals: None,
            trigger: None,
            calibrator: Calibrator::default(),
        }
    }

    /// What came from elsewhere can be used.
    pub fn is_sound(&self) -> bool {
        let series = |model: &Option<SeriesModel>| model.as_ref().is_none_or(SeriesModel::is_sound);
        series(&self.entities)
            && series(&self.totals)
            && self.trigger.as_ref().is_none_or(TriggerModel::is_sound)
            && self.calibrator.is_sound()
    }
}

/// Units go by the linear model for so many days of their life; in so many more the weight moves to
/// the forest.
const LINEAR_DAYS: f64 = 7.0;
const GROWING_DAYS: f64 = 3.0;

/// There are fewer totals than entities: fewer rows tell as much.
const TOTALS_PART: usize = 4;

/// What is drawn at random.
const ENTITY: u64 = 1;
const TOTAL: u64 = 2;
const UNIT: u64 = 3;
const PAIR: u64 = 4;

impl Predictor {
    /// Settles, scores and collects as of a slot that was just written. Returns whether a training
    /// is due. What was learned before (after [`restore`](Predictor::restore)) is only scored.
    pub(super) fn learn(&mut self, slot: i64, entities: &[(SeriesId, f64)]) -> bool {
        self.score_units();
        if self.learner.newest.is_some_and(|newest| slot <= newest) {
            return false;
        }
        self.learner.newest = Some(slot);
        let first = *self.learner.first.get_or_insert(slot);
        self.settle(slot);
        self.collect_series(slot, entities);
        self.collect_units(slot);
        let day = i64::from(self.config.calendar.slots_per_day());
        let oldest = slot.saturating_sub(i64::from(self.config.rows_days) * day);
        self.learner.entity_rows.forget_before(oldest);
        self.learner.total_rows.forget_before(oldest);
        self.learner.unit_rows.forget_before(oldest);
        self.learner
            .pairs
            .forget_before(slot.saturating_sub(PAIRS_DAYS * day));
        if (slot - first) % (day / 24).max(1) == 0 {
            self.recalibrate();
        }
        slot - self.learner.trained.unwrap_or(first) >= day
    }

    /// Scores and probabilities of the units as of now.
    fn score_units(&mut self) {
        let mut present = std::mem::take(&mut self.present);
        let rows: Vec<&[f32]> = present
            .iter()
            .map(|unit| unit.features.as_slice())
            .collect();
        let scores = self
            .learner
            .trigger
            .as_ref()
            .map(|model| model.scores(&rows));
        for (number, unit) in present.iter_mut().enumerate() {
            let stage = self.stage(unit.age);
            let scores = scores
                .as_ref()
                .and_then(|scores| scores.get(number))
                .copied();
            unit.score = scores.map(|scores| self.mix(scores, unit.age));
            unit.probability = match (stage, unit.score) {
                (Stage::Reactive, _) | (_, None) => reactive(unit.now / unit.capacity),
                (_, Some(score)) => self.learner.calibrator.apply(score),
            };
        }
        self.present = present;
        let mut probabilities = self.present.iter().peekable();
        for (id, unit) in &mut self.units {
            let tick = probabilities.next_if(|present| present.unit == *id);
            unit.ticks
                .push(tick.map_or(f32::NAN, |present| present.probability as f32));
            if unit.ticks.len() > TICKS_MAX {
                unit.ticks.remove(0);
            }
        }
    }

    /// Which model a unit of this age (slots) goes by.
    pub(super) fn stage(&self, age: i64) -> Stage {
        let day = i64::from(self.config.calendar.slots_per_day());
        match age {
            _ if age < day || self.learner.trigger.is_none() => Stage::Reactive,
            _ if (age as f64) < LINEAR_DAYS * day as f64 => Stage::Linear,
            _ => Stage::Forest,
        }
    }

    /// One score of all, for a unit of this age (slots).
    pub(super) fn mix(&self, scores: Scores, age: i64) -> f64 {
        let days = age as f64 / f64::from(self.config.calendar.slots_per_day());
        scores.mix(((days - LINEAR_DAYS) / GROWING_DAYS).clamp(0.0, 1.0))
    }

    /// Gives the rows of an horizon ago their outcome.
    fn settle(&mut self, slot: i64) {
        let learner = &mut self.learner;
        let horizons = self.config.calendar.horizons();
        let longest = horizons.iter().copied().max().unwrap_or(1);
        let kinds = [
            (
                &mut learner.pending_entities,
                &mut learner.entity_rows,
                &self.entities,
            ),
            (
                &mut learner.pending_totals,
                &mut learner.total_rows,
                &self.loads,
            ),
        ];
        for (pending, rows, store) in kinds {
            while let Some((id, mut row)) =
                pending.pop_front_if(|(_, row)| row.slot.saturating_add(longest) <= slot)
            {
                if let Some(view) = store.view(id) {
                    for (actual, horizon) in row.actual.iter_mut().zip(horizons) {
                        *actual = view.lag(slot - row.slot - horizon);
                    }
                    if row.actual.iter().any(|actual| !actual.is_nan()) {
                        rows.push(row);
                    }
                }
            }
        }
        while let Some(pending) = self
            .learner
            .pending_units
            .pop_front_if(|pending| pending.row.slot.saturating_add(self.spans.horizon) <= slot)
        {
            self.settle_unit(pending, slot);
        }
    }

    /// Gives a unit's row and pair their outcome, if there is one to learn from.
    fn settle_unit(&mut self, pending: PendingUnit, slot: i64) {
        let PendingUnit {
            mut row,
            capacity,
            score,
        } = pending;
        let until = row.slot.saturating_add(self.spans.horizon);
        let view = self.averaged.view(row.unit);
        let (Some(view), Some(unit)) = (view, self.units.get(&row.unit)) else {
            return;
        };
        let seen = view.summary(slot - until, self.spans.horizon);
        row.outcome = seen.count > 0 && seen.max >= capacity;
        let half_missing = i64::from(seen.count) * 2 < self.spans.horizon;
        if unit.is_excluded(row.slot, until) || (half_missing && !row.outcome) {
            return;
        }
        if let Some(score) = score {
            let random = uniform(self.config.seed ^ PAIR, row.unit, row.slot as u64);
            self.learner.pairs.push(Scored {
                slot: row.slot,
                priority: random as f32,
                score,
                outcome: row.outcome,
            });
        }
        if !row.features.is_empty() {
            row.rise = unit::relative(seen.max, capacity) - row.rise;
            self.learner.unit_rows.push(row);
        }
    }

    /// Describes a sample of the series.
    fn collect_series(&mut self, slot: i64, entities: &[(SeriesId, f64)]) {
        let mut sums = [(0.0, 0.0); KINDS];
        let kind = |id: &SeriesId| self.kinds.get(id).copied().unwrap_or(0);
        for (id, load) in entities {
            let load = f64::from(clean(*load));
            if let Some((sum, count)) = sums.get_mut(usize::from(kind(id))).filter(|_| load >= 0.0)
            {
                *sum += load;
                *count += 1.0;
            }
        }
        let picked = entities.iter().filter_map(|(id, load)| {
            let load = f64::from(clean(*load));
            let (sum, count) = sums.get(usize::from(kind(id))).copied().unwrap_or_default();
            // Half by number, half by load: what weighs much is seen often.
            let share = if sum > 0.0 { load * count / sum } else { 1.0 };
            (load >= 0.0).then_some((*id, kind(id), 0.5 + 0.5 * share))
        });
        let rows = sample(
            &self.entities,
            picked,
            self.learner.entity_rows.limit(),
            ENTITY,
            slot,
            &self.config,
        );
        self.learner.pending_entities.extend(rows);
        let picked = self.present.iter().map(|present| {
            let kind = self.units.get(&present.unit).map_or(0, |unit| unit.kind);
            (present.unit, kind, 1.0)
        });
        let rows = sample(
            &self.loads,
            picked,
            self.learner.total_rows.limit(),
            TOTAL,
            slot,
            &self.config,
        );
        self.learner.pending_totals.extend(rows);
    }

    /// Remembers what is known of the units below their capacity.
    fn collect_units(&mut self, slot: i64) {
        for present in self
            .present
            .iter()
            .filter(|present| present.now < present.capacity)
        {
            let random = uniform(self.config.seed ^ UNIT, present.unit, slot as u64) as f32;
            let is_row = random < self.learner.unit_rows.limit();
            self.learner.pending_units.push_back(PendingUnit {
                row: UnitRow {
                    slot,
                    unit: present.unit,
                    priority: random,
                    features: if is_row {
                        present.features.to_vec()
                    } else {
                        Vec::new()
                    },
                    warm: present.now >= WARM * present.capacity,
                    // What it was, until its peak is known.
                    rise: unit::relative(present.now, present.capacity),
                    outcome: false,
                },
                capacity: present.capacity,
                score: present.score.map(|score| score as f32),
            });
        }
    }

    /// Trains candidates on the rows before the newest day and makes each the current model if it is
    /// better there than the current one and than what needs no model. Takes less than a second; does
    /// nothing while there is too little data.
    pub fn retrain(&mut self) -> Decision {
        let Some(newest) = self.learner.newest else {
            return Decision::default();
        };
        let day = i64::from(self.config.calendar.slots_per_day());
        self.learner.trained = Some(newest);
        self.learn_capacities(day);
        let first = self.learner.first.unwrap_or(newest);
        // On the first days, a quarter of what there is.
        let newest_day = newest - day.min((newest - first) / 4).max(1);
        let seed = self.config.seed ^ (newest as u64).rotate_left(32);
        let learner = &mut self.learner;
        let entities = retrain_series(
            &mut learner.entities,
            &mut learner.entity_rows,
            newest_day,
            seed,
        );
        let totals = retrain_series(
            &mut learner.totals,
            &mut learner.total_rows,
            newest_day,
            seed ^ TOTAL,
        );
        let trigger = retrain_trigger(
            &mut learner.trigger,
            &mut learner.unit_rows,
            newest_day,
            seed,
        );
        self.recalibrate();
        Decision {
            trigger,
            entities,
            totals,
        }
    }

    /// Capacities for units that have none.
    fn learn_capacities(&mut self, day: i64) {
        for (id, unit) in &mut self.units {
            let Some(view) = self.averaged.view(*id).filter(|view| view.age() >= day) else {
                continue;
            };
            let (first, second) = view.window(0, RING_DAYS_ALL);
            let mut loads: Vec<f32> = first
                .iter()
                .chain(second)
                .copied()
                .filter(|load| !load.is_nan())
                .collect();
            loads.sort_unstable_by(f32::total_cmp);
            let place =
                (loads.len() as f64 * self.config.learned_quantile.clamp(0.0, 1.0)) as usize;
            let learned = loads.get(place.min(loads.len().saturating_sub(1))).copied();
            unit.learned = learned.map(f64::from).filter(|load| *load > 0.0);
        }
    }

    fn recalibrate(&mut self) {
        let pairs: Vec<Pair> = self
            .learner
            .pairs
            .as_slice()
            .iter()
            .map(|pair| Pair {
                probability: f64::from(pair.score),
                outcome: pair.outcome,
            })
            .collect();
        self.learner.calibrator = Calibrator::fit(&pairs);
    }
}

/// All of the past that is kept.
const RING_DAYS_ALL: i64 = i64::MAX / 4;

/// The reactive rule: from this share of the capacity on a unit is warm.
pub(super) const WARM: f64 = 0.8;

/// Without a model: up to one half at the capacity.
fn reactive(ratio: f64) -> f64 {
    (ratio.powi(4) / 2.0).clamp(0.0, 0.5)
}

/// Rows of the series that are picked. Given are their ids, kinds and chances.
fn sample(
    store: &Store,
    picked: impl Iterator<Item = (SeriesId, u8, f64)>,
    limit: f32,
    salt: u64,
    slot: i64,
    config: &Config,
) -> Vec<(SeriesId, SeriesRow)> {
    picked
        .filter_map(|(id, kind, chance)| {
            let priority = (uniform(config.seed ^ salt, id, slot as u64) / chance) as f32;
            if priority >= limit {
                return None;
            }
            let described = series::describe(&store.view(id)?, &config.calendar)?;
            let row = SeriesRow {
                slot,
                kind,
                priority,
                chance: chance as f32,
                features: described.features.to_vec(),
                scale: described.scale as f32,
                last: described.last as f32,
                actual: [f32::NAN; 3],
            };
            Some((id, row))
        })
        .collect()
}

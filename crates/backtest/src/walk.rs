//! The walk over a trace.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use autopilot::selection;
use predict::{Calendar, Config, EntityForecast, HORIZONS, Interval, Predictor};

use crate::moves::{RELIEF, Tally};
use crate::report::{Cost, Extent, Forecasts, Report};
use crate::trace::Trace;
use crate::units::{Partition, Said, judge};

/// How to walk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Entities are assigned to so many partitions.
    pub partitions: usize,
    /// The trigger's horizon, in minutes.
    pub horizon_minutes: u32,
    /// Makes the assignment and the models repeatable.
    pub seed: u64,
    /// The share of the trace that capacities are taken from; the rest is forecast.
    pub first_share: f64,
    /// The quantile of the averaged load that is a partition's capacity.
    pub capacity_quantile: f64,
    /// Entities are forecast in every so many slots.
    pub entities_every: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            partitions: 16,
            horizon_minutes: 60,
            seed: 1,
            first_share: 0.5,
            capacity_quantile: 0.95,
            entities_every: 1,
        }
    }
}

/// Why there is nothing to walk over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The trace has no entities.
    NoEntities,
    /// It has fewer than four slots.
    TooShort,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::NoEntities => "the trace has no entities",
            Refused::TooShort => "the trace has fewer than four slots",
        })
    }
}

impl std::error::Error for Refused {}

/// Over so many minutes loads are averaged.
const SMOOTH_MINUTES: u32 = 15;

/// Entities are chosen so many minutes before the onset.
const AHEAD_MINUTES: u32 = 30;

/// The predictor begins so many days before the second part: two weeks of rows, whose features look
/// back over a week, and a day.
const WARM_UP_DAYS: usize = 22;

/// It retrains from so many days before the second part on: a week of scores to calibrate with.
const TRAINED_DAYS: usize = 8;

/// Walks over a trace.
pub fn run(trace: &Trace, options: &Options) -> Result<Report, Refused> {
    run_with(trace, options, None, &mut || {})
}

/// Walks over a trace whose entities are in partitions that are known: lists of their places. Calls
/// `each` once a slot, for whoever wants to show progress or to be interrupted.
pub fn run_with(
    trace: &Trace,
    options: &Options,
    members: Option<Vec<Vec<usize>>>,
    each: &mut dyn FnMut(),
) -> Result<Report, Refused> {
    if trace.entities() == 0 {
        return Err(Refused::NoEntities);
    }
    if trace.slots() < 4 {
        return Err(Refused::TooShort);
    }
    let mut walk = Walk::new(trace, options, members);
    for slot in walk.begin..trace.slots() {
        each();
        walk.step(slot);
    }
    Ok(walk.finish())
}

/// The partition of each entity: a shuffle by the seed, dealt out in turn.
fn assign(entities: usize, partitions: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..entities).collect();
    order.sort_by_key(|entity| predict::mix(predict::mix(seed) ^ *entity as u64));
    let mut members = vec![Vec::new(); partitions];
    for (number, entity) in order.into_iter().enumerate() {
        if let Some(members) = members.get_mut(number % partitions.max(1)) {
            members.push(entity);
        }
    }
    members
}

/// A walk in progress.
struct Walk<'a> {
    trace: &'a Trace,
    options: &'a Options,
    calendar: Calendar,
    partitions: Vec<Partition>,
    predictor: Predictor,
    /// Slots of the first part.
    first: usize,
    /// The slot that the predictor begins with.
    begin: usize,
    smooth: usize,
    horizon: usize,
    said: Vec<Said>,
    /// The mean load of each entity, over the whole trace.
    scales: Vec<f64>,
    entity_errors: Errors,
    total_errors: Errors,
    tally: Tally,
    clock: Clock,
}

/// Where the time went.
#[derive(Default)]
struct Clock {
    cost: Cost,
    trainings: Duration,
    pushes: Duration,
    pushed: u32,
    entities: Duration,
    entities_count: usize,
    units: Duration,
    units_count: u32,
}

impl<'a> Walk<'a> {
    fn new(trace: &'a Trace, options: &'a Options, members: Option<Vec<Vec<usize>>>) -> Self {
        let calendar = Calendar::of_step(trace.step_us);
        let slots = trace.slots();
        let share = options.first_share.clamp(0.0, 1.0);
        let first = ((slots as f64 * share) as usize).clamp(1, slots - 1);
        let day = calendar.slots_per_day() as usize;
        let smooth = calendar.slots(SMOOTH_MINUTES) as usize;
        let members = members.unwrap_or_else(|| {
            let count = options.partitions.clamp(1, trace.entities());
            assign(trace.entities(), count, options.seed)
        });
        let count = members.len();
        let config = Config {
            calendar,
            seed: options.seed,
            trigger_minutes: options.horizon_minutes,
            smooth_minutes: SMOOTH_MINUTES,
            entities_max: trace.entities(),
            units_max: count,
            ..Config::default()
        };
        let mut predictor = Predictor::new(config);
        let mut partitions = Vec::with_capacity(count);
        for (number, members) in members.into_iter().enumerate() {
            let total = |slot: usize| {
                let loads = members
                    .iter()
                    .map(|entity| f64::from(trace.load(slot, *entity)));
                loads
                    .filter(|load| load.is_finite())
                    .reduce(|a, b| a + b)
                    .unwrap_or(f64::NAN)
            };
            let raw: Vec<f64> = (0..slots).map(total).collect();
            let ids: Vec<u64> = members.iter().map(|entity| *entity as u64).collect();
            let partition = Partition::new(members, raw, smooth, first, options.capacity_quantile);
            // Without a capacity it never saturates; it is forecast all the same.
            predictor.set_unit(number as u64, partition.capacity.or(Some(f64::MAX)), &ids);
            partitions.push(partition);
        }
        Walk {
            trace,
            options,
            calendar,
            said: vec![Said::default(); partitions.len()],
            partitions,
            predictor,
            first,
            begin: first.saturating_sub(WARM_UP_DAYS * day),
            smooth,
            horizon: config.trigger_slots() as usize,
            scales: scales(trace),
            entity_errors: Errors::default(),
            total_errors: Errors::default(),
            tally: Tally::default(),
            clock: Clock::default(),
        }
    }

    fn step(&mut self, slot: usize) {
        let at_us = self.trace.start_us + slot as i64 * self.trace.step_us;
        let entities: Vec<(u64, f64)> = (0_u64..)
            .zip(self.trace.slot(slot))
            .map(|(entity, load)| (entity, f64::from(*load)))
            .collect();
        let raw = |partition: &Partition| partition.raw.get(slot).copied().unwrap_or(f64::NAN);
        let units: Vec<(u64, f64)> = (0_u64..).zip(self.partitions.iter().map(raw)).collect();
        let begun = Instant::now();
        let pushed = self.predictor.push(at_us, &entities, &units);
        self.clock.pushes += begun.elapsed();
        self.clock.pushed += 1;
        let day = self.calendar.slots_per_day() as usize;
        let due = pushed.is_ok_and(|pushed| pushed.retrain_due);
        if due && slot + TRAINED_DAYS * day >= self.first {
            self.retrain();
        }
        if slot >= self.first {
            self.look(slot, &entities);
        }
    }

    fn retrain(&mut self) {
        let begun = Instant::now();
        let decision = self.predictor.retrain();
        let took = begun.elapsed();
        let cost = &mut self.clock.cost;
        self.clock.trainings += took;
        cost.trainings += 1;
        cost.promoted += u64::from(decision.trigger.promoted);
        cost.training_ms_max = cost.training_ms_max.max(took.as_secs_f64() * 1e3);
        cost.rows_max = cost
            .rows_max
            .max(decision.trigger.rows + decision.trigger.judged);
    }

    /// Records what is said, and settles what was chosen.
    fn look(&mut self, slot: usize, entities: &[(u64, f64)]) {
        let begun = Instant::now();
        let units = self.predictor.forecast_units();
        self.clock.units += begun.elapsed();
        self.clock.units_count += 1;
        let mut forecasts: BTreeMap<u64, EntityForecast> = BTreeMap::new();
        if slot.is_multiple_of(self.options.entities_every.max(1)) {
            let ids: Vec<u64> = entities.iter().map(|(id, _)| *id).collect();
            let begun = Instant::now();
            let said = self.predictor.forecast_entities(&ids);
            self.clock.entities += begun.elapsed();
            self.clock.entities_count += said.len();
            forecasts = said
                .into_iter()
                .map(|forecast| (forecast.id, forecast))
                .collect();
        }
        for forecast in forecasts.values() {
            let entity = forecast.id as usize;
            let load = |slot: usize| f64::from(self.trace.load(slot, entity));
            let scale = self.scales.get(entity).copied().unwrap_or(0.0);
            self.entity_errors
                .add(slot, &self.calendar, &forecast.at, load, scale);
        }
        for unit in &units {
            let number = unit.unit as usize;
            let (Some(said), Some(partition)) =
                (self.said.get_mut(number), self.partitions.get(number))
            else {
                continue;
            };
            let known = unit.now.is_some() && partition.capacity.is_some();
            said.probabilities
                .push(if known { unit.probability } else { f64::NAN });
            let load = |slot: usize| partition.raw.get(slot).copied().unwrap_or(f64::NAN);
            self.total_errors.add(
                slot,
                &self.calendar,
                &unit.at,
                load,
                partition.capacity.unwrap_or(0.0),
            );
            let onset = slot + self.calendar.slots(AHEAD_MINUTES) as usize;
            if let Some(capacity) = partition.capacity
                && partition.is_onset(onset)
            {
                if forecasts.is_empty() {
                    let ids: Vec<u64> = entities.iter().map(|(id, _)| *id).collect();
                    let said = self.predictor.forecast_entities(&ids);
                    forecasts = said
                        .into_iter()
                        .map(|forecast| (forecast.id, forecast))
                        .collect();
                }
                let moved = choose(self.trace, partition, &forecasts, RELIEF * capacity);
                let hour = self.calendar.slots(60) as usize;
                self.tally
                    .add(self.trace, partition, &moved, onset, hour, self.smooth);
            }
        }
    }

    fn finish(self) -> Report {
        let minutes = self.trace.step_us as f64 / 6e7;
        let (trigger, reactive, trigger_with_net) = judge(
            &self.partitions,
            &self.said,
            self.first,
            self.horizon,
            minutes,
        );
        let per = |time: Duration, count: f64| time.as_secs_f64() * 1e3 / count.max(1.0);
        let clock = self.clock;
        let cost = Cost {
            training_ms: per(clock.trainings, clock.cost.trainings as f64),
            entities_10000_ms: per(clock.entities, clock.entities_count as f64 / 1e4),
            partitions_ms: per(clock.units, f64::from(clock.units_count)),
            push_ms: per(clock.pushes, f64::from(clock.pushed)),
            saved_bytes: self.predictor.save().map_or(0, |bytes| bytes.len()),
            ..clock.cost
        };
        let forecast_slots = self.trace.slots() - self.first;
        Report {
            trace: Extent {
                entities: self.trace.entities(),
                partitions: self.partitions.len(),
                slots: self.trace.slots(),
                step_minutes: minutes,
                first_part: self.first,
                days: forecast_slots as f64 / f64::from(self.calendar.slots_per_day()),
                horizon_minutes: self.horizon as f64 * minutes,
            },
            entities: self.entity_errors.finish(&self.calendar, minutes),
            partitions: self.total_errors.finish(&self.calendar, minutes),
            trigger,
            reactive,
            trigger_with_net,
            moves: self.tally.finish(),
            cost,
        }
    }
}

/// The entities to move for a need: half forecast and half the usual load at that time of day, by
/// size.
fn choose(
    trace: &Trace,
    partition: &Partition,
    forecasts: &BTreeMap<u64, EntityForecast>,
    need: f64,
) -> Vec<usize> {
    let score = |entity: &usize| {
        let Some(forecast) = forecasts.get(&(*entity as u64)) else {
            return 0.0;
        };
        let next = forecast.at.last().map_or(0.0, |interval| interval.mid);
        selection::score(next, forecast.same_time)
    };
    let scores: Vec<f64> = partition.members.iter().map(score).collect();
    let sizes: Vec<f64> = partition
        .members
        .iter()
        .map(|entity| trace.size(*entity))
        .collect();
    selection::choose(need, &scores, &sizes)
        .into_iter()
        .filter_map(|number| partition.members.get(number).copied())
        .collect()
}

/// The mean load of each entity; zero if it has none.
fn scales(trace: &Trace) -> Vec<f64> {
    let mut sums = vec![(0.0, 0.0); trace.entities()];
    for slot in 0..trace.slots() {
        for ((sum, count), load) in sums.iter_mut().zip(trace.slot(slot)) {
            if load.is_finite() {
                *sum += f64::from(*load);
                *count += 1.0;
            }
        }
    }
    sums.iter()
        .map(|(sum, count): &(f64, f64)| sum / count.max(1.0))
        .collect()
}

/// Sums of errors, per horizon.
#[derive(Clone, Debug, Default)]
struct Errors {
    sums: [Sum; HORIZONS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    error: f64,
    baseline: f64,
    scaled_error: f64,
    scaled_baseline: f64,
    covered: u64,
    count: u64,
}

impl Errors {
    /// Compares a forecast made in a slot. Only where both that slot and the target were measured.
    fn add(
        &mut self,
        slot: usize,
        calendar: &Calendar,
        at: &[Interval; HORIZONS],
        load: impl Fn(usize) -> f64,
        scale: f64,
    ) {
        let now = load(slot);
        for ((sum, interval), horizon) in self.sums.iter_mut().zip(at).zip(calendar.horizons()) {
            let actual = load(slot + horizon as usize);
            if actual.is_nan() || now.is_nan() {
                continue;
            }
            sum.error += (interval.mid - actual).abs();
            sum.baseline += (now - actual).abs();
            if scale > 0.0 {
                sum.scaled_error += (interval.mid - actual).abs() / scale;
                sum.scaled_baseline += (now - actual).abs() / scale;
            }
            // Ranges are known to four bytes.
            let slack = 1e-6 * actual.abs();
            let within = interval.low - slack <= actual && actual <= interval.high + slack;
            sum.covered += u64::from(within);
            sum.count += 1;
        }
    }

    fn finish(&self, calendar: &Calendar, step_minutes: f64) -> Forecasts {
        let share = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
        Forecasts {
            minutes: calendar
                .horizons()
                .map(|slots| slots as f64 * step_minutes)
                .to_vec(),
            rmae: self
                .sums
                .iter()
                .map(|sum| share(sum.error, sum.baseline))
                .collect(),
            rmae_scaled: self
                .sums
                .iter()
                .map(|sum| share(sum.scaled_error, sum.scaled_baseline))
                .collect(),
            covered: self
                .sums
                .iter()
                .map(|sum| share(sum.covered as f64, sum.count as f64))
                .collect(),
            count: self.sums.iter().map(|sum| sum.count).collect(),
        }
    }
}

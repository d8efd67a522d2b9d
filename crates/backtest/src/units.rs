//! The record of the trigger: what was said of each partition in each slot, and what came.

use predict::metrics::{
    Alarms, Pair, Tick, average_precision, base_rate, brier, calibration_table, ece, leads, median,
    sustained,
};

use crate::report::{Reactive, Rule, Trigger};

/// The reactive rule.
const WARM: f64 = 0.8;

/// The reactive net.
const NET: f64 = 0.95;

/// The loads of a partition: raw, and averaged over the slots up to each one. NaN where missing.
#[derive(Clone, Debug, Default)]
pub struct Partition {
    /// Its entities.
    pub members: Vec<usize>,
    /// The sum of its entities' loads.
    pub raw: Vec<f64>,
    /// The mean of so many newest slots.
    pub averaged: Vec<f64>,
    /// Its capacity, if it ever had a load.
    pub capacity: Option<f64>,
}

impl Partition {
    /// A partition of these loads, averaged over so many slots, with a quantile of the first so many
    /// as capacity.
    pub fn new(
        members: Vec<usize>,
        raw: Vec<f64>,
        smooth: usize,
        first: usize,
        quantile: f64,
    ) -> Self {
        let averaged: Vec<f64> = (0..raw.len())
            .map(|slot| {
                let window = raw
                    .iter()
                    .take(slot + 1)
                    .skip((slot + 1).saturating_sub(smooth));
                let known = window.filter(|load| !load.is_nan());
                let (sum, count) = known.fold((0.0, 0.0), |(s, c), load| (s + load, c + 1.0));
                sum / count
            })
            .collect();
        let mut known: Vec<f64> = averaged
            .iter()
            .take(first)
            .copied()
            .filter(|load| !load.is_nan())
            .collect();
        known.sort_unstable_by(f64::total_cmp);
        let place = (known.len() as f64 * quantile) as usize;
        let capacity = known.get(place.min(known.len().saturating_sub(1))).copied();
        Partition {
            members,
            raw,
            averaged,
            capacity: capacity.filter(|capacity| *capacity > 0.0),
        }
    }

    /// The averaged load in a slot.
    pub fn load(&self, slot: usize) -> f64 {
        self.averaged.get(slot).copied().unwrap_or(f64::NAN)
    }

    /// Was it saturated in a slot?
    pub fn saturated(&self, slot: usize) -> Option<bool> {
        let load = self.load(slot);
        self.capacity
            .filter(|_| !load.is_nan())
            .map(|capacity| load >= capacity)
    }

    /// Does it saturate within so many slots after this one? Unknown if it is saturated already or
    /// not measured, or if it does not and less than half of them were measured.
    fn outcome(&self, slot: usize, horizon: usize) -> Option<bool> {
        if self.saturated(slot) != Some(false) {
            return None;
        }
        let next: Vec<bool> = (slot + 1..=slot + horizon)
            .filter_map(|slot| self.saturated(slot))
            .collect();
        let happened = next.contains(&true);
        (happened || next.len() * 2 >= horizon).then_some(happened)
    }

    /// Does saturation begin in a slot?
    pub fn is_onset(&self, slot: usize) -> bool {
        let before = slot
            .checked_sub(1)
            .and_then(|before| self.saturated(before));
        before == Some(false) && self.saturated(slot) == Some(true)
    }
}

/// What was said of a partition in the slots from a first one on.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// The probabilities; NaN where none was said.
    pub probabilities: Vec<f64>,
}

/// Everything said of all partitions, against everything that came.
pub fn judge(
    partitions: &[Partition],
    said: &[Said],
    first: usize,
    horizon: usize,
    step_minutes: f64,
) -> (Trigger, Reactive, Rule) {
    let (mut pairs, mut ratios) = (Vec::new(), Vec::new());
    let mut rules = [(); 4].map(|()| Counted::default());
    for (partition, said) in partitions.iter().zip(said) {
        let Some(capacity) = partition.capacity else {
            continue;
        };
        let slots = || (0..said.probabilities.len()).map(|number| first + number);
        let ratio = |slot: usize| partition.load(slot) / capacity;
        let alarms = [
            sustained(&said.probabilities, 0.6, 1, 1),
            sustained(&said.probabilities, 0.7, 2, 3),
            slots()
                .map(|slot| ratio(slot) >= NET && ratio(slot - 1) >= NET)
                .collect(),
            slots().map(|slot| ratio(slot) >= WARM).collect(),
        ];
        let [high, twice, net, warm] = alarms;
        let either: Vec<bool> = twice.iter().zip(&net).map(|(a, b)| *a || *b).collect();
        for (slot, probability) in slots().zip(&said.probabilities) {
            if let Some(outcome) = partition.outcome(slot, horizon) {
                pairs.push(Pair {
                    probability: *probability,
                    outcome,
                });
                ratios.push(Pair {
                    probability: ratio(slot),
                    outcome,
                });
            }
        }
        for (rule, alarms) in rules.iter_mut().zip([high, twice, either, warm]) {
            rule.add(partition, &alarms, first, horizon);
        }
    }
    let [high, twice, either, warm] = rules.map(|rule| rule.finish(step_minutes));
    let trigger = Trigger {
        count: pairs.len() as u64,
        base_rate: base_rate(&pairs),
        average_precision: average_precision(&pairs),
        brier: brier(&pairs),
        ece: ece(&pairs),
        at_60: high,
        at_70_in_2_of_3: twice,
        calibration: calibration_table(&pairs).to_vec(),
    };
    let reactive = Reactive {
        average_precision: average_precision(&ratios),
        at_80_percent: warm,
    };
    (trigger, reactive, either)
}

/// A rule's alarms over all partitions.
#[derive(Default)]
struct Counted {
    alarms: Vec<(bool, bool)>,
    leads: Vec<Option<i64>>,
}

impl Counted {
    fn add(&mut self, partition: &Partition, alarms: &[bool], first: usize, horizon: usize) {
        let mut ticks = Vec::with_capacity(alarms.len());
        for (number, alarm) in alarms.iter().enumerate() {
            let slot = first + number;
            if let Some(outcome) = partition.outcome(slot, horizon) {
                self.alarms.push((*alarm, outcome));
            }
            ticks.push(Tick {
                slot: slot as i64,
                alarm: *alarm,
                saturated: partition.saturated(slot),
            });
        }
        self.leads.extend(leads(&ticks, horizon as i64));
    }

    fn finish(self, step_minutes: f64) -> Rule {
        let alarms = Alarms::count(self.alarms);
        let mut caught: Vec<f64> = self
            .leads
            .iter()
            .flatten()
            .map(|slots| *slots as f64 * step_minutes)
            .collect();
        Rule {
            precision: alarms.precision(),
            recall: alarms.recall(),
            onsets: self.leads.len() as u64,
            onsets_caught: caught.len() as u64,
            lead_minutes: median(&mut caught),
            alarms,
        }
    }
}

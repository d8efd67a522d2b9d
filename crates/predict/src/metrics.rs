//! How good probabilities and alarms were, once the outcomes are known.
//!
//! Pure functions of lists, for the backtest and for whoever keeps a record of forecasts.
//! A [`Pair`] is one forecast of one unit in one slot at which the unit was below its capacity; its
//! outcome is whether the unit's averaged load reached the capacity within the horizon. Pairs with a
//! probability that is not a number do not count.

use serde::{Deserialize, Serialize};

/// How many bins the calibration is looked at in.
pub const BINS: usize = 10;

/// A probability and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The probability, in [0, 1].
    pub probability: f64,
    /// Did it happen?
    pub outcome: bool,
}

/// The pairs with a probability that is a number.
fn valid(pairs: &[Pair]) -> impl Iterator<Item = &Pair> {
    pairs.iter().filter(|pair| !pair.probability.is_nan())
}

/// One or zero.
fn unit(outcome: bool) -> f64 {
    if outcome { 1.0 } else { 0.0 }
}

/// The Brier score: the mean squared distance of probability and outcome (0 is perfect). None
/// without pairs. Brier, *Verification of forecasts expressed in terms of probability*, 1950.
pub fn brier(pairs: &[Pair]) -> Option<f64> {
    mean(valid(pairs).map(|pair| (pair.probability - unit(pair.outcome)).powi(2)))
}

/// The share of pairs in which it happened. None without pairs.
pub fn base_rate(pairs: &[Pair]) -> Option<f64> {
    mean(valid(pairs).map(|pair| unit(pair.outcome)))
}

/// The mean of numbers, if there are any.
fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
    (count > 0.0).then(|| sum / count)
}

/// A bin of the calibration table: probabilities from `low` up to `high` (exclusive; the last bin
/// has 1 as well).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Where the bin begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
    /// How many pairs lie in it.
    pub count: u64,
    /// The mean of their probabilities; zero if there are none.
    pub probability: f64,
    /// The share in which it happened; zero if there are none.
    pub happened: f64,
}

/// Probabilities against frequencies in ten bins of equal width.
pub fn calibration_table(pairs: &[Pair]) -> [Bin; BINS] {
    let mut bins = [Bin::default(); BINS];
    for pair in valid(pairs) {
        let bin = (pair.probability * BINS as f64).clamp(0.0, BINS as f64 - 1.0) as usize;
        if let Some(bin) = bins.get_mut(bin) {
            bin.count += 1;
            bin.probability += pair.probability;
            bin.happened += unit(pair.outcome);
        }
    }
    for (number, bin) in bins.iter_mut().enumerate() {
        bin.low = number as f64 / BINS as f64;
        bin.high = (number + 1) as f64 / BINS as f64;
        let count = (bin.count as f64).max(1.0);
        bin.probability /= count;
        bin.happened /= count;
    }
    bins
}

/// The expected calibration error: the distance of probability and frequency in the bins of
/// [`calibration_table`], weighted by their counts. None without pairs. Naeini, Cooper, Hauskrecht,
/// *Obtaining well calibrated probabilities using Bayesian binning*, AAAI 2015.
pub fn ece(pairs: &[Pair]) -> Option<f64> {
    let bins = calibration_table(pairs);
    let count: u64 = bins.iter().map(|bin| bin.count).sum();
    let error: f64 = bins
        .iter()
        .map(|bin| bin.count as f64 * (bin.probability - bin.happened).abs())
        .sum();
    (count > 0).then(|| error / count as f64)
}

/// The average precision: the mean of the precision over the steps of the recall, where a step is
/// all pairs of equal probability, the highest first. None if it never happened.
pub fn average_precision(pairs: &[Pair]) -> Option<f64> {
    let mut sorted: Vec<&Pair> = valid(pairs).collect();
    sorted.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    let happened = sorted.iter().filter(|pair| pair.outcome).count() as f64;
    let (mut seen, mut hits, mut average) = (0.0, 0.0, 0.0);
    for step in sorted.chunk_by(|a, b| a.probability == b.probability) {
        let step_hits = step.iter().filter(|pair| pair.outcome).count() as f64;
        seen += step.len() as f64;
        hits += step_hits;
        average += step_hits / happened * hits / seen;
    }
    (happened > 0.0).then_some(average)
}

/// How alarms fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Alarms {
    /// Alarms that were right.
    pub hits: u64,
    /// Alarms that were wrong.
    pub false_alarms: u64,
    /// Times at which it happened without an alarm.
    pub misses: u64,
}

impl Alarms {
    /// Counts (alarm, outcome) pairs.
    pub fn count(alarms: impl IntoIterator<Item = (bool, bool)>) -> Alarms {
        let mut counts = Alarms::default();
        for (alarm, outcome) in alarms {
            match (alarm, outcome) {
                (true, true) => counts.hits += 1,
                (true, false) => counts.false_alarms += 1,
                (false, true) => counts.misses += 1,
                (false, false) => {}
            }
        }
        counts
    }

    /// Counts an alarm wherever the probability is at least this.
    pub fn at(pairs: &[Pair], threshold: f64) -> Alarms {
        Alarms::count(valid(pairs).map(|pair| (pair.probability >= threshold, pair.outcome)))
    }

    /// The share of alarms that were right. None without alarms.
    pub fn precision(&self) -> Option<f64> {
        ratio(self.hits, self.hits.saturating_add(self.false_alarms))
    }

    /// The share of what happened that had an alarm. None if nothing happened.
    pub fn recall(&self) -> Option<f64> {
        ratio(self.hits, self.hits.saturating_add(self.misses))
    }
}

/// A share of a whole, if there is a whole.
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// For each slot of one unit: was the probability at least `threshold` in at least `ticks` of the
/// `window` newest slots, this one included? Missing probabilities (NaN) are none.
pub fn sustained(probabilities: &[f64], threshold: f64, ticks: usize, window: usize) -> Vec<bool> {
    let window = window.max(1);
    (0..probabilities.len())
        .map(|newest| {
            let from = (newest + 1).saturating_sub(window);
            let high = probabilities.iter().take(newest + 1).skip(from);
            high.filter(|probability| **probability >= threshold)
                .count()
                >= ticks
        })
        .collect()
}

/// A slot of one unit, for [`leads`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Its number.
    pub slot: i64,
    /// Is there an alarm?
    pub alarm: bool,
    /// Is the averaged load at or above the capacity? None if it was not measured.
    pub saturated: Option<bool>,
}

/// The lead of each onset of saturation, in slots: how long before it the first alarm was within
/// the `horizon` slots before, and after the saturation before it. None for an onset without one. An onset is a saturated slot after one
/// that was measured and was not; ticks are in order of time.
pub fn leads(ticks: &[Tick], horizon: i64) -> Vec<Option<i64>> {
    let mut leads = Vec::new();
    for (number, pair) in ticks.windows(2).enumerate() {
        let [before, onset] = pair else { continue };
        if before.saturated != Some(false) || onset.saturated != Some(true) {
            continue;
        }
        let earliest = onset.slot.saturating_sub(horizon);
        let lead = ticks
            .iter()
            .take(number + 1)
            .rev()
            .take_while(|tick| tick.slot >= earliest && tick.saturated != Some(true))
            .filter(|tick| tick.alarm)
            .last()
            .map(|tick| onset.slot - tick.slot);
        leads.push(lead);
    }
    leads
}

/// The median of numbers, if there are any: the lower one of two in the middle.
pub fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(f64, bool)]) -> Vec<Pair> {
        let pair = |(probability, outcome): &(f64, bool)| Pair {
            probability: *probability,
            outcome: *outcome,
        };
        list.iter().map(pair).collect()
    }

    #[test]
    fn scores_are_what_they_are_by_hand() {
        let pairs = pairs(&[(0.9, true), (0.8, false), (0.8, true), (0.1, false)]);
        assert!((brier(&pairs).unwrap() - (0.01 + 0.64 + 0.04 + 0.01) / 4.0).abs() < 1e-12);
        // Precision 1 at recall .5, then 2/3 at 1.
        assert!((average_precision(&pairs).unwrap() - (0.5 + 0.5 * 2.0 / 3.0)).abs() < 1e-12);
        assert!((ece(&pairs).unwrap() - (0.1 + 0.6 + 0.1) / 4.0).abs() < 1e-12);
        let alarms = Alarms::at(&pairs, 0.8);
        assert_eq!(
            alarms,
            Alarms {
                hits: 2,
                false_alarms: 1,
                misses: 0
            }
        );
        assert_eq!(alarms.recall(), Some(1.0));
    }

    #[test]
    fn nothing_is_not_zero() {
        assert_eq!(
            (brier(&[]), ece(&[]), average_precision(&[])),
            (None, None, None)
        );
        assert_eq!(average_precision(&pairs(&[(0.5, false)])), None);
        assert_eq!(brier(&pairs(&[(f64::NAN, true)])), None);
        assert_eq!(Alarms::default().precision(), None);
        assert_eq!(median(&mut []), None);
    }

    #[test]
    fn alarms_need_two_of_three() {
        let probabilities = [0.9, 0.1, 0.9, f64::NAN, 0.2, 0.9];
        let expected = [false, false, true, false, false, false];
        assert_eq!(sustained(&probabilities, 0.7, 2, 3), expected);
    }

    #[test]
    fn the_lead_is_that_of_the_first_alarm_in_the_horizon() {
        let tick = |slot, alarm, saturated| Tick {
            slot,
            alarm,
            saturated: Some(saturated),
        };
        let ticks = [
            tick(0, true, false),
            tick(1, true, false),
            tick(2, false, false),
            tick(3, true, true),
            tick(4, true, true),
            tick(5, false, false),
            tick(6, false, true),
        ];
        assert_eq!(leads(&ticks, 2), [Some(2), None]);
        assert_eq!(leads(&ticks, 9), [Some(3), None]);
    }
}

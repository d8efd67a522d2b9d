//! From a model's scores to probabilities that mean what they say.
//!
//! Isotonic regression by pooling adjacent violators (Ayer et al., *An empirical distribution
//! function for sampling with incomplete information*, 1955; for probabilities: Zadrozny, Elkan,
//! KDD 2002), on scores that were given before their outcomes were known. Between the centres of the
//! pools it is linear, which keeps the order of scores. With few outcomes it is shrunk towards the
//! scores themselves: on short histories a pure isotonic map hurts.

use serde::{Deserialize, Serialize};

use crate::metrics::Pair;

/// So many outcomes of the rarer kind count as much as the score itself.
const TRUST: f64 = 20.0;

/// A monotone map of [0, 1] to [0, 1].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibrator {
    /// Centres of the pools, increasing, and the frequencies in them, not decreasing.
    points: Vec<(f64, f64)>,
    /// How much the pools count against the score, in [0, 1).
    trust: f64,
}

/// Scores that were pooled.
#[derive(Clone, Copy)]
struct Pool {
    count: f64,
    scores: f64,
    happened: f64,
}

impl Calibrator {
    /// The map that these scores and outcomes ask for. Without any it changes nothing.
    pub fn fit(pairs: &[Pair]) -> Calibrator {
        let within = |pair: &Pair| Pair {
            probability: pair.probability.clamp(0.0, 1.0),
            ..*pair
        };
        let known = pairs.iter().filter(|pair| !pair.probability.is_nan());
        let mut sorted: Vec<Pair> = known.map(within).collect();
        sorted.sort_by(|a, b| a.probability.total_cmp(&b.probability));
        let mut pools: Vec<Pool> = Vec::new();
        for tied in sorted.chunk_by(|a, b| a.probability == b.probability) {
            let count = tied.len() as f64;
            let mut pool = Pool {
                count,
                scores: tied.iter().map(|pair| pair.probability).sum(),
                happened: tied.iter().filter(|pair| pair.outcome).count() as f64,
            };
            while let Some(last) = pools.last().copied() {
                if last.happened * pool.count < pool.happened * last.count {
                    break;
                }
                pools.pop();
                pool = Pool {
                    count: last.count + pool.count,
                    scores: last.scores + pool.scores,
                    happened: last.happened + pool.happened,
                };
            }
            pools.push(pool);
        }
        let count = sorted.len() as f64;
        let happened = sorted.iter().filter(|pair| pair.outcome).count() as f64;
        let rarer = happened.min(count - happened);
        Calibrator {
            points: pools
                .iter()
                .map(|pool| (pool.scores / pool.count, pool.happened / pool.count))
                .collect(),
            trust: rarer / (rarer + TRUST),
        }
    }

    /// The probability that a score stands for: monotone, in [0, 1]. A score that is not a number is
    /// none.
    pub fn apply(&self, score: f64) -> f64 {
        if score.is_nan() {
            return 0.0;
        }
        let score = score.clamp(0.0, 1.0);
        self.trust * self.pooled(score) + (1.0 - self.trust) * score
    }

    /// The pools' frequency at a score.
    fn pooled(&self, score: f64) -> f64 {
        let above = self.points.partition_point(|(centre, _)| *centre < score);
        let before = above
            .checked_sub(1)
            .and_then(|before| self.points.get(before));
        match (before, self.points.get(above)) {
            (Some((left, low)), Some((right, high))) => {
                let share = ((score - left) / (right - left)).clamp(0.0, 1.0);
                low + share * (high - low)
            }
            (Some((_, end)), None) | (None, Some((_, end))) => *end,
            (None, None) => score,
        }
    }

    /// A map that came from elsewhere is monotone and in [0, 1].
    pub fn is_sound(&self) -> bool {
        let within = |value: f64| (0.0..=1.0).contains(&value);
        within(self.trust)
            && self
                .points
                .iter()
                .all(|(centre, share)| within(*centre) && within(*share))
            && self.points.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs() -> impl Strategy<Value = Vec<Pair>> {
        let pair = (
            prop_oneof![0.0..=1.0, Just(f64::NAN), Just(f64::INFINITY), Just(-1.0)],
            any::<bool>(),
        );
        prop::collection::vec(pair, 0..200).prop_map(|list| {
            list.into_iter()
                .map(|(probability, outcome)| Pair {
                    probability,
                    outcome,
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn it_is_monotone_and_a_probability(pairs in pairs(), a in -0.5..1.5, b in -0.5..1.5) {
            let calibrator = Calibrator::fit(&pairs);
            prop_assert!(calibrator.is_sound());
            let (low, high) = if a <= b { (a, b) } else { (b, a) };
            let (low, high) = (calibrator.apply(low), calibrator.apply(high));
            prop_assert!(low <= high);
            prop_assert!((0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high));
        }
    }

    #[test]
    fn scores_become_frequencies() {
        let pairs: Vec<Pair> = (0..10_000)
            .map(|i| {
                let probability = if i % 2 == 0 { 0.2 } else { 0.6 };
                // One in ten, and nine in ten.
                let outcome = if i % 2 == 0 { i % 20 == 0 } else { i % 20 != 1 };
                Pair {
                    probability,
                    outcome,
                }
            })
            .collect();
        let calibrator = Calibrator::fit(&pairs);
        assert!((calibrator.apply(0.2) - 0.1).abs() < 0.01);
        assert!((calibrator.apply(0.6) - 0.9).abs() < 0.01);
    }

    #[test]
    fn without_outcomes_nothing_changes() {
        assert_eq!(Calibrator::fit(&[]).apply(0.3), 0.3);
        assert_eq!(Calibrator::default().apply(f64::NAN), 0.0);
    }
}

//! How much a partition can bear of each resource: configured, or learned from what it bore.
//!
//! A configured capacity works from the first minute on, without any history or model: "a
//! partition exceeds this many rows per second" is the whole rule. A learned one stands in where
//! nobody configured any.

use crate::resource::{Capacities, PerResource, Resource, usable};
use crate::words::words;
use serde::{Deserialize, Serialize};

words! {
    /// Where a capacity comes from.
    Source {
        /// Somebody set it.
        Configured => "configured",
        /// The 95th percentile of the past.
        Learned => "learned",
    }
}

/// Fewer 15-minute means than this teach nothing: one day of them.
pub const LEARNED_MEANS_MIN: usize = 96;

/// The quantile of the past that counts as capacity. The measurements behind the predictor define
/// saturation by it: a partition crossing the 95th percentile of its training period.
pub const LEARNED_QUANTILE: f64 = 0.95;

/// A capacity and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// In the unit of the resource.
    pub amount: f64,
    /// Configured or learned.
    pub source: Source,
}

/// What a partition's past teaches about its capacity: the 95th percentile of its 15-minute means
/// over the training period, in their unit.
///
/// Means that are no finite number or negative count as missing. `None` with less than a day of
/// means, or where the percentile is zero: an idle partition has not shown what it can bear.
/// The percentile is interpolated between neighbours, as `percentile_cont` does.
pub fn learned_capacity(means: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = means
        .iter()
        .copied()
        .filter(|m| m.is_finite() && *m >= 0.0)
        .collect();
    if sorted.len() < LEARNED_MEANS_MIN {
        return None;
    }
    sorted.sort_by(f64::total_cmp);
    usable(quantile(&sorted, LEARNED_QUANTILE))
}

/// For each resource the configured capacity where there is a usable one, else the learned one.
pub fn resolve(configured: &Capacities, learned: &Capacities) -> PerResource<Option<Capacity>> {
    PerResource::from_fn(|r: Resource| {
        let from = |amounts: &Capacities, source| {
            usable(*amounts.get(r)).map(|amount| Capacity { amount, source })
        };
        from(configured, Source::Configured).or_else(|| from(learned, Source::Learned))
    })
}

/// The amounts alone.
pub fn amounts(capacity: &PerResource<Option<Capacity>>) -> Capacities {
    PerResource::from_fn(|r| capacity.get(r).map(|c| c.amount))
}

/// A quantile of sorted values, interpolated between neighbours. `None` of none.
pub(crate) fn quantile(sorted: &[f64], fraction: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = fraction.clamp(0.0, 1.0) * last as f64;
    let below = (position.floor() as usize).min(last);
    let low = *sorted.get(below)?;
    let high = *sorted.get((below + 1).min(last))?;
    Some(low + (high - low) * (position - below as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_of_less_than_a_day_teaches_nothing() {
        assert_eq!(learned_capacity(&[5.0; 95]), None);
        assert_eq!(learned_capacity(&[5.0; 96]), Some(5.0));
        let mut holes = vec![f64::NAN; 1000];
        holes.extend([5.0; 95]);
        assert_eq!(learned_capacity(&holes), None);
    }

    #[test]
    fn a_learned_capacity_is_the_95th_percentile() {
        let means: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(learned_capacity(&means), Some(95.0));
        assert_eq!(learned_capacity(&[0.0; 200]), None);
    }

    #[test]
    fn what_is_configured_wins() {
        let configured = Capacities {
            write_rows: Some(100.0),
            cpu: Some(-1.0),
            ..Default::default()
        };
        let learned = Capacities {
            write_rows: Some(50.0),
            cpu: Some(2.0),
            ..Default::default()
        };
        let resolved = resolve(&configured, &learned);
        assert_eq!(
            resolved.write_rows.map(|c| (c.amount, c.source)),
            Some((100.0, Source::Configured))
        );
        assert_eq!(
            resolved.cpu.map(|c| (c.amount, c.source)),
            Some((2.0, Source::Learned))
        );
        assert_eq!(amounts(&resolved).size, None);
    }
}

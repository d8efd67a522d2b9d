//! The model of series: entities, and totals of units.
//!
//! One boosted model for each horizon, pooled over all series. Its target is the change from the
//! last load, as a share of the series' scale, and rows weigh as much as their scale: what is
//! minimised is the sum of absolute errors in the series' own measure, which is the numerator of the
//! rMAE, and a forecast of "no change" costs nothing where nothing is known.

use serde::{Deserialize, Serialize};

use crate::calendar::HORIZONS;
use crate::features::series::{self, Described};
use crate::forecast::Interval;
use crate::gbm::{Bins, Gbm, Loss, Params};
use crate::rows::Dated;

/// Fewer rows than this teach nothing.
pub const ROWS_MIN: usize = 200;

/// What was seen of a series at a slot, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesRow {
    /// When.
    pub slot: i64,
    /// Series of different kinds are measured in different measures.
    pub kind: u8,
    /// See [`Rows`](crate::rows::Rows).
    pub priority: f32,
    /// How much more likely than others the row was picked.
    pub chance: f32,
    /// Its features.
    pub features: Vec<f32>,
    /// What it is relative to.
    pub scale: f32,
    /// The last load.
    pub last: f32,
    /// The load at each horizon; NaN if it was not measured.
    pub actual: [f32; HORIZONS],
}

impl Dated for SeriesRow {
    fn slot(&self) -> i64 {
        self.slot
    }

    fn priority(&self) -> f32 {
        self.priority
    }
}

/// A model for one horizon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Head {
    gbm: Gbm,
    /// The error's tenth and ninetieth percentile, relative to the forecast on the log scale.
    low: f32,
    high: f32,
}

/// A fitted model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesModel {
    bins: Bins,
    heads: Vec<Head>,
}

/// Changes beyond so many times the scale are not believed.
const CHANGE_MAX: f32 = 50.0;

impl SeriesModel {
    /// Fits the rows. None if there are too few.
    pub fn fit(rows: &[SeriesRow], limit: f32, seed: u64) -> Option<SeriesModel> {
        if rows.len() < ROWS_MIN {
            return None;
        }
        let bins = Bins::of(rows.iter().map(|row| row.features.as_slice()));
        let binned: Vec<_> = rows.iter().map(|row| bins.row(&row.features)).collect();
        let weights = weights(rows, limit);
        let mut heads = Vec::with_capacity(HORIZONS);
        for horizon in 0..HORIZONS {
            let (mut inputs, mut targets, mut used) = (Vec::new(), Vec::new(), Vec::new());
            for ((row, binned), weight) in rows.iter().zip(&binned).zip(&weights) {
                let actual = row.actual.get(horizon).copied().unwrap_or(f32::NAN);
                let change = if zt() {
                    let r = |v: f32| series::relative(f64::from(v), f64::from(row.scale));
                    (r(actual) - r(row.last)) as f32
                } else {
                    (actual - row.last) / row.scale
                };
                if change.is_finite() && *weight > 0.0 {
                    inputs.push(*binned);
                    targets.push(change.clamp(-CHANGE_MAX, CHANGE_MAX));
                    used.push(*weight);
                }
            }
            if inputs.len() < ROWS_MIN {
                return None;
            }
            let gbm = Gbm::fit(&inputs, &targets, &used, &params(seed, horizon));
            heads.push(Head {
                gbm,
                low: 0.0,
                high: 0.0,
            });
        }
        Some(SeriesModel { bins, heads })
    }

    /// Learns the ranges of the forecasts from rows that it was not fitted to.
    pub fn learn_ranges(&mut self, rows: &[SeriesRow]) {
        let forecasts = self.loads(rows);
        for (horizon, head) in self.heads.iter_mut().enumerate() {
            let mut errors: Vec<f64> = rows
                .iter()
                .zip(&forecasts)
                .filter_map(|(row, forecast)| {
                    let actual = f64::from(*row.actual.get(horizon)?);
                    let scale = f64::from(row.scale);
                    let forecast = series::relative(*forecast.get(horizon)?, scale);
                    Some(series::relative(actual, scale) - forecast)
                })
                .filter(|error| error.is_finite())
                .collect();
            errors.sort_unstable_by(f64::total_cmp);
            let at = |share: usize| errors.get(errors.len() * share / 100).copied();
            if let (Some(low), Some(high)) = (at(10), at(90)) {
                head.low = low.min(0.0) as f32;
                head.high = high.max(0.0) as f32;
            }
        }
    }

    pub fn ranges(&self) -> (Vec<f32>, Vec<f32>) {
        (self.heads.iter().map(|h| h.low).collect(), self.heads.iter().map(|h| h.high).collect())
    }

    pub fn set_ranges(&mut self, low: Vec<f32>, high: Vec<f32>) {
        for ((head, low), high) in self.heads.iter_mut().zip(low).zip(high) {
            head.low = low;
            head.high = high;
        }
    }

    /// The loads that it forecasts for rows.
    fn loads(&self, rows: &[SeriesRow]) -> Vec<[f64; HORIZONS]> {
        let described: Vec<(&[f32], f64, f64)> = rows
            .iter()
            .map(|row| (row.features.as_slice(), f64::from(row.scale), f64::from(row.last)))
            .collect();
        self.predict(&described)
    }

    /// The loads of series with these features, scales and last loads.
    fn predict(&self, described: &[(&[f32], f64, f64)]) -> Vec<[f64; HORIZONS]> {
        let rows: Vec<_> = described.iter().map(|(row, _, _)| self.bins.row(row)).collect();
        let mut loads: Vec<[f64; HORIZONS]> =
            described.iter().map(|(_, _, last)| [*last; HORIZONS]).collect();
        for (horizon, head) in self.heads.iter().enumerate() {
            let changes = head.gbm.predict(&rows);
            for ((loads, change), (_, scale, _)) in loads.iter_mut().zip(changes).zip(described) {
                if let Some(load) = loads.get_mut(horizon) {
                    *load = if zt() {
                        series::absolute(series::relative(*load, *scale) + f64::from(change), *scale).max(0.0)
                    } else {
                        (*load + f64::from(change) * scale).max(0.0)
                    };
                }
            }
        }
        loads
    }

    /// Forecasts series.
    pub fn forecast(&self, described: &[Described]) -> Vec<[Interval; HORIZONS]> {
        let rows: Vec<(&[f32], f64, f64)> = described
            .iter()
            .map(|row| (row.features.as_slice(), row.scale, row.last))
            .collect();
        let loads = self.predict(&rows);
        let range = |load: f64, scale: f64, error: f32| {
            series::absolute(series::relative(load, scale) + f64::from(error), scale).max(0.0)
        };
        loads
            .iter()
            .zip(described)
            .map(|(loads, row)| {
                let mut intervals = [Interval::default(); HORIZONS];
                for ((interval, load), head) in intervals.iter_mut().zip(loads).zip(&self.heads) {
                    *interval = Interval {
                        low: range(*load, row.scale, head.low).min(*load),
                        mid: *load,
                        high: range(*load, row.scale, head.high).max(*load),
                    };
                }
                intervals
            })
            .collect()
    }

    /// The error on rows, relative to that of the last load: the mean over the horizons of the rMAE.
    /// None if there is nothing to compare.
    pub fn rmae(&self, rows: &[SeriesRow], limit: f32) -> Option<f64> {
        let weights = true_weights(rows, limit);
        let forecasts = self.loads(rows);
        let mut ratios = Vec::new();
        for horizon in 0..HORIZONS {
            let (mut errors, mut baseline) = (0.0, 0.0);
            for ((row, forecast), weight) in rows.iter().zip(&forecasts).zip(&weights) {
                let actual = f64::from(row.actual.get(horizon).copied().unwrap_or(f32::NAN));
                let forecast = forecast.get(horizon).copied().unwrap_or(f64::NAN);
                let weight = f64::from(weight / row.scale);
                let error = (forecast - actual).abs() * weight;
                if error.is_finite() {
                    errors += error;
                    baseline += (f64::from(row.last) - actual).abs() * weight;
                }
            }
            if baseline > 0.0 {
                ratios.push(errors / baseline);
            }
        }
        (!ratios.is_empty()).then(|| ratios.iter().sum::<f64>() / ratios.len() as f64)
    }

    /// A model that came from elsewhere can be used.
    pub fn is_sound(&self) -> bool {
        self.bins.is_sound()
            && self.heads.len() == HORIZONS
            && self.heads.iter().all(|head| {
                head.gbm.is_sound() && head.low.is_finite() && head.high.is_finite()
            })
    }
}

fn zt() -> bool {
    static Z: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *Z.get_or_init(|| std::env::var("ZT").is_ok())
}

fn wpow() -> f64 {
    static Z: std::sync::OnceLock<f64> = std::sync::OnceLock::new();
    *Z.get_or_init(|| std::env::var("WPOW").ok().and_then(|v| v.parse().ok()).unwrap_or(1.0))
}

/// How much each row counts: its scale, against the chance that it had to be picked; kinds count
/// alike. Makes a mean of about one.
fn weights(rows: &[SeriesRow], limit: f32) -> Vec<f32> {
    let raw = |row: &SeriesRow| {
        let picked = f64::from(row.chance * limit).min(1.0).max(1e-9);
        let p = wpow();
        if p < 0.0 { return f64::from(row.scale).powf(-p); }
        f64::from(row.scale).powf(p) / picked
    };
    let mut sums = [(0.0, 0.0); 256];
    for row in rows {
        if let Some((sum, count)) = sums.get_mut(usize::from(row.kind)) {
            *sum += raw(row);
            *count += 1.0;
        }
    }
    rows.iter()
        .map(|row| {
            let (sum, count) = sums.get(usize::from(row.kind)).copied().unwrap_or((1.0, 1.0));
            (raw(row) * count / sum) as f32
        })
        .collect()
}

/// How much each row counts: its scale, against the chance that it had to be picked; kinds count
/// alike. Makes a mean of about one.
fn true_weights(rows: &[SeriesRow], limit: f32) -> Vec<f32> {
    let raw = |row: &SeriesRow| {
        let picked = f64::from(row.chance * limit).min(1.0).max(1e-9);
        f64::from(row.scale) / picked
    };
    let mut sums = [(0.0, 0.0); 256];
    for row in rows {
        if let Some((sum, count)) = sums.get_mut(usize::from(row.kind)) {
            *sum += raw(row);
            *count += 1.0;
        }
    }
    rows.iter()
        .map(|row| {
            let (sum, count) = sums.get(usize::from(row.kind)).copied().unwrap_or((1.0, 1.0));
            (raw(row) * count / sum) as f32
        })
        .collect()
}

/// How heads are fitted.
fn params(seed: u64, horizon: usize) -> Params {
    let get = |name: &str, default: f64| {
        std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
    };
    Params {
        loss: Loss::Absolute,
        trees: get("TREES", 60.0) as usize,
        rate: get("RATE", 0.1) as f32,
        row_share: get("ROWS", 0.5),
        feature_share: get("FEATURES", 0.6),
        leaf_share: get("LEAF", 0.001) as f32,
        shrink_share: get("SHRINK", 0.0005) as f32,
        seed: seed ^ (horizon as u64 + 1),
    }
}

//! The model of series: entities, and totals of units.
//!
//! One boosted model for each horizon, pooled over all series. Its target is the change from the
//! last load on the logarithmic scale of [`relative`](series::relative); its loss is the absolute
//! error, whose minimum is the median on any scale. A row weighs as much as the root of its scale:
//! the rMAE is made by a few large series, but with weights in proportion to the load the model
//! sees little else and learns their noise, and with equal weights they are forecast worse.

use serde::{Deserialize, Serialize};

use crate::calendar::HORIZONS;
use crate::features::series;
use crate::forecast::Interval;
use crate::gbm::{Bins, Gbm, Loss, Params, Row};
use crate::rows::Dated;

/// Fewer rows than this teach nothing.
pub const ROWS_MIN: usize = 200;

/// A row weighs as much as this power of its scale.
const WEIGHT_POWER: f64 = 0.5;

/// There are so many kinds.
pub const KINDS: usize = 256;

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

/// A series that is about to be forecast.
#[derive(Clone, Copy, Debug)]
pub struct Prepared {
    row: Row,
    scale: f64,
    last: f64,
}

/// A fitted model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesModel {
    bins: Bins,
    heads: Vec<Head>,
}

impl SeriesModel {
    /// Fits the rows. None if there are too few.
    pub fn fit(rows: &[SeriesRow], limit: f32, seed: u64) -> Option<SeriesModel> {
        if rows.len() < ROWS_MIN {
            return None;
        }
        let bins = Bins::of(rows.iter().map(|row| row.features.as_slice()));
        let binned: Vec<_> = rows.iter().map(|row| bins.row(&row.features)).collect();
        let weights = weights(rows, limit, WEIGHT_POWER);
        let mut heads = Vec::with_capacity(HORIZONS);
        for horizon in 0..HORIZONS {
            let (mut inputs, mut targets, mut used) = (Vec::new(), Vec::new(), Vec::new());
            for ((row, binned), weight) in rows.iter().zip(&binned).zip(&weights) {
                let actual = row.actual.get(horizon).copied().unwrap_or(f32::NAN);
                let relative = |load: f32| series::relative(f64::from(load), f64::from(row.scale));
                let change = (relative(actual) - relative(row.last)) as f32;
                if change.is_finite() && *weight > 0.0 {
                    inputs.push(*binned);
                    targets.push(change);
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
        let forecasts = self.rows_loads(rows);
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

    /// What it needs to know of a series to forecast it: less than the features take.
    pub fn prepare(&self, features: &[f32], scale: f64, last: f64) -> Prepared {
        Prepared {
            row: self.bins.row(features),
            scale,
            last,
        }
    }

    /// The loads that it forecasts for rows.
    fn rows_loads(&self, rows: &[SeriesRow]) -> Vec<[f64; HORIZONS]> {
        let prepare = |row: &SeriesRow| {
            self.prepare(&row.features, f64::from(row.scale), f64::from(row.last))
        };
        self.loads(&rows.iter().map(prepare).collect::<Vec<_>>())
    }

    /// The loads that it forecasts.
    fn loads(&self, series: &[Prepared]) -> Vec<[f64; HORIZONS]> {
        let rows: Vec<_> = series.iter().map(|series| series.row).collect();
        let mut loads: Vec<[f64; HORIZONS]> = series
            .iter()
            .map(|series| [series.last; HORIZONS])
            .collect();
        for (horizon, head) in self.heads.iter().enumerate() {
            let changes = head.gbm.predict(&rows);
            for ((loads, change), series) in loads.iter_mut().zip(changes).zip(series) {
                if let Some(load) = loads.get_mut(horizon) {
                    let relative = series::relative(*load, series.scale) + f64::from(change);
                    *load = series::absolute(relative, series.scale).max(0.0);
                }
            }
        }
        loads
    }

    /// Forecasts series.
    pub fn forecast(&self, series: &[Prepared]) -> Vec<[Interval; HORIZONS]> {
        let loads = self.loads(series);
        loads
            .iter()
            .zip(series)
            .map(|(loads, series)| {
                let range = |load: f64, error: f32| {
                    let relative = series::relative(load, series.scale) + f64::from(error);
                    series::absolute(relative, series.scale).max(0.0)
                };
                let mut intervals = [Interval::default(); HORIZONS];
                for ((interval, load), head) in intervals.iter_mut().zip(loads).zip(&self.heads) {
                    *interval = Interval {
                        low: range(*load, head.low).min(*load),
                        mid: *load,
                        high: range(*load, head.high).max(*load),
                    };
                }
                intervals
            })
            .collect()
    }

    /// The error on rows, relative to that of the last load: the mean over the horizons of the rMAE.
    /// None if there is nothing to compare.
    pub fn rmae(&self, rows: &[SeriesRow], limit: f32) -> Option<f64> {
        let weights = weights(rows, limit, 1.0);
        let forecasts = self.rows_loads(rows);
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
            && self
                .heads
                .iter()
                .all(|head| head.gbm.is_sound() && head.low.is_finite() && head.high.is_finite())
    }
}

/// How much each row counts: a power of its scale, against the chance that it had to be picked; kinds
/// count alike. Makes a mean of about one.
fn weights(rows: &[SeriesRow], limit: f32, power: f64) -> Vec<f32> {
    let raw = |row: &SeriesRow| {
        let picked = f64::from(row.chance * limit).clamp(1e-9, 1.0);
        f64::from(row.scale).powf(power) / picked
    };
    let mut sums = [(0.0, 0.0); KINDS];
    for row in rows {
        if let Some((sum, count)) = sums.get_mut(usize::from(row.kind)) {
            *sum += raw(row);
            *count += 1.0;
        }
    }
    rows.iter()
        .map(|row| {
            let (sum, count) = sums
                .get(usize::from(row.kind))
                .copied()
                .unwrap_or((1.0, 1.0));
            (raw(row) * count / sum) as f32
        })
        .collect()
}

/// How heads are fitted.
fn params(seed: u64, horizon: usize) -> Params {
    Params {
        loss: Loss::Absolute,
        trees: 40,
        rate: 0.18,
        row_share: 0.7,
        feature_share: 0.5,
        leaf_share: 0.001,
        shrink_share: 0.001,
        seed: seed ^ (horizon as u64 + 1),
    }
}

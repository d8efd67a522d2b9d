//! The model of the trigger: will a unit reach its capacity within the horizon?
//!
//! A logistic regression and a random forest (a regression of 0 and 1, which gives probabilities and
//! is ten times faster than the classifier), both smartcore's, pooled over all units, and a boosted
//! model for how high the load will get. Which of the two counts how much is the caller's choice: the
//! linear one is better for what it has never seen.

use serde::{Deserialize, Serialize};
use smartcore::ensemble::random_forest_regressor::{
    RandomForestRegressor, RandomForestRegressorParameters,
};
use smartcore::linalg::basic::arrays::Array;
use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::linear::logistic_regression::{LogisticRegression, LogisticRegressionParameters};

use crate::gbm::{Bins, Gbm, Loss, Params};
use crate::features::unit::COUNT;
use crate::rows::Dated;

/// Fewer rows than this teach nothing.
pub const ROWS_MIN: usize = 200;

/// Fewer outcomes of either kind teach nothing.
pub const OUTCOMES_MIN: usize = 8;

/// What was seen of a unit below its capacity at a slot, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitRow {
    /// When.
    pub slot: i64,
    /// Which unit.
    pub unit: u64,
    /// See [`Rows`](crate::rows::Rows).
    pub priority: f32,
    /// Its features.
    pub features: Vec<f32>,
    /// Was its load at least .8 of the capacity?
    pub warm: bool,
    /// The relative peak of the averaged load within the horizon.
    pub peak: f32,
    /// Did that reach the capacity?
    pub outcome: bool,
}

impl Dated for UnitRow {
    fn slot(&self) -> i64 {
        self.slot
    }

    fn priority(&self) -> f32 {
        self.priority
    }
}

type Forest = RandomForestRegressor<f32, f32, DenseMatrix<f32>, Vec<f32>>;

/// A fitted model.
#[derive(Debug, Serialize, Deserialize)]
pub struct TriggerModel {
    /// The mean of each feature, which stands for missing values.
    means: Vec<f32>,
    /// The deviation of each feature; one if it is constant.
    deviations: Vec<f32>,
    coefficients: Vec<f32>,
    intercept: f32,
    forest: Forest,
    bins: Bins,
    boosted: Gbm,
    peak: Gbm,
}

/// The scores of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// The logistic regression's.
    pub linear: f64,
    /// The forest's.
    pub forest: f64,
    /// Boosted.
    pub boosted: f64,
}

impl TriggerModel {
    /// Fits the rows. None if there are too few of them, or of either outcome.
    pub fn fit(rows: &[UnitRow], seed: u64) -> Option<TriggerModel> {
        let happened = rows.iter().filter(|row| row.outcome).count();
        if rows.len() < ROWS_MIN || happened < OUTCOMES_MIN || rows.len() - happened < OUTCOMES_MIN {
            return None;
        }
        let (means, deviations) = moments(rows);
        let mut model_rows = Vec::with_capacity(rows.len());
        let mut scaled = Vec::with_capacity(rows.len());
        for row in rows {
            let filled = fill(&row.features, &means);
            scaled.push(scale(&filled, &means, &deviations));
            model_rows.push(filled);
        }
        let outcomes: Vec<i32> = rows.iter().map(|row| i32::from(row.outcome)).collect();
        let targets: Vec<f32> = rows.iter().map(|row| f32::from(u8::from(row.outcome))).collect();

        let get = |name: &str, default: f64| {
            std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
        };
        let scaled = DenseMatrix::from_2d_vec(&scaled).ok()?;
        let parameters = LogisticRegressionParameters::default().with_alpha(get("ALPHA", 1.0) as f32);
        let linear = LogisticRegression::fit(&scaled, &outcomes, parameters).ok()?;
        let sign = if linear.classes().first() == Some(&0) { 1.0 } else { -1.0 };
        let coefficients: Vec<f32> =
            linear.coefficients().iterator(0).map(|value| sign * value).collect();
        let intercept = sign * linear.intercept().iterator(0).next().copied()?;

        let matrix = DenseMatrix::from_2d_vec(&model_rows).ok()?;
        let parameters = RandomForestRegressorParameters::default()
            .with_n_trees(get("FTREES", 20.0) as usize)
            .with_max_depth(get("FDEPTH", 10.0) as u16)
            .with_min_samples_leaf(get("FLEAF", 10.0) as usize)
            .with_m(get("FM", 8.0) as usize)
            .with_seed(seed);
        let forest = Forest::fit(&matrix, &targets, parameters).ok()?;

        let bins = Bins::of(rows.iter().map(|row| row.features.as_slice()));
        let binned: Vec<_> = rows.iter().map(|row| bins.row(&row.features)).collect();
        let weights = vec![1.0; rows.len()];
        let mut params = Params {
            loss: Loss::Squared,
            trees: get("BTREES", 60.0) as usize,
            rate: get("BRATE", 0.06) as f32,
            row_share: get("BROWS", 0.5),
            feature_share: get("BFEATURES", 0.5),
            leaf_share: get("BLEAF", 0.001) as f32,
            shrink_share: get("BSHRINK", 0.001) as f32,
            seed,
        };
        let boosted = Gbm::fit(&binned, &targets, &weights, &params);
        let rises: Vec<f32> = rows.iter().map(|row| row.peak).collect();
        params.loss = Loss::Absolute;
        params.rate = 0.1;
        let peak = Gbm::fit(&binned, &rises, &weights, &params);
        Some(TriggerModel {
            means,
            deviations,
            coefficients,
            intercept,
            forest,
            bins,
            boosted,
            peak,
        })
    }

    /// The scores of rows of features, each in [0, 1].
    pub fn scores(&self, rows: &[&[f32]]) -> Vec<Scores> {
        let filled: Vec<Vec<f32>> = rows.iter().map(|row| fill(row, &self.means)).collect();
        let linear = filled.iter().map(|row| self.linear(row));
        let binned: Vec<_> = rows.iter().map(|row| self.bins.row(row)).collect();
        let boosted = self.boosted.predict(&binned);
        linear
            .zip(self.forest_scores(&filled))
            .zip(boosted)
            .map(|((linear, forest), boosted)| Scores {
                linear,
                forest,
                boosted: f64::from(boosted).clamp(0.0, 1.0),
            })
            .collect()
    }

    /// The relative peaks of rows of features.
    pub fn peaks(&self, rows: &[&[f32]]) -> Vec<f32> {
        let binned: Vec<_> = rows.iter().map(|row| self.bins.row(row)).collect();
        self.peak.predict(&binned)
    }

    /// The typical value of each feature.
    pub fn typical(&self) -> &[f32] {
        &self.means
    }

    fn linear(&self, filled: &[f32]) -> f64 {
        let scaled = scale(filled, &self.means, &self.deviations);
        let products = scaled.iter().zip(&self.coefficients).map(|(x, c)| f64::from(x * c));
        let sum = products.sum::<f64>() + f64::from(self.intercept);
        1.0 / (1.0 + (-sum).exp())
    }

    /// The forest's scores. It panics on rows of a wrong length, so there are none here: [`fill`]
    /// makes rows of [`COUNT`] features, as in training.
    fn forest_scores(&self, filled: &[Vec<f32>]) -> Vec<f64> {
        let zeros = || vec![0.0; filled.len()];
        let Some(matrix) = (!filled.is_empty())
            .then(|| DenseMatrix::from_2d_vec(&filled.to_vec()).ok())
            .flatten()
        else {
            return zeros();
        };
        match self.forest.predict(&matrix) {
            Ok(scores) => scores.iter().map(|score| f64::from(*score).clamp(0.0, 1.0)).collect(),
            Err(_) => zeros(),
        }
    }

    /// A model that came from elsewhere can be used.
    pub fn is_sound(&self) -> bool {
        let finite = |values: &[f32]| values.len() == COUNT && values.iter().all(|v| v.is_finite());
        finite(&self.means)
            && finite(&self.deviations)
            && finite(&self.coefficients)
            && self.intercept.is_finite()
            && self.bins.is_sound()
            && self.boosted.is_sound()
            && self.peak.is_sound()
    }
}

/// The mean and the deviation of each feature over rows.
fn moments(rows: &[UnitRow]) -> (Vec<f32>, Vec<f32>) {
    let mut sums = [(0.0_f64, 0.0_f64, 0.0_f64); COUNT];
    for row in rows {
        for ((count, sum, squares), value) in sums.iter_mut().zip(&row.features) {
            if value.is_finite() {
                let value = f64::from(*value);
                *count += 1.0;
                *sum += value;
                *squares += value * value;
            }
        }
    }
    let moments = sums.iter().map(|(count, sum, squares)| {
        let count = count.max(1.0);
        let mean = sum / count;
        let deviation = (squares / count - mean * mean).max(0.0).sqrt();
        (mean as f32, if deviation > 1e-6 { deviation as f32 } else { 1.0 })
    });
    moments.unzip()
}

/// A row of [`COUNT`] finite features: what is missing has its mean.
fn fill(features: &[f32], means: &[f32]) -> Vec<f32> {
    (0..COUNT)
        .map(|number| {
            let value = features.get(number).copied().filter(|value| value.is_finite());
            value.or(means.get(number).copied()).unwrap_or(0.0)
        })
        .collect()
}

/// Features in units of their deviation, within eight of them.
fn scale(filled: &[f32], means: &[f32], deviations: &[f32]) -> Vec<f32> {
    let scaled = filled.iter().zip(means).zip(deviations);
    scaled.map(|((value, mean), deviation)| ((value - mean) / deviation).clamp(-8.0, 8.0)).collect()
}

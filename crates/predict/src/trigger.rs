//! The model of the trigger: will a unit reach its capacity within the horizon?
//!
//! A logistic regression and a random forest (a regression of 0 and 1, which gives probabilities and
//! is ten times faster than the classifier), both smartcore's, and a boosted model of 0 and 1, all
//! pooled over all units and mixed: they err in different places. What it has never seen is the
//! linear model's alone, which is better there. One more boosted model says how high the load will
//! get.

use serde::{Deserialize, Serialize};
use smartcore::ensemble::random_forest_regressor::{
    RandomForestRegressor, RandomForestRegressorParameters,
};
use smartcore::linalg::basic::arrays::Array;
use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::linear::logistic_regression::{LogisticRegression, LogisticRegressionParameters};

use crate::features::unit::COUNT;
use crate::gbm::{Bins, Gbm, Loss, Params};
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
    /// By how much the peak of the averaged load within the horizon exceeds what it was, both
    /// relative.
    pub rise: f32,
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
    /// The tenth and the ninetieth percentile of the error of the relative peak.
    range: (f32, f32),
}

/// The logistic regression takes at most so many rows: it has 41 numbers to learn.
const LINEAR_ROWS_MAX: usize = 5_000;

/// What its coefficients are pulled towards zero with.
const RIDGE: f32 = 1.0;

/// The scores of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// The logistic regression's.
    pub linear: f64,
    /// The forest's.
    pub forest: f64,
    /// The boosted model's.
    pub boosted: f64,
}

impl Scores {
    /// One score of all: the linear one alone if nothing has `grown`, the mixture if it is 1.
    pub fn mix(&self, grown: f64) -> f64 {
        let (forest, boosted) = (FOREST_SHARE * grown, BOOSTED_SHARE * grown);
        (1.0 - forest - boosted) * self.linear + forest * self.forest + boosted * self.boosted
    }
}

/// The shares of the models in the mixture; the rest is the linear one's.
const FOREST_SHARE: f64 = 0.4;
const BOOSTED_SHARE: f64 = 0.4;

impl TriggerModel {
    /// Fits the rows. None if there are too few of them, or of either outcome.
    pub fn fit(rows: &[UnitRow], seed: u64) -> Option<TriggerModel> {
        let happened = rows.iter().filter(|row| row.outcome).count();
        if rows.len() < ROWS_MIN || happened < OUTCOMES_MIN || rows.len() - happened < OUTCOMES_MIN
        {
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
        let targets: Vec<f32> = rows
            .iter()
            .map(|row| f32::from(u8::from(row.outcome)))
            .collect();

        let every = scaled.len().div_ceil(LINEAR_ROWS_MAX).max(1);
        let linear_outcomes: Vec<i32> = outcomes.iter().copied().step_by(every).collect();
        let scaled: Vec<Vec<f32>> = scaled.into_iter().step_by(every).collect();
        let scaled = DenseMatrix::from_2d_vec(&scaled).ok()?;
        let parameters = LogisticRegressionParameters::default().with_alpha(RIDGE);
        let linear = LogisticRegression::fit(&scaled, &linear_outcomes, parameters).ok()?;
        let sign = if linear.classes().first() == Some(&0) {
            1.0
        } else {
            -1.0
        };
        let coefficients: Vec<f32> = linear
            .coefficients()
            .iterator(0)
            .map(|value| sign * value)
            .collect();
        let intercept = sign * linear.intercept().iterator(0).next().copied()?;

        let matrix = DenseMatrix::from_2d_vec(&model_rows).ok()?;
        let parameters = RandomForestRegressorParameters::default()
            .with_n_trees(20)
            .with_max_depth(10)
            .with_min_samples_leaf(10)
            .with_m(8)
            .with_seed(seed);
        let forest = Forest::fit(&matrix, &targets, parameters).ok()?;

        let bins = Bins::of(rows.iter().map(|row| row.features.as_slice()));
        let binned: Vec<_> = rows.iter().map(|row| bins.row(&row.features)).collect();
        let weights = vec![1.0; rows.len()];
        let params = Params {
            loss: Loss::Squared,
            trees: 50,
            rate: 0.08,
            row_share: 0.5,
            feature_share: 0.4,
            leaf_share: 0.001,
            shrink_share: 0.001,
            seed,
        };
        let boosted = Gbm::fit(&binned, &targets, &weights, &params);
        let rises: Vec<f32> = rows.iter().map(|row| row.rise).collect();
        let params = Params {
            loss: Loss::Absolute,
            trees: 30,
            rate: 0.2,
            ..params
        };
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
            range: (0.0, 0.0),
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

    /// By how much the relative peaks exceed the relative loads now: eight of ten lie between the
    /// first and the last.
    pub fn rises(&self, rows: &[&[f32]]) -> Vec<[f32; 3]> {
        let binned: Vec<_> = rows.iter().map(|row| self.bins.row(row)).collect();
        let (low, high) = self.range;
        let rises = self.peak.predict(&binned).into_iter();
        rises.map(|rise| [rise + low, rise, rise + high]).collect()
    }

    /// Learns the range of the peaks from rows that it was not fitted to.
    pub fn learn_range(&mut self, rows: &[UnitRow]) {
        let features: Vec<&[f32]> = rows.iter().map(|row| row.features.as_slice()).collect();
        let rises = self.rises(&features);
        let errors = rows
            .iter()
            .zip(rises)
            .map(|(row, [_, rise, _])| row.rise - rise);
        let mut errors: Vec<f32> = errors.filter(|error| error.is_finite()).collect();
        errors.sort_unstable_by(f32::total_cmp);
        let at = |share: usize| errors.as_slice().get(errors.len() * share / 100).copied();
        if let (Some(low), Some(high)) = (at(10), at(90)) {
            self.range = (low.min(0.0), high.max(0.0));
        }
    }

    /// The typical value of each feature.
    pub fn typical(&self) -> &[f32] {
        &self.means
    }

    fn linear(&self, filled: &[f32]) -> f64 {
        let scaled = scale(filled, &self.means, &self.deviations);
        let products = scaled
            .iter()
            .zip(&self.coefficients)
            .map(|(x, c)| f64::from(x * c));
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
            Ok(scores) => scores
                .iter()
                .map(|score| f64::from(*score).clamp(0.0, 1.0))
                .collect(),
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
            && self.range.0.is_finite()
            && self.range.1.is_finite()
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
        (
            mean as f32,
            if deviation > 1e-6 {
                deviation as f32
            } else {
                1.0
            },
        )
    });
    moments.unzip()
}

/// A row of [`COUNT`] finite features: what is missing has its mean.
fn fill(features: &[f32], means: &[f32]) -> Vec<f32> {
    (0..COUNT)
        .map(|number| {
            let value = features
                .get(number)
                .copied()
                .filter(|value| value.is_finite());
            value.or(means.get(number).copied()).unwrap_or(0.0)
        })
        .collect()
}

/// Features in units of their deviation, within eight of them.
fn scale(filled: &[f32], means: &[f32], deviations: &[f32]) -> Vec<f32> {
    let scaled = filled.iter().zip(means).zip(deviations);
    scaled
        .map(|((value, mean), deviation)| ((value - mean) / deviation).clamp(-8.0, 8.0))
        .collect()
}

//! Gradient boosting on histograms, for forecasts.
//!
//! Friedman, *Greedy function approximation: a gradient boosting machine*, 2001 (with the absolute
//! error: his LAD_TreeBoost, leaves are medians), stochastic as in his *Stochastic gradient
//! boosting*, 2002, on binned features as in Ke et al., *LightGBM*, NeurIPS 2017.
//!
//! Why not smartcore's: its forests give means, and the error that counts here is absolute, which
//! medians minimise; its XGRegressor takes 15.8 s for 20 trees on 100,000 rows; and ten thousand
//! entities have to be forecast in a few milliseconds. Trees are complete, of fixed depth, on bytes,
//! so that a prediction has neither branches nor bounds to check.

mod bins;
mod grow;
mod tree;

pub use bins::{Bins, Row};
pub use grow::{Loss, Params};

use serde::{Deserialize, Serialize};

use tree::Tree;

/// A sum of trees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gbm {
    base: f32,
    trees: Vec<Tree>,
}

impl Gbm {
    /// Fits targets with weights to binned rows; all three have the same length. Targets and weights
    /// are finite, weights are positive.
    pub fn fit(rows: &[Row], targets: &[f32], weights: &[f32], params: &Params) -> Gbm {
        let (base, trees) = grow::fit(rows, targets, weights, params);
        Gbm { base, trees }
    }

    /// The prediction for each row.
    pub fn predict(&self, rows: &[Row]) -> Vec<f32> {
        let mut sums = vec![self.base; rows.len()];
        for (rows, sums) in rows.chunks(BLOCK).zip(sums.chunks_mut(BLOCK)) {
            for tree in &self.trees {
                tree.add(rows, sums);
            }
        }
        sums
    }

    /// Every number in it is finite: a model that came from elsewhere can be used.
    pub fn is_sound(&self) -> bool {
        self.base.is_finite() && self.trees.iter().all(Tree::is_sound)
    }
}

/// Rows that are predicted together, while a tree is in the cache.
const BLOCK: usize = 256;

#[cfg(test)]
mod tests;

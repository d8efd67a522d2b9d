//! A complete binary tree of fixed depth.

use serde::{Deserialize, Serialize};

use super::bins::{FEATURES_MAX, Row};

/// How deep trees are.
pub const DEPTH: usize = 6;

/// How many leaves they have.
pub const LEAVES: usize = 1 << DEPTH;

/// A node sends a row to the right if the bin of a feature is above a threshold. One that does not
/// split has the largest threshold: everything goes left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    pub feature: u8,
    pub threshold: u8,
}

impl Split {
    /// Everything goes left.
    pub const NONE: Split = Split {
        feature: 0,
        threshold: u8::MAX,
    };
}

/// A tree. Nodes are numbered from 1 as in a heap (the children of n are 2n and 2n + 1), so that
/// both vectors have [`LEAVES`] items; place 0 of the nodes is not used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tree {
    nodes: Vec<Split>,
    leaves: Vec<f32>,
}

impl Tree {
    /// A tree of these nodes and leaves.
    pub fn new(nodes: [Split; LEAVES], leaves: [f32; LEAVES]) -> Tree {
        Tree {
            nodes: nodes.to_vec(),
            leaves: leaves.to_vec(),
        }
    }

    /// Adds the tree's prediction of each row to a sum. [`leaf`] is within bounds.
    #[allow(clippy::indexing_slicing)]
    pub fn add(&self, rows: &[Row], sums: &mut [f32]) {
        let nodes: Result<&[Split; LEAVES], _> = self.nodes.as_slice().try_into();
        let leaves: Result<&[f32; LEAVES], _> = self.leaves.as_slice().try_into();
        if let (Ok(nodes), Ok(leaves)) = (nodes, leaves) {
            for (row, sum) in rows.iter().zip(sums) {
                *sum += leaves[leaf(nodes, row)];
            }
        }
    }

    /// Sizes and numbers are what they have to be.
    pub fn is_sound(&self) -> bool {
        self.nodes.len() == LEAVES
            && self.leaves.len() == LEAVES
            && self.leaves.iter().all(|leaf| leaf.is_finite())
    }
}

/// Which leaf a row falls into. The masks change nothing and tell the compiler so.
#[allow(clippy::indexing_slicing)]
#[inline]
pub fn leaf(nodes: &[Split; LEAVES], row: &Row) -> usize {
    let mut node = 1;
    for _ in 0..DEPTH {
        let split = nodes[node & (LEAVES - 1)];
        let bin = row[usize::from(split.feature) & (FEATURES_MAX - 1)];
        node = 2 * node + usize::from(bin > split.threshold);
    }
    node & (LEAVES - 1)
}

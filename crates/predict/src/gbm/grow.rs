//! Growing the trees.
//!
//! This is the inner loop of training: indices are masked, or made by the loop that uses them.
#![allow(clippy::indexing_slicing)]

use super::bins::{BINS, FEATURES_MAX, Row};
use super::tree::{DEPTH, LEAVES, Split, Tree, leaf};
use crate::random::uniform;

/// What is minimised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The sum of weighted absolute errors: predicts medians.
    Absolute,
    /// The sum of weighted squared errors: predicts means.
    Squared,
}

/// How to fit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// What is minimised.
    pub loss: Loss,
    /// How many trees.
    pub trees: usize,
    /// How much of each tree is believed.
    pub rate: f32,
    /// The share of rows that a tree sees.
    pub row_share: f64,
    /// The share of features that a tree may use.
    pub feature_share: f64,
    /// A leaf has at least this share of the total weight.
    pub leaf_share: f32,
    /// Pulls leaves of little weight towards zero: this share of the total weight is added to them.
    pub shrink_share: f32,
    /// Makes it repeatable.
    pub seed: u64,
}

/// Gradient and weight of the rows in a bin.
type Histogram = [[f32; 2]; BINS];

/// What is known of a node that may be split: its rows (a stretch of `order`) and their histograms.
struct Node {
    place: usize,
    from: usize,
    to: usize,
    histograms: Vec<Histogram>,
}

/// Fits a base value and trees.
pub fn fit(rows: &[Row], targets: &[f32], weights: &[f32], params: &Params) -> (f32, Vec<Tree>) {
    let count = rows.len().min(targets.len()).min(weights.len());
    let (rows, targets, weights) = (&rows[..count], &targets[..count], &weights[..count]);
    let features = used_features(rows);
    let base = centre(
        params.loss,
        &mut targets
            .iter()
            .copied()
            .zip(weights.iter().copied())
            .collect::<Vec<_>>(),
        0.0,
    );
    let mut predictions = vec![base; count];
    let mut gradients = vec![[0.0, 0.0]; count];
    let mut trees = Vec::with_capacity(params.trees);
    for number in 0..params.trees as u64 {
        let mut order = Vec::with_capacity(count);
        for row in 0..count {
            let error = targets[row] - predictions[row];
            let slope = match params.loss {
                Loss::Absolute if error == 0.0 => 0.0,
                Loss::Absolute => error.signum(),
                Loss::Squared => error,
            };
            gradients[row] = [weights[row] * slope, weights[row]];
            if uniform(params.seed, number, row as u64) < params.row_share {
                order.push(row as u32);
            }
        }
        let chosen: Vec<u8> = features
            .iter()
            .copied()
            .filter(|feature| {
                uniform(!params.seed, number, u64::from(*feature)) < params.feature_share
            })
            .collect();
        let total: f32 = order.iter().map(|row| weights[*row as usize]).sum();
        let nodes = grow(rows, &gradients, &mut order, &chosen, total, params);
        let leaves = leaves(
            &nodes,
            rows,
            targets,
            weights,
            &predictions,
            &order,
            total,
            params,
        );
        let tree = Tree::new(nodes, leaves);
        tree.add(rows, &mut predictions);
        trees.push(tree);
    }
    (base, trees)
}

/// The features that have more than one value.
fn used_features(rows: &[Row]) -> Vec<u8> {
    let Some(first) = rows.first() else {
        return Vec::new();
    };
    (0..FEATURES_MAX)
        .filter(|feature| rows.iter().any(|row| row[*feature] != first[*feature]))
        .map(|feature| feature as u8)
        .collect()
}

/// Splits level by level.
fn grow(
    rows: &[Row],
    gradients: &[[f32; 2]],
    order: &mut [u32],
    features: &[u8],
    total: f32,
    params: &Params,
) -> [Split; LEAVES] {
    let mut nodes = [Split::NONE; LEAVES];
    let root = Node {
        place: 1,
        from: 0,
        to: order.len(),
        histograms: histograms(rows, gradients, order, features),
    };
    let mut level = vec![root];
    for depth in 0..DEPTH {
        let mut next = Vec::new();
        for node in level {
            let Some(split) = best_split(&node.histograms, features, total, params) else {
                continue;
            };
            nodes[node.place] = split;
            if depth + 1 < DEPTH {
                next.extend(children(node, split, rows, gradients, order, features));
            }
        }
        level = next;
    }
    nodes
}

/// The two halves of a node. The histograms of the larger are what those of the smaller leave.
fn children(
    node: Node,
    split: Split,
    rows: &[Row],
    gradients: &[[f32; 2]],
    order: &mut [u32],
    features: &[u8],
) -> [Node; 2] {
    let goes_left = |row: u32| rows[row as usize][usize::from(split.feature)] <= split.threshold;
    let middle = node.from + partition(&mut order[node.from..node.to], goes_left);
    let left_is_smaller = middle - node.from <= node.to - middle;
    let smaller = if left_is_smaller {
        node.from..middle
    } else {
        middle..node.to
    };
    let small = histograms(rows, gradients, &order[smaller], features);
    let mut large = node.histograms;
    for (large, small) in large.iter_mut().zip(&small) {
        for (large, small) in large.iter_mut().zip(small) {
            large[0] -= small[0];
            large[1] -= small[1];
        }
    }
    let (left, right) = if left_is_smaller {
        (small, large)
    } else {
        (large, small)
    };
    let child = |place, from, to, histograms| Node {
        place,
        from,
        to,
        histograms,
    };
    [
        child(2 * node.place, node.from, middle, left),
        child(2 * node.place + 1, middle, node.to, right),
    ]
}

/// Puts rows that go left first, and says how many they are.
fn partition(order: &mut [u32], goes_left: impl Fn(u32) -> bool) -> usize {
    let mut left = 0;
    for place in 0..order.len() {
        if goes_left(order[place]) {
            order.swap(left, place);
            left += 1;
        }
    }
    left
}

/// The histograms of some rows, one a feature.
fn histograms(
    rows: &[Row],
    gradients: &[[f32; 2]],
    order: &[u32],
    features: &[u8],
) -> Vec<Histogram> {
    let mut histograms = vec![[[0.0; 2]; BINS]; features.len()];
    for row in order {
        let (bins, [slope, weight]) = (&rows[*row as usize], gradients[*row as usize]);
        for (histogram, feature) in histograms.iter_mut().zip(features) {
            let bin = bins[usize::from(*feature) & (FEATURES_MAX - 1)];
            let sums = &mut histogram[usize::from(bin) & (BINS - 1)];
            sums[0] += slope;
            sums[1] += weight;
        }
    }
    histograms
}

/// The split that reduces the loss most, if any does.
fn best_split(
    histograms: &[Histogram],
    features: &[u8],
    total: f32,
    params: &Params,
) -> Option<Split> {
    let first = histograms.first()?;
    let (slope, weight) = first.iter().fold((0.0, 0.0), |(slope, weight), bin| {
        (slope + bin[0], weight + bin[1])
    });
    let leaf_min = total * params.leaf_share;
    let shrink = total * params.shrink_share;
    if weight < 2.0 * leaf_min {
        return None;
    }
    let score = |slope: f32, weight: f32| slope * slope / (weight + shrink);
    let mut best = score(slope, weight) * (1.0 + 1e-5);
    let mut found = None;
    for (histogram, feature) in histograms.iter().zip(features) {
        let (mut left_slope, mut left_weight) = (0.0, 0.0);
        for (threshold, bin) in histogram.iter().enumerate().take(BINS - 1) {
            left_slope += bin[0];
            left_weight += bin[1];
            let right_weight = weight - left_weight;
            if right_weight < leaf_min {
                break;
            }
            if left_weight < leaf_min || bin[1] == 0.0 {
                continue;
            }
            let gain = score(left_slope, left_weight) + score(slope - left_slope, right_weight);
            if gain > best {
                best = gain;
                found = Some(Split {
                    feature: *feature,
                    threshold: threshold as u8,
                });
            }
        }
    }
    found
}

/// The value of each leaf: the centre of the errors of its rows, shrunk, times the rate.
#[allow(clippy::too_many_arguments)]
fn leaves(
    nodes: &[Split; LEAVES],
    rows: &[Row],
    targets: &[f32],
    weights: &[f32],
    predictions: &[f32],
    order: &[u32],
    total: f32,
    params: &Params,
) -> [f32; LEAVES] {
    let mut errors: Vec<Vec<(f32, f32)>> = vec![Vec::new(); LEAVES];
    for row in order {
        let row = *row as usize;
        let error = targets[row] - predictions[row];
        errors[leaf(nodes, &rows[row])].push((error, weights[row]));
    }
    let mut leaves = [0.0; LEAVES];
    for (leaf, errors) in leaves.iter_mut().zip(&mut errors) {
        *leaf = params.rate * centre(params.loss, errors, total * params.shrink_share);
    }
    leaves
}

/// The weighted median or mean of errors, as the loss wants it, pulled towards zero as if errors of
/// zero with this weight were among them. Zero if there are none.
fn centre(loss: Loss, errors: &mut [(f32, f32)], zeros: f32) -> f32 {
    let weight: f32 = errors.iter().map(|(_, weight)| weight).sum();
    if weight <= 0.0 {
        return 0.0;
    }
    let shrunk = weight / (weight + zeros);
    if loss == Loss::Squared {
        let sum: f32 = errors.iter().map(|(error, weight)| error * weight).sum();
        return shrunk * sum / weight;
    }
    errors.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
    let mut below = 0.0;
    let half = weight / 2.0;
    let median = errors.iter().find(|(_, weight)| {
        below += weight;
        below >= half
    });
    median.map_or(0.0, |(error, _)| shrunk * error)
}

//! Features as bytes: which of up to 63 bins a value lies in.

use serde::{Deserialize, Serialize};

/// A row has at most so many features.
pub const FEATURES_MAX: usize = 64;

/// How many bins there are: bin 0 is for missing values.
pub const BINS: usize = 64;

/// The bins of a row's features: one line of the cache.
pub type Row = [u8; FEATURES_MAX];

/// Where the bins of each feature end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bins {
    /// For each feature, increasing; a value lies in the first bin whose end is not below it.
    ends: Vec<Vec<f32>>,
}

impl Bins {
    /// Bins with about equally many values each. All rows have the same number of features.
    pub fn of<'a>(rows: impl Iterator<Item = &'a [f32]>) -> Bins {
        let mut columns: Vec<Vec<f32>> = Vec::new();
        for row in rows {
            columns.resize(columns.len().max(row.len()).min(FEATURES_MAX), Vec::new());
            for (column, value) in columns.iter_mut().zip(row) {
                if value.is_finite() {
                    column.push(*value);
                }
            }
        }
        Bins {
            ends: columns.into_iter().map(ends).collect(),
        }
    }

    /// The bins of a row. What is not finite is missing.
    pub fn row(&self, values: &[f32]) -> Row {
        let mut row = [0; FEATURES_MAX];
        for ((bin, ends), value) in row.iter_mut().zip(&self.ends).zip(values) {
            if value.is_finite() {
                // At most BINS - 2 ends are below it.
                *bin = 1 + ends.partition_point(|end| end < value) as u8;
            }
        }
        row
    }

    /// No feature has more bins than there are: bins that came from elsewhere can be used.
    pub fn is_sound(&self) -> bool {
        self.ends.len() <= FEATURES_MAX && self.ends.iter().all(|ends| ends.len() <= BINS - 2)
    }
}

/// The ends of the bins of a feature with these values: all bins but the last, which is open.
fn ends(mut values: Vec<f32>) -> Vec<f32> {
    values.sort_by(f32::total_cmp);
    let mut ends: Vec<f32> = Vec::with_capacity(BINS - 2);
    for bin in 1..BINS - 1 {
        let Some(end) = values.get(bin * values.len() / (BINS - 1)) else {
            break;
        };
        if ends.last().is_none_or(|last| last < end) {
            ends.push(*end);
        }
    }
    ends
}

//! Training rows of the last days, as many as fit, picked evenly.
//!
//! Each row has a priority, drawn once: uniform in [0, 1), divided by how much the row matters. Only
//! the rows of the smallest priorities are kept (priority sampling: Duffield, Lund, Thorup, *Priority
//! sampling for estimation of arbitrary subset sums*, J. ACM 2007). What is kept does not depend on
//! when rows come, early days are not crowded out by late ones, and nothing has to be known ahead.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// What a buffer holds.
pub trait Dated {
    /// When it was seen.
    fn slot(&self) -> i64;
    /// Its priority: small ones stay.
    fn priority(&self) -> f32;
}

/// A bounded buffer of rows, in order of time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rows<R> {
    rows: VecDeque<R>,
    rows_max: usize,
    /// Rows of this priority or above are not taken.
    limit: f32,
}

impl<R: Dated> Rows<R> {
    /// An empty buffer for at most so many rows.
    pub fn new(rows_max: usize) -> Rows<R> {
        Rows {
            rows: VecDeque::new(),
            rows_max: rows_max.max(1),
            limit: f32::INFINITY,
        }
    }

    /// The priority from which on a row would not be kept: none of it need be computed.
    pub fn limit(&self) -> f32 {
        self.limit
    }

    /// Takes a row, at least as late as those before.
    pub fn push(&mut self, row: R) {
        if row.priority() < self.limit {
            self.rows.push_back(row);
        }
        // Thinning costs as much as there are rows: not for each of them.
        if self.rows.len() > self.rows_max + self.rows_max / 8 {
            self.thin();
        }
    }

    /// Keeps the rows of the smallest priorities.
    fn thin(&mut self) {
        let mut priorities: Vec<f32> = self.rows.iter().map(Dated::priority).collect();
        let place = self.rows_max.min(priorities.len().saturating_sub(1));
        let (_, limit, _) = priorities.select_nth_unstable_by(place, f32::total_cmp);
        self.limit = *limit;
        let limit = self.limit;
        self.rows.retain(|row| row.priority() < limit);
    }

    /// Forgets rows before a slot. If that makes much room, rows of larger priorities are taken from
    /// now on.
    pub fn forget_before(&mut self, slot: i64) {
        while self.rows.front().is_some_and(|row| row.slot() < slot) {
            self.rows.pop_front();
        }
        if self.rows.len() < self.rows_max - self.rows_max / 8 {
            self.limit *= 1.0 + 1.0 / 64.0;
        }
    }

    /// The rows, in order of time; at most so many as the buffer was made for.
    pub fn as_slice(&mut self) -> &[R] {
        if self.rows.len() > self.rows_max {
            self.thin();
        }
        self.rows.make_contiguous()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::uniform;

    struct Row(i64, f32);

    impl Dated for Row {
        fn slot(&self) -> i64 {
            self.0
        }

        fn priority(&self) -> f32 {
            self.1
        }
    }

    #[test]
    fn rows_are_kept_evenly() {
        let mut rows = Rows::new(1_000);
        for slot in 0..10_000 {
            rows.push(Row(slot, uniform(1, 0, slot as u64) as f32));
        }
        let kept = rows.as_slice();
        assert!(kept.len() > 800 && kept.len() <= 1_000);
        let early = kept.iter().filter(|row| row.0 < 5_000).count();
        assert!(early.abs_diff(kept.len() / 2) < 60, "{early}");
        rows.forget_before(9_000);
        let kept = rows.as_slice();
        assert!(kept.iter().all(|row| row.0 >= 9_000) && kept.len() > 50);
    }

    #[test]
    fn room_is_used_again() {
        let mut rows = Rows::new(1_000);
        for slot in 0..40_000 {
            // At first ten rows a slot, later only one.
            let count = if slot < 2_000 { 10 } else { 1 };
            for number in 0..count {
                rows.push(Row(slot, uniform(1, number, slot as u64) as f32));
            }
            rows.forget_before(slot - 5_000);
        }
        let kept = rows.as_slice().len();
        assert!(kept > 850, "{kept}");
    }
}

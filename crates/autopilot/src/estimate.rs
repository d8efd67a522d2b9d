//! How long a move takes and how long it stalls writers, from moves already made.
//!
//! A move takes a fixed time (transactions to wait for, indexes, the join) and one in proportion to
//! its bytes. Small moves teach the first, large ones the second. The estimates are on the cautious
//! side: a quarter of past moves were slower than the rate assumed, and a quarter stalled longer.

use crate::capacity::quantile;
use crate::words::words;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

words! {
    /// What a target is.
    TargetKind {
        /// A tablespace of this server.
        Tablespace => "tablespace",
        /// A foreign server.
        Server => "server",
    }
}

/// Past moves kept of each kind of target.
pub const MOVES_MAX: usize = 64;

/// A move of fewer bytes is small: its time is taken as fixed.
pub const SMALL_BYTES: u64 = 8 << 20;

/// What one move costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Bytes to be copied.
    pub bytes: u64,
    /// From the start to the point where it can be swapped, in microseconds.
    pub duration_us: i64,
    /// Writers wait so long in the swap, in microseconds.
    pub stall_us: i64,
}

/// One finished move, as measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastMove {
    /// Where it went.
    pub kind: TargetKind,
    /// What it cost.
    pub cost: Estimate,
}

/// Learns from finished moves. The default has seen none and assumes 20 MB/s to a tablespace and
/// 5 MB/s to a server, two seconds besides, and a stall of 5 ms (prototypes swapped in 1 to 2 ms,
/// waiting for writers comes on top).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Estimator {
    tablespace: VecDeque<Estimate>,
    server: VecDeque<Estimate>,
}

const FIXED_DEFAULT_US: f64 = 2e6;
const STALL_DEFAULT_US: f64 = 5e3;

impl Estimator {
    /// Takes a finished move into account. One that took no time is no measurement.
    pub fn record(&mut self, past: &PastMove) {
        if past.cost.duration_us <= 0 || past.cost.stall_us < 0 {
            return;
        }
        let history = match past.kind {
            TargetKind::Tablespace => &mut self.tablespace,
            TargetKind::Server => &mut self.server,
        };
        while history.len() >= MOVES_MAX {
            history.pop_front();
        }
        history.push_back(past.cost);
    }

    /// What a move of so many bytes will cost.
    pub fn estimate(&self, kind: TargetKind, bytes: u64) -> Estimate {
        self.tariff(kind).estimate(bytes)
    }

    /// What an exchange of roles alone costs, where nothing is left to copy.
    pub fn swap(&self, kind: TargetKind) -> Estimate {
        self.tariff(kind).swap()
    }

    /// The figures behind the estimates, worked out once.
    pub(crate) fn tariff(&self, kind: TargetKind) -> Tariff {
        let (fixed_us, bytes_per_us) = self.rates(kind);
        Tariff {
            fixed_us,
            bytes_per_us,
            stall_us: self.stall_us(kind),
        }
    }

    fn history(&self, kind: TargetKind) -> &VecDeque<Estimate> {
        match kind {
            TargetKind::Tablespace => &self.tablespace,
            TargetKind::Server => &self.server,
        }
    }

    fn stall_us(&self, kind: TargetKind) -> i64 {
        let stalls = self.history(kind).iter().map(|m| m.stall_us as f64);
        quantile_of(stalls, 0.75).unwrap_or(STALL_DEFAULT_US) as i64
    }

    /// Fixed time in microseconds, and bytes per microsecond (megabytes per second).
    fn rates(&self, kind: TargetKind) -> (f64, f64) {
        let history = self.history(kind);
        let small = history.iter().filter(|m| m.bytes < SMALL_BYTES);
        let fixed_us =
            quantile_of(small.map(|m| m.duration_us as f64), 0.75).unwrap_or(FIXED_DEFAULT_US);
        let large = history.iter().filter(|m| m.bytes >= SMALL_BYTES);
        let rates = large.map(|m| {
            let copying_us = (m.duration_us as f64 - fixed_us).max(m.duration_us as f64 / 10.0);
            m.bytes as f64 / copying_us.max(1.0)
        });
        let assumed = match kind {
            TargetKind::Tablespace => 20.0,
            TargetKind::Server => 5.0,
        };
        (fixed_us, quantile_of(rates, 0.25).unwrap_or(assumed))
    }
}

/// What moves to one kind of target cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tariff {
    fixed_us: f64,
    bytes_per_us: f64,
    stall_us: i64,
}

impl Tariff {
    pub(crate) fn estimate(&self, bytes: u64) -> Estimate {
        Estimate {
            bytes,
            // Saturates: `as` never overflows.
            duration_us: (self.fixed_us + bytes as f64 / self.bytes_per_us) as i64,
            stall_us: self.stall_us,
        }
    }

    pub(crate) fn swap(&self) -> Estimate {
        Estimate {
            bytes: 0,
            duration_us: self.stall_us,
            stall_us: self.stall_us,
        }
    }
}

fn quantile_of(values: impl Iterator<Item = f64>, fraction: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, fraction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn past(bytes: u64, duration_us: i64, stall_us: i64) -> PastMove {
        PastMove {
            kind: TargetKind::Tablespace,
            cost: Estimate {
                bytes,
                duration_us,
                stall_us,
            },
        }
    }

    #[test]
    fn before_any_move_the_defaults_hold() {
        let estimator = Estimator::default();
        let cost = estimator.estimate(TargetKind::Tablespace, 200_000_000);
        assert_eq!((cost.duration_us, cost.stall_us), (12_000_000, 5_000));
        let cost = estimator.estimate(TargetKind::Server, 200_000_000);
        assert_eq!(cost.duration_us, 42_000_000);
    }

    #[test]
    fn a_steady_rate_is_learned_from_large_moves_and_the_fixed_time_from_small_ones() {
        let mut estimator = Estimator::default();
        for megabytes in 1..=40 {
            estimator.record(&past(1000, 500_000, 1_500));
            // 100 MB/s and half a second.
            let copying_us = megabytes * 100_000_000 / 100;
            estimator.record(&past(
                megabytes as u64 * 100_000_000,
                copying_us + 500_000,
                1_500,
            ));
        }
        let cost = estimator.estimate(TargetKind::Tablespace, 1_000_000_000);
        assert!((cost.duration_us - 10_500_000).abs() < 1000, "{cost:?}");
        assert_eq!(cost.stall_us, 1_500);
        assert_eq!(estimator.history(TargetKind::Tablespace).len(), MOVES_MAX);
    }

    proptest! {
        #[test]
        fn more_bytes_never_take_less_time_and_nothing_panics(
            moves in prop::collection::vec((any::<u64>(), any::<i64>(), any::<i64>()), 0..100),
            a: u64, b: u64,
        ) {
            let mut estimator = Estimator::default();
            for (bytes, duration_us, stall_us) in moves {
                estimator.record(&past(bytes, duration_us, stall_us));
            }
            let (few, many) = (a.min(b), a.max(b));
            let few = estimator.estimate(TargetKind::Tablespace, few);
            let many = estimator.estimate(TargetKind::Tablespace, many);
            prop_assert!(0 <= few.duration_us && few.duration_us <= many.duration_us);
            prop_assert!(few.stall_us >= 0);
        }
    }
}

//! What is remembered from tick to tick.

use super::{Observation, Outcome, Tick};
use crate::estimate::{Estimator, PastMove};
use serde::{Deserialize, Serialize};

/// The memory of the autopilot. It holds finite numbers only, so that it can be kept as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// What moves cost.
    pub estimator: Estimator,
}

impl State {
    /// Decides what to do now, and remembers it.
    pub fn tick(&mut self, seen: &Observation) -> Tick {
        let _ = seen;
        Tick::default()
    }

    /// What [`State::tick`] would decide, without any effect.
    pub fn plan(&self, seen: &Observation) -> Tick {
        self.clone().tick(seen)
    }

    /// Reports what became of a decision that said `execute`, at a time in microseconds. Unknown
    /// ids are ignored.
    pub fn outcome(&mut self, id: i64, outcome: Outcome, now_us: i64) {
        let _ = (id, outcome, now_us);
    }

    /// Takes a finished move into account in later estimates.
    pub fn record_move(&mut self, past: &PastMove) {
        self.estimator.record(past);
    }
}

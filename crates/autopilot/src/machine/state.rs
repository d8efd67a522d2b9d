//! What is remembered from tick to tick.

use super::assess::UnitMemory;
use super::decide;
use super::{Action, Decision, Observation, Origin, Outcome, Stage, Tick};
use crate::estimate::{Estimator, PastMove};
use crate::resource::Loads;
use crate::{DAY_US, MINUTE_US};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A decision of which nothing was heard for so long was not carried out, in microseconds.
const UNHEARD_MAX_US: i64 = 10 * MINUTE_US;
/// Units not seen for so long are forgotten, in microseconds.
const FORGET_US: i64 = 7 * DAY_US;
/// Copies remembered for the budget; of more the oldest are added up.
const SPENT_MAX: usize = 1024;
/// Decisions under way that are followed; of more the oldest are forgotten.
const PENDING_MAX: usize = 4096;

/// The memory of the autopilot. It holds finite numbers only, so that it can be kept as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// What moves cost.
    pub estimator: Estimator,
    pub(super) decisions: i64,
    pub(super) units: BTreeMap<String, UnitMemory>,
    /// By table and entity: no move before this time, in microseconds.
    pub(super) entities: BTreeMap<String, BTreeMap<String, i64>>,
    pub(super) pending: BTreeMap<i64, Pending>,
    /// The latency guard is on.
    pub(super) guard: bool,
    spent: VecDeque<Spent>,
}

/// Bytes that a decision copies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Spent {
    at_us: i64,
    bytes: u64,
    decision: i64,
}

/// A decision that the caller was told to carry out and has not reported as finished.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub at_us: i64,
    pub started: bool,
    pub unit: String,
    pub table: String,
    pub action: Action,
    /// What leaves the unit when it is done.
    pub entities: Vec<String>,
    /// What comes to the target, and its bytes.
    pub target: Option<String>,
    pub arrival: Loads,
    pub bytes: u64,
    pub unit_cooldown_us: i64,
    pub entity_cooldown_us: i64,
    pub shadow_cooldown_us: i64,
    pub backoff_us: i64,
    pub backoff_max_us: i64,
}

impl State {
    /// Decides what to do now, and remembers it.
    pub fn tick(&mut self, seen: &Observation) -> Tick {
        self.settle(seen);
        decide::tick(self, seen)
    }

    /// What [`State::tick`] would decide, without any effect. The ids mean nothing.
    pub fn plan(&self, seen: &Observation) -> Tick {
        self.clone().tick(seen)
    }

    /// Reports what became of a decision that said `execute`, at a time in microseconds. Unknown
    /// ids are ignored.
    pub fn outcome(&mut self, id: i64, outcome: Outcome, now_us: i64) {
        if outcome == Outcome::Started {
            if let Some(pending) = self.pending.get_mut(&id) {
                pending.started = true;
                pending.at_us = now_us;
            }
            return;
        }
        let Some(pending) = self.pending.remove(&id) else {
            return;
        };
        if outcome != Outcome::Done && !pending.started {
            // What was started may have copied: it stays spent.
            self.spent.retain(|spent| spent.decision != id);
        }
        let unit = self.units.entry(pending.unit.clone()).or_default();
        match outcome {
            Outcome::Done => unit.succeeded(&pending, now_us),
            Outcome::Failed => unit.failed(&pending, now_us),
            Outcome::Cancelled | Outcome::Started => {}
        }
        if outcome == Outcome::Done && matches!(pending.action, Action::Swap { .. }) {
            let until_us = now_us.saturating_add(pending.entity_cooldown_us);
            self.cool(&pending.table, &pending.entities, until_us);
        }
    }

    /// Takes a finished move into account in later estimates.
    pub fn record_move(&mut self, past: &PastMove) {
        self.estimator.record(past);
    }

    /// Bytes that may still be copied in the 24 hours before now.
    pub(super) fn budget_left(&self, budget_bytes: Option<u64>, now_us: i64) -> Option<u64> {
        let since_us = now_us.saturating_sub(DAY_US);
        let spent = self
            .spent
            .iter()
            .filter(|spent| spent.at_us > since_us)
            .fold(0u64, |sum, spent| sum.saturating_add(spent.bytes));
        budget_bytes.map(|budget| budget.saturating_sub(spent))
    }

    /// Remembers a decision that is to be carried out.
    pub(super) fn follow(&mut self, decision: &Decision, pending: Pending) {
        if pending.bytes > 0 {
            self.spent.push_back(Spent {
                at_us: decision.at_us,
                bytes: pending.bytes,
                decision: decision.id,
            });
            if self.spent.len() > SPENT_MAX
                && let Some(oldest) = self.spent.pop_front()
                && let Some(next) = self.spent.front_mut()
            {
                next.bytes = next.bytes.saturating_add(oldest.bytes);
            }
        }
        self.pending.insert(decision.id, pending);
        while self.pending.len() > PENDING_MAX {
            self.pending.pop_first();
        }
    }

    /// An entity is not moved before a time, in microseconds.
    fn cool(&mut self, table: &str, entities: &[String], until_us: i64) {
        let cooling = self.entities.entry(table.to_owned()).or_default();
        for entity in entities {
            let until = cooling.entry(entity.clone()).or_insert(until_us);
            *until = until_us.max(*until);
        }
    }

    /// Whether an entity may not be moved yet.
    pub(super) fn is_cooling(&self, table: &str, entity: &str, now_us: i64) -> bool {
        let until = self.entities.get(table).and_then(|e| e.get(entity));
        until.is_some_and(|until_us| *until_us > now_us)
    }

    /// Brings the memory up to what is seen: swaps that somebody made, decisions that nobody
    /// reported on, a clock that was set back, things long past.
    fn settle(&mut self, seen: &Observation) {
        let now_us = seen.now_us;
        self.settle_swaps(seen);
        let working = working(seen);
        self.pending.retain(|_, pending| {
            pending.at_us = pending.at_us.min(now_us);
            let unheard = now_us.saturating_sub(pending.at_us) > UNHEARD_MAX_US;
            let at_work = pending.started && working.contains(pending.unit.as_str());
            !unheard || at_work
        });
        self.spent
            .retain(|spent| spent.at_us > now_us.saturating_sub(DAY_US));
        for spent in &mut self.spent {
            spent.at_us = spent.at_us.min(now_us);
        }
        self.units.retain(|_, unit| {
            unit.seen_at_us = unit.seen_at_us.min(now_us);
            now_us.saturating_sub(unit.seen_at_us) < FORGET_US
        });
        for cooling in self.entities.values_mut() {
            cooling.retain(|_, until_us| *until_us > now_us);
        }
        self.entities.retain(|_, cooling| !cooling.is_empty());
    }

    fn settle_swaps(&mut self, seen: &Observation) {
        for shadow in &seen.shadows {
            let Some(at_us) = shadow.swapped_at_us else {
                continue;
            };
            let Some(unit) = seen.units.iter().find(|u| u.unit == shadow.unit) else {
                continue;
            };
            let policy = unit.policy.as_ref().unwrap_or(&seen.policy);
            let at_us = at_us.min(seen.now_us);
            let memory = self.units.entry(unit.unit.clone()).or_default();
            memory.seen_at_us = seen.now_us;
            let until_us = at_us.saturating_add(policy.unit_cooldown_us.max(0));
            memory.cooldown_until_us = memory.cooldown_until_us.max(until_us);
            let until_us = at_us.saturating_add(policy.entity_cooldown_us.max(0));
            if until_us > seen.now_us {
                self.cool(&unit.table, &shadow.entities, until_us);
            }
        }
    }
}

/// Units on which a job of ours is at work.
fn working(seen: &Observation) -> BTreeSet<&str> {
    let busy: BTreeSet<i64> = seen
        .jobs
        .iter()
        .filter(|job| job.origin == Origin::Autopilot)
        .map(|job| job.shadow)
        .collect();
    seen.shadows
        .iter()
        .filter(|s| busy.contains(&s.id) || (s.stage == Stage::Building && s.is_ours()))
        .map(|s| s.unit.as_str())
        .collect()
}

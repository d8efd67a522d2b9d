//! The entities to move and where: enough to relieve the predicted excess, and with the fewest
//! bytes, without overloading a target.
//!
//! The ranking is the one that did best in the measurements behind the predictor (534 cases, chosen
//! 30 minutes before the onset): half the forecast, half the usual load at this time of the day, by
//! load per byte, redundant picks dropped. It avoided .83 of the saturation of the next hour with
//! 2.8 entities and 24 of size; the forecast alone .81 with 37.
//!
//! [`select`] works on whole partitions with targets, budgets and lead times; [`choose`] on bare
//! vectors. Both stand on the same cover: greedy by density, every way to close the cover
//! considered, the cheapest taken, then thinned. For one resource that is at most twice the
//! fewest possible bytes (Csirik, Frenk, Labbé, Zhang 1991); in practice it is close to them.

mod cover;
mod place;
mod select;

pub(crate) use place::span;
pub use select::select;

#[cfg(test)]
mod tests;

use crate::estimate::{Estimator, TargetKind};
use crate::resource::{Capacities, Loads, known};
use crate::words::words;
use crate::{DAY_US, MINUTE_US};
use serde::{Deserialize, Serialize};

/// Rejections named for one partition; what is beyond is counted.
pub const REJECTED_MAX: usize = 32;

words! {
    /// Why an entity may not be moved at all now.
    Barred {
        /// Somebody wants it to stay.
        Pinned => "pinned",
        /// It was moved not long ago.
        Cooldown => "entity_cooldown",
        /// A shadow that stays as it is (a person's, or one that is swapped), or a running job, holds it.
        Held => "held",
    }
}

/// An entity that could be moved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Candidate {
    /// The entity, as text.
    pub entity: String,
    /// Entities of the same group move together or not at all.
    pub group: Option<String>,
    /// Forecast load at the horizon; the present load where there is no forecast.
    pub forecast: Loads,
    /// Mean of the last seven days at this time of the day. `None` without such a history.
    pub usual: Option<Loads>,
    /// Bytes to copy, indexes included, over all tables that move with it. `None`: not known; it
    /// counts as the median of those that are, or as one like every other.
    pub bytes: Option<u64>,
    /// Why it may not move.
    pub barred: Option<Barred>,
    /// The target on which a shadow of it stands already: there is nothing left to copy, and the
    /// target's load counts what is mirrored to it.
    pub standing: Option<String>,
}

impl Candidate {
    /// What leaves the partition with it: half forecast, half usual.
    pub fn relief(&self) -> Loads {
        match &self.usual {
            Some(usual) => self.forecast.plus(usual).times(0.5),
            None => self.forecast.known(),
        }
    }
}

/// A place that entities can be moved to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Tablespace or server.
    pub kind: TargetKind,
    /// What it can bear.
    pub capacity: Capacities,
    /// Its predicted load, with what is mirrored to it now.
    pub load: Loads,
    /// It is never filled above this fraction of its capacity.
    pub limit: f64,
    /// Bytes free. `None`: not known, not checked.
    pub free_bytes: Option<u64>,
    /// A load that moves there counts so many times: 1 on equal hardware.
    pub load_factor: f64,
}

impl Default for Target {
    fn default() -> Self {
        Target {
            name: String::new(),
            kind: TargetKind::Tablespace,
            capacity: Capacities::default(),
            load: Loads::default(),
            limit: 0.7,
            free_bytes: None,
            load_factor: 1.0,
        }
    }
}

/// When a move is worth it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Moves that together relieve less than this fraction of the need do not pay.
    pub relief_min: f64,
    /// An entity with at least this fraction of the partition's load is dominant: it gets a shadow
    /// of its own, and the emptiest target.
    pub dominant_share: f64,
    /// A move must be done in the lead time divided by this.
    pub lead_factor: f64,
    /// Where the partition is saturated already there is no lead: a move may take this long, in
    /// microseconds.
    pub late_max_us: i64,
    /// What a move brings must pay within this time, in microseconds: it may not take longer
    /// itself, and where written bytes are the need, it may not copy more than it keeps away.
    pub payback_us: i64,
    /// Entities in one proposal.
    pub entities_max: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            relief_min: 0.3,
            dominant_share: 0.5,
            lead_factor: 1.0,
            late_max_us: 30 * MINUTE_US,
            payback_us: DAY_US,
            entities_max: 1000,
        }
    }
}

/// A partition, with those that move with it, that is going to be saturated or is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trouble {
    /// The partition.
    pub unit: String,
    /// How much load has to go: predicted peak less what it may keep. Zero: not in need.
    pub need: Loads,
    /// Its whole predicted load, to tell a dominant entity by. Zero: the sum of its candidates.
    pub load: Loads,
    /// Time until the predicted crossing, in microseconds. `None`: it has crossed.
    pub lead_us: Option<i64>,
    /// Probability of saturation; among equal leads the likelier goes first.
    pub confidence: f64,
    /// The target on which it lies: no place to move to.
    pub home: Option<String>,
    /// Names of the targets allowed. `None`: all.
    pub targets: Option<Vec<String>>,
    /// When a move is worth it.
    pub rules: Rules,
    /// Its entities.
    pub candidates: Vec<Candidate>,
}

/// Everything that a selection depends on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// The partitions in need. They share targets and budget; the most urgent is served first.
    pub troubles: Vec<Trouble>,
    /// The places to move to.
    pub targets: Vec<Target>,
    /// Bytes that may be copied. `None`: any.
    pub budget_bytes: Option<u64>,
    /// Proposals that may start a copy. `None`: any.
    pub moves_max: Option<usize>,
    /// What moves cost.
    pub estimator: Estimator,
}

words! {
    /// Why a move is proposed.
    Merit {
        /// With it the whole need is met.
        Relieves => "relieves",
        /// The need is met in part: no more can be moved.
        RelievesPart => "relieves_part",
    }
}

/// Entities to move from one partition to one target. Several proposals for one partition belong
/// together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// The partition.
    pub unit: String,
    /// Where to.
    pub target: String,
    /// What the target is.
    pub kind: TargetKind,
    /// What to move, in the order of merit; those that stand there already included.
    pub entities: Vec<String>,
    /// How many of them stand there already and need no copy.
    pub standing: usize,
    /// Load that leaves the partition.
    pub relief: Loads,
    /// Fraction of the partition's need that this proposal meets: of each needy resource, the least.
    pub share: f64,
    /// Bytes to copy; zero where no size is known.
    pub bytes: u64,
    /// Time until the swap, in microseconds.
    pub duration_us: i64,
    /// Stall of writers, in microseconds.
    pub stall_us: i64,
    /// A single entity with most of the load: it shares the shadow with no other.
    pub dominant: bool,
    /// Why.
    pub reason: Merit,
    /// The same in words.
    pub text: String,
}

words! {
    /// Why something is not proposed.
    Rejection {
        /// Somebody wants the entity to stay.
        Pinned => "pinned",
        /// The entity was moved not long ago.
        EntityCooldown => "entity_cooldown",
        /// A shadow that stays as it is (a person's, or one that is swapped), or a running job, holds the entity.
        Held => "held",
        /// One of its group may not move or does not fit, and groups move together.
        Group => "group",
        /// It would relieve nothing.
        NoRelief => "no_relief",
        /// The need is met without it, with fewer bytes.
        NotNeeded => "not_needed",
        /// The move would finish too late.
        TooLate => "too_late",
        /// The move brings less than it costs, or too little.
        DoesNotPay => "does_not_pay",
        /// Every target would be overloaded.
        TargetOverloaded => "target_overloaded",
        /// No target has the room on disk.
        NoSpace => "no_space",
        /// There is no target.
        NoTarget => "no_target",
        /// More bytes than the budget has left.
        OverBudget => "over_budget",
        /// As many moves are under way as may be.
        TooManyMoves => "too_many_moves",
        /// As many entities as one selection may take are taken.
        TooManyEntities => "too_many_entities",
        /// The partition has no entity that could move.
        NoCandidate => "no_candidate",
    }
}

/// Something considered and not proposed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// The partition.
    pub unit: String,
    /// The entity, or `None`: the partition as a whole.
    pub entity: Option<String>,
    /// The target, where it was one in particular.
    pub target: Option<String>,
    /// Why not.
    pub reason: Rejection,
    /// The same in words.
    pub text: String,
}

/// What to move, what not, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// The moves, the most urgent partition first.
    pub proposals: Vec<Proposal>,
    /// What was considered besides: of each partition the heaviest [`REJECTED_MAX`] entities.
    pub rejected: Vec<Rejected>,
    /// Rejections that are not listed.
    pub rejected_more: usize,
}

/// What leaves with an entity: half its forecast, half its usual load at this time of the day.
pub fn score(forecast: f64, usual: Option<f64>) -> f64 {
    match usual {
        Some(usual) => known(0.5 * known(forecast) + 0.5 * known(usual)),
        None => known(forecast),
    }
}

/// The fraction of a need that a relief meets, 0 to 1: of the resources in need, the least.
pub fn share(relief: &Loads, need: &Loads) -> f64 {
    cover::least(&cover::shares(relief, need), need)
}

/// Indices of the entities to move so that their scores sum to the need, with the least size.
///
/// `sizes` may be shorter than `scores`: what has no size has size 1. Where all scores together do
/// not reach the need, all that are above zero are chosen. No pick is redundant: where the need is
/// met, it is not met without any one of them.
pub fn choose(need: f64, scores: &[f64], sizes: &[f64]) -> Vec<usize> {
    cover::choose(need, scores, sizes)
}

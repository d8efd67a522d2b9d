//! What the autopilot decided, and why.

use crate::estimate::Estimate;
use crate::resource::Loads;
use crate::selection::{Rejected, Rejection};
use crate::words::words;
use serde::{Deserialize, Serialize};

/// What is to be done. In JSON a tagged object: `{"action": "swap", "shadow": 7}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Create a shadow.
    CreateShadow {
        /// Where.
        target: String,
        /// Of which entities.
        entities: Vec<String>,
    },
    /// Add entities to a shadow.
    AddEntities {
        /// The shadow.
        shadow: i64,
        /// The entities.
        entities: Vec<String>,
    },
    /// Remove entities from a shadow; some are left.
    RemoveEntities {
        /// The shadow.
        shadow: i64,
        /// The entities.
        entities: Vec<String>,
    },
    /// Drop a shadow.
    DropShadow {
        /// The shadow.
        shadow: i64,
    },
    /// Swap a shadow: its entities then live there.
    Swap {
        /// The shadow.
        shadow: i64,
    },
    /// Nothing is to be done for the unit; the reason says why.
    Hold,
}

impl Action {
    /// The word of the action, as in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Action::CreateShadow { .. } => "create_shadow",
            Action::AddEntities { .. } => "add_entities",
            Action::RemoveEntities { .. } => "remove_entities",
            Action::DropShadow { .. } => "drop_shadow",
            Action::Swap { .. } => "swap",
            Action::Hold => "hold",
        }
    }

    /// The shadow it works on, if there is one yet.
    pub fn shadow(&self) -> Option<i64> {
        match self {
            Action::AddEntities { shadow, .. }
            | Action::RemoveEntities { shadow, .. }
            | Action::DropShadow { shadow }
            | Action::Swap { shadow } => Some(*shadow),
            Action::CreateShadow { .. } | Action::Hold => None,
        }
    }
}

words! {
    /// What called for a decision.
    Trigger {
        /// The prediction.
        Model => "model",
        /// The load itself.
        Reactive => "reactive",
        /// Nothing: the partition is well.
        None => "none",
    }
}

words! {
    /// Why a decision was made.
    Reason {
        /// Saturation is likely enough to have a shadow ready.
        Likely => "likely",
        /// Saturation is probable enough, on enough predictions, to migrate.
        Confident => "confident",
        /// The load has reached the capacity, and stayed.
        Saturated => "saturated",
        /// These entities are no longer among those to move.
        Unneeded => "unneeded",
        /// The partition has been calm for long enough.
        Calm => "calm",
        /// The partition is well and no shadow stands.
        Idle => "idle",
        /// Neither likely enough to act nor calm enough to undo.
        Watching => "watching",
        /// What is needed stands or is being built.
        Prepared => "prepared",
        /// In trouble, but nothing that could be moved would help: see the rejections.
        NothingToMove => "nothing_to_move",
        /// No capacity is known, so nothing can exceed it.
        NoCapacity => "no_capacity",
    }
}

words! {
    /// Why a decision is not carried out now.
    Block {
        /// The mode only records it.
        Mode => "mode",
        /// The policy is invalid.
        InvalidPolicy => "invalid_policy",
        /// Quiet hours.
        QuietHours => "quiet_hours",
        /// The host is busy.
        HostBusy => "host_busy",
        /// The partition was migrated not long ago.
        UnitCooldown => "unit_cooldown",
        /// A shadow of the partition was dropped not long ago, or this one is too young to be.
        ShadowCooldown => "shadow_cooldown",
        /// The last attempt failed not long ago.
        Backoff => "backoff",
        /// An earlier decision about the same shadow or partition is being carried out.
        InProgress => "in_progress",
        /// A shadow that a person made is left alone.
        Person => "person",
        /// The target would be overloaded.
        TargetOverloaded => "target_overloaded",
        /// The budget of bytes is spent.
        OverBudget => "over_budget",
        /// As many copies are under way as may be.
        TooManyMoves => "too_many_moves",
        /// A shadow that is not ready cannot be swapped, and entities are to be added first.
        NotReady => "not_ready",
    }
}

/// One decision: a row of `shadow_decisions`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Its number, for [`State::outcome`](super::State::outcome).
    pub id: i64,
    /// When, in microseconds.
    pub at_us: i64,
    /// The partition.
    pub unit: String,
    /// What is to be done, or would be.
    #[serde(flatten)]
    pub action: Action,
    /// To be carried out now. Otherwise it is a proposal, and `blocked_by` says what keeps it.
    pub execute: bool,
    /// What called for it.
    pub trigger: Trigger,
    /// Why.
    pub reason: Reason,
    /// What keeps it from being carried out.
    pub blocked_by: Option<Block>,
    /// Where nothing could be selected: the reason that weighs most.
    pub rejection: Option<Rejection>,
    /// Reason, figures and what blocks it, in words.
    pub text: String,
    /// Probability of saturation, 0 to 1; where the load itself called for it, 1.
    pub confidence: f64,
    /// Load that has to go.
    pub need: Loads,
    /// Load that goes with it.
    pub relief: Loads,
    /// What it costs.
    pub estimate: Estimate,
    /// A single entity with most of the partition's load.
    pub dominant: bool,
    /// Not the same as the unit's decisions of the tick before: worth a new row.
    pub fresh: bool,
}

/// A job to cancel at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The job.
    pub job: i64,
    /// Its shadow.
    pub shadow: i64,
}

/// Everything decided at one tick.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tick {
    /// The decisions, the most urgent first; at least one for each unit that is not off.
    pub decisions: Vec<Decision>,
    /// Our own jobs to cancel: the kill switch.
    pub cancel: Vec<Cancel>,
    /// What was considered besides and why it was not proposed.
    pub rejected: Vec<Rejected>,
    /// The host is busy: running copies should slow down.
    pub throttle: bool,
}

/// What became of a decision that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Accepted: a job is at work. Another outcome follows.
    Started,
    /// Done.
    Done,
    /// Failed, or could not be started: it is tried again after a back-off.
    Failed,
    /// Cancelled, or not tried at all: it may be decided again at the next tick.
    Cancelled,
}

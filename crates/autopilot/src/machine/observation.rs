//! What the autopilot sees at one tick.

use crate::policy::Policy;
use crate::resource::{Capacities, Loads};
use crate::selection::{Candidate, Target};
use crate::words::words;
use serde::{Deserialize, Serialize};

/// Everything a decision depends on, besides the [`State`](super::State).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observation {
    /// Now, in microseconds since the Unix epoch or any other midnight UTC (for quiet hours).
    pub now_us: i64,
    /// Local time is so many minutes ahead of UTC (for quiet hours).
    pub utc_offset_minutes: i32,
    /// The kill switch: nothing is decided and what runs is cancelled, as with mode `off`.
    pub kill: bool,
    /// The server's policy.
    pub policy: Policy,
    /// The partitions under watch. A unit is a partition together with those of the same group of
    /// tables that hold the same entities: they move together.
    pub units: Vec<UnitSeen>,
    /// The shadows that live, whoever made them.
    pub shadows: Vec<ShadowSeen>,
    /// The jobs that run or wait.
    pub jobs: Vec<Job>,
    /// How busy the host is; the busiest counts.
    pub busy: Vec<Busy>,
    /// The places to move to.
    pub targets: Vec<Target>,
}

/// A partition as it is now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnitSeen {
    /// Its name: the key of everything remembered about it.
    pub unit: String,
    /// Its table, or group of tables: an entity's cooldown goes with it from partition to partition.
    pub table: String,
    /// Its table's own policy, if it has one.
    pub policy: Option<Policy>,
    /// Its load now.
    pub load: Loads,
    /// When the load was measured, in microseconds: the same sample does not count twice for the
    /// reactive rule. `None`: now.
    pub load_at_us: Option<i64>,
    /// What it can bear, configured or learned.
    pub capacity: Capacities,
    /// The newest prediction, if there is a model.
    pub prediction: Option<Prediction>,
    /// The target on which it lies.
    pub home: Option<String>,
    /// Names of the targets allowed for it. `None`: all.
    pub targets: Option<Vec<String>>,
    /// Its entities, at least the heaviest. `standing` and cooldowns are filled in here.
    pub candidates: Vec<Candidate>,
}

/// What the model says about a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Prediction {
    /// When it was made, in microseconds: the same prediction does not count twice.
    pub at_us: i64,
    /// Probability that it saturates within the horizon; the highest over its resources.
    pub confidence: f64,
    /// Predicted peak of each resource within the horizon. Zero: not predicted, the load now counts.
    pub peak: Loads,
    /// Time from `at_us` until the predicted crossing, in microseconds. Zero or less: not
    /// predicted; the horizon of an hour counts.
    pub lead_us: i64,
}

words! {
    /// Where a shadow is, as far as the autopilot cares.
    Stage {
        /// Accepted, being copied, or being changed.
        Building => "building",
        /// Equal to its primary: it may be swapped at once.
        Ready => "ready",
        /// Swapped: its entities live there.
        Migrated => "migrated",
        /// The way back is being given up, or the shadow is being taken away.
        Ending => "ending",
    }
}

words! {
    /// Who made a shadow.
    Origin {
        /// The autopilot, which may resize, swap and drop it.
        Autopilot => "autopilot",
        /// A person: the autopilot leaves it alone.
        Person => "person",
    }
}

/// A live shadow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShadowSeen {
    /// Its id.
    pub id: i64,
    /// The partition whose entities it mirrors.
    pub unit: String,
    /// The target it stands on.
    pub target: String,
    /// Its entities, as text.
    pub entities: Vec<String>,
    /// Where it is.
    pub stage: Stage,
    /// Who made it.
    pub origin: Origin,
    /// When it was created, in microseconds.
    pub created_at_us: i64,
    /// When it was last swapped, in microseconds; cooldowns run from then, whoever swapped it.
    pub swapped_at_us: Option<i64>,
}

impl ShadowSeen {
    /// Made by the autopilot.
    pub fn is_ours(&self) -> bool {
        self.origin == Origin::Autopilot
    }

    /// It mirrors, or is going to, and may be resized, swapped or dropped.
    pub fn is_standing(&self) -> bool {
        matches!(self.stage, Stage::Building | Stage::Ready)
    }
}

words! {
    /// What a job does.
    JobKind {
        /// Builds a shadow.
        Create => "create",
        /// Adds or removes entities.
        Resize => "resize",
        /// Swaps, swaps back or fails over.
        Swap => "swap",
        /// Takes a shadow away, or gives up its way back.
        Drop => "drop",
    }
}

/// A job that runs or waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: i64,
    /// The shadow it works on.
    pub shadow: i64,
    /// What it does.
    pub kind: JobKind,
    /// Who ordered it.
    pub origin: Origin,
}

/// How busy one part of the host is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Busy {
    /// What, for the text of a decision: `cpu`, a device, a server.
    pub what: String,
    /// The fraction of time or room in use; NaN: not known.
    pub fraction: f64,
}

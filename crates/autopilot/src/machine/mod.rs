//! One tick of the autopilot: what is seen and what is remembered into decisions.
//!
//! The caller gathers an [`Observation`], asks [`State::tick`], records every [`Decision`], executes
//! those that say so, reports with [`State::outcome`], and keeps the [`State`] (JSON) where it
//! survives a restart. [`State::plan`] answers the same question without any effect: it is what
//! `shadow_plan()` shows.
//!
//! Decisions follow from what stands now, not from what was ordered: one that could not be carried
//! out is made again at the next tick, or after a back-off where it failed.

mod assess;
mod decide;
mod decision;
mod gates;
mod observation;
mod reserve;
mod state;
mod unit;

pub use decision::{Action, Block, Cancel, Decision, Outcome, Reason, Tick, Trigger};
pub use observation::{
    Busy, Job, JobKind, Observation, Origin, Prediction, ShadowSeen, Stage, UnitSeen,
};
pub use state::State;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

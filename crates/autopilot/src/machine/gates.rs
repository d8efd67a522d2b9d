//! What keeps a decision from being carried out now.

use super::assess::{Assessed, UnitMemory};
use super::state::State;
use super::{Action, Block, JobKind, Observation, ShadowSeen, Stage};
use crate::policy::Mode;
use crate::resource::known;
use std::collections::BTreeSet;

/// What is under way, seen once for all partitions.
pub(super) struct UnderWay {
    /// Shadows that a job or a decision of ours is at work on, other than to build them.
    shadows: BTreeSet<i64>,
    /// Partitions for which a shadow of ours is ordered and not done.
    creating: BTreeSet<String>,
    /// Partitions with a swap of ours that is not done.
    swapping: BTreeSet<String>,
    /// Copies that may still be started.
    pub copies_left: usize,
}

impl UnderWay {
    pub fn new(state: &State, seen: &Observation) -> Self {
        let mut shadows: BTreeSet<i64> = seen
            .jobs
            .iter()
            .filter(|job| job.kind != JobKind::Create)
            .map(|job| job.shadow)
            .collect();
        let (mut creating, mut swapping) = (BTreeSet::new(), BTreeSet::new());
        let mut ordered = 0usize;
        for pending in state.pending.values() {
            shadows.extend(pending.action.shadow());
            match pending.action {
                Action::CreateShadow { .. } => {
                    ordered += 1;
                    creating.insert(pending.unit.clone());
                }
                Action::AddEntities { .. } => ordered += 1,
                Action::Swap { .. } => {
                    swapping.insert(pending.unit.clone());
                }
                _ => {}
            }
        }
        let copying: BTreeSet<i64> = seen
            .jobs
            .iter()
            .filter(|job| matches!(job.kind, JobKind::Create | JobKind::Resize))
            .map(|job| job.shadow)
            .collect();
        let ours = |id: &i64| seen.shadows.iter().any(|s| s.id == *id && s.is_ours());
        let of_people = copying.iter().filter(|id| !ours(id)).count();
        // A shadow under construction counts even while its job waits for a retry.
        let building = seen
            .shadows
            .iter()
            .filter(|s| s.is_ours() && (s.stage == Stage::Building || copying.contains(&s.id)))
            .count();
        let copies = of_people.saturating_add(building.max(ordered));
        UnderWay {
            shadows,
            creating,
            swapping,
            copies_left: seen.policy.moves_max.saturating_sub(copies),
        }
    }
}

/// Turns the latency guard on or off. Between the two fractions it stays as it was.
pub(super) fn guard(before: bool, seen: &Observation) -> bool {
    let busiest = seen
        .busy
        .iter()
        .map(|b| known(b.fraction))
        .fold(0.0, f64::max);
    if busiest >= seen.policy.busy_fraction {
        true
    } else {
        before && busiest >= seen.policy.busy_resume_fraction
    }
}

/// The gates of one partition.
pub(super) struct Gates<'a> {
    pub seen: &'a Observation,
    pub under_way: &'a UnderWay,
    pub unit: &'a Assessed<'a>,
    pub guard: bool,
    /// The server's policy is in order.
    pub valid: bool,
}

impl Gates<'_> {
    /// Everything that keeps an action on a shadow (none: to be created) from being carried out,
    /// what weighs most first.
    pub fn blocks(
        &self,
        action: &Action,
        shadow: Option<&ShadowSeen>,
        memory: &UnitMemory,
    ) -> Vec<Block> {
        let policy = self.unit.policy;
        let now_us = self.seen.now_us;
        let reactive = self.unit.saturated;
        let copies = matches!(
            action,
            Action::CreateShadow { .. } | Action::AddEntities { .. }
        );
        let swaps = matches!(action, Action::Swap { .. });
        let drops = matches!(action, Action::DropShadow { .. });
        let mut blocks = Vec::new();
        let mut block = |blocked: bool, by: Block| {
            if blocked {
                blocks.push(by);
            }
        };
        block(!self.valid || !self.unit.valid, Block::InvalidPolicy);
        let least = if swaps { Mode::Migrate } else { Mode::Shadow };
        block(policy.mode < least, Block::Mode);
        let name = &self.unit.seen.unit;
        // A swap does not wait for a shadow that is built beside it.
        let unit_busy = (copies && self.under_way.creating.contains(name))
            || ((copies || swaps) && self.under_way.swapping.contains(name));
        let shadow_busy = shadow.is_some_and(|s| self.under_way.shadows.contains(&s.id));
        block(unit_busy || shadow_busy, Block::InProgress);
        let building = shadow.is_some_and(|s| s.stage != Stage::Ready);
        block(building && !drops, Block::NotReady);
        let cooling = memory.cooldown_until_us > now_us;
        block((copies || swaps) && cooling, Block::UnitCooldown);
        let creates = matches!(action, Action::CreateShadow { .. });
        block(
            creates && !reactive && memory.shadow_until_us > now_us,
            Block::ShadowCooldown,
        );
        let young = shadow.is_some_and(|s| {
            s.created_at_us
                .min(now_us)
                .saturating_add(policy.shadow_cooldown_us)
                > now_us
        });
        block(drops && young, Block::ShadowCooldown);
        block(memory.backs_off(action.word(), now_us), Block::Backoff);
        let quiet = policy
            .quiet_hours
            .is_some_and(|q| q.contain(now_us, self.seen.utc_offset_minutes));
        let exempt = drops || (reactive && policy.quiet_reactive);
        block(quiet && !exempt, Block::QuietHours);
        let exempt = drops || (swaps && reactive);
        block(self.guard && !exempt, Block::HostBusy);
        blocks
    }
}

//! The decisions about one partition.

use super::assess::{Assessed, UnitMemory};
use super::gates::Gates;
use super::reserve::Entities;
use super::{Action, Block, Reason, ShadowSeen, Stage, Trigger};
use crate::estimate::{Estimate, Estimator, TargetKind};
use crate::resource::{Loads, known, usable};
use crate::selection::{Proposal, Rejected, Rejection, Target, share};
use std::collections::{BTreeMap, BTreeSet};

/// A decision before it has a number.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub action: Action,
    pub trigger: Trigger,
    pub reason: Reason,
    pub blocks: Vec<Block>,
    pub rejection: Option<Rejection>,
    /// What is to be said besides reason and figures.
    pub text: String,
    pub relief: Loads,
    pub estimate: Estimate,
    pub dominant: bool,
    /// Entities that it concerns, and where they come to.
    pub entities: Vec<String>,
    pub target: Option<String>,
    pub arrival: Loads,
}

impl Draft {
    fn new(action: Action, trigger: Trigger, reason: Reason) -> Self {
        Draft {
            action,
            trigger,
            reason,
            blocks: Vec::new(),
            rejection: None,
            text: String::new(),
            relief: Loads::default(),
            estimate: Estimate::default(),
            dominant: false,
            entities: Vec::new(),
            target: None,
            arrival: Loads::default(),
        }
    }

    /// It is to be carried out.
    pub fn executes(&self) -> bool {
        self.blocks.is_empty() && self.action != Action::Hold
    }
}

/// What a partition's decisions depend on.
pub(super) struct Scene<'a> {
    pub unit: &'a Assessed<'a>,
    pub gates: Gates<'a>,
    /// Standing shadows of the partition, of whoever made them.
    pub shadows: Vec<&'a ShadowSeen>,
    pub proposals: Vec<&'a Proposal>,
    /// Why the partition as a whole gets no proposal.
    pub rejected: Option<&'a Rejected>,
    pub entities: &'a Entities<'a>,
    pub estimator: &'a Estimator,
    /// The targets with what is on its way to them.
    pub targets: &'a [Target],
}

impl Scene<'_> {
    /// The decisions; at least one. `swapped` is what the swaps of this tick bring to each target
    /// that is not measured there yet.
    pub fn decide(
        &self,
        memory: &mut UnitMemory,
        swapped: &mut BTreeMap<String, Loads>,
    ) -> Vec<Draft> {
        let mut drafts = if self.unit.in_trouble() {
            self.relieve(memory, swapped)
        } else {
            self.rest(memory)
        };
        if drafts.is_empty() {
            drafts.push(self.hold());
        }
        drafts
    }

    fn ours(&self) -> impl Iterator<Item = &ShadowSeen> {
        self.shadows.iter().copied().filter(|s| s.is_ours())
    }

    fn trigger(&self) -> Trigger {
        if self.unit.saturated {
            Trigger::Reactive
        } else if self.unit.likely {
            Trigger::Model
        } else {
            Trigger::None
        }
    }

    fn reason(&self) -> Reason {
        if self.unit.saturated {
            Reason::Saturated
        } else if self.unit.confident {
            Reason::Confident
        } else {
            Reason::Likely
        }
    }

    /// The partition is in trouble: prepare, and swap if it is called for.
    fn relieve(
        &self,
        memory: &mut UnitMemory,
        swapped: &mut BTreeMap<String, Loads>,
    ) -> Vec<Draft> {
        let mut missing: Vec<Draft> = self
            .proposals
            .iter()
            .filter_map(|proposal| self.prepare(proposal, memory))
            .collect();
        let mut drafts = Vec::new();
        if self.unit.calls_for_swap() {
            drafts = self.swaps(&missing, memory, swapped);
        }
        if drafts.iter().any(Draft::executes) {
            // The cooldown begins; what is missing may not be needed any more.
            for draft in &mut missing {
                draft.blocks.push(Block::InProgress);
            }
        }
        drafts.extend(missing);
        if !drafts
            .iter()
            .any(|d| matches!(d.action, Action::Swap { .. }) && d.executes())
        {
            drafts.extend(self.remove(memory));
        }
        drafts
    }

    /// What a proposal needs that does not stand yet.
    fn prepare(&self, proposal: &Proposal, memory: &UnitMemory) -> Option<Draft> {
        let standing: BTreeSet<&String> = self.ours().flat_map(|s| &s.entities).collect();
        let fresh: Vec<String> = proposal
            .entities
            .iter()
            .filter(|entity| !standing.contains(entity))
            .cloned()
            .collect();
        if fresh.is_empty() {
            return None;
        }
        let overlap = |s: &ShadowSeen| {
            s.entities
                .iter()
                .filter(|e| proposal.entities.contains(e))
                .count()
        };
        let host = self
            .ours()
            .filter(|s| s.target == proposal.target && !proposal.dominant && overlap(s) > 0)
            .max_by_key(|s| (s.stage == Stage::Ready, overlap(s), std::cmp::Reverse(s.id)));
        let action = match host {
            Some(shadow) => Action::AddEntities {
                shadow: shadow.id,
                entities: fresh.clone(),
            },
            None => Action::CreateShadow {
                target: proposal.target.clone(),
                entities: fresh.clone(),
            },
        };
        let mut draft = Draft::new(action, self.trigger(), self.reason());
        draft.blocks = self.gates.blocks(&draft.action, host, memory);
        draft.text = proposal.text.clone();
        draft.relief = proposal.relief;
        draft.estimate = Estimate {
            bytes: proposal.bytes,
            duration_us: proposal.duration_us,
            stall_us: proposal.stall_us,
        };
        draft.dominant = proposal.dominant;
        draft.arrival = self.entities.sum(&self.unit.seen.unit, &fresh).0;
        draft.entities = fresh;
        draft.target = Some(proposal.target.clone());
        Some(draft)
    }

    /// Swaps of what stands ready and is wanted. What is missing comes first, unless the partition
    /// is saturated already or the missing cannot come now.
    fn swaps(
        &self,
        missing: &[Draft],
        memory: &UnitMemory,
        swapped: &mut BTreeMap<String, Loads>,
    ) -> Vec<Draft> {
        let wanted = |shadow: &ShadowSeen| -> Vec<String> {
            let of = |p: &&&Proposal| p.target == shadow.target;
            let entities = self.proposals.iter().filter(of).flat_map(|p| &p.entities);
            entities
                .filter(|entity| shadow.entities.contains(entity))
                .cloned()
                .collect()
        };
        let unit = &self.unit.seen.unit;
        let ready: Vec<(&ShadowSeen, Vec<String>)> = self
            .ours()
            .filter(|s| s.stage == Stage::Ready)
            .map(|s| (s, wanted(s)))
            .filter(|(_, wanted)| !wanted.is_empty())
            .collect();
        let brings = ready.iter().fold(Loads::default(), |sum, (_, wanted)| {
            sum.plus(&self.entities.sum(unit, wanted).0)
        });
        let building = self
            .ours()
            .any(|s| s.stage == Stage::Building && !wanted(s).is_empty());
        let complete = missing.is_empty() && !building;
        let pays = share(&brings, &self.unit.need) >= self.unit.policy.rules.relief_min;
        let wait = !self.unit.saturated && (building || missing.iter().any(Draft::executes));
        let mut drafts = Vec::new();
        for (shadow, _) in &ready {
            let mut draft = self.swap(shadow, memory);
            if !complete && (wait || !pays) {
                draft.blocks.push(Block::NotReady);
                draft.text = "more entities are to be added first".into();
            }
            if let Some(target) = self.targets.iter().find(|t| t.name == shadow.target) {
                let also = swapped.entry(target.name.clone()).or_default();
                // Its writes are mirrored and measured there already.
                let with = also.plus(&Loads {
                    cpu: known(draft.relief.cpu * target.load_factor),
                    ..Loads::default()
                });
                if overloaded(target, &with) {
                    draft.blocks.push(Block::TargetOverloaded);
                } else if draft.executes() {
                    *also = with;
                }
            }
            drafts.push(draft);
        }
        drafts.extend(self.swaps_of_people(memory));
        drafts
    }

    fn swap(&self, shadow: &ShadowSeen, memory: &UnitMemory) -> Draft {
        let action = Action::Swap { shadow: shadow.id };
        let mut draft = Draft::new(action, self.trigger(), self.reason());
        draft.blocks = self.gates.blocks(&draft.action, Some(shadow), memory);
        draft.relief = self.entities.sum(&self.unit.seen.unit, &shadow.entities).0;
        let kind = self
            .targets
            .iter()
            .find(|target| target.name == shadow.target)
            .map_or(TargetKind::Tablespace, |target| target.kind);
        draft.estimate = self.estimator.swap(kind);
        draft.entities = shadow.entities.clone();
        draft.target = Some(shadow.target.clone());
        draft.text = format!(
            "{} on {} stands ready: {:.0}% of the need",
            count(shadow.entities.len()),
            shadow.target,
            share(&draft.relief, &self.unit.need) * 100.0
        );
        draft
    }

    /// A person's shadow that would help is named and left alone.
    fn swaps_of_people(&self, memory: &UnitMemory) -> Vec<Draft> {
        let people = self
            .shadows
            .iter()
            .filter(|s| !s.is_ours() && s.stage == Stage::Ready);
        people
            .map(|shadow| {
                let mut draft = self.swap(shadow, memory);
                draft.blocks.insert(0, Block::Person);
                draft.text += "; a person made it, so a person has to swap it";
                draft
            })
            .filter(|draft| {
                share(&draft.relief, &self.unit.need) >= self.unit.policy.rules.relief_min
            })
            .collect()
    }

    /// Takes out of shadows what has not been needed for some time.
    fn remove(&self, memory: &mut UnitMemory) -> Vec<Draft> {
        let mut drafts = Vec::new();
        for shadow in self.ours() {
            let needed = |entity: &&String| {
                self.proposals
                    .iter()
                    .any(|p| p.target == shadow.target && p.entities.contains(entity))
            };
            let unneeded: Vec<&String> = shadow
                .entities
                .iter()
                .filter(|entity| !needed(entity))
                .collect();
            let ticks = self.unit.policy.remove_ticks.max(1);
            let long = memory.count_unneeded(shadow.id, &unneeded, self.unit.news, ticks);
            if long.is_empty() {
                continue;
            }
            let text = format!(
                "{} of {} not needed for {ticks} ticks",
                count(long.len()),
                shadow.entities.len()
            );
            let action = if long.len() == shadow.entities.len() {
                Action::DropShadow { shadow: shadow.id }
            } else {
                Action::RemoveEntities {
                    shadow: shadow.id,
                    entities: long.clone(),
                }
            };
            let mut draft = Draft::new(action, self.trigger(), Reason::Unneeded);
            draft.blocks = self.gates.blocks(&draft.action, Some(shadow), memory);
            draft.text = text;
            draft.entities = long;
            draft.target = Some(shadow.target.clone());
            drafts.push(draft);
        }
        drafts
    }

    /// The partition is in no trouble: drop what has not been needed for long enough.
    fn rest(&self, memory: &mut UnitMemory) -> Vec<Draft> {
        if self.unit.calm_streak < self.unit.policy.calm_ticks.max(1) {
            return Vec::new();
        }
        self.ours()
            .map(|shadow| {
                let action = Action::DropShadow { shadow: shadow.id };
                let mut draft = Draft::new(action, Trigger::None, Reason::Calm);
                draft.blocks = self.gates.blocks(&draft.action, Some(shadow), memory);
                draft.text = format!("calm for {} ticks", self.unit.calm_streak);
                draft.entities = shadow.entities.clone();
                draft.target = Some(shadow.target.clone());
                draft
            })
            .collect()
    }

    /// Nothing is to be done; why.
    fn hold(&self) -> Draft {
        let stands = self.ours().count();
        let unit = self.unit;
        let mut draft = Draft::new(Action::Hold, self.trigger(), Reason::Watching);
        if unit.in_trouble() {
            if unit.fullest.is_none() {
                draft.reason = Reason::NoCapacity;
            } else if self.proposals.is_empty() {
                draft.reason = Reason::NothingToMove;
                draft.rejection = self.rejected.map(|r| r.reason);
                draft.text = self.rejected.map_or(String::new(), |r| r.text.clone());
                draft.blocks.extend(draft.rejection.and_then(block_of));
            } else {
                draft.reason = Reason::Prepared;
                if unit.calls_for_swap() {
                    draft.blocks.push(Block::NotReady);
                } else {
                    draft.text = format!(
                        "it swaps at confidence {:.2} on {} of {} predictions, now {}",
                        unit.policy.migrate_confidence,
                        unit.policy.migrate_ticks,
                        unit.policy.migrate_window,
                        unit.hits
                    );
                }
            }
        } else if unit.fullest.is_none() {
            draft.reason = Reason::NoCapacity;
        } else if stands > 0 {
            draft.text = format!(
                "{stands} of our shadows stand; calm for {} of {} ticks",
                unit.calm_streak, unit.policy.calm_ticks
            );
        } else if unit.calm_streak > 0 {
            draft.reason = Reason::Idle;
        }
        draft
    }
}

fn overloaded(target: &Target, also: &Loads) -> bool {
    let load = target.load.plus(also);
    let limit = known(target.limit).min(1.0);
    load.iter().any(|(resource, load)| {
        usable(*target.capacity.get(resource)).is_some_and(|capacity| *load > limit * capacity)
    })
}

fn block_of(rejection: Rejection) -> Option<Block> {
    match rejection {
        Rejection::OverBudget => Some(Block::OverBudget),
        Rejection::TooManyMoves => Some(Block::TooManyMoves),
        Rejection::TargetOverloaded => Some(Block::TargetOverloaded),
        _ => None,
    }
}

fn count(entities: usize) -> String {
    match entities {
        1 => "1 entity".into(),
        more => format!("{more} entities"),
    }
}

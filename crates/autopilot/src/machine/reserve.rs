//! Load that targets are going to have: shadows under construction and creations just ordered.

use super::assess::Assessed;
use super::state::State;
use super::{Action, Observation, Stage};
use crate::resource::Loads;
use crate::selection::{Candidate, Target};
use std::collections::{BTreeSet, HashMap};

/// The candidates of the partitions that matter at a tick, by partition and entity: of those in
/// trouble, with shadows, or with decisions under way.
pub(super) struct Entities<'a>(HashMap<&'a str, HashMap<&'a str, &'a Candidate>>);

impl<'a> Entities<'a> {
    pub fn new(state: &State, seen: &'a Observation, assessed: &[Assessed<'_>]) -> Self {
        let mut matter: BTreeSet<&str> = assessed
            .iter()
            .filter(|unit| unit.in_trouble())
            .map(|unit| unit.seen.unit.as_str())
            .collect();
        matter.extend(seen.shadows.iter().map(|shadow| shadow.unit.as_str()));
        matter.extend(state.pending.values().map(|pending| pending.unit.as_str()));
        let mut all = HashMap::new();
        for unit in &seen.units {
            if !matter.contains(unit.unit.as_str()) {
                continue;
            }
            let its = unit.candidates.iter().map(|c| (c.entity.as_str(), c));
            all.entry(unit.unit.as_str())
                .or_insert_with(|| its.collect());
        }
        Entities(all)
    }

    /// What some entities of a partition load it with, and their bytes; unknown ones count nothing.
    pub fn sum(&self, unit: &str, entities: &[String]) -> (Loads, u64) {
        let its = self.0.get(unit);
        entities
            .iter()
            .filter_map(|entity| its?.get(entity.as_str()))
            .fold((Loads::default(), 0u64), |(loads, bytes), candidate| {
                (
                    loads.plus(&candidate.relief()),
                    bytes.saturating_add(candidate.bytes.unwrap_or(0)),
                )
            })
    }
}

/// The targets with what is on its way to them. The load of a shadow that is ready is measured on
/// its target; that of one under construction is not yet.
pub(super) fn targets(state: &State, seen: &Observation, entities: &Entities<'_>) -> Vec<Target> {
    let mut targets = seen.targets.clone();
    let mut add = |name: &str, (arrival, bytes): (Loads, u64)| {
        if let Some(target) = targets.iter_mut().find(|target| target.name == name) {
            target.load = target.load.plus(&arrival.times(target.load_factor));
            target.free_bytes = target.free_bytes.map(|free| free.saturating_sub(bytes));
        }
    };
    for shadow in &seen.shadows {
        if shadow.stage == Stage::Building {
            add(&shadow.target, entities.sum(&shadow.unit, &shadow.entities));
        }
    }
    for pending in state.pending.values() {
        let Some(target) = &pending.target else {
            continue;
        };
        if !matches!(
            pending.action,
            Action::CreateShadow { .. } | Action::AddEntities { .. }
        ) {
            continue;
        }
        // Once the shadow is seen with them it speaks for itself.
        let seen_there = seen.shadows.iter().any(|shadow| {
            shadow.unit == pending.unit
                && shadow.target == *target
                && pending.entities.iter().all(|e| shadow.entities.contains(e))
        });
        if !seen_there {
            add(target, (pending.arrival, pending.bytes));
        }
    }
    targets
}

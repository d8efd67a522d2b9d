//! How a partition is: the memory of it, brought up to date with what is seen.

use super::UnitSeen;
use super::state::Pending;
use crate::policy::{Policy, WINDOW_MAX};
use crate::resource::{Capacities, Loads, Resource, known, usable};
use crate::{HOUR_US, MINUTE_US};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A prediction looks an hour ahead; one that is older says nothing, in microseconds.
const STALE_US: i64 = HOUR_US;
/// Predictions further apart than this are not "of the last few", in microseconds.
const RECENT_US: i64 = 2 * HOUR_US;
/// After a gap this long streaks begin anew, and a sample this old says nothing, in microseconds.
const GAP_US: i64 = 30 * MINUTE_US;

/// What is remembered of one partition. All times in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct UnitMemory {
    pub seen_at_us: i64,
    /// When predictions were made, and the confidence of each; the newest last.
    confidences: VecDeque<(i64, f64)>,
    load_at_us: Option<i64>,
    saturated_streak: u32,
    pub calm_streak: u32,
    pub cooldown_until_us: i64,
    /// The prediction creates no shadow before.
    pub shadow_until_us: i64,
    /// Our shadows of it, when last seen.
    pub ours: BTreeSet<i64>,
    /// Entities removed from a shadow: not to be added again by the prediction before.
    pub removed: BTreeMap<String, i64>,
    /// By shadow and entity: ticks in a row that it was not needed.
    pub unneeded: BTreeMap<i64, BTreeMap<String, u32>>,
    /// By action: failures in a row, and when to try again.
    backoff: BTreeMap<String, (u32, i64)>,
    /// Fingerprint of the last decisions.
    pub said: u64,
}

impl UnitMemory {
    /// A decision was carried out.
    pub fn succeeded(&mut self, pending: &Pending, now_us: i64) {
        use super::Action::*;
        self.backoff.remove(pending.action.word());
        let shadow_until_us = now_us.saturating_add(pending.shadow_cooldown_us);
        match &pending.action {
            Swap { .. } => {
                let until_us = now_us.saturating_add(pending.unit_cooldown_us);
                self.cooldown_until_us = self.cooldown_until_us.max(until_us);
            }
            DropShadow { .. } => self.shadow_until_us = shadow_until_us,
            RemoveEntities { entities, .. } => {
                for entity in entities {
                    self.removed.insert(entity.clone(), shadow_until_us);
                }
            }
            CreateShadow { .. } | AddEntities { .. } | Hold => {}
        }
    }

    /// A decision failed: wait, twice as long each time.
    pub fn failed(&mut self, pending: &Pending, now_us: i64) {
        let (failures, until_us) = self
            .backoff
            .entry(pending.action.word().to_owned())
            .or_default();
        let doublings = (*failures).min(30);
        let wait_us = pending
            .backoff_us
            .saturating_mul(1i64 << doublings)
            .min(pending.backoff_max_us)
            .max(0);
        *failures = failures.saturating_add(1);
        *until_us = now_us.saturating_add(wait_us);
    }

    /// Whether an action failed not long ago.
    pub fn backs_off(&self, word: &str, now_us: i64) -> bool {
        let backoff = self.backoff.get(word);
        backoff.is_some_and(|(_, until_us)| *until_us > now_us)
    }

    /// Forgets how things were going; cooldowns and back-offs stay.
    pub fn start_anew(&mut self) {
        self.confidences.clear();
        self.load_at_us = None;
        self.saturated_streak = 0;
        self.calm_streak = 0;
        self.unneeded.clear();
        self.said = 0;
    }

    /// Takes in which shadows of ours stand. Where one is gone that was there, whoever dropped it,
    /// the prediction does not put it back at once.
    pub fn observe_shadows(&mut self, ours: BTreeSet<i64>, now_us: i64, cooldown_us: i64) {
        if self.ours.difference(&ours).next().is_some() {
            let until_us = now_us.saturating_add(cooldown_us.max(0));
            self.shadow_until_us = self.shadow_until_us.max(until_us);
        }
        self.unneeded.retain(|shadow, _| ours.contains(shadow));
        self.ours = ours;
    }

    /// Counts for how many ticks in a row each entity of a shadow was not needed. Returns those
    /// unneeded for so many.
    pub fn count_unneeded(
        &mut self,
        shadow: i64,
        unneeded: &[&String],
        news: bool,
        ticks: u32,
    ) -> Vec<String> {
        let counts = self.unneeded.entry(shadow).or_default();
        let now: BTreeSet<&String> = unneeded.iter().copied().collect();
        counts.retain(|entity, _| now.contains(entity));
        let mut long = Vec::new();
        for entity in unneeded {
            let count = counts.entry((*entity).clone()).or_default();
            *count = count.saturating_add(u32::from(news));
            if *count >= ticks {
                long.push((*entity).clone());
            }
        }
        long
    }

    /// Takes a tick in.
    pub fn observe<'a>(
        &mut self,
        seen: &'a UnitSeen,
        policy: &'a Policy,
        now_us: i64,
    ) -> Assessed<'a> {
        self.seen_at_us = now_us;
        // A clock that was set back must not make a wait longer than it ever is.
        let most = |wait_us: i64| now_us.saturating_add(wait_us.max(0));
        self.cooldown_until_us = self.cooldown_until_us.min(most(policy.unit_cooldown_us));
        self.shadow_until_us = self.shadow_until_us.min(most(policy.shadow_cooldown_us));
        self.removed.retain(|_, until_us| {
            *until_us = (*until_us).min(most(policy.shadow_cooldown_us));
            *until_us > now_us
        });
        self.backoff.retain(|_, (_, until_us)| {
            *until_us = (*until_us).min(most(policy.backoff_max_us));
            // Kept for another while, so that the next failure counts as one more.
            until_us.saturating_add(policy.backoff_max_us.max(0)) > now_us
        });
        self.observe_prediction(seen, now_us);
        let news = self.observe_sample(seen, now_us);
        let fullest = seen.load.fullest(&seen.capacity);
        let fraction = fullest.map_or(0.0, |(_, fraction)| fraction);
        let confidence = self.confidence(now_us);
        if news {
            let saturated = fraction >= policy.reactive_fraction;
            self.saturated_streak = streak(self.saturated_streak, saturated);
            let calm = confidence < policy.calm_confidence && fraction < policy.release_fraction;
            self.calm_streak = streak(self.calm_streak, calm);
        }
        let window = policy.migrate_window.min(WINDOW_MAX);
        let hits = self
            .confidences
            .iter()
            .rev()
            .take(window)
            .filter(|(_, confidence)| *confidence >= policy.migrate_confidence)
            .count();
        let likely = seen.prediction.is_some() && confidence >= policy.shadow_confidence;
        let mut assessed = Assessed {
            seen,
            policy,
            valid: policy.validate().is_ok(),
            confidence,
            hits,
            likely,
            confident: likely && policy.migrate_ticks >= 1 && hits >= policy.migrate_ticks,
            saturated: self.saturated_streak >= policy.reactive_ticks.max(1),
            calm_streak: self.calm_streak,
            fullest,
            news,
            need: Loads::default(),
            lead_us: None,
        };
        assessed.need = need(&assessed);
        if !assessed.saturated
            && let Some(prediction) = seen.prediction.filter(|_| likely)
        {
            let lead_us = if prediction.lead_us > 0 {
                prediction.lead_us
            } else {
                HOUR_US
            };
            let crossing_us = prediction.at_us.saturating_add(lead_us);
            // What should have crossed by now counts as if it had: there is no lead that a move could miss.
            let left_us = crossing_us.saturating_sub(now_us);
            assessed.lead_us = (left_us > 0).then_some(left_us);
        }
        assessed
    }

    fn observe_prediction(&mut self, seen: &UnitSeen, now_us: i64) {
        self.confidences
            .retain(|(at_us, _)| *at_us <= now_us && now_us.saturating_sub(*at_us) <= RECENT_US);
        let Some(prediction) = seen.prediction else {
            return;
        };
        let at_us = prediction.at_us.min(now_us);
        let newest = self.confidences.back().map(|(at_us, _)| *at_us);
        if newest.is_none_or(|newest| at_us > newest) {
            let confidence = known(prediction.confidence).min(1.0);
            self.confidences.push_back((at_us, confidence));
        }
        while self.confidences.len() > WINDOW_MAX {
            self.confidences.pop_front();
        }
    }

    /// Whether there is a new sample of the load.
    fn observe_sample(&mut self, seen: &UnitSeen, now_us: i64) -> bool {
        let at_us = seen.load_at_us.unwrap_or(now_us).min(now_us);
        let last_us = self.load_at_us.filter(|last_us| *last_us <= now_us);
        if now_us.saturating_sub(at_us) > GAP_US {
            // Nobody measures any more: what was is no reason to act.
            self.saturated_streak = 0;
            self.calm_streak = 0;
            return false;
        }
        if last_us.is_some_and(|last_us| at_us <= last_us) {
            return false;
        }
        if last_us.is_none_or(|last_us| at_us.saturating_sub(last_us) > GAP_US) {
            self.saturated_streak = 0;
            self.calm_streak = 0;
        }
        self.load_at_us = Some(at_us);
        true
    }

    /// The newest confidence; 0 without one that still says something.
    fn confidence(&self, now_us: i64) -> f64 {
        self.confidences
            .back()
            .filter(|(at_us, _)| now_us.saturating_sub(*at_us) <= STALE_US)
            .map_or(0.0, |(_, confidence)| *confidence)
    }
}

fn streak(before: u32, goes_on: bool) -> u32 {
    if goes_on { before.saturating_add(1) } else { 0 }
}

/// How a partition is at this tick.
pub(super) struct Assessed<'a> {
    pub seen: &'a UnitSeen,
    pub policy: &'a Policy,
    pub valid: bool,
    /// Of the newest prediction.
    pub confidence: f64,
    /// Predictions of the window that reached the confidence to migrate.
    pub hits: usize,
    pub likely: bool,
    pub confident: bool,
    pub saturated: bool,
    pub calm_streak: u32,
    pub fullest: Option<(Resource, f64)>,
    /// There is a new sample of the load: streaks went on.
    pub news: bool,
    pub need: Loads,
    /// Until the crossing; `None`: it has crossed.
    pub lead_us: Option<i64>,
}

impl Assessed<'_> {
    /// Something has to be done about it.
    pub fn in_trouble(&self) -> bool {
        self.likely || self.saturated
    }

    /// A swap is called for.
    pub fn calls_for_swap(&self) -> bool {
        self.confident || self.saturated
    }
}

/// How much load has to go: of each resource that is saturated, or predicted to be, what is above
/// the fraction that relief leaves. Where the model expects saturation the fullest resource counts
/// as if it reached its capacity at least, because that is the event it predicts.
fn need(unit: &Assessed<'_>) -> Loads {
    let capacity: &Capacities = &unit.seen.capacity;
    let load = unit.seen.load.known();
    let predicted = match unit.seen.prediction {
        Some(prediction) if unit.likely => load.max(&prediction.peak),
        _ => load,
    };
    if !unit.in_trouble() {
        return Loads::default();
    }
    let fullest = predicted.fullest(capacity).map(|(resource, _)| resource);
    Loads::from_fn(|resource| {
        let Some(limit) = usable(*capacity.get(resource)) else {
            return 0.0;
        };
        let mut peak = *predicted.get(resource);
        let from = if unit.saturated {
            limit * unit.policy.reactive_fraction.min(1.0)
        } else {
            limit
        };
        if unit.likely && Some(resource) == fullest {
            peak = peak.max(limit);
        }
        if peak >= from {
            known(peak - limit * unit.policy.relief_fraction)
        } else {
            0.0
        }
    })
}

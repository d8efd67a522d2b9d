//! A tick: every partition assessed, one selection for all in trouble, then each one's decisions.

use super::assess::{Assessed, UnitMemory};
use super::gates::{self, Gates, UnderWay};
use super::reserve::{self, Entities};
use super::state::{Pending, State};
use super::unit::{Draft, Scene};
use super::{Action, Cancel, Decision, JobKind, Observation, Origin, ShadowSeen, Tick};
use crate::policy::{Mode, Policy};
use crate::selection::{Barred, Candidate, Request, Selection, Target, Trouble, select, span};
use std::collections::{BTreeMap, BTreeSet, HashSet};

pub(super) fn tick(state: &mut State, seen: &Observation) -> Tick {
    if seen.kill || seen.policy.mode == Mode::Off {
        for memory in state.units.values_mut() {
            memory.start_anew();
        }
        state.guard = false;
        return Tick {
            cancel: cancels(seen, |_| true),
            ..Tick::default()
        };
    }
    state.guard = gates::guard(state.guard, seen);
    let mut off = BTreeSet::new();
    let assessed = assess(state, seen, &mut off);
    let mut tick = Tick {
        cancel: cancels(seen, |unit| off.contains(unit)),
        throttle: state.guard,
        ..Tick::default()
    };
    let entities = Entities::new(state, seen, &assessed);
    let under_way = UnderWay::new(state, seen);
    let targets = reserve::targets(state, seen, &entities);
    let selection = choose(state, seen, &assessed, &targets, under_way.copies_left);
    let valid = seen.policy.validate().is_ok();
    let mut swapped = BTreeMap::new();
    for unit in &assessed {
        let name = &unit.seen.unit;
        let scene = Scene {
            unit,
            gates: Gates {
                seen,
                under_way: &under_way,
                unit,
                guard: state.guard,
                valid,
            },
            shadows: shadows_of(seen, name).collect(),
            proposals: selection
                .proposals
                .iter()
                .filter(|p| p.unit == *name)
                .collect(),
            rejected: selection
                .rejected
                .iter()
                .find(|r| r.unit == *name && r.entity.is_none()),
            entities: &entities,
            estimator: &state.estimator,
            targets: &targets,
        };
        let Some(memory) = state.units.get_mut(name) else {
            continue;
        };
        let drafts = scene.decide(memory, &mut swapped);
        let fingerprint = fingerprint(&drafts);
        let fresh = std::mem::replace(&mut memory.said, fingerprint) != fingerprint;
        for draft in drafts {
            tick.decisions
                .push(conclude(state, unit, draft, fresh, seen.now_us));
        }
    }
    tick.rejected = selection.rejected;
    tick
}

/// Every partition that is not off, the most urgent first.
fn assess<'a>(
    state: &mut State,
    seen: &'a Observation,
    off: &mut BTreeSet<&'a str>,
) -> Vec<Assessed<'a>> {
    let mut known: BTreeSet<&str> = BTreeSet::new();
    let mut assessed = Vec::new();
    for unit in &seen.units {
        if !known.insert(&unit.unit) {
            continue;
        }
        let policy = unit.policy.as_ref().unwrap_or(&seen.policy);
        let memory = state.units.entry(unit.unit.clone()).or_default();
        if policy.mode == Mode::Off {
            memory.start_anew();
            memory.seen_at_us = seen.now_us;
            off.insert(&unit.unit);
            continue;
        }
        let ours = shadows_of(seen, &unit.unit).filter(|s| s.is_ours());
        let ours = ours.map(|s| s.id).collect();
        let swapped: BTreeSet<i64> = seen
            .shadows
            .iter()
            .filter(|s| s.unit == unit.unit && !s.is_standing())
            .map(|s| s.id)
            .collect();
        // What was swapped is not gone.
        memory.ours.retain(|id| !swapped.contains(id));
        memory.observe_shadows(ours, seen.now_us, policy.shadow_cooldown_us);
        assessed.push(memory.observe(unit, policy, seen.now_us));
    }
    let key = |a: &Assessed<'_>| (!a.saturated, !a.likely, a.lead_us.unwrap_or(0));
    assessed.sort_by(|a, b| {
        key(a)
            .cmp(&key(b))
            .then(b.confidence.total_cmp(&a.confidence))
            .then(a.seen.unit.cmp(&b.seen.unit))
    });
    assessed
}

fn shadows_of<'a>(seen: &'a Observation, unit: &str) -> impl Iterator<Item = &'a ShadowSeen> {
    seen.shadows
        .iter()
        .filter(move |s| s.unit == unit && s.is_standing())
}

/// Our own jobs on shadows of some partitions, except those that take away or give up: they end
/// sooner by going on.
fn cancels(seen: &Observation, of: impl Fn(&str) -> bool) -> Vec<Cancel> {
    let unit_of = |id: i64| seen.shadows.iter().find(|s| s.id == id);
    seen.jobs
        .iter()
        .filter(|job| job.origin == Origin::Autopilot && job.kind != JobKind::Drop)
        .filter(|job| unit_of(job.shadow).map_or(of(""), |shadow| of(&shadow.unit)))
        .map(|job| Cancel {
            job: job.id,
            shadow: job.shadow,
        })
        .collect()
}

/// Selects for the partitions that may act, then, of what they leave, for those that only advise or
/// have to wait: a proposal that is not carried out takes nothing away from one that is.
fn choose(
    state: &State,
    seen: &Observation,
    assessed: &[Assessed<'_>],
    targets: &[Target],
    copies_left: usize,
) -> Selection {
    let mut request = Request {
        troubles: Vec::new(),
        targets: targets.to_vec(),
        budget_bytes: state.budget_left(seen.policy.budget_bytes_day, seen.now_us),
        moves_max: Some(copies_left),
        estimator: state.estimator.clone(),
    };
    let mut waiting = Vec::new();
    for unit in assessed.iter().filter(|unit| unit.in_trouble()) {
        let memory = state.units.get(&unit.seen.unit);
        let cooling = memory.is_some_and(|m| m.cooldown_until_us > seen.now_us);
        let acts = unit.policy.mode >= Mode::Shadow && unit.valid && !cooling;
        let trouble = trouble(state, seen, unit, memory);
        if acts {
            request.troubles.push(trouble);
        } else {
            waiting.push(trouble);
        }
    }
    let mut selection = select(&request);
    if waiting.is_empty() {
        return selection;
    }
    for proposal in &selection.proposals {
        if let Some(target) = request
            .targets
            .iter_mut()
            .find(|t| t.name == proposal.target)
        {
            let arrival = proposal.relief.times(target.load_factor);
            target.load = target.load.plus(&arrival);
            target.free_bytes = target.free_bytes.map(|f| f.saturating_sub(proposal.bytes));
        }
        if proposal.standing < proposal.entities.len() {
            request.moves_max = request.moves_max.map(|moves| moves.saturating_sub(1));
        }
        request.budget_bytes = request
            .budget_bytes
            .map(|b| b.saturating_sub(proposal.bytes));
    }
    request.troubles = waiting;
    let more = select(&request);
    selection.proposals.extend(more.proposals);
    selection.rejected.extend(more.rejected);
    selection.rejected_more = selection.rejected_more.saturating_add(more.rejected_more);
    selection
}

fn trouble(
    state: &State,
    seen: &Observation,
    unit: &Assessed<'_>,
    memory: Option<&UnitMemory>,
) -> Trouble {
    let mut standing: BTreeMap<&str, &str> = BTreeMap::new();
    let mut held: BTreeSet<&str> = BTreeSet::new();
    for shadow in seen.shadows.iter().filter(|s| s.unit == unit.seen.unit) {
        for entity in &shadow.entities {
            if shadow.is_ours() && shadow.is_standing() {
                standing.insert(entity, &shadow.target);
            } else {
                held.insert(entity);
            }
        }
    }
    let mut listed: HashSet<&str> = HashSet::new();
    let prepare = |candidate: &Candidate| {
        let mut candidate = candidate.clone();
        let entity = candidate.entity.as_str();
        let cooling = state.is_cooling(&unit.seen.table, entity, seen.now_us);
        let removed = !unit.saturated && memory.is_some_and(|m| m.removed.contains_key(entity));
        let stands = standing.get(entity).map(|target| (*target).to_owned());
        let barred = if held.contains(entity) {
            Some(Barred::Held)
        } else if cooling || (removed && stands.is_none()) {
            Some(Barred::Cooldown)
        } else {
            None
        };
        candidate.barred = candidate.barred.or(barred);
        candidate.standing = stands;
        candidate
    };
    Trouble {
        unit: unit.seen.unit.clone(),
        need: unit.need,
        load: unit.seen.load,
        lead_us: unit.lead_us,
        confidence: unit.confidence,
        home: unit.seen.home.clone(),
        targets: unit.seen.targets.clone(),
        rules: unit.policy.rules,
        candidates: unit
            .seen
            .candidates
            .iter()
            .filter(|candidate| listed.insert(&candidate.entity))
            .map(prepare)
            .collect(),
    }
}

/// Gives a draft its number, remembers it if it is to be carried out, and words it.
fn conclude(
    state: &mut State,
    unit: &Assessed<'_>,
    draft: Draft,
    fresh: bool,
    now_us: i64,
) -> Decision {
    state.decisions = state.decisions.saturating_add(1);
    let execute = draft.executes();
    let decision = Decision {
        id: state.decisions,
        at_us: now_us,
        unit: unit.seen.unit.clone(),
        action: draft.action.clone(),
        execute,
        trigger: draft.trigger,
        reason: draft.reason,
        blocked_by: draft.blocks.first().copied(),
        rejection: draft.rejection,
        text: words(unit, &draft),
        confidence: if unit.saturated { 1.0 } else { unit.confidence },
        need: unit.need,
        relief: draft.relief,
        estimate: draft.estimate,
        dominant: draft.dominant,
        fresh: fresh || execute,
    };
    if execute {
        let policy: &Policy = unit.policy;
        let pending = Pending {
            at_us: now_us,
            started: false,
            unit: decision.unit.clone(),
            table: unit.seen.table.clone(),
            action: draft.action,
            entities: draft.entities,
            target: draft.target,
            arrival: draft.arrival,
            bytes: draft.estimate.bytes,
            unit_cooldown_us: policy.unit_cooldown_us,
            entity_cooldown_us: policy.entity_cooldown_us,
            shadow_cooldown_us: policy.shadow_cooldown_us,
            backoff_us: policy.backoff_us,
            backoff_max_us: policy.backoff_max_us,
        };
        state.follow(&decision, pending);
    }
    decision
}

/// The decision in words: what is the case, what would be done, what keeps it.
fn words(unit: &Assessed<'_>, draft: &Draft) -> String {
    let mut text = match unit.fullest {
        Some((resource, fraction)) => {
            format!("{resource} at {:.0}% of capacity", fraction * 100.0)
        }
        None => "no capacity is known".to_owned(),
    };
    if unit.seen.prediction.is_some() {
        text += &format!(", confidence {:.2}", unit.confidence);
    }
    if unit.likely
        && let Some(lead_us) = unit.lead_us
    {
        text += &format!(", in {}", span(lead_us));
    }
    if !draft.text.is_empty() {
        text += "; ";
        text += &draft.text;
    }
    if draft.action != Action::Hold && !draft.blocks.is_empty() {
        let blocks: Vec<&str> = draft.blocks.iter().map(|b| b.word()).collect();
        text += &format!("; kept by {}", blocks.join(", "));
    }
    text
}

/// Tells whether decisions are those of the tick before: everything but figures (FNV-1a).
fn fingerprint(drafts: &[Draft]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for draft in drafts {
        let said = format!(
            "{:?}",
            (&draft.action, draft.reason, &draft.blocks, draft.rejection)
        );
        for byte in said.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

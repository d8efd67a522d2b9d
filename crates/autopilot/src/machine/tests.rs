//! The machine, rule by rule.

use super::*;
use crate::policy::{Mode, Policy};
use crate::resource::{Capacities, Loads, Resource};
use crate::selection::{Barred, Candidate, Rejection, Target};
use crate::{DAY_US, HOUR_US, MINUTE_US};
use proptest::prelude::*;

const NOW_US: i64 = 20_000 * DAY_US;

fn rows(amount: f64) -> Loads {
    Loads::of(Resource::WriteRows, amount)
}

fn capacity(amount: f64) -> Capacities {
    Capacities {
        write_rows: Some(amount),
        ..Capacities::default()
    }
}

fn entity(name: &str, load: f64) -> Candidate {
    Candidate {
        entity: name.into(),
        forecast: rows(load),
        bytes: Some(1 << 20),
        ..Candidate::default()
    }
}

/// A partition of capacity 100 at some load, most of it three entities'.
fn unit(name: &str, load: f64) -> UnitSeen {
    UnitSeen {
        unit: name.into(),
        table: "orders".into(),
        load: rows(load),
        capacity: capacity(100.0),
        candidates: vec![entity("a", 35.0), entity("b", 30.0), entity("c", 20.0)],
        ..UnitSeen::default()
    }
}

fn predicted(confidence: f64, at_us: i64) -> Option<Prediction> {
    Some(Prediction {
        at_us,
        confidence,
        peak: rows(110.0),
        lead_us: HOUR_US,
    })
}

fn seen(mode: Mode, units: Vec<UnitSeen>) -> Observation {
    Observation {
        now_us: NOW_US,
        policy: Policy {
            mode,
            ..Policy::default()
        },
        units,
        targets: vec![Target {
            name: "t".into(),
            capacity: capacity(1000.0),
            ..Target::default()
        }],
        ..Observation::default()
    }
}

fn shadow(id: i64, unit: &str, entities: &[&str], stage: Stage) -> ShadowSeen {
    ShadowSeen {
        id,
        unit: unit.into(),
        target: "t".into(),
        entities: entities.iter().map(|e| (*e).into()).collect(),
        stage,
        origin: Origin::Autopilot,
        created_at_us: NOW_US - DAY_US,
        swapped_at_us: None,
    }
}

/// Ticks at five-minute intervals, with news of load and prediction each time.
fn ticks(state: &mut State, seen: &mut Observation, number: usize) -> Tick {
    let mut tick = Tick::default();
    for _ in 0..number {
        seen.now_us += 5 * MINUTE_US;
        for unit in &mut seen.units {
            if let Some(prediction) = &mut unit.prediction {
                prediction.at_us = seen.now_us;
            }
        }
        tick = state.tick(seen);
    }
    tick
}

fn executed(tick: &Tick) -> Vec<&Action> {
    tick.decisions
        .iter()
        .filter(|d| d.execute)
        .map(|d| &d.action)
        .collect()
}

#[test]
fn the_words_of_an_enumeration_differ_and_are_read_back() {
    fn check<T: Copy + PartialEq + std::fmt::Debug>(
        all: &[T],
        word: fn(T) -> &'static str,
        from: fn(&str) -> Option<T>,
    ) {
        let words: std::collections::BTreeSet<_> = all.iter().map(|v| word(*v)).collect();
        assert_eq!(words.len(), all.len());
        for value in all {
            assert_eq!(from(word(*value)), Some(*value));
        }
    }
    check(Reason::ALL, Reason::word, Reason::from_word);
    check(Block::ALL, Block::word, Block::from_word);
    check(Rejection::ALL, Rejection::word, Rejection::from_word);
    check(Mode::ALL, Mode::word, Mode::from_word);
    check(Stage::ALL, Stage::word, Stage::from_word);
    assert_eq!(
        serde_json::to_string(&Block::HostBusy).unwrap(),
        "\"host_busy\""
    );
}

#[test]
fn a_decision_is_one_flat_object() {
    let mut state = State::default();
    let mut unit = unit("p", 80.0);
    unit.prediction = predicted(0.5, NOW_US);
    let tick = state.tick(&seen(Mode::Shadow, vec![unit]));
    let json: serde_json::Value = serde_json::to_value(&tick.decisions[0]).unwrap();
    assert_eq!(json["action"], "create_shadow");
    assert_eq!(json["target"], "t");
    assert_eq!(json["reason"], "likely");
    assert_eq!(json["execute"], true);
    assert!(json["estimate"]["duration_us"].as_i64().unwrap() > 0);
    let back: Decision = serde_json::from_value(json).unwrap();
    assert_eq!(back.action, tick.decisions[0].action);
}

#[test]
fn the_same_sample_and_the_same_prediction_count_once() {
    let mut state = State::default();
    let mut one = unit("p", 99.0);
    one.load_at_us = Some(NOW_US);
    one.prediction = predicted(0.9, NOW_US);
    let mut seen = seen(Mode::Migrate, vec![one]);
    seen.shadows = vec![shadow(1, "p", &["a", "b"], Stage::Ready)];
    for _ in 0..5 {
        seen.now_us += MINUTE_US;
        let tick = state.tick(&seen);
        assert!(executed(&tick).is_empty(), "{tick:?}");
        assert_eq!(tick.decisions[0].reason, Reason::Prepared);
    }
    seen.units[0].prediction = predicted(0.9, NOW_US + 5 * MINUTE_US);
    let tick = state.tick(&seen);
    assert_eq!(executed(&tick), [&Action::Swap { shadow: 1 }]);
    assert_eq!(tick.decisions[0].reason, Reason::Confident);
}

#[test]
fn a_load_that_nobody_measures_any_more_is_no_reason_to_act() {
    let mut state = State::default();
    let mut seen = seen(Mode::Migrate, vec![unit("p", 99.0)]);
    let tick = ticks(&mut state, &mut seen, 1);
    assert!(executed(&tick).is_empty());
    seen.units[0].load_at_us = Some(seen.now_us);
    let tick = ticks(&mut state, &mut seen, 20);
    assert_eq!(tick.decisions[0].action, Action::Hold);
}

#[test]
fn a_swap_does_not_wait_for_a_shadow_that_is_built_beside_it() {
    let mut one = unit("p", 130.0);
    one.candidates.push(entity("giant", 65.0));
    let mut seen = seen(Mode::Migrate, vec![one]);
    seen.policy.reactive_ticks = 1;
    seen.policy.relief_fraction = 0.1;
    seen.targets[0].capacity = capacity(130.0);
    seen.targets.push(Target {
        name: "t2".into(),
        ..seen.targets[0].clone()
    });
    let mut state = State::default();
    let tick = ticks(&mut state, &mut seen, 1);
    assert_eq!(executed(&tick).len(), 2, "{tick:?}");
    // One of them is ready, the other's job has not even been seen.
    let Action::CreateShadow { target, entities } = &tick.decisions[0].action else {
        panic!("{tick:?}");
    };
    let mut ready = shadow(1, "p", &[], Stage::Ready);
    ready.target = target.clone();
    ready.entities = entities.clone();
    seen.shadows = vec![ready];
    state.outcome(tick.decisions[0].id, Outcome::Done, seen.now_us);
    let tick = ticks(&mut state, &mut seen, 1);
    assert!(
        executed(&tick).contains(&&Action::Swap { shadow: 1 }),
        "{tick:?}"
    );
}

#[test]
fn room_is_kept_for_what_is_being_built_and_for_what_was_just_ordered() {
    // Room for 70; a and b of the one are 65, the other wants 30.
    let mut seen = seen(Mode::Shadow, vec![unit("p", 130.0)]);
    seen.targets[0].capacity = capacity(100.0);
    let mut other = unit("q", 99.0);
    other.candidates = vec![entity("x", 30.0)];
    for built in [false, true] {
        let mut state = State::default();
        let tick = ticks(&mut state, &mut seen, 2);
        assert!(
            matches!(executed(&tick)[0], Action::CreateShadow { entities, .. } if entities.len() == 2)
        );
        if built {
            state.outcome(tick.decisions[0].id, Outcome::Started, seen.now_us);
            seen.shadows = vec![shadow(1, "p", &["a", "b"], Stage::Building)];
        }
        seen.units.push(other.clone());
        let tick = ticks(&mut state, &mut seen, 2);
        let decision = tick.decisions.iter().find(|d| d.unit == "q").unwrap();
        assert_eq!(decision.action, Action::Hold, "built: {built}");
        assert_eq!(decision.rejection, Some(Rejection::TargetOverloaded));
        seen.units.pop();
    }
}

#[test]
fn a_partition_that_only_advises_takes_no_room_from_one_that_acts() {
    // Room for 70; the first would take 65 of it, the second needs 30.
    let mut advised = unit("a", 130.0);
    advised.policy = Some(Policy::default());
    let mut acting = unit("b", 99.0);
    acting.candidates = vec![entity("x", 30.0)];
    let mut seen = seen(Mode::Shadow, vec![advised, acting]);
    seen.targets[0].capacity = capacity(100.0);
    let tick = ticks(&mut State::default(), &mut seen, 2);
    let done: Vec<_> = tick.decisions.iter().filter(|d| d.execute).collect();
    assert_eq!((done.len(), done[0].unit.as_str()), (1, "b"), "{tick:?}");
    let proposed = tick.decisions.iter().find(|d| d.unit == "a").unwrap();
    assert!(!proposed.execute);
}

#[test]
fn bytes_that_were_not_copied_are_given_back_to_the_budget() {
    let mut seen = seen(Mode::Shadow, vec![unit("p", 99.0)]);
    seen.policy.budget_bytes_day = Some(3 << 19);
    let mut state = State::default();
    let tick = ticks(&mut state, &mut seen, 2);
    state.outcome(tick.decisions[0].id, Outcome::Failed, seen.now_us);
    let tick = ticks(&mut state, &mut seen, 1);
    assert_eq!(executed(&tick).len(), 1, "{tick:?}");
    // Once started it may have copied.
    state.outcome(tick.decisions[0].id, Outcome::Started, seen.now_us);
    state.outcome(tick.decisions[0].id, Outcome::Failed, seen.now_us);
    let tick = ticks(&mut state, &mut seen, 2);
    assert_eq!(tick.decisions[0].blocked_by, Some(Block::OverBudget));
}

#[test]
fn after_the_kill_switch_it_looks_anew() {
    let mut seen = seen(Mode::Shadow, vec![unit("p", 99.0)]);
    let mut state = State::default();
    ticks(&mut state, &mut seen, 1);
    seen.kill = true;
    assert_eq!(ticks(&mut state, &mut seen, 1), Tick::default());
    seen.kill = false;
    assert!(executed(&ticks(&mut state, &mut seen, 1)).is_empty());
    assert_eq!(executed(&ticks(&mut state, &mut seen, 1)).len(), 1);
}

#[test]
fn an_entity_is_removed_when_it_was_not_needed_for_some_ticks_in_a_row() {
    let mut one = unit("p", 90.0);
    one.prediction = predicted(0.5, NOW_US);
    let mut seen = seen(Mode::Shadow, vec![one]);
    seen.shadows = vec![shadow(1, "p", &["a", "b", "z"], Stage::Ready)];
    let mut state = State::default();
    let tick = ticks(&mut state, &mut seen, 5);
    assert!(executed(&tick).is_empty(), "{tick:?}");
    // Needed once in between: it begins anew.
    seen.units[0].candidates.push(entity("z", 60.0));
    assert!(executed(&ticks(&mut state, &mut seen, 1)).is_empty());
    seen.units[0].candidates.pop();
    assert!(executed(&ticks(&mut state, &mut seen, 5)).is_empty());
    let tick = ticks(&mut state, &mut seen, 1);
    let removal = Action::RemoveEntities {
        shadow: 1,
        entities: vec!["z".into()],
    };
    assert_eq!(executed(&tick), [&removal]);
    assert_eq!(tick.decisions[0].reason, Reason::Unneeded);
}

#[test]
fn a_young_shadow_is_not_dropped() {
    let mut seen = seen(Mode::Shadow, vec![unit("p", 10.0)]);
    seen.policy.calm_ticks = 1;
    seen.shadows = vec![shadow(1, "p", &["a"], Stage::Ready)];
    seen.shadows[0].created_at_us = NOW_US;
    let mut state = State::default();
    let tick = ticks(&mut state, &mut seen, 11);
    assert_eq!(tick.decisions[0].blocked_by, Some(Block::ShadowCooldown));
    let tick = ticks(&mut state, &mut seen, 1);
    assert_eq!(executed(&tick), [&Action::DropShadow { shadow: 1 }]);
}

#[test]
fn an_entity_listed_twice_is_moved_once() {
    let mut one = unit("p", 99.0);
    one.candidates = vec![entity("a", 20.0), entity("a", 20.0), entity("b", 15.0)];
    let mut seen = seen(Mode::Shadow, vec![one]);
    let tick = ticks(&mut State::default(), &mut seen, 2);
    assert!(
        matches!(executed(&tick)[0], Action::CreateShadow { entities, .. } if entities.len() == 2)
    );
}

#[test]
fn an_old_prediction_says_nothing() {
    let mut state = State::default();
    let mut one = unit("p", 50.0);
    one.prediction = predicted(0.9, NOW_US - 2 * HOUR_US);
    let tick = state.tick(&seen(Mode::Migrate, vec![one]));
    assert_eq!(tick.decisions[0].action, Action::Hold);
    assert_eq!(tick.decisions[0].confidence, 0.0);
}

#[test]
fn a_swap_by_a_person_starts_the_cooldowns() {
    let mut state = State::default();
    let mut seen = seen(Mode::Migrate, vec![unit("p", 99.0)]);
    let mut swapped = shadow(7, "p", &["a"], Stage::Migrated);
    swapped.origin = Origin::Person;
    swapped.swapped_at_us = Some(NOW_US);
    seen.shadows = vec![swapped];
    let tick = ticks(&mut state, &mut seen, 3);
    assert!(executed(&tick).is_empty());
    assert_eq!(tick.decisions[0].blocked_by, Some(Block::UnitCooldown));
    // Finalized meanwhile: the entity's cooldown goes on in another partition.
    seen.shadows.clear();
    seen.units = vec![unit("q", 99.0)];
    let tick = ticks(&mut state, &mut seen, 2);
    let Action::CreateShadow { entities, .. } = executed(&tick)[0] else {
        panic!("{tick:?}");
    };
    assert!(!entities.contains(&"a".to_owned()));
    assert!(
        tick.rejected
            .iter()
            .any(|r| r.entity.as_deref() == Some("a") && r.reason == Rejection::EntityCooldown)
    );
}

#[test]
fn a_clock_that_is_set_back_does_not_prolong_a_cooldown() {
    let mut state = State::default();
    let mut seen = seen(Mode::Migrate, vec![unit("p", 99.0)]);
    seen.shadows = vec![shadow(1, "p", &["a", "b"], Stage::Ready)];
    let tick = ticks(&mut state, &mut seen, 2);
    assert_eq!(executed(&tick).len(), 1);
    state.outcome(tick.decisions[0].id, Outcome::Done, seen.now_us);
    seen.shadows.clear();
    seen.now_us -= 30 * DAY_US;
    for candidate in &mut seen.units[0].candidates {
        candidate.entity += "2";
    }
    let tick = ticks(&mut state, &mut seen, 11);
    assert!(executed(&tick).is_empty());
    let tick = ticks(&mut state, &mut seen, 3);
    assert!(
        executed(&tick).len() == 1 || state.pending.len() == 1,
        "{tick:?}"
    );
}

#[test]
fn a_table_has_its_own_policy_and_its_own_switch() {
    let mut state = State::default();
    let mut one = unit("p", 99.0);
    one.policy = Some(Policy {
        mode: Mode::Off,
        ..Policy::default()
    });
    let mut two = unit("q", 99.0);
    two.policy = Some(Policy {
        mode: Mode::Shadow,
        ..Policy::default()
    });
    let mut seen = seen(Mode::Advise, vec![one, two, unit("r", 99.0)]);
    seen.policy.moves_max = 5;
    seen.shadows = vec![
        shadow(1, "p", &["a"], Stage::Building),
        shadow(2, "q", &["z"], Stage::Building),
    ];
    for id in [1, 2] {
        seen.jobs.push(Job {
            id: id + 10,
            shadow: id,
            kind: JobKind::Create,
            origin: Origin::Autopilot,
        });
    }
    let tick = ticks(&mut state, &mut seen, 2);
    assert_eq!(tick.cancel, [Cancel { job: 11, shadow: 1 }]);
    assert!(tick.decisions.iter().all(|d| d.unit != "p"));
    assert!(tick.decisions.iter().any(|d| d.unit == "q" && d.execute));
    let advised = tick.decisions.iter().find(|d| d.unit == "r").unwrap();
    assert_eq!(
        (advised.execute, advised.blocked_by),
        (false, Some(Block::Mode))
    );
    assert!(matches!(advised.action, Action::CreateShadow { .. }));
}

#[test]
fn jobs_of_people_and_removals_are_not_cancelled() {
    let mut state = State::default();
    let mut seen = seen(Mode::Off, vec![unit("p", 99.0)]);
    seen.shadows = vec![shadow(1, "p", &["a"], Stage::Building)];
    for (kind, origin) in [
        (JobKind::Create, Origin::Person),
        (JobKind::Drop, Origin::Autopilot),
        (JobKind::Swap, Origin::Autopilot),
    ] {
        seen.jobs.push(Job {
            id: seen.jobs.len() as i64,
            shadow: 1,
            kind,
            origin,
        });
    }
    let tick = state.tick(&seen);
    assert_eq!(tick.cancel, [Cancel { job: 2, shadow: 1 }]);
    assert!(tick.decisions.is_empty() && tick.rejected.is_empty());
}

#[test]
fn an_invalid_policy_is_not_acted_on() {
    let mut state = State::default();
    let mut seen = seen(Mode::Migrate, vec![unit("p", 99.0)]);
    seen.policy.shadow_confidence = 2.0;
    let tick = ticks(&mut state, &mut seen, 3);
    assert!(executed(&tick).is_empty());
    assert_eq!(tick.decisions[0].blocked_by, Some(Block::InvalidPolicy));
}

#[test]
fn a_partition_without_capacity_is_named_and_left_alone() {
    let mut state = State::default();
    let mut one = unit("p", 1e9);
    one.capacity = Capacities::default();
    let mut seen = seen(Mode::Migrate, vec![one]);
    let tick = ticks(&mut state, &mut seen, 3);
    assert_eq!(tick.decisions[0].reason, Reason::NoCapacity);
}

#[test]
fn when_nothing_can_be_moved_the_reason_is_said() {
    let mut state = State::default();
    let mut one = unit("p", 99.0);
    for candidate in &mut one.candidates {
        candidate.barred = Some(Barred::Pinned);
    }
    let mut seen = seen(Mode::Migrate, vec![one]);
    let tick = ticks(&mut state, &mut seen, 2);
    let decision = &tick.decisions[0];
    assert_eq!(decision.action, Action::Hold);
    assert_eq!(decision.reason, Reason::NothingToMove);
    assert_eq!(decision.rejection, Some(Rejection::Pinned));
    assert_eq!(tick.rejected.len(), 4);
}

#[test]
fn a_threshold_in_rows_alone_acts_at_the_first_tick_if_told_so() {
    let mut state = State::default();
    let mut seen = seen(Mode::Migrate, vec![unit("p", 101.0)]);
    seen.policy.reactive_fraction = 1.0;
    seen.policy.reactive_ticks = 1;
    let tick = state.tick(&seen);
    assert_eq!(tick.decisions[0].reason, Reason::Saturated);
    assert!(tick.decisions[0].execute);
    seen.units[0].load = rows(99.0);
    assert!(executed(&State::default().tick(&seen)).is_empty());
}

#[test]
fn entities_are_added_before_a_swap_unless_it_is_too_late_for_that() {
    let mut one = unit("p", 90.0);
    one.prediction = predicted(0.9, NOW_US);
    one.prediction.as_mut().unwrap().peak = rows(100.0);
    let mut seen = seen(Mode::Migrate, vec![one]);
    seen.shadows = vec![shadow(1, "p", &["a"], Stage::Ready)];
    let mut state = State::default();
    assert!(executed(&ticks(&mut state, &mut seen, 1)).is_empty());
    seen.units[0].prediction.as_mut().unwrap().peak = rows(130.0);
    let tick = ticks(&mut state, &mut seen, 1);
    let swap = tick
        .decisions
        .iter()
        .find(|d| d.action.word() == "swap")
        .unwrap();
    assert_eq!(swap.blocked_by, Some(Block::NotReady));
    let adds = |a: &&Action| matches!(a, Action::AddEntities { shadow: 1, .. });
    assert!(executed(&tick).into_iter().any(|a| adds(&a)), "{tick:?}");
    // Saturated: what stands is swapped at once.
    seen.units[0].load = rows(130.0);
    seen.policy.reactive_ticks = 1;
    let tick = ticks(&mut State::default(), &mut seen, 1);
    assert!(
        executed(&tick).contains(&&Action::Swap { shadow: 1 }),
        "{tick:?}"
    );
}

#[test]
fn a_swap_that_would_overload_the_processors_of_the_target_is_not_made() {
    let mut one = unit("p", 99.0);
    for candidate in &mut one.candidates {
        candidate.forecast.cpu = 2.0;
    }
    let mut seen = seen(Mode::Migrate, vec![one]);
    seen.targets[0].capacity.cpu = Some(4.0);
    // Two of 2 are 4 of 4; the selection wants one of them.
    seen.shadows = vec![shadow(1, "p", &["a", "b"], Stage::Ready)];
    let tick = ticks(&mut State::default(), &mut seen, 2);
    assert!(
        !executed(&tick).contains(&&Action::Swap { shadow: 1 }),
        "{tick:?}"
    );
    let swap = tick
        .decisions
        .iter()
        .find(|d| d.action.word() == "swap")
        .unwrap();
    assert_eq!(swap.blocked_by, Some(Block::TargetOverloaded));
}

#[test]
fn a_dominant_entity_gets_a_shadow_of_its_own() {
    let mut one = unit("p", 99.0);
    one.candidates = vec![entity("giant", 60.0), entity("b", 20.0), entity("c", 19.0)];
    let mut seen = seen(Mode::Shadow, vec![one]);
    let tick = ticks(&mut State::default(), &mut seen, 2);
    let decision = &tick.decisions[0];
    assert!(decision.dominant && decision.execute);
    assert!(
        matches!(&decision.action, Action::CreateShadow { entities, .. } if entities == &["giant"])
    );
}

#[test]
fn a_failed_swap_is_tried_again_later_and_an_unknown_outcome_is_ignored() {
    let mut state = State::default();
    let mut seen = seen(Mode::Migrate, vec![unit("p", 99.0)]);
    seen.policy.backoff_us = 6 * MINUTE_US;
    seen.shadows = vec![shadow(1, "p", &["a", "b"], Stage::Ready)];
    let tick = ticks(&mut state, &mut seen, 2);
    assert_eq!(executed(&tick).len(), 1);
    // Not reported: it is under way, and not decided twice.
    let again = ticks(&mut state, &mut seen, 1);
    assert!(executed(&again).is_empty());
    assert_eq!(again.decisions[0].blocked_by, Some(Block::InProgress));
    state.outcome(tick.decisions[0].id, Outcome::Failed, seen.now_us);
    state.outcome(tick.decisions[0].id, Outcome::Done, seen.now_us);
    state.outcome(-5, Outcome::Done, seen.now_us);
    let again = ticks(&mut state, &mut seen, 1);
    assert_eq!(again.decisions[0].blocked_by, Some(Block::Backoff));
    let again = ticks(&mut state, &mut seen, 1);
    assert_eq!(executed(&again), [&Action::Swap { shadow: 1 }]);
    state.outcome(again.decisions[0].id, Outcome::Cancelled, seen.now_us);
    assert_eq!(
        executed(&ticks(&mut state, &mut seen, 1)).len(),
        1,
        "not held against it"
    );
}

#[test]
fn what_stays_the_same_is_said_once() {
    let mut state = State::default();
    let mut seen = seen(Mode::Advise, vec![unit("p", 99.0)]);
    ticks(&mut state, &mut seen, 2);
    let tick = ticks(&mut state, &mut seen, 1);
    assert!(!tick.decisions[0].fresh);
    seen.units[0].load = rows(10.0);
    let tick = ticks(&mut state, &mut seen, 1);
    assert!(tick.decisions[0].fresh);
}

fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), 0.0f64..2.0, 0.0f64..200.0]
}

fn any_loads() -> impl Strategy<Value = Loads> {
    (any_number(), any_number(), any_number()).prop_map(|(write_rows, cpu, size)| Loads {
        write_rows,
        cpu,
        size,
        ..Loads::default()
    })
}

fn any_time() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), NOW_US - DAY_US..NOW_US + DAY_US]
}

fn any_unit() -> impl Strategy<Value = UnitSeen> {
    let prediction = (any_time(), any_number(), any_loads(), any_time()).prop_map(
        |(at_us, confidence, peak, lead_us)| Prediction {
            at_us,
            confidence,
            peak,
            lead_us,
        },
    );
    let candidate = (
        "[a-e]",
        any_loads(),
        prop::option::of(any_loads()),
        prop::option::of(any::<u64>()),
    )
        .prop_map(|(entity, forecast, usual, bytes)| Candidate {
            entity,
            forecast,
            usual,
            bytes,
            ..Candidate::default()
        });
    (
        (
            "[pq]",
            any_loads(),
            prop::option::of(any_time()),
            any_loads(),
        ),
        (
            prop::option::of(prediction),
            prop::collection::vec(candidate, 0..6),
            prop::option::of(any_policy()),
        ),
    )
        .prop_map(
            |((unit, load, load_at_us, capacity), (prediction, candidates, policy))| UnitSeen {
                unit,
                policy,
                load,
                load_at_us,
                capacity: Capacities::from_fn(|r| Some(*capacity.get(r))),
                prediction,
                candidates,
                ..UnitSeen::default()
            },
        )
}

fn any_policy() -> impl Strategy<Value = Policy> {
    (
        0..Mode::ALL.len(),
        any_number(),
        any::<i64>(),
        any::<u32>(),
        any::<usize>(),
        any::<bool>(),
    )
        .prop_map(|(mode, number, time_us, ticks, count, sane)| {
            let policy = Policy {
                mode: Mode::ALL[mode],
                ..Policy::default()
            };
            if sane {
                return policy;
            }
            Policy {
                shadow_confidence: number,
                reactive_fraction: number,
                unit_cooldown_us: time_us,
                shadow_cooldown_us: time_us,
                backoff_us: time_us,
                backoff_max_us: time_us,
                calm_ticks: ticks,
                migrate_window: count,
                ..policy
            }
        })
}

fn any_observation() -> impl Strategy<Value = Observation> {
    let shadow = (
        0i64..4,
        "[pq]",
        prop::collection::vec("[a-e]", 0..4),
        0..Stage::ALL.len(),
        any::<bool>(),
        any_time(),
        prop::option::of(any_time()),
    )
        .prop_map(
            |(id, unit, entities, stage, ours, created_at_us, swapped_at_us)| ShadowSeen {
                id,
                unit,
                target: "t".into(),
                entities,
                stage: Stage::ALL[stage],
                origin: if ours {
                    Origin::Autopilot
                } else {
                    Origin::Person
                },
                created_at_us,
                swapped_at_us,
            },
        );
    (
        (
            any_time(),
            any::<i32>(),
            prop::bool::weighted(0.1),
            any_policy(),
        ),
        prop::collection::vec(any_unit(), 0..3),
        prop::collection::vec(shadow, 0..4),
        any_number(),
    )
        .prop_map(
            |((now_us, utc_offset_minutes, kill, policy), units, shadows, busy)| Observation {
                now_us,
                utc_offset_minutes,
                kill,
                policy,
                units,
                shadows,
                busy: vec![Busy {
                    what: "cpu".into(),
                    fraction: busy,
                }],
                ..seen(Mode::Advise, Vec::new())
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever is seen, in whatever order: no panic, a state that can be kept, a plan that is
    /// what is done, and nothing beyond the mode.
    #[test]
    fn any_sequence_of_observations_is_taken(
        all in prop::collection::vec((any_observation(), 0usize..4), 1..8),
    ) {
        let mut state = State::default();
        for (seen, outcome) in all {
            let plan = state.plan(&seen);
            let tick = state.tick(&seen);
            prop_assert_eq!(format!("{plan:?}"), format!("{tick:?}"));
            if seen.kill || seen.policy.mode == Mode::Off {
                prop_assert!(tick.decisions.is_empty());
            }
            for decision in &tick.decisions {
                let unit = seen.units.iter().find(|u| u.unit == decision.unit).unwrap();
                let mode = unit.policy.as_ref().unwrap_or(&seen.policy).mode;
                if decision.execute {
                    prop_assert!(decision.blocked_by.is_none());
                    prop_assert!(mode >= Mode::Shadow);
                    prop_assert!(mode == Mode::Migrate || decision.action.word() != "swap");
                    prop_assert!(seen.policy.validate().is_ok());
                    if let Some(id) = decision.action.shadow() {
                        prop_assert!(seen.shadows.iter().any(|s| s.id == id && s.is_ours()));
                    }
                    let outcomes = [Outcome::Started, Outcome::Done, Outcome::Failed, Outcome::Cancelled];
                    state.outcome(decision.id, outcomes[outcome], seen.now_us);
                }
                prop_assert!((0.0..=1.0).contains(&decision.confidence));
            }
            let json = serde_json::to_string(&state).unwrap();
            state = serde_json::from_str(&json).unwrap();
        }
    }
}

/// What should have crossed by now is not too late to be moved.
#[test]
fn a_crossing_that_is_due_leaves_no_lead_to_miss() {
    let mut unit = unit("p", 90.0);
    unit.prediction = Some(Prediction {
        lead_us: 1,
        ..predicted(0.9, NOW_US - MINUTE_US).unwrap()
    });
    let tick = State::default().tick(&seen(Mode::Shadow, vec![unit]));
    assert!(
        tick.decisions
            .iter()
            .any(|d| matches!(d.action, Action::CreateShadow { .. })),
        "{:?}",
        tick.decisions
    );
}

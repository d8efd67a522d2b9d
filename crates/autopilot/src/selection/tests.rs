//! Selection over partitions and targets.

use super::*;
use crate::HOUR_US;
use crate::resource::Resource;
use proptest::prelude::*;

fn entity(name: &str, rows: f64, bytes: u64) -> Candidate {
    Candidate {
        entity: name.into(),
        forecast: Loads::of(Resource::WriteRows, rows),
        bytes: Some(bytes),
        ..Candidate::default()
    }
}

fn target(name: &str, rows: f64) -> Target {
    Target {
        name: name.into(),
        capacity: Capacities {
            write_rows: Some(rows),
            ..Capacities::default()
        },
        ..Target::default()
    }
}

fn trouble(need: f64, candidates: Vec<Candidate>) -> Trouble {
    Trouble {
        unit: "p1".into(),
        need: Loads::of(Resource::WriteRows, need),
        lead_us: Some(HOUR_US),
        confidence: 0.8,
        home: Some("home".into()),
        candidates,
        ..Trouble::default()
    }
}

fn request(troubles: Vec<Trouble>, targets: Vec<Target>) -> Request {
    Request {
        troubles,
        targets,
        ..Request::default()
    }
}

/// The reason given for an entity, or for the partition.
fn reason(selection: &Selection, entity: Option<&str>) -> Option<Rejection> {
    let of = |r: &&Rejected| r.entity.as_deref() == entity;
    selection.rejected.iter().find(of).map(|r| r.reason)
}

#[test]
fn the_cheapest_entities_that_suffice_move_and_the_others_have_a_reason() {
    let entities = vec![
        entity("large", 60.0, 6_000),
        entity("small", 55.0, 1_000),
        entity("idle", 0.0, 10),
    ];
    let selection = select(&request(
        vec![trouble(50.0, entities)],
        vec![target("home", 1e9), target("t", 1000.0)],
    ));
    assert_eq!(selection.proposals.len(), 1);
    let proposal = &selection.proposals[0];
    assert_eq!(proposal.entities, ["small"]);
    assert_eq!((proposal.target.as_str(), proposal.bytes), ("t", 1_000));
    assert_eq!((proposal.reason, proposal.share), (Merit::Relieves, 1.0));
    assert!(proposal.duration_us > 0 && proposal.stall_us > 0);
    assert_eq!(
        reason(&selection, Some("large")),
        Some(Rejection::NotNeeded)
    );
    assert_eq!(reason(&selection, Some("idle")), Some(Rejection::NoRelief));
}

#[test]
fn half_forecast_and_half_usual_load_decide() {
    let mut burst = entity("burst", 60.0, 1_000);
    burst.usual = Some(Loads::default());
    let mut steady = entity("steady", 50.0, 1_000);
    steady.usual = Some(Loads::of(Resource::WriteRows, 50.0));
    let selection = select(&request(
        vec![trouble(40.0, vec![burst, steady])],
        vec![target("t", 1000.0)],
    ));
    assert_eq!(selection.proposals[0].entities, ["steady"]);
    assert_eq!(score(60.0, Some(0.0)), 30.0);
}

#[test]
fn no_target_is_overloaded_and_what_does_not_fit_is_spread() {
    let entities = ["a", "b", "c", "d"]
        .map(|name| entity(name, 30.0, 100))
        .to_vec();
    let targets = vec![target("t1", 100.0), target("t2", 100.0)];
    // .7 of 100 takes two of 30 on each target.
    let selection = select(&request(
        vec![trouble(120.0, entities.clone())],
        targets.clone(),
    ));
    assert_eq!(selection.proposals.len(), 2);
    assert!(selection.proposals.iter().all(|p| p.entities.len() == 2));
    let selection = select(&request(
        vec![trouble(120.0, entities)],
        targets[..1].to_vec(),
    ));
    assert_eq!(selection.proposals.len(), 1);
    assert_eq!(selection.proposals[0].reason, Merit::RelievesPart);
    assert_eq!(
        reason(&selection, Some("c")),
        Some(Rejection::TargetOverloaded)
    );
}

#[test]
fn a_dominant_entity_gets_a_shadow_of_its_own_on_the_emptiest_target() {
    let entities = vec![entity("giant", 80.0, 1_000), entity("other", 20.0, 1_000)];
    let mut used = target("used", 1000.0);
    used.load = Loads::of(Resource::WriteRows, 300.0);
    let selection = select(&request(
        vec![trouble(90.0, entities)],
        vec![used, target("empty", 1000.0)],
    ));
    let giant = &selection.proposals[0];
    assert!(giant.dominant);
    assert_eq!(
        (giant.entities.as_slice(), giant.target.as_str()),
        (["giant".to_owned()].as_slice(), "empty")
    );
    assert!(
        selection.proposals[1..]
            .iter()
            .all(|p| !p.dominant && p.entities == ["other"])
    );
}

#[test]
fn groups_move_together_or_not_at_all() {
    let grouped = |name: &str, rows| Candidate {
        group: Some("g".into()),
        ..entity(name, rows, 100)
    };
    let entities = vec![
        grouped("a", 50.0),
        grouped("b", 1.0),
        entity("c", 45.0, 10_000),
    ];
    let selection = select(&request(
        vec![trouble(40.0, entities.clone())],
        vec![target("t", 1000.0)],
    ));
    assert_eq!(selection.proposals[0].entities, ["a", "b"]);
    assert_eq!(selection.proposals[0].bytes, 200);

    let mut pinned = entities;
    pinned[1].barred = Some(Barred::Pinned);
    let selection = select(&request(
        vec![trouble(40.0, pinned)],
        vec![target("t", 1000.0)],
    ));
    assert_eq!(selection.proposals[0].entities, ["c"]);
    assert_eq!(reason(&selection, Some("a")), Some(Rejection::Group));
    assert_eq!(reason(&selection, Some("b")), Some(Rejection::Pinned));
}

#[test]
fn a_move_that_would_finish_too_late_is_not_proposed() {
    let mut late = trouble(50.0, vec![entity("a", 60.0, 100_000_000_000)]);
    let targets = vec![target("t", 1000.0)];
    let selection = select(&request(vec![late.clone()], targets.clone()));
    assert!(selection.proposals.is_empty());
    assert_eq!(reason(&selection, Some("a")), Some(Rejection::TooLate));
    assert_eq!(reason(&selection, None), Some(Rejection::TooLate));
    // With a shadow standing there is nothing to copy.
    late.candidates[0].standing = Some("t".into());
    late.lead_us = Some(HOUR_US / 60);
    let selection = select(&request(vec![late], targets));
    assert_eq!(selection.proposals[0].standing, 1);
    assert_eq!(selection.proposals[0].bytes, 0);
}

#[test]
fn a_move_that_does_not_pay_is_not_proposed() {
    // Too little of the need.
    let targets = vec![target("t", 1000.0)];
    let selection = select(&request(
        vec![trouble(100.0, vec![entity("a", 20.0, 10)])],
        targets.clone(),
    ));
    assert!(selection.proposals.is_empty());
    assert_eq!(reason(&selection, Some("a")), Some(Rejection::DoesNotPay));
    // Copies more bytes than it would keep away in a day.
    let mut cold = entity("cold", 0.0, 1_000_000_000);
    cold.forecast = Loads::of(Resource::WriteBytes, 1_000.0);
    let mut bytes = trouble(0.0, vec![cold]);
    bytes.need = Loads::of(Resource::WriteBytes, 900.0);
    let selection = select(&request(vec![bytes], targets));
    assert!(selection.proposals.is_empty());
    assert_eq!(
        reason(&selection, Some("cold")),
        Some(Rejection::DoesNotPay)
    );
}

#[test]
fn budgets_of_bytes_and_of_moves_hold_over_all_partitions() {
    let of = |unit: &str, confidence| Trouble {
        unit: unit.into(),
        confidence,
        ..trouble(50.0, vec![entity(unit, 60.0, 1_000)])
    };
    let mut request = request(vec![of("p1", 0.5), of("p2", 0.9)], vec![target("t", 1e6)]);
    request.budget_bytes = Some(1_500);
    let selection = select(&request);
    assert_eq!(selection.proposals.len(), 1);
    assert_eq!(selection.proposals[0].unit, "p2", "the likelier first");
    assert_eq!(reason(&selection, Some("p1")), Some(Rejection::OverBudget));
    request.budget_bytes = None;
    request.moves_max = Some(1);
    let selection = select(&request);
    assert_eq!(selection.proposals.len(), 1);
    assert_eq!(
        reason(&selection, Some("p1")),
        Some(Rejection::TooManyMoves)
    );
}

#[test]
fn without_targets_or_candidates_the_partition_has_the_reason() {
    let selection = select(&request(
        vec![trouble(5.0, vec![entity("a", 9.0, 1)])],
        vec![target("home", 1e6)],
    ));
    assert_eq!(reason(&selection, None), Some(Rejection::NoTarget));
    let selection = select(&request(vec![trouble(5.0, vec![])], vec![target("t", 1e6)]));
    assert_eq!(reason(&selection, None), Some(Rejection::NoCandidate));
    let mut full = target("t", 1e6);
    full.free_bytes = Some(10);
    let selection = select(&request(
        vec![trouble(5.0, vec![entity("a", 9.0, 11)])],
        vec![full],
    ));
    assert_eq!(reason(&selection, None), Some(Rejection::NoSpace));
}

#[test]
fn one_selection_takes_only_so_many_entities() {
    let entities = ["a", "b", "c"].map(|name| entity(name, 10.0, 100)).to_vec();
    let mut one = trouble(25.0, entities);
    one.rules.entities_max = 2;
    let selection = select(&request(vec![one], vec![target("t", 1000.0)]));
    assert_eq!(selection.proposals[0].entities, ["a", "b"]);
    assert_eq!(
        reason(&selection, Some("c")),
        Some(Rejection::TooManyEntities)
    );
}

#[test]
fn every_resource_in_need_is_relieved() {
    let mut writer = entity("writer", 50.0, 100);
    writer.forecast.cpu = 0.1;
    let mut reader = entity("reader", 0.0, 100);
    reader.forecast.cpu = 2.0;
    let mut both = trouble(40.0, vec![writer, reader]);
    both.need.cpu = 1.5;
    let selection = select(&request(vec![both], vec![target("t", 1000.0)]));
    // Each has most of one resource, and a shadow of its own.
    assert_eq!(selection.proposals.len(), 2);
    assert!(
        selection
            .proposals
            .iter()
            .all(|p| p.dominant && p.reason == Merit::Relieves)
    );
}

#[test]
fn ten_thousand_candidates_take_milliseconds() {
    let candidates: Vec<Candidate> = (0..10_000u64)
        .map(|i| {
            entity(
                &i.to_string(),
                ((i * 7919) % 1000) as f64,
                1 + (i * 104_729) % 100_000,
            )
        })
        .collect();
    let targets: Vec<Target> = (0..10).map(|i| target(&format!("t{i}"), 1e6)).collect();
    let mut one = trouble(1_000_000.0, candidates);
    one.rules.entities_max = 10_000;
    let request = request(vec![one], targets);
    let started = std::time::Instant::now();
    let selection = select(&request);
    assert!(!selection.proposals.is_empty());
    assert!(selection.rejected.len() <= REJECTED_MAX + 1);
    // Some 20 ms in a release build. Here it is told from what grows with the square.
    assert!(started.elapsed().as_secs() < 30);
}

fn any_candidate() -> impl Strategy<Value = Candidate> {
    let loads = (
        0u32..100,
        prop::option::of(0u32..100),
        prop::option::of(1u64..10_000),
    );
    let more = (
        prop::option::weighted(0.2, 0u8..4),
        prop::option::weighted(0.1, 0usize..3),
        0u32..4,
    );
    (loads, more).prop_map(|((rows, usual, bytes), (group, barred, cpu))| Candidate {
        forecast: Loads {
            write_rows: rows.into(),
            cpu: cpu.into(),
            ..Loads::default()
        },
        usual: usual.map(|u| Loads::of(Resource::WriteRows, u.into())),
        bytes,
        group: group.map(|g| g.to_string()),
        barred: barred.map(|b| Barred::ALL[b]),
        ..Candidate::default()
    })
}

fn any_target() -> impl Strategy<Value = Target> {
    let loads = (
        10u32..500,
        0u32..300,
        prop::option::of(1u32..10),
        any::<bool>(),
    );
    (loads, prop::option::of(0u64..50_000)).prop_map(|((rows, load, cpu, server), free)| Target {
        kind: if server {
            TargetKind::Server
        } else {
            TargetKind::Tablespace
        },
        capacity: Capacities {
            write_rows: Some(rows.into()),
            cpu: cpu.map(f64::from),
            ..Capacities::default()
        },
        load: Loads::of(Resource::WriteRows, load.into()),
        free_bytes: free,
        ..Target::default()
    })
}

fn any_trouble() -> impl Strategy<Value = Trouble> {
    let need = (
        0u32..400,
        0u32..8,
        prop::option::of(0i64..2 * HOUR_US),
        0.0f64..1.0,
    );
    (need, prop::collection::vec(any_candidate(), 0..25)).prop_map(
        |((rows, cpu, lead_us, confidence), candidates)| Trouble {
            need: Loads {
                write_rows: rows.into(),
                cpu: cpu.into(),
                ..Loads::default()
            },
            lead_us,
            confidence,
            home: Some("t0".into()),
            candidates,
            ..Trouble::default()
        },
    )
}

fn any_request() -> impl Strategy<Value = Request> {
    (
        prop::collection::vec(any_trouble(), 1..4),
        prop::collection::vec(any_target(), 0..5),
        prop::option::of(0u64..100_000),
        prop::option::of(0usize..4),
    )
        .prop_map(|(mut troubles, mut targets, budget_bytes, moves_max)| {
            for (u, trouble) in troubles.iter_mut().enumerate() {
                trouble.unit = format!("p{u}");
                for (e, candidate) in trouble.candidates.iter_mut().enumerate() {
                    candidate.entity = format!("p{u}e{e}");
                }
            }
            for (t, target) in targets.iter_mut().enumerate() {
                target.name = format!("t{t}");
            }
            Request {
                troubles,
                targets,
                budget_bytes,
                moves_max,
                estimator: Estimator::default(),
            }
        })
}

fn candidate<'a>(request: &'a Request, entity: &str) -> &'a Candidate {
    let all = request.troubles.iter().flat_map(|t| &t.candidates);
    all.into_iter().find(|c| c.entity == entity).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_target_is_overloaded_and_no_disk_overfilled(request in any_request()) {
        let selection = select(&request);
        for target in &request.targets {
            let moved = selection.proposals.iter().filter(|p| p.target == target.name);
            let (mut load, mut bytes, mut any) = (target.load, 0, false);
            for proposal in moved {
                load = load.plus(&proposal.relief);
                bytes += proposal.bytes;
                any = true;
            }
            if any {
                for (resource, capacity) in target.capacity.iter() {
                    if let Some(capacity) = capacity {
                        prop_assert!(*load.get(resource) <= target.limit * capacity + 1e-6);
                    }
                }
                prop_assert!(target.free_bytes.is_none_or(|free| bytes <= free));
            }
        }
    }

    #[test]
    fn no_more_than_needed_moves(request in any_request()) {
        let selection = select(&request);
        for trouble in &request.troubles {
            let proposals = selection.proposals.iter().filter(|p| p.unit == trouble.unit);
            let entities: Vec<&String> = proposals.clone().flat_map(|p| &p.entities).collect();
            let met = proposals.clone().any(|p| p.reason == Merit::Relieves);
            let relief = |without: Option<&Candidate>| {
                let group = without.and_then(|w| w.group.as_ref());
                entities.iter().map(|e| candidate(&request, e)).filter(|c| {
                    let same = without.is_some_and(|w| w.entity == c.entity);
                    !same && (group.is_none() || c.group.as_ref() != group)
                }).fold(Loads::default(), |sum, c| sum.plus(&c.relief()))
            };
            let meets = |relief: Loads| trouble.need.iter().all(|(r, need)| relief.get(r) + 1e-6 >= *need);
            if met {
                prop_assert!(meets(relief(None)));
            }
            for entity in &entities {
                let without = relief(Some(candidate(&request, entity)));
                let short = trouble.need.iter().any(|(r, need)| without.get(r) + 1e-9 < *need);
                prop_assert!(short, "{entity} is redundant");
            }
        }
    }

    #[test]
    fn budgets_lead_bars_and_groups_are_respected(request in any_request()) {
        let selection = select(&request);
        let bytes: u64 = selection.proposals.iter().map(|p| p.bytes).sum();
        prop_assert!(request.budget_bytes.is_none_or(|budget| bytes <= budget));
        let moves = selection.proposals.len();
        prop_assert!(request.moves_max.is_none_or(|max| moves <= max));
        let mut seen = std::collections::BTreeSet::new();
        for proposal in &selection.proposals {
            let trouble = request.troubles.iter().find(|t| t.unit == proposal.unit).unwrap();
            let deadline_us = trouble.lead_us.unwrap_or(trouble.rules.late_max_us);
            prop_assert!(proposal.duration_us <= deadline_us);
            prop_assert_ne!(&proposal.target, "t0");
            for entity in &proposal.entities {
                prop_assert!(seen.insert(entity.clone()), "{entity} twice");
                let moved = candidate(&request, entity);
                prop_assert_eq!(moved.barred, None);
                for other in &trouble.candidates {
                    if moved.group.is_some() && other.group == moved.group {
                        prop_assert!(proposal.entities.contains(&other.entity));
                    }
                }
            }
        }
    }

    /// Each entity is moved, rejected by name, or counted; each partition in need has an answer.
    #[test]
    fn everything_considered_is_accounted_for(request in any_request()) {
        let selection = select(&request);
        let moved: usize = selection.proposals.iter().map(|p| p.entities.len()).sum();
        let named = selection.rejected.iter().filter(|r| r.entity.is_some()).count();
        let all: usize = request.troubles.iter().filter(|t| !t.need.is_zero()).map(|t| t.candidates.len()).sum();
        prop_assert_eq!(moved + named + selection.rejected_more, all);
        for trouble in &request.troubles {
            let answered = selection.proposals.iter().any(|p| p.unit == trouble.unit)
                || selection.rejected.iter().any(|r| r.unit == trouble.unit && r.entity.is_none());
            prop_assert!(answered);
        }
        prop_assert_eq!(&selection, &select(&request));
    }

    #[test]
    fn any_numbers_at_all_are_taken(
        numbers in prop::collection::vec(any::<f64>(), 12), lead_us: i64, late_us: i64, bytes: u64,
    ) {
        let loads = |at: usize| Loads { write_rows: numbers[at], cpu: numbers[at + 1], size: numbers[at + 2], ..Loads::default() };
        let mut one = trouble(numbers[0], vec![entity("a", numbers[1], bytes), entity("b", 1.0, bytes)]);
        one.need = loads(2);
        one.load = loads(3);
        one.candidates[0].forecast = loads(4);
        one.candidates[0].usual = Some(loads(5));
        one.lead_us = Some(lead_us);
        one.rules = Rules { late_max_us: late_us, payback_us: lead_us, relief_min: numbers[6], dominant_share: numbers[7], lead_factor: numbers[8], entities_max: 3 };
        let mut t = target("t", numbers[9]);
        t.load_factor = numbers[10];
        t.limit = numbers[11];
        let selection = select(&request(vec![one], vec![t]));
        let json = serde_json::to_string(&selection).unwrap();
        prop_assert!(serde_json::from_str::<Selection>(&json).is_ok());
    }
}

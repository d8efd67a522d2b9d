//! What holds of a predictor: it repeats itself, it survives being saved, it starts carefully, it
//! replaces models only by better ones, and no data makes it panic.

mod common;

use common::{CAPACITY, DAY, MEMBERS, STEP_US, UNITS, feed, load, predictor};
use predict::{Calendar, Config, Predictor, PushError, RestoreError, Stage};
use proptest::prelude::*;

/// Everything a predictor says.
fn said(predictor: &Predictor) -> String {
    let ids: Vec<u64> = (0..UNITS * MEMBERS + 2).collect();
    format!(
        "{:?} {:?}",
        predictor.forecast_units(),
        predictor.forecast_entities(&ids)
    )
}

#[test]
fn the_same_seed_says_the_same() {
    let run = |seed| {
        let mut predictor = predictor(seed);
        feed(&mut predictor, 0..4 * DAY, load);
        (said(&predictor), predictor.save().unwrap())
    };
    let (first, second, other) = (run(1), run(1), run(2));
    assert!(first == second);
    assert!(first.0 != other.0);
}

#[test]
fn a_saved_predictor_goes_on_where_it_was() {
    let mut predictor = predictor(1);
    feed(&mut predictor, 0..9 * DAY, load);
    let bytes = predictor.save().unwrap();
    let mut restored = Predictor::restore(&bytes, *predictor.config()).unwrap();
    // The series come from the history; nothing is learned from them twice.
    feed(&mut restored, 0..9 * DAY, load);
    assert_eq!(restored.save().unwrap().len(), bytes.len());
    assert_eq!(said(&predictor), said(&restored));
    feed(&mut predictor, 9 * DAY..10 * DAY + 50, load);
    feed(&mut restored, 9 * DAY..10 * DAY + 50, load);
    assert_eq!(said(&predictor), said(&restored));
}

#[test]
fn damage_and_other_settings_are_noticed() {
    let mut predictor = predictor(1);
    feed(&mut predictor, 0..3 * DAY, load);
    let config = *predictor.config();
    let bytes = predictor.save().unwrap();
    let error = |bytes: &[u8]| Predictor::restore(bytes, config).unwrap_err();
    assert_eq!(error(b""), RestoreError::Version);
    assert_eq!(error(b"shadowpart predict 0\n"), RestoreError::Version);
    assert!(matches!(
        error(&bytes[..bytes.len() - 1]),
        RestoreError::Damaged(_)
    ));
    for place in (60..bytes.len()).step_by(bytes.len() / 50) {
        let mut damaged = bytes.clone();
        damaged[place] ^= 0x10;
        assert!(matches!(error(&damaged), RestoreError::Damaged(_)));
    }
    let other = Config {
        calendar: Calendar::of_step(60_000_000),
        ..config
    };
    assert_eq!(
        Predictor::restore(&bytes, other).unwrap_err(),
        RestoreError::Config
    );
}

#[test]
fn it_starts_carefully() {
    let mut predictor = predictor(1);
    feed(&mut predictor, 0..DAY - 1, |entity, slot| {
        3.0 * load(entity, slot)
    });
    for unit in predictor.forecast_units() {
        assert_eq!(unit.stage, Stage::Reactive);
        assert!(unit.probability <= 0.5 && unit.drivers.is_empty());
    }
    feed(&mut predictor, DAY - 1..4 * DAY, load);
    assert!(
        predictor
            .forecast_units()
            .iter()
            .all(|unit| unit.stage == Stage::Linear)
    );
    // A unit that comes later goes through it all again, beside the others.
    predictor.set_unit(UNITS, Some(CAPACITY), &[]);
    feed(&mut predictor, 4 * DAY..8 * DAY, load);
    predictor
        .push(8 * DAY * STEP_US, &[], &[(0, 700.0), (UNITS, 800.0)])
        .unwrap();
    let forecasts = predictor.forecast_units();
    assert_eq!(
        (forecasts[0].stage, forecasts[4].stage),
        (Stage::Forest, Stage::Reactive)
    );
    assert!(!forecasts[0].drivers.is_empty() && forecasts[4].probability <= 0.5);
}

#[test]
fn capacities_are_learned() {
    let mut predictor = predictor(1);
    for unit in 0..UNITS {
        predictor.set_unit(unit, None, &[]);
    }
    feed(&mut predictor, 0..DAY - 10, load);
    assert!(
        predictor
            .forecast_units()
            .iter()
            .all(|unit| unit.capacity.is_none())
    );
    feed(&mut predictor, DAY - 10..3 * DAY, load);
    for unit in predictor.forecast_units() {
        assert!(unit.capacity_learned && (500.0..1_500.0).contains(&unit.capacity.unwrap()));
    }
}

#[test]
fn a_worse_model_is_not_promoted() {
    let mut predictor = predictor(1);
    feed(&mut predictor, 0..8 * DAY, load);
    let good = predictor.retrain();
    // A week of what has nothing to do with what comes after it, learned from a random past.
    feed_without_training(&mut predictor, 8 * DAY..11 * DAY, |entity, slot| {
        2.0 * load(entity, slot) * common::noise(entity, slot as u64 + 7)
    });
    feed_without_training(&mut predictor, 11 * DAY..12 * DAY, load);
    let bad = predictor.retrain();
    for verdict in [&good.trigger, &good.entities, &bad.trigger, &bad.entities] {
        let candidate = verdict.candidate.unwrap();
        let beaten = [verdict.current, verdict.baseline]
            .into_iter()
            .flatten()
            .all(|o| candidate < o);
        assert_eq!(verdict.promoted, beaten, "{verdict:?}");
        assert!(!verdict.reason.is_empty());
    }
    assert!(!bad.entities.promoted, "{bad:?}");
}

/// Feeds slots and does not retrain.
fn feed_without_training(
    predictor: &mut Predictor,
    slots: std::ops::Range<i64>,
    load: impl Fn(u64, i64) -> f64,
) {
    for slot in slots {
        let entities: Vec<(u64, f64)> = (0..UNITS * MEMBERS)
            .map(|entity| (entity, load(entity, slot)))
            .collect();
        let unit = |unit: u64| {
            let members = entities
                .iter()
                .filter(|(entity, _)| entity / MEMBERS == unit);
            (unit, members.map(|(_, load)| load).sum())
        };
        let units: Vec<(u64, f64)> = (0..UNITS).map(unit).collect();
        predictor.push(slot * STEP_US, &entities, &units).unwrap();
    }
}

#[test]
fn what_we_did_ourselves_is_not_learned() {
    let mut predictor = predictor(1);
    for unit in 0..UNITS {
        predictor.exclude(unit, 0, 100 * DAY * STEP_US);
    }
    feed(&mut predictor, 0..3 * DAY, load);
    let decision = predictor.retrain();
    assert_eq!(
        (decision.trigger.rows, decision.trigger.promoted),
        (0, false)
    );
    assert!(decision.entities.rows > 0);
}

#[test]
fn bounds_hold() {
    let mut predictor = Predictor::new(Config {
        entities_max: 3,
        units_max: 1,
        ..Config::default()
    });
    assert!(predictor.set_unit(1, Some(f64::NAN), &[]) && !predictor.set_unit(2, None, &[]));
    let loads: Vec<(u64, f64)> = (0..5).map(|id| (id, 1.0)).collect();
    let pushed = predictor.push(0, &loads, &[(1, 1.0), (2, 1.0)]).unwrap();
    assert_eq!((pushed.dropped, pushed.slot), (2, 0));
    let again = predictor.push(1, &[], &[]);
    assert_eq!(again, Err(PushError::NotLater { slot: 0, newest: 0 }));
}

/// Loads that are none.
fn hostile() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(-5.0),
        Just(0.0),
        Just(f64::MAX),
        Just(f64::MIN_POSITIVE),
        Just(1e15),
        0.0..2_000.0,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_data_makes_it_panic(
        seed in any::<u64>(),
        palette in prop::collection::vec(hostile(), 1..5),
        slots_per_day in 0_u32..40,
        capacity in prop_oneof![hostile().prop_map(Some), Just(None)],
        jumps in prop::collection::vec(1_i64..400, 0..4),
        start in prop_oneof![Just(i64::MIN), Just(0), Just(i64::MAX - 1_000_000), any::<i64>()],
    ) {
        let calendar = Calendar::new(1_000, slots_per_day);
        let mut predictor = Predictor::new(Config {
            calendar,
            seed,
            rows_max: 500,
            ..Config::default()
        });
        predictor.set_unit(0, capacity, &[0, 1]);
        predictor.set_unit(1, Some(100.0), &[]);
        let pick = |entity: u64, slot: u64| {
            let number = predict::mix(seed ^ (entity << 40) ^ slot) as usize % palette.len();
            palette[number]
        };
        let mut at_us = start;
        for slot in 0..600_u64 {
            let jump = jumps.get(slot as usize / 100).filter(|_| slot % 100 == 99);
            at_us = at_us.saturating_add(1_000 * jump.unwrap_or(&1));
            let entities: Vec<(u64, f64)> = (0..3).map(|entity| (entity, pick(entity, slot))).collect();
            let units = [(0, pick(7, slot)), (1, pick(8, slot)), (9, 1.0)];
            let pushed = predictor.push(at_us, &entities, &units);
            if pushed.is_ok_and(|pushed| pushed.retrain_due) || slot == 3 {
                predictor.retrain();
            }
        }
        for unit in predictor.forecast_units() {
            prop_assert!((0.0..=1.0).contains(&unit.probability));
            prop_assert!(unit.peak.low <= unit.peak.mid && unit.peak.mid <= unit.peak.high);
        }
        for entity in predictor.forecast_entities(&[0, 1, 2, 3]) {
            for at in entity.at {
                prop_assert!(0.0 <= at.low && at.low <= at.mid && at.mid <= at.high, "{at:?}");
            }
        }
        let bytes = predictor.save().unwrap();
        prop_assert!(Predictor::restore(&bytes, *predictor.config()).is_ok());
    }
}

//! What was never seen before: it is predicted in time to move it away, or the reactive net has it.
//!
//! A predictor lives with four partitions for ten days. Then something happens in one of them.

mod common;

use common::{CAPACITY, DAY, MEMBERS, UNITS, feed, load, predictor};
use predict::{Alarm, Predictor};

/// Moving an entity is estimated to take so many slots (15 minutes).
const MOVE_SLOTS: i64 = 3;

/// The net needs the load in two slots in a row; its average follows a jump within another.
const NET_SLOTS: i64 = 3;

/// When an alarm came, and which.
#[derive(Debug)]
struct Seen {
    predicted: Option<i64>,
    caught: Option<i64>,
    onset: Option<i64>,
}

/// Lives for ten days, then goes on from midnight with another load until partition 0 saturates.
fn live(load_after: impl Fn(u64, i64) -> f64) -> Seen {
    let mut predictor = predictor(1);
    feed(&mut predictor, 0..10 * DAY, load);
    let mut seen = Seen {
        predicted: None,
        caught: None,
        onset: None,
    };
    for slot in 10 * DAY..12 * DAY {
        feed(&mut predictor, slot..slot + 1, &load_after);
        look(&predictor, slot, &mut seen);
        if seen.onset.is_some() && (seen.predicted.is_some() || seen.caught.is_some()) {
            break;
        }
    }
    seen
}

fn look(predictor: &Predictor, slot: i64, seen: &mut Seen) {
    let forecasts = predictor.forecast_units();
    let unit = &forecasts[0];
    assert_eq!((unit.unit, forecasts.len() as u64), (0, UNITS));
    match unit.alarm {
        Alarm::Predicted => seen.predicted = seen.predicted.or(Some(slot)),
        Alarm::Reactive => seen.caught = seen.caught.or(Some(slot)),
        Alarm::None => {}
    }
    if unit.now.is_some_and(|now| now >= CAPACITY) {
        seen.onset = seen.onset.or(Some(slot));
    }
}

/// Predicted with enough lead, or caught soon after the onset.
fn assert_in_time(seen: &Seen) {
    let onset = seen.onset.unwrap();
    let lead = seen.predicted.map(|slot| onset - slot);
    let late = seen.caught.map(|slot| slot - onset);
    let in_time = lead.is_some_and(|lead| lead >= MOVE_SLOTS);
    let caught = late.is_some_and(|late| late <= NET_SLOTS);
    assert!(
        in_time || caught,
        "{seen:?}: lead {lead:?}, caught after {late:?}"
    );
    println!("lead {lead:?} slots, caught after {late:?} slots");
}

#[test]
fn an_entity_that_doubles_every_three_hours() {
    let seen = live(|entity, slot| {
        let hours = (slot - 10 * DAY) as f64 / 12.0;
        let factor = if entity == 3 {
            (hours / 3.0).exp2()
        } else {
            1.0
        };
        load(entity, slot).min(90.0) * factor
    });
    assert_in_time(&seen);
}

#[test]
fn a_flash_crowd() {
    let begin = 10 * DAY + 30;
    let seen = live(|entity, slot| {
        let crowd = if entity == 5 && slot >= begin {
            1_500.0
        } else {
            0.0
        };
        load(entity, slot) + crowd
    });
    assert_in_time(&seen);
}

#[test]
fn a_new_tenant() {
    let mut predictor = predictor(1);
    feed(&mut predictor, 0..10 * DAY, load);
    let mut seen = Seen {
        predicted: None,
        caught: None,
        onset: None,
    };
    // From the morning on there is one more in partition 0, which grows over three hours.
    let tenant = UNITS * MEMBERS;
    let members: Vec<u64> = (0..MEMBERS).chain([tenant]).collect();
    predictor.set_unit(0, Some(CAPACITY), &members);
    for slot in 10 * DAY..11 * DAY {
        let extra = ((slot - 10 * DAY - 36) as f64 / 36.0).clamp(0.0, 1.0) * 1_000.0;
        let mut entities: Vec<(u64, f64)> = (0..tenant).map(|e| (e, load(e, slot))).collect();
        let mut units = [0.0; UNITS as usize];
        for (entity, load) in &entities {
            units[(entity / MEMBERS) as usize] += load;
        }
        units[0] += extra;
        if extra > 0.0 {
            entities.push((tenant, extra));
        }
        let units: Vec<(u64, f64)> = (0..).zip(units).collect();
        predictor
            .push(slot * common::STEP_US, &entities, &units)
            .unwrap();
        look(&predictor, slot, &mut seen);
    }
    assert_in_time(&seen);
    // It is forecast from its first slot on.
    let forecasts = predictor.forecast_entities(&[tenant]);
    assert!(
        forecasts[0].at.iter().all(|at| at.mid > 100.0),
        "{forecasts:?}"
    );
}

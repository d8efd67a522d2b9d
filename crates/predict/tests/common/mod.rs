//! A small world: partitions with a daily wave and noise, whose loads a test may bend.

use predict::{Config, Predictor};

/// Slots of a day.
pub const DAY: i64 = 288;

/// The length of a slot, in microseconds.
pub const STEP_US: i64 = 300_000_000;

/// Partitions of it.
pub const UNITS: u64 = 4;

/// Entities of each.
pub const MEMBERS: u64 = 8;

/// The capacity of each.
pub const CAPACITY: f64 = 1_000.0;

/// A number in [0, 1) that depends on two others.
pub fn noise(a: u64, b: u64) -> f64 {
    (predict::mix(predict::mix(a) ^ b) >> 11) as f64 / (1_u64 << 53) as f64
}

/// A predictor that knows the partitions.
pub fn predictor(seed: u64) -> Predictor {
    let mut predictor = Predictor::new(Config {
        seed,
        rows_max: 4_000,
        ..Config::default()
    });
    for unit in 0..UNITS {
        let members: Vec<u64> = (0..MEMBERS).map(|member| unit * MEMBERS + member).collect();
        assert!(predictor.set_unit(unit, Some(CAPACITY), &members));
    }
    predictor
}

/// The load of an entity: a wave that is highest in the afternoon, noise, and on some afternoons more
/// than the partition can take.
pub fn load(entity: u64, slot: i64) -> f64 {
    let angle = (slot % DAY) as f64 / DAY as f64 * std::f64::consts::TAU;
    let wave = 60.0 - 40.0 * angle.cos();
    let busy = if noise(entity / MEMBERS, (slot / DAY) as u64 + 99) < 0.4 {
        1.35
    } else {
        1.0
    };
    wave * busy * (0.8 + 0.4 * noise(entity, slot as u64))
}

/// Feeds slots, with loads of entities as a function of entity and slot; retrains when it is due.
pub fn feed(
    predictor: &mut Predictor,
    slots: std::ops::Range<i64>,
    load: impl Fn(u64, i64) -> f64,
) {
    for slot in slots {
        let entities: Vec<(u64, f64)> = (0..UNITS * MEMBERS)
            .map(|entity| (entity, load(entity, slot)))
            .collect();
        let mut units = vec![0.0; UNITS as usize];
        for (entity, load) in &entities {
            units[(entity / MEMBERS) as usize] += load.max(0.0);
        }
        let units: Vec<(u64, f64)> = (0..).zip(units).collect();
        let pushed = predictor.push(slot * STEP_US, &entities, &units).unwrap();
        if pushed.retrain_due {
            predictor.retrain();
        }
    }
}

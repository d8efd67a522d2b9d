//! How long a tick takes with ten saturated partitions of 10,000 entities each, in milliseconds.
//!
//! `cargo run --release -p autopilot --example ms_per_tick`

use autopilot::machine::{Observation, State, UnitSeen};
use autopilot::policy::{Mode, Policy};
use autopilot::resource::{Capacities, Loads, Resource};
use autopilot::selection::{Candidate, Target};
use std::time::Instant;

fn main() {
    let capacity = |rows| Capacities {
        write_rows: Some(rows),
        ..Capacities::default()
    };
    let entity = |unit: u32, number: u32| Candidate {
        entity: format!("{unit}.{number}"),
        forecast: Loads::of(Resource::WriteRows, f64::from(number * 7919 % 97) / 1000.0),
        bytes: Some(u64::from(number * 31 % 1009) << 12),
        ..Candidate::default()
    };
    let units = (0..10).map(|unit| UnitSeen {
        unit: format!("p{unit}"),
        load: Loads::of(Resource::WriteRows, 480.0),
        capacity: capacity(490.0),
        candidates: (0..10_000).map(|number| entity(unit, number)).collect(),
        ..UnitSeen::default()
    });
    let targets = (0..8).map(|target| Target {
        name: format!("t{target}"),
        capacity: capacity(1000.0),
        ..Target::default()
    });
    let seen = Observation {
        policy: Policy {
            mode: Mode::Migrate,
            reactive_ticks: 1,
            moves_max: 100,
            ..Policy::default()
        },
        units: units.collect(),
        targets: targets.collect(),
        ..Observation::default()
    };
    let mut best = f64::INFINITY;
    for _ in 0..10 {
        let mut state = State::default();
        let started = Instant::now();
        let tick = state.tick(&seen);
        best = best.min(started.elapsed().as_secs_f64() * 1e3);
        assert!(tick.decisions.iter().all(|decision| decision.execute));
    }
    println!("{best:.1} ms for 10 partitions of 10,000 entities");
}

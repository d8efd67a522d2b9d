//! Traces that are hardly any.

use backtest::{Options, Refused, Trace, run};
use proptest::prelude::*;

fn trace(entities: usize, slots: usize, load: impl Fn(usize, usize) -> f32) -> Trace {
    Trace {
        start_us: 0,
        step_us: 3_600_000_000,
        names: (0..entities).map(|entity| entity.to_string()).collect(),
        sizes: Vec::new(),
        loads: (0..entities * slots)
            .map(|i| load(i % entities, i / entities))
            .collect(),
    }
}

#[test]
fn too_little_is_refused() {
    let options = Options::default();
    assert_eq!(run(&Trace::default(), &options), Err(Refused::NoEntities));
    assert_eq!(
        run(&trace(1, 1, |_, _| 1.0), &options),
        Err(Refused::TooShort)
    );
}

#[test]
fn what_says_nothing_has_no_figures() {
    for load in [f32::NAN, 0.0, 7.0, f32::INFINITY, -3.0, f32::MAX] {
        let report = run(&trace(3, 400, |_, _| load), &Options::default()).unwrap();
        assert_eq!(report.entities.rmae, [None; 3]);
        assert_eq!(report.trigger.average_precision, None);
        // Constant loads are at their capacity from the first slot on: there is no onset.
        assert_eq!(report.moves.cases, 0);
        assert!(!report.to_string().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics(
        entities in 1_usize..6,
        slots in 4_usize..300,
        partitions in 0_usize..9,
        palette in prop::collection::vec(
            prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(-1.0), Just(0.0), Just(1e30), 0.0_f32..9.0],
            1..4,
        ),
        seed in any::<u64>(),
        first_share in -1.0..2.0,
        horizon_minutes in 0_u32..10_000,
    ) {
        let pick = |entity: usize, slot: usize| {
            palette[predict::mix(seed ^ (entity << 32 | slot) as u64) as usize % palette.len()]
        };
        let options = Options {
            partitions,
            seed,
            first_share,
            horizon_minutes,
            capacity_quantile: first_share,
            ..Options::default()
        };
        let report = run(&trace(entities, slots, pick), &options).unwrap();
        if let Some(ece) = report.trigger.ece {
            prop_assert!((0.0..=1.0).contains(&ece));
        }
    }
}

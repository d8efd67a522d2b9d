//! Figures on traces that anybody may have. A change for the worse shows here; a change for the
//! better asks for new bounds.

use std::path::Path;

use backtest::{Options, Report, Trace, file, run};

/// A trace of tests/data.
fn trace(name: &str) -> Trace {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    file::read(&path, 300_000_000).unwrap()
}

fn figures(report: &Report) -> String {
    format!("{report}")
}

#[test]
fn departures_from_new_york() {
    let trace = trace("flights_hourly.csv.gz");
    assert_eq!(
        (trace.entities(), trace.slots(), trace.step_us),
        (40, 1_680, 3_600_000_000)
    );
    let report = run(
        &trace,
        &Options {
            partitions: 6,
            first_share: 0.7,
            ..Options::default()
        },
    )
    .unwrap();
    println!("{}", figures(&report));
    // The time of day says nearly everything here, and the last value nearly nothing.
    assert!(report.entities.rmae[2].unwrap() < 0.45);
    assert!(report.partitions.rmae[2].unwrap() < 0.36);
    let trigger = &report.trigger;
    assert!(trigger.average_precision.unwrap() > 0.83);
    assert!(trigger.brier.unwrap() < 0.028);
    assert!(trigger.ece.unwrap() < 0.02);
    assert!(trigger.at_60.precision.unwrap() > 0.8 && trigger.at_60.recall.unwrap() > 0.7);
    assert!(report.reactive.average_precision.unwrap() < 0.2);
    assert!(report.moves.avoided.unwrap() > 0.83);
}

#[test]
fn processors_of_a_cloud() {
    let trace = trace("nab_aws_cpu.csv.gz");
    assert_eq!((trace.entities(), trace.slots()), (10, 4_032));
    let options = Options {
        partitions: 5,
        first_share: 0.6,
        ..Options::default()
    };
    let report = run(&trace, &options).unwrap();
    println!("{}", figures(&report));
    for (rmae, bound) in report.entities.rmae.iter().zip([0.84, 0.93, 0.79]) {
        assert!(rmae.unwrap() < bound, "{rmae:?}");
    }
    // Two weeks of machines that change their habits: better than the load alone, not good.
    let trigger = &report.trigger;
    assert!(trigger.average_precision.unwrap() > 0.36);
    assert!(report.reactive.average_precision.unwrap() < 0.15);
    assert!(trigger.brier.unwrap() < 0.08 && trigger.ece.unwrap() < 0.05);
}

//! How long it takes: training on 20,000 rows, forecasts of 10,000 entities, a slot; and the memory.
//!
//! `cargo run --release -p predict --example speed`

use std::time::Instant;

use predict::{Config, Predictor};

/// Entities and units.
const ENTITIES: u64 = 10_000;
const UNITS: u64 = 64;

fn main() {
    let mut predictor = Predictor::new(Config::default());
    for unit in 0..UNITS {
        let members: Vec<u64> = (0..ENTITIES)
            .filter(|entity| entity % UNITS == unit)
            .collect();
        predictor.set_unit(unit, Some(3_000.0), &members);
    }
    let mut pushes = Vec::new();
    for slot in 0..(9 * 288_i64) {
        // A daily wave, other noise for each entity, now and then a burst.
        let wave = 1.0 + (slot as f64 * std::f64::consts::TAU / 288.0).sin();
        let mut units = vec![0.0; UNITS as usize];
        let entities: Vec<(u64, f64)> = (0..ENTITIES)
            .map(|entity| {
                let noise = predict::mix(entity << 32 | slot as u64) % 1_000;
                let burst = if noise == 0 { 30.0 } else { 1.0 };
                let load = wave * burst * noise as f64 / 50.0;
                units[(entity % UNITS) as usize] += load;
                (entity, load)
            })
            .collect();
        let units: Vec<(u64, f64)> = (0..).zip(units).collect();
        let begun = Instant::now();
        let _ = predictor.push(slot * 300_000_000, &entities, &units);
        pushes.push(begun.elapsed());
    }
    println!(
        "a slot: {:?} on average",
        pushes.iter().sum::<std::time::Duration>() / 2_592
    );
    for _ in 0..3 {
        let (begun, cpu) = (Instant::now(), cpu_ms());
        let decision = predictor.retrain();
        let (took, cpu) = (begun.elapsed(), cpu_ms() - cpu);
        let rows = (
            decision.trigger.rows,
            decision.entities.rows,
            decision.totals.rows,
        );
        println!("training: {took:?}, {cpu} ms of CPU, on {rows:?} rows");
        println!(
            "  {}; {}",
            decision.trigger.reason, decision.entities.reason
        );
    }
    let ids: Vec<u64> = (0..ENTITIES).collect();
    for _ in 0..5 {
        let (begun, cpu) = (Instant::now(), cpu_ms());
        let forecasts = predictor.forecast_entities(&ids);
        println!(
            "{} entities: {:?}, {} ms of CPU",
            forecasts.len(),
            begun.elapsed(),
            cpu_ms() - cpu
        );
    }
    let begun = Instant::now();
    let units = predictor.forecast_units();
    println!("{} units: {:?}", units.len(), begun.elapsed());
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        println!(
            "{}",
            status
                .lines()
                .find(|line| line.starts_with("VmHWM"))
                .unwrap_or("")
        );
    }
}

/// How long this thread has been running on a processor, in milliseconds: on a busy machine less than
/// the time that passed.
fn cpu_ms() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text
        .split(' ')
        .next()
        .and_then(|nanoseconds| nanoseconds.parse::<u64>().ok());
    first.unwrap_or(0) / 1_000_000
}

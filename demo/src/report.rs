//! The closing table.

use crate::story::{Act, Outcome};
use crate::writers::Lane;

/// Latencies of one lane within an act, milliseconds.
pub struct Latency {
    pub count: usize,
    pub p99_ms: f64,
    pub largest_ms: f64,
}

pub fn latency(outcome: &Outcome, act: &Act, lane: Lane) -> Latency {
    let mut took: Vec<u64> = outcome
        .samples
        .iter()
        .filter(|sample| sample.lane == lane)
        .filter(|sample| (act.from_us..act.to_us).contains(&sample.start_us))
        .map(|sample| sample.took_us)
        .collect();
    took.sort_unstable();
    let ms = |value: Option<&u64>| value.map_or(0.0, |us| *us as f64 / 1e3);
    Latency {
        count: took.len(),
        p99_ms: ms(took.get(took.len() * 99 / 100)),
        largest_ms: ms(took.last()),
    }
}

pub fn print(outcome: &Outcome) {
    let acts = &outcome.acts;
    println!();
    if outcome.dry_run {
        println!("DRY RUN: stand-ins for shadowpart, nothing was moved");
    }
    line("", acts.iter().map(|act| act.name.to_owned()));
    line(
        "rows moved",
        acts.iter()
            .map(|act| cell(act.rows, |rows| rows.to_string())),
    );
    line(
        "time of the call",
        acts.iter()
            .map(|act| cell(act.call_us, |us| format!("{:.2} s", us as f64 / 1e6))),
    );
    line(
        "stall of the swap",
        acts.iter()
            .map(|act| cell(act.swap.as_ref(), |swap| ms(swap.stall_ms))),
    );
    line(
        "  of it lock wait",
        acts.iter()
            .map(|act| cell(act.swap.as_ref().and_then(|swap| swap.lock_wait_ms), ms)),
    );
    line(
        "  attempts",
        acts.iter().map(|act| {
            cell(act.swap.as_ref().and_then(|swap| swap.attempts), |n| {
                n.to_string()
            })
        }),
    );
    let moved = format!("clients of {}", outcome.carrier);
    let others = format!("clients of {}", outcome.others.join(", "));
    for (name, lane) in [(moved, Lane::Moved), (others, Lane::Others)] {
        let of = |act| latency(outcome, act, lane);
        line(
            &name,
            acts.iter().map(|act| format!("{} tx", of(act).count)),
        );
        line("  p99 latency", acts.iter().map(|act| ms(of(act).p99_ms)));
        line(
            "  largest latency",
            acts.iter().map(|act| ms(of(act).largest_ms)),
        );
    }
    println!();
    println!(
        "acknowledged: {} inserted, {} updated, {} deleted, {} looked up; failed transactions: {}",
        outcome.inserts,
        outcome.updates,
        outcome.deletes,
        outcome.reads,
        outcome.failed.len()
    );
    list(&outcome.failed);
    for check in &outcome.checks {
        let verdict = match check.differences.len() {
            0 => "none".to_owned(),
            count => format!("{count}!"),
        };
        println!("differences, {}: {verdict}", check.name);
        list(&check.differences);
    }
    println!();
}

fn list(lines: &[String]) {
    for line in lines.iter().take(10) {
        println!("  {line}");
    }
}

fn line(name: &str, cells: impl Iterator<Item = String>) {
    print!("{name:26}");
    for cell in cells {
        print!("{cell:>13}");
    }
    println!();
}

fn cell<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), text)
}

fn ms(value: f64) -> String {
    format!("{value:.1} ms")
}

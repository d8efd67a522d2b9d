//! The closing lines.

use super::Outcome;
use super::clients::CLIENTS;
use super::regions::ALL;
use super::timetable::{DAY_US, HOT};

pub fn print(outcome: &Outcome) {
    let Outcome {
        table,
        book,
        seen,
        figures,
        ..
    } = outcome;
    let region = &ALL[table.hot_region];
    println!();
    println!(
        "replayed: {} flights of 2013 in {} days of {:.1} s, and {} made-up ones to {HOT}",
        table.real_flights,
        table.days(),
        DAY_US as f64 / 1e6,
        table.made_up_flights
    );
    println!(
        "acknowledged by {} clients: {} inserted, {} updated in {} transactions; failed: {}; {:.2} s behind at most",
        CLIENTS,
        book.inserts,
        book.updates,
        book.samples.len(),
        book.failed.len(),
        book.behind_us as f64 / 1e6
    );
    list(&book.failed);
    let span = |from: Option<u64>, to: Option<u64>| match (from, to) {
        (Some(from), Some(to)) => {
            let seconds = (to as f64 - from as f64) / 1e6;
            format!(
                "{seconds:.2} s, {:.1} h of the replay",
                seconds * 24e6 / DAY_US as f64
            )
        }
        _ => "-".to_owned(),
    };
    let swapped_us = seen.swaps.first().map(|swap| swap.at_us);
    println!(
        "announced before {} would have been full again: {}",
        region.partition,
        span(figures.announced_us, figures.would_cross_us)
    );
    println!(
        "from the announcement to the shadow ready:  {}",
        span(figures.announced_us, seen.ready_us)
    );
    println!(
        "from the announcement to the swap:          {}",
        span(figures.announced_us, swapped_us)
    );
    for swap in &seen.swaps {
        let near = (book.samples.iter())
            .filter(|sample| sample.start_us.abs_diff(swap.at_us) < 500_000)
            .map(|sample| sample.took_us)
            .max();
        println!(
            "swapped: {} with {} rows; stall {:.2} ms (lock wait {:.2} ms); slowest transaction within 0.5 s: {:.1} ms",
            swap.entities.join(", "),
            swap.rows,
            swap.stall_ms,
            swap.lock_wait_ms.unwrap_or(0.0),
            near.unwrap_or(0) as f64 / 1e3
        );
    }
    let last_us = seen.swaps.last().map(|swap| swap.at_us);
    if let (Some(crossed_us), Some(swapped_us)) = (figures.crossed_us, last_us) {
        let when = if crossed_us < swapped_us {
            "before"
        } else {
            "after"
        };
        println!("NOTE: the load reached the capacity {when} the swap all the same");
    }
    let over = |loads: &[f64]| loads.iter().filter(|load| **load >= table.capacity).count();
    println!(
        "hours over capacity in {}: {}; without the move it would have been {}",
        region.partition,
        figures
            .loads
            .get(table.hot_region)
            .map_or(0, |loads| over(loads)),
        over(&figures.without)
    );
    for check in &outcome.checks {
        let verdict = match check.differences.len() {
            0 => "none".to_owned(),
            count => format!("{count}!"),
        };
        println!("differences, {}: {verdict}", check.name);
        list(&check.differences);
    }
    for broken in outcome.broken() {
        println!("NOT KEPT: {broken}");
    }
    println!();
}

fn list(lines: &[String]) {
    for line in lines.iter().take(10) {
        println!("  {line}");
    }
}

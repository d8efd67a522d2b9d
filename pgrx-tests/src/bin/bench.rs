//! `make bench`: what shadowpart promises, measured against what anybody could do by hand.
//!
//! Everything is measured on throw-away servers of the version that `SHADOWPART_TEST_PG` names, with
//! fsync and synchronous_commit on. A ratio comes from pairs (A, B, A, B, ...) of one run, so that a
//! machine that is slow for a while is slow for both; it is the median of the pairs' ratios.
//!
//! `SHADOWPART_BENCH_ROWS` (default 1000000) scales the tables, `SHADOWPART_BENCH_LARGE=1` adds swaps
//! with ten times as many, `SHADOWPART_BENCH_READ_SECONDS` (default 60) is how long the group `readers`
//! reads. Arguments name the groups to run, default all.

mod bench {
    pub mod bulk;
    pub mod clients;
    pub mod copy;
    pub mod latency;
    pub mod load;
    pub mod plans;
    pub mod readers;
    pub mod report;
    pub mod single;
    pub mod sketch;
    pub mod swap;
    pub mod tables;
    pub mod writers;
}

use bench::report::Report;
use bench::{bulk, copy, latency, load, plans, readers, single, sketch, swap, writers};
use shadowpart_tests::{Installation, Result, Server, Settings, bail, ensure};

type Measure = fn(&mut Server, &mut Report, u64) -> Result<()>;

/// In the order of the table that is printed.
const GROUPS: [(&str, Measure); 12] = [
    ("swap", swap::measure),
    ("readers", readers::measure),
    ("writers", writers::measure),
    ("bulk", bulk::shadowed),
    ("neighbour", bulk::neighbour),
    ("single", single::measure),
    ("copy", copy::measure),
    ("planning", plans::planning),
    ("generic", plans::generic),
    ("latency", latency::measure),
    ("load", load::measure),
    ("sketch", sketch::measure),
];

const ROWS_DEFAULT: u64 = 1_000_000;
/// Below this, times are too short to compare, and some tables would be empty.
const ROWS_MIN: u64 = 10_000;

/// A server as somebody would run it, with enough memory to hold the tables, so that the cost of
/// shadowpart is not hidden behind a slow disk. No autovacuum: it would come by during one half of a
/// pair and not the other; tables are vacuumed between the pairs instead.
fn settings() -> Settings {
    Settings::default()
        .set("fsync", "on")
        .set("synchronous_commit", "on")
        .set("autovacuum", "off")
        .set("shared_buffers", "512MB")
        .set("maintenance_work_mem", "128MB")
        .set("max_wal_size", "8GB")
        .set("checkpoint_timeout", "1h")
        .set("log_min_messages", "warning")
        .set("jit", "off")
        .set("shadowpart.revert_window", "-1")
}

fn rows() -> Result<u64> {
    let rows = match std::env::var("SHADOWPART_BENCH_ROWS") {
        Ok(text) => text.parse()?,
        Err(_) => ROWS_DEFAULT,
    };
    ensure!(
        rows >= ROWS_MIN,
        "SHADOWPART_BENCH_ROWS is {rows}; at least {ROWS_MIN} are needed"
    );
    Ok(rows)
}

fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let names: Vec<&str> = GROUPS.iter().map(|(name, _)| *name).collect();
    if let Some(stranger) = wanted.iter().find(|w| !names.contains(&w.as_str())) {
        bail!("no group \"{stranger}\"; there are: {}", names.join(", "));
    }
    let rows = rows()?;
    let mut report = Report::default();
    for (name, measure) in GROUPS {
        if !wanted.is_empty() && !wanted.iter().any(|w| w == name) {
            continue;
        }
        eprintln!("{name} ...");
        // A server of its own for each, so that none inherits another's bloat.
        let mut server = Server::create(settings())?;
        if let Err(error) = measure(&mut server, &mut report, rows) {
            eprintln!(
                "{name}: {error:?}\n--- end of the server's log ---\n{}",
                server.log_end(20)
            );
            report.failed(name, &error);
        }
    }
    println!(
        "{}, {rows} rows\n{report}",
        Installation::under_test()?.version
    );
    // A goal that is missed is a finding; only what could not be measured is an error.
    ensure!(report.complete(), "not everything could be measured");
    Ok(())
}

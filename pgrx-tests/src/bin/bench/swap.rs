//! Swap and revert take the same time, whatever the rows and the indexes.

use super::report::{Report, largest, median, smallest};
use super::tables::{self, MOVED, OTHER, TABLESPACE};
use shadowpart_tests::{Result, Server, Session};

/// There and back, so many times each.
const ROUNDS: usize = 7;
const GOAL_MS: f64 = 5.0;

struct Shape {
    label: &'static str,
    rich: bool,
}

const SHAPES: [Shape; 2] = [
    Shape {
        label: "1 index",
        rich: false,
    },
    Shape {
        label: "8 indexes, 4 foreign keys",
        rich: true,
    },
];

/// Seven indexes besides the key's, and four foreign keys.
fn enrich(session: &mut Session, name: &str) -> Result<()> {
    for columns in ["a", "b", "c", "d", "tenant, a", "tenant, b", "id"] {
        session.run(&format!("CREATE INDEX ON {name} ({columns})"))?;
    }
    for (column, rows) in [("a", 1000), ("b", 997), ("c", 991), ("d", 983)] {
        session.run(&format!(
            "CREATE TABLE {name}_{column} (id int PRIMARY KEY);
             INSERT INTO {name}_{column} SELECT generate_series(1, {rows});
             ALTER TABLE {name} ADD FOREIGN KEY ({column}) REFERENCES {name}_{column}"
        ))?;
    }
    Ok(())
}

pub fn measure(server: &mut Server, report: &mut Report, rows: u64) -> Result<()> {
    server.tablespace(TABLESPACE)?;
    let mut session = server.connect()?;
    let mut sizes = vec![(rows / 100).max(1000), rows];
    if std::env::var("SHADOWPART_BENCH_LARGE").is_ok_and(|v| v == "1") {
        sizes.push(rows * 10);
    }
    let mut medians = Vec::new();
    let mut noise: f64 = 0.0;
    for size in sizes {
        for shape in &SHAPES {
            let name = format!("t{size}_{}", if shape.rich { 8 } else { 1 });
            tables::create(&mut session, &name)?;
            tables::fill(&mut session, &name, MOVED, size)?;
            tables::fill(&mut session, &name, OTHER, size / 10)?;
            if shape.rich {
                enrich(&mut session, &name)?;
            }
            tables::settle(&mut session, &[&name])?;
            tables::manage(&mut session, &name)?;
            // Not verified: what comes before a swap is not what is measured here.
            let id = session.number(&format!(
                "SELECT shadow_migrate('{name}', '{MOVED}', tablespace => '{TABLESPACE}', verify => false)"
            ))?;
            session.revert(id)?;
            for _ in 0..ROUNDS {
                session.swap(id)?;
                session.revert(id)?;
            }
            for event in ["swap", "revert"] {
                // The first of each finds the catalogs cold; nothing is left out all the same.
                let took = tables::events(&mut session, id, event, "took_ms")?;
                let held =
                    tables::events(&mut session, id, event, "(details ->> 'held_ms')::float8")?;
                report.at_most(
                    format!("{event}, {size} rows, {}", shape.label),
                    median(&took),
                    " ms",
                    GOAL_MS,
                    &format!(" (held {:.2}, max {:.2})", median(&held), largest(&took)),
                );
                medians.push(median(&took));
                noise = noise.max(largest(&took) - smallest(&took));
            }
            session.run(&format!("SELECT shadow_drop({id}); DROP TABLE {name}"))?;
        }
    }
    report.at_most(
        "swap and revert: medians apart (goal: spread within one)",
        largest(&medians) - smallest(&medians),
        " ms",
        (noise * 100.0).round() / 100.0,
        "",
    );
    Ok(())
}

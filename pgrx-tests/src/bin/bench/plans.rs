//! What hidden rows cost the planner, and what a live pair costs a generic plan.

use super::report::{Pairs, Report, median, ms};
use super::tables::{self, MOVED, OTHER, TABLESPACE};
use shadowpart_tests::{Context, Dice, Result, Server, Session};
use std::time::Instant;

const ROWS: u64 = 10_000;
const ROUNDS: usize = 9;
const PLANS_PER_ROUND: usize = 300;
const QUERIES_PER_ROUND: usize = 3000;

/// The planning time that EXPLAIN tells, in microseconds.
fn planning_us(session: &mut Session, query: &str) -> Result<f64> {
    let lines = session.column(&format!("EXPLAIN (SUMMARY, COSTS off) {query}"))?;
    lines
        .iter()
        .find_map(|line| line.strip_prefix("Planning Time: ")?.strip_suffix(" ms"))
        .context("EXPLAIN tells no planning time")?
        .parse::<f64>()
        .map(|ms| ms * 1000.0)
        .context("the planning time is no number")
}

fn fill(session: &mut Session, name: &str) -> Result<()> {
    tables::fill(session, name, MOVED, ROWS)?;
    tables::fill(session, name, OTHER, ROWS)
}

/// `hidden` has hidden rows; `same` has the same partitions, with every row where it belongs, which is
/// what stays of a migration; `before` is what the table was before anybody moved anything.
pub fn planning(server: &mut Server, report: &mut Report, _rows: u64) -> Result<()> {
    server.tablespace(TABLESPACE)?;
    let mut session = server.connect()?;
    for name in ["hidden", "before"] {
        tables::create(&mut session, name)?;
    }
    session.run(&format!(
        "CREATE TABLE same (LIKE before INCLUDING ALL) PARTITION BY HASH (tenant);
         CREATE TABLE same_wrapper PARTITION OF same FOR VALUES WITH (MODULUS 1, REMAINDER 0)
             PARTITION BY LIST (tenant);
         CREATE TABLE same_moved PARTITION OF same_wrapper FOR VALUES IN ({MOVED});
         CREATE TABLE same_rest PARTITION OF same_wrapper DEFAULT"
    ))?;
    let names = ["hidden", "same", "before"];
    for name in names {
        fill(&mut session, name)?;
    }
    tables::manage(&mut session, "hidden")?;
    session.migrate("hidden", &MOVED.to_string(), TABLESPACE)?;
    tables::settle(&mut session, &names)?;
    // A session that has seen none of the changes.
    let mut session = server.connect()?;
    for (label, query) in [
        (
            "point query",
            format!("SELECT * FROM {{t}} WHERE tenant = {MOVED} AND id = 5"),
        ),
        (
            "query of a neighbour",
            format!("SELECT * FROM {{t}} WHERE tenant = {OTHER} AND id = 5"),
        ),
        (
            "whole-table query",
            "SELECT a, count(*) FROM {t} GROUP BY a".to_owned(),
        ),
    ] {
        let (mut same, mut before) = (Pairs::default(), Pairs::default());
        for round in 0..=ROUNDS {
            // In turn, plan by plan: a few microseconds are compared.
            let mut times: [Vec<f64>; 3] = Default::default();
            for _ in 0..PLANS_PER_ROUND {
                for (name, times) in names.iter().zip(&mut times) {
                    times.push(planning_us(&mut session, &query.replace("{t}", name))?);
                }
            }
            if round > 0 {
                let [hidden, without, first] = times.map(|times| median(&times));
                same.add(hidden, without);
                before.add(hidden, first);
            }
        }
        report.at_most(
            format!("planning a {label}, hidden rows / same partitions without"),
            same.ratio(),
            "x",
            1.05,
            &same.behind(" us"),
        );
        report.note(
            format!("planning a {label}, hidden rows / table never managed"),
            format!("{:.2}x{}", before.ratio(), before.behind(" us")),
        );
    }
    Ok(())
}

/// A point query through a generic plan, while wrappers with 2 and with 20 partitions are marked,
/// against the same table without shadows.
pub fn generic(server: &mut Server, report: &mut Report, _rows: u64) -> Result<()> {
    server.tablespace(TABLESPACE)?;
    let mut session = server.connect()?;
    for (partitions, goal) in [(2, 1.3), (20, 3.0)] {
        let names = [format!("live{partitions}"), format!("plain{partitions}")];
        for name in &names {
            tables::create(&mut session, name)?;
            fill(&mut session, name)?;
            // The other tenants are small: it is their number that counts.
            for tenant in 3..=partitions {
                tables::fill(&mut session, name, tenant, ROWS / 100)?;
            }
        }
        tables::manage(&mut session, &names[0])?;
        // The leaf is one of the partitions, each shadow another.
        for tenant in (1..=partitions).filter(|tenant| *tenant != OTHER) {
            session.create_shadow(&names[0], &tenant.to_string(), TABLESPACE)?;
        }
        let [live, plain] = [names[0].as_str(), names[1].as_str()];
        tables::settle(&mut session, &[live, plain])?;

        let mut reader = server.connect()?;
        reader.run("SET plan_cache_mode = force_generic_plan")?;
        let mut dice = Dice::new(7);
        let mut pairs = Pairs::default();
        let statements = [live, plain].map(|name| {
            reader.prepare(&format!(
                "SELECT * FROM {name} WHERE tenant = $1 AND id = $2"
            ))
        });
        let [live, plain] = statements;
        let statements = [live?, plain?];
        for round in 0..=ROUNDS {
            let mut took = [0.0; 2];
            for (statement, took) in statements.iter().zip(&mut took) {
                let begin = Instant::now();
                for _ in 0..QUERIES_PER_ROUND {
                    let id = 1 + dice.below(ROWS) as i64;
                    reader.query_one(statement, &[&MOVED, &id])?;
                }
                *took = ms(begin.elapsed()) * 1000.0 / QUERIES_PER_ROUND as f64;
            }
            if round > 0 {
                pairs.add(took[0], took[1]);
            }
        }
        report.at_most(
            format!("point query, generic plan, wrapper with {partitions} partitions / plain"),
            pairs.ratio(),
            "x",
            goal,
            &pairs.behind(" us"),
        );
    }
    Ok(())
}

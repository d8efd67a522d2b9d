//! Statements on many rows: of a shadowed entity, against the same statement by hand on two tables;
//! and of an entity that only shares the partition, against a table without shadows.

use super::report::{Pairs, Report, timed};
use super::tables::{self, MOVED, OTHER, TABLESPACE};
use shadowpart_tests::{Result, Server, Session};

const KINDS: [&str; 3] = ["INSERT", "UPDATE", "DELETE"];
const ROUNDS: usize = 5;
/// More where the goal is a few percent.
const ROUNDS_FINE: usize = 11;

/// Rows that a statement touches: enough to forget the cost of starting and committing it.
fn touched(rows: u64) -> u64 {
    (rows / 10).clamp(1000, 200_000)
}

fn statement(kind: &str, table: &str, tenant: i32, first: u64, count: u64) -> String {
    let last = first + count - 1;
    let range = format!("WHERE tenant = {tenant} AND id BETWEEN {first} AND {last}");
    match kind {
        "INSERT" => format!(
            "INSERT INTO {table} {}",
            tables::rows_of(tenant, first, last)
        ),
        // An indexed column, so that no version is heap-only and both sides do all the work.
        "UPDATE" => format!("UPDATE {table} SET a = a + 1 {range}"),
        _ => format!("DELETE FROM {table} {range}"),
    }
}

fn prepare(session: &mut Session, name: &str, rows: u64) -> Result<()> {
    tables::create(session, name)?;
    session.run(&format!("CREATE INDEX ON {name} (a)"))?;
    tables::fill(session, name, MOVED, rows)?;
    tables::fill(session, name, OTHER, rows)
}

/// Runs each kind of statement on the `a` tables, then on the `b` tables, and so on in turn.
fn compare(
    session: &mut Session,
    (a, b): (&[&str], &[&str]),
    tenant: i32,
    count: u64,
    first: u64,
    rounds: usize,
) -> Result<[Pairs; 3]> {
    let mut pairs: [Pairs; 3] = Default::default();
    let all = [a, b].concat();
    // One round more than is counted: the first one reads everything into memory.
    for round in 0..=rounds {
        tables::settle(session, &all)?;
        for (index, kind) in KINDS.iter().enumerate() {
            let mut run = |tables: &[&str]| {
                let statements: Vec<String> = tables
                    .iter()
                    .map(|table| statement(kind, table, tenant, first, count))
                    .collect();
                // Both by hand in one transaction: one flush of the log, as the mirror has.
                let sql = format!("BEGIN; {}; COMMIT", statements.join("; "));
                timed(|| session.run(&sql))
            };
            // Who comes first finds the other's dirty pages unwritten: take turns.
            let (took_a, took_b) = if round % 2 == 0 {
                let took = run(a)?;
                (took, run(b)?)
            } else {
                let took = run(b)?;
                (run(a)?, took)
            };
            if round > 0 {
                pairs[index].add(took_a, took_b);
            }
        }
    }
    Ok(pairs)
}

pub fn shadowed(server: &mut Server, report: &mut Report, rows: u64) -> Result<()> {
    server.tablespace(TABLESPACE)?;
    let mut session = server.connect()?;
    for name in ["shadowed", "hand"] {
        prepare(&mut session, name, rows / 2)?;
    }
    // By hand the second table is addressed as itself, which is the cheapest way there is.
    session.run(&format!(
        "CREATE TABLE hand_too (LIKE hand INCLUDING ALL) TABLESPACE {TABLESPACE};
         INSERT INTO hand_too SELECT * FROM hand WHERE tenant = {MOVED}"
    ))?;
    tables::manage(&mut session, "shadowed")?;
    session.create_shadow("shadowed", &MOVED.to_string(), TABLESPACE)?;
    let tables = (&["shadowed"][..], &["hand", "hand_too"][..]);
    let count = touched(rows);
    let pairs = compare(&mut session, tables, MOVED, count, rows + 1, ROUNDS)?;
    for (kind, pairs) in KINDS.iter().zip(&pairs) {
        report.at_most(
            format!("{kind} of {count} shadowed rows / by hand on two tables"),
            pairs.ratio(),
            "x",
            1.15,
            &pairs.behind(" ms"),
        );
    }
    Ok(())
}

pub fn neighbour(server: &mut Server, report: &mut Report, rows: u64) -> Result<()> {
    server.tablespace(TABLESPACE)?;
    let mut session = server.connect()?;
    for name in ["shared", "plain"] {
        prepare(&mut session, name, rows / 2)?;
    }
    tables::manage(&mut session, "shared")?;
    session.create_shadow("shared", &MOVED.to_string(), TABLESPACE)?;
    let tables = (&["shared"][..], &["plain"][..]);
    let count = touched(rows);
    let pairs = compare(&mut session, tables, OTHER, count, rows + 1, ROUNDS_FINE)?;
    for (kind, pairs) in KINDS.iter().zip(&pairs) {
        report.at_most(
            format!("{kind} of {count} rows beside a shadow / plain"),
            pairs.ratio(),
            "x",
            1.03,
            &pairs.behind(" ms"),
        );
    }
    Ok(())
}

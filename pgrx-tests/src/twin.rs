//! Two schemas with the same tables that receive the same statements: `live`, which shadowpart
//! manages, and `twin`, which it never hears of. At every moment they must hold the same rows.

use crate::session::Session;
use anyhow::{Result, ensure};

pub struct Twin {
    tables: Vec<String>,
}

/// The ways to read a table that take different paths through planner and executor.
const PLANS: [(&str, &str); 3] = [
    (
        "sequential",
        "SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off",
    ),
    ("indexed", "SET LOCAL enable_seqscan = off"),
    (
        "parallel",
        "SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0; \
         SET LOCAL min_parallel_table_scan_size = 0; SET LOCAL enable_partitionwise_aggregate = on",
    ),
];

pub const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

impl Twin {
    /// Runs the definitions in both schemas; `{s}` in them stands for the schema. The tables named
    /// are those to compare.
    pub fn create(session: &mut Session, tables: &[&str], definitions: &str) -> Result<Self> {
        session.run("CREATE SCHEMA IF NOT EXISTS live; CREATE SCHEMA IF NOT EXISTS twin")?;
        let twin = Self {
            tables: tables.iter().map(|table| (*table).to_owned()).collect(),
        };
        twin.both(session, definitions)?;
        Ok(twin)
    }

    /// Another table to compare.
    pub fn and(mut self, table: &str) -> Self {
        self.tables.push(table.to_owned());
        self
    }

    /// Runs the same statements on both, each in a transaction of its own.
    pub fn both(&self, session: &mut Session, sql: &str) -> Result<()> {
        session.run(&sql.replace("{s}", "live"))?;
        session.run(&sql.replace("{s}", "twin"))
    }

    /// Runs statements on both that must touch the same number of rows.
    pub fn both_alike(&self, session: &mut Session, sql: &str) -> Result<u64> {
        let live = session.count_of(&sql.replace("{s}", "live"))?;
        let twin = session.count_of(&sql.replace("{s}", "twin"))?;
        ensure!(live == twin, "{live} rows, but {twin} in the twin: {sql}");
        Ok(live)
    }

    /// The differences, as text: rows that only one of them has, by any of the ways to read.
    pub fn assert_same(&self, session: &mut Session) -> Result<()> {
        for level in LEVELS {
            self.assert_same_in(session, level, PLANS[0])?;
        }
        for plan in &PLANS[1..] {
            self.assert_same_in(session, LEVELS[0], *plan)?;
        }
        Ok(())
    }

    fn assert_same_in(
        &self,
        session: &mut Session,
        level: &str,
        (plan, settings): (&str, &str),
    ) -> Result<()> {
        for table in &self.tables {
            session.run(&format!("BEGIN ISOLATION LEVEL {level}; {settings}"))?;
            let found = session.column(&difference(table));
            session.run(if found.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
            let found = found?;
            ensure!(
                found.is_empty(),
                "{table} differs from its twin ({level}, {plan} plan):\n{}",
                found.join("\n")
            );
        }
        Ok(())
    }

    /// As [`Twin::assert_same`], inside the transaction the session is in.
    pub fn assert_same_here(&self, session: &mut Session) -> Result<()> {
        for table in &self.tables {
            let found = session.column(&difference(table))?;
            ensure!(
                found.is_empty(),
                "{table} differs from its twin:\n{}",
                found.join("\n")
            );
        }
        Ok(())
    }
}

/// Rows are compared as text, so that values which only count as equal (1.0 and 1.00, or "a" and "A"
/// under some collations) are seen to differ.
fn difference(table: &str) -> String {
    format!(
        "WITH a AS MATERIALIZED (SELECT t::text AS row FROM live.{table} t),
              b AS MATERIALIZED (SELECT t::text AS row FROM twin.{table} t),
              only_a AS (SELECT row COLLATE \"C\" FROM a EXCEPT ALL SELECT row COLLATE \"C\" FROM b),
              only_b AS (SELECT row COLLATE \"C\" FROM b EXCEPT ALL SELECT row COLLATE \"C\" FROM a)
         (SELECT 'too many: ' || left(row, 200) FROM only_a LIMIT 10)
         UNION ALL
         (SELECT 'missing: ' || left(row, 200) FROM only_b LIMIT 10)"
    )
}

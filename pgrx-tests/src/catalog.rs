//! Looking behind the curtain: where rows lie, and what the extension left behind.

use crate::session::Session;
use anyhow::{Result, ensure};

/// The tablespaces in which the visible rows of `table` that satisfy `condition` lie.
pub fn tablespaces_of(session: &mut Session, table: &str, condition: &str) -> Result<Vec<String>> {
    session.column(&format!(
        "SELECT DISTINCT coalesce(s.spcname, 'pg_default')
         FROM (SELECT DISTINCT tableoid FROM {table} WHERE {condition}) t
         JOIN pg_class c ON c.oid = t.tableoid
         LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace
         ORDER BY 1"
    ))
}

/// The relations in which the visible rows of `table` that satisfy `condition` lie.
pub fn leaf_of(session: &mut Session, table: &str, condition: &str) -> Result<Vec<String>> {
    session.column(&format!(
        "SELECT DISTINCT tableoid::regclass::text FROM {table} WHERE {condition} ORDER BY 1"
    ))
}

/// How many live tuples lie in the heap of a relation, hidden or not. Needs pgstattuple, which reads
/// the heap and not through a plan.
pub fn live_tuples(session: &mut Session, relation: &str) -> Result<i64> {
    session.number(&format!(
        "SELECT tuple_count FROM pgstattuple('{relation}'::regclass)"
    ))
}

/// What exists besides the objects of the extension itself: taken before a story and compared after
/// it, when every shadow is gone again.
#[derive(Debug, PartialEq, Eq)]
pub struct Orphans {
    relations: Vec<String>,
    triggers: Vec<String>,
    constraints: Vec<String>,
    functions: Vec<String>,
}

impl Orphans {
    pub fn look(session: &mut Session) -> Result<Self> {
        Ok(Self {
            relations: session.column(
                "SELECT c.oid::regclass::text || ' ' || relkind::text FROM pg_class c
                 JOIN pg_namespace n ON n.oid = relnamespace
                 WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
                   AND nspname NOT LIKE 'pg_temp%' AND nspname NOT LIKE 'pg_toast_temp%'
                   AND relkind IN ('r', 'p', 'S', 'v', 'm', 'f')
                 ORDER BY 1",
            )?,
            triggers: session.column(
                "SELECT tgrelid::regclass::text || '.' || tgname FROM pg_trigger
                 WHERE NOT tgisinternal ORDER BY 1",
            )?,
            constraints: session.column(
                "SELECT conrelid::regclass::text || '.' || conname FROM pg_constraint
                 WHERE contype = 'c' AND conrelid <> 0 ORDER BY 1",
            )?,
            functions: session.column(
                "SELECT p.oid::regprocedure::text FROM pg_proc p
                 JOIN pg_namespace n ON n.oid = pronamespace
                 WHERE nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1",
            )?,
        })
    }

    /// Nothing that was not there before, except what a finished migration may leave: the wrappers
    /// and the relations of `table` itself.
    pub fn assert_tidy_since(
        &self,
        before: &Self,
        session: &mut Session,
        table: &str,
    ) -> Result<()> {
        let family = session.column(&format!(
            "SELECT relid::regclass::text FROM pg_partition_tree('{table}')"
        ))?;
        let kinds = [
            ("relations", &before.relations, &self.relations),
            ("triggers", &before.triggers, &self.triggers),
            ("constraints", &before.constraints, &self.constraints),
            ("functions", &before.functions, &self.functions),
        ];
        for (kind, before, now) in kinds {
            let new: Vec<&String> = now
                .iter()
                .filter(|name| !before.contains(name))
                .filter(|name| kind != "relations" || !of_family(name, &family))
                .collect();
            ensure!(new.is_empty(), "{kind} left behind: {new:?}");
        }
        Ok(())
    }
}

/// Whether "name kind" is one of the relations of a table.
fn of_family(relation: &str, family: &[String]) -> bool {
    relation
        .rsplit_once(' ')
        .is_some_and(|(name, _)| family.iter().any(|member| member == name))
}

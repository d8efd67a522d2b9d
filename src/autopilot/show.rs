//! What people ask: the plan, and what would have been.

use super::decide;
use crate::api::{as_superuser, checks, require_preload};
use crate::pg::error::{Result, or_raise};
use pgrx::datum::JsonB;
use pgrx::prelude::*;
use std::collections::HashMap;

/// The owner of a table, superusers and members of pg_monitor may know what is planned for it.
fn may_ask(relation: pg_sys::Oid) -> bool {
    // SAFETY: looks at the catalog only.
    // The constant is narrower than the type in some versions.
    #[allow(clippy::useless_conversion)]
    let monitors =
        unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), pg_sys::ROLE_PG_MONITOR.into()) };
    monitors
        || checks::table(relation)
            .and_then(|table| checks::owner(&table))
            .is_ok()
}

/// An error for everybody else.
pub fn require_to_ask(relation: pg_sys::Oid) -> Result<()> {
    if may_ask(relation) {
        return Ok(());
    }
    checks::owner(&checks::table(relation)?)
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn plan(
    relation: Option<pg_sys::Oid>,
) -> TableIterator<
    'static,
    (
        name!(relation, pg_sys::Oid),
        name!(partition, pg_sys::Oid),
        name!(action, String),
        name!(entities, Option<Vec<String>>),
        name!(target, Option<String>),
        name!(confidence, f64),
        name!(trigger, String),
        name!(reason, String),
        name!(message, String),
        name!(would_execute, bool),
        name!(bytes, i64),
        name!(duration_ms, i64),
        name!(stall_ms, f64),
        name!(details, JsonB),
    ),
> {
    let rows = or_raise((|| {
        require_preload()?;
        if let Some(relation) = relation {
            let table = checks::table(relation)?;
            as_superuser(|| checks::managed(&table))?;
            require_to_ask(relation)?;
        }
        let (tick, leaves) = as_superuser(decide::plan)?;
        let of: HashMap<String, u32> = leaves
            .iter()
            .map(|leaf| (leaf.partition.to_string(), leaf.relation))
            .collect();
        let mut rows = Vec::new();
        for decision in &tick.decisions {
            let root = pg_sys::Oid::from(of.get(&decision.unit).copied().unwrap_or(0));
            let partition = pg_sys::Oid::from(decision.unit.parse::<u32>().unwrap_or(0));
            if relation.is_some_and(|relation| relation != root && relation != partition)
                || !may_ask(root)
            {
                continue;
            }
            let (entities, target) = decide::objects(&decision.action);
            rows.push((
                root,
                partition,
                decision.action.word().to_owned(),
                entities,
                target,
                decision.confidence,
                decision.trigger.word().to_owned(),
                decide::reason(decision).to_owned(),
                decision.text.clone(),
                decision.execute,
                i64::try_from(decision.estimate.bytes).unwrap_or(i64::MAX),
                decision.estimate.duration_us / 1000,
                decision.estimate.stall_us as f64 / 1000.0,
                JsonB(decide::details(decision, &tick.rejected)),
            ));
        }
        Ok(rows)
    })());
    TableIterator::new(rows)
}

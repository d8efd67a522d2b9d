//! The worker's side of a request: what can only be checked, or done, in a transaction that commits.

use super::catalog;
use super::change;
use super::request::{Answer, Mail, Request};
use crate::pair::{self, Shadow, members, swap};
use crate::pg::error::{Error, Result};
use crate::pg::sql;
use crate::pg::xact::transaction;
use lifecycle::{Goal, Refusal, State};
use pgrx::prelude::*;
use serde_json::Value;

/// Reads the request, carries out what has to be committed first, answers; the id of the shadow to lead.
pub fn accept(handle: u32) -> Option<i64> {
    let mail = Mail::attach(handle)?;
    let request = mail.request();
    let outcome = match &request {
        Ok(request) => transaction(|| match request {
            Request::New(new) => create(new),
            Request::Command {
                id,
                goal,
                max_stall_ms,
                waiter_pid,
            } => command(*id, goal, *max_stall_ms, *waiter_pid),
            Request::Resize(change) => change::accept(change),
        }),
        Err(e) => Err(e.clone()),
    };
    let id = outcome.as_ref().ok().map(|answer| answer.id);
    mail.answer(outcome);
    id
}

/// A new shadow that was asked for.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct New {
    pub relation: u32,
    /// The leaf that a whole-partition shadow is for.
    pub leaf: Option<u32>,
    pub entity_column: String,
    pub entities: Option<Vec<String>>,
    pub target: String,
    pub user: String,
    pub migrate: bool,
    pub verify: bool,
    pub max_stall_ms: i32,
    pub revert_window_s: i32,
    pub waiter_pid: Option<i32>,
}

/// Makes a shadow that was asked for, in the caller's transaction.
pub fn create(new: &New) -> Result<Answer> {
    // One request for a table at a time: two for the same entity would else both find nobody there.
    sql::execute(
        "LOCK TABLE shadowpart.shadow IN SHARE ROW EXCLUSIVE MODE",
        &[],
    )?;
    let relation = pg_sys::Oid::from(new.relation);
    if let Some(answer) = reuse(new)? {
        return Ok(answer);
    }
    let (leaves, empty) = leaves(new)?;
    refuse_overlap(new, &leaves, 0)?;
    let leaves = off_target(new, leaves)?;
    let goal = if new.migrate {
        Goal::Migrated
    } else {
        Goal::Ready
    };
    let source = source_of(&leaves)?;
    let id = sql::value::<i64>(
        "INSERT INTO shadowpart.shadow (relation, entity_column, entities, whole_partition, source, target, requested_by,
                                        goal, verify, max_stall_ms, revert_window_s, waiter_pid)
         VALUES ($1, $2, $3, $4, left($5, 63)::name, $6::name, $7::name, $8, $9, $10, $11, $12) RETURNING id",
        &[
            relation.into(),
            new.entity_column.as_str().into(),
            new.entities.clone().into(),
            new.entities.is_none().into(),
            source.into(),
            new.target.as_str().into(),
            new.user.as_str().into(),
            goal.word().into(),
            new.verify.into(),
            new.max_stall_ms.into(),
            new.revert_window_s.into(),
            new.waiter_pid.into(),
        ],
    )?
    .unwrap_or(0);
    for leaf in &leaves {
        make_pair(id, *leaf, false)?;
    }
    catalog::announce(id, State::Queued)?;
    let notice = empty.then(|| NO_ROWS_YET.to_owned());
    Ok(Answer::new(id, notice))
}

pub(super) const NO_ROWS_YET: &str = "the entity has no rows yet; its shadow waits for them";

pub(super) fn make_pair(id: i64, leaf: pg_sys::Oid, tentative: bool) -> Result<()> {
    let keys = key_columns(leaf)?;
    sql::execute(
        "INSERT INTO shadowpart.pair (shadow_id, primary_relid, key_columns, tentative)
         VALUES ($1, $2, $3::text[]::name[], $4)",
        &[id.into(), leaf.into(), keys.into(), tentative.into()],
    )?;
    Ok(())
}

/// Tablespaces in which these leaves lie.
pub fn source_of(leaves: &[pg_sys::Oid]) -> Result<Option<String>> {
    sql::value::<String>(
        "SELECT string_agg(DISTINCT coalesce(t.spcname, d.spcname)::text, ', ')
           FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_tablespace t ON t.oid = c.reltablespace,
                (SELECT s.spcname FROM pg_catalog.pg_database b JOIN pg_catalog.pg_tablespace s
                     ON s.oid = b.dattablespace WHERE b.datname = current_database()) d
          WHERE c.oid = ANY ($1)",
        &[leaves.to_vec().into()],
    )
}

/// A standing shadow for exactly this, on this target: it is swapped, not built again.
fn reuse(new: &New) -> Result<Option<Answer>> {
    if !new.migrate {
        return Ok(None);
    }
    let id = sql::value::<i64>(
        "SELECT id FROM shadowpart.shadow
          WHERE relation = $1 AND state IN ('queued', 'building', 'ready') AND goal = 'ready' AND target = $3
            AND (entities @> $2 AND entities <@ $2
                 OR whole_partition AND $4 = (SELECT p.primary_relid FROM shadowpart.pair p WHERE p.shadow_id = shadow.id))",
        &[
            pg_sys::Oid::from(new.relation).into(),
            new.entities.clone().into(),
            new.target.as_str().into(),
            new.leaf.map(pg_sys::Oid::from).into(),
        ],
    )?;
    let Some(id) = id else { return Ok(None) };
    sql::execute(
        "UPDATE shadowpart.shadow SET goal = 'migrated', verify = $2, verified = false, max_stall_ms = $3,
                revert_window_s = $4, waiter_pid = $5, last_error = NULL, attempts = 0, not_before = NULL
          WHERE id = $1",
        &[
            id.into(),
            new.verify.into(),
            new.max_stall_ms.into(),
            new.revert_window_s.into(),
            new.waiter_pid.into(),
        ],
    )?;
    Ok(Some(Answer::new(
        id,
        Some(format!(
            "shadow {id} stands ready for this already; it is swapped"
        )),
    )))
}

/// Leaves that hold the entities now, or, when none does, those that could get them; and whether none does.
pub(super) fn leaves(new: &New) -> Result<(Vec<pg_sys::Oid>, bool)> {
    if let Some(leaf) = new.leaf {
        return Ok((vec![leaf.into()], false));
    }
    let relation = pg_sys::Oid::from(new.relation);
    let candidates = routable(relation, &new.entity_column, new.entities.as_deref())?;
    let column = members::column(relation, &new.entity_column)?;
    let test = column.is_member("t", new.entities.as_deref())?;
    let mut holding = Vec::new();
    for leaf in &candidates {
        let table = sql::relation(*leaf)?;
        let found = pair::as_owner(relation, || {
            sql::value::<bool>(
                &format!("SELECT EXISTS (SELECT FROM ONLY {table} t WHERE {test})"),
                &[],
            )
        })?;
        if found == Some(true) {
            holding.push(*leaf);
        }
    }
    if !holding.is_empty() {
        return Ok((holding, false));
    }
    if new.migrate {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_NO_DATA_FOUND,
            "the entity has no rows",
        )
        .detail(format!(
            "No partition of the table holds a row whose \"{}\" is {}.",
            new.entity_column,
            new.entities.as_deref().unwrap_or_default().join(", ")
        ))
        .hint("Check the value. shadow_create() makes a shadow ahead of the first row."));
    }
    Ok((candidates, true))
}

/// Leaves to which rows of the entities can be routed: those that a plan does not prune.
pub fn routable(
    relation: pg_sys::Oid,
    column: &str,
    entities: Option<&[String]>,
) -> Result<Vec<pg_sys::Oid>> {
    let test = members::column(relation, column)?.is_member("t", entities)?;
    let query = format!("SELECT FROM {} t WHERE {test}", sql::relation(relation)?);
    let mut names = Vec::new();
    relations_in(&sql::explain("VERBOSE, COSTS OFF", &query)?, &mut names);
    let mut leaves = Vec::new();
    for (schema, name) in names {
        let oid = sql::value::<pg_sys::Oid>(
            "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname = $1 AND c.relname = $2",
            &[schema.as_str().into(), name.as_str().into()],
        )?;
        leaves.extend(oid);
    }
    leaves.sort_unstable_by_key(|o| o.to_u32());
    leaves.dedup();
    Ok(leaves)
}

fn relations_in(node: &Value, out: &mut Vec<(String, String)>) {
    match node {
        Value::Object(map) => {
            if let (Some(Value::String(name)), Some(Value::String(schema))) =
                (map.get("Relation Name"), map.get("Schema"))
            {
                out.push((schema.clone(), name.clone()));
            }
            map.values().for_each(|v| relations_in(v, out));
        }
        Value::Array(list) => list.iter().for_each(|v| relations_in(v, out)),
        _ => {}
    }
}

/// No other live shadow than `own` has, or is getting, any of this.
pub(super) fn refuse_overlap(new: &New, leaves: &[pg_sys::Oid], own: i64) -> Result<()> {
    let taken = sql::query(
        "SELECT s.id, s.state FROM shadowpart.shadow s
          WHERE s.relation = $1 AND s.state NOT IN ('finalized', 'dropped', 'failed', 'cancelled') AND s.id <> $4
            AND (s.entities && $2 OR s.adding && $2
                 OR (s.entities IS NULL OR $2::text[] IS NULL)
                    AND EXISTS (SELECT FROM shadowpart.pair p WHERE p.shadow_id = s.id
                                   AND (p.primary_relid = ANY ($3) OR p.shadow_relid = ANY ($3))))
          LIMIT 1",
        &[
            pg_sys::Oid::from(new.relation).into(),
            new.entities.clone().into(),
            leaves.to_vec().into(),
            own.into(),
        ],
        |row| {
            Ok((
                row.get::<i64>(1)?.unwrap_or(0),
                row.get::<String>(2)?.unwrap_or_default(),
            ))
        },
    )?;
    match taken.into_iter().next() {
        None => Ok(()),
        Some((id, state)) => Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            format!("shadow {id} already exists for some of this"),
        )
        .detail(format!("Its state is \"{state}\". An entity, or a whole partition, can have one live shadow."))
        .hint("Finalize, drop or cancel that shadow first, or use it: shadow_swap(), shadow_revert().")),
    }
}

/// Leaves that do not lie in the target already.
pub(super) fn off_target(new: &New, leaves: Vec<pg_sys::Oid>) -> Result<Vec<pg_sys::Oid>> {
    let off = sql::query(
        "SELECT c.oid FROM pg_catalog.pg_class c,
                (SELECT dattablespace FROM pg_catalog.pg_database WHERE datname = current_database()) d
          WHERE c.oid = ANY ($1)
            AND coalesce(nullif(c.reltablespace, 0), d.dattablespace)
                <> (SELECT oid FROM pg_catalog.pg_tablespace WHERE spcname = $2)
          ORDER BY c.oid",
        &[leaves.into(), new.target.as_str().into()],
        |row| row.get::<pg_sys::Oid>(1),
    )?;
    let off: Vec<_> = off.into_iter().flatten().collect();
    if off.is_empty() {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("the rows are already in tablespace \"{}\"", new.target),
        )
        .detail("All partitions that hold them lie there.")
        .hint("Choose another tablespace, or leave them where they are."));
    }
    Ok(off)
}

/// Columns of the key by which rows of a leaf are found: the primary key, or a unique key without NULLs.
pub fn key_columns(leaf: pg_sys::Oid) -> Result<Vec<String>> {
    let keys = sql::value::<Vec<String>>(
        "SELECT array_agg(a.attname::text ORDER BY k.n)
           FROM (SELECT i.* FROM pg_catalog.pg_index i
                  WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate
                    AND i.indpred IS NULL AND i.indexprs IS NULL
                    AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                                     WHERE a.attrelid = i.indrelid AND NOT a.attnotnull
                                       AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
                  ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid LIMIT 1) i,
                unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY k (attnum, n)
           JOIN pg_catalog.pg_attribute a ON a.attrelid = $1 AND a.attnum = k.attnum",
        &[leaf.into()],
    )?;
    keys.ok_or_else(|| {
        let name = sql::relation(leaf).unwrap_or_default();
        Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("partition {name} has no primary key and no unique key without NULLs"),
        )
        .hint("Add a primary key that contains the entity column.")
    })
}

/// Gives a shadow another goal, in the caller's transaction.
pub fn command(
    id: i64,
    goal: &str,
    max_stall_ms: Option<i32>,
    waiter_pid: Option<i32>,
) -> Result<Answer> {
    let shadow = catalog::lock(id)?;
    let wanted: Goal = goal.parse().map_err(|e: lifecycle::UnknownWord| {
        Error::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, e.to_string())
    })?;
    match lifecycle::command(wanted, shadow.state, shadow.goal) {
        Ok(None) => Ok(Answer::new(
            id,
            Some(format!("shadow {id} is {} already", shadow.state)),
        )),
        Ok(Some(goal)) => {
            if goal == Goal::Ready
                && shadow.state == State::Migrated
                && let Some(reason) = shadow.stale_reason()?
            {
                return Err(swap::stale(&shadow, &reason));
            }
            sql::execute(
                "UPDATE shadowpart.shadow SET goal = $2, max_stall_ms = coalesce($3, max_stall_ms), waiter_pid = $4,
                        last_error = NULL, attempts = 0, not_before = NULL
                  WHERE id = $1",
                &[id.into(), goal.word().into(), max_stall_ms.into(), waiter_pid.into()],
            )?;
            Ok(Answer::new(id, None))
        }
        Err(refusal) => Err(refused(id, &shadow, wanted, &refusal)),
    }
}

pub(super) fn refused(id: i64, shadow: &Shadow, wanted: Goal, refusal: &Refusal) -> Error {
    let state = shadow.state;
    match refusal {
        Refusal::Ended => Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("shadow {id} has ended"),
        )
        .detail(format!(
            "Its state is \"{state}\"; nothing can be done to it any more."
        ))
        .hint("Make a new one with shadow_create() or shadow_migrate()."),
        Refusal::Busy => Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            format!("shadow {id} is busy"),
        )
        .detail(format!(
            "Its state is \"{state}\" and its goal \"{}\".",
            shadow.goal
        ))
        .hint("Wait until it rests; shadow_progress shows how far it is."),
        Refusal::WrongState { needs } => Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("shadow {id} cannot become {wanted} from where it is"),
        )
        .detail(format!(
            "Its state is \"{state}\"; this needs one that is {needs}."
        ))
        .hint("shadow_status shows the state of each shadow."),
    }
}

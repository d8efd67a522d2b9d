//! Carries decisions out: the same checks and the same requests as for a person, as the table's owner.

use crate::api::checks;
use crate::guc;
use crate::job::{accept, change, shared};
use crate::pair;
use crate::pg::error::{Error, Result};
use crate::pg::sql;
use ::autopilot::estimate::Estimate;
use ::autopilot::machine::{Action, Outcome};
use lifecycle::{Goal, State};
use pgrx::prelude::*;

/// Does what was decided, in the transaction of the caller; the shadow that it is about.
pub fn carry_out(relation: u32, action: &Action) -> Result<i64> {
    match action {
        Action::CreateShadow { target, entities } => create(relation.into(), target, entities),
        Action::Swap { shadow } => command(*shadow, Goal::Migrated),
        Action::DropShadow { shadow } => command(*shadow, Goal::Dropped),
        Action::AddEntities { shadow, entities } => resize(*shadow, true, entities),
        Action::RemoveEntities { shadow, entities } => resize(*shadow, false, entities),
        Action::Hold => Ok(0),
    }
}

fn create(root: pg_sys::Oid, target: &str, entities: &[String]) -> Result<i64> {
    let table = checks::table(root)?;
    let (root, column) = checks::managed(&table)?;
    checks::partitioned(&table)?;
    checks::entity_column(&table, &column)?;
    checks::keys(&table, &column)?;
    checks::local_leaves(&table)?;
    checks::unpublished(&table)?;
    let given: Vec<Option<String>> = entities.iter().cloned().map(Some).collect();
    let (target, entities, user) = pair::as_owner(root, || {
        Ok((
            checks::tablespace(Some(target))?,
            checks::entities(root, &column, &given)?,
            sql::value::<String>("SELECT current_user::text", &[])?.unwrap_or_default(),
        ))
    })?;
    let answer = accept::create(&accept::New {
        relation: root.to_u32(),
        leaf: None,
        entity_column: column,
        entities: Some(entities),
        target,
        user,
        migrate: false,
        verify: true,
        max_stall_ms: guc::MAX_STALL_MS.get(),
        revert_window_s: guc::REVERT_WINDOW_S.get(),
        waiter_pid: None,
    })?;
    sql::execute(
        "UPDATE shadowpart.shadow SET origin = 'autopilot' WHERE id = $1",
        &[answer.id.into()],
    )?;
    Ok(answer.id)
}

fn resize(id: i64, add: bool, entities: &[String]) -> Result<i64> {
    let shadow = pair::Shadow::load(id)?;
    let given: Vec<Option<String>> = entities.iter().cloned().map(Some).collect();
    let entities = pair::as_owner(shadow.relation, || {
        checks::entities(shadow.relation, &shadow.entity_column, &given)
    })?;
    change::accept(&change::Change {
        id,
        add,
        entities,
        waiter_pid: None,
    })?;
    Ok(id)
}

fn command(id: i64, goal: Goal) -> Result<i64> {
    accept::command(id, goal.word(), None, None).map(|answer| answer.id)
}

/// Stops what a shadow of ours has under way.
pub fn cancel(id: i64) -> Result<()> {
    shared::cancel(id);
    super::worker::step(|| command(id, Goal::Cancelled))?;
    shared::wake_scheduler();
    Ok(())
}

/// What became of an action on a shadow: for the state machine and in a word, and what it cost. `None`: it
/// is not over.
pub fn outcome(id: i64, action: &str) -> Result<Option<(Outcome, String, Option<Estimate>)>> {
    let rows = sql::query(
        "SELECT s.state, s.goal, s.last_error ->> 'message',
                (SELECT sum(q.bytes_done)::bigint FROM shadowpart.pair q WHERE q.shadow_id = s.id),
                (extract(epoch FROM (SELECT min(e.at) FROM shadowpart.event e
                    WHERE e.shadow_id = s.id AND e.event = 'wait') - s.created_at) * 1000000)::bigint,
                (SELECT (e.took_ms * 1000)::bigint FROM shadowpart.event e
                  WHERE e.shadow_id = s.id AND e.event = 'swap' ORDER BY e.at DESC LIMIT 1)
           FROM shadowpart.shadow s WHERE s.id = $1",
        &[id.into()],
        |row| {
            Ok((
                row.get::<String>(1)?.unwrap_or_default(),
                row.get::<String>(2)?.unwrap_or_default(),
                row.get::<String>(3)?,
                row.get::<i64>(4)?,
                row.get::<i64>(5)?,
                row.get::<i64>(6)?,
            ))
        },
    )?;
    let Some((state, goal, error, bytes, duration_us, stall_us)) = rows.into_iter().next() else {
        return Ok(Some((Outcome::Cancelled, "gone".to_owned(), None)));
    };
    let (Ok(state), Ok(goal)) = (state.parse::<State>(), goal.parse::<Goal>()) else {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            format!("shadow {id} has an unknown state"),
        ));
    };
    if lifecycle::next(state, goal).is_some() {
        return Ok(None);
    }
    let failed = || {
        let why = error.clone().unwrap_or_else(|| format!("it is {state}"));
        Some((Outcome::Failed, format!("failed: {why}"), None))
    };
    Ok(match (action, state) {
        (_, State::Cancelled) => Some((Outcome::Cancelled, "cancelled".to_owned(), None)),
        (
            "create_shadow",
            State::Ready | State::Migrated | State::Finalizing | State::Finalized,
        )
        | ("add_entities" | "remove_entities", State::Ready) => {
            Some((Outcome::Done, "ready".to_owned(), None))
        }
        ("swap", State::Migrated | State::Finalizing | State::Finalized) => {
            let cost = Estimate {
                bytes: bytes.unwrap_or(0).max(0).unsigned_abs(),
                duration_us: duration_us.unwrap_or(0),
                stall_us: stall_us.unwrap_or(0),
            };
            Some((Outcome::Done, "migrated".to_owned(), Some(cost)))
        }
        ("drop_shadow", State::Dropped) => Some((Outcome::Done, "dropped".to_owned(), None)),
        _ => failed(),
    })
}

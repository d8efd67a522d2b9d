//! Reading and writing shadows and their history in the catalog.

use crate::pair::Shadow;
use crate::pg::error::{Error, Result};
use crate::pg::sql;
use lifecycle::{Goal, State};
use pgrx::datum::JsonB;
use serde_json::{Value, json};

/// The shadow as it is now; nobody else changes it before this transaction ends.
pub fn lock(id: i64) -> Result<Shadow> {
    sql::execute(
        "SELECT FROM shadowpart.shadow WHERE id = $1 FOR UPDATE",
        &[id.into()],
    )?;
    Shadow::load(id)
}

/// Moves a shadow to a state.
pub fn set_state(shadow: &Shadow, state: State) -> Result<()> {
    sql::execute(
        "UPDATE shadowpart.shadow SET state = $2, since = clock_timestamp(), phase = NULL, waiting = NULL,
                waiter_pid = CASE WHEN $3 THEN NULL ELSE waiter_pid END
          WHERE id = $1",
        &[shadow.id.into(), state.word().into(), state.is_final().into()],
    )?;
    Ok(())
}

/// Tells listeners.
pub fn announce(id: i64, state: State) -> Result<()> {
    sql::execute(
        "SELECT pg_catalog.pg_notify('shadowpart', $1)",
        &[json!({"id": id, "state": state.word()}).to_string().into()],
    )?;
    Ok(())
}

pub fn set_goal(id: i64, goal: Goal) -> Result<()> {
    sql::execute(
        "UPDATE shadowpart.shadow SET goal = $2 WHERE id = $1",
        &[id.into(), goal.word().into()],
    )?;
    Ok(())
}

/// What the job is at, for the progress view.
pub fn set_phase(id: i64, phase: &str) -> Result<()> {
    sql::execute(
        "UPDATE shadowpart.shadow SET phase = $2 WHERE id = $1 AND phase IS DISTINCT FROM $2",
        &[id.into(), phase.into()],
    )?;
    Ok(())
}

/// For whom the job waits; `None`: for nobody any more.
pub fn set_waiting(id: i64, waiting: Option<Value>) -> Result<()> {
    sql::execute(
        "UPDATE shadowpart.shadow SET waiting = CASE WHEN $2::jsonb IS NULL THEN NULL ELSE
                jsonb_build_object('blocked_since', coalesce(waiting ->> 'blocked_since', clock_timestamp()::text)) || $2
                END
          WHERE id = $1 AND (waiting IS NOT NULL OR $2 IS NOT NULL)",
        &[id.into(), waiting.map(JsonB).into()],
    )?;
    Ok(())
}

pub fn set_error(id: i64, error: &Error) -> Result<()> {
    let value = serde_json::to_value(error).unwrap_or(Value::Null);
    sql::execute(
        "UPDATE shadowpart.shadow SET attempts = attempts + 1,
                -- Trouble while cleaning up must not hide why there was something to clean up.
                last_error = CASE WHEN goal IN ('failed', 'cancelled', 'dropped') AND last_error IS NOT NULL
                                  THEN last_error ELSE $2 END
          WHERE id = $1",
        &[id.into(), JsonB(value).into()],
    )?;
    Ok(())
}

/// One line of history, and the same figures in the shadow's own row.
pub fn record(id: i64, event: &str, took_ms: f64, details: Value) -> Result<()> {
    sql::execute(
        "INSERT INTO shadowpart.event (shadow_id, event, took_ms, details) VALUES ($1, $2, $3, $4)",
        &[
            id.into(),
            event.into(),
            took_ms.into(),
            JsonB(details.clone()).into(),
        ],
    )?;
    let mut figures = serde_json::Map::new();
    let name = event.replace('-', "_");
    let key = if matches!(event, "swap" | "revert") {
        format!("{name}_stall_ms")
    } else {
        format!("{name}_ms")
    };
    figures.insert(key, json!(round(took_ms)));
    if let Value::Object(details) = details {
        for (k, v) in details {
            figures.insert(format!("{name}_{k}"), v);
        }
    }
    sql::execute(
        "UPDATE shadowpart.shadow SET figures = figures || $2 WHERE id = $1",
        &[id.into(), JsonB(Value::Object(figures)).into()],
    )?;
    Ok(())
}

/// Milliseconds to a microsecond: more is noise.
pub fn round(ms: f64) -> f64 {
    (ms * 1000.0).round() / 1000.0
}

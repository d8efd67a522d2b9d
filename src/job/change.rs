//! The worker's side of a request to change the entities of a shadow.

use super::accept::{
    NO_ROWS_YET, New, leaves, make_pair, off_target, refuse_overlap, refused, routable,
};
use super::request::Answer;
use super::{catalog, resize};
use crate::pair::{Shadow, copy, swap};
use crate::pg::error::{Error, Result};
use crate::pg::sql;
use lifecycle::{Refusal, State};
use pgrx::prelude::*;

/// Entities that are to come to a shadow, or to leave it.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Change {
    pub id: i64,
    pub add: bool,
    /// Sorted, each once.
    pub entities: Vec<String>,
    pub waiter_pid: Option<i32>,
}

/// Writes down what is to come or to leave; from here on the job's steps do it.
pub fn accept(change: &Change) -> Result<Answer> {
    // As for a new shadow: two requests for the same entity must see each other.
    sql::execute(
        "LOCK TABLE shadowpart.shadow IN SHARE ROW EXCLUSIVE MODE",
        &[],
    )?;
    let shadow = catalog::lock(change.id)?;
    lifecycle::resize(shadow.state, shadow.goal).map_err(|r| resize_refused(&shadow, &r))?;
    let Some(entities) = &shadow.entities else {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("shadow {} is of a whole partition", shadow.id),
        )
        .detail("It has no list of entities that could be changed.")
        .hint("Make a shadow of entities: shadow_create(relation, entity, tablespace => ...)."));
    };
    if let Some(reason) = shadow.stale_reason()? {
        return Err(swap::stale(&shadow, &reason));
    }
    // By the type's own equality: 1.0 is 1, and under some collations "Ada" is "ada".
    let select = |from: &[String], of: &[String], equal: bool| -> Result<Vec<String>> {
        let found = copy::equal(shadow.relation, &shadow.entity_column, from, of)?;
        let chosen = from.iter().zip(found).filter(|(_, found)| *found == equal);
        Ok(chosen.map(|(entity, _)| entity.clone()).collect())
    };
    let strangers = select(&change.entities, entities, false)?;
    if change.add {
        let present = select(&change.entities, entities, true)?;
        begin_add(&shadow, change, &present, strangers)
    } else {
        let leaving = select(entities, &change.entities, true)?;
        let staying = select(entities, &change.entities, false)?;
        begin_remove(&shadow, change, leaving, staying, &strangers)
    }
}

fn begin_add(
    shadow: &Shadow,
    change: &Change,
    present: &[String],
    coming: Vec<String>,
) -> Result<Answer> {
    let id = shadow.id;
    let mut notices = Vec::new();
    if !present.is_empty() {
        notices.push(format!("shadow {id} has {} already", present.join(", ")));
    }
    if coming.is_empty() {
        return Ok(Answer::new(id, Some(notices.join("; "))));
    }
    let new = New {
        relation: shadow.relation.to_u32(),
        leaf: None,
        entity_column: shadow.entity_column.clone(),
        entities: Some(coming.clone()),
        target: shadow.target.clone(),
        user: String::new(),
        migrate: false,
        verify: shadow.verify,
        max_stall_ms: shadow.max_stall_ms,
        revert_window_s: 0,
        waiter_pid: change.waiter_pid,
    };
    let (leaves, empty) = leaves(&new)?;
    refuse_overlap(&new, &leaves, id)?;
    if empty {
        notices.push(NO_ROWS_YET.to_owned());
    }
    let standing: Vec<_> = shadow.pairs()?.iter().map(|p| p.primary).collect();
    for leaf in off_target(&new, leaves)? {
        if !standing.contains(&leaf) {
            make_pair(id, leaf, true)?;
        }
    }
    sql::execute(
        "UPDATE shadowpart.pair
            SET phase = 'add', phase_since = clock_timestamp(), blocks_done = 0, rows_total = NULL,
                rows_before = rows_before + rows_done, rows_done = 0,
                bytes_before = bytes_before + bytes_done, bytes_done = 0
          WHERE shadow_id = $1 AND NOT tentative",
        &[id.into()],
    )?;
    begin_change(shadow, change, State::Adding)?;
    sql::execute(
        "UPDATE shadowpart.shadow SET adding = $2 WHERE id = $1",
        &[id.into(), coming.clone().into()],
    )?;
    Ok(Answer {
        id,
        notice: (!notices.is_empty()).then(|| notices.join("; ")),
        entities: coming,
    })
}

fn begin_remove(
    shadow: &Shadow,
    change: &Change,
    leaving: Vec<String>,
    staying: Vec<String>,
    strangers: &[String],
) -> Result<Answer> {
    let id = shadow.id;
    if let Some(stranger) = strangers.first() {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("entity {} is not in shadow {id}", sql::literal(stranger)),
        )
        .detail(format!(
            "Its entities are {}.",
            shadow.entities.as_deref().unwrap_or_default().join(", ")
        ))
        .hint("shadow_status lists the entities of each shadow."));
    }
    if staying.is_empty() {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("no entity would be left in shadow {id}"),
        )
        .detail("A shadow without entities would mirror nothing.")
        .hint(format!("Take all of it away: SELECT shadow_drop({id}).")));
    }
    // Leaves that none of those who stay can ever have rows in.
    let reachable = routable(shadow.relation, &shadow.entity_column, Some(&staying))?;
    let standing: Vec<_> = shadow.pairs()?.iter().map(|p| p.primary).collect();
    if standing.iter().any(|leaf| reachable.contains(leaf)) {
        sql::execute(
            "UPDATE shadowpart.pair SET tentative = true WHERE shadow_id = $1 AND NOT primary_relid = ANY ($2)",
            &[id.into(), reachable.into()],
        )?;
    }
    resize::begin_shrinking(id)?;
    begin_change(shadow, change, State::Removing)?;
    sql::execute(
        "UPDATE shadowpart.shadow SET entities = $2, removing = $3 WHERE id = $1",
        &[id.into(), staying.into(), leaving.clone().into()],
    )?;
    Ok(Answer {
        id,
        notice: None,
        entities: leaving,
    })
}

fn begin_change(shadow: &Shadow, change: &Change, state: State) -> Result<()> {
    catalog::set_state(shadow, state)?;
    sql::execute(
        "UPDATE shadowpart.shadow SET waited = false, waiter_pid = $2, last_error = NULL, attempts = 0, not_before = NULL
          WHERE id = $1",
        &[shadow.id.into(), change.waiter_pid.into()],
    )?;
    catalog::announce(shadow.id, state)
}

fn resize_refused(shadow: &Shadow, refusal: &Refusal) -> Error {
    let (id, state) = (shadow.id, shadow.state);
    match refusal {
        Refusal::WrongState { .. } => Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("entities of shadow {id} cannot be changed while it is swapped"),
        )
        .detail(format!(
            "Its state is \"{state}\": the entities live in it. This needs one that is ready."
        ))
        .hint("Finalize it, or swap it back with shadow_revert(), first."),
        _ => refused(id, shadow, shadow.goal, refusal),
    }
}

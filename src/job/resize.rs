//! Entities come to a shadow that stands, and leave it; those that stay are mirrored all the time.
//!
//! A resize begins with its request (`change`), which writes down what is coming or leaving, and ends with the
//! state `ready`. What is between can be done again from any point: the phase of each pair says how far it is.

use super::accept;
use super::catalog::{self, record, set_state};
use super::steps::{
    briefly, build_pair, catch_up, copy_rows, pairs, phase, relations_of, reload, remove_rows,
    take_pair_away, unwrap_all, wait_for_older, wait_until_known,
};
use super::worker::check_stop;
use crate::pair::wait::Who;
use crate::pair::{Pair, Shadow, index, resize, swap};
use crate::pg::error::Result;
use crate::pg::sql;
use crate::pg::xact::transaction;
use lifecycle::{Action, State};
use serde_json::{Value, json};

/// Takes in the entities that are coming: pairs that stand grow, new leaves get pairs for the whole set.
pub fn add(shadow: &Shadow) -> Result<()> {
    crate::failpoint!("add-before");
    let coming = shadow.adding.clone().unwrap_or_default();
    let added = shadow.of(coming.clone());
    let wanted = shadow.of(union(shadow.entities.as_deref(), &coming));
    for pair in pairs(shadow)? {
        if pair.tentative {
            build_pair(&wanted, pair)?;
        } else {
            grow_pair(&added, &wanted, pair)?;
        }
    }
    let all = pairs(shadow)?;
    if !shadow.waited {
        wait_until_known(shadow, &all)?;
    }
    crate::failpoint!("add-waited");
    transaction(|| {
        let details = json!({"entities": coming.len()});
        if !settle(shadow, Action::Add, "add", details)? {
            return Ok(());
        }
        let leaves: Vec<_> = all.iter().map(|p| p.primary).collect();
        sql::execute(
            "UPDATE shadowpart.shadow SET entities = $2, adding = NULL, verified = false, source = left($3, 63)::name
              WHERE id = $1",
            &[
                shadow.id.into(),
                wanted.entities.clone().into(),
                accept::source_of(&leaves)?.into(),
            ],
        )?;
        sql::execute(
            "UPDATE shadowpart.pair SET tentative = false WHERE shadow_id = $1",
            &[shadow.id.into()],
        )?;
        Ok(())
    })?;
    crate::failpoint!("add-after");
    Ok(())
}

fn union(entities: Option<&[String]>, more: &[String]) -> Vec<String> {
    let mut all: Vec<String> = entities.unwrap_or_default().to_vec();
    all.extend_from_slice(more);
    all.sort();
    all.dedup();
    all
}

fn grow_pair(added: &Shadow, wanted: &Shadow, mut pair: Pair) -> Result<()> {
    loop {
        check_stop(added)?;
        match pair.phase.as_str() {
            "add" => {
                phase(added, "capture")?;
                if pair.delta.is_none() {
                    transaction(|| resize::prepare(added, &pair))?;
                    pair = reload(added, pair.id)?;
                }
                briefly(added, &[pair.primary], || {
                    resize::capture(added, wanted, &pair)
                })?;
                crate::failpoint!("add-captured");
            }
            "add-copy" => copy_rows(added, &pair)?,
            "add-catch-up" => {
                transaction(|| index::analyze(&pair))?;
                catch_up(added, &pair)?;
                crate::failpoint!("add-mirrored");
            }
            "mirror" if pair.delta.is_some() => transaction(|| swap::drop_delta(&pair))?,
            _ => return Ok(()),
        }
        pair = reload(added, pair.id)?;
    }
}

/// What was coming leaves again.
pub fn call_off(shadow: &Shadow) -> Result<()> {
    transaction(|| {
        sql::execute(
            "UPDATE shadowpart.shadow SET removing = adding, adding = NULL, waited = false WHERE id = $1",
            &[shadow.id.into()],
        )?;
        begin_shrinking(shadow.id)?;
        set_state(shadow, State::Removing)?;
        record(shadow.id, "call-off", 0.0, json!({}))?;
        catalog::announce(shadow.id, State::Removing)
    })?;
    crate::failpoint!("call-off");
    Ok(())
}

/// The pairs that stay are to shrink.
pub fn begin_shrinking(id: i64) -> Result<()> {
    sql::execute(
        "UPDATE shadowpart.pair SET phase = 'remove', phase_since = clock_timestamp(), blocks_done = 0
          WHERE shadow_id = $1 AND NOT tentative",
        &[id.into()],
    )?;
    Ok(())
}

/// Lets the entities go that have left: their rows are removed from the shadow, and pairs that were there for
/// them alone are taken away.
pub fn remove(shadow: &Shadow) -> Result<()> {
    crate::failpoint!("remove-before");
    let leaving = shadow.of(shadow.removing.clone().unwrap_or_default());
    let all = pairs(shadow)?;
    // Whoever planned before the roles were swapped back may still be reading the shadow; what was being added
    // has never been read there.
    let called_off = lifecycle::goal_after(Action::Remove, shadow.goal) != shadow.goal;
    if shadow.reverted && !called_off {
        wait_for_older(shadow, &relations_of(&all), Who::Everywhere)?;
        transaction(|| {
            sql::execute(
                "UPDATE shadowpart.shadow SET reverted = false WHERE id = $1",
                &[shadow.id.into()],
            )
        })?;
    }
    let mut rows = 0;
    for pair in all {
        if pair.tentative {
            take_pair_away(shadow, &pair)?;
        } else {
            rows += shrink_pair(shadow, &leaving, pair)?;
        }
    }
    crate::failpoint!("remove-shrunk");
    let left: Vec<_> = pairs(shadow)?.into_iter().filter(|p| p.tentative).collect();
    unwrap_all(shadow, left)?;
    transaction(|| {
        sql::execute(
            "DELETE FROM shadowpart.pair WHERE shadow_id = $1 AND tentative",
            &[shadow.id.into()],
        )
    })?;
    // A snapshot in which the removed rows are still there must not be used after a swap: the shadow is read
    // as it is.
    wait_until_known(shadow, &pairs(shadow)?)?;
    crate::failpoint!("remove-waited");
    let entities = shadow.removing.as_ref().map_or(0, Vec::len);
    transaction(|| {
        sql::execute(
            "UPDATE shadowpart.shadow SET removing = NULL WHERE id = $1",
            &[shadow.id.into()],
        )?;
        settle(
            shadow,
            Action::Remove,
            "remove",
            json!({"entities": entities, "rows": rows}),
        )
        .map(|_| ())
    })?;
    crate::failpoint!("remove-after");
    Ok(())
}

fn shrink_pair(shadow: &Shadow, leaving: &Shadow, mut pair: Pair) -> Result<i64> {
    let mut rows = 0;
    loop {
        match pair.phase.as_str() {
            "remove" => {
                phase(shadow, "remove")?;
                briefly(shadow, &[pair.primary], || resize::shrink(shadow, &pair))?;
                crate::failpoint!("remove-begun");
            }
            "remove-rows" if pair.delta.is_some() => transaction(|| swap::drop_delta(&pair))?,
            "remove-rows" => {
                phase(shadow, "remove")?;
                rows += remove_rows(leaving, &pair, pair.shadow()?)?;
                transaction(|| pair.enter("mirror"))?;
            }
            _ => return Ok(rows),
        }
        pair = reload(shadow, pair.id)?;
    }
}

/// The end of a resize, in the transaction that completes it. False, and nothing is changed, when an addition
/// has been called off in the last moment.
fn settle(shadow: &Shadow, action: Action, event: &str, details: Value) -> Result<bool> {
    let goal = catalog::lock(shadow.id)?.goal;
    if action == Action::Add && lifecycle::next(State::Adding, goal) != Some(Action::Add) {
        return Ok(false);
    }
    let took_ms = sql::value::<f64>(
        "SELECT extract(epoch FROM clock_timestamp() - since)::float8 * 1000 FROM shadowpart.shadow WHERE id = $1",
        &[shadow.id.into()],
    )?;
    let state = lifecycle::after(action, goal);
    catalog::set_goal(shadow.id, lifecycle::goal_after(action, goal))?;
    set_state(shadow, state)?;
    record(shadow.id, event, took_ms.unwrap_or(0.0), details)?;
    catalog::announce(shadow.id, state)?;
    Ok(true)
}

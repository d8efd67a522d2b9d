//! DROP EXTENSION: what must be gone before the extension may go. All in the user's own transaction, so
//! that a rollback brings everything back.

use super::{Shadow, bound, copy, hidden, hierarchy, swap};
use crate::pg::error::{Error, Result};
use crate::pg::{sql, xact};
use lifecycle::State;
use pgrx::prelude::*;

/// Refuses while there are live shadows; with CASCADE leaves plain partitions with exactly the visible rows.
pub fn before_drop_extension(cascade: bool) -> Result<()> {
    let installed = sql::value::<bool>("SELECT to_regclass('shadowpart.shadow') IS NOT NULL", &[])?;
    if installed != Some(true) {
        return Ok(());
    }
    let live = sql::query(
        "SELECT id FROM shadowpart.shadow
          WHERE state NOT IN ('finalized', 'dropped', 'failed', 'cancelled') ORDER BY id",
        &[],
        |row| row.get::<i64>(1),
    )?;
    let live: Vec<i64> = live.into_iter().flatten().collect();
    if live.is_empty() {
        return Ok(());
    }
    if !cascade {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
            "cannot drop extension shadowpart because there are live shadows",
        )
        .detail(format!("There are {}; without the extension their hidden rows would appear.", live.len()))
        .hint(
            "Finalize, revert or drop them (SELECT * FROM shadow_status), or use DROP EXTENSION ... CASCADE, which \
             removes hidden rows and shadows at once and locks the tables meanwhile.",
        ));
    }
    // Workers out of the way: they hold no lock between steps, and find nothing to do afterwards.
    sql::execute("LOCK TABLE shadowpart.shadow IN ACCESS EXCLUSIVE MODE", &[])?;
    for id in live {
        dismantle(&Shadow::load(id)?)?;
    }
    Ok(())
}

fn dismantle(shadow: &Shadow) -> Result<()> {
    for pair in shadow.pairs()? {
        for relid in [pair.wrapper, Some(pair.primary), pair.shadow]
            .into_iter()
            .flatten()
        {
            if sql::relation(relid).is_ok() {
                swap::lock(relid, pg_sys::AccessExclusiveLock)?;
            }
        }
        if pair.swapped && pair.phase != "done" && pair.phase != "retired" {
            let needed = bound::is_needed(&pair, pair.primary)?;
            if shadow.state != State::Finalizing {
                bound::give_up_reserved(&pair)?;
            }
            if needed {
                remove_all_hidden(shadow, &pair)?;
                hidden::unmark(&pair)?;
            } else {
                hidden::unmark(&pair)?;
                hierarchy::retire_primary(&pair)?;
            }
        } else if !pair.swapped && pair.phase != "gone" {
            hidden::unmark(&pair)?;
            hierarchy::leave(&pair)?;
        }
        if let Some(wrapper) = pair.wrapper.filter(|_| pair.wrapped) {
            hierarchy::unwrap(wrapper)?;
        }
    }
    sql::execute(
        "UPDATE shadowpart.shadow SET state = 'dropped' WHERE id = $1",
        &[shadow.id.into()],
    )?;
    Ok(())
}

fn remove_all_hidden(shadow: &Shadow, pair: &super::Pair) -> Result<()> {
    let mut pair = pair.clone();
    pair.blocks_done = 0;
    loop {
        let chunk = xact::fresh_snapshot(|| {
            hidden::remove_batch(shadow, &pair, pair.primary, &copy::Blocks::All)
        })?;
        pair.blocks_done = chunk.next_block;
        if chunk.done {
            return Ok(());
        }
    }
}

//! The rows left behind: removed in batches, with no trigger and no cascade, and then the marks.

use super::copy::{self, Blocks, Chunk, Matcher};
use super::trigger::{self, Kind};
use super::{Pair, Shadow};
use crate::mirror::side;
use crate::pg::error::Result;
use crate::pg::sql;
use pgrx::prelude::*;

/// Removes the next batch of the shadow's entities' rows from a side that does not own them, and records how
/// far it came.
///
/// They are deleted from the heap itself: nothing fires, so no ON DELETE CASCADE follows them into live
/// rows.
pub fn remove_batch(
    shadow: &Shadow,
    pair: &Pair,
    from: pg_sys::Oid,
    blocks: &Blocks,
) -> Result<Chunk> {
    let mut matcher = Matcher::new(from, &shadow.entity_column, shadow.entities.as_deref())?;
    let (mut rows, mut bytes) = (0, 0);
    let (next_block, done) = copy::walk(
        from,
        blocks,
        pair.blocks_done,
        &mut matcher,
        pg_sys::RowExclusiveLock,
        true,
        |relation, slot| {
            // SAFETY: the slot holds a row of the relation, which is open and locked for writing.
            unsafe {
                side::delete_at(relation, (*slot).tts_tid);
                bytes += i64::from((*(*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple).t_len);
            }
            rows += 1;
        },
    )?;
    sql::execute(
        "UPDATE shadowpart.pair SET blocks_done = $2 WHERE id = $1",
        &[pair.id.into(), next_block.into()],
    )?;
    Ok(Chunk {
        rows,
        bytes,
        next_block,
        done,
    })
}

/// Takes all triggers of the pair, the marks last of all, off its relations.
///
/// The caller has waited until nobody is left who could still read by old bounds.
pub fn unmark(pair: &Pair) -> Result<()> {
    // From the root down, as writers take their locks.
    for relid in [pair.wrapper, Some(pair.primary), pair.shadow]
        .into_iter()
        .flatten()
    {
        if sql::relation(relid).is_err() {
            continue;
        }
        super::swap::lock(relid, pg_sys::ShareRowExclusiveLock)?;
        for kind in [
            Kind::Capture,
            Kind::Mirror,
            Kind::Next,
            Kind::Reserved,
            Kind::Mark,
        ] {
            trigger::remove(pair, relid, kind)?;
        }
    }
    Ok(())
}

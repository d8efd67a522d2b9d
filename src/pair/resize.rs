//! Entities come to a pair that stands, and leave it, while it goes on mirroring those that stay.
//!
//! The entity is part of every key, so the rows of different entities never meet: those that the mirror looks
//! after, in users' transactions, and those that the job copies, levels or removes are different rows of the
//! same shadow. The two mirrors, of the old set and of the new, change places under a lock that keeps writers
//! out. Meanwhile the shadow owns nothing, so nobody reads what is not complete.

use super::copy::{self, Blocks, Chunk, Matcher};
use super::trigger::{self, Kind};
use super::{Pair, Shadow, build, catch_up, swap};
use crate::mirror;
use crate::pg::error::Result;
use crate::pg::sql;
use pgrx::prelude::*;

/// A table for the keys of changes to the entities that come, before anybody else can notice.
pub fn prepare(added: &Shadow, pair: &Pair) -> Result<()> {
    let delta = build::create_delta(pair)?;
    sql::execute(
        "UPDATE shadowpart.pair SET delta_relid = $2, blocks_done = 0, rows_total = $3 WHERE id = $1",
        &[
            pair.id.into(),
            delta.into(),
            build::estimated_rows(added, pair)?.into(),
        ],
    )?;
    Ok(())
}

/// Takes the lock that ends all earlier writers, and starts capturing changes to the entities that come. The
/// mirror of the whole new set is created here too, switched off.
pub fn capture(added: &Shadow, wanted: &Shadow, pair: &Pair) -> Result<()> {
    swap::lock(pair.primary, pg_sys::ShareRowExclusiveLock)?;
    crate::failpoint!("add-locked");
    trigger::capture(added, pair)?;
    trigger::next_mirror(wanted, pair)?;
    pair.enter("add-copy")
}

/// Copies the next chunk into a shadow that has its indexes and is written to by the mirror, and records how
/// far it came.
///
/// A row whose key is there already has moved between chunks, and was captured: the catch-up sees to it.
pub fn chunk(added: &Shadow, pair: &Pair, blocks: &Blocks, among_others: bool) -> Result<Chunk> {
    let mut matcher = Matcher::new(
        pair.primary,
        &added.entity_column,
        added.entities.as_deref(),
    )?;
    let (mut rows, mut bytes, mut usable) = (0i64, 0i64, true);
    let (next_block, done) = catch_up::with_link(added, pair, |link| {
        copy::walk(
            pair.primary,
            blocks,
            pair.blocks_done,
            &mut matcher,
            pg_sys::AccessShareLock,
            among_others,
            |_, slot| {
                // SAFETY: the link is open, and the slot holds a heap tuple of its source.
                unsafe {
                    match mirror::copy_row(link, slot) {
                        Some(true) => {
                            let tuple = (*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple;
                            rows += 1;
                            bytes += i64::from((*tuple).t_len);
                        }
                        Some(false) => {}
                        None => usable = false,
                    }
                }
            },
        )
    })?;
    if !usable {
        return Err(catch_up::no_key_index(pair));
    }
    sql::execute(
        "UPDATE shadowpart.pair SET blocks_done = $2, rows_done = rows_done + $3, bytes_done = bytes_done + $4
          WHERE id = $1",
        &[pair.id.into(), next_block.into(), rows.into(), bytes.into()],
    )?;
    Ok(Chunk {
        rows,
        bytes,
        next_block,
        done,
    })
}

/// Stops mirroring, and capturing, what does not belong to the shadow (any more). From the commit on nobody
/// but the job touches the rows that are left of that.
pub fn shrink(shadow: &Shadow, pair: &Pair) -> Result<()> {
    swap::lock(pair.primary, pg_sys::ShareRowExclusiveLock)?;
    crate::failpoint!("remove-locked");
    trigger::remove(pair, pair.primary, Kind::Capture)?;
    trigger::remove(pair, pair.primary, Kind::Next)?;
    trigger::next_mirror(shadow, pair)?;
    trigger::succeed(pair)?;
    sql::execute(
        "UPDATE shadowpart.pair SET blocks_done = 0 WHERE id = $1",
        &[pair.id.into()],
    )?;
    pair.enter("remove-rows")
}

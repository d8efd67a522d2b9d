//! Locks with a bound, the beginning of the mirror, and the swap.

use super::bound::{self, Direction};
use super::trigger::{self, Kind};
use super::{Pair, Shadow, catch_up};
use crate::pg::error::{Error, Result};
use crate::pg::{sql, xact};
use pgrx::prelude::*;
use std::time::Instant;

/// Locks one relation, not its children. The caller has bounded the transaction.
pub fn lock(relid: pg_sys::Oid, mode: u32) -> Result<()> {
    // SAFETY: the lock is released with the transaction. A relation that went away meanwhile is noticed:
    // its row is gone from the catalog by the time the lock is granted.
    unsafe { pg_sys::LockRelationOid(relid, mode as i32) };
    sql::relation(relid).map(|_| ())
}

/// From capturing keys to mirroring rows: holds writers off, levels the last keys, switches the triggers.
/// From its commit on every write reaches both sides in one transaction.
///
/// Returns false when `limit` keys or more had been captured meanwhile: then another round comes first.
pub fn begin_mirror(shadow: &Shadow, pair: &Pair, limit: usize) -> Result<bool> {
    lock(pair.primary, pg_sys::ShareRowExclusiveLock)?;
    if pair.is_growing() {
        crate::failpoint!("add-mirror-locked");
    } else {
        crate::failpoint!("mirror-locked");
    }
    // The snapshot must be newer than the lock: all writers are finished, and their keys visible.
    let drained = xact::fresh_snapshot(|| catch_up::batch(shadow, pair, limit))?;
    if drained >= limit {
        return Ok(false);
    }
    if pair.is_growing() {
        trigger::succeed(pair)?;
    } else {
        trigger::switch(pair, pair.primary, Kind::Mirror, true)?;
    }
    trigger::remove(pair, pair.primary, Kind::Capture)?;
    pair.enter("mirror")?;
    Ok(true)
}

/// The delta table has served: its last keys are levelled, and no trigger writes to it any more.
pub fn drop_delta(pair: &Pair) -> Result<()> {
    let Some(Ok(delta)) = pair.delta.map(sql::relation) else {
        return Ok(());
    };
    sql::execute(
        &format!("ALTER EXTENSION shadowpart DROP TABLE {delta}"),
        &[],
    )?;
    sql::execute(&format!("DROP TABLE {delta}"), &[])?;
    sql::execute(
        "UPDATE shadowpart.pair SET delta_relid = NULL WHERE id = $1",
        &[pair.id.into()],
    )?;
    Ok(())
}

/// When the locks of a swap were asked for and granted.
pub struct Timing {
    pub asked: Instant,
    pub granted: Instant,
}

/// Exchanges the roles of all pairs: one transaction, whatever the number of rows.
///
/// Waits for those who have written to the wrapper and not finished, and holds off those who want to;
/// readers are not waited for. Order of locks: wrappers, primaries, shadows, each by OID, as every swap
/// takes them.
pub fn swap(shadow: &Shadow, pairs: &[Pair], direction: Direction) -> Result<Timing> {
    let mut order: Vec<pg_sys::Oid> = pairs.iter().filter_map(|p| p.wrapper).collect();
    order.sort_unstable_by_key(|o| o.to_u32());
    order.dedup();
    for wrapper in &order {
        bound::warm(*wrapper);
    }
    let mut leaves: Vec<_> = pairs.iter().map(|p| p.primary).collect();
    leaves.sort_unstable_by_key(|o| o.to_u32());
    order.append(&mut leaves);
    let mut shadows: Vec<_> = pairs.iter().filter_map(|p| p.shadow).collect();
    shadows.sort_unstable_by_key(|o| o.to_u32());
    order.append(&mut shadows);
    let asked = Instant::now();
    for relid in order {
        lock(relid, pg_sys::ExclusiveLock)?;
    }
    let granted = Instant::now();
    crate::failpoint!("swap-locked");
    if let Some(reason) = xact::fresh_snapshot(|| shadow.stale_reason())? {
        return Err(stale(shadow, &reason));
    }
    let exchanges = pairs
        .iter()
        .map(|pair| bound::exchange(pair, shadow.entities.as_deref(), direction))
        .collect::<Result<Vec<_>>>()?;
    for exchange in &exchanges {
        exchange.store();
    }
    for pair in pairs {
        let away = direction == Direction::Away;
        trigger::switch(pair, pair.primary, Kind::Mirror, !away)?;
        trigger::switch(pair, pair.shadow()?, Kind::Mirror, away)?;
    }
    crate::failpoint!("swap-bounds");
    sql::execute(
        "UPDATE shadowpart.pair SET swapped = $2 WHERE shadow_id = $1",
        &[shadow.id.into(), (direction == Direction::Away).into()],
    )?;
    Ok(Timing { asked, granted })
}

/// The error of a swap that would not be exact.
pub fn stale(shadow: &Shadow, reason: &str) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("shadow {} is stale", shadow.id),
    )
    .detail(format!("Its sides may differ: {reason}."))
    .hint("A shadow that is not swapped can be dropped and created again; a migrated one can only be finalized.")
}

/// Closes the way back: the reverse mirror stops, and the shadow gives up its reserved value.
pub fn give_up_way_back(pairs: &[Pair]) -> Result<()> {
    let mut wrappers: Vec<_> = pairs.iter().filter_map(|p| p.wrapper).collect();
    wrappers.sort_unstable_by_key(|o| o.to_u32());
    wrappers.dedup();
    for wrapper in wrappers {
        lock(wrapper, pg_sys::ExclusiveLock)?;
    }
    for pair in pairs {
        lock(pair.shadow()?, pg_sys::ExclusiveLock)?;
    }
    crate::failpoint!("finalize-locked");
    for pair in pairs {
        trigger::remove(pair, pair.shadow()?, Kind::Mirror)?;
        bound::give_up_reserved(pair)?;
        trigger::remove(pair, pair.shadow()?, Kind::Reserved)?;
        sql::execute(
            "UPDATE shadowpart.pair SET blocks_done = 0 WHERE id = $1",
            &[pair.id.into()],
        )?;
    }
    Ok(())
}

//! The trigger that counts, on each leaf partition of the managed tables.
//!
//! It is put on when a table is managed, and when a partition comes to a managed table, by the statement
//! that does it. What that could not do without waiting for others, or what came another way (a restored
//! dump, ATTACH by other means), is put right by `reconcile`, which the database's scheduler calls.
//! It is an internal trigger: not in `\d` nor in dumps, out of reach of DISABLE TRIGGER USER, and enabled
//! ALWAYS, so that replicated changes are counted. It goes with the extension.

use crate::pg::error::Result;
use crate::pg::{sql, trigger, xact};
use pgrx::prelude::*;
use std::time::{Duration, Instant};

/// Leaf partitions of managed tables that have no trigger, and relations that have one but are no such
/// partitions any more. Of all tables ($1 is NULL), or of one and of what has just left it. Foreign tables are written
/// elsewhere.
const WRONG: &str = "
    WITH leaves AS (
        SELECT t.relid FROM shadowpart.managed m
          CROSS JOIN LATERAL shadowpart.tree(m.relation) t
          JOIN pg_catalog.pg_class c ON c.oid = t.relid
         WHERE t.isleaf AND c.relkind = 'r' AND ($1 IS NULL OR m.relation = $1)
    ), counted AS (
        SELECT g.tgrelid AS relid FROM pg_catalog.pg_trigger g
         WHERE g.tgname = '!shadowpart_load' AND g.tgisinternal
           AND ($1 IS NULL OR g.tgrelid IN (
               SELECT relid FROM shadowpart.tree($1) UNION ALL SELECT relid FROM shadowpart.tree($2)))
    )
    SELECT coalesce(l.relid, c.relid), c.relid IS NULL
      FROM leaves l FULL JOIN counted c USING (relid)
     WHERE l.relid IS NULL OR c.relid IS NULL
     ORDER BY 1";

fn wrong(root: Option<pg_sys::Oid>, left: Option<pg_sys::Oid>) -> Result<Vec<(pg_sys::Oid, bool)>> {
    sql::query(WRONG, &[root.into(), left.into()], |row| {
        Ok((
            row.get::<pg_sys::Oid>(1)?.unwrap_or(pg_sys::InvalidOid),
            row.get::<bool>(2)?.unwrap_or(false),
        ))
    })
}

fn wrong_anywhere() -> Result<Vec<(pg_sys::Oid, bool)>> {
    wrong(None, None)
}

/// How long a session that manages a table, or adds a partition, spends on triggers at most.
const IN_SESSION: Duration = Duration::from_millis(500);

/// Puts right what is wrong with a managed table, and with a relation that has left it, within this
/// transaction and without waiting for anybody; what is in use is left to `reconcile`.
pub fn put_right(root: pg_sys::Oid, left: Option<pg_sys::Oid>) -> Result<()> {
    let begin = Instant::now();
    for (relid, missing) in wrong(Some(root), left)? {
        if begin.elapsed() > IN_SESSION {
            break;
        }
        if lock_if_free(relid) {
            // Somebody's event trigger may object. That is no reason to fail a statement which asked for
            // something else.
            if let Err(error) = xact::attempt(|| change(relid, missing)) {
                debug1!("shadowpart: {error}");
            }
        }
    }
    Ok(())
}

/// Puts right what is wrong, one relation a transaction, waiting a moment for each. Called outside a
/// transaction, in a worker.
pub fn reconcile() -> Result<()> {
    for (relid, missing) in xact::transaction(wrong_anywhere)? {
        let outcome = xact::transaction(|| {
            sql::execute("SET LOCAL lock_timeout = '20ms'", &[])?;
            xact::commit_without_wait();
            // SAFETY: waits no longer than the timeout allows.
            unsafe {
                pg_sys::LockRelationOid(relid, pg_sys::ShareRowExclusiveLock as i32);
            }
            // Others may have been quicker.
            if wrong_anywhere()?.contains(&(relid, missing)) {
                change(relid, missing)?;
            }
            Ok(())
        });
        if let Err(error) = outcome {
            // Next time.
            debug1!("shadowpart: {error}");
        }
    }
    Ok(())
}

/// Whether there are triggers that count, of whatever table.
pub fn any() -> Result<bool> {
    let any = sql::value::<bool>(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgname = '!shadowpart_load' AND tgisinternal)",
        &[],
    )?;
    Ok(any == Some(true))
}

fn lock_if_free(relid: pg_sys::Oid) -> bool {
    // SAFETY: takes the lock or does not; held until the end of the transaction.
    unsafe { pg_sys::ConditionalLockRelationOid(relid, pg_sys::ShareRowExclusiveLock as i32) }
}

/// The caller holds a lock on the relation that keeps writers out, so that no event is queued.
fn change(relid: pg_sys::Oid, missing: bool) -> Result<()> {
    if missing {
        put_on(relid)
    } else {
        trigger::remove(relid, "!shadowpart_load")
    }
}

fn put_on(relid: pg_sys::Oid) -> Result<()> {
    let Ok(table) = sql::relation(relid) else {
        // Dropped meanwhile.
        return Ok(());
    };
    sql::execute(
        &format!(
            "CREATE TRIGGER \"!shadowpart_load\" AFTER INSERT OR UPDATE OR DELETE ON {table}
             FOR EACH ROW WHEN (shadowpart.sampled()) EXECUTE FUNCTION shadowpart.load()"
        ),
        &[],
    )?;
    sql::execute(
        "UPDATE pg_catalog.pg_trigger SET tgisinternal = true, tgenabled = 'A'
          WHERE tgrelid = $1 AND tgname = '!shadowpart_load'",
        &[relid.into()],
    )?;
    // It goes with the functions that it calls, whoever drops them.
    sql::execute(
        "UPDATE pg_catalog.pg_depend d SET deptype = 'a'
           FROM pg_catalog.pg_trigger g
          WHERE g.tgrelid = $1 AND g.tgname = '!shadowpart_load'
            AND d.classid = 'pg_catalog.pg_trigger'::regclass AND d.objid = g.oid
            AND d.refclassid = 'pg_catalog.pg_proc'::regclass AND d.deptype = 'n'",
        &[relid.into()],
    )?;
    trigger::invalidate(relid);
    Ok(())
}

//! Waiting for those who cannot know what has just been committed.
//!
//! Before the first swap of a pair: every transaction that holds a lock on its relations (it may have
//! planned before the shadow joined), and every snapshot that is older than the shadow's last catch-up
//! (it does not see the rows that were copied). Before hidden rows go: the same for the swap.

use super::Shadow;
use crate::pg::error::Result;
use crate::pg::sql;
use pgrx::prelude::*;
use pgrx::spi::SpiHeapTupleData;

/// A transaction that is waited for.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Older {
    /// `virtualxid`, or `-1/xid` of a prepared transaction.
    pub transaction: String,
    pub pid: Option<i32>,
    pub query: Option<String>,
    pub xact_start: Option<String>,
}

/// All that is older than now: called after the commit that it is about, in a transaction of its own.
pub struct Horizon {
    /// Transactions with a snapshot below this id cannot see that commit.
    xid: String,
    who: Who,
    pub list: Vec<Older>,
}

/// Whose transactions matter.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Those of this server: standbys find their way while both sides hold the rows (`planner/older.rs`).
    Here,
    /// Those of standbys too, as far as they report them: before rows or marks go.
    Everywhere,
}

impl Horizon {
    pub fn now(relations: &[pg_sys::Oid], shadow: &Shadow, who: Who) -> Result<Horizon> {
        let xid = sql::value::<String>(
            "SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::xid::text",
            &[],
        )?
        .unwrap_or_default();
        let list = older(relations, shadow, &xid, who)?;
        Ok(Horizon { xid, who, list })
    }

    /// Leaves those that are still there.
    pub fn look_again(&mut self, relations: &[pg_sys::Oid], shadow: &Shadow) -> Result<()> {
        let now = older(relations, shadow, &self.xid, self.who)?;
        self.list
            .retain(|o| now.iter().any(|n| n.transaction == o.transaction));
        Ok(())
    }
}

/// Holders of locks on the relations, holders of snapshots, and standbys that say (`hot_standby_feedback`)
/// that they have older ones.
fn older(relations: &[pg_sys::Oid], shadow: &Shadow, xid: &str, who: Who) -> Result<Vec<Older>> {
    // Sessions that wait for this job, or another: their statements read nothing meanwhile.
    let mut list = sql::query(
        "WITH waiting AS MATERIALIZED (
             SELECT w.pid, w.classid::bigint << 32 | w.objid::bigint AS shadow_id FROM pg_catalog.pg_locks w
              WHERE w.locktype = 'advisory' AND w.objsubid = $3
                AND w.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
         SELECT l.virtualtransaction::text, l.pid, a.query, a.xact_start::text
           FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
          WHERE l.locktype = 'relation' AND l.granted AND l.relation = ANY ($1)
            AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
            AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid() AND (l.pid IS NULL OR l.pid IS DISTINCT FROM $2)
            AND NOT EXISTS (SELECT FROM waiting w WHERE w.pid = l.pid AND w.shadow_id = $4)
            AND coalesce(a.backend_type, '') <> 'autovacuum worker'
          UNION
         SELECT v.virtualxid, a.pid, a.query, a.xact_start::text
           FROM pg_catalog.pg_stat_activity a
           JOIN pg_catalog.pg_locks v ON v.pid = a.pid AND v.locktype = 'virtualxid' AND v.granted
          WHERE a.datname = current_database() AND a.backend_xmin IS NOT NULL
            AND a.pid <> pg_catalog.pg_backend_pid() AND a.pid IS DISTINCT FROM $2
            AND a.pid NOT IN (SELECT pid FROM waiting)
            AND a.backend_type <> 'autovacuum worker'",
        &[
            relations.to_vec().into(),
            shadow.waiter_pid.into(),
            i32::from(WAITING).into(),
            shadow.id.into(),
        ],
        older_of,
    )?;
    if who == Who::Here {
        return Ok(list);
    }
    list.extend(sql::query(
        "SELECT 'standby ' || s.pid, s.pid, 'standby ' || s.application_name, s.backend_start::text
           FROM pg_catalog.pg_stat_replication s
          WHERE pg_catalog.age(s.backend_xmin) > pg_catalog.age($1::xid)
          UNION ALL
         SELECT 'slot ' || r.slot_name, r.active_pid, 'replication slot ' || r.slot_name, NULL
           FROM pg_catalog.pg_replication_slots r
          WHERE r.slot_type = 'physical' AND r.active AND pg_catalog.age(r.xmin) > pg_catalog.age($1::xid)",
        &[xid.into()],
        older_of,
    )?);
    Ok(list)
}

/// What tells the advisory locks of sessions that wait for a job from those of users, which have 1 or 2 here.
const WAITING: u16 = 1000;

/// Lets everybody know, until it ends, that this session waits for the job of a shadow: the job must not
/// wait for the session. The lock goes with the transaction, too.
pub struct Waiting(pg_sys::LOCKTAG);

impl Waiting {
    pub fn new(shadow: i64) -> Waiting {
        // SAFETY: a shared lock of a kind that nobody takes otherwise: it is granted at once.
        unsafe {
            let tag = pg_sys::LOCKTAG {
                locktag_field1: pg_sys::MyDatabaseId.to_u32(),
                locktag_field2: (shadow >> 32) as u32,
                locktag_field3: shadow as u32,
                locktag_field4: WAITING,
                locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
                locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
            };
            pg_sys::LockAcquire(&tag, pg_sys::ShareLock as i32, false, false);
            Waiting(tag)
        }
    }

    /// The wait is over. After an error the transaction gives the lock back.
    pub fn end(self) {
        // SAFETY: taken by `new` in this transaction.
        unsafe { pg_sys::LockRelease(&self.0, pg_sys::ShareLock as i32, false) };
    }
}

fn older_of(row: &SpiHeapTupleData<'_>) -> std::result::Result<Older, pgrx::spi::Error> {
    Ok(Older {
        transaction: row.get::<String>(1)?.unwrap_or_default(),
        pid: row.get::<i32>(2)?,
        query: row.get::<String>(3)?,
        xact_start: row.get::<String>(4)?,
    })
}

/// Who holds or wants locks that are in the way on these relations, the longest-running first.
pub fn blockers(relations: &[pg_sys::Oid]) -> Result<Vec<Older>> {
    sql::query(
        "SELECT DISTINCT ON (l.pid, l.virtualtransaction) l.virtualtransaction::text, l.pid, a.query, a.xact_start::text
           FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
          WHERE l.locktype = 'relation' AND l.granted AND l.relation = ANY ($1)
            AND l.mode NOT IN ('AccessShareLock')
            AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
            AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
          ORDER BY l.pid, l.virtualtransaction, a.xact_start",
        &[relations.to_vec().into()],
        older_of,
    )
}

/// Cancels an autovacuum of these relations that is in the way, unless it prevents wraparound.
pub fn cancel_autovacuum(relations: &[pg_sys::Oid]) -> Result<()> {
    sql::execute(
        "SELECT pg_catalog.pg_cancel_backend(a.pid)
           FROM pg_catalog.pg_stat_activity a
          WHERE a.backend_type = 'autovacuum worker' AND a.query NOT LIKE '%(to prevent wraparound)%'
            AND EXISTS (SELECT FROM pg_catalog.pg_locks l
                         WHERE l.pid = a.pid AND l.locktype = 'relation' AND l.granted AND l.relation = ANY ($1))",
        &[relations.to_vec().into()],
    )?;
    Ok(())
}

//! What was done to each partition in a minute, from the cumulative statistics of PostgreSQL.

use super::{STRETCH_MAX_US, retention_us, time};
use crate::pg::error::Result;
use crate::pg::{sql, xact};
use ::load::history::{self, Sample, Step};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

/// Inserts, updates, deletes, HOT updates, sequential scans, index scans, rows read, blocks asked for,
/// blocks found in shared buffers.
const COUNTERS: usize = 9;
const BLOCKS_ASKED: usize = 7;
const BLOCKS_HIT: usize = 8;

/// Of what statements were counted to do, mirrors left out: rows written, bytes written, statements that
/// read, microseconds of CPU.
const COUNTED: usize = 4;

#[derive(Clone, Debug)]
struct Leaf {
    table: u32,
    values: [u64; COUNTERS],
    /// With when counting began; none where nothing is counted.
    counted: Option<(i64, [u64; COUNTED])>,
    live: i64,
    dead: i64,
    /// The last size known; none if a look at it would always have had to wait.
    size: Option<i64>,
    /// It is of this look.
    size_is_new: bool,
}

/// What the statistics of the whole database say.
#[derive(Clone, Debug, Default)]
struct Database {
    /// When statistics were last reset, of whatever relation.
    reset_at: i64,
    read_ms: Option<f64>,
    blocks_read: i64,
}

#[derive(Clone, Debug, Default)]
struct Look {
    at_us: i64,
    database: Database,
    tables: HashSet<u32>,
    leaves: HashMap<u32, Leaf>,
}

/// A row of the history.
#[derive(Clone, Debug, Default)]
struct Row {
    table: u32,
    partition: Option<u32>,
    values: [i64; COUNTERS],
    counted: Option<[i64; COUNTED]>,
    read_ms: Option<f64>,
    waits: i64,
    grown: Option<i64>,
    size: Option<i64>,
    live: i64,
    dead: i64,
    reset: bool,
}

thread_local! {
    static BEFORE: RefCell<Option<Look>> = const { RefCell::new(None) };
    /// How often somebody was seen to wait for a lock on a relation since the look before.
    static WAITS: RefCell<HashMap<u32, i64>> = RefCell::new(HashMap::new());
}

/// Notes for which relations somebody waits. Who waits for a row waits for a transaction, and holds the
/// row's lock meanwhile.
pub fn sample_waits() -> Result<()> {
    // Where nobody waits the lock table is not even looked at: that takes all of its locks.
    let waited_for = sql::query(
        "SELECT DISTINCT l.relation FROM pg_catalog.pg_locks l
          WHERE EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE wait_event_type = 'Lock')
            AND l.relation IS NOT NULL
            AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d
                               WHERE d.datname = pg_catalog.current_database())
            AND (NOT l.granted OR l.locktype = 'tuple')
            AND l.pid IN (SELECT w.pid FROM pg_catalog.pg_locks w WHERE NOT w.granted)",
        &[],
        |row| row.get::<pg_sys::Oid>(1),
    )?;
    WAITS.with_borrow_mut(|waits| {
        for relation in waited_for.into_iter().flatten() {
            *waits.entry(relation.to_u32()).or_default() += 1;
        }
    });
    Ok(())
}

pub fn record(now_us: i64) -> Result<()> {
    let waits = WAITS.take();
    if retention_us() == 0 {
        BEFORE.take();
        return Ok(());
    }
    let before = BEFORE.take();
    let mut look = look(now_us)?;
    if let Some(before) = &before {
        for (relid, leaf) in &mut look.leaves {
            if leaf.size.is_none() {
                leaf.size = before.leaves.get(relid).and_then(|leaf| leaf.size);
            }
        }
    }
    BEFORE.replace(Some(look.clone()));
    let Some(before) = before else {
        return Ok(());
    };
    if before.at_us >= now_us || now_us - before.at_us > STRETCH_MAX_US {
        return Ok(());
    }
    insert(before.at_us, now_us, &look.since(&before, &waits))
}

fn look(at_us: i64) -> Result<Look> {
    let database = sql::query(
        "SELECT coalesce((extract(epoch FROM pg_catalog.pg_stat_get_db_stat_reset_time(d.oid)) * 1000000)::bigint, 0),
                CASE WHEN pg_catalog.current_setting('track_io_timing')::boolean
                     THEN pg_catalog.pg_stat_get_db_blk_read_time(d.oid) END,
                pg_catalog.pg_stat_get_db_blocks_fetched(d.oid) - pg_catalog.pg_stat_get_db_blocks_hit(d.oid)
           FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()",
        &[],
        |row| {
            Ok(Database {
                reset_at: row.get::<i64>(1)?.unwrap_or(0),
                read_ms: row.get::<f64>(2)?,
                blocks_read: row.get::<i64>(3)?.unwrap_or(0),
            })
        },
    )?;
    let rows = sql::query(
        "SELECT m.relation::oid, t.relid,
                pg_catalog.pg_stat_get_tuples_inserted(t.relid),
                pg_catalog.pg_stat_get_tuples_updated(t.relid),
                pg_catalog.pg_stat_get_tuples_deleted(t.relid),
                pg_catalog.pg_stat_get_tuples_hot_updated(t.relid),
                pg_catalog.pg_stat_get_numscans(t.relid),
                coalesce(i.scans, 0),
                pg_catalog.pg_stat_get_tuples_returned(t.relid)
                    + pg_catalog.pg_stat_get_tuples_fetched(t.relid) + coalesce(i.fetched, 0),
                pg_catalog.pg_stat_get_blocks_fetched(t.relid)
                    + pg_catalog.pg_stat_get_blocks_fetched(c.reltoastrelid) + coalesce(i.asked, 0),
                pg_catalog.pg_stat_get_blocks_hit(t.relid)
                    + pg_catalog.pg_stat_get_blocks_hit(c.reltoastrelid) + coalesce(i.hit, 0),
                pg_catalog.pg_stat_get_live_tuples(t.relid),
                pg_catalog.pg_stat_get_dead_tuples(t.relid)
           FROM shadowpart.managed m
          CROSS JOIN LATERAL shadowpart.tree(m.relation) t
           JOIN pg_catalog.pg_class c ON c.oid = t.relid
           LEFT JOIN LATERAL (
                SELECT pg_catalog.sum(pg_catalog.pg_stat_get_numscans(x.indexrelid))::bigint AS scans,
                       pg_catalog.sum(pg_catalog.pg_stat_get_tuples_fetched(x.indexrelid))::bigint AS fetched,
                       pg_catalog.sum(pg_catalog.pg_stat_get_blocks_fetched(x.indexrelid))::bigint AS asked,
                       pg_catalog.sum(pg_catalog.pg_stat_get_blocks_hit(x.indexrelid))::bigint AS hit
                  FROM pg_catalog.pg_index x WHERE x.indrelid = t.relid) i ON true
          WHERE t.isleaf",
        &[],
        |row| {
            let mut values = [0; COUNTERS];
            for (value, column) in values.iter_mut().zip(3..) {
                *value = row.get::<i64>(column)?.unwrap_or(0).max(0).unsigned_abs();
            }
            Ok((
                row.get::<pg_sys::Oid>(2)?.map_or(0, |oid| oid.to_u32()),
                Leaf {
                    table: row.get::<pg_sys::Oid>(1)?.map_or(0, |oid| oid.to_u32()),
                    values,
                    counted: None,
                    live: row.get::<i64>(3 + COUNTERS)?.unwrap_or(0),
                    dead: row.get::<i64>(4 + COUNTERS)?.unwrap_or(0),
                    size: None,
                    size_is_new: false,
                },
            ))
        },
    )?;
    let mut leaves: HashMap<u32, Leaf> = rows.into_iter().collect();
    // SAFETY: set once, when the process connects.
    let counted = crate::load::partition_totals(unsafe { pg_sys::MyDatabaseId });
    if let Some(counted) = &counted {
        for (relid, leaf) in &mut leaves {
            // One that nobody has touched yet has no counters.
            let (since_us, totals) = counted.get(relid).copied().unwrap_or_default();
            leaf.counted = Some((since_us, counted_of(&totals)));
        }
    }
    let relids = leaves.keys().map(|oid| pg_sys::Oid::from(*oid)).collect();
    for (relid, size) in sizes(relids) {
        if let Some(leaf) = leaves.get_mut(&relid) {
            leaf.size = Some(size);
            leaf.size_is_new = true;
        }
    }
    Ok(Look {
        at_us,
        database: database.into_iter().next().unwrap_or_default(),
        tables: super::managed()?
            .into_iter()
            .map(|oid| oid.to_u32())
            .collect(),
        leaves,
    })
}

fn counted_of(totals: &crate::load::Amounts) -> [u64; COUNTED] {
    use crate::load::Measure::{BytesWritten, CpuUs, Deletes, Inserts, Reads, Updates};
    let sum = |of: &[crate::load::Measure]| {
        of.iter()
            .fold(0u64, |sum, m| sum.saturating_add(totals[*m as usize]))
    };
    [
        sum(&[Inserts, Updates, Deletes]),
        sum(&[BytesWritten]),
        sum(&[Reads]),
        sum(&[CpuUs]),
    ]
}

/// Sizes of those that can be had at once. To look takes a lock for a moment: a table that somebody works
/// on exclusively is left out, and if one comes in between, the lock timeout costs the sizes of this
/// minute, and no more.
fn sizes(relids: Vec<pg_sys::Oid>) -> Vec<(u32, i64)> {
    let found = xact::attempt(|| {
        sql::query(
            "SELECT u.relid, pg_catalog.pg_total_relation_size(u.relid)
               FROM unnest($1::oid[]) u (relid)
              WHERE u.relid NOT IN (SELECT h.relation FROM pg_catalog.pg_locks h
                         WHERE h.locktype = 'relation' AND h.mode = 'AccessExclusiveLock')
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks h JOIN pg_catalog.pg_index i
                            ON i.indexrelid = h.relation
                         WHERE h.locktype = 'relation' AND h.mode = 'AccessExclusiveLock'
                           AND i.indrelid = u.relid)",
            &[relids.into()],
            |row| Ok((row.get::<pg_sys::Oid>(1)?, row.get::<i64>(2)?)),
        )
    });
    let rows = found.unwrap_or_default().into_iter();
    rows.filter_map(|(relid, size)| Some((relid?.to_u32(), size?)))
        .collect()
}

impl Look {
    /// What happened since an earlier look: a row for each table that both know, and one for each of its
    /// partitions that did not stand idle.
    fn since(&self, before: &Look, waits: &HashMap<u32, i64>) -> Vec<Row> {
        let mut totals: HashMap<u32, Row> = (self.tables.intersection(&before.tables))
            .map(|table| (*table, Row::total(*table)))
            .collect();
        let mut rows = Vec::new();
        for (relid, leaf) in &self.leaves {
            let Some(total) = totals.get_mut(&leaf.table) else {
                continue;
            };
            let waited = waits.get(relid).copied().unwrap_or(0);
            let row = self.grown(*relid, leaf, before, waited);
            total.add(&row);
            let then = before.leaves.get(relid);
            let changed = row.reset
                || row.waits > 0
                || row.grown.unwrap_or(0) != 0
                || row
                    .counted
                    .is_some_and(|c| c.iter().any(|value| *value > 0))
                || row.values.iter().any(|value| *value > 0)
                || then.is_none_or(|then| (then.live, then.dead) != (leaf.live, leaf.dead));
            if changed {
                rows.push(row);
            }
        }
        for (table, total) in totals.iter_mut() {
            total.waits += waits.get(table).copied().unwrap_or(0);
        }
        rows.extend(totals.into_values());
        rows
    }

    fn grown(&self, relid: u32, leaf: &Leaf, before: &Look, waits: i64) -> Row {
        let mut row = Row {
            table: leaf.table,
            partition: Some(relid),
            waits,
            size: leaf.size.filter(|_| leaf.size_is_new),
            live: leaf.live,
            dead: leaf.dead,
            // Partitions that are new have counted nobody knows what before.
            reset: true,
            ..Row::default()
        };
        let Some(then) = before.leaves.get(&relid) else {
            row.read_ms = self.database.read_ms.map(|_| 0.0);
            return row;
        };
        row.grown = row.size.zip(then.size).map(|(now, then)| now - then);
        // A reset of any relation's statistics sets the time for all: it is no epoch of this one. Where
        // no counter fell, the difference is still a lower bound.
        let sample = |at_us, values| Sample {
            at_us,
            epoch: 0,
            values,
        };
        let step = history::step(
            Some(&sample(before.at_us, then.values)),
            &sample(self.at_us, leaf.values),
            STRETCH_MAX_US,
        );
        if let Step::Delta(delta) = step {
            row.reset = delta.reset || self.database.reset_at != before.database.reset_at;
            for (value, grown) in row.values.iter_mut().zip(delta.values) {
                *value = i64::try_from(grown).unwrap_or(i64::MAX);
            }
        }
        // Two sources, each with resets of its own.
        if let (Some(then), Some(now)) = (then.counted, leaf.counted) {
            let sample = |at_us, (epoch, values)| Sample {
                at_us,
                epoch,
                values,
            };
            // What began to be counted in between began at zero.
            let then = if then.0 == 0 { (now.0, then.1) } else { then };
            let step = history::step(
                Some(&sample(before.at_us, then)),
                &sample(self.at_us, now),
                STRETCH_MAX_US,
            );
            if let Step::Delta(delta) = step {
                row.reset |= delta.reset;
                row.counted = Some(delta.values.map(|v| i64::try_from(v).unwrap_or(i64::MAX)));
            }
        }
        row.read_ms = self.read_ms(before, row.blocks_read());
        row
    }

    /// The share that these blocks have in the time that the database spent reading.
    fn read_ms(&self, before: &Look, blocks: i64) -> Option<f64> {
        let spent = self.database.read_ms? - before.database.read_ms?;
        let read = self.database.blocks_read - before.database.blocks_read;
        if blocks == 0 {
            return Some(0.0);
        }
        (spent >= 0.0 && read > 0).then(|| spent * (blocks as f64 / read as f64).min(1.0))
    }
}

impl Row {
    fn total(table: u32) -> Self {
        Row {
            table,
            counted: Some([0; COUNTED]),
            read_ms: Some(0.0),
            grown: Some(0),
            size: Some(0),
            ..Row::default()
        }
    }

    fn add(&mut self, part: &Row) {
        for (sum, value) in self.values.iter_mut().zip(part.values) {
            *sum = sum.saturating_add(value);
        }
        let known = |a: Option<i64>, b: Option<i64>| Some(a?.saturating_add(b?));
        self.counted = self.counted.zip(part.counted).map(|(mut a, b)| {
            for (sum, value) in a.iter_mut().zip(b) {
                *sum = sum.saturating_add(value);
            }
            a
        });
        self.read_ms = self.read_ms.zip(part.read_ms).map(|(a, b)| a + b);
        self.grown = known(self.grown, part.grown);
        self.size = known(self.size, part.size);
        self.waits += part.waits;
        self.live = self.live.saturating_add(part.live);
        self.dead = self.dead.saturating_add(part.dead);
        self.reset |= part.reset;
    }

    fn blocks_read(&self) -> i64 {
        (self.values[BLOCKS_ASKED] - self.values[BLOCKS_HIT]).max(0)
    }
}

fn insert(from_us: i64, to_us: i64, rows: &[Row]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let column = |of: &dyn Fn(&Row) -> i64| rows.iter().map(of).collect::<Vec<i64>>();
    let oid = |oid: u32| pg_sys::Oid::from(oid);
    let mut args: Vec<DatumWithOid<'_>> = vec![
        from_us.into(),
        ((to_us - from_us + 500) / 1000).into(),
        rows.iter().map(|r| oid(r.table)).collect::<Vec<_>>().into(),
        (rows
            .iter()
            .map(|r| r.partition.map(oid))
            .collect::<Vec<_>>())
        .into(),
        rows.iter().map(|r| r.read_ms).collect::<Vec<_>>().into(),
        rows.iter().map(|r| r.grown).collect::<Vec<_>>().into(),
        rows.iter().map(|r| r.size).collect::<Vec<_>>().into(),
        rows.iter().map(|r| r.reset).collect::<Vec<_>>().into(),
        column(&|r| r.waits).into(),
        column(&|r| r.live).into(),
        column(&|r| r.dead).into(),
        column(&Row::blocks_read).into(),
        column(&|r| r.values[BLOCKS_HIT]).into(),
    ];
    for counter in 0..BLOCKS_ASKED {
        args.push(column(&|r| r.values[counter]).into());
    }
    for counter in 0..COUNTED {
        let column = rows.iter().map(|r| r.counted.map(|c| c[counter]));
        args.push(column.collect::<Vec<Option<i64>>>().into());
    }
    sql::execute(
        &format!(
            "INSERT INTO shadowpart.partition_history (level, at, covered_ms, relation, partition, read_ms,
                    grown_bytes, size_bytes, reset, lock_waits, live_rows, dead_rows, blks_read, blks_hit,
                    inserts, updates, deletes, hot_updates, seq_scans, idx_scans, rows_read,
                    counted_rows, counted_bytes, counted_reads, counted_cpu_us)
             SELECT 1, {}, $2, r.*
               FROM unnest($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                           $21, $22, $23, $24) r",
            time("$1")
        ),
        &args,
    )?;
    Ok(())
}

//! Minutes into five minutes, five minutes into hours, and what is old into the bin.
//!
//! What has been done is seen from the tables themselves: the coarse rows there are. Rows of one bucket are
//! made by one statement of one transaction, so a crash neither doubles nor loses any. The last row of a
//! bucket is written before the first look after its end, hence before this runs.

use super::entities::ENTITIES_MAX;
use super::{STRETCH_MAX_US, Step, retention_us, time};
use crate::pg::error::Result;
use crate::pg::{sql, xact};
use ::load::history::{Level, bucket_start};

/// Most buckets that one statement makes: it is bounded also when there is much to catch up on.
const BUCKETS_MAX: i64 = 12;
/// About how many rows one statement sums up, unless a single bucket has more.
const ROWS_MAX: i64 = 50_000;
/// Most rows of a level of a table that one minute deletes.
const DELETED_MAX: i64 = 20_000;

/// A table of the history, and how its rows are summed up.
struct Table {
    name: &'static str,
    sum_up: fn() -> String,
}

const TABLES: [Table; 4] = [
    Table {
        name: "entity_history",
        sum_up: entities,
    },
    Table {
        name: "partition_history",
        sum_up: partitions,
    },
    Table {
        name: "host_history",
        sum_up: machine,
    },
    Table {
        name: "disk_history",
        sum_up: disks,
    },
];

/// The level's number in the tables: its width in minutes.
fn number(level: Level) -> i64 {
    level.width_us() / 60_000_000
}

/// To sum up and to delete, a table and a level at a time.
pub fn steps() -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for table in &TABLES {
        for levels in Level::ALL.windows(2) {
            if let [fine, coarse] = *levels {
                steps.push(Box::new(move |now_us| roll_up(table, fine, coarse, now_us)));
            }
        }
        for level in Level::ALL {
            steps.push(Box::new(move |now_us| retire(table, level, now_us)));
        }
    }
    steps
}

/// SQL for a time as microseconds since 2000.
fn micros(expression: &str) -> String {
    format!(
        "(extract(epoch FROM {expression} - timestamptz '2000-01-01 00:00:00+00') * 1000000)::bigint"
    )
}

/// Makes the coarse rows that are due. A fine row belongs to the bucket that its middle lies in.
fn roll_up(table: &Table, fine: Level, coarse: Level, now_us: i64) -> Result<()> {
    if coarse.kept_us(retention_us()) < coarse.width_us() {
        return Ok(());
    }
    // Only the scheduler does this, and there is one; should there ever be two, the second passes by.
    let mine = sql::value::<bool>(
        "SELECT pg_catalog.pg_try_advisory_xact_lock($1::regclass::oid::integer, $2::integer)",
        &[
            format!("shadowpart.{}", table.name).into(),
            number(coarse).into(),
        ],
    )?;
    if mine != Some(true) {
        return Ok(());
    }
    // Under the lock, and seeing all that was done under it before.
    xact::fresh_snapshot(|| make_due(table, fine, coarse, now_us))
}

fn make_due(table: &Table, fine: Level, coarse: Level, now_us: i64) -> Result<()> {
    let width_us = coarse.width_us();
    let until_us = bucket_start(now_us, width_us);
    // Rows of a clock that was ahead are no evidence that anything was done.
    let newest = sql::value::<i64>(
        &format!(
            "SELECT {} FROM shadowpart.{} WHERE level = $1 AND at < {}",
            micros("pg_catalog.max(at)"),
            table.name,
            time("$2")
        ),
        &[number(coarse).into(), until_us.into()],
    )?;
    let done_us = newest.map_or(i64::MIN, |newest| newest.saturating_add(width_us));
    // Far from the ends of what a timestamp can say.
    let done_us = done_us.max(now_us - fine.kept_us(retention_us()) - 2 * width_us);
    let from = |offset: i64, from_us: i64| {
        sql::value::<i64>(
            &format!(
                "SELECT {} FROM shadowpart.{} WHERE level = $1 AND at >= {} AND at < {}
                    AND at + covered_ms * interval '0.5 ms' >= {} ORDER BY at LIMIT 1 OFFSET $5",
                micros("at"),
                table.name,
                time("$2"),
                time("$3"),
                time("$4")
            ),
            &[
                number(fine).into(),
                (from_us - STRETCH_MAX_US).into(),
                until_us.into(),
                from_us.into(),
                offset.into(),
            ],
        )
    };
    let Some(first_us) = from(0, done_us)? else {
        return Ok(());
    };
    let from_us = bucket_start(first_us.max(done_us), width_us);
    let mut until_us = until_us.min(from_us + BUCKETS_MAX * width_us);
    if let Some(enough_us) = from(ROWS_MAX, from_us)? {
        // One bucket at least, or it would never go on.
        until_us = until_us.min(bucket_start(enough_us, width_us).max(from_us + width_us));
    }
    if from_us >= until_us {
        return Ok(());
    }
    let due = format!(
        "WITH due AS (
            SELECT f.*, b.bucket, greatest(f.covered_ms, 1)::float8 AS weight
              FROM shadowpart.{} f
             CROSS JOIN LATERAL (SELECT pg_catalog.date_bin($3::bigint * interval '1 microsecond',
                    f.at + f.covered_ms * interval '0.5 ms', timestamptz '2000-01-01 00:00:00+00') AS bucket) b
             WHERE f.level = $1 AND f.at >= {} AND f.at < {}
               AND b.bucket >= {} AND b.bucket < {})",
        table.name,
        time("$4"),
        time("$6"),
        time("$5"),
        time("$6"),
    );
    sql::execute(
        &format!("{due} {}", (table.sum_up)()),
        &[
            number(fine).into(),
            number(coarse).into(),
            width_us.into(),
            (from_us - STRETCH_MAX_US).into(),
            from_us.into(),
            until_us.into(),
        ],
    )?;
    Ok(())
}

/// `sum(a)::bigint AS a, ...`
fn sums(columns: &[&str]) -> String {
    let list: Vec<String> = (columns.iter())
        .map(|c| format!("pg_catalog.sum({c})::bigint AS {c}"))
        .collect();
    list.join(", ")
}

/// Averages, weighted by time, of what was known.
fn means(columns: &[&str]) -> String {
    let list: Vec<String> = (columns.iter())
        .map(|c| {
            format!(
                "pg_catalog.sum({c} * weight) / pg_catalog.sum(weight) FILTER (WHERE {c} IS NOT NULL) AS {c}"
            )
        })
        .collect();
    list.join(", ")
}

/// The last value known.
fn lasts(columns: &[&str]) -> String {
    let list: Vec<String> = (columns.iter())
        .map(|c| {
            format!(
                "(pg_catalog.array_agg({c} ORDER BY at DESC) FILTER (WHERE {c} IS NOT NULL))[1] AS {c}"
            )
        })
        .collect();
    list.join(", ")
}

/// An entity is covered as its table is. Those beyond the most active are pooled again.
fn entities() -> String {
    let measures = [
        "inserts",
        "updates",
        "deletes",
        "bytes_written",
        "bytes_removed",
        "reads",
        "rows_read",
        "exec_us",
        "cpu_us",
        "blocks_read",
    ];
    format!(
        ", summed AS (
            SELECT bucket, relation, entity, pg_catalog.sum(covered_ms)::bigint AS covered_ms, {last},
                   pg_catalog.bool_or(reset) AS reset, {sums}
              FROM due GROUP BY bucket, relation, entity
        ), ranked AS (
            SELECT s.*, pg_catalog.row_number() OVER (PARTITION BY bucket, relation
                    ORDER BY entity IS NULL, inserts + updates + deletes + reads DESC, entity) AS place
              FROM summed s
        ), pooled AS (
            SELECT bucket, relation, CASE WHEN place <= {ENTITIES_MAX} THEN entity END AS named,
                   CASE WHEN place <= {ENTITIES_MAX} AND entity IS NOT NULL
                        THEN pg_catalog.max(partition) END AS partition,
                   pg_catalog.max(covered_ms) FILTER (WHERE entity IS NULL) AS covered_ms,
                   pg_catalog.bool_or(reset) AS reset, {sums}
              FROM ranked
             GROUP BY bucket, relation, CASE WHEN place <= {ENTITIES_MAX} THEN entity END,
                   place <= {ENTITIES_MAX} AND entity IS NOT NULL
        )
        INSERT INTO shadowpart.entity_history (level, at, covered_ms, relation, entity, partition, reset, {names})
        SELECT $2, p.bucket, c.covered_ms, p.relation, p.named, p.partition, p.reset, {list}
          FROM pooled p
          JOIN summed c USING (bucket, relation)
         WHERE c.entity IS NULL",
        last = lasts(&["partition"]),
        sums = sums(&measures),
        list = measures.map(|m| format!("p.{m}")).join(", "),
        names = measures.join(", "),
    )
}

fn partitions() -> String {
    let counters = [
        "inserts",
        "updates",
        "deletes",
        "hot_updates",
        "seq_scans",
        "idx_scans",
        "rows_read",
        "blks_hit",
        "blks_read",
        "lock_waits",
        "grown_bytes",
        "counted_rows",
        "counted_bytes",
        "counted_reads",
        "counted_cpu_us",
    ];
    let gauges = ["size_bytes", "live_rows", "dead_rows"];
    format!(
        ", summed AS (
            SELECT bucket, relation, partition, pg_catalog.sum(covered_ms)::bigint AS covered_ms,
                   pg_catalog.sum(read_ms) AS read_ms, pg_catalog.bool_or(reset) AS reset, {}, {}
              FROM due GROUP BY bucket, relation, partition
        )
        INSERT INTO shadowpart.partition_history
            (level, at, covered_ms, relation, partition, read_ms, reset, {list})
        SELECT $2, s.bucket, c.covered_ms, s.relation, s.partition, s.read_ms, s.reset, {list}
          FROM summed s
          JOIN (SELECT bucket, relation, covered_ms FROM summed WHERE partition IS NULL) c
               USING (bucket, relation)",
        sums(&counters),
        lasts(&gauges),
        list = [counters.as_slice(), gauges.as_slice()].concat().join(", "),
    )
}

fn machine() -> String {
    let figures = [
        "cpus",
        "cpu_busy",
        "cpu_iowait",
        "cpu_steal",
        "cpu_throttled",
        "load1",
        "memory_used",
        "pressure_cpu",
        "pressure_memory",
        "pressure_io",
    ];
    let gauges = ["memory_total_bytes", "swap_used_bytes"];
    format!(
        "INSERT INTO shadowpart.host_history (level, at, covered_ms, {}, {})
         SELECT $2, bucket, pg_catalog.sum(covered_ms)::bigint, {}, {} FROM due GROUP BY bucket",
        figures.join(", "),
        gauges.join(", "),
        means(&figures),
        lasts(&gauges),
    )
}

/// How long a read took counts by how many there were, not by time.
fn disks() -> String {
    let figures = [
        "utilisation",
        "reads_s",
        "writes_s",
        "read_bytes_s",
        "written_bytes_s",
        "queue",
    ];
    let took = |ms: &str, count: &str| {
        format!(
            "pg_catalog.sum({ms} * {count} * weight)
                / nullif(pg_catalog.sum({count} * weight) FILTER (WHERE {ms} IS NOT NULL), 0)"
        )
    };
    format!(
        "INSERT INTO shadowpart.disk_history
            (level, at, covered_ms, device, tablespaces, read_ms, write_ms, {})
         SELECT $2, bucket, pg_catalog.sum(covered_ms)::bigint, device,
                (SELECT t.tablespaces FROM due t WHERE t.bucket = due.bucket AND t.device = due.device
                  ORDER BY t.at DESC LIMIT 1), {}, {}, {}
           FROM due GROUP BY bucket, device",
        figures.join(", "),
        took("read_ms", "reads_s"),
        took("write_ms", "writes_s"),
        means(&figures),
    )
}

/// Deletes what is older than its level is kept, a bounded number of rows.
fn retire(table: &Table, level: Level, now_us: i64) -> Result<()> {
    // Begins, of rows that end at the cutoff; with no history at all, everything.
    let cutoff_us = match level.kept_us(retention_us()) {
        0 => now_us,
        _ => level.cutoff_us(retention_us(), now_us) - level.width_us(),
    };
    sql::execute(
        &format!(
            "DELETE FROM shadowpart.{0} WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM shadowpart.{0} WHERE level = $1 AND at <= {1}
                 ORDER BY at LIMIT {DELETED_MAX}))",
            table.name,
            time("$2")
        ),
        &[number(level).into(), cutoff_us.into()],
    )?;
    Ok(())
}

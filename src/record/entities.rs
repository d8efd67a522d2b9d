//! What each entity has cost in a minute.

use super::{STRETCH_MAX_US, retention_us, time};
use crate::pg::error::Result;
use crate::pg::sql;
use ::load::minutes::{Counted, Look, MEASURES, Row};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use std::cell::RefCell;

/// Most entities of a table that have a row of their own in a minute.
pub const ENTITIES_MAX: usize = 1000;

thread_local! {
    /// The look before, with its time.
    static BEFORE: RefCell<Option<(i64, Look)>> = const { RefCell::new(None) };
}

pub fn record(now_us: i64) -> Result<()> {
    if retention_us() == 0 {
        BEFORE.take();
        return Ok(());
    }
    let tables = super::managed()?;
    // SAFETY: set once, when the process connects.
    let database = unsafe { pg_sys::MyDatabaseId };
    // What is not counted is missing, not zero.
    let Some(sampled) = crate::load::sample(database) else {
        BEFORE.take();
        return Ok(());
    };
    let counted = sampled.into_iter().map(|sampled| Counted {
        table: sampled.relation.to_u32(),
        entity: sampled.entity,
        partition: sampled.partition.to_u32(),
        since_us: sampled.since_us,
        totals: sampled.totals,
    });
    let look = Look::new(
        now_us,
        tables.into_iter().map(|oid| oid.to_u32()),
        counted.collect(),
    );
    let before = BEFORE.replace(Some((now_us, look.clone())));
    let Some((from_us, before)) = before else {
        return Ok(());
    };
    if from_us >= now_us || now_us - from_us > STRETCH_MAX_US {
        return Ok(());
    }
    insert(from_us, now_us, &look.since(&before, ENTITIES_MAX))
}

fn insert(from_us: i64, to_us: i64, rows: &[Row]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let oid = |oid: u32| pg_sys::Oid::from(oid);
    let mut args: Vec<DatumWithOid<'_>> = vec![
        from_us.into(),
        ((to_us - from_us + 500) / 1000).into(),
        rows.iter().map(|r| oid(r.table)).collect::<Vec<_>>().into(),
        (rows.iter().map(|r| r.entity.clone()).collect::<Vec<_>>()).into(),
        (rows.iter().map(|r| oid(r.partition)).collect::<Vec<_>>()).into(),
        rows.iter().map(|r| r.reset).collect::<Vec<_>>().into(),
    ];
    for measure in 0..MEASURES {
        let column = rows.iter().map(|row| {
            let value = row.values.get(measure).copied().unwrap_or(0);
            i64::try_from(value).unwrap_or(i64::MAX)
        });
        args.push(column.collect::<Vec<i64>>().into());
    }
    let measures: String = (7..7 + MEASURES).map(|n| format!(", ${n}")).collect();
    sql::execute(
        &format!(
            "INSERT INTO shadowpart.entity_history (level, at, covered_ms, relation, entity, partition, reset,
                    inserts, updates, deletes, bytes_written, bytes_removed, reads, rows_read, exec_us, cpu_us,
                    blocks_read)
             SELECT 1, {}, $2, r.relation, r.entity, nullif(r.partition, 0), r.reset,
                    r.a, r.b, r.c, r.d, r.e, r.f, r.g, r.h, r.i, r.j
               FROM unnest($3, $4, $5, $6{measures})
                    r (relation, entity, partition, reset, a, b, c, d, e, f, g, h, i, j)",
            time("$1")
        ),
        &args,
    )?;
    Ok(())
}

//! Comparing the sides row by row, on one snapshot, in the memory of one merge or hash join.

use super::{Pair, Shadow, as_owner, members};
use crate::pg::error::Result;
use crate::pg::sql;
use crate::planner::sight::SeeEverything;
use pgrx::datum::JsonB;
use pgrx::prelude::*;

/// A key on which the sides differ.
pub struct Difference {
    pub partition: pg_sys::Oid,
    pub key: JsonB,
    /// `missing`: the mirrored side lacks the row; `extra`: it has one too many; `different`.
    pub what: String,
}

/// Up to `limit` differences of one pair. The side that owns the entities is the truth.
pub fn differences(shadow: &Shadow, pair: &Pair, limit: i64) -> Result<Vec<Difference>> {
    let (owner, mirror) = if pair.swapped {
        (pair.shadow()?, pair.primary)
    } else {
        (pair.primary, pair.shadow()?)
    };
    let column = members::column(owner, &shadow.entity_column)?;
    let (owner_table, mirror_table) = (sql::relation(owner)?, sql::relation(mirror)?);
    let columns = sql::query(
        "SELECT attname::text FROM pg_catalog.pg_attribute
          WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        &[owner.into()],
        |row| row.get::<String>(1),
    )?;
    let list = |alias: &str| {
        columns
            .iter()
            .flatten()
            .map(|c| format!("{alias}.{}", sql::ident(c)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let keys: Vec<String> = pair.key_columns.iter().map(|k| sql::ident(k)).collect();
    let join = keys
        .iter()
        .map(|k| format!("o.{k} = m.{k}"))
        .collect::<Vec<_>>()
        .join(" AND ");
    let object = pair
        .key_columns
        .iter()
        .map(|k| {
            format!(
                "{}, coalesce(o.{i}, m.{i})",
                sql::literal(k),
                i = sql::ident(k)
            )
        })
        .collect::<Vec<_>>()
        .join(", ");
    // The pair's entities on both sides: only the owner of a whole partition has nothing else.
    let entities = shadow.entities.as_deref();
    let statement = format!(
        "SELECT jsonb_build_object({object}),
                CASE WHEN m.{key} IS NULL THEN 'missing' WHEN o.{key} IS NULL THEN 'extra' ELSE 'different' END
           FROM (SELECT * FROM ONLY {owner_table} t WHERE {members}) o
           FULL JOIN (SELECT * FROM ONLY {mirror_table} t WHERE {members}) m ON {join}
          WHERE m.{key} IS NULL OR o.{key} IS NULL OR NOT (ROW({o})::record OPERATOR(pg_catalog.*=) ROW({m})::record)
          LIMIT {limit}",
        key = keys[0],
        members = column.is_member("t", entities)?,
        o = list("o"),
        m = list("m"),
    );
    let sight = SeeEverything::new();
    let rows = as_owner(owner, || {
        sql::query(&statement, &[], |row| {
            Ok(Difference {
                partition: owner,
                key: row
                    .get::<JsonB>(1)?
                    .unwrap_or(JsonB(serde_json::Value::Null)),
                what: row.get::<String>(2)?.unwrap_or_default(),
            })
        })
    });
    drop(sight);
    rows
}

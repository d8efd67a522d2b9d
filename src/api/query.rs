//! The functions that only look.

use super::{as_superuser, checks, require_preload};
use crate::job::accept;
use crate::pair::{Shadow, verify};
use crate::pg::error::{Error, Result, or_raise};
use crate::pg::{sql, xact};
use pgrx::datum::JsonB;
use pgrx::prelude::*;

/// Most differences that one call returns: enough to see a pattern, bounded in memory.
const DIFFERENCES_MAX: i64 = 10_000;

#[pg_extern(sql = false)]
fn differences(
    id: i64,
) -> TableIterator<
    'static,
    (
        name!(partition, pg_sys::Oid),
        name!(key, JsonB),
        name!(difference, String),
    ),
> {
    let rows = or_raise((|| {
        require_preload()?;
        let (shadow, pairs) = as_superuser(|| {
            let shadow = Shadow::load(id)?;
            let pairs = shadow.pairs()?;
            Ok((shadow, pairs))
        })?;
        checks::owner(&checks::table(shadow.relation)?)?;
        let mut rows = Vec::new();
        // Pairs that are being built for entities to come have nothing to say of those that are there.
        let pairs: Vec<_> = pairs.into_iter().filter(|p| !p.tentative).collect();
        for p in &pairs {
            if shadow.state.is_final() || !p.is_mirrored() {
                return Err(Error::new(
                    PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("shadow {id} is not mirrored"),
                )
                .detail(format!("Its state is \"{}\", the phase of a pair \"{}\".", shadow.state, p.phase))
                .hint("There are two equal sides from the mirror phase on until a migration is finalized."));
            }
        }
        // One snapshot for all pairs, newer than anything that the transaction may have.
        xact::fresh_snapshot(|| {
            for p in &pairs {
                rows.extend(as_superuser(|| {
                    verify::differences(&shadow, p, DIFFERENCES_MAX)
                })?);
            }
            Ok(())
        })?;
        Ok(rows)
    })());
    TableIterator::new(rows.into_iter().map(|d| (d.partition, d.key, d.what)))
}

type Route = (
    String,
    Option<pg_sys::Oid>,
    Option<String>,
    Option<i64>,
    Option<pg_sys::Oid>,
    Option<String>,
    Option<String>,
);

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn route(
    relation: pg_sys::Oid,
    entities: Vec<Option<String>>,
) -> TableIterator<
    'static,
    (
        name!(entity, String),
        name!(partition, Option<pg_sys::Oid>),
        name!(tablespace, Option<String>),
        name!(shadow_id, Option<i64>),
        name!(shadow, Option<pg_sys::Oid>),
        name!(shadow_tablespace, Option<String>),
        name!(state, Option<String>),
    ),
> {
    let rows = or_raise((|| {
        require_preload()?;
        let table = checks::table(relation)?;
        let allowed = sql::value::<bool>(
            "SELECT pg_catalog.has_table_privilege($1, 'SELECT')",
            &[relation.into()],
        )?;
        if allowed != Some(true) {
            checks::owner(&table)?;
        }
        let (root, column) = as_superuser(|| checks::managed(&table))?;
        let entities = checks::entities(root, &column, &entities)?;
        let mut rows: Vec<Route> = Vec::new();
        for entity in entities {
            let one = vec![entity.clone()];
            let leaves = as_superuser(|| accept::routable(root, &column, Some(&one)))?;
            for leaf in leaves {
                rows.push(as_superuser(|| describe(&entity, leaf))?);
            }
        }
        Ok(rows)
    })());
    TableIterator::new(rows)
}

/// Where one entity lives in one leaf, and what stands beside it.
fn describe(entity: &str, leaf: pg_sys::Oid) -> Result<Route> {
    let tablespace = tablespace_of(leaf)?;
    let rows = sql::query(
        "SELECT s.id, CASE WHEN p.swapped THEN p.primary_relid ELSE p.shadow_relid END, s.state
           FROM shadowpart.pair p JOIN shadowpart.shadow s ON s.id = p.shadow_id
          WHERE CASE WHEN p.swapped THEN p.shadow_relid ELSE p.primary_relid END = $1
            AND (s.entities IS NULL OR $2 = ANY (s.entities))
            AND s.state NOT IN ('finalized', 'dropped', 'failed', 'cancelled')
          ORDER BY s.id DESC LIMIT 1",
        &[leaf.into(), entity.into()],
        |row| {
            Ok((
                row.get::<i64>(1)?,
                row.get::<pg_sys::Oid>(2)?,
                row.get::<String>(3)?,
            ))
        },
    )?;
    let (id, other, state) = rows.into_iter().next().unwrap_or((None, None, None));
    let other_tablespace = match other {
        Some(other) => tablespace_of(other)?,
        None => None,
    };
    Ok((
        entity.to_owned(),
        Some(leaf),
        tablespace,
        id,
        other,
        other_tablespace,
        state,
    ))
}

fn tablespace_of(relid: pg_sys::Oid) -> Result<Option<String>> {
    sql::value::<String>(
        "SELECT t.spcname::text FROM pg_catalog.pg_class c
           JOIN pg_catalog.pg_tablespace t ON t.oid = coalesce(nullif(c.reltablespace, 0), (
                SELECT dattablespace FROM pg_catalog.pg_database WHERE datname = current_database()))
          WHERE c.oid = $1",
        &[relid.into()],
    )
}

//! The primary's indexes, constraints and foreign keys on the shadow.

use super::{Pair, Shadow, build};
use crate::pg::error::Result;
use crate::pg::sql;
use pgrx::prelude::*;

/// One index of the primary that the shadow lacks.
struct Missing {
    statement: String,
    name: String,
    constraint: Option<String>,
    clustered: bool,
    comment: Option<String>,
    /// Statistics targets of expression columns, by column number.
    targets: Vec<(i16, i32)>,
}

/// Builds the next missing index; false when there was none left. Among others who write, one process
/// does: parallel workers would take the CPUs from them.
pub fn build_next(shadow: &Shadow, pair: &Pair, among_others: bool) -> Result<bool> {
    let relid = pair.shadow()?;
    let table = sql::relation(relid)?;
    let Some(missing) = next_missing(pair, relid, &table)? else {
        return Ok(false);
    };
    sql::execute(
        &format!(
            "SET LOCAL default_tablespace = {}",
            sql::ident(&shadow.target)
        ),
        &[],
    )?;
    if among_others {
        sql::execute("SET LOCAL max_parallel_maintenance_workers = 0", &[])?;
    }
    // CREATE INDEX itself runs functions in expressions as the owner, restricted.
    sql::execute(&missing.statement, &[])?;
    if let Some(kind) = &missing.constraint {
        sql::execute(
            &format!(
                "ALTER TABLE {table} ADD CONSTRAINT {0} {kind} USING INDEX {0}",
                sql::ident(&missing.name)
            ),
            &[],
        )?;
    }
    let index = format!("{}.{}", build::schema_of(relid)?, sql::ident(&missing.name));
    if missing.clustered {
        sql::execute(
            &format!(
                "ALTER TABLE {table} CLUSTER ON {}",
                sql::ident(&missing.name)
            ),
            &[],
        )?;
    }
    for (column, target) in &missing.targets {
        sql::execute(
            &format!("ALTER INDEX {index} ALTER COLUMN {column} SET STATISTICS {target}"),
            &[],
        )?;
    }
    if let Some(comment) = &missing.comment {
        sql::execute(
            &format!("COMMENT ON INDEX {index} IS {}", sql::literal(comment)),
            &[],
        )?;
    }
    Ok(true)
}

/// How many indexes the primary has: the n-th that is built is named after the n-th.
fn next_missing(pair: &Pair, relid: pg_sys::Oid, table: &str) -> Result<Option<Missing>> {
    let have = sql::value::<i64>(
        "SELECT count(*) FROM pg_catalog.pg_index WHERE indrelid = $1",
        &[relid.into()],
    )?
    .unwrap_or(0);
    let rows = sql::query(
        "SELECT i.indexrelid, c.relname::text, pg_catalog.pg_get_indexdef(i.indexrelid),
                format('CREATE %sINDEX %I ON %I.%I ', CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END,
                       c.relname, tn.nspname, t.relname),
                CASE k.contype WHEN 'p' THEN 'PRIMARY KEY' WHEN 'u' THEN 'UNIQUE' END,
                i.indisclustered, pg_catalog.obj_description(i.indexrelid, 'pg_class'),
                i.indisunique
           FROM pg_catalog.pg_index i
           JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
           JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
           JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
           LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid
                     AND k.contype IN ('p', 'u')
          WHERE i.indrelid = $1 AND i.indisvalid AND i.indisready
          ORDER BY i.indexrelid OFFSET $2 LIMIT 1",
        &[pair.primary.into(), have.into()],
        |row| {
            Ok((
                row.get::<pg_sys::Oid>(1)?.unwrap_or(pg_sys::InvalidOid),
                row.get::<String>(3)?.unwrap_or_default(),
                row.get::<String>(4)?.unwrap_or_default(),
                row.get::<String>(5)?,
                row.get::<bool>(6)?.unwrap_or(false),
                row.get::<String>(7)?,
                row.get::<bool>(8)?.unwrap_or(false),
            ))
        },
    )?;
    let Some((source, definition, head, constraint, clustered, comment, unique)) =
        rows.into_iter().next()
    else {
        return Ok(None);
    };
    let targets = sql::query(
        "SELECT attnum, attstattarget::int FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attstattarget >= 0",
        &[source.into()],
        |row| {
            Ok((
                row.get::<i16>(1)?.unwrap_or(0),
                row.get::<i32>(2)?.unwrap_or(0),
            ))
        },
    )?;
    let name = name_like(pair, relid, source, have + 1)?;
    let tail = definition.strip_prefix(head.as_str()).unwrap_or_else(|| {
        error!("shadowpart: index definition \"{definition}\" does not begin with \"{head}\"")
    });
    Ok(Some(Missing {
        statement: format!(
            "CREATE {}INDEX {} ON {table} {tail}",
            if unique { "UNIQUE " } else { "" },
            sql::ident(&name)
        ),
        name,
        constraint,
        clustered,
        comment,
        targets,
    }))
}

/// The name of the primary's index `source` on the shadow: the same, with the shadow's name where the
/// primary's was, as PostgreSQL would name it; where that does not fit, the shadow's name and a number.
fn name_like(pair: &Pair, relid: pg_sys::Oid, source: pg_sys::Oid, number: i64) -> Result<String> {
    let like = sql::value::<String>(
        "SELECT s.relname || substr(i.relname, length(p.relname) + 1)
           FROM pg_catalog.pg_class p, pg_catalog.pg_class s, pg_catalog.pg_class i
          WHERE p.oid = $1 AND s.oid = $2 AND i.oid = $3 AND starts_with(i.relname, p.relname)
            AND length(i.relname) > length(p.relname)
            AND octet_length(s.relname || substr(i.relname, length(p.relname) + 1)) < 64",
        &[pair.primary.into(), relid.into(), source.into()],
    )?;
    match like {
        Some(name) => Ok(name),
        None => {
            let name = sql::value::<String>(
                "SELECT relname::text FROM pg_catalog.pg_class WHERE oid = $1",
                &[relid.into()],
            )?;
            Ok(build::cut(
                &name.unwrap_or_default(),
                &format!("_i{number}"),
            ))
        }
    }
}

/// Everything that hangs on the indexes or has to wait until the rows are there: foreign keys, replica
/// identity, triggers that only this leaf has, statistics.
pub fn finish(pair: &Pair) -> Result<()> {
    let relid = pair.shadow()?;
    let table = sql::relation(relid)?;
    // The rows are rows of the primary, which satisfies the key; ATTACH then adopts it as it is.
    let keys = sql::query(
        "SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s NOT VALID', $2, conname,
                       regexp_replace(pg_catalog.pg_get_constraintdef(oid), ' NOT VALID$', ''))
           FROM pg_catalog.pg_constraint k WHERE conrelid = $1 AND contype = 'f' AND conparentid = 0
             OR conrelid = $1 AND contype = 'f' AND NOT EXISTS (
                    SELECT FROM pg_catalog.pg_constraint p WHERE p.oid = k.conparentid AND p.conrelid = $1)
          ORDER BY oid",
        &[pair.primary.into(), table.as_str().into()],
        |row| row.get::<String>(1),
    )?;
    for statement in keys.into_iter().flatten() {
        sql::execute(&statement, &[])?;
    }
    sql::execute(
        "UPDATE pg_catalog.pg_constraint SET convalidated = true WHERE conrelid = $1 AND contype = 'f'",
        &[relid.into()],
    )?;
    replica_identity(pair, relid, &table)?;
    own_triggers(pair, &table)?;
    sequences(pair, relid)
}

fn replica_identity(pair: &Pair, relid: pg_sys::Oid, table: &str) -> Result<()> {
    let (kind, position, source) = sql::query(
        "SELECT c.relreplident::text, (SELECT count(*) FROM pg_catalog.pg_index j
                  WHERE j.indrelid = c.oid AND j.indisvalid AND j.indisready AND j.indexrelid <= i.indexrelid), i.indexrelid
           FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisreplident
          WHERE c.oid = $1",
        &[pair.primary.into()],
        |row| {
            Ok((
                row.get::<String>(1)?.unwrap_or_default(),
                row.get::<i64>(2)?.unwrap_or(0),
                row.get::<pg_sys::Oid>(3)?.unwrap_or(pg_sys::InvalidOid),
            ))
        },
    )?
    .into_iter()
    .next()
    .unwrap_or((String::new(), 0, pg_sys::InvalidOid));
    let clause = match kind.as_str() {
        "f" => "FULL".to_owned(),
        "n" => "NOTHING".to_owned(),
        "i" => {
            let name = name_like(pair, relid, source, position)?;
            format!("USING INDEX {}", sql::ident(&name))
        }
        _ => return Ok(()),
    };
    sql::execute(
        &format!("ALTER TABLE {table} REPLICA IDENTITY {clause}"),
        &[],
    )?;
    Ok(())
}

/// Triggers that were created on the leaf itself; those of its parents come with ATTACH.
fn own_triggers(pair: &Pair, table: &str) -> Result<()> {
    let triggers = sql::query(
        "SELECT pg_catalog.pg_get_triggerdef(g.oid), format(' ON %I.%I ', n.nspname, t.relname), g.tgenabled::text,
                quote_ident(g.tgname)
           FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_class t ON t.oid = g.tgrelid
           JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
          WHERE g.tgrelid = $1 AND NOT g.tgisinternal AND g.tgparentid = 0 ORDER BY g.oid",
        &[pair.primary.into()],
        |row| {
            Ok((
                row.get::<String>(1)?.unwrap_or_default(),
                row.get::<String>(2)?.unwrap_or_default(),
                row.get::<String>(3)?.unwrap_or_default(),
                row.get::<String>(4)?.unwrap_or_default(),
            ))
        },
    )?;
    for (definition, place, enabled, name) in triggers {
        sql::execute(
            &definition.replacen(&place, &format!(" ON {table} "), 1),
            &[],
        )?;
        let state = match enabled.as_str() {
            "D" => "DISABLE",
            "R" => "ENABLE REPLICA",
            "A" => "ENABLE ALWAYS",
            _ => continue,
        };
        sql::execute(&format!("ALTER TABLE {table} {state} TRIGGER {name}"), &[])?;
    }
    Ok(())
}

/// A leaf's own identity sequences go on where the primary's are.
fn sequences(pair: &Pair, relid: pg_sys::Oid) -> Result<()> {
    sql::execute(
        "SELECT pg_catalog.setval(d.s, nextval(o.s), true)
           FROM (SELECT a.attname, pg_catalog.pg_get_serial_sequence($1::regclass::text, a.attname)::regclass AS s
                   FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 AND a.attidentity <> '') o
           JOIN (SELECT a.attname, pg_catalog.pg_get_serial_sequence($2::regclass::text, a.attname)::regclass AS s
                   FROM pg_catalog.pg_attribute a WHERE a.attrelid = $2 AND a.attidentity <> '') d USING (attname)
          WHERE o.s IS NOT NULL AND d.s IS NOT NULL AND o.s <> d.s",
        &[pair.primary.into(), relid.into()],
    )?;
    Ok(())
}

/// Rows that were copied twice because they moved between chunks are in the delta: out with them, before a
/// unique index is built. They come back with the catch-up.
pub fn remove_captured(pair: &Pair) -> Result<()> {
    let keys: Vec<String> = pair.key_columns.iter().map(|k| sql::ident(k)).collect();
    let (table, delta) = (
        sql::relation(pair.shadow()?)?,
        sql::relation(pair.delta()?)?,
    );
    let list = keys.join(", ");
    let statement = format!(
        "DELETE FROM ONLY {table} s USING (SELECT DISTINCT {list} FROM {delta}) d WHERE ({}) = ({})",
        keys.iter()
            .map(|k| format!("s.{k}"))
            .collect::<Vec<_>>()
            .join(", "),
        keys.iter()
            .map(|k| format!("d.{k}"))
            .collect::<Vec<_>>()
            .join(", "),
    );
    sql::execute(&statement, &[])?;
    Ok(())
}

/// Statistics, so that the first plan after the swap is as good as the last one before. Where somebody else is
/// seeing to them, or rebuilding the table, that is not waited for.
pub fn analyze(pair: &Pair) -> Result<()> {
    let table = sql::relation(pair.shadow()?)?;
    sql::execute(&format!("ANALYZE (SKIP_LOCKED) {table}"), &[])?;
    Ok(())
}

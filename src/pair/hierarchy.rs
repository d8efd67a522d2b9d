//! The place of a pair among the partitions: wrap a leaf, let a shadow join, let it leave, unwrap.
//!
//! DDL does the work; around it, within the same transaction, catalog rows are put aside or completed so
//! that nothing that is known already is scanned for. Each such place says why it is sound.

use super::{Pair, Shadow, build, swap, trigger};
use crate::pg::error::{Error, Result};
use crate::pg::sql;
use crate::planner::sight::SeeNothingOf;
use pgrx::prelude::*;

/// Parent of a partition.
pub fn parent_of(relid: pg_sys::Oid) -> Result<Option<pg_sys::Oid>> {
    sql::value::<pg_sys::Oid>(
        "SELECT inhparent FROM pg_catalog.pg_inherits WHERE inhrelid = $1",
        &[relid.into()],
    )
}

/// Whether a table can take shadows of its partitions as it is: LIST-partitioned by the entity column.
pub fn is_wrapper(relid: pg_sys::Oid, column: &str) -> Result<bool> {
    Ok(sql::value::<bool>(
        "SELECT p.partstrat = 'l' AND p.partnatts = 1 AND a.attname = $2 AND p.partcollation[0] = a.attcollation
                AND (SELECT o.opcdefault FROM pg_catalog.pg_opclass o WHERE o.oid = p.partclass[0])
           FROM pg_catalog.pg_partitioned_table p
           JOIN pg_catalog.pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
          WHERE p.partrelid = $1",
        &[relid.into(), column.into()],
    )?
    .unwrap_or(false))
}

/// Text of a relation's partition constraint, `true` where it has none.
fn constraint_of(relid: pg_sys::Oid) -> Result<String> {
    Ok(sql::value::<String>(
        "SELECT pg_catalog.pg_get_partition_constraintdef($1)",
        &[relid.into()],
    )?
    .filter(|t| !t.trim().is_empty())
    .unwrap_or_else(|| "true".into()))
}

fn bound_of(relid: pg_sys::Oid) -> Result<String> {
    Ok(sql::value::<String>(
        "SELECT pg_catalog.pg_get_expr(relpartbound, oid) FROM pg_catalog.pg_class WHERE oid = $1",
        &[relid.into()],
    )?
    .unwrap_or_default())
}

/// Gives `relid` a CHECK constraint that is marked valid without a scan. The caller knows that every
/// visible row satisfies it; it goes again in the same transaction.
fn known_to_hold(relid: pg_sys::Oid, name: &str, expression: &str) -> Result<()> {
    let table = sql::relation(relid)?;
    sql::execute(
        &format!("ALTER TABLE ONLY {table} ADD CONSTRAINT {name} CHECK ({expression}) NOT VALID"),
        &[],
    )?;
    sql::execute(
        "UPDATE pg_catalog.pg_constraint SET convalidated = true WHERE conrelid = $1 AND conname = $2",
        &[relid.into(), name.into()],
    )?;
    // SAFETY: makes the change visible to the statements that follow; the constraint is ours.
    unsafe {
        pg_sys::CommandCounterIncrement();
        forget_hash_collation(relid, name)?;
    }
    trigger::invalidate(relid);
    // SAFETY: as above.
    unsafe { pg_sys::CommandCounterIncrement() };
    Ok(())
}

/// Makes the call of `satisfies_hash_partition` in a CHECK constraint the one that PostgreSQL makes for a
/// HASH partition: without an input collation, which the parser gives it where the key is text. ATTACH
/// compares the two node by node, and would scan every row if they differed.
unsafe fn forget_hash_collation(relid: pg_sys::Oid, name: &str) -> Result<()> {
    // SAFETY: an update of one row of pg_constraint, of a constraint made in this transaction.
    unsafe {
        let oid = sql::value::<pg_sys::Oid>(
            "SELECT oid FROM pg_catalog.pg_constraint WHERE conrelid = $1 AND conname = $2",
            &[relid.into(), name.into()],
        )?
        .unwrap_or(pg_sys::InvalidOid);
        let cache = pg_sys::SysCacheIdentifier::CONSTROID as i32;
        let tuple = pg_sys::SearchSysCacheCopy(
            cache,
            oid.into(),
            pg_sys::Datum::from(0),
            pg_sys::Datum::from(0),
            pg_sys::Datum::from(0),
        );
        if tuple.is_null() {
            return Ok(());
        }
        // pg_constraint, which pgrx's bindings leave out.
        let catalog_oid = pg_sys::Oid::from(2606);
        let column = pg_sys::get_attnum(catalog_oid, c"conbin".as_ptr()) as usize - 1;
        let mut null = false;
        let datum = pg_sys::SysCacheGetAttr(cache, tuple, column as i16 + 1, &mut null);
        if null {
            return Ok(());
        }
        let text = std::ffi::CStr::from_ptr(pg_sys::text_to_cstring(datum.cast_mut_ptr()))
            .to_string_lossy();
        let function = format!(":funcid {} ", pg_sys::F_SATISFIES_HASH_PARTITION);
        let mut changed = String::with_capacity(text.len());
        let mut rest = text.as_ref();
        while let Some(at) = rest.find(&function) {
            let (before, call) = rest.split_at(at);
            let Some(start) = call.find(":inputcollid ") else {
                break;
            };
            let start = start + ":inputcollid ".len();
            let digits = call[start..].bytes().take_while(u8::is_ascii_digit).count();
            changed.push_str(before);
            changed.push_str(&call[..start]);
            changed.push('0');
            rest = &call[start + digits..];
        }
        changed.push_str(rest);
        let changed = std::ffi::CString::new(changed).unwrap_or_default();
        let catalog = pg_sys::table_open(catalog_oid, pg_sys::RowExclusiveLock as i32);
        let columns = (*(*catalog).rd_att).natts as usize;
        let mut values = vec![pg_sys::Datum::from(0); columns];
        let mut nulls = vec![false; columns];
        let mut replace = vec![false; columns];
        values[column] = pg_sys::Datum::from(pg_sys::cstring_to_text(changed.as_ptr()));
        replace[column] = true;
        let new = pg_sys::heap_modify_tuple(
            tuple,
            (*catalog).rd_att,
            values.as_mut_ptr(),
            nulls.as_mut_ptr(),
            replace.as_mut_ptr(),
        );
        pg_sys::CatalogTupleUpdate(catalog, &mut (*new).t_self, new);
        pg_sys::table_close(catalog, pg_sys::RowExclusiveLock as i32);
        Ok(())
    }
}

/// Runs `work` while the DEFAULT partition of `parent` is out of sight of DDL.
///
/// A new partition is otherwise compared with every row of the DEFAULT one, under ACCESS EXCLUSIVE. The row
/// of pg_inherits is put aside and back within this transaction, and nobody else sees it gone. Sound
/// when the DEFAULT partition has no visible row that belongs to the new partition.
fn without_default<T>(parent: pg_sys::Oid, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let aside = sql::query(
        "WITH gone AS (
             DELETE FROM pg_catalog.pg_inherits i USING pg_catalog.pg_class c
              WHERE i.inhparent = $1 AND c.oid = i.inhrelid AND pg_catalog.pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT'
             RETURNING i.inhrelid, i.inhseqno)
         SELECT inhrelid, inhseqno FROM gone",
        &[parent.into()],
        |row| Ok((row.get::<pg_sys::Oid>(1)?, row.get::<i32>(2)?)),
    )?;
    trigger::invalidate(parent);
    // SAFETY: as above.
    unsafe { pg_sys::CommandCounterIncrement() };
    let value = work()?;
    for (child, seqno) in aside {
        sql::execute(
            "INSERT INTO pg_catalog.pg_inherits (inhrelid, inhparent, inhseqno, inhdetachpending)
             VALUES ($1, $2, $3, false)",
            &[child.into(), parent.into(), seqno.into()],
        )?;
        if let Some(child) = child {
            trigger::invalidate(child);
        }
    }
    trigger::invalidate(parent);
    // SAFETY: as above.
    unsafe { pg_sys::CommandCounterIncrement() };
    Ok(value)
}

/// Puts a wrapper in the place of the pair's primary, which becomes its DEFAULT partition.
pub fn wrap(shadow: &Shadow, pair: &mut Pair) -> Result<()> {
    let parent = parent_of(pair.primary)?.ok_or_else(|| {
        Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "relation with OID {} is no partition any more",
                pair.primary.to_u32()
            ),
        )
    })?;
    swap::lock(parent, pg_sys::AccessExclusiveLock)?;
    swap::lock(pair.primary, pg_sys::AccessExclusiveLock)?;
    let bound = bound_of(pair.primary)?;
    let constraint = constraint_of(pair.primary)?;
    let (schema, name) = build::name_beside(pair.primary, &format!("_w{}", pair.id))?;
    let wrapper = format!("{}.{}", sql::ident(&schema), sql::ident(&name));
    replace(
        parent,
        pair.primary,
        &bound,
        &constraint,
        |parent_table, bound| {
            sql::execute(
                &format!(
                    "CREATE TABLE {wrapper} PARTITION OF {parent_table} {bound} PARTITION BY LIST ({})",
                    sql::ident(&shadow.entity_column)
                ),
                &[],
            )?;
            Ok(wrapper.clone())
        },
    )?;
    let relid = sql::value::<pg_sys::Oid>("SELECT $1::regclass::oid", &[wrapper.as_str().into()])?
        .unwrap_or(pg_sys::InvalidOid);
    build::copy_attributes(pair.primary, relid, &wrapper)?;
    pair.wrapper = Some(relid);
    pair.wrapped = true;
    Ok(())
}

/// Detaches `leaf` from `parent`, lets `make` put a partitioned table in its place, attaches the leaf to
/// that as DEFAULT.
fn replace(
    parent: pg_sys::Oid,
    leaf: pg_sys::Oid,
    bound: &str,
    constraint: &str,
    make: impl FnOnce(&str, &str) -> Result<String>,
) -> Result<()> {
    let parent_table = sql::relation(parent)?;
    let leaf_table = sql::relation(leaf)?;
    detach(parent, leaf)?;
    crate::failpoint!("wrap-detached");
    // Rows of the leaf satisfied its constraint a moment ago and nobody could write since. Siblings hold none
    // of them for the same reason, the DEFAULT one included.
    known_to_hold(leaf, "shadowpart_known", constraint)?;
    let wrapper = without_default(parent, || make(&parent_table, bound))?;
    sql::execute(
        &format!("ALTER TABLE {wrapper} ATTACH PARTITION {leaf_table} DEFAULT"),
        &[],
    )?;
    sql::execute(
        &format!("ALTER TABLE {leaf_table} DROP CONSTRAINT shadowpart_known"),
        &[],
    )?;
    Ok(())
}

/// DETACH without the scans by which it looks for references into the partition: the rows stay rows of
/// the same table, or, for a shadow that owns nothing, are none.
fn detach(parent: pg_sys::Oid, leaf: pg_sys::Oid) -> Result<()> {
    let _blind = SeeNothingOf::new(&[leaf]);
    sql::execute(
        &format!(
            "ALTER TABLE {} DETACH PARTITION {}",
            sql::relation(parent)?,
            sql::relation(leaf)?
        ),
        &[],
    )?;
    Ok(())
}

/// Attaches the shadow to the wrapper with a bound that owns no entity.
pub fn join(shadow: &Shadow, pair: &mut Pair) -> Result<()> {
    let wrapper = pair.wrapper()?;
    let relid = pair.shadow()?;
    // Plans made before it was marked must be gone, or hold a lock that is waited for, before it changes.
    swap::lock(wrapper, pg_sys::ShareRowExclusiveLock)?;
    trigger::mark(pair, wrapper, pg_sys::InvalidOid)?;
    pair.reserved = choose_reserved(shadow, pair)?;
    let (test, value) = match &pair.reserved {
        None => (
            format!("{} IS NULL", sql::ident(&shadow.entity_column)),
            "NULL".to_owned(),
        ),
        Some(value) => {
            let column = super::members::column(relid, &shadow.entity_column)?;
            let literal = format!("{}::{}", sql::literal(value), column.base_type);
            (
                format!(
                    "{0} IS NOT NULL AND {1}",
                    sql::ident(&shadow.entity_column),
                    column.is_member("", Some(std::slice::from_ref(value)))?
                ),
                literal,
            )
        }
    };
    let wrapper_constraint = constraint_of(wrapper)?;
    let table = sql::relation(relid)?;
    sql::execute(
        &format!("ALTER EXTENSION shadowpart DROP TABLE {table}"),
        &[],
    )?;
    // Nothing of the shadow is visible under this bound, whatever rows it has: the planner filters them.
    known_to_hold(
        relid,
        "shadowpart_known",
        &format!("{test} AND {wrapper_constraint}"),
    )?;
    without_default(wrapper, || {
        sql::execute(
            &format!(
                "ALTER TABLE {} ATTACH PARTITION {table} FOR VALUES IN ({value})",
                sql::relation(wrapper)?
            ),
            &[],
        )
        .map(|_| ())
    })?;
    crate::failpoint!("join-attached");
    sql::execute(
        &format!("ALTER TABLE {table} DROP CONSTRAINT shadowpart_known"),
        &[],
    )?;
    sql::execute(
        "UPDATE shadowpart.pair SET wrapper_relid = $2, wrapped = $3, reserved = $4 WHERE id = $1",
        &[
            pair.id.into(),
            wrapper.into(),
            pair.wrapped.into(),
            pair.reserved.clone().into(),
        ],
    )?;
    trigger::refuse_reserved(shadow, pair)
}

/// A value that is no entity. NULL, where no partition has it yet: entity columns are NOT NULL, so nobody
/// can ever write it. Else one far out, which a trigger refuses while it is reserved.
fn choose_reserved(shadow: &Shadow, pair: &Pair) -> Result<Option<String>> {
    let wrapper = pair.wrapper()?;
    let taken = sql::value::<bool>(
        "SELECT coalesce(bool_or(pg_catalog.pg_get_expr(c.relpartbound, c.oid) ~ '[(, ]NULL[,)]'), false)
           FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = $1",
        &[wrapper.into()],
    )?
    .unwrap_or(true);
    if !taken {
        return Ok(None);
    }
    let (typid, typmod) = sql::query(
        "SELECT atttypid, atttypmod FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attname = $2",
        &[pair.primary.into(), shadow.entity_column.as_str().into()],
        |row| Ok((row.get::<pg_sys::Oid>(1)?.unwrap_or(pg_sys::InvalidOid), row.get::<i32>(2)?.unwrap_or(-1))),
    )?
    .into_iter()
    .next()
    .unwrap_or((pg_sys::InvalidOid, -1));
    let n = pair.id;
    let text = sql::value::<String>("SELECT md5(random()::text || $1::text)", &[n.into()])?
        .unwrap_or_default();
    let value = match typid {
        pg_sys::INT2OID => Some((-32768 + n % 10_000).to_string()),
        pg_sys::INT4OID => Some((i64::from(i32::MIN) + n % 1_000_000_000).to_string()),
        pg_sys::INT8OID => Some((i64::MIN + n % 1_000_000_000_000).to_string()),
        pg_sys::OIDOID => Some((4_294_000_000 + n % 900_000).to_string()),
        pg_sys::UUIDOID => Some(text),
        pg_sys::TEXTOID => Some(format!("shadowpart reserved {text}")),
        pg_sys::VARCHAROID | pg_sys::BPCHAROID if typmod < 0 => {
            Some(format!("shadowpart reserved {text}"))
        }
        pg_sys::VARCHAROID | pg_sys::BPCHAROID if typmod - 4 >= 8 => {
            Some(text.chars().take(typmod as usize - 4).collect())
        }
        pg_sys::NUMERICOID if typmod < 0 => Some((i128::from(n) - i128::MAX).to_string()),
        pg_sys::DATEOID => Some(format!("{:04}-01-01 BC", 4000 - n % 3900)),
        pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID => {
            Some(format!("{:04}-01-01 00:00:00 BC", 4000 - n % 3900))
        }
        _ => None,
    };
    value.map(Some).ok_or_else(|| {
        Error::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "this partition already has a shadow, and its entity column's type has no room for another",
        )
        .detail("Each live shadow holds its place with a value that is no entity; this type has only NULL to offer.")
        .hint("Finalize or drop the other shadow of this partition first.")
    })
}

/// Takes a shadow that owns nothing out of the wrapper and drops it.
pub fn leave(pair: &Pair) -> Result<()> {
    let Some(relid) = pair.shadow else {
        return Ok(());
    };
    let Ok(table) = sql::relation(relid) else {
        return Ok(());
    };
    if let Some(parent) = parent_of(relid)? {
        swap::lock(parent, pg_sys::AccessExclusiveLock)?;
        swap::lock(relid, pg_sys::AccessExclusiveLock)?;
        detach(parent, relid)?;
        crate::failpoint!("drop-detached");
    } else {
        swap::lock(relid, pg_sys::AccessExclusiveLock)?;
        sql::execute(
            &format!("ALTER EXTENSION shadowpart DROP TABLE {table}"),
            &[],
        )?;
    }
    sql::execute(&format!("DROP TABLE {table}"), &[])?;
    Ok(())
}

/// Drops what was the primary, when rows can no longer be routed to it.
pub fn retire_primary(pair: &Pair) -> Result<()> {
    let Ok(table) = sql::relation(pair.primary) else {
        return Ok(());
    };
    let wrapper = pair.wrapper()?;
    swap::lock(wrapper, pg_sys::AccessExclusiveLock)?;
    swap::lock(pair.primary, pg_sys::AccessExclusiveLock)?;
    // Sequences that belong to its columns serve the shadow's defaults from here on.
    let sequences = sql::query(
        "SELECT format('ALTER SEQUENCE %s OWNED BY %s.%I', d.objid::regclass, $2::regclass, a.attname)
           FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
           JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind = 'S'
          WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
            AND d.refobjid = $1 AND d.deptype = 'a'",
        &[pair.primary.into(), pair.shadow()?.into()],
        |row| row.get::<String>(1),
    )?;
    for statement in sequences.into_iter().flatten() {
        sql::execute(&statement, &[])?;
    }
    detach(wrapper, pair.primary)?;
    sql::execute(&format!("DROP TABLE {table}"), &[])?;
    Ok(())
}

/// Takes a wrapper of ours away when one partition is left that owns everything it can get; that partition
/// takes its place again.
///
/// Returns false when the wrapper is still needed, or is none of ours.
pub fn unwrap(wrapper: pg_sys::Oid) -> Result<bool> {
    let Ok(wrapper_table) = sql::relation(wrapper) else {
        return Ok(false);
    };
    let Some(parent) = parent_of(wrapper)? else {
        return Ok(false);
    };
    swap::lock(parent, pg_sys::AccessExclusiveLock)?;
    swap::lock(wrapper, pg_sys::AccessExclusiveLock)?;
    let children = sql::query(
        "SELECT i.inhrelid, pg_catalog.pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT'
           FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = $1",
        &[wrapper.into()],
        |row| Ok((row.get::<pg_sys::Oid>(1)?.unwrap_or(pg_sys::InvalidOid), row.get::<bool>(2)?.unwrap_or(false))),
    )?;
    let [(leaf, true)] = children[..] else {
        return Ok(false);
    };
    swap::lock(leaf, pg_sys::AccessExclusiveLock)?;
    let parent_table = sql::relation(parent)?;
    let bound = bound_of(wrapper)?;
    let constraint = constraint_of(wrapper)?;
    let leaf_table = sql::relation(leaf)?;
    let _blind = SeeNothingOf::new(&[leaf]);
    sql::execute(
        &format!("ALTER TABLE {wrapper_table} DETACH PARTITION {leaf_table}"),
        &[],
    )?;
    sql::execute(
        &format!("ALTER TABLE {parent_table} DETACH PARTITION {wrapper_table}"),
        &[],
    )?;
    sql::execute(&format!("DROP TABLE {wrapper_table}"), &[])?;
    // The rows satisfied the wrapper's constraint a moment ago; see `replace`.
    known_to_hold(leaf, "shadowpart_known", &constraint)?;
    without_default(parent, || {
        sql::execute(
            &format!("ALTER TABLE {parent_table} ATTACH PARTITION {leaf_table} {bound}"),
            &[],
        )
        .map(|_| ())
    })?;
    sql::execute(
        &format!("ALTER TABLE {leaf_table} DROP CONSTRAINT shadowpart_known"),
        &[],
    )?;
    Ok(true)
}

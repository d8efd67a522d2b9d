//! Is this a table, an entity, a target that we can work with? Each check names what is wrong, what is
//! there instead, and what to do.

use crate::pair::members;
use crate::pg::error::{Error, Result};
use crate::pg::sql;
use pgrx::prelude::*;

/// A table as the checks need to know it.
pub struct Table {
    pub relid: pg_sys::Oid,
    /// `schema.name`, quoted.
    pub name: String,
    pub kind: String,
    pub is_partition: bool,
}

fn refuse(code: PgSqlErrorCode, message: impl Into<String>) -> Error {
    Error::new(code, message)
}

pub fn table(relid: pg_sys::Oid) -> Result<Table> {
    let rows = sql::query(
        "SELECT format('%I.%I', n.nspname, c.relname), c.relkind::text, c.relispartition, c.relpersistence::text
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
        &[relid.into()],
        |row| {
            Ok((
                row.get::<String>(1)?.unwrap_or_default(),
                row.get::<String>(2)?.unwrap_or_default(),
                row.get::<bool>(3)?.unwrap_or(false),
                row.get::<String>(4)?.unwrap_or_default(),
            ))
        },
    )?;
    let Some((name, kind, is_partition, persistence)) = rows.into_iter().next() else {
        return Err(refuse(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("relation with OID {} does not exist", relid.to_u32()),
        )
        .hint("Give the name of a partitioned table."));
    };
    if persistence == "t" {
        return Err(refuse(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("{name} is a temporary table"),
        )
        .detail("Only its own session can see it; a background worker cannot.")
        .hint("Use a permanent or an unlogged table."));
    }
    Ok(Table {
        relid,
        name,
        kind,
        is_partition,
    })
}

/// The caller owns the table, or is a superuser.
pub fn owner(table: &Table) -> Result<()> {
    // SAFETY: a catalog look-up about the current user.
    let owns = unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let owns = pg_sys::pg_class_ownercheck(table.relid, pg_sys::GetUserId());
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let owns =
            pg_sys::object_ownercheck(pg_sys::RelationRelationId, table.relid, pg_sys::GetUserId());
        owns
    };
    if owns {
        return Ok(());
    }
    Err(refuse(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("must be owner of table {}", table.name),
    )
    .detail("Shadows of a table are its owner's business.")
    .hint("Ask the owner, or become a member of the owning role."))
}

/// A partitioned table that can be managed.
pub fn partitioned(table: &Table) -> Result<()> {
    let (what, hint) = match table.kind.as_str() {
        "p" => return Ok(()),
        "r" => (
            "is not partitioned",
            "Plain tables cannot be managed yet; partition the table (by hash of the entity column, for example).",
        ),
        "v" => ("is a view", "Manage the partitioned table below it."),
        "m" => (
            "is a materialized view",
            "Manage the partitioned table below it.",
        ),
        "f" => (
            "is a foreign table",
            "Manage a partitioned table on this server.",
        ),
        "i" | "I" => ("is an index", "Give the name of its table."),
        "S" => ("is a sequence", "Give the name of a partitioned table."),
        _ => ("is not a table", "Give the name of a partitioned table."),
    };
    let code = if table.kind == "r" {
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED
    } else {
        PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE
    };
    Err(refuse(code, format!("{} {what}", table.name))
        .detail("shadow_manage() takes tables with native declarative partitioning.")
        .hint(hint))
}

/// The entity column exists, cannot be NULL, and has an equality that partitions can be made by.
pub fn entity_column(table: &Table, column: &str) -> Result<()> {
    let rows = sql::query(
        "SELECT attnotnull, attgenerated <> '' FROM pg_catalog.pg_attribute
          WHERE attrelid = $1 AND attname = $2 AND attnum > 0 AND NOT attisdropped",
        &[table.relid.into(), column.into()],
        |row| {
            Ok((
                row.get::<bool>(1)?.unwrap_or(false),
                row.get::<bool>(2)?.unwrap_or(false),
            ))
        },
    )?;
    let Some((not_null, generated)) = rows.into_iter().next() else {
        let columns = sql::value::<String>(
            "SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_catalog.pg_attribute
              WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped",
            &[table.relid.into()],
        )?;
        return Err(refuse(
            PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
            format!("column \"{column}\" of table {} does not exist", table.name),
        )
        .detail(format!("Its columns are {}.", columns.unwrap_or_default()))
        .hint("Name the column that holds the entity (tenant) of each row."));
    };
    members::column(table.relid, column)?;
    if generated {
        return Err(refuse(
            PgSqlErrorCode::ERRCODE_INVALID_TABLE_DEFINITION,
            format!("column \"{column}\" of table {} is generated", table.name),
        )
        .detail("PostgreSQL does not partition by generated columns.")
        .hint("Use an ordinary column as the entity column."));
    }
    if !not_null {
        return Err(refuse(
            PgSqlErrorCode::ERRCODE_INVALID_TABLE_DEFINITION,
            format!(
                "entity column \"{column}\" of table {} may be NULL",
                table.name
            ),
        )
        .detail("A row without an entity would belong to nobody.")
        .hint(format!(
            "ALTER TABLE {} ALTER COLUMN {} SET NOT NULL, or make it part of the primary key.",
            table.name,
            sql::ident(column)
        )));
    }
    Ok(())
}

/// Every unique key contains the entity column, and one of them identifies rows.
pub fn keys(table: &Table, column: &str) -> Result<()> {
    let bad = sql::query(
        "SELECT c.relname::text, k.conname IS NOT NULL, NOT i.indimmediate
           FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
           JOIN shadowpart.tree($1) t ON t.relid = i.indrelid
           LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
          WHERE (i.indisunique OR i.indisexclusion)
            AND (NOT i.indimmediate OR NOT EXISTS (
                    SELECT FROM pg_catalog.pg_attribute a
                     WHERE a.attrelid = i.indrelid AND a.attname = $2
                       AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])))
          ORDER BY t.level, c.relname LIMIT 1",
        &[table.relid.into(), column.into()],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<bool>(3)?.unwrap_or(false))),
    )?;
    if let Some((index, deferrable)) = bad.into_iter().next() {
        return Err(if deferrable {
            refuse(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("key \"{index}\" of table {} is deferrable", table.name),
            )
            .detail(
                "Rows with the same key may then exist for a while, and could not be told apart.",
            )
            .hint("Make the key NOT DEFERRABLE.")
        } else {
            refuse(
                PgSqlErrorCode::ERRCODE_INVALID_TABLE_DEFINITION,
                format!("unique key \"{index}\" of table {} does not contain \"{column}\"", table.name),
            )
            .detail("Once an entity lives in a partition of its own, PostgreSQL can only enforce keys with its column.")
            .hint(format!("Add \"{column}\" to the key, or drop the key."))
        });
    }
    let leaves = leaves(table.relid)?;
    let some_key = match leaves.first() {
        Some(leaf) => crate::job::accept::key_columns(*leaf).map(|_| ()),
        None => crate::job::accept::key_columns(table.relid).map(|_| ()),
    };
    some_key.map_err(|_| {
        refuse(
            PgSqlErrorCode::ERRCODE_INVALID_TABLE_DEFINITION,
            format!(
                "table {} has no primary key and no unique key without NULLs",
                table.name
            ),
        )
        .detail("Rows are found in the shadow by their key.")
        .hint(format!(
            "Add a primary key that contains \"{column}\" and the partition columns."
        ))
    })
}

/// All leaf partitions.
pub fn leaves(relid: pg_sys::Oid) -> Result<Vec<pg_sys::Oid>> {
    let rows = sql::query(
        "SELECT t.relid::oid FROM shadowpart.tree($1) t JOIN pg_catalog.pg_class c ON c.oid = t.relid
          WHERE t.isleaf ORDER BY 1",
        &[relid.into()],
        |row| row.get::<pg_sys::Oid>(1),
    )?;
    Ok(rows.into_iter().flatten().collect())
}

/// Not in a publication: hidden rows would be decoded as changes of live ones.
pub fn unpublished(table: &Table) -> Result<()> {
    let publication = sql::value::<String>(
        "SELECT p.pubname::text FROM pg_catalog.pg_publication p
          WHERE p.puballtables
             OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel r
                         WHERE r.prpubid = p.oid
                           AND r.prrelid IN (SELECT relid FROM shadowpart.tree($1)
                                             UNION SELECT relid FROM pg_catalog.pg_partition_ancestors($1)))
             OR p.oid IN (SELECT s.pnpubid FROM pg_catalog.pg_publication_namespace s
                           JOIN pg_catalog.pg_class c ON c.relnamespace = s.pnnspid
                          WHERE c.oid IN (SELECT relid FROM shadowpart.tree($1)))
          LIMIT 1",
        &[table.relid.into()],
    )?;
    match publication {
        None => Ok(()),
        Some(name) => Err(refuse(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("table {} is in publication \"{name}\"", table.name),
        )
        .detail("Logical replication reads the heap and would publish mirrored rows a second time. Not supported yet.")
        .hint("Take the table out of the publication while it has shadows.")),
    }
}

/// A foreign partition cannot be shadowed yet.
pub fn local_leaves(table: &Table) -> Result<()> {
    let foreign = sql::value::<String>(
        "SELECT t.relid::regclass::text FROM shadowpart.tree($1) t
           JOIN pg_catalog.pg_class c ON c.oid = t.relid WHERE c.relkind = 'f' LIMIT 1",
        &[table.relid.into()],
    )?;
    match foreign {
        None => Ok(()),
        Some(name) => Err(refuse(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!(
                "partition {name} of table {} is a foreign table",
                table.name
            ),
        )
        .detail("Shadows on other servers are not supported yet.")
        .hint("Detach the foreign partition.")),
    }
}

/// The managed table that a relation is or belongs to, with its entity column.
pub fn managed(table: &Table) -> Result<(pg_sys::Oid, String)> {
    let rows = sql::query(
        "SELECT m.relation::oid, m.entity_column::text FROM shadowpart.managed m
          WHERE m.relation = $1
             OR m.relation IN (SELECT relid FROM pg_catalog.pg_partition_ancestors($1))
          ORDER BY m.relation = $1 DESC LIMIT 1",
        &[table.relid.into()],
        |row| Ok((row.get::<pg_sys::Oid>(1)?, row.get::<String>(2)?)),
    )?;
    match rows.into_iter().next() {
        Some((Some(root), Some(column))) => Ok((root, column)),
        _ => {
            partitioned(table)?;
            Err(refuse(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("table {} is not managed", table.name),
            )
            .detail("shadowpart has to know which column names the entity.")
            .hint(format!(
                "SELECT shadow_manage({}, 'tenant_id') with the column of yours.",
                sql::literal(&table.name)
            )))
        }
    }
}

/// Entities in the text form that their type gives them; each must be a value of the column's type.
pub fn entities(root: pg_sys::Oid, column: &str, given: &[Option<String>]) -> Result<Vec<String>> {
    if given.is_empty() {
        return Err(refuse(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "the list of entities is empty",
        )
        .detail("There is nothing to move.")
        .hint("Name at least one entity."));
    }
    let c = members::column(root, column)?;
    let mut out: Vec<String> = Vec::with_capacity(given.len());
    for entity in given {
        let Some(text) = entity else {
            return Err(refuse(
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                "an entity must not be NULL",
            )
            .detail(format!(
                "Column \"{column}\" has no NULLs, so no row belongs to it."
            ))
            .hint(
                "Name the entity. For all of one partition give the partition and \"all\" => true.",
            ));
        };
        let canonical = parse(&c.base_type, text).map_err(|e| {
            Error::new(
                e.code(),
                format!(
                    "entity {} is no value of type {}",
                    sql::literal(text),
                    c.base_type
                ),
            )
            .detail(format!("{}.", capital(&e.message)))
            .hint(format!(
                "Column \"{column}\" has type {}; give the entity in its text form.",
                c.base_type
            ))
        })?;
        if !out.contains(&canonical) {
            out.push(canonical);
        }
    }
    out.sort();
    Ok(out)
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|c| c.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

/// Reads a value and writes it again, in a subtransaction: input functions raise.
fn parse(base_type: &str, text: &str) -> Result<String> {
    crate::pg::xact::attempt(|| {
        Ok(
            sql::value::<String>(&format!("SELECT ($1::{base_type})::text"), &[text.into()])?
                .unwrap_or_default(),
        )
    })
}

/// The target exists, and the caller may create there.
pub fn tablespace(name: Option<&str>) -> Result<String> {
    let Some(name) = name else {
        return Err(refuse(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "no target given",
        )
        .detail("A shadow needs a place of its own.")
        .hint("Add tablespace => 'name'; SELECT spcname FROM pg_tablespace lists them."));
    };
    let rows = sql::query(
        "SELECT oid, pg_catalog.has_tablespace_privilege(oid, 'CREATE')
                OR oid = (SELECT dattablespace FROM pg_catalog.pg_database WHERE datname = current_database())
           FROM pg_catalog.pg_tablespace WHERE spcname = $1",
        &[name.into()],
        |row| Ok(row.get::<bool>(2)?.unwrap_or(false)),
    )?;
    match rows.into_iter().next() {
        None => Err(no_tablespace(name)),
        Some(false) => Err(refuse(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for tablespace \"{name}\""),
        )
        .detail("Making a shadow there takes the CREATE privilege on it.")
        .hint(format!(
            "GRANT CREATE ON TABLESPACE {} TO your role.",
            sql::ident(name)
        ))),
        Some(true) if name == "pg_global" => Err(refuse(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "tablespace \"pg_global\" holds shared catalogs only",
        )
        .detail("No table of a database can be placed there.")
        .hint("Choose another tablespace.")),
        Some(true) => Ok(name.to_owned()),
    }
}

fn no_tablespace(name: &str) -> Error {
    refuse(
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        format!("tablespace \"{name}\" does not exist"),
    )
    .detail("Shadows are made in an existing tablespace.")
    .hint("SELECT spcname FROM pg_tablespace lists them; CREATE TABLESPACE makes one.")
}

/// The tablespace exists and may hold tables; who may create there is another question.
pub fn tablespace_exists(name: &str) -> Result<()> {
    let found = sql::value::<bool>(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_tablespace WHERE spcname = $1 AND spcname <> 'pg_global')",
        &[name.into()],
    )?;
    if found == Some(true) {
        Ok(())
    } else {
        Err(no_tablespace(name))
    }
}

/// Not on a standby, where nothing can be written.
pub fn not_in_recovery() -> Result<()> {
    // SAFETY: a plain read of this process's state.
    if !unsafe { pg_sys::RecoveryInProgress() } {
        return Ok(());
    }
    Err(refuse(
        PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION,
        "cannot make or change shadows on a standby",
    )
    .detail("The server is in recovery.")
    .hint("Do it on the primary server; a standby follows."))
}

/// READ COMMITTED, no lock on the table, not on a standby: the worker would wait for this very
/// transaction, or this transaction could not see what the worker did.
pub fn transaction(root: Option<pg_sys::Oid>) -> Result<()> {
    not_in_recovery()?;
    // SAFETY: a plain read of this process's state.
    let level = unsafe { pg_sys::XactIsoLevel };
    if level >= pg_sys::XACT_REPEATABLE_READ as i32 {
        return Err(refuse(
            PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_STATE,
            "shadows cannot be changed in a REPEATABLE READ or SERIALIZABLE transaction",
        )
        .detail(
            "Its snapshot is older than the shadow, and the job would have to wait for it to end.",
        )
        .hint("Call the function in a transaction of its own, with READ COMMITTED."));
    }
    // SAFETY: a plain read of this process's state.
    if unsafe { pg_sys::XactReadOnly } {
        return Err(refuse(
            PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION,
            "shadows cannot be changed in a read-only transaction",
        )
        .detail("The transaction is READ ONLY.")
        .hint("Call the function in a transaction of its own that may write."));
    }
    let Some(root) = root else { return Ok(()) };
    let held = sql::value::<String>(
        "SELECT l.mode FROM pg_catalog.pg_locks l
          WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.granted
            AND l.relation IN (SELECT relid FROM shadowpart.tree($1)) LIMIT 1",
        &[root.into()],
    )?;
    match held {
        None => Ok(()),
        Some(mode) => Err(refuse(
            PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
            "this transaction already holds a lock on the table",
        )
        .detail(format!(
            "It has {mode} on it or one of its partitions; the job would wait for this transaction."
        ))
        .hint("Commit first, and call the function in a transaction of its own.")),
    }
}

/// Shadows on other servers come later.
pub fn no_server(server: Option<&str>) -> Result<()> {
    match server {
        None => Ok(()),
        Some(name) => Err(refuse(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("shadows on other servers (\"{name}\") are not supported yet"),
        )
        .detail("This version moves entities between tablespaces.")
        .hint("Use tablespace => 'name'.")),
    }
}

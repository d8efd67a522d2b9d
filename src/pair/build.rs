//! A table like the primary, on the target: everything but rows and indexes.

use super::{Pair, Shadow, trigger};
use crate::pg::error::Result;
use crate::pg::sql;
use pgrx::prelude::*;

/// Creates the shadow and the delta table, and on the shadow everything that nobody else can notice yet.
pub fn prepare(shadow: &Shadow, pair: &Pair) -> Result<()> {
    let relid = create_table(shadow, pair)?;
    let delta = create_delta(pair)?;
    sql::execute(
        "UPDATE shadowpart.pair SET shadow_relid = $2, delta_relid = $3, blocks_done = 0, rows_done = 0,
                bytes_done = 0,
                blocks_total = pg_catalog.pg_relation_size($4) / pg_catalog.current_setting('block_size')::bigint,
                rows_total = $5
          WHERE id = $1",
        &[
            pair.id.into(),
            relid.into(),
            delta.into(),
            pair.primary.into(),
            estimated_rows(shadow, pair)?.into(),
        ],
    )?;
    trigger::mark(pair, relid, pair.primary)?;
    trigger::mirror(shadow, pair, relid, pair.primary)
}

/// Takes the lock that ends all earlier writers, and starts capturing.
///
/// When this commits, every change to the members that is not yet visible to a new snapshot will be in
/// the delta table. The triggers of the mirror are created here too, switched off, so that the step that
/// begins to mirror holds writers off for less.
pub fn capture(shadow: &Shadow, pair: &Pair) -> Result<()> {
    // Whoever wrote to the leaf is finished once this is granted; whoever comes next fires the triggers.
    super::swap::lock(pair.primary, pg_sys::ShareRowExclusiveLock)?;
    crate::failpoint!("capture-locked");
    trigger::mark(pair, pair.primary, pair.shadow()?)?;
    trigger::capture(shadow, pair)?;
    trigger::mirror(shadow, pair, pair.primary, pair.shadow()?)?;
    pair.enter("copy")
}

/// A free name for a new relation beside `relid`: its name, without a suffix that it got this way itself, cut
/// so that the new one fits, and the suffix.
pub fn name_beside(relid: pg_sys::Oid, suffix: &str) -> Result<(String, String)> {
    let (schema, name) = sql::query(
        "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
        &[relid.into()],
        |row| {
            Ok((
                row.get::<String>(1)?.unwrap_or_default(),
                row.get::<String>(2)?.unwrap_or_default(),
            ))
        },
    )?
    .into_iter()
    .next()
    .unwrap_or_default();
    let mut candidate = cut(original(&name), suffix);
    let mut n = 1;
    while is_taken(&schema, &candidate)? {
        candidate = cut(original(&name), &format!("{suffix}_{n}"));
        n += 1;
    }
    Ok((schema, candidate))
}

/// Quoted name of the schema that a relation is in.
pub fn schema_of(relid: pg_sys::Oid) -> Result<String> {
    Ok(sql::value::<String>(
        "SELECT relnamespace::regnamespace::text FROM pg_catalog.pg_class WHERE oid = $1",
        &[relid.into()],
    )?
    .unwrap_or_default())
}

fn is_taken(schema: &str, name: &str) -> Result<bool> {
    Ok(sql::value::<bool>(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                         WHERE n.nspname = $1 AND c.relname = $2)",
        &[schema.into(), name.into()],
    )?
    .unwrap_or(false))
}

/// The name without suffixes like `_s17` and `_w17`: a partition that has moved before is still called
/// after what it was.
fn original(mut name: &str) -> &str {
    loop {
        let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
        let rest = &name[..name.len() - digits];
        match rest.strip_suffix("_s").or(rest.strip_suffix("_w")) {
            Some(shorter) if digits > 0 && !shorter.is_empty() => name = shorter,
            _ => return name,
        }
    }
}

/// An identifier of at most 63 bytes that ends in the suffix.
pub fn cut(name: &str, suffix: &str) -> String {
    let mut end = name.len().min(63 - suffix.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &name[..end])
}

fn create_table(shadow: &Shadow, pair: &Pair) -> Result<pg_sys::Oid> {
    let (schema, name) = name_beside(pair.primary, &format!("_s{}", pair.id))?;
    let table = format!("{}.{}", sql::ident(&schema), sql::ident(&name));
    let primary = sql::relation(pair.primary)?;
    let (unlogged, method, options) = sql::query(
        "SELECT c.relpersistence = 'u', a.amname::text,
                (SELECT string_agg(o, ', ') FROM (
                    SELECT format('%I = %L', split_part(x, '=', 1), substr(x, strpos(x, '=') + 1)) AS o
                      FROM unnest(c.reloptions) x
                    UNION ALL
                    SELECT format('toast.%I = %L', split_part(x, '=', 1), substr(x, strpos(x, '=') + 1))
                      FROM pg_catalog.pg_class t, unnest(t.reloptions) x WHERE t.oid = c.reltoastrelid) o)
           FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam WHERE c.oid = $1",
        &[pair.primary.into()],
        |row| {
            Ok((
                row.get::<bool>(1)?.unwrap_or(false),
                row.get::<String>(2)?.unwrap_or_else(|| "heap".into()),
                row.get::<String>(3)?,
            ))
        },
    )?
    .into_iter()
    .next()
    .unwrap_or((false, "heap".into(), None));
    // From 17 on a partition gets its identity columns from the table it is attached to, and may not bring
    // any; before, a leaf has its own or none.
    let identity = if cfg!(any(feature = "pg14", feature = "pg15", feature = "pg16")) {
        ""
    } else {
        " EXCLUDING IDENTITY"
    };
    sql::execute(
        &format!(
            "CREATE {}TABLE {table} (LIKE {primary} INCLUDING ALL EXCLUDING INDEXES{identity}) USING {}{} TABLESPACE {}",
            if unlogged { "UNLOGGED " } else { "" },
            sql::ident(&method),
            options.map(|o| format!(" WITH ({o})")).unwrap_or_default(),
            sql::ident(&shadow.target)
        ),
        &[],
    )?;
    let relid = sql::value::<pg_sys::Oid>("SELECT $1::regclass::oid", &[table.as_str().into()])?
        .unwrap_or(pg_sys::InvalidOid);
    // While it is being built the table belongs to the extension: pg_dump leaves it out, DROP EXTENSION
    // takes it along.
    sql::execute(
        &format!("ALTER EXTENSION shadowpart ADD TABLE {table}"),
        &[],
    )?;
    copy_attributes(pair.primary, relid, &table)?;
    Ok(relid)
}

/// Owner, privileges, comment, statistics targets, row security: what LIKE leaves out.
pub fn copy_attributes(from: pg_sys::Oid, to: pg_sys::Oid, table: &str) -> Result<()> {
    let statements = sql::query(
        "SELECT statement FROM (
            SELECT 1 AS step, format('ALTER TABLE %s OWNER TO %I', $3, pg_catalog.pg_get_userbyid(c.relowner))
                   AS statement FROM pg_catalog.pg_class c WHERE c.oid = $1
            UNION ALL
            SELECT 2, format('REVOKE ALL ON TABLE %s FROM PUBLIC, %I', $3, pg_catalog.pg_get_userbyid(c.relowner))
              FROM pg_catalog.pg_class c WHERE c.oid = $1 AND c.relacl IS NOT NULL
            UNION ALL
            SELECT 3, format('GRANT %s ON TABLE %s TO %s%s', a.privilege_type, $3,
                             CASE WHEN a.grantee = 0 THEN 'PUBLIC'
                                  ELSE quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END,
                             CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
              FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
             WHERE c.oid = $1 AND c.relacl IS NOT NULL
            UNION ALL
            SELECT 4, format('GRANT %s (%I) ON TABLE %s TO %s%s', a.privilege_type, t.attname, $3,
                             CASE WHEN a.grantee = 0 THEN 'PUBLIC'
                                  ELSE quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END,
                             CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
              FROM pg_catalog.pg_attribute t, pg_catalog.aclexplode(t.attacl) a
             WHERE t.attrelid = $1 AND t.attnum > 0 AND NOT t.attisdropped AND t.attacl IS NOT NULL
            UNION ALL
            SELECT 5, format('COMMENT ON TABLE %s IS %L', $3, d.description)
              FROM pg_catalog.pg_description d
             WHERE d.classoid = 'pg_catalog.pg_class'::regclass AND d.objoid = $1 AND d.objsubid = 0
            UNION ALL
            SELECT 6, format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS %s', $3, t.attname, t.attstattarget)
              FROM pg_catalog.pg_attribute t, pg_catalog.pg_class k
             WHERE t.attrelid = $1 AND t.attnum > 0 AND NOT t.attisdropped AND t.attstattarget >= 0
               AND k.oid = $2 AND k.relkind = 'r'
            UNION ALL
            SELECT 7, format('ALTER TABLE %s ALTER COLUMN %I SET (%s)', $3, t.attname,
                             (SELECT string_agg(o, ', ') FROM unnest(t.attoptions) o WHERE o LIKE 'n_distinct%'))
              FROM pg_catalog.pg_attribute t
             WHERE t.attrelid = $1 AND t.attnum > 0 AND NOT t.attisdropped
               -- A server may stamp columns with options of its own; those are not ours to copy.
               AND EXISTS (SELECT FROM unnest(t.attoptions) o WHERE o LIKE 'n_distinct%')
            UNION ALL
            SELECT 8, format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', $3)
              FROM pg_catalog.pg_class c WHERE c.oid = $1 AND c.relrowsecurity
            UNION ALL
            SELECT 9, format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', $3)
              FROM pg_catalog.pg_class c WHERE c.oid = $1 AND c.relforcerowsecurity
            UNION ALL
            SELECT 10, format('CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s', p.policyname, $3, p.permissive, p.cmd,
                              (SELECT string_agg(CASE r WHEN 'public' THEN 'PUBLIC' ELSE quote_ident(r) END, ', ')
                                 FROM unnest(p.roles) r),
                              ' USING (' || p.qual || ')', ' WITH CHECK (' || p.with_check || ')')
              FROM pg_catalog.pg_policies p JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname
              JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
             WHERE c.oid = $1
         ) s WHERE statement IS NOT NULL ORDER BY step",
        &[from.into(), to.into(), table.into()],
        |row| row.get::<String>(1),
    )?;
    for statement in statements.into_iter().flatten() {
        sql::execute(&statement, &[])?;
    }
    Ok(())
}

/// A table for the keys of changes, with nothing that could make a user's write fail.
pub fn create_delta(pair: &Pair) -> Result<pg_sys::Oid> {
    let name = format!("shadowpart.{}", sql::ident(&format!("delta_{}", pair.id)));
    // The order of the columns is the order of the key, as the capture trigger writes it.
    let mut columns = Vec::new();
    for key in &pair.key_columns {
        columns.extend(sql::value::<String>(
            "SELECT format('%I %s', attname, pg_catalog.format_type(atttypid, atttypmod))
               FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attname = $2 AND NOT attisdropped",
            &[pair.primary.into(), key.as_str().into()],
        )?);
    }
    let unlogged = sql::value::<bool>(
        "SELECT relpersistence = 'u' FROM pg_catalog.pg_class WHERE oid = $1",
        &[pair.primary.into()],
    )?
    .unwrap_or(false);
    let columns = columns.join(", ");
    sql::execute(
        &format!(
            "CREATE {}TABLE {name} ({columns})",
            if unlogged { "UNLOGGED " } else { "" }
        ),
        &[],
    )?;
    sql::execute(&format!("ALTER EXTENSION shadowpart ADD TABLE {name}"), &[])?;
    Ok(
        sql::value::<pg_sys::Oid>("SELECT $1::regclass::oid", &[name.as_str().into()])?
            .unwrap_or(pg_sys::InvalidOid),
    )
}

/// How many rows the planner expects the members to have in the primary.
pub fn estimated_rows(shadow: &Shadow, pair: &Pair) -> Result<Option<i64>> {
    let column = super::members::column(pair.primary, &shadow.entity_column)?;
    let test = column.is_member("t", shadow.entities.as_deref())?;
    let query = format!(
        "SELECT FROM ONLY {} t WHERE {test}",
        sql::relation(pair.primary)?
    );
    let plan = sql::explain("COSTS", &query)?;
    Ok(plan[0]["Plan"]["Plan Rows"]
        .as_f64()
        .map(|rows| rows as i64))
}

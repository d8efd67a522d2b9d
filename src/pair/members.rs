//! The entities of a shadow as SQL text: array literals, comparisons, WHEN clauses.

use crate::pg::error::{Error, Result};
use crate::pg::sql;
use pgrx::prelude::*;

/// How the entity column is compared and written in SQL.
pub struct Column {
    pub name: String,
    /// The type under all domains, qualified.
    pub base_type: String,
    /// `OPERATOR(schema.=)`: the equality of the type's default btree operator class, whatever the
    /// search path.
    pub equal: String,
}

pub fn column(relation: pg_sys::Oid, name: &str) -> Result<Column> {
    let attno = sql::value::<i16>(
        "SELECT attnum FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attname = $2 AND NOT attisdropped",
        &[relation.into(), name.into()],
    )?
    .ok_or_else(|| {
        Error::new(PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN, format!("column \"{name}\" does not exist"))
    })?;
    // SAFETY: catalog look-ups by OID.
    let (base, operator) = unsafe {
        let base = pg_sys::getBaseType(pg_sys::get_atttype(relation, attno));
        (
            base,
            (*pg_sys::lookup_type_cache(base, pg_sys::TYPECACHE_EQ_OPR as i32)).eq_opr,
        )
    };
    let base_type = sql::value::<String>("SELECT pg_catalog.format_type($1, -1)", &[base.into()])?
        .unwrap_or_default();
    let equal = sql::value::<String>(
        "SELECT format('OPERATOR(%I.%s)', n.nspname, o.oprname)
           FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
          WHERE o.oid = $1",
        &[operator.into()],
    )?
    .ok_or_else(|| {
        Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
            format!("column \"{name}\" has type {base_type}, which has no btree equality"),
        )
        .detail("Partitions and their rows are told apart by equality.")
        .hint("An entity column needs a type whose values can be compared and sorted.")
    })?;
    Ok(Column {
        name: name.to_owned(),
        base_type,
        equal,
    })
}

/// The text form of an array of these values.
pub fn array_literal(values: &[String]) -> Result<String> {
    Ok(sql::value::<String>("SELECT $1::text", &[values.to_vec().into()])?.unwrap_or_default())
}

impl Column {
    /// `row.column = ANY (values)`, or `true` for everything.
    pub fn is_member(&self, row: &str, entities: Option<&[String]>) -> Result<String> {
        let Some(entities) = entities else {
            return Ok("true".into());
        };
        let column = if row.is_empty() {
            sql::ident(&self.name)
        } else {
            format!("{row}.{}", sql::ident(&self.name))
        };
        if let [one] = entities {
            return Ok(format!(
                "{column} {} {}::{}",
                self.equal,
                sql::literal(one),
                self.base_type
            ));
        }
        let array = sql::literal(&array_literal(entities)?);
        Ok(format!(
            "{column} {} ANY ({array}::{}[])",
            self.equal, self.base_type
        ))
    }
}

//! SQL with parameters, for the catalog of this extension and for DDL.

use super::error::Result;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::SpiHeapTupleData;

/// Runs a statement with a new snapshot; returns how many rows it touched.
pub fn execute(sql: &str, args: &[DatumWithOid<'_>]) -> Result<usize> {
    Ok(Spi::connect_mut(|client| {
        client.update(sql, None, args).map(|rows| rows.len())
    })?)
}

/// The rows of a query, each turned into a value by `row`.
pub fn query<T>(
    sql: &str,
    args: &[DatumWithOid<'_>],
    mut row: impl FnMut(&SpiHeapTupleData<'_>) -> std::result::Result<T, pgrx::spi::Error>,
) -> Result<Vec<T>> {
    // Writing SPI takes a transaction id: polls would burn them, and a standby has none. A transaction
    // that has none has written nothing either, so its snapshot shows all that there is to see.
    // SAFETY: a plain read of this transaction's state.
    let nothing_written =
        unsafe { pg_sys::GetTopTransactionIdIfAny() } == pg_sys::InvalidTransactionId;
    let mut collect = |table: pgrx::spi::SpiTupleTable<'_>| {
        let mut rows = Vec::with_capacity(table.len());
        for tuple in table {
            rows.push(row(&tuple)?);
        }
        Ok::<_, pgrx::spi::Error>(rows)
    };
    if nothing_written && sql.trim_start().starts_with("SELECT") {
        return Ok(Spi::connect(|client| {
            collect(client.select(sql, None, args)?)
        })?);
    }
    Ok(Spi::connect_mut(|client| {
        collect(client.update(sql, None, args)?)
    })?)
}

/// The first column of the first row, if there is one and it is not NULL.
pub fn value<T: FromDatum + IntoDatum>(sql: &str, args: &[DatumWithOid<'_>]) -> Result<Option<T>> {
    Ok(query(sql, args, |row| row.get::<T>(1))?
        .into_iter()
        .next()
        .flatten())
}

/// Quotes an identifier.
pub fn ident(name: &str) -> String {
    pgrx::spi::quote_identifier(name)
}

/// Quotes a literal.
pub fn literal(text: &str) -> String {
    pgrx::spi::quote_literal(text)
}

/// `schema.name` of a relation, quoted.
pub fn relation(oid: pg_sys::Oid) -> Result<String> {
    let name = value::<String>(
        "SELECT format('%I.%I', n.nspname, c.relname)
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE c.oid = $1",
        &[oid.into()],
    )?;
    name.ok_or_else(|| {
        super::error::Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("relation with OID {} does not exist", oid.to_u32()),
        )
    })
}

/// The plan of a query, as JSON. Takes no transaction id, so that it works on a standby too.
pub fn explain(options: &str, query: &str) -> Result<serde_json::Value> {
    let statement = std::ffi::CString::new(format!("EXPLAIN ({options}, FORMAT JSON) {query}"))
        .unwrap_or_default();
    // SAFETY: SPI is connected while its result is read; an error aborts the transaction, and SPI with it.
    unsafe {
        pg_sys::SPI_connect();
        pg_sys::SPI_execute(statement.as_ptr(), false, 0);
        let text = if pg_sys::SPI_tuptable.is_null() || pg_sys::SPI_processed == 0 {
            String::new()
        } else {
            let table = &*pg_sys::SPI_tuptable;
            let value = pg_sys::SPI_getvalue(*table.vals, table.tupdesc, 1);
            std::ffi::CStr::from_ptr(value)
                .to_string_lossy()
                .into_owned()
        };
        pg_sys::SPI_finish();
        Ok(serde_json::from_str(&text).unwrap_or(serde_json::Value::Null))
    }
}

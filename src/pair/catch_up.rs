//! Bringing the shadow level with the primary: for each captured key, the primary's row as it is now.
//!
//! The order in which keys were captured does not matter, and a key more than once does not either: the
//! row is read, not replayed.

use super::{Pair, Shadow, as_owner, members};
use crate::mirror;
use crate::pg::error::{Error, Result};
use pgrx::prelude::*;
use std::ffi::{CStr, CString};

/// Keys handled in one transaction.
pub const BATCH: usize = 20_000;

/// Levels captured keys, at most `limit`; returns how many there were.
pub fn batch(shadow: &Shadow, pair: &Pair, limit: usize) -> Result<usize> {
    let delta = pair.delta()?;
    let key_count = pair.key_columns.len();
    let (count, usable) = with_link(shadow, pair, |link| {
        // SAFETY: the table is opened here and closed here or at commit; tuples are read before the scan
        // goes on.
        unsafe {
            let table = pg_sys::table_open(delta, pg_sys::RowExclusiveLock as i32);
            let method = &*(*table).rd_tableam;
            let slot = pg_sys::table_slot_create(table, std::ptr::null_mut());
            let flags =
                pg_sys::ScanOptions::SO_TYPE_SEQSCAN | pg_sys::ScanOptions::SO_ALLOW_PAGEMODE;
            let scan = method.scan_begin.unwrap_unchecked()(
                table,
                pg_sys::GetActiveSnapshot(),
                0,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                flags,
            );
            let next = method.scan_getnextslot.unwrap_unchecked();
            let mut count = 0;
            let mut usable = true;
            while count < limit
                && usable
                && next(scan, pg_sys::ScanDirection::ForwardScanDirection, slot)
            {
                mirror::side::attribute(slot, key_count as i16);
                let keys = std::slice::from_raw_parts((*slot).tts_values, key_count);
                usable = mirror::level_key(link, keys);
                mirror::side::delete_at(table, (*slot).tts_tid);
                count += 1;
                if count % 256 == 0 {
                    crate::pg::latch::check_interrupts();
                }
            }
            mirror::side::clear(slot);
            method.scan_end.unwrap_unchecked()(scan);
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            pg_sys::table_close(table, pg_sys::NoLock as i32);
            Ok((count, usable))
        }
    })?;
    if usable {
        Ok(count)
    } else {
        Err(no_key_index(pair))
    }
}

/// Runs `work` with a link from the primary to the shadow, for the shadow's entities.
pub fn with_link<T>(
    shadow: &Shadow,
    pair: &Pair,
    work: impl FnOnce(*mut mirror::Link) -> Result<T>,
) -> Result<T> {
    let literal = match &shadow.entities {
        Some(entities) => members::array_literal(entities)?,
        None => String::new(),
    };
    let column = cstring(&shadow.entity_column)?;
    let literal = cstring(&literal)?;
    let names = pair
        .key_columns
        .iter()
        .map(|k| cstring(k))
        .collect::<Result<Vec<_>>>()?;
    let names: Vec<&CStr> = names.iter().map(CString::as_c_str).collect();
    let other = pair.shadow()?;
    // Index expressions are the owner's code.
    // SAFETY: the source stays open while the link is used; an error aborts the transaction, which closes all.
    as_owner(pair.primary, || unsafe {
        let source = pg_sys::table_open(pair.primary, pg_sys::AccessShareLock as i32);
        let link = mirror::link_between(&mirror::Ends {
            pair: pair.id,
            source,
            other,
            column: &column,
            members: &literal,
            keys: &names,
        });
        let value = work(link)?;
        mirror::release();
        pg_sys::table_close(source, pg_sys::NoLock as i32);
        Ok(value)
    })
}

/// Somebody has dropped the index by which rows are found.
pub fn no_key_index(pair: &Pair) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "the key of pair {} has no usable index on both sides any more",
            pair.id
        ),
    )
    .hint("Somebody has changed the indexes of the table while the shadow was built. Create it again.")
}

fn cstring(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| {
        Error::new(
            PgSqlErrorCode::ERRCODE_UNTRANSLATABLE_CHARACTER,
            "a name contains a NUL character",
        )
    })
}

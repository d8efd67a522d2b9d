//! Rows written, from every path: a sampled row trigger on each partition of a managed table.
//!
//! `AFTER INSERT OR UPDATE OR DELETE ... WHEN (shadowpart.sampled())`: the condition picks rows (it looks
//! at no column, so the trigger is in nobody's way when columns change), the function counts those picked.

use super::{Amounts, MEASURES, Measure, entity, local, managed, statement};
use crate::pg::pins;
use crate::pg::trigger::finfo;
use pgrx::prelude::*;

finfo!(pg_finfo_shadowpart_sampled, pg_finfo_shadowpart_load);

/// The condition of the triggers. Called for each row that is written: no guard, no destructors.
#[unsafe(no_mangle)]
#[doc(hidden)]
pub unsafe extern "C-unwind" fn shadowpart_sampled(_: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    pg_sys::Datum::from(statement::pick_row())
}

/// Counts a row that was picked.
#[unsafe(no_mangle)]
#[doc(hidden)]
#[pg_guard]
pub unsafe extern "C-unwind" fn shadowpart_load(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: called by the trigger manager, or refused.
    unsafe {
        let node = (*fcinfo).context;
        if node.is_null() || (*node).type_ != pg_sys::NodeTag::T_TriggerData {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                "this function belongs to triggers of shadowpart"
            );
        }
        let data = node.cast::<pg_sys::TriggerData>();
        let weight = statement::weight_of_row();
        let event = (*data).tg_event & pg_sys::TRIGGER_EVENT_OPMASK;
        let (old, new) = match event {
            pg_sys::TRIGGER_EVENT_INSERT => (std::ptr::null_mut(), (*data).tg_trigslot),
            pg_sys::TRIGGER_EVENT_DELETE => ((*data).tg_trigslot, std::ptr::null_mut()),
            _ => ((*data).tg_trigslot, (*data).tg_newslot),
        };
        let measure = match event {
            pg_sys::TRIGGER_EVENT_INSERT => Measure::Inserts,
            pg_sys::TRIGGER_EVENT_DELETE => Measure::Deletes,
            _ => Measure::Updates,
        };
        count((*(*data).tg_relation).rd_id, measure, old, new, weight);
        pg_sys::Datum::from(0)
    }
}

unsafe fn count(
    leaf: pg_sys::Oid,
    measure: Measure,
    old: *mut pg_sys::TupleTableSlot,
    new: *mut pg_sys::TupleTableSlot,
    weight: u64,
) {
    // SAFETY: slots of rows of this relation, null where there is none.
    unsafe {
        // Managed no more, but the trigger is still there.
        let Some(managed) = managed::lookup(leaf) else {
            return;
        };
        let key_of = |slot: *mut pg_sys::TupleTableSlot| {
            if slot.is_null() {
                return None;
            }
            if (*slot).tts_nvalid < managed.attno {
                pg_sys::slot_getsomeattrs_int(slot, i32::from(managed.attno));
            }
            let place = managed.attno as usize - 1;
            if *(*slot).tts_isnull.add(place) {
                return None;
            }
            entity::key(&managed, *(*slot).tts_values.add(place))
        };
        let (before, after) = (key_of(old), key_of(new));
        let mut amounts: Amounts = [0; MEASURES];
        amounts[measure as usize] = weight;
        if !new.is_null() {
            amounts[Measure::BytesWritten as usize] = row_bytes(new) * weight;
        }
        if !old.is_null() {
            amounts[Measure::BytesRemoved as usize] = row_bytes(old) * weight;
        }
        if let (Some(before), Some(after)) = (&before, &after)
            && before != after
        {
            // The row went from one entity to another.
            let mut removed: Amounts = [0; MEASURES];
            std::mem::swap(
                &mut removed[Measure::BytesRemoved as usize],
                &mut amounts[Measure::BytesRemoved as usize],
            );
            local::note(before, leaf, &removed);
        }
        // Rows that belong to nobody are the partition's.
        if let Some(key) = after.or(before).or_else(|| entity::many(leaf)) {
            statement::wrote(&key, leaf);
            local::note(&key, leaf, &amounts);
        }
    }
}

/// Bytes that a row takes in the table, and in its TOAST table.
unsafe fn row_bytes(slot: *mut pg_sys::TupleTableSlot) -> u64 {
    // SAFETY: a slot that holds a row; its attributes are read where its descriptor says.
    unsafe {
        let descriptor = (*slot).tts_tupleDescriptor;
        let natts = (*descriptor).natts;
        if i32::from((*slot).tts_nvalid) < natts {
            pg_sys::slot_getsomeattrs_int(slot, natts);
        }
        let mut bytes =
            pg_sys::heap_compute_data_size(descriptor, (*slot).tts_values, (*slot).tts_isnull);
        let mut nulls = false;
        for i in 0..natts as usize {
            if *(*slot).tts_isnull.add(i) {
                nulls = true;
            } else if (*pins::attribute_of(descriptor, i as i16 + 1)).attlen == -1 {
                bytes += toasted_bytes((*(*slot).tts_values.add(i)).cast_mut_ptr());
            }
        }
        let bitmap = if nulls {
            (natts as usize).div_ceil(8)
        } else {
            0
        };
        (HEADER_BYTES + bitmap).next_multiple_of(8) as u64 + bytes as u64
    }
}

/// Bytes of a row's header, before the bitmap of NULLs.
const HEADER_BYTES: usize = std::mem::offset_of!(pg_sys::HeapTupleHeaderData, t_bits);

/// What a value takes in the TOAST table: nothing, unless it lies there.
unsafe fn toasted_bytes(value: *const pg_sys::varlena) -> usize {
    // SAFETY: a value of variable length; a pointer into a TOAST table is read byte by byte.
    unsafe {
        if !pgrx::varlena::varatt_is_1b_e(value)
            || pgrx::varlena::vartag_1b_e(value) != pg_sys::vartag_external::VARTAG_ONDISK as u8
        {
            return 0;
        }
        let pointer = value
            .cast::<u8>()
            .add(2)
            .cast::<pg_sys::varatt_external>()
            .read_unaligned();
        (pointer.va_extinfo & pg_sys::VARLENA_EXTSIZE_MASK) as usize
    }
}

//! While a shadow is being copied, writers only note the keys they touched, in the pair's delta table.
//! What the rows look like is read later, from the rows.

use super::side::{self, KEYS_MAX};
use pgrx::prelude::*;

/// An open delta table, as one trigger sees it.
struct Delta {
    trigger: pg_sys::Oid,
    /// Null: it is gone, nothing is captured.
    relation: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    key_count: usize,
    key_attnos: [i16; KEYS_MAX],
    key_byval: [bool; KEYS_MAX],
    key_len: [i16; KEYS_MAX],
}

static mut DELTAS: Vec<*mut Delta> = Vec::new();

mod c {
    use pgrx::pg_sys::*;
    unsafe extern "C-unwind" {
        pub fn GetCurrentCommandId(used: bool) -> CommandId;
        pub fn datumIsEqual(a: Datum, b: Datum, byval: bool, len: i32) -> bool;
        pub fn ExecStoreVirtualTuple(slot: *mut TupleTableSlot) -> *mut TupleTableSlot;
    }
}

unsafe fn delta_of(data: *const pg_sys::TriggerData) -> *mut Delta {
    // SAFETY: a backend has one thread; deltas live until the transaction ends.
    unsafe {
        let oid = (*(*data).tg_trigger).tgoid;
        for delta in &*&raw const DELTAS {
            if (**delta).trigger == oid {
                return *delta;
            }
        }
        open(data)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn open(data: *const pg_sys::TriggerData) -> *mut Delta {
    // SAFETY: as for the links of `apply`: memory and resources of the top transaction.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::CurrentMemoryContext = pg_sys::TopTransactionContext;
        pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
        let trigger = (*data).tg_trigger;
        let source = (*data).tg_relation;
        let delta = pg_sys::palloc0(size_of::<Delta>()) as *mut Delta;
        let mut args = [c""; KEYS_MAX];
        let count = side::arguments(trigger, 0, &mut args);
        (*delta).trigger = (*trigger).tgoid;
        let relid: u32 = args[1]
            .to_str()
            .ok()
            .and_then(|t| t.parse().ok())
            .unwrap_or(0);
        (*delta).key_count = count.saturating_sub(3);
        for (i, name) in args[3..count.max(3)].iter().enumerate() {
            let attno = pg_sys::get_attnum((*source).rd_id, name.as_ptr());
            (*delta).key_attnos[i] = attno;
            pg_sys::get_typlenbyval(
                pg_sys::get_atttype((*source).rd_id, attno),
                &mut (*delta).key_len[i],
                &mut (*delta).key_byval[i],
            );
        }
        (*delta).relation = pg_sys::try_table_open(relid.into(), pg_sys::RowExclusiveLock as i32);
        if !(*delta).relation.is_null() {
            (*delta).slot = pg_sys::MakeSingleTupleTableSlot(
                (*(*delta).relation).rd_att,
                &raw const pg_sys::TTSOpsVirtual,
            );
        }
        pg_sys::CurrentMemoryContext = context;
        pg_sys::CurrentResourceOwner = owner;
        (*&raw mut DELTAS).push(delta);
        delta
    }
}

/// Notes the keys of one event.
///
/// # Safety
/// Called by the row trigger with the slots of its event; `old` and `new` are null where it has none.
pub unsafe fn capture(
    data: *const pg_sys::TriggerData,
    old: *mut pg_sys::TupleTableSlot,
    new: *mut pg_sys::TupleTableSlot,
) {
    // SAFETY: rows go into a heap without indexes.
    unsafe {
        let delta = delta_of(data);
        if (*delta).relation.is_null() {
            return;
        }
        if !old.is_null() {
            note(delta, old);
        }
        if !new.is_null() && (old.is_null() || !same_key(delta, old, new)) {
            note(delta, new);
        }
    }
}

unsafe fn same_key(
    delta: *mut Delta,
    a: *mut pg_sys::TupleTableSlot,
    b: *mut pg_sys::TupleTableSlot,
) -> bool {
    // SAFETY: both slots have the layout of the trigger's relation.
    unsafe {
        (0..(*delta).key_count).all(|i| {
            let attno = (*delta).key_attnos[i];
            c::datumIsEqual(
                side::attribute(a, attno),
                side::attribute(b, attno),
                (*delta).key_byval[i],
                i32::from((*delta).key_len[i]),
            )
        })
    }
}

unsafe fn note(delta: *mut Delta, row: *mut pg_sys::TupleTableSlot) {
    // SAFETY: the slot is virtual and cleared before the values' memory goes.
    unsafe {
        let slot = (*delta).slot;
        side::clear(slot);
        for i in 0..(*delta).key_count {
            *(*slot).tts_values.add(i) = side::attribute(row, (*delta).key_attnos[i]);
            *(*slot).tts_isnull.add(i) = false;
        }
        c::ExecStoreVirtualTuple(slot);
        let insert = (*(*(*delta).relation).rd_tableam)
            .tuple_insert
            .unwrap_unchecked();
        insert(
            (*delta).relation,
            slot,
            c::GetCurrentCommandId(true),
            0,
            std::ptr::null_mut(),
        );
        side::clear(slot);
    }
}

pub fn close_all() {
    // SAFETY: as for the links of `apply`.
    unsafe {
        let deltas = &mut *&raw mut DELTAS;
        if deltas.is_empty() {
            return;
        }
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
        while let Some(delta) = deltas.pop() {
            if !(*delta).relation.is_null() {
                pg_sys::ExecDropSingleTupleTableSlot((*delta).slot);
                pg_sys::table_close((*delta).relation, pg_sys::NoLock as i32);
            }
        }
        pg_sys::CurrentResourceOwner = owner;
    }
}

pub fn forget_all() {
    // SAFETY: a backend has one thread.
    unsafe { (*&raw mut DELTAS).clear() }
}

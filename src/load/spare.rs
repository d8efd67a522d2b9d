//! Statements that are not counted are spared the triggers that count.

use crate::pg::{raw, trigger};
use pgrx::prelude::*;
use std::ffi::CStr;

/// Names of the triggers that count. They sort before all others of ours.
pub const TRIGGER: &CStr = c"!shadowpart_load";

/// A statement that is expected to change more rows than this is sampled row by row.
const SMALL_ROWS: f64 = 8.0;

/// A statement that is expected to change more than this takes much longer than to look at it.
const LARGE_ROWS: f64 = 1000.0;

/// With more result relations than this nothing is spared.
const RELATIONS_MAX: i32 = 16;

/// PostgreSQL functions as they are, unguarded.
mod c {
    use pgrx::pg_sys::*;
    unsafe extern "C-unwind" {
        pub fn ExecFindPartition(
            state: *mut ModifyTableState,
            root: *mut ResultRelInfo,
            routing: *mut PartitionTupleRouting,
            slot: *mut TupleTableSlot,
            estate: *mut EState,
        ) -> *mut ResultRelInfo;
    }
}

/// Whether a statement is expected to change a few rows at most.
///
/// # Safety
/// The state of a started statement's plan.
pub unsafe fn is_small(state: *const pg_sys::PlanState) -> bool {
    // SAFETY: as required.
    unsafe { rows_expected(state) <= SMALL_ROWS }
}

/// Whether a statement is expected to change very many.
///
/// # Safety
/// As for `is_small`.
pub unsafe fn is_large(state: *const pg_sys::PlanState) -> bool {
    // SAFETY: as required.
    unsafe { rows_expected(state) > LARGE_ROWS }
}

unsafe fn rows_expected(state: *const pg_sys::PlanState) -> f64 {
    // SAFETY: a tagged node with its plan.
    unsafe {
        if (*state).type_ != pg_sys::NodeTag::T_ModifyTableState {
            return f64::INFINITY;
        }
        let source = (*(*state).plan).lefttree;
        if source.is_null() {
            return f64::INFINITY;
        }
        (*source).plan_rows
    }
}

/// Takes the triggers that count off a statement that is not counted.
///
/// # Safety
/// As for `is_small`; the statement has not run yet.
pub unsafe fn spare(state: *mut pg_sys::ModifyTableState) {
    // SAFETY: result relations of a statement that has been started and has not run yet.
    unsafe {
        if (*state).mt_nrels <= RELATIONS_MAX {
            for i in 0..(*state).mt_nrels as usize {
                take_off((*state).resultRelInfo.add(i));
            }
        }
        // Partitions are opened when rows go to them. Of a single row we can see to which.
        let source = (*state).ps.lefttree;
        if (*state).operation == pg_sys::CmdType::CMD_INSERT
            && !(*state).mt_partition_tuple_routing.is_null()
            && !source.is_null()
            && (*source).type_ == pg_sys::NodeTag::T_ResultState
            && (*source).lefttree.is_null()
        {
            wrapped().retain(|w| w.source != source);
            wrapped().push(Wrapped {
                source,
                state,
                original: (*source).ExecProcNode,
            });
            (*source).ExecProcNode = Some(first_row);
        }
    }
}

/// A source of rows that tells us where its first row goes.
struct Wrapped {
    source: *mut pg_sys::PlanState,
    state: *mut pg_sys::ModifyTableState,
    original: pg_sys::ExecProcNodeMtd,
}

static mut WRAPPED: Vec<Wrapped> = Vec::new();

fn wrapped() -> &'static mut Vec<Wrapped> {
    // SAFETY: a backend has one thread, and no reference is kept across calls.
    unsafe { &mut *&raw mut WRAPPED }
}

/// Gets the row and finds its partition, as the INSERT will do next, which then finds it open and
/// without the trigger. No destructors in this frame: an error is the one that the INSERT would raise.
unsafe extern "C-unwind" fn first_row(
    source: *mut pg_sys::PlanState,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: installed by `spare` on this node, which belongs to that statement and has a function, as
    // every node has. Should the statement be forgotten, that is what is left to call.
    unsafe {
        let mut original = (*source).ExecProcNodeReal;
        let mut of = std::ptr::null_mut();
        if let Some(at) = wrapped().iter().position(|w| w.source == source) {
            let wrapped = wrapped().swap_remove(at);
            (original, of) = (wrapped.original, wrapped.state);
        }
        (*source).ExecProcNode = original;
        let slot = original.unwrap_unchecked()(source);
        let Some(state) = of.as_mut() else {
            return slot;
        };
        let root = state.rootResultRelInfo;
        if raw::holds_row(slot)
            && (*(*slot).tts_tupleDescriptor).natts == (*(*(*root).ri_RelationDesc).rd_att).natts
        {
            let routing = state.mt_partition_tuple_routing;
            let estate = state.ps.state;
            take_off(c::ExecFindPartition(state, root, routing, slot, estate));
        }
        slot
    }
}

/// The statements are over.
pub fn forget() {
    wrapped().clear();
}

unsafe fn take_off(relation: *mut pg_sys::ResultRelInfo) {
    // SAFETY: the list of triggers is the statement's own copy.
    unsafe {
        let descriptor = (*relation).ri_TrigDesc;
        let all = trigger::all(descriptor);
        let Some(at) = all
            .iter()
            .position(|t| trigger::is_internal_named(t, TRIGGER))
        else {
            return;
        };
        if all.len() == 1 {
            (*relation).ri_TrigDesc = std::ptr::null_mut();
        } else {
            (*(*descriptor).triggers.add(at)).tgenabled =
                pg_sys::TRIGGER_DISABLED as std::ffi::c_char;
        }
    }
}

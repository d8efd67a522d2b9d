//! Large statements: rows are picked before they are written.
//!
//! A trigger that is there costs something for each row even if its condition is false: PostgreSQL sets up
//! the condition, and for an UPDATE or DELETE fetches the old row again. So we stand between the statement
//! and its source of rows, decide for each row whether it is counted, and switch the trigger in the
//! statement's own copies of the trigger lists on only for those that are.

use super::spare::TRIGGER;
use super::statement;
use crate::pg::{list, raw, trigger};
use pgrx::prelude::*;

/// A source of rows that is watched.
struct Watched {
    source: *mut pg_sys::PlanState,
    state: *mut pg_sys::ModifyTableState,
    query: *mut pg_sys::QueryDesc,
    original: pg_sys::ExecProcNodeMtd,
    /// Whether the triggers are on, in so many relations that routing has opened.
    on: bool,
    routed: usize,
    /// Rows to pass over, and for how many the one after them counts.
    gap: u32,
    weight: u64,
    /// Rows that have come since one was picked.
    seen: u32,
    /// No row counts, however many there are.
    none: bool,
    /// The statement as a whole was picked, for so many: its first rows are counted, and all else is
    /// multiplied by that.
    whole: Option<u64>,
    first: u32,
}

/// Which rows of a statement count.
pub enum Choice {
    None,
    /// It was picked as a whole, for so many.
    Whole(u64),
    /// Each has a chance of its own.
    Rows,
}

/// After so many rows a statement that was expected to be small is not taken for it any more.
pub const FIRST_MAX: u32 = 64;

static mut WATCHED: Vec<Watched> = Vec::new();

fn watched() -> &'static mut Vec<Watched> {
    // SAFETY: a backend has one thread, and no reference is kept across calls.
    unsafe { &mut *&raw mut WATCHED }
}

/// The statements are over.
pub fn forget() {
    watched().clear();
}

/// Watches the source of a statement.
///
/// # Safety
/// A statement that has been started and has not run yet, with this state at the top of its plan.
pub unsafe fn watch(query: *mut pg_sys::QueryDesc, state: *mut pg_sys::PlanState, choice: Choice) {
    // SAFETY: nodes are tagged.
    unsafe {
        if (*state).type_ != pg_sys::NodeTag::T_ModifyTableState {
            return;
        }
        let source = (*state).lefttree;
        if source.is_null() {
            return;
        }
        let (whole, none) = match choice {
            Choice::None => (None, true),
            Choice::Whole(weight) => (Some(weight), false),
            Choice::Rows => (None, false),
        };
        // Drawn when the first rows are over; and where there are none, now.
        let (gap, weight) = if whole.is_some() || none {
            (0, 1)
        } else {
            statement::gap()
        };
        watched().retain(|w| w.source != source);
        watched().push(Watched {
            source,
            state: state.cast(),
            query,
            original: (*source).ExecProcNode,
            on: true,
            routed: 0,
            gap,
            weight,
            seen: 0,
            none,
            whole,
            first: if whole.is_some() { FIRST_MAX } else { 0 },
        });
        (*source).ExecProcNode = Some(next);
    }
}

/// Gets the next row, and says whether it is counted. No destructors in this frame while others run.
unsafe extern "C-unwind" fn next(source: *mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: installed by `watch` on this node, which has a function as every node has. Should the statement
    // be forgotten, that is what is left to call.
    unsafe {
        let Some(at) = watched().iter().rposition(|w| w.source == source) else {
            let original = (*source).ExecProcNodeReal;
            (*source).ExecProcNode = original;
            return original.unwrap_unchecked()(source);
        };
        let slot = watched()[at].original.unwrap_unchecked()(source);
        // The first call puts the node's own function in place. Getting the row may have run statements that
        // are watched too: look again.
        let function = (*source).ExecProcNode;
        if let Some(at) = watched().iter().rposition(|w| w.source == source) {
            let watched = &mut watched()[at];
            if function.is_some_and(|f| !std::ptr::fn_addr_eq(f, next as Function)) {
                watched.original = function;
                (*source).ExecProcNode = Some(next);
            }
            if !raw::holds_row(slot) {
                // What comes now are actions of foreign keys.
                if !watched.none {
                    statement::passed(watched.seen, false);
                }
                statement::no_more_rows(watched.query, watched.whole);
                stop(at);
                return slot;
            }
            if watched.first > 0 {
                watched.first -= 1;
                if watched.first == 0 {
                    (watched.gap, watched.weight) = statement::gap();
                }
                return slot;
            }
            watched.seen = watched.seen.saturating_add(1);
            let on = watched.gap == 0 && !watched.none;
            if on {
                statement::passed(std::mem::take(&mut watched.seen), true);
                let whole = watched.whole.unwrap_or(1);
                statement::pick(watched.query, Some(watched.weight.saturating_mul(whole)));
                (watched.gap, watched.weight) = statement::gap();
            } else {
                watched.gap = watched.gap.saturating_sub(1);
                if watched.on {
                    statement::pick(watched.query, None);
                }
            }
            let routed = list::length(routing(watched.state));
            if on != watched.on || (!on && routed != watched.routed) {
                watched.on = on;
                watched.routed = routed;
                switch(watched.state, on);
            }
        }
        slot
    }
}

/// A source that has no more rows is watched no more: a long transaction has many.
unsafe fn stop(at: usize) {
    // SAFETY: the node of a statement under way.
    unsafe {
        let done = watched().swap_remove(at);
        (*done.source).ExecProcNode = done.original;
    }
}

type Function = unsafe extern "C-unwind" fn(*mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot;

/// Relations that rows have been routed to so far.
unsafe fn routing(state: *const pg_sys::ModifyTableState) -> *const pg_sys::List {
    // SAFETY: a state under way.
    unsafe { (*(*state).ps.state).es_tuple_routing_result_relations }
}

unsafe fn switch(state: *mut pg_sys::ModifyTableState, on: bool) {
    // SAFETY: relations of the statement; their trigger lists are its own copies.
    unsafe {
        for i in 0..(*state).mt_nrels as usize {
            switch_in((*state).resultRelInfo.add(i), on);
        }
        let routed = routing(state);
        for i in 0..list::length(routed) {
            switch_in(list::nth(routed, i), on);
        }
    }
}

unsafe fn switch_in(relation: *mut pg_sys::ResultRelInfo, on: bool) {
    // SAFETY: as above.
    unsafe {
        let descriptor = (*relation).ri_TrigDesc;
        let all = trigger::all(descriptor);
        let Some(ours) = all
            .iter()
            .position(|t| trigger::is_internal_named(t, TRIGGER))
        else {
            return;
        };
        let disabled = pg_sys::TRIGGER_DISABLED as std::ffi::c_char;
        // Whether another one is to be looked at after each row.
        let others = |event: u32| {
            all.iter().enumerate().any(|(i, t)| {
                let kind = t.tgtype as u32;
                i != ours
                    && t.tgenabled != disabled
                    && kind & pg_sys::TRIGGER_TYPE_ROW != 0
                    && kind & (pg_sys::TRIGGER_TYPE_BEFORE | pg_sys::TRIGGER_TYPE_INSTEAD) == 0
                    && kind & event != 0
            })
        };
        let insert = on || others(pg_sys::TRIGGER_TYPE_INSERT);
        let update = on || others(pg_sys::TRIGGER_TYPE_UPDATE);
        let delete = on || others(pg_sys::TRIGGER_TYPE_DELETE);
        (*(*descriptor).triggers.add(ours)).tgenabled = if on {
            pg_sys::TRIGGER_FIRES_ALWAYS as std::ffi::c_char
        } else {
            disabled
        };
        (*descriptor).trig_insert_after_row = insert;
        (*descriptor).trig_update_after_row = update;
        (*descriptor).trig_delete_after_row = delete;
    }
}

//! What a statement can be spared before it starts.
//!
//! The triggers of a pair sit on the whole leaf, and PostgreSQL looks at them for each row of every
//! entity in it: it fetches the old row again, and for each statement reads the text of the WHEN clause
//! anew. Before an UPDATE or DELETE starts, this hook
//!
//! * puts the parsed WHEN clauses in place, kept from one statement to the next, and
//! * takes the triggers off the statement's own copy of the leaf's trigger list, where the statement's
//!   conditions pin the entity column to a value for which none of them would fire.
//!
//! Everything else goes its usual way, and what is not recognised costs time, never exactness.

use crate::pg::{pins, raw, trigger};
use pgrx::pg_sys;
use std::ffi::CStr;

const PREFIX: &CStr = c"!shadowpart_";

/// With more result relations than this nothing is spared: the plan is searched once for each.
const RELATIONS_MAX: i32 = 16;

static mut PREVIOUS: pg_sys::ExecutorStart_hook_type = None;

/// PostgreSQL functions as they are, unguarded.
mod c {
    use pgrx::pg_sys::*;
    unsafe extern "C-unwind" {
        pub fn stringToNode(text: *const std::ffi::c_char) -> *mut std::ffi::c_void;
        pub fn ChangeVarNodes(node: *mut Node, from: i32, to: i32, level: i32);
        pub fn make_ands_implicit(clause: *mut Expr) -> *mut List;
        pub fn ExecPrepareQual(qual: *mut List, estate: *mut EState) -> *mut ExprState;
        pub fn MakePerTupleExprContext(estate: *mut EState) -> *mut ExprContext;
        pub fn MakeSingleTupleTableSlot(
            descriptor: TupleDesc,
            ops: *const TupleTableSlotOps,
        ) -> *mut TupleTableSlot;
        pub fn ExecStoreAllNullTuple(slot: *mut TupleTableSlot) -> *mut TupleTableSlot;
        pub fn ExecDropSingleTupleTableSlot(slot: *mut TupleTableSlot);
        pub fn AllocSetContextCreateInternal(
            parent: MemoryContext,
            name: *const std::ffi::c_char,
            min: usize,
            init: usize,
            max: usize,
        ) -> MemoryContext;
        pub fn MemoryContextDelete(context: MemoryContext);
    }
}

/// A WHEN clause, parsed.
#[derive(Clone, Copy)]
struct When {
    trigger: pg_sys::Oid,
    relation: pg_sys::Oid,
    /// The relation has changed since: not to be used any more.
    stale: bool,
    memory: pg_sys::MemoryContext,
    quals: *mut pg_sys::List,
}

const WHENS_MAX: usize = 64;

/// The clauses of this backend, the oldest overwritten first.
struct Whens {
    list: [Option<When>; WHENS_MAX],
    next: usize,
}

static mut WHENS: Whens = Whens {
    list: [None; WHENS_MAX],
    next: 0,
};
static mut REGISTERED: bool = false;

pub fn install() {
    // SAFETY: single-threaded start-up of the postmaster.
    unsafe {
        PREVIOUS = pg_sys::ExecutorStart_hook;
        pg_sys::ExecutorStart_hook = Some(start);
    }
}

/// No destructors in this frame: errors of others pass through it as they are.
unsafe extern "C-unwind" fn start(query: *mut pg_sys::QueryDesc, flags: i32) {
    // SAFETY: called by PostgreSQL with its own structures.
    unsafe {
        PREVIOUS.unwrap_or(raw::standard_ExecutorStart)(query, flags);
        let operation = (*query).operation;
        if flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as i32 != 0
            || (operation != pg_sys::CmdType::CMD_UPDATE
                && operation != pg_sys::CmdType::CMD_DELETE)
        {
            return;
        }
        let state = (*query).planstate;
        if (*state).type_ != pg_sys::NodeTag::T_ModifyTableState {
            return;
        }
        let state = state.cast::<pg_sys::ModifyTableState>();
        if (*state).mt_nrels > RELATIONS_MAX {
            return;
        }
        for i in 0..(*state).mt_nrels as usize {
            let relation = (*state).resultRelInfo.add(i);
            if has_ours(relation) {
                spare(&*state, i, &mut *relation);
            }
        }
    }
}

unsafe fn triggers<'a>(relation: *const pg_sys::ResultRelInfo) -> &'a [pg_sys::Trigger] {
    // SAFETY: an open result relation.
    unsafe { trigger::all((*relation).ri_TrigDesc) }
}

unsafe fn is_ours(trigger: &pg_sys::Trigger) -> bool {
    // SAFETY: from `triggers`.
    unsafe { trigger::is_internal_named(trigger, PREFIX) }
}

unsafe fn has_ours(relation: *const pg_sys::ResultRelInfo) -> bool {
    // SAFETY: as above. Ours sort first.
    unsafe { triggers(relation).first().is_some_and(|t| is_ours(t)) }
}

/// Whether a row trigger is looked at for each row of an operation.
fn fires_on(trigger: &pg_sys::Trigger, operation: pg_sys::CmdType::Type) -> bool {
    let event = if operation == pg_sys::CmdType::CMD_DELETE {
        pg_sys::TRIGGER_TYPE_DELETE
    } else {
        pg_sys::TRIGGER_TYPE_UPDATE
    };
    let kind = trigger.tgtype as u32;
    is_enabled(trigger) && kind & pg_sys::TRIGGER_TYPE_ROW != 0 && kind & event != 0
}

unsafe fn spare(
    state: &pg_sys::ModifyTableState,
    index: usize,
    relation: &mut pg_sys::ResultRelInfo,
) {
    // SAFETY: allocations live as long as the statement: the executor's memory is current where the
    // executor itself would allocate the same.
    unsafe {
        let estate = state.ps.state;
        let mut only_ours = true;
        let mut clauses_only = true;
        for (i, trigger) in triggers(relation).iter().enumerate() {
            only_ours &= is_ours(trigger);
            if !is_ours(trigger) || !fires_on(trigger, state.operation) {
                continue;
            }
            if trigger.tgqual.is_null() {
                clauses_only = false;
                continue;
            }
            let place = relation.ri_TrigWhenExprs.add(i);
            if (*place).is_null() {
                let context = pg_sys::CurrentMemoryContext;
                pg_sys::CurrentMemoryContext = (*estate).es_query_cxt;
                *place =
                    c::ExecPrepareQual(when_of(trigger, (*relation.ri_RelationDesc).rd_id), estate);
                pg_sys::CurrentMemoryContext = context;
            }
        }
        if only_ours && clauses_only && !may_touch_members(state, index, relation) {
            take_off(relation);
        }
    }
}

/// Takes the triggers of pairs off the statement's copy of the trigger list; all of the list, unless the
/// trigger that counts is to fire.
unsafe fn take_off(relation: &mut pg_sys::ResultRelInfo) {
    // SAFETY: the list is the statement's own.
    unsafe {
        let counted = triggers(relation)
            .iter()
            .any(|t| crate::load::counts(t) && is_enabled(t));
        if !counted {
            relation.ri_TrigDesc = std::ptr::null_mut();
            return;
        }
        let descriptor = &*relation.ri_TrigDesc;
        for i in 0..descriptor.numtriggers as usize {
            let trigger = descriptor.triggers.add(i);
            if !crate::load::counts(&*trigger) {
                (*trigger).tgenabled = pg_sys::TRIGGER_DISABLED as std::ffi::c_char;
            }
        }
    }
}

fn is_enabled(trigger: &pg_sys::Trigger) -> bool {
    trigger.tgenabled != pg_sys::TRIGGER_DISABLED as std::ffi::c_char
}

/// The parsed WHEN clause of a trigger, OLD and NEW where the executor expects them.
unsafe fn when_of(trigger: &pg_sys::Trigger, relation: pg_sys::Oid) -> *mut pg_sys::List {
    // SAFETY: a backend has one thread; a clause has memory of its own, which goes when it is replaced. The
    // executor makes a copy of what it prepares.
    unsafe {
        if !REGISTERED {
            REGISTERED = true;
            pg_sys::CacheRegisterRelcacheCallback(Some(forget), pg_sys::Datum::from(0));
        }
        let whens = &mut *&raw mut WHENS;
        for slot in whens.list.iter_mut() {
            if let Some(when) = slot
                && when.trigger == trigger.tgoid
            {
                if !when.stale {
                    return when.quals;
                }
                c::MemoryContextDelete(when.memory);
                *slot = None;
            }
        }
        let memory = c::AllocSetContextCreateInternal(
            pg_sys::CacheMemoryContext,
            c"shadowpart WHEN clause".as_ptr(),
            pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
            pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
            pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
        );
        let context = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = memory;
        let node = c::stringToNode(trigger.tgqual).cast::<pg_sys::Node>();
        c::ChangeVarNodes(node, pg_sys::PRS2_OLD_VARNO as i32, pg_sys::INNER_VAR, 0);
        c::ChangeVarNodes(node, pg_sys::PRS2_NEW_VARNO as i32, pg_sys::OUTER_VAR, 0);
        let quals = c::make_ands_implicit(node.cast());
        pg_sys::CurrentMemoryContext = context;
        if let Some(oldest) = whens.list[whens.next].take() {
            c::MemoryContextDelete(oldest.memory);
        }
        whens.list[whens.next] = Some(When {
            trigger: trigger.tgoid,
            relation,
            stale: false,
            memory,
            quals,
        });
        whens.next = (whens.next + 1) % WHENS_MAX;
        quals
    }
}

/// A relation has changed, perhaps its triggers; none means that all may have.
unsafe extern "C-unwind" fn forget(_: pg_sys::Datum, relid: pg_sys::Oid) {
    // SAFETY: a backend has one thread. Nothing is freed here: this is called from anywhere.
    unsafe {
        for when in (*&raw mut WHENS).list.iter_mut().flatten() {
            if relid == pg_sys::InvalidOid || when.relation == relid {
                when.stale = true;
            }
        }
    }
}

/// Whether a trigger of ours could fire for a row that the statement changes.
unsafe fn may_touch_members(
    state: &pg_sys::ModifyTableState,
    index: usize,
    relation: &pg_sys::ResultRelInfo,
) -> bool {
    // SAFETY: slots are made and dropped here; clauses read nothing but the entity column, which is set.
    unsafe {
        let Some(attno) = entity_column(relation) else {
            return true;
        };
        if state.operation == pg_sys::CmdType::CMD_UPDATE && may_change(state, index, attno) {
            return true;
        }
        let descriptor = (*relation.ri_RelationDesc).rd_att;
        let column = pins::Column::new(relation.ri_RangeTableIndex, attno, descriptor);
        let params = (*state.ps.state).es_param_list_info;
        let Some(value) = pins::value(state.ps.plan, &column, params) else {
            return true;
        };
        let estate = state.ps.state;
        let mut context = (*estate).es_per_tuple_exprcontext;
        if context.is_null() {
            context = c::MakePerTupleExprContext(estate);
        }
        let slot = c::MakeSingleTupleTableSlot(descriptor, &raw const pg_sys::TTSOpsVirtual);
        c::ExecStoreAllNullTuple(slot);
        *(*slot).tts_values.add(attno as usize - 1) = value;
        *(*slot).tts_isnull.add(attno as usize - 1) = false;
        (*context).ecxt_innertuple = slot;
        (*context).ecxt_outertuple = slot;
        let mut fires = false;
        for (i, trigger) in triggers(relation).iter().enumerate() {
            // The condition of the one that counts is no question: asked, it counts.
            if fires_on(trigger, state.operation) && !crate::load::counts(trigger) {
                let when = *relation.ri_TrigWhenExprs.add(i);
                fires |= super::side::qual_holds(when, context);
            }
        }
        (*context).ecxt_innertuple = std::ptr::null_mut();
        (*context).ecxt_outertuple = std::ptr::null_mut();
        c::ExecDropSingleTupleTableSlot(slot);
        fires
    }
}

/// The column that our triggers look at: mirror and capture name it in their arguments.
unsafe fn entity_column(relation: &pg_sys::ResultRelInfo) -> Option<i16> {
    // SAFETY: arguments of triggers are C strings.
    unsafe {
        let mut attno = None;
        for trigger in triggers(relation) {
            let Some(argument) = super::trigger::entity_argument(trigger) else {
                continue;
            };
            let name = *trigger.tgargs.add(argument);
            let found = pg_sys::get_attnum((*relation.ri_RelationDesc).rd_id, name);
            if found <= 0 || attno.is_some_and(|a| a != found) {
                return None;
            }
            attno = Some(found);
        }
        attno
    }
}

/// Whether an UPDATE can give the column another value.
unsafe fn may_change(state: &pg_sys::ModifyTableState, index: usize, attno: i16) -> bool {
    // SAFETY: a list of integer lists, one for each result relation. A BEFORE trigger could change anything,
    // but there is none: all triggers are ours.
    unsafe {
        let plan = state.ps.plan.cast::<pg_sys::ModifyTable>();
        let lists = (*plan).updateColnosLists;
        if lists.is_null() || index >= (*lists).length as usize {
            return true;
        }
        // From 18 on lists of pruned relations are left out; the executor has its own.
        #[cfg(feature = "pg18")]
        let lists = state.mt_updateColnosLists;
        let columns = (*(*lists).elements.add(index))
            .ptr_value
            .cast::<pg_sys::List>();
        if columns.is_null() {
            return false;
        }
        (0..(*columns).length as usize)
            .any(|i| (*(*columns).elements.add(i)).int_value == i32::from(attno))
    }
}

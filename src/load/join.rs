//! Joins to one entity: `... FROM tenants t JOIN orders o ON o.tenant = t.id WHERE t.name = 'x'`.
//!
//! Which entity that is, a nested loop knows once it runs: it passes the value of each row of its outer
//! side to the scan of the managed table. So we look at the first value that is passed, and count the
//! rows of the outer side; if there was one, the statement was on that entity.

use super::entity;
use super::managed::Managed;
use load::sketch::Key;
use pgrx::prelude::*;

mod c {
    use pgrx::pg_sys::*;
    unsafe extern "C-unwind" {
        pub fn InstrAlloc(n: i32, options: i32, asynchronous: bool) -> *mut Instrumentation;
        pub fn InstrEndLoop(instr: *mut Instrumentation);
    }
}

/// A nested loop of a statement under way.
pub struct Join {
    outer: *mut pg_sys::PlanState,
    inner: *mut pg_sys::PlanState,
    original: pg_sys::ExecProcNodeMtd,
    param: i32,
    managed: Managed,
    key: Option<Key>,
}

/// Those that wait for their first value.
static mut WAITING: Vec<*mut Join> = Vec::new();

fn waiting() -> &'static mut Vec<*mut Join> {
    // SAFETY: a backend has one thread, and no reference is kept across calls.
    unsafe { &mut *&raw mut WAITING }
}

/// Watches the nested loop that passes a parameter to a scan of a managed table. None if there is none.
///
/// # Safety
/// A statement that has been started and has not run yet. The join must not outlive it.
pub unsafe fn watch(
    top: *mut pg_sys::PlanState,
    param: i32,
    managed: Managed,
) -> Option<Box<Join>> {
    // SAFETY: instrumentation lives as long as the statement.
    unsafe {
        let state = find(top, param)?;
        let (outer, inner) = ((*state).lefttree, (*state).righttree);
        if (*outer).instrument.is_null() {
            let context = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = (*(*state).state).es_query_cxt;
            (*outer).instrument =
                c::InstrAlloc(1, pg_sys::InstrumentOption::INSTRUMENT_ROWS as i32, false);
            pg_sys::CurrentMemoryContext = context;
        }
        let mut join = Box::new(Join {
            outer,
            inner,
            original: (*inner).ExecProcNode,
            param,
            managed,
            key: None,
        });
        waiting().push(&raw mut *join);
        (*inner).ExecProcNode = Some(first);
        Some(join)
    }
}

impl Join {
    /// The entity, if there was exactly one.
    ///
    /// # Safety
    /// The statement has not ended.
    pub unsafe fn entity(&self) -> Option<Key> {
        // SAFETY: as required.
        unsafe {
            let rows = (*self.outer).instrument;
            c::InstrEndLoop(rows);
            if (*rows).ntuples == 1.0 {
                self.key
            } else {
                None
            }
        }
    }
}

impl Drop for Join {
    fn drop(&mut self) {
        let this = &raw mut *self;
        waiting().retain(|join| *join != this);
    }
}

/// The inner side is asked for its first row: the parameter has been set. No destructors in this frame.
unsafe extern "C-unwind" fn first(inner: *mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: installed by `watch` on this node, which has a function as every node has. Joins are taken
    // off the list before they go.
    unsafe {
        // Whoever has forgotten the join leaves us here: then without its instrumentation.
        let mut original = (*inner).ExecProcNodeReal;
        if let Some(at) = waiting().iter().position(|join| (**join).inner == inner) {
            let join = waiting().swap_remove(at);
            original = (*join).original;
            remember(join);
        }
        (*inner).ExecProcNode = original;
        original.unwrap_unchecked()(inner)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn remember(join: *mut Join) {
    // SAFETY: the parameter's number is from the plan.
    unsafe {
        let join = &mut *join;
        let value = &*(*(*join.inner).state)
            .es_param_exec_vals
            .add(join.param as usize);
        if !value.isnull && value.execPlan.is_null() {
            join.key = entity::key(&join.managed, value.value);
        }
    }
}

/// The nested loop that sets a parameter.
unsafe fn find(state: *mut pg_sys::PlanState, param: i32) -> Option<*mut pg_sys::PlanState> {
    // SAFETY: nodes are tagged; each cast follows its tag.
    unsafe {
        if state.is_null() {
            return None;
        }
        match (*state).type_ {
            pg_sys::NodeTag::T_NestLoopState => {
                let params = (*(*state).plan.cast::<pg_sys::NestLoop>()).nestParams;
                for i in 0..crate::pg::list::length(params) {
                    let set = crate::pg::list::nth::<pg_sys::NestLoopParam>(params, i);
                    if (*set).paramno == param {
                        return Some(state);
                    }
                }
            }
            pg_sys::NodeTag::T_AppendState => {
                let append = &*state.cast::<pg_sys::AppendState>();
                for i in 0..append.as_nplans as usize {
                    if let Some(found) = find(*append.appendplans.add(i), param) {
                        return Some(found);
                    }
                }
            }
            pg_sys::NodeTag::T_SubqueryScanState => {
                let scan = state.cast::<pg_sys::SubqueryScanState>();
                if let Some(found) = find((*scan).subplan, param) {
                    return Some(found);
                }
            }
            _ => {}
        }
        find((*state).lefttree, param).or_else(|| find((*state).righttree, param))
    }
}

//! Joins to one entity: `... FROM tenants t JOIN orders o ON o.tenant = t.id WHERE t.name = 'x'`.
//!
//! Which entity that is, a join knows once it runs. A nested loop passes the value of each row of its outer
//! side to the scan of the managed table: we look at the first value that is passed. In every other join
//! we look at the first row of the side that the managed table is joined to. If that side gave one row in
//! all, the statement was on that entity.

use super::entity;
use super::managed::Managed;
use crate::pg::pins::{self, Column};
use crate::pg::{list, raw};
use load::sketch::Key;
use pgrx::prelude::*;

/// A join of a statement under way.
pub struct Join {
    /// Whose rows are counted.
    side: *mut pg_sys::PlanState,
    /// Whose first row is waited for, and its own function meanwhile.
    watched: *mut pg_sys::PlanState,
    original: pg_sys::ExecProcNodeMtd,
    value: Value,
    managed: Managed,
    key: Option<Key>,
}

/// Where the value is once the watched node is asked for its first row, or has given it.
#[derive(Clone, Copy)]
enum Value {
    /// A parameter of the executor.
    Param(i32),
    /// A column of the row.
    Column(i16),
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
/// The plans of a statement that has been started and has not run yet. The join must not outlive it.
pub unsafe fn watch(
    tops: &[*mut pg_sys::PlanState],
    param: i32,
    managed: Managed,
) -> Option<Box<Join>> {
    // SAFETY: as required.
    unsafe {
        let state = tops
            .iter()
            .find_map(|top| find(*top, &|state| sets(state, param).then_some(state)))?;
        Some(begin(
            (*state).lefttree,
            (*state).righttree,
            Value::Param(param),
            managed,
        ))
    }
}

/// Watches a join of any kind, of a managed table that is scanned under this number to something else, by its
/// entity column. None if there is none.
///
/// # Safety
/// As for `watch`.
pub unsafe fn watch_sides(
    tops: &[*mut pg_sys::PlanState],
    column: &Column,
    managed: Managed,
) -> Option<Box<Join>> {
    // SAFETY: as required.
    unsafe {
        let (side, attno) = tops
            .iter()
            .find_map(|top| find(*top, &|state| other_side(state, column)))?;
        Some(begin(side, side, Value::Column(attno), managed))
    }
}

unsafe fn begin(
    side: *mut pg_sys::PlanState,
    watched: *mut pg_sys::PlanState,
    value: Value,
    managed: Managed,
) -> Box<Join> {
    // SAFETY: instrumentation lives as long as the statement.
    unsafe {
        if (*side).instrument.is_null() {
            let context = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = (*(*side).state).es_query_cxt;
            (*side).instrument =
                raw::InstrAlloc(1, pg_sys::InstrumentOption::INSTRUMENT_ROWS as i32, false);
            pg_sys::CurrentMemoryContext = context;
        }
        let mut join = Box::new(Join {
            side,
            watched,
            original: (*watched).ExecProcNode,
            value,
            managed,
            key: None,
        });
        waiting().push(&raw mut *join);
        (*watched).ExecProcNode = Some(first);
        join
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
            let rows = (*self.side).instrument;
            raw::InstrEndLoop(rows);
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

/// The watched node is asked for its first row: parameters have been set, and the row is at hand afterwards. No
/// destructors in this frame.
unsafe extern "C-unwind" fn first(node: *mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: installed by `begin` on this node, which has a function as every node has. Several joins may
    // watch a node: the first of them has found the node's own function.
    unsafe {
        // Whoever has forgotten the join leaves us here: then without its instrumentation.
        let original = match waiting().iter().find(|j| (***j).watched == node) {
            Some(join) => (**join).original,
            None => (*node).ExecProcNodeReal,
        };
        (*node).ExecProcNode = original;
        while let Some(join) = next_of(node, true) {
            remember(join, std::ptr::null_mut());
        }
        let slot = original.unwrap_unchecked()(node);
        while let Some(join) = next_of(node, false) {
            remember(join, slot);
        }
        slot
    }
}

/// Takes a join off the list that watches this node, of those that look before or after the row is there.
unsafe fn next_of(node: *mut pg_sys::PlanState, before: bool) -> Option<*mut Join> {
    // SAFETY: joins are taken off the list before they go.
    let at = waiting().iter().position(|join| unsafe {
        (**join).watched == node && before == matches!((**join).value, Value::Param(_))
    })?;
    Some(waiting().remove(at))
}

#[pg_guard]
unsafe extern "C-unwind" fn remember(join: *mut Join, slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: the parameter's number is from the plan; the slot holds a row of the node, which has that
    // column, or there is none.
    unsafe {
        let join = &mut *join;
        let value = match join.value {
            Value::Param(param) => {
                let value = &*(*(*join.watched).state)
                    .es_param_exec_vals
                    .add(param as usize);
                (!value.isnull && value.execPlan.is_null()).then_some(value.value)
            }
            Value::Column(_) if !raw::holds_row(slot) => None,
            Value::Column(attno) => {
                if (*slot).tts_nvalid < attno {
                    pg_sys::slot_getsomeattrs_int(slot, i32::from(attno));
                }
                let place = attno as usize - 1;
                (!*(*slot).tts_isnull.add(place)).then(|| *(*slot).tts_values.add(place))
            }
        };
        join.key = value.and_then(|value| entity::key(&join.managed, value));
    }
}

/// Looks for a join below, and at, a node.
unsafe fn find<T>(
    state: *mut pg_sys::PlanState,
    look: &impl Fn(*mut pg_sys::PlanState) -> Option<T>,
) -> Option<T> {
    // SAFETY: nodes are tagged; each cast follows its tag.
    unsafe {
        if state.is_null() {
            return None;
        }
        if let Some(found) = look(state) {
            return Some(found);
        }
        match (*state).type_ {
            pg_sys::NodeTag::T_AppendState => {
                let append = &*state.cast::<pg_sys::AppendState>();
                for i in 0..append.as_nplans as usize {
                    if let Some(found) = find(*append.appendplans.add(i), look) {
                        return Some(found);
                    }
                }
            }
            pg_sys::NodeTag::T_SubqueryScanState => {
                let scan = state.cast::<pg_sys::SubqueryScanState>();
                if let Some(found) = find((*scan).subplan, look) {
                    return Some(found);
                }
            }
            _ => {}
        }
        find((*state).lefttree, look).or_else(|| find((*state).righttree, look))
    }
}

/// Whether a node is the nested loop that sets a parameter.
unsafe fn sets(state: *mut pg_sys::PlanState, param: i32) -> bool {
    // SAFETY: nodes are tagged.
    unsafe {
        if (*state).type_ != pg_sys::NodeTag::T_NestLoopState {
            return false;
        }
        let params = (*(*state).plan.cast::<pg_sys::NestLoop>()).nestParams;
        (0..list::length(params))
            .any(|i| (*list::nth::<pg_sys::NestLoopParam>(params, i)).paramno == param)
    }
}

/// Of a join by the column: the side that does not scan it, and the column of that side's rows with which it
/// is compared.
unsafe fn other_side(
    state: *mut pg_sys::PlanState,
    column: &Column,
) -> Option<(*mut pg_sys::PlanState, i16)> {
    // SAFETY: nodes are tagged; each cast follows its tag.
    unsafe {
        let plan = (*state).plan;
        let clauses = match (*state).type_ {
            pg_sys::NodeTag::T_HashJoinState => (*plan.cast::<pg_sys::HashJoin>()).hashclauses,
            pg_sys::NodeTag::T_MergeJoinState => (*plan.cast::<pg_sys::MergeJoin>()).mergeclauses,
            pg_sys::NodeTag::T_NestLoopState => (*plan.cast::<pg_sys::NestLoop>()).join.joinqual,
            _ => return None,
        };
        let (mine, attno) = (0..list::length(clauses))
            .find_map(|i| joins_by(list::nth(clauses, i), &*plan, column))?;
        let is_outer = mine == pg_sys::OUTER_VAR;
        // Rows without a partner must not be asked for: then all entities are.
        let restricted = match (*plan.cast::<pg_sys::Join>()).jointype {
            pg_sys::JoinType::JOIN_INNER | pg_sys::JoinType::JOIN_SEMI => true,
            #[cfg(feature = "pg18")]
            pg_sys::JoinType::JOIN_RIGHT_SEMI => true,
            pg_sys::JoinType::JOIN_LEFT => !is_outer,
            pg_sys::JoinType::JOIN_RIGHT => is_outer,
            _ => false,
        };
        let mut side = if is_outer {
            (*state).righttree
        } else {
            (*state).lefttree
        };
        if !restricted || side.is_null() {
            return None;
        }
        // A hash is not asked for rows; what is below it is, and has the same columns. So has what is below a
        // node that keeps rows, to give them again and again.
        let keeps = (*side).type_ == pg_sys::NodeTag::T_MaterialState;
        if keeps || (*side).type_ == pg_sys::NodeTag::T_HashState {
            side = (*side).lefttree;
        } else if is_outer && (*state).type_ == pg_sys::NodeTag::T_NestLoopState {
            return None;
        }
        // Workers get a part of the rows each, and nobody else sees those.
        if side.is_null() || (*(*side).plan).parallel_aware || (*plan).parallel_aware {
            return None;
        }
        Some((side, attno))
    }
}

/// Whether a condition joins by the column: which side of the join it is on, and the other side's column.
unsafe fn joins_by(
    clause: *const pg_sys::OpExpr,
    join: &pg_sys::Plan,
    column: &Column,
) -> Option<(i32, i16)> {
    // SAFETY: a condition of the join; nodes are tagged.
    unsafe {
        if (*clause).xpr.type_ != pg_sys::NodeTag::T_OpExpr
            || list::length((*clause).args) != 2
            || !column.is_equality((*clause).opno, (*clause).inputcollid)
        {
            return None;
        }
        let sides = [0, 1].map(|i| var_of(list::nth((*clause).args, i)));
        let [Some(one), Some(two)] = sides else {
            return None;
        };
        if one.varno == two.varno {
            return None;
        }
        [(one, two), (two, one)]
            .into_iter()
            .find(|(mine, _)| is_column(mine, join, column))
            .map(|(mine, other)| (mine.varno, other.varattno))
            .filter(|(_, attno)| *attno > 0)
    }
}

unsafe fn var_of<'a>(node: *mut pg_sys::Node) -> Option<&'a pg_sys::Var> {
    // SAFETY: a tagged node.
    unsafe {
        let node = pins::bare(node);
        ((*node).type_ == pg_sys::NodeTag::T_Var).then(|| &*node.cast::<pg_sys::Var>())
    }
}

/// Whether a node's reference to a side of it is, all the way down, the column of a scan.
unsafe fn is_column(var: &pg_sys::Var, node: &pg_sys::Plan, column: &Column) -> bool {
    // SAFETY: plan nodes are tagged; a reference is to a column of the side's target list.
    unsafe {
        let side = match var.varno {
            pg_sys::OUTER_VAR => node.lefttree,
            pg_sys::INNER_VAR => node.righttree,
            _ => return false,
        };
        gives_column(side, var.varattno, column)
    }
}

/// Whether a column of a node's rows is that of the scan.
unsafe fn gives_column(plan: *const pg_sys::Plan, attno: i16, column: &Column) -> bool {
    // SAFETY: as for `is_column`.
    unsafe {
        if plan.is_null() || attno <= 0 || attno as usize > list::length((*plan).targetlist) {
            return false;
        }
        let children = match (*plan).type_ {
            pg_sys::NodeTag::T_Append => (*plan.cast::<pg_sys::Append>()).appendplans,
            pg_sys::NodeTag::T_MergeAppend => (*plan.cast::<pg_sys::MergeAppend>()).mergeplans,
            _ => std::ptr::null_mut(),
        };
        if !children.is_null() {
            return (0..list::length(children))
                .any(|i| gives_column(list::nth(children, i), attno, column));
        }
        let target = list::nth::<pg_sys::TargetEntry>((*plan).targetlist, attno as usize - 1);
        let Some(var) = var_of((*target).expr.cast()) else {
            return false;
        };
        if pins::is_scan(plan) {
            return column.is_read_by(plan, var);
        }
        if (*plan).type_ == pg_sys::NodeTag::T_SubqueryScan {
            let below = (*plan.cast::<pg_sys::SubqueryScan>()).subplan;
            return gives_column(below, var.varattno, column);
        }
        is_column(var, &*plan, column)
    }
}

//! Run-time pruning reads the bounds of the moment; the filters of a plan come from the bounds it was
//! planned with. Together they could find an entity on neither side, so plans over a marked wrapper
//! keep the pruning of planning time and of the levels above, and lose that of the wrapper's level and
//! of those below.

use super::older;
use crate::pg::list::{length, nth};
use crate::pg::raw;
use pgrx::pg_sys;
use std::ffi::c_char;

static mut PREVIOUS: pg_sys::planner_hook_type = None;

/// Wrappers met while planning, innermost planner's last. Fixed in size: past it every level loses its
/// run-time pruning, which costs time and never exactness.
struct Noted {
    wrappers: [pg_sys::Oid; 64],
    count: usize,
    overflow: bool,
}

static mut NOTED: Noted = Noted {
    wrappers: [pg_sys::InvalidOid; 64],
    count: 0,
    overflow: false,
};

pub fn install() {
    // SAFETY: single-threaded start-up of the postmaster.
    unsafe {
        PREVIOUS = pg_sys::planner_hook;
        pg_sys::planner_hook = Some(plan);
    }
}

/// The plan being made reads a marked child of this wrapper.
pub fn note(wrapper: pg_sys::Oid) {
    // SAFETY: a backend has one thread.
    unsafe {
        let noted = &mut *&raw mut NOTED;
        if noted.wrappers[..noted.count].last() == Some(&wrapper) {
            return;
        }
        if noted.count == noted.wrappers.len() {
            noted.overflow = true;
        } else {
            noted.wrappers[noted.count] = wrapper;
            noted.count += 1;
        }
    }
}

pub fn forget() {
    // SAFETY: a backend has one thread.
    unsafe {
        let noted = &mut *&raw mut NOTED;
        noted.count = 0;
        noted.overflow = false;
    }
}

/// No destructors in this frame: the planner's errors pass through it as they are.
unsafe extern "C-unwind" fn plan(
    query: *mut pg_sys::Query,
    text: *const c_char,
    options: i32,
    params: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: called by PostgreSQL; the structures belong to the plan just made.
    unsafe {
        let noted = &raw mut NOTED;
        let before = (*noted).count;
        let planner = PREVIOUS.unwrap_or(raw::standard_planner);
        let statement =
            older::plan_again_if_met(query, |query| planner(query, text, options, params));
        if (*noted).count > before || (*noted).overflow {
            strip(statement, before);
            (*noted).count = before;
            if before == 0 {
                (*noted).overflow = false;
            }
        }
        statement
    }
}

unsafe fn is_noted(relation: pg_sys::Oid, from: usize) -> bool {
    // SAFETY: a backend has one thread.
    unsafe {
        let noted = &*&raw const NOTED;
        noted.overflow || noted.wrappers[from.min(noted.count)..noted.count].contains(&relation)
    }
}

#[cfg(feature = "pg18")]
unsafe fn strip(statement: *mut pg_sys::PlannedStmt, from: usize) {
    // SAFETY: the statement was just made and is not shared yet.
    unsafe {
        for i in 0..length((*statement).partPruneInfos) {
            strip_info(statement, nth((*statement).partPruneInfos, i), from);
        }
    }
}

#[cfg(not(feature = "pg18"))]
unsafe fn strip(statement: *mut pg_sys::PlannedStmt, from: usize) {
    // SAFETY: the statement was just made and is not shared yet.
    unsafe {
        walk(statement, (*statement).planTree, from);
        for i in 0..length((*statement).subplans) {
            walk(statement, nth((*statement).subplans, i), from);
        }
    }
}

#[cfg(not(feature = "pg18"))]
unsafe fn walk(statement: *mut pg_sys::PlannedStmt, plan: *mut pg_sys::Plan, from: usize) {
    // SAFETY: plan nodes are tagged; each cast follows its tag.
    unsafe {
        if plan.is_null() {
            return;
        }
        walk(statement, (*plan).lefttree, from);
        walk(statement, (*plan).righttree, from);
        let children = match (*plan).type_ {
            pg_sys::NodeTag::T_Append => {
                let append = plan.cast::<pg_sys::Append>();
                strip_info(statement, (*append).part_prune_info, from);
                (*append).appendplans
            }
            pg_sys::NodeTag::T_MergeAppend => {
                let append = plan.cast::<pg_sys::MergeAppend>();
                strip_info(statement, (*append).part_prune_info, from);
                (*append).mergeplans
            }
            pg_sys::NodeTag::T_SubqueryScan => {
                walk(
                    statement,
                    (*plan.cast::<pg_sys::SubqueryScan>()).subplan,
                    from,
                );
                return;
            }
            pg_sys::NodeTag::T_CustomScan => (*plan.cast::<pg_sys::CustomScan>()).custom_plans,
            _ => return,
        };
        for i in 0..length(children) {
            walk(statement, nth(children, i), from);
        }
    }
}

unsafe fn strip_info(
    statement: *mut pg_sys::PlannedStmt,
    info: *mut pg_sys::PartitionPruneInfo,
    from: usize,
) {
    // SAFETY: a list of lists of PartitionedRelPruneInfo; range table indexes count from 1.
    unsafe {
        if info.is_null() {
            return;
        }
        for i in 0..length((*info).prune_infos) {
            let levels: *const pg_sys::List = nth((*info).prune_infos, i);
            for k in 0..length(levels) {
                let level: *mut pg_sys::PartitionedRelPruneInfo = nth(levels, k);
                let rte: *mut pg_sys::RangeTblEntry =
                    nth((*statement).rtable, (*level).rtindex as usize - 1);
                if is_noted((*rte).relid, from) {
                    take_out(statement, info, levels, k);
                }
            }
        }
    }
}

/// Takes a level, and those below it, out of the pruning: its subplans are always run.
///
/// It is not enough to take its steps away: the executor matches the partitions that it finds with those
/// of the plan by their order, which a swap changes, and by their number, which a join changes. So the
/// level is left in the list, where others refer to each other by position, with nothing in it.
// Before 18 the statement has nothing to say about leaves.
#[cfg_attr(not(feature = "pg18"), allow(clippy::only_used_in_recursion))]
unsafe fn take_out(
    statement: *mut pg_sys::PlannedStmt,
    info: *mut pg_sys::PartitionPruneInfo,
    levels: *const pg_sys::List,
    k: usize,
) {
    // SAFETY: the arrays of a level have `nparts` elements; the plan is new and nobody else's.
    unsafe {
        let level: *mut pg_sys::PartitionedRelPruneInfo = nth(levels, k);
        for part in 0..(*level).nparts as usize {
            let subplan = std::mem::replace(&mut *(*level).subplan_map.add(part), -1);
            if subplan >= 0 {
                (*info).other_subplans = pg_sys::bms_add_member((*info).other_subplans, subplan);
            }
            let below = std::mem::replace(&mut *(*level).subpart_map.add(part), -1);
            if below >= 0 {
                take_out(statement, info, levels, below as usize);
            }
            *(*level).relid_map.add(part) = pg_sys::InvalidOid;
            // From 18 on the executor opens a result relation only if it was not pruned, and takes leaves
            // without initial steps to be on the list of those that never are.
            #[cfg(feature = "pg18")]
            {
                let leaf = std::mem::replace(&mut *(*level).leafpart_rti_map.add(part), 0);
                if leaf != 0 && !(*level).initial_pruning_steps.is_null() {
                    (*statement).unprunableRelids =
                        pg_sys::bms_add_member((*statement).unprunableRelids, leaf);
                }
            }
        }
        (*level).present_parts = std::ptr::null_mut();
        (*level).initial_pruning_steps = std::ptr::null_mut();
        (*level).exec_pruning_steps = std::ptr::null_mut();
        (*level).execparamids = std::ptr::null_mut();
        for other in 0..length(levels) {
            let other: *mut pg_sys::PartitionedRelPruneInfo = nth(levels, other);
            for part in 0..(*other).nparts as usize {
                if *(*other).subpart_map.add(part) == k as i32 {
                    *(*other).subpart_map.add(part) = -1;
                }
            }
        }
    }
}

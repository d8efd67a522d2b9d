//! The filter of a marked leaf.
//!
//! PostgreSQL believes that the rows of a partition satisfy its bound and never checks it on reading.
//! While a pair lives, both sides hold the rows of its entities, so a marked leaf is checked: as a
//! child of a partitioned table against the partition descriptor that the *plan* pins, so that one
//! plan sees an entity on exactly one side whatever happens meanwhile; named directly, against the
//! bounds as the transaction's snapshot has them.

use super::bounds;
use super::older;
use super::prune;
use super::sight::{View, view_of};
use crate::pg::list;
use crate::pg::partition::Comparison;
use crate::pg::trigger;
use pgrx::prelude::*;
use std::ffi::CStr;

/// How the name of the internal trigger that marks a leaf begins. A trigger, because the relation
/// cache holds it, its coming and going invalidates plans, it needs no lock that readers notice, and
/// pg_dump leaves internal triggers out. '!' sorts before what people call theirs, so that ours fire
/// first.
const MARK_PREFIX: &CStr = c"!shadowpart_mark";
/// The same of the trigger that refuses a reserved value.
const RESERVED_PREFIX: &CStr = c"!shadowpart_reserved";

static mut PREVIOUS: pg_sys::get_relation_info_hook_type = None;

pub fn install() {
    // SAFETY: single-threaded start-up of the postmaster.
    unsafe {
        PREVIOUS = pg_sys::get_relation_info_hook;
        pg_sys::get_relation_info_hook = Some(relation_info);
    }
}

mod unguarded {
    use pgrx::pg_sys;
    unsafe extern "C-unwind" {
        pub fn RelationIdGetRelation(relid: pg_sys::Oid) -> pg_sys::Relation;
        pub fn RelationClose(relation: pg_sys::Relation);
    }
}

/// No destructors in this frame: errors of others pass through it as they are.
unsafe extern "C-unwind" fn relation_info(
    root: *mut pg_sys::PlannerInfo,
    relid: pg_sys::Oid,
    inhparent: bool,
    rel: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: called by the planner with its own structures; the relation is open and locked by it.
    unsafe {
        if let Some(previous) = PREVIOUS {
            previous(root, relid, inhparent, rel);
        }
        let relation = unguarded::RelationIdGetRelation(relid);
        if relation.is_null() {
            return;
        }
        if inhparent {
            let wraps = is_marked_wrapper(relation);
            unguarded::RelationClose(relation);
            if wraps {
                prune::note(relid);
            }
            return;
        }
        let mark = mark_of(relation);
        unguarded::RelationClose(relation);
        if let Some(mark) = mark {
            filter(root, relid, rel, mark);
        } else if matches!(view_of(relid), View::Nothing) {
            see_nothing(root, rel);
        }
    }
}

/// Whether a partitioned table is the wrapper of a living pair.
unsafe fn is_marked_wrapper(relation: pg_sys::Relation) -> bool {
    // SAFETY: an open relation cache entry.
    unsafe {
        (*(*relation).rd_rel).relhastriggers
            && triggers_of(relation)
                .iter()
                .any(|t| trigger::is_internal_named(t, MARK_PREFIX))
    }
}

/// What the marks of a leaf say of it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
enum Mark {
    /// Some pair has it as its primary: it may hold rows of entities that the shadow owns.
    Primary,
    /// It is a shadow and nothing else: it holds rows of its entities alone, and owns all of them or none.
    Shadow,
}

/// Whether the relation carries our mark, and which. A partition without triggers costs two loads.
unsafe fn mark_of(relation: pg_sys::Relation) -> Option<Mark> {
    // SAFETY: an open relation cache entry; arguments of triggers are C strings.
    unsafe {
        let class = &*(*relation).rd_rel;
        if !class.relispartition || !class.relhastriggers {
            return None;
        }
        let mut mark = None;
        for t in triggers_of(relation) {
            if !trigger::is_internal_named(t, MARK_PREFIX) {
                continue;
            }
            let shadow = t.tgnargs >= 3 && CStr::from_ptr(*t.tgargs.add(2)) == c"shadow";
            mark = if shadow && mark != Some(Mark::Primary) {
                Some(Mark::Shadow)
            } else {
                Some(Mark::Primary)
            };
        }
        mark
    }
}

/// The marks of a relation, of which there is one for each pair that it is in.
pub unsafe fn marks_of<'a>(
    relation: pg_sys::Relation,
) -> impl Iterator<Item = &'a pg_sys::Trigger> {
    // SAFETY: an open relation cache entry.
    unsafe {
        triggers_of(relation)
            .iter()
            .filter(|t| trigger::is_internal_named(t, MARK_PREFIX) && t.tgnargs >= 3)
    }
}

unsafe fn triggers_of<'a>(relation: pg_sys::Relation) -> &'a [pg_sys::Trigger] {
    // SAFETY: an open relation cache entry.
    unsafe { trigger::all((*relation).trigdesc) }
}

/// Takes the values out of a marked leaf's bound with which a side only holds its place: no row has them.
unsafe fn forget_reserved(relid: pg_sys::Oid, bound: &mut bounds::Bound, comparison: &Comparison) {
    // SAFETY: the caller holds a lock on the relation; the argument of such a trigger is the text form of a
    // value of the key's type, written by the same type's output function.
    unsafe {
        let bounds::Bound::Values { .. } = bound else {
            return;
        };
        let relation = pg_sys::relation_open(relid, pg_sys::NoLock as i32);
        for trigger in triggers_of(relation) {
            if trigger::is_internal_named(trigger, RESERVED_PREFIX) && trigger.tgnargs == 1 {
                let mut input = pg_sys::InvalidOid;
                let mut ioparam = pg_sys::InvalidOid;
                pg_sys::getTypeInputInfo(comparison.opcintype, &mut input, &mut ioparam);
                let value = pg_sys::OidInputFunctionCall(input, *trigger.tgargs, ioparam, -1);
                bound.forget(comparison, value);
            }
        }
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn filter(
    root: *mut pg_sys::PlannerInfo,
    relid: pg_sys::Oid,
    rel: *mut pg_sys::RelOptInfo,
    mark: Mark,
) {
    // SAFETY: as for `relation_info`.
    unsafe {
        let as_child = (*rel).reloptkind == pg_sys::RelOptKind::RELOPT_OTHER_MEMBER_REL;
        match view_of(relid) {
            View::Everything => {}
            View::Nothing => see_nothing(root, rel),
            View::Visible if as_child => filter_child(root, relid, rel, mark),
            View::Visible => filter_named(root, relid, rel, mark),
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn see_nothing(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: as for `relation_info`. A child is marked dummy exactly as `build_simple_rel` does right
    // after this hook when a restriction is constant false; any other relation gets a gating qual.
    unsafe {
        if (*rel).reloptkind == pg_sys::RelOptKind::RELOPT_OTHER_MEMBER_REL {
            pg_sys::mark_dummy_rel(rel);
        } else {
            let never = pg_sys::makeBoolConst(false, false);
            restrict(root, rel, never.cast(), true);
        }
    }
}

unsafe fn filter_child(
    root: *mut pg_sys::PlannerInfo,
    relid: pg_sys::Oid,
    rel: *mut pg_sys::RelOptInfo,
    mark: Mark,
) {
    // SAFETY: as for `relation_info`; the parent's RelOptInfo exists before that of its children.
    unsafe {
        let info = &**(*root).append_rel_array.add((*rel).relid as usize);
        let parent = *(*root).simple_rel_array.add(info.parent_relid as usize);
        if parent.is_null()
            || (*parent).part_scheme.is_null()
            || (*(*parent).part_scheme).partnatts != 1
        {
            return;
        }
        let key = list::nth::<pg_sys::Var>(*(*parent).partexprs, 0);
        if key.is_null() || (*key.cast::<pg_sys::Node>()).type_ != pg_sys::NodeTag::T_Var {
            return;
        }
        let scheme = &*(*parent).part_scheme;
        let comparison = Comparison {
            opfamily: *scheme.partopfamily,
            opcintype: *scheme.partopcintype,
            collation: *scheme.partcollation,
            typlen: *scheme.parttyplen,
            typbyval: *scheme.parttypbyval,
        };
        let pinned = bounds::pinned_value((*parent).baserestrictinfo, &*key, &comparison);
        if pinned.is_some() && pg_sys::enable_partition_pruning && !older::possible() {
            // Pruning has just left the one partition that owns the value, by the same descriptor.
            return;
        }
        let wrapper = pg_sys::relation_open(info.parent_reloid, pg_sys::NoLock as i32);
        let descriptor =
            pg_sys::PartitionDirectoryLookup((*(*root).glob).partition_directory, wrapper);
        pg_sys::relation_close(wrapper, pg_sys::NoLock as i32);
        let Some(mut bound) = bounds::of_descriptor(descriptor, relid) else {
            return;
        };
        forget_reserved(relid, &mut bound, &comparison);
        if mark == Mark::Shadow {
            let too_young = older::possible() && older::is_too_young(relid);
            if too_young && !older::looking_past() {
                older::note();
            }
            if bound.owns_nothing() || too_young {
                pg_sys::mark_dummy_rel(rel);
            }
            return;
        }
        if older::looking_past() {
            bound = older::with_young_shadows(relid, bound, descriptor, &comparison);
        }
        if let Some(value) = pinned {
            if !bound.owns(&comparison, value) {
                pg_sys::mark_dummy_rel(rel);
            }
            return;
        }
        let column = list::nth::<pg_sys::Var>(info.translated_vars, (*key).varattno as usize - 1);
        match bounds::qual(&bound, &comparison, column) {
            bounds::Qual::Always => {}
            bounds::Qual::Never => pg_sys::mark_dummy_rel(rel),
            bounds::Qual::If(expression) => {
                let rte = *(*root).simple_rte_array.add((*rel).relid as usize);
                let quals = pg_sys::lappend(std::ptr::null_mut(), expression.cast());
                (*rte).securityQuals = pg_sys::lappend((*rte).securityQuals, quals.cast());
            }
        }
    }
}

unsafe fn filter_named(
    root: *mut pg_sys::PlannerInfo,
    relid: pg_sys::Oid,
    rel: *mut pg_sys::RelOptInfo,
    mark: Mark,
) {
    // SAFETY: as for `relation_info`.
    unsafe {
        let Some((mut bound, comparison, attno)) = bounds::of_snapshot(relid) else {
            return;
        };
        forget_reserved(relid, &mut bound, &comparison);
        if mark == Mark::Shadow {
            if bound.owns_nothing() {
                see_nothing(root, rel);
            }
            return;
        }
        let relation = pg_sys::relation_open(relid, pg_sys::NoLock as i32);
        let column = pg_sys::makeVar(
            (*rel).relid as i32,
            attno,
            pg_sys::get_atttype(relid, attno),
            -1,
            bounds::column_collation(relation, attno),
            0,
        );
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        match bounds::qual(&bound, &comparison, column) {
            bounds::Qual::Always => {}
            bounds::Qual::Never => see_nothing(root, rel),
            bounds::Qual::If(expression) => restrict(root, rel, expression, false),
        }
    }
}

/// Adds a restriction to a relation that is no child.
unsafe fn restrict(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    expression: *mut pg_sys::Expr,
    pseudoconstant: bool,
) {
    // SAFETY: planner structures; the node is fresh and belongs to this plan. Security level 0 lets it
    // run before anything that a policy has to guard.
    unsafe {
        if pseudoconstant {
            (*root).hasPseudoConstantQuals = true;
        }
        let nobody = std::ptr::null_mut();
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let info = pg_sys::make_restrictinfo(
            root,
            expression,
            true,
            false,
            pseudoconstant,
            0,
            nobody,
            nobody,
            nobody,
        );
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let info = pg_sys::make_restrictinfo(
            root,
            expression,
            true,
            false,
            false,
            pseudoconstant,
            0,
            nobody,
            nobody,
            nobody,
        );
        (*rel).baserestrictinfo = pg_sys::lappend((*rel).baserestrictinfo, info.cast());
        (*rel).baserestrict_min_security = 0;
    }
}

/// Whether a relation is a marked leaf. The caller holds a lock on it.
pub fn is_marked_relation(relid: pg_sys::Oid) -> bool {
    // SAFETY: opened and closed here.
    unsafe {
        let relation = pg_sys::relation_open(relid, pg_sys::NoLock as i32);
        let marked = mark_of(relation).is_some();
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        marked
    }
}

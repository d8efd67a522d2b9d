//! Which entities a statement names: the values that the conditions of its plan pin the entity columns of
//! managed tables to.

use super::entity;
use super::join::{self, Join};
use super::managed::{self, Managed};
use crate::pg::{list, pins};
use load::sketch::Key;
use pgrx::prelude::*;

/// An entity that a statement names, or a partition of which it names none.
pub struct Named {
    pub key: Key,
    /// Where it was looked for; invalid if nobody has said in which of several.
    pub leaf: pg_sys::Oid,
}

/// What a statement names.
#[derive(Default)]
pub struct Found {
    pub named: Vec<Named>,
    /// Joins that may name one entity, and what is named if they do not.
    pub joins: Vec<(Box<Join>, Vec<Named>)>,
}

/// The entities that a statement names. Of a managed table of which it names none: its partitions, or the
/// table itself if they are many.
///
/// # Safety
/// The statement has been started and has not run yet.
pub unsafe fn look(query: *mut pg_sys::QueryDesc) -> Found {
    // SAFETY: plan and range table belong together; the statement runs with these parameters.
    unsafe {
        let statement = (*query).plannedstmt;
        let mut search = Search {
            rtable: (*statement).rtable,
            params: (*query).params,
            tables: Vec::new(),
            named: Vec::new(),
        };
        // The states of plans, not the plans: what is pruned when the statement starts has none.
        let mut tops: Vec<*mut pg_sys::PlanState> = vec![(*query).planstate];
        let subplans = (*(*query).estate).es_subplanstates;
        tops.extend((0..list::length(subplans)).map(|i| list::nth(subplans, i)));
        for top in &tops {
            search.walk(*top);
        }
        let Search {
            tables, mut named, ..
        } = search;
        for named in &mut named {
            // In which of several partitions, nobody has said.
            if let Some(table) = tables.iter().find(|t| t.leaves.contains(&named.leaf))
                && table.leaves.len() != 1
            {
                named.leaf = pg_sys::InvalidOid;
            }
        }
        let mut joins = Vec::new();
        if (*query).operation == pg_sys::CmdType::CMD_SELECT {
            for table in tables.iter().filter(|t| !t.has_named) {
                let nobody = table.named();
                let by_value = table
                    .param
                    .and_then(|(param, managed)| join::watch(&tops, param, managed));
                let join = by_value.or_else(|| {
                    let (column, managed) = table.scanned.as_ref()?;
                    join::watch_sides(&tops, column, *managed)
                });
                match join {
                    Some(join) => joins.push((join, nobody)),
                    None => named.extend(nobody),
                }
            }
        }
        Found { named, joins }
    }
}

struct Table {
    root: pg_sys::Oid,
    leaves: Vec<pg_sys::Oid>,
    has_named: bool,
    /// A parameter that will tell the entity.
    param: Option<(i32, Managed)>,
    /// The entity column as the first scan sees it.
    scanned: Option<(pins::Column, Managed)>,
}

impl Table {
    /// What stands for its partitions, or for all of it if they are many.
    fn named(&self) -> Vec<Named> {
        let whole = [self.root];
        let relations = if self.leaves.len() > LEAVES_MAX {
            &whole[..]
        } else {
            &self.leaves[..]
        };
        let of = |relid: &pg_sys::Oid| {
            Some(Named {
                key: entity::many(*relid)?,
                leaf: *relid,
            })
        };
        relations.iter().filter_map(of).collect()
    }
}

struct Search {
    rtable: *mut pg_sys::List,
    params: pg_sys::ParamListInfo,
    tables: Vec<Table>,
    named: Vec<Named>,
}

/// Most managed tables of one statement, partitions of one, and entities, that are told apart.
const TABLES_MAX: usize = 8;
const LEAVES_MAX: usize = 16;
const NAMED_MAX: usize = 64;

impl Search {
    unsafe fn walk(&mut self, state: *const pg_sys::PlanState) {
        // SAFETY: nodes are tagged; each cast follows its tag.
        unsafe {
            if state.is_null() {
                return;
            }
            if pins::is_scan((*state).plan) {
                self.scan((*state).plan);
            }
            match (*state).type_ {
                pg_sys::NodeTag::T_AppendState => {
                    let append = &*state.cast::<pg_sys::AppendState>();
                    self.children(append.appendplans, append.as_nplans);
                }
                pg_sys::NodeTag::T_MergeAppendState => {
                    let append = &*state.cast::<pg_sys::MergeAppendState>();
                    self.children(append.mergeplans, append.ms_nplans);
                }
                pg_sys::NodeTag::T_SubqueryScanState => {
                    self.walk((*state.cast::<pg_sys::SubqueryScanState>()).subplan);
                }
                _ => {}
            }
            self.walk((*state).lefttree);
            self.walk((*state).righttree);
        }
    }

    unsafe fn children(&mut self, states: *mut *mut pg_sys::PlanState, count: i32) {
        // SAFETY: an array of so many nodes.
        unsafe {
            for i in 0..count as usize {
                self.walk(*states.add(i));
            }
        }
    }

    unsafe fn scan(&mut self, plan: *const pg_sys::Plan) {
        // SAFETY: the relation is locked, since the statement has started.
        unsafe {
            let rti = (*plan.cast::<pg_sys::Scan>()).scanrelid;
            let entry = list::nth::<pg_sys::RangeTblEntry>(self.rtable, rti as usize - 1);
            if (*entry).rtekind != pg_sys::RTEKind::RTE_RELATION {
                return;
            }
            let leaf = (*entry).relid;
            let Some(managed) = managed::lookup(leaf) else {
                return;
            };
            let at = match self.tables.iter().position(|t| t.root == managed.root) {
                Some(at) => at,
                None if self.tables.len() >= TABLES_MAX => return,
                None => {
                    self.tables.push(Table {
                        root: managed.root,
                        leaves: Vec::new(),
                        has_named: false,
                        param: None,
                        scanned: None,
                    });
                    self.tables.len() - 1
                }
            };
            if self.tables[at].leaves.len() > LEAVES_MAX {
                return;
            }
            if !self.tables[at].leaves.contains(&leaf) {
                self.tables[at].leaves.push(leaf);
            }
            let relation = pg_sys::RelationIdGetRelation(leaf);
            if relation.is_null() {
                return;
            }
            let column = pins::Column::new(rti, managed.attno, (*relation).rd_att);
            pg_sys::RelationClose(relation);
            let found = self.values(plan, &column, &managed, leaf);
            let table = &mut self.tables[at];
            table.has_named |= found;
            table.scanned.get_or_insert((column, managed));
            if !found && table.param.is_none() {
                table.param = pins::exec_param(plan, &column).map(|param| (param, managed));
            }
        }
    }

    unsafe fn values(
        &mut self,
        plan: *const pg_sys::Plan,
        column: &pins::Column,
        managed: &Managed,
        leaf: pg_sys::Oid,
    ) -> bool {
        // SAFETY: as for `scan`.
        unsafe {
            let named = &mut self.named;
            let mut found = false;
            pins::values(plan, column, self.params, |value| {
                found = true;
                if named.len() < NAMED_MAX
                    && let Some(key) = entity::key(managed, value)
                    && !named.iter().any(|n| n.key == key)
                {
                    named.push(Named { key, leaf });
                }
            });
            found
        }
    }
}

//! Utility statements that the planner never sees, or that need to know of shadows.
//!
//! * `COPY leaf TO` reads the heap, hidden rows included: it becomes `COPY (SELECT ...) TO`, which is
//!   planned and therefore filtered. pg_dump depends on this.
//! * Statements that refuse a relation that their own session has open get the mirror's relations closed.
//! * Statements on a whole database want nobody connected to it: its scheduler steps aside.
//! * `DROP EXTENSION` is refused while there are live shadows; with CASCADE it takes them away first.

use crate::pg::error::Error;
use crate::pg::list;
use crate::pg::raw;
use crate::pg::sql;
use pgrx::prelude::*;
use std::ffi::{CStr, c_char};

static mut PREVIOUS: pg_sys::ProcessUtility_hook_type = None;
static mut INSTALLED: bool = false;

pub fn init() {
    // SAFETY: single-threaded start-up of the postmaster.
    unsafe {
        PREVIOUS = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(process);
        INSTALLED = true;
    }
}

/// Whether the hooks are in place.
pub fn is_installed() -> bool {
    // SAFETY: written once, before any other process exists.
    unsafe { INSTALLED }
}

/// No destructors in this frame: errors of utility statements pass through it as they are.
unsafe extern "C-unwind" fn process(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    dest: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: called by PostgreSQL with a complete statement; a changed one is a copy.
    unsafe {
        crate::mirror::release();
        let mut statement = statement;
        let node = (*statement).utilityStmt;
        let mut renamed = pg_sys::InvalidOid;
        match (*node).type_ {
            pg_sys::NodeTag::T_CopyStmt => {
                let copy = node.cast::<pg_sys::CopyStmt>();
                if !(*copy).is_from && !(*copy).relation.is_null() && (*copy).query.is_null() {
                    statement = copy_of_leaf(statement);
                }
            }
            pg_sys::NodeTag::T_RenameStmt => {
                let rename = node.cast::<pg_sys::RenameStmt>();
                if (*rename).renameType == pg_sys::ObjectType::OBJECT_COLUMN
                    && !(*rename).relation.is_null()
                {
                    renamed = before_rename_column(rename);
                }
                before_database(node);
            }
            pg_sys::NodeTag::T_DropStmt => {
                let drop = node.cast::<pg_sys::DropStmt>();
                if (*drop).removeType == pg_sys::ObjectType::OBJECT_EXTENSION {
                    before_drop_extension(drop);
                }
            }
            pg_sys::NodeTag::T_DropdbStmt
            | pg_sys::NodeTag::T_CreatedbStmt
            | pg_sys::NodeTag::T_AlterDatabaseStmt => before_database(node),
            _ => {}
        }
        PREVIOUS.unwrap_or(raw::standard_ProcessUtility)(
            statement,
            text,
            read_only_tree,
            context,
            params,
            environment,
            dest,
            completion,
        );
        match (*node).type_ {
            pg_sys::NodeTag::T_RenameStmt if renamed != pg_sys::InvalidOid => {
                after_rename_column(renamed, (*node.cast::<pg_sys::RenameStmt>()).newname);
            }
            pg_sys::NodeTag::T_CreateStmt => {
                let create = node.cast::<pg_sys::CreateStmt>();
                if !(*create).partbound.is_null() {
                    partitions_changed((*create).relation, std::ptr::null_mut());
                }
            }
            pg_sys::NodeTag::T_AlterTableStmt => {
                let alter = node.cast::<pg_sys::AlterTableStmt>();
                for i in 0..list::length((*alter).cmds) {
                    let command = list::nth::<pg_sys::AlterTableCmd>((*alter).cmds, i);
                    if matches!(
                        (*command).subtype,
                        pg_sys::AlterTableType::AT_AttachPartition
                            | pg_sys::AlterTableType::AT_DetachPartition
                            | pg_sys::AlterTableType::AT_DetachPartitionFinalize
                    ) {
                        let partition = (*command).def.cast::<pg_sys::PartitionCmd>();
                        partitions_changed((*alter).relation, (*partition).name);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The managed table whose entity column is about to be renamed, if it is one. Refused while there are
/// shadows: their triggers know the column by its name.
#[pg_guard]
unsafe extern "C-unwind" fn before_rename_column(rename: *mut pg_sys::RenameStmt) -> pg_sys::Oid {
    // SAFETY: a name that the statement will resolve in the same way, or complain about.
    unsafe {
        let relid = relid_of((*rename).relation);
        if relid == pg_sys::InvalidOid || crate::load::root_of(relid) != Some(relid) {
            return pg_sys::InvalidOid;
        }
        let column = CStr::from_ptr((*rename).subname).to_string_lossy();
        let outcome = crate::api::as_superuser(|| {
            sql::query(
                "SELECT EXISTS (SELECT FROM shadowpart.shadow s WHERE s.relation = m.relation
                            AND s.state NOT IN ('finalized', 'dropped', 'failed', 'cancelled'))
                   FROM shadowpart.managed m WHERE m.relation = $1 AND m.entity_column = $2::name",
                &[relid.into(), column.as_ref().into()],
                |row| Ok(row.get::<bool>(1)?.unwrap_or(false)),
            )
        });
        match outcome.as_deref() {
            Ok([true]) => Error::new(
                PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
                format!("cannot rename column \"{column}\" while the table has live shadows"),
            )
            .detail("It names the entity, and the shadows' triggers know it by its name.")
            .hint("SELECT id, state FROM shadow_status lists them; finalize, revert or drop them first.")
            .raise(),
            Ok([_]) => relid,
            Ok(_) => pg_sys::InvalidOid,
            Err(_) => outcome.map(|_| relid).unwrap_or_else(|error| error.raise()),
        }
    }
}

/// The entity column has a new name.
#[pg_guard]
unsafe extern "C-unwind" fn after_rename_column(relid: pg_sys::Oid, name: *const c_char) {
    // SAFETY: the name in the statement.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    let outcome = crate::api::as_superuser(|| {
        sql::execute(
            "UPDATE shadowpart.managed SET entity_column = $2::name WHERE relation = $1",
            &[relid.into(), name.as_ref().into()],
        )
    });
    if let Err(error) = outcome {
        error.raise();
    }
}

/// A partition has come to a table, or has left it: where the table is managed, it is counted, or not any
/// more.
#[pg_guard]
unsafe extern "C-unwind" fn partitions_changed(
    table: *mut pg_sys::RangeVar,
    partition: *mut pg_sys::RangeVar,
) {
    // SAFETY: names that the statement has just resolved. Whatever is gone again is nobody's concern.
    unsafe {
        let Some(root) = crate::load::root_of(relid_of(table)) else {
            return;
        };
        let partition = Some(relid_of(partition)).filter(|p| *p != pg_sys::InvalidOid);
        let outcome =
            crate::api::as_superuser(|| crate::load::triggers::put_right(root, partition));
        if let Err(error) = outcome {
            error.raise();
        }
    }
}

/// What a name stands for; nothing where it stands for nothing.
unsafe fn relid_of(name: *const pg_sys::RangeVar) -> pg_sys::Oid {
    // SAFETY: a name of a statement, or null.
    unsafe {
        if name.is_null() {
            return pg_sys::InvalidOid;
        }
        pg_sys::RangeVarGetRelidExtended(
            name,
            pg_sys::NoLock as i32,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        )
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn before_database(node: *mut pg_sys::Node) {
    // SAFETY: the statement that is about to run.
    unsafe { crate::job::aside::before(node) }
}

/// For a marked leaf, the same COPY of a SELECT; else the statement itself.
#[pg_guard]
unsafe extern "C-unwind" fn copy_of_leaf(
    statement: *mut pg_sys::PlannedStmt,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: nodes are fresh or copies; the relation is looked up as COPY itself would, and a relation
    // that does not exist is left to COPY to complain about.
    unsafe {
        let copy = (*statement).utilityStmt.cast::<pg_sys::CopyStmt>();
        let range = (*copy).relation;
        let relid = pg_sys::RangeVarGetRelidExtended(
            range,
            pg_sys::AccessShareLock as i32,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        );
        if relid == pg_sys::InvalidOid || !crate::planner::is_marked_relation(relid) {
            return statement;
        }
        let statement: *mut pg_sys::PlannedStmt = pg_sys::copyObjectImpl(statement.cast()).cast();
        let copy = (*statement).utilityStmt.cast::<pg_sys::CopyStmt>();
        let mut targets = std::ptr::null_mut();
        for name in columns_of(relid, (*copy).attlist) {
            let column = new_node::<pg_sys::ColumnRef>(pg_sys::NodeTag::T_ColumnRef);
            (*column).fields =
                pg_sys::lappend(std::ptr::null_mut(), pg_sys::makeString(name).cast());
            (*column).location = -1;
            let target = new_node::<pg_sys::ResTarget>(pg_sys::NodeTag::T_ResTarget);
            (*target).val = column.cast();
            (*target).location = -1;
            targets = pg_sys::lappend(targets, target.cast());
        }
        let from: *mut pg_sys::RangeVar = pg_sys::copyObjectImpl((*copy).relation.cast()).cast();
        (*from).inh = false;
        let select = new_node::<pg_sys::SelectStmt>(pg_sys::NodeTag::T_SelectStmt);
        (*select).targetList = targets;
        (*select).fromClause = pg_sys::lappend(std::ptr::null_mut(), from.cast());
        (*copy).relation = std::ptr::null_mut();
        (*copy).attlist = std::ptr::null_mut();
        (*copy).query = select.cast();
        statement
    }
}

/// Columns that COPY of the table would write: the ones listed, or all that are neither dropped nor
/// generated.
unsafe fn columns_of(relid: pg_sys::Oid, listed: *mut pg_sys::List) -> Vec<*mut c_char> {
    // SAFETY: names are copied out of the relation cache before it is closed.
    unsafe {
        if !listed.is_null() {
            return (0..list::length(listed))
                .map(|i| {
                    let name = list::nth::<pg_sys::Node>(listed, i);
                    #[cfg(feature = "pg14")]
                    let text = (*name.cast::<pg_sys::Value>()).val.str_;
                    #[cfg(not(feature = "pg14"))]
                    let text = (*name.cast::<pg_sys::String>()).sval;
                    pg_sys::pstrdup(text)
                })
                .collect();
        }
        let relation = pg_sys::table_open(relid, pg_sys::NoLock as i32);
        let names = (1..=(*(*relation).rd_att).natts as i16)
            .filter_map(|attno| {
                let tuple = pg_sys::SearchSysCache2(
                    pg_sys::SysCacheIdentifier::ATTNUM as i32,
                    relid.into(),
                    pg_sys::Datum::from(attno),
                );
                if tuple.is_null() {
                    return None;
                }
                let form = &*(pg_sys::GETSTRUCT(tuple) as *const pg_sys::FormData_pg_attribute);
                let wanted = !form.attisdropped && form.attgenerated == 0;
                let name = wanted.then(|| pg_sys::pstrdup(form.attname.data.as_ptr()));
                pg_sys::ReleaseSysCache(tuple);
                name
            })
            .collect();
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
        names
    }
}

unsafe fn new_node<T>(tag: pg_sys::NodeTag) -> *mut T {
    // SAFETY: a zeroed node of the right size with its tag set.
    unsafe {
        let node = pg_sys::palloc0(size_of::<T>()) as *mut pg_sys::Node;
        (*node).type_ = tag;
        node.cast()
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn before_drop_extension(drop: *mut pg_sys::DropStmt) {
    // SAFETY: reads the names in the statement.
    unsafe {
        let ours = (0..list::length((*drop).objects)).any(|i| {
            let name = list::nth::<pg_sys::Node>((*drop).objects, i);
            #[cfg(feature = "pg14")]
            let text = (*name.cast::<pg_sys::Value>()).val.str_;
            #[cfg(not(feature = "pg14"))]
            let text = (*name.cast::<pg_sys::String>()).sval;
            CStr::from_ptr(text) == c"shadowpart"
        });
        // Only a superuser owns it; anybody else is refused by DROP EXTENSION itself.
        if !ours || !pg_sys::superuser() {
            return;
        }
        let cascade = (*drop).behavior == pg_sys::DropBehavior::DROP_CASCADE;
        let outcome: Result<(), Error> = crate::pair::dismantle::before_drop_extension(cascade);
        if let Err(error) = outcome {
            error.raise();
        }
    }
}

//! Statements on a whole database that want nobody connected to it: DROP, RENAME, SET TABLESPACE, and
//! CREATE with it as the template. PostgreSQL waits some seconds for others to leave, but tells only
//! autovacuum to. So its scheduler is asked to step aside for a while, and is started again afterwards, if
//! the database is still there.

use super::shared;
use crate::pg::list;
use pgrx::prelude::*;
use std::ffi::{CStr, c_char};

/// Before a utility statement, which this leaves as it is.
///
/// # Safety
///
/// Called in a transaction, with a complete statement.
pub unsafe fn before(node: *mut pg_sys::Node) {
    // SAFETY: the tag says which statement it is; names are looked up, not kept.
    unsafe {
        let name = match (*node).type_ {
            pg_sys::NodeTag::T_DropdbStmt => (*node.cast::<pg_sys::DropdbStmt>()).dbname,
            pg_sys::NodeTag::T_CreatedbStmt => {
                text_of((*node.cast::<pg_sys::CreatedbStmt>()).options, c"template")
            }
            pg_sys::NodeTag::T_AlterDatabaseStmt => {
                let alter = node.cast::<pg_sys::AlterDatabaseStmt>();
                if text_of((*alter).options, c"tablespace").is_null() {
                    return;
                }
                (*alter).dbname
            }
            pg_sys::NodeTag::T_RenameStmt
                if (*node.cast::<pg_sys::RenameStmt>()).renameType
                    == pg_sys::ObjectType::OBJECT_DATABASE =>
            {
                (*node.cast::<pg_sys::RenameStmt>()).subname
            }
            _ => return,
        };
        if name.is_null() {
            return;
        }
        let database = pg_sys::get_database_oid(name, true);
        // Whom the statement will refuse has no say in who is connected.
        if database != pg_sys::InvalidOid && owns(database) {
            shared::set_aside(database.to_u32());
        }
    }
}

/// The text of an option; NULL if it is not there.
unsafe fn text_of(options: *mut pg_sys::List, name: &CStr) -> *mut c_char {
    // SAFETY: a list of DefElem, as the grammar makes it.
    unsafe {
        for i in 0..list::length(options) {
            let option = list::nth::<pg_sys::DefElem>(options, i);
            if CStr::from_ptr((*option).defname) == name && !(*option).arg.is_null() {
                return pg_sys::defGetString(option);
            }
        }
        std::ptr::null_mut()
    }
}

fn owns(database: pg_sys::Oid) -> bool {
    // SAFETY: looks into the catalog.
    unsafe {
        let user = pg_sys::GetUserId();
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        return pg_sys::pg_database_ownercheck(database, user);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, database, user)
    }
}

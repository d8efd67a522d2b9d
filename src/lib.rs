//! shadowpart: live, constant-time moves of tenants between tablespaces.
//!
//! This file only wires. Each folder is a concept and says in its `mod.rs` what it owns:
//! `load` (who reads and writes how much), `planner` (hidden rows stay hidden), `mirror` (writes reach both sides), `pair` (building and
//! swapping a primary and its shadow), `job` (the background work), `api` (what SQL calls),
//! `record` (what the load was), `autopilot` (what it will be, and what is done about it), `utility` (utility statements that the planner never sees), `pg` (the few wrappers around
//! PostgreSQL's C functions that the others share). Dependencies point one way:
//! autopilot -> api -> job -> pair -> mirror, planner, load -> pg.

use pgrx::prelude::*;

mod api;
mod autopilot;
mod failpoint;
mod guc;
mod job;
mod load;
mod mirror;
mod pair;
mod pg;
mod planner;
mod record;
mod utility;

::pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/catalog.sql", name = "catalog", bootstrap);
extension_sql_file!(
    "../sql/internal.sql",
    name = "internal",
    requires = ["catalog"]
);
extension_sql_file!(
    "../sql/manage.sql",
    name = "manage",
    requires = ["internal"]
);
extension_sql_file!("../sql/shadow.sql", name = "shadow", requires = ["manage"]);
extension_sql_file!("../sql/load.sql", name = "load", requires = ["shadow"]);
extension_sql_file!(
    "../sql/record.sql",
    name = "record",
    requires = ["internal"]
);
extension_sql_file!(
    "../sql/record_views.sql",
    name = "record_views",
    requires = ["record"]
);
extension_sql_file!(
    "../sql/autopilot.sql",
    name = "autopilot",
    requires = ["record_views"]
);
extension_sql_file!(
    "../sql/views.sql",
    name = "views",
    requires = ["load", "record_views", "autopilot"],
    finalize
);
#[cfg(feature = "failpoints")]
extension_sql_file!(
    "../sql/failpoints.sql",
    name = "failpoints",
    requires = ["internal"]
);

/// Called once when the library is loaded; installs settings, shared memory, hooks, the launcher.
#[allow(non_snake_case)]
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    // SAFETY: a plain flag that only the postmaster sets, before it starts any other process.
    if unsafe { !pg_sys::process_shared_preload_libraries_in_progress } {
        // Too late to install anything. CREATE EXTENSION and every function say so by themselves
        // (`api::require_preload`), with one clear error; raising it here would also break
        // pg_upgrade and plain LOAD.
        return;
    }
    guc::init();
    job::shared::init();
    planner::init();
    // Before the mirror, which looks at the triggers that are left.
    load::init();
    mirror::init();
    utility::init();
    job::launcher::init();
    guc::reserve_prefix();
}

#[cfg(test)]
pub mod pg_test {
    pub fn setup(_options: Vec<&str>) {}

    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec![
            "shared_preload_libraries = 'shadowpart'",
            "max_worker_processes = 24",
        ]
    }
}

#[cfg(any(test, feature = "pg_test"))]
mod tests;

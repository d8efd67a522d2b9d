//! One process in the cluster that starts a scheduler wherever there is unfinished work: for every
//! database when the server starts, later for those that ask.

use super::shared;
use crate::pg::latch;
use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::prelude::*;
use std::time::{Duration, Instant};

/// How often all databases are looked at without being asked to.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

pub fn init() {
    BackgroundWorkerBuilder::new("shadowpart launcher")
        .set_function("shadowpart_launcher")
        .set_library("shadowpart")
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(1)))
        .enable_shmem_access(None)
        .enable_spi_access()
        .load();
}

/// Signal handlers with which a worker can be interrupted in the middle of SQL.
pub fn be_interruptible() {
    // SAFETY: the handlers are PostgreSQL's own, made for processes like this.
    unsafe {
        pqsignal(pg_sys::SIGTERM as i32, Some(die));
        pqsignal(pg_sys::SIGHUP as i32, Some(reload));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

#[cfg(not(feature = "pg18"))]
use pg_sys::pqsignal;
#[cfg(feature = "pg18")]
use pg_sys::pqsignal_be as pqsignal;

unsafe extern "C-unwind" fn die(signal: i32) {
    // SAFETY: the standard handler.
    unsafe { pg_sys::die(signal) }
}

unsafe extern "C-unwind" fn reload(signal: i32) {
    // SAFETY: the standard handler: sets a flag and the latch.
    unsafe { pg_sys::SignalHandlerForConfigReload(signal) }
}

/// Settings under which a worker's SQL means what it says, whatever the database or role is set to.
pub fn harden(application: &std::ffi::CStr, lock_timeout: &std::ffi::CStr) {
    for (name, value) in [
        (c"search_path", c"pg_catalog, pg_temp"),
        (c"statement_timeout", c"0"),
        (c"lock_timeout", lock_timeout),
        (c"idle_in_transaction_session_timeout", c"0"),
        (c"default_transaction_isolation", c"read committed"),
        (c"default_transaction_read_only", c"off"),
        (c"row_security", c"off"),
        (c"constraint_exclusion", c"partition"),
        (c"enable_partition_pruning", c"on"),
        (c"check_function_bodies", c"off"),
        // Comparing both sides is not urgent: others need the CPUs.
        (c"max_parallel_workers_per_gather", c"0"),
        (c"application_name", application),
        (c"client_min_messages", c"error"),
    ] {
        // SAFETY: names and values are C strings; an unknown name would raise, and these are known.
        unsafe {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    }
}

/// Reads the configuration again if asked to; whether it was.
pub fn reload_if_asked() -> bool {
    // SAFETY: what every worker's main loop does.
    unsafe {
        let asked = pg_sys::ConfigReloadPending != 0;
        if asked {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
        asked
    }
}

#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn shadowpart_launcher(_arg: pg_sys::Datum) {
    be_interruptible();
    // SAFETY: connects to no database: shared catalogs only.
    unsafe { pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0) };
    shared::release_at_exit();
    shared::set_launcher();
    let mut wanted = None;
    let mut looked = Instant::now();
    loop {
        if wanted.is_none() {
            looked = Instant::now();
        }
        let mut unserved = false;
        for database in wanted.unwrap_or_else(databases) {
            // One that is to leave may not have left yet.
            if shared::is_aside(database) || !shared::has_scheduler(database) && !start(database) {
                unserved = true;
            }
        }
        if unserved {
            // No worker slot was free, or somebody wants the database for himself: again a little later.
            latch::nap(Duration::from_secs(5));
            wanted = None;
            reload_if_asked();
            continue;
        }
        latch::nap(LOOK_AGAIN);
        reload_if_asked();
        wanted = shared::take_wanted();
        if looked.elapsed() >= LOOK_AGAIN {
            // Managed tables come in other ways than shadow_manage, too: from a dump, or by COMMIT PREPARED.
            wanted = None;
        }
    }
}

/// Databases that accept connections.
fn databases() -> Vec<u32> {
    let mut list = Vec::new();
    // SAFETY: a scan of a shared catalog in a transaction of its own.
    unsafe {
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let relation =
            pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::systable_beginscan(
            relation,
            pg_sys::InvalidOid,
            false,
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let form = &*(pg_sys::GETSTRUCT(tuple) as *const pg_sys::FormData_pg_database);
            if form.datallowconn && !form.datistemplate {
                list.push(form.oid.to_u32());
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
    }
    list
}

fn start(database: u32) -> bool {
    start_worker(
        "shadowpart scheduler",
        "shadowpart_scheduler",
        database,
        "",
        0,
    )
    .is_some()
}

/// Starts a worker in a database; `None` when there is no slot for it.
pub fn start_worker(
    name: &str,
    function: &str,
    database: u32,
    extra: &str,
    notify: i32,
) -> Option<Handle> {
    // SAFETY: a zeroed struct whose strings are filled within their bounds.
    unsafe {
        let mut worker = std::mem::zeroed::<pg_sys::BackgroundWorker>();
        fill(&mut worker.bgw_name, name);
        fill(&mut worker.bgw_type, name);
        fill(&mut worker.bgw_library_name, "shadowpart");
        fill(&mut worker.bgw_function_name, function);
        fill(&mut worker.bgw_extra, extra);
        worker.bgw_flags =
            (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as i32;
        worker.bgw_start_time = pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished;
        worker.bgw_restart_time = pg_sys::BGW_NEVER_RESTART;
        worker.bgw_main_arg = pg_sys::Datum::from(database);
        worker.bgw_notify_pid = notify;
        let mut handle = std::ptr::null_mut();
        if pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle) {
            Some(Handle(handle))
        } else {
            None
        }
    }
}

/// A worker that was started.
pub struct Handle(*mut pg_sys::BackgroundWorkerHandle);

impl Handle {
    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        let mut pid = 0;
        // SAFETY: a handle from RegisterDynamicBackgroundWorker.
        unsafe {
            pg_sys::GetBackgroundWorkerPid(self.0, &mut pid)
                == pg_sys::BgwHandleStatus::BGWH_STOPPED
        }
    }
}

fn fill(field: &mut [std::ffi::c_char], text: &str) {
    for (to, from) in field.iter_mut().zip(text.bytes().take(95)) {
        *to = from as std::ffi::c_char;
    }
}

/// The worker's extra text.
pub fn extra() -> String {
    // SAFETY: MyBgworkerEntry belongs to this process; the text is NUL-terminated.
    unsafe {
        std::ffi::CStr::from_ptr((*pg_sys::MyBgworkerEntry).bgw_extra.as_ptr())
            .to_string_lossy()
            .into_owned()
    }
}

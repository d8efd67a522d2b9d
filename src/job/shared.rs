//! Who is at work on what, in shared memory.

use pgrx::lwlock::PgLwLock;
use pgrx::prelude::*;
use pgrx::shmem::*;
use pgrx::{pg_shmem_init, pg_sys};
use std::sync::atomic::{AtomicU32, Ordering};

/// Most workers, databases waiting for a scheduler, and schedulers: a bound for each.
pub const SLOTS: usize = 64;

#[derive(Clone, Copy, Default)]
struct Running {
    database: u32,
    shadow: i64,
    pid: i32,
    cancel: bool,
}

#[derive(Clone, Copy)]
pub struct Board {
    running: [Running; SLOTS],
    /// Databases for which a scheduler is wanted.
    wanted: [u32; SLOTS],
    /// More than fit: look at all of them.
    wanted_all: bool,
    /// Databases that have a scheduler, with its pid.
    schedulers: [(u32, i32); SLOTS],
    /// Databases that have an autopilot, with its pid.
    autopilots: [(u32, i32); SLOTS],
    /// Which of them are to look at once: a setting has changed.
    hurry: [bool; SLOTS],
    /// Databases that somebody wants for himself, and until when (microseconds since 2000).
    aside: [(u32, i64); SLOTS],
    launcher_pid: i32,
}

impl Default for Board {
    fn default() -> Self {
        Board {
            running: [Running::default(); SLOTS],
            wanted: [0; SLOTS],
            wanted_all: false,
            schedulers: [(0, 0); SLOTS],
            autopilots: [(0, 0); SLOTS],
            hurry: [false; SLOTS],
            aside: [(0, 0); SLOTS],
            launcher_pid: 0,
        }
    }
}

// SAFETY: plain data, no pointers.
unsafe impl PGRXSharedMemory for Board {}

// SAFETY: the only lock of this name.
static BOARD: PgLwLock<Board> = unsafe { PgLwLock::new(c"shadowpart_board") };

pub fn init() {
    pg_shmem_init!(BOARD);
}

fn database() -> u32 {
    // SAFETY: set once, when the process connects.
    unsafe { pg_sys::MyDatabaseId.to_u32() }
}

fn pid() -> i32 {
    // SAFETY: constant for the process.
    unsafe { pg_sys::MyProcPid }
}

/// Why a worker may not begin.
#[derive(PartialEq, Eq)]
pub enum Refused {
    /// Another worker is at this shadow.
    Taken,
    /// As many jobs as allowed are at work.
    Full,
}

/// Takes a shadow for this process; given back when the process ends.
pub fn claim(shadow: i64, max_jobs: usize) -> Result<(), Refused> {
    let mut board = BOARD.exclusive();
    if board
        .running
        .iter()
        .any(|r| r.pid != 0 && r.database == database() && r.shadow == shadow)
    {
        return Err(Refused::Taken);
    }
    if board.running.iter().filter(|r| r.pid != 0).count() >= max_jobs {
        return Err(Refused::Full);
    }
    let Some(slot) = board.running.iter_mut().find(|r| r.pid == 0) else {
        return Err(Refused::Full);
    };
    *slot = Running {
        database: database(),
        shadow,
        pid: pid(),
        cancel: false,
    };
    Ok(())
}

/// Gives back everything that this process holds.
pub fn release() {
    let mut board = BOARD.exclusive();
    for r in board.running.iter_mut().filter(|r| r.pid == pid()) {
        *r = Running::default();
    }
    let Board {
        schedulers,
        autopilots,
        ..
    } = &mut *board;
    for s in (schedulers.iter_mut().chain(autopilots)).filter(|s| s.1 == pid()) {
        *s = (0, 0);
    }
    if board.launcher_pid == pid() {
        board.launcher_pid = 0;
    }
}

/// The database that wants another scheduler if this process ends now; zero: none does.
static SUCCESSOR: AtomicU32 = AtomicU32::new(0);

/// Another scheduler of the database takes the place of this one if it ends, whoever ends it, before it
/// calls this again with none. Not at once: what has ended it may end the next.
pub fn want_successor(db: Option<u32>) {
    SUCCESSOR.store(db.unwrap_or(0), Ordering::Relaxed);
}

/// Gives back at the end of the process, whichever way it ends short of a crash.
pub fn release_at_exit() {
    unsafe extern "C-unwind" fn at_exit(_: i32, _: pg_sys::Datum) {
        release();
        let db = SUCCESSOR.load(Ordering::Relaxed);
        if db != 0 {
            aside_for(db, RESTART_US);
            want_scheduler_of(db);
        }
    }
    // SAFETY: the callback touches shared memory only, which is still attached then.
    unsafe { pg_sys::before_shmem_exit(Some(at_exit), pg_sys::Datum::from(0)) }
}

/// Whether a worker is at this shadow of this database.
pub fn is_running(shadow: i64) -> bool {
    let board = BOARD.share();
    board
        .running
        .iter()
        .any(|r| r.pid != 0 && r.database == database() && r.shadow == shadow)
}

/// How many workers are at work in the cluster.
pub fn running() -> usize {
    BOARD.share().running.iter().filter(|r| r.pid != 0).count()
}

/// Asks the worker of a shadow to stop building it; false when there is none.
pub fn cancel(shadow: i64) -> bool {
    let found = {
        let mut board = BOARD.exclusive();
        let mut found = 0;
        for r in board
            .running
            .iter_mut()
            .filter(|r| r.pid != 0 && r.database == database() && r.shadow == shadow)
        {
            r.cancel = true;
            found = r.pid;
        }
        found
    };
    wake(found);
    found != 0
}

/// Whether this process has been asked to stop.
pub fn is_cancelled() -> bool {
    BOARD
        .share()
        .running
        .iter()
        .any(|r| r.pid == pid() && r.cancel)
}

/// The request has been acted on.
pub fn clear_cancel() {
    for r in BOARD
        .exclusive()
        .running
        .iter_mut()
        .filter(|r| r.pid == pid())
    {
        r.cancel = false;
    }
}

/// Asks the launcher for a scheduler for this database.
pub fn want_scheduler() {
    want_scheduler_of(database());
}

fn want_scheduler_of(db: u32) {
    let launcher = {
        let mut board = BOARD.exclusive();
        if !board.wanted.contains(&db) {
            match board.wanted.iter_mut().find(|w| **w == 0) {
                Some(free) => *free = db,
                None => board.wanted_all = true,
            }
        }
        board.launcher_pid
    };
    wake(launcher);
}

/// Wakes the scheduler of this database, or asks for one.
pub fn wake_scheduler() {
    let found = {
        let board = BOARD.share();
        board
            .schedulers
            .iter()
            .find(|s| s.0 == database())
            .map(|s| s.1)
    };
    match found {
        Some(pid) if pid != 0 => wake(pid),
        _ => want_scheduler(),
    }
}

/// For how long the scheduler of a database keeps away from it: twice as long as PostgreSQL waits for
/// others to leave.
const ASIDE_US: i64 = 10_000_000;
/// For how long at least after one was ended.
const RESTART_US: i64 = 1_000_000;

fn now_us() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

fn aside_for(db: u32, time_us: i64) {
    let mut board = BOARD.exclusive();
    // Its own entry, or the one that ends first: usually one that has ended.
    let slot = (board.aside.iter_mut()).min_by_key(|a| if a.0 == db { i64::MIN } else { a.1 });
    if let Some(slot) = slot {
        let until = now_us().saturating_add(time_us);
        // Not for less than it was asked to before.
        *slot = (
            db,
            if slot.0 == db {
                slot.1.max(until)
            } else {
                until
            },
        );
    }
}

/// Asks the scheduler of a database to leave it for a while.
pub fn set_aside(db: u32) {
    aside_for(db, ASIDE_US);
    let watchers: Vec<i32> = {
        let board = BOARD.share();
        (board.schedulers.iter().chain(&board.autopilots))
            .filter(|s| s.0 == db)
            .map(|s| s.1)
            .collect()
    };
    watchers.into_iter().for_each(wake);
}

/// Whether schedulers keep away from a database now.
pub fn is_aside(db: u32) -> bool {
    let left = |until: i64| until.saturating_sub(now_us());
    // If the clock was set back, not for longer than ever.
    (BOARD.share().aside.iter()).any(|a| a.0 == db && (1..=ASIDE_US).contains(&left(a.1)))
}

/// Whether the scheduler that asks is to leave its database; another is then asked for, for later.
pub fn leaves() -> bool {
    let leaves = is_aside(database());
    if leaves {
        release();
        want_scheduler();
    }
    leaves
}

/// The launcher's list of databases to look at; `None` means all.
pub fn take_wanted() -> Option<Vec<u32>> {
    let mut board = BOARD.exclusive();
    let all = std::mem::take(&mut board.wanted_all);
    let list: Vec<u32> = board.wanted.iter().copied().filter(|w| *w != 0).collect();
    board.wanted = [0; SLOTS];
    if all { None } else { Some(list) }
}

pub fn set_launcher() {
    BOARD.exclusive().launcher_pid = pid();
}

pub fn has_scheduler(db: u32) -> bool {
    BOARD
        .share()
        .schedulers
        .iter()
        .any(|s| s.0 == db && s.1 != 0)
}

/// Makes this process the scheduler of its database; false when there is one.
pub fn become_scheduler() -> bool {
    take(&mut BOARD.exclusive().schedulers)
}

/// Makes this process the autopilot of its database; false when there is one.
pub fn become_autopilot() -> bool {
    take(&mut BOARD.exclusive().autopilots)
}

fn take(places: &mut [(u32, i32)]) -> bool {
    if places.iter().any(|s| s.0 == database()) {
        return false;
    }
    match places.iter_mut().find(|s| s.1 == 0) {
        Some(free) => {
            *free = (database(), pid());
            true
        }
        None => false,
    }
}

/// Whether this database has an autopilot.
pub fn has_autopilot() -> bool {
    (BOARD.share().autopilots.iter()).any(|s| s.0 == database() && s.1 != 0)
}

/// Wakes the autopilot of this database, if it has one: what it may do has changed.
pub fn wake_autopilot() {
    let found = {
        let mut board = BOARD.exclusive();
        let place = board.autopilots.iter().position(|s| s.0 == database());
        place.map(|place| {
            board.hurry[place] = true;
            board.autopilots[place].1
        })
    };
    wake(found.unwrap_or(0));
}

/// Whether this process, the autopilot of its database, was woken since it last asked.
pub fn take_hurry() -> bool {
    let mut board = BOARD.exclusive();
    let place = board.autopilots.iter().position(|s| s.1 == pid());
    place.is_some_and(|place| std::mem::take(&mut board.hurry[place]))
}

fn wake(pid: i32) {
    if pid == 0 {
        return;
    }
    // SAFETY: the process array entry of a live process; a latch may be set by anybody.
    unsafe {
        let process = pg_sys::BackendPidGetProc(pid);
        if !process.is_null() {
            pg_sys::SetLatch(&raw mut (*process).procLatch);
        }
    }
}

/// Whether a process is alive.
pub fn is_alive(pid: i32) -> bool {
    // SAFETY: looks at the process array.
    unsafe { !pg_sys::BackendPidGetProc(pid).is_null() }
}

//! Statements that touch managed tables: which of them are counted, and how long they ran.
//!
//! A small statement (it is expected to change a row or a few) is counted as a whole or not at all; if
//! not, it is spared the triggers. In others each row has a chance of its own.

use super::memory::Event;
use super::sampler::Sampler;
use super::search::{self, Found, Named};
use super::{Amounts, MEASURES, Measure, local, managed, pick, spare};
use crate::guc;
use crate::pg::{list, raw};
use load::sketch::Key;
use pgrx::prelude::*;

/// Relations of a statement that are looked at to find out whether it is of interest.
const RELATIONS_LOOKED_AT: usize = 16;

static mut PREVIOUS_START: pg_sys::ExecutorStart_hook_type = None;
static mut PREVIOUS_FINISH: pg_sys::ExecutorFinish_hook_type = None;
static mut PREVIOUS_END: pg_sys::ExecutorEnd_hook_type = None;

/// PostgreSQL functions as they are, unguarded.
mod c {
    use pgrx::pg_sys::*;
    unsafe extern "C-unwind" {
        pub fn standard_ExecutorFinish(query: *mut QueryDesc);
        pub fn standard_ExecutorEnd(query: *mut QueryDesc);
        pub fn GetCurrentTransactionNestLevel() -> i32;
        pub fn GetCurrentStatementStartTimestamp() -> TimestampTz;
    }
    #[repr(C)]
    pub struct Timespec {
        pub seconds: i64,
        pub nanoseconds: i64,
    }
    unsafe extern "C" {
        pub fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
    }
}

/// How the rows that a statement changes are counted.
#[derive(Clone, Copy, PartialEq)]
#[repr(C)]
enum Mode {
    /// Not at all.
    Out,
    /// All, each for so many.
    All(u64),
    /// Each with a chance of its own.
    Rows,
}

/// A statement under way.
struct Frame {
    query: *mut pg_sys::QueryDesc,
    /// The transaction nesting level it began in.
    nest: i32,
    /// Events of row triggers are queued for it, and fired when it finishes.
    queues: bool,
    mode: Mode,
    /// Its weights in [`WEIGHTS`]: where they begin, and the next to be used.
    first_weight: usize,
    next_weight: usize,
    /// None: what it names and takes is not looked at.
    looked_at: Option<Box<LookedAt>>,
}

/// What is known of a statement that counts as such.
struct LookedAt {
    /// For how many statements it counts.
    weight: u64,
    cpu_us: i64,
    found: Found,
    /// The one entity that its rows belong to, as far as is known.
    wrote: Wrote,
}

enum Wrote {
    Nobody,
    One(Box<Named>),
    Several,
}

static mut FRAMES: Vec<Frame> = Vec::new();
/// Weights of rows that were picked and whose trigger has not fired yet, in the order in which it will.
static mut WEIGHTS: Vec<u32> = Vec::new();
/// The next of them outside of any frame: in COPY, and where replicated changes are applied.
static mut NEXT_WEIGHT: usize = 0;
/// The mode of the innermost frame that queues.
static mut MODE: Mode = Mode::Rows;
/// Rows counted since the mode was set.
static mut ROWS_OF_ALL: u32 = 0;
static mut IGNORED: bool = false;

/// So many rows, and statements, of a session are counted exactly in a burst; and so many of all sessions
/// together each second in the long run. A counted statement costs some ten microseconds, so this bounds the
/// cost to less than a hundredth of a core.
static mut ROWS: Sampler = Sampler::new(Event::Write, 2000.0, 150.0);
static mut STATEMENTS: Sampler = Sampler::new(Event::Statement, 2000.0, 150.0);

pub fn install() {
    // SAFETY: single-threaded start-up of the postmaster.
    unsafe {
        PREVIOUS_START = pg_sys::ExecutorStart_hook;
        pg_sys::ExecutorStart_hook = Some(start);
        PREVIOUS_FINISH = pg_sys::ExecutorFinish_hook;
        pg_sys::ExecutorFinish_hook = Some(finish);
        PREVIOUS_END = pg_sys::ExecutorEnd_hook;
        pg_sys::ExecutorEnd_hook = Some(end);
    }
}

pub fn ignore() {
    // SAFETY: a process has one thread.
    unsafe { IGNORED = true }
}

fn frames() -> &'static mut Vec<Frame> {
    // SAFETY: a backend has one thread, and no reference is kept across calls.
    unsafe { &mut *&raw mut FRAMES }
}

fn weights() -> &'static mut Vec<u32> {
    // SAFETY: as above.
    unsafe { &mut *&raw mut WEIGHTS }
}

/// The transaction is over, its statements with it.
pub fn forget_all() {
    frames().clear();
    weights().clear();
    spare::forget();
    pick::forget();
    // SAFETY: a backend has one thread.
    unsafe {
        NEXT_WEIGHT = 0;
        MODE = Mode::Rows;
    }
}

/// A subtransaction is rolled back: its statements have no end.
pub fn forget_from(nest: i32) {
    while frames().last().is_some_and(|f| f.nest >= nest) {
        if let Some(frame) = frames().pop()
            && frame.queues
        {
            weights().truncate(frame.first_weight);
        }
    }
    set_mode();
}

/// A subtransaction is committed: what is still open belongs to the one around it.
pub fn pass_on(nest: i32) {
    for frame in frames().iter_mut().rev().take_while(|f| f.nest >= nest) {
        frame.nest = nest - 1;
    }
}

fn set_mode() {
    let mode = frames()
        .iter()
        .rev()
        .find(|f| f.queues)
        .map_or(Mode::Rows, |f| f.mode);
    // SAFETY: a backend has one thread.
    unsafe {
        MODE = mode;
        ROWS_OF_ALL = 0;
    }
}

/// Whether to count the row at hand. The answer yes is remembered until the row's trigger fires.
#[inline]
pub fn pick_row() -> bool {
    // SAFETY: a backend has one thread.
    unsafe {
        let weight = match MODE {
            Mode::Out => None,
            Mode::All(weight) if ROWS_OF_ALL < pick::FIRST_MAX => {
                ROWS_OF_ALL += 1;
                Some(weight)
            }
            // Not as small as it was expected to be.
            Mode::All(weight) => (*&raw mut ROWS)
                .next(c::GetCurrentStatementStartTimestamp())
                .map(|more| more.saturating_mul(weight)),
            Mode::Rows if IGNORED || !guc::TRACK_LOAD.get() => None,
            Mode::Rows => (*&raw mut ROWS).next(c::GetCurrentStatementStartTimestamp()),
        };
        match weight {
            Some(weight) => {
                weights().push(u32::try_from(weight).unwrap_or(u32::MAX));
                true
            }
            None => false,
        }
    }
}

/// How many rows of a large statement to pass over, and for how many the one after them counts.
pub fn gap() -> (u32, u64) {
    // SAFETY: a backend has one thread.
    unsafe { (*&raw mut ROWS).gap(c::GetCurrentStatementStartTimestamp()) }
}

/// So many rows of a large statement have come, and the last of them is counted, or is not.
pub fn passed(rows: u32, counted: bool) {
    // SAFETY: a backend has one thread.
    unsafe { (*&raw mut ROWS).passed(rows, counted) }
}

/// The next rows of a statement are counted, each for so many, or are not.
pub fn pick(query: *mut pg_sys::QueryDesc, weight: Option<u64>) {
    if let Some(frame) = frames().iter_mut().rfind(|f| f.query == query) {
        frame.mode = weight.map_or(Mode::Out, Mode::All);
        set_mode();
    }
}

/// A statement has written all its rows. Others that are written because of them count like the statement, if
/// that was picked as a whole, and else have a chance of their own.
pub fn no_more_rows(query: *mut pg_sys::QueryDesc, whole: Option<u64>) {
    if let Some(frame) = frames().iter_mut().rfind(|f| f.query == query) {
        frame.mode = whole.map_or(Mode::Rows, Mode::All);
        set_mode();
    }
}

/// For how many rows the one counts whose trigger has just fired.
pub fn weight_of_row() -> u64 {
    let weights = weights();
    let next = match frames().iter_mut().rev().find(|f| f.queues) {
        Some(frame) => &mut frame.next_weight,
        // SAFETY: a backend has one thread.
        None => unsafe { &mut *&raw mut NEXT_WEIGHT },
    };
    let weight = weights.get(*next).map_or(1, |w| u64::from(*w));
    local::row_counted(weight);
    *next += 1;
    if *next >= weights.len() && frames().iter().all(|f| !f.queues) {
        weights.clear();
        // SAFETY: as above.
        unsafe { NEXT_WEIGHT = 0 }
    }
    weight
}

/// A row of an entity has been counted: what its statement takes is the entity's.
pub fn wrote(key: &Key, leaf: pg_sys::Oid) {
    let Some(frame) = frames().iter_mut().rev().find(|f| f.queues) else {
        return;
    };
    let Some(looked_at) = &mut frame.looked_at else {
        return;
    };
    match &looked_at.wrote {
        Wrote::Nobody => looked_at.wrote = Wrote::One(Box::new(Named { key: *key, leaf })),
        Wrote::One(named) if named.key == *key => {}
        _ => looked_at.wrote = Wrote::Several,
    }
}

/// No destructors in this frame: errors of others pass through it as they are.
unsafe extern "C-unwind" fn start(query: *mut pg_sys::QueryDesc, flags: i32) {
    // SAFETY: called by PostgreSQL with its own structures.
    unsafe {
        PREVIOUS_START.unwrap_or(raw::standard_ExecutorStart)(query, flags);
        if flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as i32 == 0
            && !IGNORED
            && pg_sys::ParallelWorkerNumber < 0
        {
            begin(query);
        }
    }
}

/// What most statements pay is between here and the first return.
unsafe fn begin(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the statement has been started.
    unsafe {
        let planned = (*query).plannedstmt;
        let skips = (*(*query).estate).es_top_eflags & pg_sys::EXEC_FLAG_SKIP_TRIGGERS as i32 != 0;
        let reads = (*query).operation == pg_sys::CmdType::CMD_SELECT;
        let queues = !skips && (!reads || (*planned).hasModifyingCTE);
        if !queues && !reads {
            // A foreign key's action. Its rows are queued for, and counted as, those of the statement that
            // caused it.
            return;
        }
        let tracked = guc::TRACK_LOAD.get();
        if !queues && !tracked {
            return;
        }
        if !is_of_interest((*planned).rtable) {
            if queues {
                push(query, Mode::Rows, true);
            }
            return;
        }
        let mut mode = Mode::Rows;
        let mut weight = 0;
        if reads && tracked {
            let now = c::GetCurrentStatementStartTimestamp();
            weight = (*&raw mut STATEMENTS).next(now).unwrap_or(0);
        } else if !reads {
            let state = (*query).planstate;
            let small = spare::is_small(state);
            if !tracked {
                mode = Mode::Out;
            } else if small {
                let now = c::GetCurrentStatementStartTimestamp();
                mode = (*&raw mut ROWS).next(now).map_or(Mode::Out, Mode::All);
            }
            match mode {
                Mode::Out => {
                    spare::spare(state.cast());
                    if !small {
                        pick::watch(query, state, pick::Choice::None);
                    }
                }
                Mode::All(all) => {
                    weight = all;
                    pick::watch(query, state, pick::Choice::Whole(all));
                }
                Mode::Rows => {
                    // What it takes is looked at as often as in statements that read; and always, if it is large
                    // enough for that not to matter.
                    weight = if spare::is_large(state) {
                        1
                    } else {
                        let now = c::GetCurrentStatementStartTimestamp();
                        (*&raw mut STATEMENTS).next(now).unwrap_or(0)
                    };
                    pick::watch(query, state, pick::Choice::Rows);
                }
            }
        }
        if queues || weight > 0 {
            push(query, mode, queues);
        }
        if weight > 0 {
            look_at(query, weight);
        }
    }
}

/// A statement is under way.
unsafe fn push(query: *mut pg_sys::QueryDesc, mode: Mode, queues: bool) {
    // SAFETY: in a transaction.
    let nest = unsafe { c::GetCurrentTransactionNestLevel() };
    let at = weights().len();
    frames().push(Frame {
        query,
        nest,
        queues,
        mode,
        first_weight: at,
        next_weight: at,
        looked_at: None,
    });
    if queues {
        // SAFETY: a backend has one thread.
        unsafe {
            MODE = mode;
            ROWS_OF_ALL = 0;
        }
    }
}

/// Notes what the last statement pushed names, and when it begins.
#[pg_guard]
unsafe extern "C-unwind" fn look_at(query: *mut pg_sys::QueryDesc, weight: u64) {
    // SAFETY: the statement has been started; instrumentation lives as long as it.
    unsafe {
        let found = search::look(query);
        if (*query).totaltime.is_null() {
            let context = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = (*(*query).estate).es_query_cxt;
            // All of it: another extension that finds it here relies on that.
            (*query).totaltime =
                raw::InstrAlloc(1, pg_sys::InstrumentOption::INSTRUMENT_ALL as i32, false);
            pg_sys::CurrentMemoryContext = context;
        }
        if let Some(frame) = frames().last_mut() {
            frame.looked_at = Some(Box::new(LookedAt {
                weight,
                cpu_us: process_cpu_us(),
                found,
                wrote: Wrote::Nobody,
            }));
        }
    }
}

unsafe fn is_of_interest(rtable: *const pg_sys::List) -> bool {
    // SAFETY: a list of range table entries.
    unsafe {
        (0..list::length(rtable).min(RELATIONS_LOOKED_AT)).any(|i| {
            let entry = list::nth::<pg_sys::RangeTblEntry>(rtable, i);
            (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION
                && managed::is_of_interest((*entry).relid)
        })
    }
}

fn process_cpu_us() -> i64 {
    const CLOCK_PROCESS_CPUTIME_ID: i32 = 2;
    let mut time = c::Timespec {
        seconds: 0,
        nanoseconds: 0,
    };
    // SAFETY: a plain system call.
    unsafe { c::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.seconds * 1_000_000 + time.nanoseconds / 1000
}

/// No destructors in this frame while others run.
unsafe extern "C-unwind" fn finish(query: *mut pg_sys::QueryDesc) {
    // SAFETY: called by PostgreSQL with its own structures.
    unsafe {
        PREVIOUS_FINISH.unwrap_or(c::standard_ExecutorFinish)(query);
        // Its triggers have fired.
        if let Some(frame) = frames().iter_mut().rfind(|f| f.query == query)
            && frame.queues
        {
            frame.queues = false;
            let first = frame.first_weight;
            weights().truncate(first);
            set_mode();
        }
    }
}

/// No destructors in this frame while others run.
unsafe extern "C-unwind" fn end(query: *mut pg_sys::QueryDesc) {
    // SAFETY: called by PostgreSQL with its own structures.
    unsafe {
        if let Some(at) = frames().iter().rposition(|f| f.query == query) {
            close(at);
        }
        PREVIOUS_END.unwrap_or(c::standard_ExecutorEnd)(query);
    }
}

unsafe fn close(at: usize) {
    let frame = frames().remove(at);
    if frame.queues {
        set_mode();
    }
    if let Some(looked_at) = frame.looked_at {
        // SAFETY: the executor's state is there until the end hook has returned.
        unsafe { account(frame.query, looked_at) }
    }
}

// A guarded function takes what C can take.
#[allow(clippy::boxed_local)]
#[pg_guard]
unsafe extern "C-unwind" fn account(query: *mut pg_sys::QueryDesc, looked_at: Box<LookedAt>) {
    // SAFETY: as for `close`.
    unsafe {
        let LookedAt {
            weight,
            cpu_us,
            found,
            wrote,
        } = *looked_at;
        let query = &*query;
        let mut amounts: Amounts = [0; MEASURES];
        let reads = query.operation == pg_sys::CmdType::CMD_SELECT;
        let Found { mut named, joins } = found;
        if !reads
            && named.is_empty()
            && let Wrote::One(one) = wrote
        {
            named.push(*one);
        }
        for (join, nobody) in joins {
            match join.entity() {
                Some(key) => named.push(Named {
                    key,
                    leaf: match &nobody[..] {
                        [only] => only.leaf,
                        _ => pg_sys::InvalidOid,
                    },
                }),
                None => named.extend(nobody),
            }
        }
        if !query.totaltime.is_null() {
            raw::InstrEndLoop(query.totaltime);
            if reads {
                // Of all fetches; the executor's own count is that of the last.
                amounts[Measure::RowsRead as usize] = (*query.totaltime).ntuples as u64;
            }
            amounts[Measure::ExecUs as usize] = total_us(query.totaltime);
            amounts[Measure::BlocksRead as usize] =
                (*query.totaltime).bufusage.shared_blks_read.max(0) as u64;
        }
        amounts[Measure::CpuUs as usize] = (process_cpu_us() - cpu_us).max(0) as u64;
        for amount in &mut amounts {
            *amount = amount.saturating_mul(weight);
        }
        let count = named.len() as u64;
        for (number, named) in named.iter().enumerate() {
            // Shared evenly (who knows better?), to the last unit.
            let mut share =
                amounts.map(|all| all / count + u64::from((number as u64) < all % count));
            if reads {
                share[Measure::Reads as usize] = weight;
            }
            local::note(&named.key, named.leaf, &share);
        }
        if reads {
            local::statement_counted(weight);
        }
        local::flush_if_old();
    }
}

unsafe fn total_us(instrumentation: *const pg_sys::Instrumentation) -> u64 {
    // SAFETY: ended by the caller; the total is in seconds in every version from 14 to 18.
    unsafe { ((*instrumentation).total * 1e6).max(0.0) as u64 }
}

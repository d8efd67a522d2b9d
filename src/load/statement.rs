//! Statements that touch managed tables: which of them are counted, which entities they name, how long
//! they ran.
//!
//! A small statement (it is expected to change a row or a few) is counted as a whole or not at all; if
//! not, the triggers that would count its rows are taken off its own copy of the trigger lists, so that it
//! costs what it costs without them. In others each row has a chance of its own.

use super::join::{self, Join};
use super::managed::{self, Managed};
use super::sampler::Sampler;
use super::{Amounts, MEASURES, Measure, entity, local};
use crate::guc;
use crate::pg::{list, pins, raw, trigger};
use load::sketch::Key;
use pgrx::prelude::*;
use std::ffi::CStr;

/// Names of the triggers that count. They sort before all others of ours.
pub const TRIGGER: &CStr = c"!shadowpart_load";

/// A statement that is expected to change more rows than this is sampled row by row.
const SMALL_ROWS: f64 = 8.0;

/// After so many rows a statement that was expected to be small is not taken for it any more.
const ROWS_OF_ALL_MAX: u32 = 64;

/// With more result relations than this nothing is spared.
const RELATIONS_MAX: i32 = 16;

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
        pub fn InstrAlloc(n: i32, options: i32, asynchronous: bool) -> *mut Instrumentation;
        pub fn InstrEndLoop(instr: *mut Instrumentation);
        pub fn GetCurrentStatementStartTimestamp() -> TimestampTz;
        pub fn ExecFindPartition(
            state: *mut ModifyTableState,
            root: *mut ResultRelInfo,
            routing: *mut PartitionTupleRouting,
            slot: *mut TupleTableSlot,
            estate: *mut EState,
        ) -> *mut ResultRelInfo;
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
    /// For how many statements it counts; 0 if it is not timed.
    weight: u64,
    cpu_us: i64,
    named: Vec<Named>,
    /// Joins that may name one, and what is named if they do not.
    joins: Vec<(Box<Join>, Vec<Named>)>,
    /// The one entity that its rows belong to, as far as is known.
    wrote: Wrote,
}

/// An entity that a statement names, or a partition of which it names none.
struct Named {
    key: Key,
    leaf: pg_sys::Oid,
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

/// So many rows, and statements, are counted exactly in a burst; so many each second in the long run. A
/// counted row of a single-row statement costs some microseconds, so this bounds the cost to a few
/// thousandths of a core.
static mut ROWS: Sampler = Sampler::new(2000.0, 100.0);
static mut STATEMENTS: Sampler = Sampler::new(2000.0, 200.0);

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
    wrapped().clear();
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
            Mode::All(weight) if ROWS_OF_ALL < ROWS_OF_ALL_MAX => {
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
    if frame.weight == 0 {
        return;
    }
    match &frame.wrote {
        Wrote::Nobody => frame.wrote = Wrote::One(Box::new(Named { key: *key, leaf })),
        Wrote::One(named) if named.key == *key => {}
        _ => frame.wrote = Wrote::Several,
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

unsafe fn begin(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the statement has been started.
    unsafe {
        let estate = (*query).estate;
        let queues = (*estate).es_top_eflags & pg_sys::EXEC_FLAG_SKIP_TRIGGERS as i32 == 0;
        let reads = (*query).operation == pg_sys::CmdType::CMD_SELECT;
        if !queues && !reads {
            // A foreign key's action. Its rows are queued for, and counted as, those of the statement that
            // caused it.
            return;
        }
        let mut mode = Mode::Rows;
        let mut weight = 0;
        if guc::TRACK_LOAD.get() && is_of_interest((*(*query).plannedstmt).rtable) {
            let now = c::GetCurrentStatementStartTimestamp();
            if reads {
                weight = (*&raw mut STATEMENTS).next(now).unwrap_or(0);
            } else {
                if is_small((*query).planstate) {
                    mode = (*&raw mut ROWS).next(now).map_or(Mode::Out, Mode::All);
                }
                weight = match mode {
                    Mode::Out => 0,
                    Mode::All(weight) => weight,
                    Mode::Rows => 1,
                };
            }
            if mode == Mode::Out {
                spare((*query).planstate.cast());
            }
        }
        if !queues && weight == 0 {
            return;
        }
        push(query, queues, mode, weight);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn push(
    query: *mut pg_sys::QueryDesc,
    queues: bool,
    mode: Mode,
    weight: u64,
) {
    // SAFETY: the statement has been started; instrumentation lives as long as it.
    unsafe {
        let (mut named, mut joins) = (Vec::new(), Vec::new());
        let mut cpu_us = 0;
        if weight > 0 {
            (named, joins) = look(query);
            cpu_us = process_cpu_us();
            if (*query).totaltime.is_null() {
                let context = pg_sys::CurrentMemoryContext;
                pg_sys::CurrentMemoryContext = (*(*query).estate).es_query_cxt;
                // All of it: another extension that finds it here relies on that.
                (*query).totaltime =
                    c::InstrAlloc(1, pg_sys::InstrumentOption::INSTRUMENT_ALL as i32, false);
                pg_sys::CurrentMemoryContext = context;
            }
        }
        let at = weights().len();
        frames().push(Frame {
            query,
            nest: pg_sys::GetCurrentTransactionNestLevel(),
            queues,
            mode,
            first_weight: at,
            next_weight: at,
            weight,
            cpu_us,
            named,
            joins,
            wrote: Wrote::Nobody,
        });
        if queues {
            MODE = mode;
            ROWS_OF_ALL = 0;
        }
    }
}

unsafe fn is_of_interest(rtable: *const pg_sys::List) -> bool {
    // SAFETY: a list of range table entries.
    unsafe {
        (0..list::length(rtable).min(RELATIONS_LOOKED_AT)).any(|i| {
            let entry = list::nth::<pg_sys::RangeTblEntry>(rtable, i);
            (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION
                && managed::lookup((*entry).relid).is_some()
        })
    }
}

/// Whether a statement is expected to change a few rows at most.
unsafe fn is_small(state: *const pg_sys::PlanState) -> bool {
    // SAFETY: a tagged node with its plan.
    unsafe {
        if (*state).type_ != pg_sys::NodeTag::T_ModifyTableState {
            return false;
        }
        let source = (*(*state).plan).lefttree;
        !source.is_null() && (*source).plan_rows <= SMALL_ROWS
    }
}

/// Takes the triggers that count off a statement that is not counted.
unsafe fn spare(state: *mut pg_sys::ModifyTableState) {
    // SAFETY: result relations of a statement that has been started and has not run yet.
    unsafe {
        if (*state).mt_nrels <= RELATIONS_MAX {
            for i in 0..(*state).mt_nrels as usize {
                take_off((*state).resultRelInfo.add(i));
            }
        }
        // Partitions are opened when rows go to them. Of a single row we can see to which.
        let source = (*state).ps.lefttree;
        if (*state).operation == pg_sys::CmdType::CMD_INSERT
            && !(*state).mt_partition_tuple_routing.is_null()
            && !source.is_null()
            && (*source).type_ == pg_sys::NodeTag::T_ResultState
            && (*source).lefttree.is_null()
        {
            wrapped().retain(|w| w.source != source);
            wrapped().push(Wrapped {
                source,
                state,
                original: (*source).ExecProcNode,
            });
            (*source).ExecProcNode = Some(first_row);
        }
    }
}

/// A source of rows that tells us where its first row goes.
struct Wrapped {
    source: *mut pg_sys::PlanState,
    state: *mut pg_sys::ModifyTableState,
    original: pg_sys::ExecProcNodeMtd,
}

static mut WRAPPED: Vec<Wrapped> = Vec::new();

fn wrapped() -> &'static mut Vec<Wrapped> {
    // SAFETY: a backend has one thread, and no reference is kept across calls.
    unsafe { &mut *&raw mut WRAPPED }
}

/// Gets the row and finds its partition, as the INSERT will do next, which then finds it open and
/// without the trigger. No destructors in this frame: an error is the one that the INSERT would raise.
unsafe extern "C-unwind" fn first_row(
    source: *mut pg_sys::PlanState,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: installed by `spare` on this node, which belongs to that statement and has a function, as
    // every node has. Should the statement be forgotten, that is what is left to call.
    unsafe {
        let mut original = (*source).ExecProcNodeReal;
        let mut of = std::ptr::null_mut();
        if let Some(at) = wrapped().iter().position(|w| w.source == source) {
            let wrapped = wrapped().swap_remove(at);
            (original, of) = (wrapped.original, wrapped.state);
        }
        (*source).ExecProcNode = original;
        let slot = original.unwrap_unchecked()(source);
        let Some(state) = of.as_mut() else {
            return slot;
        };
        let root = state.rootResultRelInfo;
        if !slot.is_null()
            && u32::from((*slot).tts_flags) & pg_sys::TTS_FLAG_EMPTY == 0
            && (*(*slot).tts_tupleDescriptor).natts == (*(*(*root).ri_RelationDesc).rd_att).natts
        {
            let routing = state.mt_partition_tuple_routing;
            let estate = state.ps.state;
            take_off(c::ExecFindPartition(state, root, routing, slot, estate));
        }
        slot
    }
}

unsafe fn take_off(relation: *mut pg_sys::ResultRelInfo) {
    // SAFETY: the list of triggers is the statement's own copy.
    unsafe {
        let descriptor = (*relation).ri_TrigDesc;
        let all = trigger::all(descriptor);
        let Some(at) = all
            .iter()
            .position(|t| trigger::is_internal_named(t, TRIGGER))
        else {
            return;
        };
        if all.len() == 1 {
            (*relation).ri_TrigDesc = std::ptr::null_mut();
        } else {
            (*(*descriptor).triggers.add(at)).tgenabled =
                pg_sys::TRIGGER_DISABLED as std::ffi::c_char;
        }
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

#[pg_guard]
unsafe extern "C-unwind" fn close(at: usize) {
    let frame = frames().remove(at);
    if frame.queues {
        set_mode();
    }
    if frame.weight > 0 {
        // SAFETY: the executor's state is there until the end hook has returned.
        unsafe { account(frame) }
    }
}

unsafe fn account(mut frame: Frame) {
    // SAFETY: as for `close`.
    unsafe {
        let query = &*frame.query;
        let mut amounts: Amounts = [0; MEASURES];
        let reads = query.operation == pg_sys::CmdType::CMD_SELECT;
        if !reads
            && frame.named.is_empty()
            && let Wrote::One(named) = frame.wrote
        {
            frame.named.push(*named);
        }
        for (join, nobody) in std::mem::take(&mut frame.joins) {
            match join.entity() {
                Some(key) => frame.named.push(Named {
                    key,
                    leaf: match &nobody[..] {
                        [only] => only.leaf,
                        _ => pg_sys::InvalidOid,
                    },
                }),
                None => frame.named.extend(nobody),
            }
        }
        if !query.totaltime.is_null() {
            c::InstrEndLoop(query.totaltime);
            if reads {
                // Of all fetches; the executor's own count is that of the last.
                amounts[Measure::RowsRead as usize] = (*query.totaltime).ntuples as u64;
            }
            amounts[Measure::ExecUs as usize] = total_us(query.totaltime);
            amounts[Measure::BlocksRead as usize] =
                (*query.totaltime).bufusage.shared_blks_read.max(0) as u64;
        }
        amounts[Measure::CpuUs as usize] = (process_cpu_us() - frame.cpu_us).max(0) as u64;
        for amount in &mut amounts {
            *amount = amount.saturating_mul(frame.weight);
        }
        let count = frame.named.len() as u64;
        for (number, named) in frame.named.iter().enumerate() {
            // Shared evenly (who knows better?), to the last unit.
            let mut share =
                amounts.map(|all| all / count + u64::from((number as u64) < all % count));
            if reads {
                share[Measure::Reads as usize] = frame.weight;
            }
            local::note(&named.key, named.leaf, &share);
        }
        if reads {
            local::statement_counted(frame.weight);
        }
        local::flush_if_old();
    }
}

unsafe fn total_us(instrumentation: *const pg_sys::Instrumentation) -> u64 {
    // SAFETY: ended by the caller; the total is in seconds in every version from 14 to 18.
    unsafe { ((*instrumentation).total * 1e6).max(0.0) as u64 }
}

/// The entities that a statement names. Of a managed table of which it names none: its partitions, or the
/// table itself if they are many.
unsafe fn look(query: *mut pg_sys::QueryDesc) -> (Vec<Named>, Vec<(Box<Join>, Vec<Named>)>) {
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
        search.walk((*query).planstate);
        let subplans = (*(*query).estate).es_subplanstates;
        for i in 0..list::length(subplans) {
            search.walk(list::nth(subplans, i));
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
                let join = table
                    .param
                    .and_then(|(param, managed)| join::watch((*query).planstate, param, managed));
                match join {
                    Some(join) => joins.push((join, nobody)),
                    None => named.extend(nobody),
                }
            }
        }
        (named, joins)
    }
}

struct Table {
    root: pg_sys::Oid,
    leaves: Vec<pg_sys::Oid>,
    has_named: bool,
    /// A parameter that will tell the entity.
    param: Option<(i32, Managed)>,
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

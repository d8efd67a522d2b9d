//! The sums of the whole cluster, in shared memory: fixed in size, made once.
//!
//! `shadowpart.max_entities` slots in [`SHARDS`] shards of a Space-Saving sketch (see the crate `load`).
//! A shard is changed under its own lock, by one process at a time and for a few hundred nanoseconds.

use super::{Amounts, MEASURES, entity};
use crate::guc;
use load::meter::Meter;
use load::sketch::{self, Info, Key, Seed, Shard, ShardMut};
use load::values::{self, Values, ValuesMut};
use pgrx::pg_sys;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// How many locks share the entities.
pub const SHARDS: u32 = 16;

/// `AddinShmemInitLock`: its number in every version from 14 to 18.
const ADDIN_SHMEM_INIT_LOCK: usize = 21;

/// One more shard, for the totals of partitions: they must not drive out entities, nor be in their tail.
const TOTALS: u32 = SHARDS;

/// The lock after those of the shards: that of long values.
const VALUES: u32 = SHARDS + 1;

/// Longest value that is held whole: what a unique index can hold, more or less.
const VALUE_BYTES: u32 = 2712;

const TRANCHE: &std::ffi::CStr = c"shadowpart_load";

/// An entity and its counters.
pub type Entry = sketch::Entry<MEASURES>;

/// How much of what happened was looked at.
#[derive(Clone, Copy, Default)]
pub struct Counted {
    /// Rows written that were looked at, and how many they stand for.
    pub rows: u64,
    pub rows_estimated: u64,
    /// The same of statements that read.
    pub statements: u64,
    pub statements_estimated: u64,
}

/// What is counted, or passed over. The numbers are places of meters.
#[derive(Clone, Copy)]
#[repr(usize)]
pub enum Event {
    /// A row that is written, or a small statement that writes.
    Write,
    /// A statement that reads, or changes more than a few rows.
    Statement,
}

/// What stands before the shards.
#[repr(C)]
struct Head {
    seed: Seed,
    slots: u32,
    /// With the most entities that can be set, below 2 GB each.
    shard_bytes: u32,
    totals_bytes: u32,
    values_bytes: u32,
    /// When the counters were reset last, in microseconds since 2000.
    reset_us: AtomicI64,
    /// See [`Counted`].
    counted: [AtomicU64; 4],
    /// How many of each [`Event`] there are.
    meters: [Meter; 2],
}

static mut HEAD: *mut Head = std::ptr::null_mut();
static mut LOCKS: *mut pg_sys::LWLockPadded = std::ptr::null_mut();

#[cfg(not(feature = "pg14"))]
static mut PREVIOUS_REQUEST: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;

fn slots() -> u32 {
    (guc::MAX_ENTITIES.get().max(0) as u32).div_ceil(SHARDS)
}

const HEAD_BYTES: usize = size_of::<Head>().next_multiple_of(64);

/// Long values, the sixteenth part of all: most entities are numbers, or short.
fn places() -> u32 {
    slots()
}

/// Partitions with a total: an eighth as many as entities.
fn totals() -> u32 {
    slots() * 2
}

/// Bytes of the whole block: the formula is in docs/reference.md.
pub fn bytes() -> usize {
    HEAD_BYTES
        + SHARDS as usize * sketch::shard_bytes::<MEASURES>(slots())
        + sketch::shard_bytes::<MEASURES>(totals())
        + values::values_bytes(places(), VALUE_BYTES)
}

pub fn init() {
    // SAFETY: single-threaded start-up of the postmaster.
    unsafe {
        #[cfg(not(feature = "pg14"))]
        {
            PREVIOUS_REQUEST = pg_sys::shmem_request_hook;
            pg_sys::shmem_request_hook = Some(request);
        }
        #[cfg(feature = "pg14")]
        ask();
        PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(startup);
    }
}

unsafe fn ask() {
    // SAFETY: called when shared memory may be asked for.
    unsafe {
        pg_sys::RequestAddinShmemSpace(bytes());
        pg_sys::RequestNamedLWLockTranche(TRANCHE.as_ptr(), VALUES as i32 + 1);
    }
}

#[cfg(not(feature = "pg14"))]
unsafe extern "C-unwind" fn request() {
    // SAFETY: called by the postmaster.
    unsafe {
        if let Some(previous) = PREVIOUS_REQUEST {
            previous();
        }
        ask();
    }
}

unsafe extern "C-unwind" fn startup() {
    // SAFETY: called by the postmaster, or by a process that was started anew; the lock keeps others away
    // while the block is made.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP {
            previous();
        }
        let lock = pg_sys::MainLWLockArray.add(ADDIN_SHMEM_INIT_LOCK);
        pg_sys::LWLockAcquire(&raw mut (*lock).lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let mut found = false;
        HEAD = pg_sys::ShmemInitStruct(c"shadowpart load".as_ptr(), bytes(), &mut found).cast();
        LOCKS = pg_sys::GetNamedLWLockTranche(TRANCHE.as_ptr());
        if !found {
            make();
        }
        pg_sys::LWLockRelease(&raw mut (*lock).lock);
    }
}

unsafe fn make() {
    // SAFETY: the block is as large as `bytes` says, and nobody else sees it yet.
    unsafe {
        let now = now_us();
        let mut random = [0u64; 2];
        pg_sys::pg_strong_random(random.as_mut_ptr().cast(), size_of_val(&random));
        HEAD.write(Head {
            seed: random,
            slots: slots(),
            shard_bytes: sketch::shard_bytes::<MEASURES>(slots()) as u32,
            totals_bytes: sketch::shard_bytes::<MEASURES>(totals()) as u32,
            values_bytes: values::values_bytes(places(), VALUE_BYTES) as u32,
            reset_us: AtomicI64::new(now),
            counted: Default::default(),
            meters: Default::default(),
        });
        for shard in 0..=TOTALS {
            let slots = if shard == TOTALS { totals() } else { slots() };
            let _ = ShardMut::<MEASURES>::init(block(shard), slots, sketch::RANKING_US, now);
        }
        let _ = ValuesMut::init(values_block(), places(), VALUE_BYTES);
    }
}

unsafe fn block<'a>(shard: u32) -> &'a mut [u8] {
    // SAFETY: the caller holds the shard's lock, or is alone.
    unsafe {
        let before = HEAD_BYTES + shard as usize * (*HEAD).shard_bytes as usize;
        let bytes = if shard == TOTALS {
            (*HEAD).totals_bytes
        } else {
            (*HEAD).shard_bytes
        };
        std::slice::from_raw_parts_mut(HEAD.cast::<u8>().add(before), bytes as usize)
    }
}

unsafe fn values_block<'a>() -> &'a mut [u8] {
    // SAFETY: the caller holds the lock of the values, or is alone.
    unsafe {
        let before = HEAD_BYTES
            + SHARDS as usize * (*HEAD).shard_bytes as usize
            + (*HEAD).totals_bytes as usize;
        std::slice::from_raw_parts_mut(HEAD.cast::<u8>().add(before), (*HEAD).values_bytes as usize)
    }
}

/// Microseconds since 2000, PostgreSQL's own clock.
pub fn now_us() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// The seed of hashes and digests; `None` where there is no shared memory.
pub fn seed() -> Option<Seed> {
    // SAFETY: constant once made.
    unsafe { (!HEAD.is_null()).then(|| (*HEAD).seed) }
}

/// Holds the lock of a shard, or of the long values; given back when dropped, or by PostgreSQL when an error comes by.
struct Held(*mut pg_sys::LWLock);

impl Held {
    unsafe fn take(shard: u32, mode: pg_sys::LWLockMode::Type) -> Held {
        // SAFETY: there is one more than there are shards.
        unsafe {
            let lock = &raw mut (*LOCKS.add(shard as usize)).lock;
            pg_sys::LWLockAcquire(lock, mode);
            Held(lock)
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: taken by this process.
        unsafe { pg_sys::LWLockRelease(self.0) }
    }
}

/// Adds to an entity's counters. `weight` is what entities are ranked by, `leaf` the partition in which
/// it happened.
pub fn add(key: &Key, weight: u64, amounts: &Amounts, leaf: pg_sys::Oid, now_us: i64) {
    let Some(seed) = seed() else { return };
    let hash = key.hash(seed);
    let shard = if entity::kind(key) == entity::Kind::Total {
        TOTALS
    } else {
        sketch::shard_of(hash, SHARDS)
    };
    // SAFETY: the lock is held while the block is used; nothing in between can raise an error.
    unsafe {
        let _held = Held::take(shard, pg_sys::LWLockMode::LW_EXCLUSIVE);
        if let Ok(mut shard) = ShardMut::<MEASURES>::attach(block(shard)) {
            shard.add(key, hash, weight, amounts, u64::from(leaf.to_u32()), now_us);
        }
    }
}

/// All entities and totals of a database, shard by shard, and what is known of the shards of entities.
pub fn read(database: u32) -> (Vec<Entry>, Vec<Info<MEASURES>>) {
    let (mut entries, mut infos) = (Vec::new(), Vec::new());
    if seed().is_none() {
        return (entries, infos);
    }
    let now = now_us();
    for number in 0..=TOTALS {
        // Room first: nothing is allocated while the lock is held.
        // SAFETY: as for `add`, for reading.
        unsafe {
            entries.reserve((*HEAD).slots as usize * 2);
            let _held = Held::take(number, pg_sys::LWLockMode::LW_SHARED);
            if let Ok(shard) = Shard::<MEASURES>::attach(block(number)) {
                if number != TOTALS {
                    infos.push(shard.info(now));
                }
                entries.extend(shard.iter(now).filter(|e| e.key.database() == database));
            }
        }
    }
    (entries, infos)
}

/// Adds to what is known of the sampling.
pub fn add_counted(more: &Counted) {
    if seed().is_none() {
        return;
    }
    let numbers = [
        more.rows,
        more.rows_estimated,
        more.statements,
        more.statements_estimated,
    ];
    // SAFETY: made at start-up.
    for (sum, more) in unsafe { (*HEAD).counted.iter() }.zip(numbers) {
        sum.fetch_add(more, Ordering::Relaxed);
    }
}

/// Adds events of this session to those of the cluster; gives how many there were per second lately.
pub fn events_per_second(event: Event, events: u32, now_us: i64) -> f64 {
    if seed().is_none() {
        return 0.0;
    }
    // SAFETY: made at start-up.
    unsafe { (&(*HEAD).meters)[event as usize].add(u64::from(events), now_us) }
}

/// How much of what happened was looked at, since the last reset.
pub fn counted() -> Counted {
    if seed().is_none() {
        return Counted::default();
    }
    // SAFETY: made at start-up.
    let number = |i: usize| unsafe { (*HEAD).counted[i].load(Ordering::Relaxed) };
    Counted {
        rows: number(0),
        rows_estimated: number(1),
        statements: number(2),
        statements_estimated: number(3),
    }
}

/// Holds a value that a key holds the beginning of only. The least recently seen makes way.
pub fn hold_value(key: &Key, value: &[u8]) {
    if seed().is_none() {
        return;
    }
    // SAFETY: as for `add`.
    unsafe {
        let _held = Held::take(VALUES, pg_sys::LWLockMode::LW_EXCLUSIVE);
        if let Ok(mut values) = ValuesMut::attach(values_block()) {
            values.put(key.digest(), value, now_us());
        }
    }
}

/// Such a value, if it is still held.
pub fn held_value(key: &Key) -> Option<Vec<u8>> {
    seed()?;
    let mut copy = Vec::with_capacity(VALUE_BYTES as usize);
    // SAFETY: as for `read`; there is room for the copy.
    unsafe {
        let _held = Held::take(VALUES, pg_sys::LWLockMode::LW_SHARED);
        copy.extend_from_slice(Values::attach(values_block()).ok()?.get(key.digest())?);
    }
    Some(copy)
}

/// What is known of the long values.
pub fn values_info() -> Option<values::Info> {
    seed()?;
    // SAFETY: as for `read`.
    unsafe {
        let _held = Held::take(VALUES, pg_sys::LWLockMode::LW_SHARED);
        Some(Values::attach(values_block()).ok()?.info())
    }
}

/// Takes away the entities of which `keep` says no; their counts go to the tail.
pub fn retain(keep: impl Fn(&Key) -> bool) {
    if seed().is_none() {
        return;
    }
    let now = now_us();
    change_each(|shard| shard.retain(now, &keep));
}

/// Changes one shard after the other. There is shared memory.
fn change_each(change: impl Fn(&mut ShardMut<'_, MEASURES>)) {
    for number in 0..=TOTALS {
        // SAFETY: as for `add`.
        unsafe {
            let _held = Held::take(number, pg_sys::LWLockMode::LW_EXCLUSIVE);
            if let Ok(mut shard) = ShardMut::<MEASURES>::attach(block(number)) {
                change(&mut shard);
            }
        }
    }
}

/// Forgets everything that was counted.
pub fn reset() {
    if seed().is_none() {
        return;
    }
    let now = now_us();
    change_each(|shard| shard.reset(now));
    // SAFETY: as for `add`.
    unsafe {
        (*HEAD).reset_us.store(now, Ordering::Relaxed);
        let _held = Held::take(VALUES, pg_sys::LWLockMode::LW_EXCLUSIVE);
        if let Ok(mut values) = ValuesMut::attach(values_block()) {
            values.reset();
        }
    }
    // SAFETY: as for `add_counted`.
    for sum in unsafe { (*HEAD).counted.iter() } {
        sum.store(0, Ordering::Relaxed);
    }
}

/// When the counters were reset last, in microseconds since 2000.
pub fn reset_us() -> Option<i64> {
    // SAFETY: made at start-up.
    unsafe { (!HEAD.is_null()).then(|| (*HEAD).reset_us.load(Ordering::Relaxed)) }
}

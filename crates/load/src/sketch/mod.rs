//! The entities with the most load, in a fixed block of memory.
//!
//! **Algorithm.** *Space-Saving* (Metwally, Agrawal, El Abbadi: *Efficient Computation of Frequent
//! and Top-k Elements in Data Streams*, ICDT 2005) in its weighted form, on weights under
//! exponential *forward decay* (Cormode, Shkapenyuk, Srivastava, Xu: *Forward Decay*, ICDE 2009,
//! section V), so that what was heavy long ago leaves. A newcomer takes the slot of the entity
//! with the least weight and inherits that weight as its *error*.
//!
//! **Bound.** Let `W` be the decayed weight of everything a shard has seen, and `n` its slots.
//! Every entity in a slot has a true decayed weight in `[guaranteed, guaranteed + error]`; every
//! entity without one has at most [`Info::floor`]; error and floor are at most `W / n`. So
//! each entity with more than `1 / n` of its shard's load is in a slot. [`ShardMut::retain`] changes
//! none of this for entities that it keeps (those it takes away may have been heavier than the
//! floor; it is for entities that do not come back).
//!
//! **Counters.** They begin at zero when an entity gets its slot and are never inherited. What was
//! counted of an entity without a slot is in the tail: totals and rates of an entity are never
//! more than the truth (as estimated by sampling), and slots plus tail are all that was added.
//!
//! **Rates.** [`Entry::rates`] divides by the time since the *shard* was reset: a lower bound. Who
//! wants the rate since the entity was noticed asks [`Rates::per_second_since`] with
//! [`Entry::since_us`]; for an entity that came because of one event it is too high.
//!
//! **Memory.** A shard is a block of bytes without pointers, to be mapped anywhere, aligned to
//! eight. With `m` measures it takes `120 + 32 m` bytes, and `156 + 32 m` per slot, rounded up to
//! a multiple of 64 in all: see [`shard_bytes`]. Nothing is ever allocated but by
//! [`Shard::top`].
//!
//! **Locking** is the caller's: [`ShardMut`] under an exclusive lock, [`Shard`] under a shared one.
//! A sharded sketch is several blocks, of which [`shard_of`] picks one for a hash. Weights of
//! different shards can be compared; [`keep_top`] does.
//!
//! Entry points: [`ShardMut::init`] once, [`ShardMut::attach`] and [`Shard::attach`] after that.

mod digest;
mod heap;
mod index;
mod key;
mod layout;
mod shard;
#[cfg(test)]
mod tests;
mod write;

use crate::rates::Rates;

pub(crate) use heap::Node;
pub(crate) use index::Bucket;
pub(crate) use layout::{Header, Slot};

pub use digest::Seed;
pub use key::{INLINE_BYTES, Key};
pub use layout::{LayoutError, shard_bytes};
pub use shard::Shard;
pub use write::ShardMut;

/// The usual time constant of the weights by which entities are ranked, in microseconds: the
/// longest window of [`crate::rates`], so that whoever has a rate over it is still there.
pub const RANKING_US: i64 = 3_600_000_000;

/// Which of `shards` shards a hash belongs to. Less than `shards`; zero if there are none.
pub fn shard_of(hash: u64, shards: u32) -> u32 {
    // The high half; the low half finds the slot within the shard.
    (((hash >> 32) * u64::from(shards)) >> 32) as u32
}

/// An entity and what is known of it: a copy, good after the lock is gone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry<const MEASURES: usize> {
    /// Who it is.
    pub key: Key,
    /// What the caller last said of it, see [`ShardMut::add`]; 0 if nothing since it got its slot.
    pub tag: u64,
    /// Since when it has been counted here, in microseconds.
    pub since_us: i64,
    /// The decayed weight that was counted here, now: the truth is not less.
    pub guaranteed: f64,
    /// The truth is not more than `guaranteed` plus this.
    pub error: f64,
    /// Totals since `since_us`, and rates that are lower bounds.
    pub rates: Rates<MEASURES>,
}

/// What there is to say about a shard as a whole. Add up over shards what can be added.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Info<const MEASURES: usize> {
    /// How many entities it can hold.
    pub slots: u32,
    /// How many it holds.
    pub used: u32,
    /// When it was made or reset, in microseconds.
    pub since_us: i64,
    /// How many entities lost their slot to another, entities counted again each time.
    pub evictions: u64,
    /// When that happened first, in microseconds.
    pub first_eviction_us: Option<i64>,
    /// When that happened last, in microseconds.
    pub last_eviction_us: Option<i64>,
    /// No entity without a slot has a decayed weight above this, now.
    pub floor: f64,
    /// All that was counted of entities while they now have no slot.
    pub tail: Rates<MEASURES>,
}

/// What [`ShardMut::add`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The entity had a slot.
    Known,
    /// It was given a slot that was free.
    New,
    /// It was given the slot of another, which is in the tail now.
    Replaced,
    /// It was counted in the tail: it has no weight, or there are no slots at all.
    Tail,
}

/// Sorts entries by guaranteed weight, the heaviest first, and drops all after the first `count`.
pub fn keep_top<const MEASURES: usize>(entries: &mut Vec<Entry<MEASURES>>, count: usize) {
    entries.sort_unstable_by(|one, other| other.guaranteed.total_cmp(&one.guaranteed));
    entries.truncate(count);
}

//! Changing a shard.

use super::heap::{self, Node};
use super::index::{self, Bucket};
use super::layout::{self, Header, LayoutError, PartsMut, Slot};
use super::{Added, Key, Shard};
use crate::clock::Clock;
use crate::rates::{Rates, STEP_US, decay};

/// Weights are scaled down when the exponent of their growth exceeds this, long before a double
/// overflows (709): every twelve days with the usual time constant.
const EXPONENT_MAX: f64 = 300.0;

/// The least time constant of ranking weights, in microseconds.
const RANKING_MIN_US: i64 = 1_000_000;

/// A shard that is changed: the caller holds a lock that keeps everybody else away.
pub struct ShardMut<'a, const MEASURES: usize> {
    header: &'a mut Header<MEASURES>,
    slots: &'a mut [Slot<MEASURES>],
    nodes: &'a mut [Node],
    buckets: &'a mut [Bucket],
    positions: &'a mut [u32],
}

impl<'a, const MEASURES: usize> ShardMut<'a, MEASURES> {
    /// Makes an empty shard of a block, aligned to eight bytes, of
    /// [`shard_bytes`](super::shard_bytes) for these slots. Its weights decay with this time
    /// constant (microseconds, at least a second; see [`RANKING_US`](super::RANKING_US)), and its
    /// life begins now (microseconds).
    pub fn init(
        bytes: &'a mut [u8],
        slots: u32,
        ranking_us: i64,
        now_us: i64,
    ) -> Result<Self, LayoutError> {
        let clock = Clock::starting_at(now_us);
        layout::init::<MEASURES>(bytes, slots, ranking_us.max(RANKING_MIN_US), clock)?;
        Self::attach(bytes)
    }

    /// The shard in a block that [`init`](Self::init) made one.
    pub fn attach(bytes: &'a mut [u8]) -> Result<Self, LayoutError> {
        let PartsMut {
            header,
            slots,
            nodes,
            buckets,
            positions,
        } = layout::parts_mut::<MEASURES>(bytes)?;
        Ok(ShardMut {
            header,
            slots,
            nodes,
            buckets,
            positions,
        })
    }

    /// The same, to be read.
    pub fn read(&self) -> Shard<'_, MEASURES> {
        let used = self.header.used as usize;
        Shard {
            header: self.header,
            slots: self.slots.get(..used).unwrap_or(self.slots),
            nodes: self.nodes.get(..used).unwrap_or(self.nodes),
            buckets: self.buckets,
            positions: self.positions,
        }
    }

    /// Counts an event of an entity that has just happened (microseconds).
    ///
    /// `hash` is [`Key::hash`]; `weight` is what the entity is ranked by, in a unit of the caller's
    /// choice; `amounts` go to its counters. All of them already multiplied by the sampling weight.
    /// `tag` is whatever the caller last said of the entity, for instance in which partition its
    /// rows lie; 0 leaves it as it is. In `O(log slots)`.
    pub fn add(
        &mut self,
        key: &Key,
        hash: u64,
        weight: u64,
        amounts: &[u64; MEASURES],
        tag: u64,
        now_us: i64,
    ) -> Added {
        let now_us = self.header.clock.advance(now_us);
        let grown = weight as f64 * self.growth(now_us);
        let slots = &*self.slots;
        let known = index::find(self.buckets, hash, |slot| {
            slots
                .get(slot as usize)
                .is_some_and(|held| held.hash == hash && held.key == *key)
        });
        if let Some(slot) = known {
            if let Some(held) = self.slots.get_mut(slot as usize) {
                held.rates.add(amounts, now_us);
                if tag != 0 {
                    held.tag = tag;
                }
            }
            self.raise(slot, grown);
            return Added::Known;
        }
        if weight == 0 || self.slots.is_empty() {
            // Without slots anybody may have all the weight there is.
            self.header.floor += grown;
            self.header.tail.add(amounts, now_us);
            return Added::Tail;
        }
        let used = self.header.used;
        let (slot, added) = if used < self.header.slots {
            self.header.used = used.saturating_add(1);
            let error = self.header.floor;
            let live = self.nodes.get_mut(..=used as usize).unwrap_or_default();
            heap::push(live, self.positions, used, error + grown);
            (used, Added::New)
        } else {
            let slot = self.evict(now_us);
            self.raise(slot, grown);
            (slot, Added::Replaced)
        };
        if let Some(held) = self.slots.get_mut(slot as usize) {
            let mut rates = Rates::new(now_us);
            rates.add(amounts, now_us);
            *held = Slot {
                key: *key,
                hash,
                tag,
                error: self.header.floor,
                rates,
            };
        }
        index::insert(self.buckets, hash, slot);
        added
    }

    /// Takes away the slots of entities of which `keep` says no, as of now (microseconds), for
    /// example those of a dropped table. They are in the tail afterwards, but are no evictions, and
    /// the floor stays: they are not expected back.
    pub fn retain(&mut self, now_us: i64, keep: impl Fn(&Key) -> bool) {
        let now_us = self.header.clock.advance(now_us);
        for slot in (0..self.header.used).rev() {
            let unwanted = self
                .slots
                .get(slot as usize)
                .is_some_and(|held| !keep(&held.key));
            if unwanted {
                self.pool(slot, now_us);
                self.close_gap(slot);
            }
        }
    }

    /// Forgets everything; a new life begins now (microseconds).
    pub fn reset(&mut self, now_us: i64) {
        for bucket in self.buckets.iter_mut() {
            *bucket = index::EMPTY;
        }
        let header = &mut *self.header;
        header.clock = Clock::starting_at(now_us);
        header.used = 0;
        header.landmark_us = 0;
        header.growth = 1.0;
        header.growth_at_us = 0;
        header.floor = 0.0;
        header.evictions = 0;
        header.first_eviction_us = 0;
        header.last_eviction_us = 0;
        header.tail = Rates::new(0);
    }

    /// The factor by which weights that arrive now are multiplied. Recomputed once a step.
    #[inline]
    fn growth(&mut self, now_us: i64) -> f64 {
        if now_us.saturating_sub(self.header.growth_at_us) >= STEP_US {
            let age_us = now_us.saturating_sub(self.header.landmark_us);
            let exponent = age_us as f64 / self.header.ranking_us.max(RANKING_MIN_US) as f64;
            self.header.growth_at_us = now_us;
            if exponent > EXPONENT_MAX {
                self.move_landmark(now_us);
            } else {
                self.header.growth = exponent.exp();
            }
        }
        self.header.growth
    }

    /// Scales all weights down, so that those that arrive now need not be scaled up.
    fn move_landmark(&mut self, now_us: i64) {
        let age_us = now_us.saturating_sub(self.header.landmark_us);
        let factor = decay(age_us, self.header.ranking_us);
        for node in self.nodes.iter_mut() {
            node.weight *= factor;
        }
        for slot in self.slots.iter_mut() {
            slot.error *= factor;
        }
        self.header.floor *= factor;
        self.header.landmark_us = now_us;
        self.header.growth = 1.0;
    }

    /// Empties the slot with the least weight and says which it is. It keeps its weight.
    fn evict(&mut self, now_us: i64) -> u32 {
        let Some(&least) = self.nodes.first() else {
            return 0;
        };
        self.pool(least.slot, now_us);
        let header = &mut *self.header;
        header.floor = header.floor.max(least.weight);
        if header.evictions == 0 {
            header.first_eviction_us = now_us;
        }
        header.last_eviction_us = now_us;
        header.evictions = header.evictions.saturating_add(1);
        least.slot
    }

    /// Adds a slot's counts to the tail and makes it impossible to find.
    fn pool(&mut self, slot: u32, now_us: i64) {
        if let Some(held) = self.slots.get(slot as usize) {
            self.header.tail.merge(&held.rates, now_us);
            index::remove(self.buckets, held.hash, slot);
        }
    }

    /// Moves the last slot into one that was pooled.
    fn close_gap(&mut self, slot: u32) {
        let (nodes, positions) = self.live();
        heap::remove(nodes, positions, slot);
        let last = self.header.used.saturating_sub(1);
        self.header.used = last;
        if slot != last
            && let Some(&moved) = self.slots.get(last as usize)
            && let Some(to) = self.slots.get_mut(slot as usize)
        {
            *to = moved;
            index::relabel(self.buckets, moved.hash, last, slot);
            let (nodes, positions) = self.live();
            heap::relabel(nodes, positions, last, slot);
        }
    }

    #[inline]
    fn raise(&mut self, slot: u32, by: f64) {
        let (nodes, positions) = self.live();
        heap::raise(nodes, positions, slot, by);
    }

    /// The heap: nodes in use, and positions.
    fn live(&mut self) -> (&mut [Node], &mut [u32]) {
        let used = self.header.used as usize;
        let nodes = self.nodes.get_mut(..used).unwrap_or_default();
        (nodes, self.positions)
    }
}

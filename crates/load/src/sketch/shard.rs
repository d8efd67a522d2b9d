//! Reading a shard.

use super::heap::{self, Node};
use super::index::{self, Bucket};
use super::layout::{self, Header, LayoutError, Parts, Slot};
use super::{Entry, Info, Key};
use crate::rates::{Rates, decay};

/// A shard that is read: the caller holds a lock that keeps writers away.
pub struct Shard<'a, const MEASURES: usize> {
    pub(super) header: &'a Header<MEASURES>,
    /// Those in use.
    pub(super) slots: &'a [Slot<MEASURES>],
    pub(super) nodes: &'a [Node],
    pub(super) buckets: &'a [Bucket],
    pub(super) positions: &'a [u32],
}

impl<'a, const MEASURES: usize> Shard<'a, MEASURES> {
    /// The shard in a block that [`ShardMut::init`](super::ShardMut::init) made one.
    pub fn attach(bytes: &'a [u8]) -> Result<Self, LayoutError> {
        let Parts {
            header,
            slots,
            nodes,
            buckets,
            positions,
        } = layout::parts::<MEASURES>(bytes)?;
        let used = header.used as usize;
        Ok(Shard {
            header,
            slots: slots.get(..used).unwrap_or(slots),
            nodes: nodes.get(..used).unwrap_or(nodes),
            buckets,
            positions,
        })
    }

    /// What is known of an entity now (microseconds), if it has a slot.
    pub fn get(&self, key: &Key, hash: u64, now_us: i64) -> Option<Entry<MEASURES>> {
        let slot = index::find(self.buckets, hash, |slot| {
            self.slots
                .get(slot as usize)
                .is_some_and(|slot| slot.key == *key)
        })?;
        self.entry(slot, self.factor(now_us))
    }

    /// Every entity that has a slot, in no order, as of now (microseconds).
    pub fn iter(
        &self,
        now_us: i64,
    ) -> impl Iterator<Item = Entry<MEASURES>> + use<'_, 'a, MEASURES> {
        let factor = self.factor(now_us);
        (0..self.header.used).filter_map(move |slot| self.entry(slot, factor))
    }

    /// Appends the `count` entities with the greatest guaranteed weight now (microseconds), in no
    /// order. The one operation that allocates.
    pub fn top(&self, count: usize, now_us: i64, entries: &mut Vec<Entry<MEASURES>>) {
        let mut ranking: Vec<(f64, u32)> = (0..self.header.used)
            .map(|slot| (self.guaranteed(slot), slot))
            .collect();
        let count = count.min(ranking.len());
        if let Some(last) = count.checked_sub(1) {
            ranking.select_nth_unstable_by(last, |one, other| other.0.total_cmp(&one.0));
        }
        let factor = self.factor(now_us);
        let chosen = ranking.iter().take(count);
        entries.extend(chosen.filter_map(|(_, slot)| self.entry(*slot, factor)));
    }

    /// The shard as a whole, now (microseconds).
    pub fn info(&self, now_us: i64) -> Info<MEASURES> {
        let header = self.header;
        let evicted = |at_us| (header.evictions > 0).then_some(header.clock.wall_us(at_us));
        Info {
            slots: header.slots,
            used: header.used,
            since_us: self.since_us(),
            evictions: header.evictions,
            first_eviction_us: evicted(header.first_eviction_us),
            last_eviction_us: evicted(header.last_eviction_us),
            floor: header.floor * self.factor(now_us),
            tail: self.on_the_wall(&header.tail),
        }
    }

    /// When it was made or reset, on the wall.
    fn since_us(&self) -> i64 {
        let clock = &self.header.clock;
        clock.wall_us(self.header.tail.since_us())
    }

    /// What makes decayed weights of the weights in the heap.
    fn factor(&self, now_us: i64) -> f64 {
        let header = self.header;
        let elapsed_us = header.clock.elapsed_us(now_us);
        decay(
            elapsed_us.saturating_sub(header.landmark_us),
            header.ranking_us,
        )
    }

    fn guaranteed(&self, slot: u32) -> f64 {
        let error = self.slots.get(slot as usize).map_or(0.0, |s| s.error);
        (heap::weight_of(self.nodes, self.positions, slot) - error).max(0.0)
    }

    fn entry(&self, slot: u32, factor: f64) -> Option<Entry<MEASURES>> {
        let held = self.slots.get(slot as usize)?;
        Some(Entry {
            key: held.key,
            tag: held.tag,
            since_us: self.header.clock.wall_us(held.rates.since_us()),
            guaranteed: self.guaranteed(slot) * factor,
            error: held.error * factor,
            rates: self.on_the_wall(&held.rates),
        })
    }

    /// Rates with the shard's life, and with times of the wall clock.
    fn on_the_wall(&self, rates: &Rates<MEASURES>) -> Rates<MEASURES> {
        let at_us = self.header.clock.wall_us(rates.at_us());
        rates.dated(self.since_us(), at_us)
    }
}

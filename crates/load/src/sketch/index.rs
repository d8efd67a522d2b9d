//! Finding a slot by hash: open addressing with linear probing and deletion by shifting back
//! (Knuth, *The Art of Computer Programming* 3, section 6.4, algorithm R). At most half full.

/// One place of the hash table. Empty where the slot is zero; else slot number plus one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    tag: u32,
    slot_plus_one: u32,
}

/// A place that is free.
pub(super) const EMPTY: Bucket = Bucket {
    tag: 0,
    slot_plus_one: 0,
};

/// Where a hash would like to be. The low half of the hash decides; the high half chose the shard.
fn home(tag: u32, capacity: usize) -> usize {
    ((u64::from(tag) * capacity as u64) >> 32) as usize
}

fn after(place: usize, capacity: usize) -> usize {
    if place + 1 < capacity { place + 1 } else { 0 }
}

/// The slot with this hash that `is_it`.
pub(super) fn find(buckets: &[Bucket], hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
    let tag = hash as u32;
    let place = place_of(buckets, tag, is_it)?;
    buckets.get(place)?.slot_plus_one.checked_sub(1)
}

/// Where a slot with this tag that `is_it` is noted.
fn place_of(buckets: &[Bucket], tag: u32, is_it: impl Fn(u32) -> bool) -> Option<usize> {
    let mut place = home(tag, buckets.len());
    for _ in 0..buckets.len() {
        let bucket = buckets.get(place)?;
        let slot = bucket.slot_plus_one.checked_sub(1)?;
        if bucket.tag == tag && is_it(slot) {
            return Some(place);
        }
        place = after(place, buckets.len());
    }
    None
}

/// Notes a slot that is not noted yet.
pub(super) fn insert(buckets: &mut [Bucket], hash: u64, slot: u32) {
    let tag = hash as u32;
    let capacity = buckets.len();
    let mut place = home(tag, capacity);
    for _ in 0..capacity {
        match buckets.get_mut(place) {
            Some(bucket) if bucket.slot_plus_one == 0 => {
                *bucket = Bucket {
                    tag,
                    slot_plus_one: slot.saturating_add(1),
                };
                return;
            }
            _ => place = after(place, capacity),
        }
    }
}

/// Says that what was in one slot is in another now.
pub(super) fn relabel(buckets: &mut [Bucket], hash: u64, from: u32, to: u32) {
    let place = place_of(buckets, hash as u32, |slot| slot == from);
    if let Some(bucket) = place.and_then(|place| buckets.get_mut(place)) {
        bucket.slot_plus_one = to.saturating_add(1);
    }
}

/// Forgets a slot.
pub(super) fn remove(buckets: &mut [Bucket], hash: u64, slot: u32) {
    let Some(mut hole) = place_of(buckets, hash as u32, |other| other == slot) else {
        return;
    };
    let capacity = buckets.len();
    let mut place = hole;
    for _ in 0..capacity {
        place = after(place, capacity);
        let Some(&bucket) = buckets.get(place) else {
            break;
        };
        if bucket.slot_plus_one == 0 {
            break;
        }
        // It may move to the hole unless its home lies behind the hole: (hole, place], cyclically.
        let home = home(bucket.tag, capacity);
        let behind = if hole < place {
            hole < home && home <= place
        } else {
            hole < home || home <= place
        };
        if !behind {
            if let Some(to) = buckets.get_mut(hole) {
                *to = bucket;
            }
            hole = place;
        }
    }
    if let Some(bucket) = buckets.get_mut(hole) {
        *bucket = EMPTY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// Few different hashes, at both ends of the table: collisions and wrap-around all the time.
        #[test]
        fn like_a_map(ops in prop::collection::vec((0u32..8, 0u32..6, 0u32..3), 0..200)) {
            let mut buckets = [EMPTY; 16];
            let mut model = HashMap::new();
            for (slot, spread, op) in ops {
                let hash = u64::from(spread.wrapping_mul(0x3333_3333) | 0x0FFF_FFFF);
                match (op, model.get(&slot).copied()) {
                    (0 | 1, None) => {
                        insert(&mut buckets, hash, slot);
                        model.insert(slot, hash);
                    }
                    (2, Some(hash)) => {
                        remove(&mut buckets, hash, slot);
                        model.remove(&slot);
                    }
                    (0, Some(hash)) if !model.contains_key(&(slot + 100)) => {
                        relabel(&mut buckets, hash, slot, slot + 100);
                        model.remove(&slot);
                        model.insert(slot + 100, hash);
                    }
                    _ => {}
                }
                // At most half full, as the sketch keeps it.
                if model.len() > 8 {
                    let (&slot, &hash) = model.iter().next().expect("not empty");
                    remove(&mut buckets, hash, slot);
                    model.remove(&slot);
                }
                for (slot, hash) in &model {
                    prop_assert_eq!(find(&buckets, *hash, |s| s == *slot), Some(*slot));
                }
                let noted = buckets.iter().filter(|b| b.slot_plus_one > 0).count();
                prop_assert_eq!(noted, model.len());
            }
        }
    }

    #[test]
    fn no_buckets_no_slot() {
        let mut none: [Bucket; 0] = [];
        insert(&mut none, 1, 1);
        remove(&mut none, 1, 1);
        assert_eq!(find(&none, 1, |_| true), None);
    }
}

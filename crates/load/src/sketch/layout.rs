//! Where everything lies in the bytes of a shard:
//!
//! ```text
//! header | slots | heap nodes (one a slot) | hash buckets (two a slot) | heap positions | unused
//! ```

use super::heap::Node;
use super::index::Bucket;
use super::key::Key;
use crate::clock::Clock;
use crate::rates::Rates;
use crate::region;
use std::fmt;

/// Says that a block is a shard, and in which version of this layout.
const MAGIC: u64 = u64::from_be_bytes(*b"load\0\0\0\x02");

/// Shards do not share cache lines, in bytes.
const ROUNDED_TO: usize = 64;

/// Why a block of bytes is no shard, or holds no [values](crate::values).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// It is shorter than needed, or not aligned to eight bytes.
    TooSmall {
        /// What [`shard_bytes`] or [`values_bytes`](crate::values::values_bytes) says.
        needed_bytes: usize,
    },
    /// It was not made by [`ShardMut::init`](super::ShardMut::init) or
    /// [`ValuesMut::init`](crate::values::ValuesMut::init) of this version, or with another number
    /// of measures.
    Foreign,
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LayoutError::TooSmall { needed_bytes } => write!(
                f,
                "block for load statistics is not aligned or smaller than {needed_bytes} bytes"
            ),
            LayoutError::Foreign => {
                f.write_str("block for load statistics was made by another version")
            }
        }
    }
}

impl std::error::Error for LayoutError {}

/// What a shard knows besides its slots. Times are of the shard's clock.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header<const MEASURES: usize> {
    magic: u64,
    measures: u32,
    pub(super) slots: u32,
    pub(super) used: u32,
    reserved: u32,
    pub(super) clock: Clock,
    /// Time constant of the ranking weights.
    pub(super) ranking_us: i64,
    /// Weights are multiplied by `exp((t - landmark) / ranking)` when they are added.
    pub(super) landmark_us: i64,
    /// That factor, and the time it was computed for.
    pub(super) growth: f64,
    pub(super) growth_at_us: i64,
    /// What an entity without a slot may weigh at most, multiplied like a weight.
    pub(super) floor: f64,
    pub(super) evictions: u64,
    pub(super) first_eviction_us: i64,
    pub(super) last_eviction_us: i64,
    /// Its life is the life of the shard.
    pub(super) tail: Rates<MEASURES>,
}

/// An entity and its counters. Its weight is in the heap.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot<const MEASURES: usize> {
    pub(super) key: Key,
    pub(super) hash: u64,
    /// What the caller last said of the entity; 0 if nothing.
    pub(super) tag: u64,
    /// The part of the weight that was inherited.
    pub(super) error: f64,
    /// Its life begins when the entity got the slot.
    pub(super) rates: Rates<MEASURES>,
}

const fn array_bytes<T>(count: usize) -> usize {
    size_of::<T>().saturating_mul(count)
}

/// How many bytes a shard with so many slots takes: a multiple of 64.
pub const fn shard_bytes<const MEASURES: usize>(slots: u32) -> usize {
    let slots = slots as usize;
    size_of::<Header<MEASURES>>()
        .saturating_add(array_bytes::<Slot<MEASURES>>(slots))
        .saturating_add(array_bytes::<Node>(slots))
        .saturating_add(array_bytes::<Bucket>(slots).saturating_mul(2))
        .saturating_add(array_bytes::<u32>(slots))
        .saturating_add(ROUNDED_TO - 1)
        / ROUNDED_TO
        * ROUNDED_TO
}

/// The parts of a shard, to be read.
pub(super) struct Parts<'a, const MEASURES: usize> {
    pub(super) header: &'a Header<MEASURES>,
    pub(super) slots: &'a [Slot<MEASURES>],
    pub(super) nodes: &'a [Node],
    pub(super) buckets: &'a [Bucket],
    pub(super) positions: &'a [u32],
}

/// The parts of a shard, to be changed.
pub(super) struct PartsMut<'a, const MEASURES: usize> {
    pub(super) header: &'a mut Header<MEASURES>,
    pub(super) slots: &'a mut [Slot<MEASURES>],
    pub(super) nodes: &'a mut [Node],
    pub(super) buckets: &'a mut [Bucket],
    pub(super) positions: &'a mut [u32],
}

/// Makes an empty shard of a block, whatever was in it.
pub(super) fn init<const MEASURES: usize>(
    bytes: &mut [u8],
    slots: u32,
    ranking_us: i64,
    clock: Clock,
) -> Result<(), LayoutError> {
    let too_small = LayoutError::TooSmall {
        needed_bytes: shard_bytes::<MEASURES>(slots),
    };
    let bytes = bytes
        .get_mut(..shard_bytes::<MEASURES>(slots))
        .ok_or(too_small)?;
    bytes.fill(0);
    let (headers, _) = region::split_mut::<Header<MEASURES>>(bytes, 1).ok_or(too_small)?;
    let header = headers.first_mut().ok_or(too_small)?;
    *header = Header {
        magic: MAGIC,
        measures: MEASURES as u32,
        slots,
        used: 0,
        reserved: 0,
        clock,
        ranking_us,
        landmark_us: 0,
        growth: 1.0,
        growth_at_us: 0,
        floor: 0.0,
        evictions: 0,
        first_eviction_us: 0,
        last_eviction_us: 0,
        tail: Rates::new(0),
    };
    Ok(())
}

fn checked<const MEASURES: usize>(header: &Header<MEASURES>) -> Result<usize, LayoutError> {
    if header.magic == MAGIC && header.measures as usize == MEASURES && header.used <= header.slots
    {
        Ok(header.slots as usize)
    } else {
        Err(LayoutError::Foreign)
    }
}

fn too_small<const MEASURES: usize>(slots: usize) -> LayoutError {
    LayoutError::TooSmall {
        needed_bytes: shard_bytes::<MEASURES>(u32::try_from(slots).unwrap_or(u32::MAX)),
    }
}

/// The parts of a block that was made a shard before.
pub(super) fn parts<const MEASURES: usize>(
    bytes: &[u8],
) -> Result<Parts<'_, MEASURES>, LayoutError> {
    let (headers, rest) =
        region::split::<Header<MEASURES>>(bytes, 1).ok_or(too_small::<MEASURES>(0))?;
    let header = headers.first().ok_or(LayoutError::Foreign)?;
    let count = checked(header)?;
    let too_small = too_small::<MEASURES>(count);
    let (slots, rest) = region::split(rest, count).ok_or(too_small)?;
    let (nodes, rest) = region::split(rest, count).ok_or(too_small)?;
    let (buckets, rest) = region::split(rest, count.saturating_mul(2)).ok_or(too_small)?;
    let (positions, _) = region::split(rest, count).ok_or(too_small)?;
    Ok(Parts {
        header,
        slots,
        nodes,
        buckets,
        positions,
    })
}

/// The same, to be changed.
pub(super) fn parts_mut<const MEASURES: usize>(
    bytes: &mut [u8],
) -> Result<PartsMut<'_, MEASURES>, LayoutError> {
    let (headers, rest) =
        region::split_mut::<Header<MEASURES>>(bytes, 1).ok_or(too_small::<MEASURES>(0))?;
    let header = headers.first_mut().ok_or(LayoutError::Foreign)?;
    let count = checked(header)?;
    let too_small = too_small::<MEASURES>(count);
    let (slots, rest) = region::split_mut(rest, count).ok_or(too_small)?;
    let (nodes, rest) = region::split_mut(rest, count).ok_or(too_small)?;
    let (buckets, rest) = region::split_mut(rest, count.saturating_mul(2)).ok_or(too_small)?;
    let (positions, _) = region::split_mut(rest, count).ok_or(too_small)?;
    Ok(PartsMut {
        header,
        slots,
        nodes,
        buckets,
        positions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum of the fields is the size, for any number of measures: `region` relies on it.
    #[test]
    fn nothing_is_padded() {
        fn check<const MEASURES: usize>() {
            let rates = 16 + 4 * 8 * MEASURES;
            assert_eq!(size_of::<Rates<MEASURES>>(), rates);
            assert_eq!(size_of::<Key>(), 4 * 4 + 16 + 48);
            assert_eq!(size_of::<Slot<MEASURES>>(), 80 + 8 + 8 + 8 + rates);
            assert_eq!(
                size_of::<Header<MEASURES>>(),
                8 + 4 * 4 + 16 + 8 * 8 + rates
            );
            assert_eq!(size_of::<Node>(), 16);
            assert_eq!(size_of::<Bucket>(), 8);
            assert_eq!(align_of::<Slot<MEASURES>>(), 8);
            for slots in [0, 1, 2, 3, 625] {
                let formula = 120 + 32 * MEASURES + slots as usize * (156 + 32 * MEASURES);
                let bytes = shard_bytes::<MEASURES>(slots);
                assert_eq!(bytes, formula.next_multiple_of(64));
            }
        }
        check::<0>();
        check::<1>();
        check::<3>();
        check::<12>();
    }
}

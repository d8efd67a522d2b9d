//! Long values by their digest, in a fixed block of memory.
//!
//! A [`Key`](crate::sketch::Key) keeps the beginning of a long value only. Who wants to show the
//! whole of it looks here for [`Key::digest`](crate::sketch::Key::digest); it may be gone.
//!
//! **Sets.** A digest selects a set of [`SET_PLACES`] places, and its value lies in one of them.
//! When all are taken, the one that was put least recently gives way. Digests are keyed hashes, so
//! that nobody can choose which set a value goes to. They are trusted: the bytes are not compared.
//! Zeros, the digest of each value that its key keeps whole, are no exception: do not put those.
//!
//! **Memory.** A block of bytes without pointers, to be mapped anywhere, aligned to eight. It takes
//! 56 bytes, and 32 and the bytes of a place for each place, rounded up to a multiple of 64 in all;
//! places are rounded up to a multiple of eight before. See [`values_bytes`]. Nothing is ever
//! allocated.
//!
//! **Locking** is the caller's: [`ValuesMut`] under an exclusive lock, [`Values`] under a shared
//! one, held for as long as bytes that [`Values::get`] gave are looked at.
//!
//! Entry points: [`ValuesMut::init`] once, [`ValuesMut::attach`] and [`Values::attach`] after that.

use crate::clock::Clock;
use crate::region;
use crate::sketch::LayoutError;
use std::ops::Range;

/// In how many places a value may lie.
pub const SET_PLACES: u32 = 8;

/// Says that a block holds values, and in which version of this layout.
const MAGIC: u64 = u64::from_be_bytes(*b"values\0\x01");

/// Blocks do not share cache lines, in bytes.
const ROUNDED_TO: usize = 64;

/// What is known besides the places; then come the places, then the bytes of each.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    magic: u64,
    /// A multiple of [`SET_PLACES`].
    places: u32,
    place_bytes: u32,
    used: u32,
    reserved: u32,
    clock: Clock,
    replaced: u64,
    too_long: u64,
}

/// Whose bytes lie in a place.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    digest: [u64; 2],
    /// When it was last put, by the clock of the block.
    at_us: i64,
    length_bytes: u32,
    /// Zero if the place is free.
    taken: u32,
}

impl Place {
    fn holds(&self, digest: [u64; 2]) -> bool {
        self.taken != 0 && self.digest == digest
    }
}

/// What [`ValuesMut::put`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The value was there: it counts as put now.
    Known,
    /// It was given a place that was free.
    New,
    /// It was given the place of another, which is gone.
    Replaced,
    /// It was not taken: it is longer than a place, or there are no places at all.
    TooLong,
}

/// What there is to say about a block as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// How many values it can hold.
    pub places: u32,
    /// How many it holds.
    pub used: u32,
    /// How many values lost their place to another since it was made or reset, values counted
    /// again each time.
    pub replaced: u64,
    /// How often a value was not taken since then, the same value counted again each time.
    pub too_long: u64,
}

const fn rounded(places: u32) -> u32 {
    places.saturating_add(SET_PLACES - 1) / SET_PLACES * SET_PLACES
}

/// How many bytes a block takes that holds so many values (rounded up to a multiple of eight) of
/// up to so many bytes each: a multiple of 64.
pub const fn values_bytes(places: u32, place_bytes: u32) -> usize {
    size_of::<Place>()
        .saturating_add(place_bytes as usize)
        .saturating_mul(rounded(places) as usize)
        .saturating_add(size_of::<Header>())
        .saturating_add(ROUNDED_TO - 1)
        / ROUNDED_TO
        * ROUNDED_TO
}

/// How many places, and how many bytes in all of them, follow this header.
fn checked(header: &Header) -> Result<(usize, usize), LayoutError> {
    let Header {
        places,
        place_bytes,
        used,
        ..
    } = *header;
    if header.magic == MAGIC && places.is_multiple_of(SET_PLACES) && used <= places {
        let places = places as usize;
        Ok((places, places.saturating_mul(place_bytes as usize)))
    } else {
        Err(LayoutError::Foreign)
    }
}

fn too_small(places: u32, place_bytes: u32) -> LayoutError {
    LayoutError::TooSmall {
        needed_bytes: values_bytes(places, place_bytes),
    }
}

/// The places of the set of a digest. Empty if there are none.
fn set_of(digest: [u64; 2], places: u32) -> Range<usize> {
    let [low, _] = digest;
    let sets = places / SET_PLACES;
    let set = ((low >> 32) * u64::from(sets)) >> 32;
    let first = set as usize * SET_PLACES as usize;
    first..(first + SET_PLACES as usize).min(places as usize)
}

/// Which of the places holds the digest.
fn find(places: &[Place], digest: [u64; 2]) -> Option<usize> {
    let set = set_of(digest, u32::try_from(places.len()).unwrap_or(u32::MAX));
    let first = set.start;
    let at = places
        .get(set)?
        .iter()
        .position(|place| place.holds(digest))?;
    Some(first + at)
}

/// Where this many bytes of a value in a place lie. `None` if a place has fewer.
fn range(place: usize, place_bytes: u32, length_bytes: u32) -> Option<Range<usize>> {
    let first = place.checked_mul(place_bytes as usize)?;
    let end = first.checked_add(length_bytes as usize)?;
    (length_bytes <= place_bytes).then_some(first..end)
}

/// Values that are read: the caller holds a lock that keeps writers away.
pub struct Values<'a> {
    header: &'a Header,
    places: &'a [Place],
    bytes: &'a [u8],
}

impl<'a> Values<'a> {
    /// The values in a block that [`ValuesMut::init`] made.
    pub fn attach(bytes: &'a [u8]) -> Result<Self, LayoutError> {
        let (headers, rest) = region::split::<Header>(bytes, 1).ok_or(too_small(0, 0))?;
        let header = headers.first().ok_or(LayoutError::Foreign)?;
        let (count, length) = checked(header)?;
        let too_small = too_small(header.places, header.place_bytes);
        let (places, rest) = region::split(rest, count).ok_or(too_small)?;
        let bytes = rest.get(..length).ok_or(too_small)?;
        Ok(Values {
            header,
            places,
            bytes,
        })
    }

    /// The value with this digest, if it is there. That it was wanted does not keep it there; only
    /// [`ValuesMut::put`] does.
    pub fn get(&self, digest: [u64; 2]) -> Option<&'a [u8]> {
        let at = find(self.places, digest)?;
        let length_bytes = self.places.get(at)?.length_bytes;
        self.bytes
            .get(range(at, self.header.place_bytes, length_bytes)?)
    }

    /// Whether there is a value with this digest.
    pub fn contains(&self, digest: [u64; 2]) -> bool {
        find(self.places, digest).is_some()
    }

    /// The block as a whole.
    pub fn info(&self) -> Info {
        let header = self.header;
        Info {
            places: header.places,
            used: header.used,
            replaced: header.replaced,
            too_long: header.too_long,
        }
    }
}

/// Values that are changed: the caller holds a lock that keeps everybody else away.
pub struct ValuesMut<'a> {
    header: &'a mut Header,
    places: &'a mut [Place],
    bytes: &'a mut [u8],
}

impl<'a> ValuesMut<'a> {
    /// Makes a block, whatever was in it, aligned to eight bytes and of [`values_bytes`] for these
    /// places, one that holds no values yet.
    pub fn init(bytes: &'a mut [u8], places: u32, place_bytes: u32) -> Result<Self, LayoutError> {
        let too_small = too_small(places, place_bytes);
        let block = bytes
            .get_mut(..values_bytes(places, place_bytes))
            .ok_or(too_small)?;
        let (headers, rest) = region::split_mut::<Header>(block, 1).ok_or(too_small)?;
        let header = headers.first_mut().ok_or(too_small)?;
        rest.fill(0);
        *header = Header {
            magic: MAGIC,
            places: rounded(places),
            place_bytes,
            used: 0,
            reserved: 0,
            clock: Clock::default(),
            replaced: 0,
            too_long: 0,
        };
        Self::attach(bytes)
    }

    /// The values in a block that [`init`](Self::init) made.
    pub fn attach(bytes: &'a mut [u8]) -> Result<Self, LayoutError> {
        let (headers, rest) = region::split_mut::<Header>(bytes, 1).ok_or(too_small(0, 0))?;
        let header = headers.first_mut().ok_or(LayoutError::Foreign)?;
        let (count, length) = checked(header)?;
        let too_small = too_small(header.places, header.place_bytes);
        let (places, rest) = region::split_mut(rest, count).ok_or(too_small)?;
        let bytes = rest.get_mut(..length).ok_or(too_small)?;
        Ok(ValuesMut {
            header,
            places,
            bytes,
        })
    }

    /// The same, to be read.
    pub fn read(&self) -> Values<'_> {
        Values {
            header: self.header,
            places: self.places,
            bytes: self.bytes,
        }
    }

    /// Takes a value, of which this is the digest, and which is wanted now (microseconds). Of one
    /// that is there already, only the time is noted. In `O(length)`.
    pub fn put(&mut self, digest: [u64; 2], value: &[u8], now_us: i64) -> Put {
        let at_us = self.header.clock.advance(now_us);
        if let Some(place) = find(self.places, digest).and_then(|at| self.places.get_mut(at)) {
            place.at_us = at_us;
            return Put::Known;
        }
        self.place(digest, value, at_us).unwrap_or_else(|| {
            self.header.too_long = self.header.too_long.saturating_add(1);
            Put::TooLong
        })
    }

    /// Forgets everything, counts included. Bytes of values stay until others lie there, but are
    /// never given to anybody.
    pub fn reset(&mut self) {
        for place in self.places.iter_mut() {
            place.taken = 0;
        }
        self.header.used = 0;
        self.header.replaced = 0;
        self.header.too_long = 0;
    }

    /// Puts a value that is not there into the set of its digest, if it fits.
    fn place(&mut self, digest: [u64; 2], value: &[u8], at_us: i64) -> Option<Put> {
        let header = &mut *self.header;
        let length_bytes = u32::try_from(value.len()).ok()?;
        let set = set_of(digest, header.places);
        let first = set.start;
        let (nth, place) = self
            .places
            .get_mut(set)?
            .iter_mut()
            .enumerate()
            .min_by_key(|(_, place)| (place.taken != 0, place.at_us))?;
        let at = range(first + nth, header.place_bytes, length_bytes)?;
        for (to, from) in self.bytes.get_mut(at)?.iter_mut().zip(value) {
            *to = *from;
        }
        let put = if place.taken == 0 {
            header.used = header.used.saturating_add(1).min(header.places);
            Put::New
        } else {
            header.replaced = header.replaced.saturating_add(1);
            Put::Replaced
        };
        *place = Place {
            digest,
            at_us,
            length_bytes,
            taken: 1,
        };
        Some(put)
    }
}

#[cfg(test)]
mod tests;

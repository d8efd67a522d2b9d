//! Stories of a block of values, and random ones against a map.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

/// A block aligned to eight bytes, as shared memory is, full of rubbish.
struct Block(Vec<u8>);

impl Block {
    fn new(places: u32, place_bytes: u32) -> Self {
        Block(vec![0xA5; values_bytes(places, place_bytes) + 8])
    }

    fn bytes(&mut self) -> &mut [u8] {
        let offset = self.0.as_ptr().align_offset(8);
        let length = self.0.len() - 8;
        &mut self.0[offset..offset + length]
    }
}

/// A digest like any other, in the first set of two or the second.
fn digest(number: u32) -> [u64; 2] {
    let half = u64::from(number % 2) << 63;
    [half | u64::from(number), u64::from(number)]
}

/// The sum of the fields is the size: `region` relies on it.
#[test]
fn nothing_is_padded() {
    assert_eq!(size_of::<Header>(), 8 + 4 * 4 + 16 + 8 + 8);
    assert_eq!(size_of::<Place>(), 16 + 8 + 4 + 4);
    assert_eq!((align_of::<Header>(), align_of::<Place>()), (8, 8));
    for (places, rounded) in [(0, 0), (1, 8), (8, 8), (9, 16), (1000, 1000)] {
        for place_bytes in [0, 1, 7, 4096] {
            let formula = 56 + rounded * (32 + place_bytes as usize);
            let bytes = values_bytes(places, place_bytes);
            assert_eq!(bytes, formula.next_multiple_of(64));
        }
    }
}

#[test]
fn the_least_recently_put_gives_way() {
    let mut block = Block::new(8, 4);
    let mut values = ValuesMut::init(block.bytes(), 8, 4).expect("fits");
    for number in 0..8u32 {
        let value = number.to_be_bytes();
        assert_eq!(
            values.put(digest(number), &value, 10 + number as i64),
            Put::New
        );
    }
    // Touched; what it was put with is not looked at.
    assert_eq!(values.put(digest(0), b"", 20), Put::Known);
    assert_eq!(values.put(digest(0), b"too long", 21), Put::Known);
    assert_eq!(values.put(digest(8), b"abcd", 22), Put::Replaced);
    let read = values.read();
    assert_eq!(read.get(digest(0)), Some(&[0; 4][..]));
    assert_eq!(read.get(digest(1)), None);
    assert_eq!(read.get(digest(8)), Some(&b"abcd"[..]));
    assert!(read.contains(digest(2)) && !read.contains(digest(1)));
    // A clock that is set back by a day makes nothing old.
    let back_us = -86_400_000_000;
    assert_eq!(values.put(digest(9), b"9", back_us), Put::Replaced);
    assert_eq!(values.put(digest(10), b"", back_us + 1), Put::Replaced);
    let read = values.read();
    assert_eq!(read.get(digest(9)), Some(&b"9"[..]));
    assert_eq!(read.get(digest(10)), Some(&b""[..]));
    assert!(!read.contains(digest(2)) && !read.contains(digest(3)));
    let info = Info {
        places: 8,
        used: 8,
        replaced: 3,
        too_long: 0,
    };
    assert_eq!(read.info(), info);
}

/// The other half of a digest is looked at too, and zeros are not taken for a free place.
#[test]
fn digests_are_compared_whole() {
    let mut block = Block::new(8, 4);
    let mut values = ValuesMut::init(block.bytes(), 8, 4).expect("fits");
    assert!(!values.read().contains([0, 0]));
    for digest in [[0, 0], [0, 1], [1, 0]] {
        assert_eq!(values.read().get(digest), None);
        assert_eq!(
            values.put(digest, &[digest[0] as u8, digest[1] as u8], 0),
            Put::New
        );
    }
    assert_eq!(values.read().get([0, 0]), Some(&[0, 0][..]));
    assert_eq!(values.read().get([0, 1]), Some(&[0, 1][..]));
    assert_eq!(values.read().get([1, 0]), Some(&[1, 0][..]));
}

#[test]
fn what_is_too_long_is_not_taken() {
    let mut block = Block::new(1, 5);
    let mut values = ValuesMut::init(block.bytes(), 1, 5).expect("fits");
    assert_eq!(values.put(digest(1), b"123456", 0), Put::TooLong);
    assert_eq!(values.put(digest(2), b"12345", 0), Put::New);
    assert_eq!(values.read().get(digest(1)), None);
    assert_eq!(values.read().get(digest(2)), Some(&b"12345"[..]));
    let info = values.read().info();
    assert_eq!((info.places, info.used, info.too_long), (8, 1, 1));

    let mut block = Block::new(0, 5);
    let mut values = ValuesMut::init(block.bytes(), 0, 5).expect("fits");
    assert_eq!(values.put(digest(1), b"", 0), Put::TooLong);
    assert_eq!(values.read().get(digest(1)), None);
    let mut block = Block::new(8, 0);
    let mut values = ValuesMut::init(block.bytes(), 8, 0).expect("fits");
    assert_eq!(values.put(digest(1), b"1", 0), Put::TooLong);
    assert_eq!(values.put(digest(1), b"", 0), Put::New);
    assert_eq!(values.read().get(digest(1)), Some(&b""[..]));
}

#[test]
fn reset_forgets() {
    let mut block = Block::new(8, 2);
    let mut values = ValuesMut::init(block.bytes(), 8, 2).expect("fits");
    for number in 0..10 {
        values.put(digest(number), b"ab", 0);
    }
    values.put(digest(10), b"abc", 0);
    values.reset();
    let read = values.read();
    assert!((0..=10).all(|number| !read.contains(digest(number))));
    let info = Info {
        places: 8,
        used: 0,
        replaced: 0,
        too_long: 0,
    };
    assert_eq!(read.info(), info);
    assert_eq!(values.put(digest(1), b"c", 0), Put::New);
    assert_eq!(values.read().get(digest(1)), Some(&b"c"[..]));
}

#[test]
fn foreign_blocks_are_refused() {
    let mut block = Block::new(9, 100);
    let needed_bytes = values_bytes(9, 100);
    let too_small = Some(LayoutError::TooSmall { needed_bytes });
    let foreign = Some(LayoutError::Foreign);
    assert_eq!(Values::attach(block.bytes()).err(), foreign);
    assert_eq!(ValuesMut::attach(block.bytes()).err(), foreign);
    let short = &mut block.bytes()[..needed_bytes - 1];
    assert_eq!(ValuesMut::init(short, 9, 100).err(), too_small);
    assert!(ValuesMut::init(&mut block.bytes()[1..], 8, 100).is_err());
    assert!(ValuesMut::init(block.bytes(), u32::MAX, u32::MAX).is_err());
    ValuesMut::init(block.bytes(), 9, 100).expect("fits");
    assert!(Values::attach(block.bytes()).is_ok());
    assert_eq!(
        Values::attach(&block.bytes()[..needed_bytes - 64]).err(),
        too_small
    );
    assert_eq!(ValuesMut::attach(&mut block.bytes()[..60]).err(), too_small);
    assert!(Values::attach(&block.bytes()[8..]).is_err());
    assert!(Values::attach(&[]).is_err() && ValuesMut::attach(&mut []).is_err());

    // A shard of the sketch, and another version.
    crate::sketch::ShardMut::<2>::init(block.bytes(), 2, 1, 0).expect("fits");
    assert_eq!(Values::attach(block.bytes()).err(), foreign);
    ValuesMut::init(block.bytes(), 9, 100).expect("fits");
    assert!(crate::sketch::Shard::<2>::attach(block.bytes()).is_err());
    let mut magic = MAGIC + 1;
    block.bytes()[..8].copy_from_slice(&magic.to_ne_bytes());
    assert_eq!(Values::attach(block.bytes()).err(), foreign);
    // Numbers of places that cannot be.
    magic -= 1;
    block.bytes()[..8].copy_from_slice(&magic.to_ne_bytes());
    for places in [1u32, 9, u32::MAX, u32::MAX - 7] {
        block.bytes()[8..12].copy_from_slice(&places.to_ne_bytes());
        assert!(ValuesMut::attach(block.bytes()).is_err());
    }
}

proptest! {
    /// Up to 40 values for 16 places: what is found is what was put, and all of it is found while
    /// nothing had to give way.
    #[test]
    fn like_a_map(
        puts in prop::collection::vec((0u32..40, 0i64..3), 0..120), few in any::<bool>(),
    ) {
        let mut block = Block::new(16, 60);
        ValuesMut::init(block.bytes(), 16, 60).expect("fits");
        let mut model: HashMap<u32, Vec<u8>> = HashMap::new();
        let mut too_long = 0;
        let mut now_us = 0;
        for (number, wait_us) in puts {
            // Sixteen of them fill both sets just so.
            let number = if few { number % 16 } else { number };
            // Of any length; those from 61 bytes are too long.
            let value = vec![number as u8; 2 * number as usize % 68];
            now_us += wait_us;
            // Each time anew, as another process would.
            let mut values = ValuesMut::attach(block.bytes()).expect("values");
            let (before, there) = (values.read().info(), values.read().contains(digest(number)));
            let put = values.put(digest(number), &value, now_us);
            let info = values.read().info();
            prop_assert_eq!(put == Put::Known, there);
            prop_assert_eq!(put == Put::TooLong, value.len() > 60);
            prop_assert_eq!(info.used - before.used, u32::from(put == Put::New));
            prop_assert_eq!(info.replaced - before.replaced, u64::from(put == Put::Replaced));
            if put == Put::TooLong {
                too_long += 1;
            } else {
                prop_assert_eq!(values.read().get(digest(number)), Some(&value[..]));
                model.insert(number, value);
            }
            let read = Values::attach(block.bytes()).expect("values");
            prop_assert_eq!(info.too_long, too_long);
            let mut found = 0;
            for number in 0..40 {
                let value = read.get(digest(number));
                prop_assert_eq!(value.is_some(), read.contains(digest(number)));
                if info.replaced == 0 || value.is_some() {
                    prop_assert_eq!(value, model.get(&number).map(Vec::as_slice));
                }
                found += u32::from(value.is_some());
            }
            prop_assert_eq!(found, info.used);
        }
    }

    /// A block that somebody wrote over: wrong answers, but no panic.
    #[test]
    fn rubbish_is_survived(
        rubbish in prop::collection::vec(any::<u8>(), 1000), from in 20usize..800, now_us: i64,
    ) {
        let mut block = Block::new(16, 20);
        ValuesMut::init(block.bytes(), 16, 20).expect("fits");
        for (to, from) in block.bytes().iter_mut().skip(from).zip(&rubbish) {
            *to = *from;
        }
        {
            let mut values = ValuesMut::attach(block.bytes()).expect("the header's begin is whole");
            for number in 0..40 {
                values.put(digest(number), &rubbish[..number as usize], now_us);
                values.read().get(digest(number));
            }
            for at in 0..values.places.len() {
                let digest = values.places[at].digest;
                values.read().get(digest);
                values.put(digest, b"", now_us);
            }
        }
        prop_assert!(Values::attach(block.bytes()).is_ok());
        ValuesMut::attach(block.bytes()).expect("values").reset();
    }

    /// Bytes that were never a block, of any length.
    #[test]
    fn nothing_else_is_attached(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Values::attach(&bytes).is_err());
        prop_assert!(ValuesMut::attach(&mut bytes).is_err());
    }
}

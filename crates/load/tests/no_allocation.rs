//! The hot path does not allocate.

#![allow(unsafe_code)]

use load::rates::Rates;
use load::sampling::Rate;
use load::sketch::{Key, RANKING_US, ShardMut, shard_bytes};
use load::values::{ValuesMut, values_bytes};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: passes everything on to the system's allocator; the counter is plain thread-local data
// that needs neither an initialiser nor a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the same, and it came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn adding_and_finding_do_not_allocate() {
    let mut block = vec![0u8; shard_bytes::<4>(10) + 8];
    let offset = block.as_ptr().align_offset(8);
    let bytes = &mut block[offset..];
    ShardMut::<4>::init(bytes, 10, RANKING_US, 0).expect("fits");
    let mut place_block = vec![0u8; values_bytes(8, 1000) + 8];
    let offset = place_block.as_ptr().align_offset(8);
    let mut values = ValuesMut::init(&mut place_block[offset..], 8, 1000).expect("fits");
    let long = [b'x'; 1000];
    let before = ALLOCATIONS.get();
    let mut rates = Rates::<4>::new(0);
    for event in 0..10_000i64 {
        let now_us = event * 100_000;
        let entity = (event % 37).to_be_bytes();
        let value = if event % 5 == 0 {
            &long[..900 + event as usize % 7]
        } else {
            &entity[..]
        };
        let key = Key::new([1, 2], 1, 2, 25, value);
        let hash = key.hash([1, 2]);
        let mut shard = ShardMut::<4>::attach(bytes).expect("a shard");
        shard.add(&key, hash, 1, &[1; 4], 3, now_us);
        if !key.is_whole() {
            values.put(key.digest(), value, now_us);
            assert_eq!(values.read().get(key.digest()), Some(value));
        }
        assert!(shard.read().get(&key, hash, now_us).is_some());
        rates.add(&[1; 4], now_us);
        Rate::EXACT.next(event as f64, 2000.0).keep(event as u64);
    }
    assert_eq!(ALLOCATIONS.get(), before);
}

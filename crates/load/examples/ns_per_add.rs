//! How long one `add` takes, key and hash included: `cargo run --release -p load --example ns_per_add`.
//!
//! Twelve measures, 10,000 slots in 16 shards, 10,000 events a second, without locks.

use load::sketch::{Key, RANKING_US, Seed, ShardMut, shard_bytes, shard_of};
use std::hint::black_box;
use std::time::Instant;

const SEED: Seed = [1, 2];
const MEASURES: usize = 12;
const SHARDS: u32 = 16;
const SLOTS: u32 = 625;
const EVENTS: usize = 4_000_000;

fn measure(name: &str, entities: &[u32]) {
    let length = shard_bytes::<MEASURES>(SLOTS);
    let mut memory = vec![0u8; length * SHARDS as usize + 8];
    let offset = memory.as_ptr().align_offset(8);
    let mut blocks: Vec<&mut [u8]> = memory[offset..].chunks_exact_mut(length).collect();
    for block in &mut blocks {
        ShardMut::<MEASURES>::init(block, SLOTS, RANKING_US, 0).expect("fits");
    }
    let mut counts = [0u32; 4];
    let mut amounts = [0; MEASURES];
    (amounts[0], amounts[3], amounts[5]) = (1, 120, 7);
    let start = Instant::now();
    for (event, entity) in entities.iter().enumerate() {
        let value = u64::from(*entity).to_be_bytes();
        let key = Key::new(SEED, 5, 16384, 20, black_box(&value));
        let hash = key.hash(SEED);
        let block = &mut blocks[shard_of(hash, SHARDS) as usize];
        let mut shard = ShardMut::<MEASURES>::attach(block).expect("a shard");
        let added = shard.add(&key, hash, 1, black_box(&amounts), 9, event as i64 * 100);
        counts[added as usize] += 1;
    }
    let ns = start.elapsed().as_nanos() as f64 / entities.len() as f64;
    let share = |count: u32| 100.0 * f64::from(count) / entities.len() as f64;
    println!(
        "{name}: {ns:.0} ns per add; {:.1}% had a slot, {:.1}% evicted another",
        share(counts[0]),
        share(counts[2]),
    );
}

fn main() {
    let bytes = shard_bytes::<MEASURES>(SLOTS) * SHARDS as usize;
    println!("{bytes} bytes in {SHARDS} shards of {SLOTS} slots with {MEASURES} measures");
    let mut sum = 0.0;
    let cumulative: Vec<f64> = (1..=1_000_000)
        .map(|rank| {
            sum += f64::from(rank).powf(-1.1);
            sum
        })
        .collect();
    let mut state = 1u64;
    let mut unit = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let zipf: Vec<u32> = (0..EVENTS)
        .map(|_| {
            let at = unit() * sum;
            cumulative.partition_point(|share| *share < at) as u32
        })
        .collect();
    let few: Vec<u32> = (0..EVENTS).map(|_| (unit() * 100.0) as u32).collect();
    let held: Vec<u32> = (0..EVENTS).map(|_| (unit() * 8000.0) as u32).collect();
    let distinct: Vec<u32> = (0..EVENTS as u32).collect();
    measure("100 entities", &few);
    measure("8,000 entities", &held);
    measure("Zipf(1.1) over a million", &zipf);
    measure("never the same entity twice", &distinct);
}

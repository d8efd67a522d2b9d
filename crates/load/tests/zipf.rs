//! The goals of the benchmark, on a synthetic stream: a million entities, popularity by Zipf's law
//! with exponent 1.1, 10,000 slots in 16 shards.

use load::rates::Window;
use load::sketch::{
    Entry, Key, RANKING_US, Seed, Shard, ShardMut, keep_top, shard_bytes, shard_of,
};

const SEED: Seed = [0x5eed, 0xfeed];
const ENTITIES: usize = 1_000_000;
const SHARDS: u32 = 16;
const SLOTS_PER_SHARD: u32 = 625;
/// As many as the extension counts, about.
const MEASURES: usize = 4;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Draws ranks, the most popular is 0.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = (1..=ENTITIES)
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        cumulative.iter_mut().for_each(|share| *share /= sum);
        Zipf(cumulative)
    }

    fn draw(&self, random: &mut Random) -> usize {
        let unit = random.unit();
        self.0
            .partition_point(|share| *share < unit)
            .min(ENTITIES - 1)
    }
}

/// The sketch as it is in the extension: shards in blocks of their own.
struct Sketch(Vec<Vec<u8>>);

impl Sketch {
    fn new() -> Self {
        let length = shard_bytes::<MEASURES>(SLOTS_PER_SHARD);
        let mut sketch = Sketch(vec![vec![0; length + 8]; SHARDS as usize]);
        for shard in 0..SHARDS {
            ShardMut::<MEASURES>::init(sketch.block(shard), SLOTS_PER_SHARD, RANKING_US, 0)
                .expect("a block of the right size");
        }
        sketch
    }

    fn block(&mut self, shard: u32) -> &mut [u8] {
        let block = &mut self.0[shard as usize];
        let offset = block.as_ptr().align_offset(8);
        let length = block.len() - 8;
        &mut block[offset..offset + length]
    }

    fn add(&mut self, entity: usize, now_us: i64) {
        let key = Key::new(SEED, 5, 16384, 20, &entity.to_be_bytes());
        let hash = key.hash(SEED);
        let block = self.block(shard_of(hash, SHARDS));
        let mut shard = ShardMut::<MEASURES>::attach(block).expect("a shard");
        shard.add(&key, hash, 1, &[1, 0, 100, 7], 0, now_us);
    }

    fn each<T>(&mut self, mut ask: impl FnMut(Shard<'_, MEASURES>) -> T) -> Vec<T> {
        (0..SHARDS)
            .map(|shard| ask(Shard::attach(self.block(shard)).expect("a shard")))
            .collect()
    }

    fn top(&mut self, count: usize, now_us: i64) -> Vec<Entry<MEASURES>> {
        let mut entries = Vec::new();
        self.each(|shard| shard.top(count, now_us, &mut entries));
        keep_top(&mut entries, count);
        entries
    }
}

fn entity_of(key: &Key) -> usize {
    usize::from_be_bytes(key.inline().try_into().expect("eight bytes"))
}

/// A stream, and exactly what it weighs for each entity at its end: by windows, then by ranking.
struct Truth([Vec<f64>; 4]);

/// Ten minutes; for the second half, the popularity is of other entities if `shifted`.
fn run(shifted: usize) -> (Sketch, Truth) {
    const EVENTS: usize = 3_000_000;
    const END_US: i64 = 600_000_000;
    let zipf = Zipf::new(1.1);
    let mut random = Random(20_260_101);
    let mut sketch = Sketch::new();
    let mut truth = Truth(std::array::from_fn(|_| vec![0.0; ENTITIES]));
    let lengths = [60e6, 300e6, 3600e6, RANKING_US as f64];
    for event in 0..EVENTS {
        let now_us = END_US * event as i64 / EVENTS as i64;
        let shift = if event < EVENTS / 2 { 0 } else { shifted };
        let entity = (zipf.draw(&mut random) + shift) % ENTITIES;
        sketch.add(entity, now_us);
        let age_us = (END_US - now_us) as f64;
        for (weights, length_us) in truth.0.iter_mut().zip(lengths) {
            weights[entity] += (-age_us / length_us).exp();
        }
    }
    check(&mut sketch, &truth, END_US, EVENTS as u64);
    (sketch, truth)
}

fn check(sketch: &mut Sketch, truth: &Truth, now_us: i64, events: u64) {
    let top = sketch.top(100, now_us);
    let ranking = &truth.0[3];
    let mut exact: Vec<usize> = (0..ENTITIES).collect();
    exact.sort_by(|one, other| ranking[*other].total_cmp(&ranking[*one]));
    let found = top
        .iter()
        .filter(|entry| exact[..100].contains(&entity_of(&entry.key)))
        .count();

    let entries: Vec<_> = sketch
        .each(|shard| shard.iter(now_us).collect::<Vec<_>>())
        .concat();
    let mut worst = [0.0f64; 3];
    let mut heavy = [0; 3];
    for window in Window::ALL {
        let weights = &truth.0[window as usize];
        let length_us = window.length_us() as f64;
        let seconds = length_us / 1e6 * (1.0 - (-now_us as f64 / length_us).exp());
        let load: f64 = weights.iter().sum();
        for (entity, weight) in weights.iter().enumerate() {
            if *weight > load * 0.005 {
                let rate = entries
                    .iter()
                    .find(|entry| entity_of(&entry.key) == entity)
                    .map_or(0.0, |entry| entry.rates.per_second(0, window, now_us));
                let error = (rate / (weight / seconds) - 1.0).abs();
                worst[window as usize] = worst[window as usize].max(error);
                heavy[window as usize] += 1;
            }
        }
    }
    let infos = sketch.each(|shard| shard.info(now_us));
    let held: u64 = entries.iter().map(|entry| entry.rates.total(0)).sum();
    let tail: u64 = infos.iter().map(|info| info.tail.total(0)).sum();
    let evictions: u64 = infos.iter().map(|info| info.evictions).sum();
    let floor = infos.iter().map(|info| info.floor).fold(0.0, f64::max);
    let load: f64 = ranking.iter().sum();
    println!(
        "recall {found}/100; heavy entities {heavy:?}, worst relative error of rates {worst:.5?}; \
         {evictions} evictions, tail {:.1}%, greatest floor {:.2e} of the load",
        100.0 * tail as f64 / events as f64,
        floor / load,
    );
    assert!(found >= 99, "recall {found}/100");
    assert!(heavy.iter().all(|count| *count >= 10));
    assert!(worst.iter().all(|error| *error <= 0.05), "{worst:?}");
    assert_eq!(held + tail, events);
}

#[test]
fn top_100_of_a_steady_stream() {
    run(0);
}

/// Half way, a thousand other entities become the popular ones.
#[test]
fn top_100_of_a_stream_that_shifts() {
    run(500_000);
}

/// A million entities, each of them once: the block is what it was, and nothing is lost.
#[test]
fn memory_is_fixed() {
    let mut sketch = Sketch::new();
    let bytes: usize = sketch.0.iter().map(Vec::len).sum();
    for entity in 0..ENTITIES {
        sketch.add(entity, entity as i64 * 100);
    }
    assert_eq!(sketch.0.iter().map(Vec::len).sum::<usize>(), bytes);
    let infos = sketch.each(|shard| shard.info(100_000_000));
    let used: u64 = infos.iter().map(|info| u64::from(info.used)).sum();
    let tail: u64 = infos.iter().map(|info| info.tail.total(0)).sum();
    let evictions: u64 = infos.iter().map(|info| info.evictions).sum();
    assert_eq!(used, 10_000);
    assert_eq!((tail, evictions), (990_000, 990_000));
}

//! How well the heavy hitters are known: a stream of a million entities, of which 10,000 have a slot, as
//! the extension keeps them (see the crate `load`), against what a table of all of them says.

use super::report::Report;
use load::rates::Window;
use load::sketch::{Key, RANKING_US, Seed, Shard, ShardMut, keep_top, shard_bytes, shard_of};
use shadowpart_tests::{Dice, Result, Server, anyhow};

const SEED: Seed = [0x5eed, 0xfeed];
const ENTITIES: usize = 1_000_000;
const EVENTS: usize = 10_000_000;
/// Ten minutes.
const END_US: i64 = 600_000_000;
const EXPONENT: f64 = 1.1;
const SHARDS: u32 = 16;
const SLOTS: u32 = 10_000 / SHARDS;
/// As many as the extension counts.
const MEASURES: usize = 10;
/// Relative errors are looked at above this share of the load.
const SHARE_MIN: f64 = 0.005;

pub fn measure(_: &mut Server, report: &mut Report, _: u64) -> Result<()> {
    let mut sum = 0.0;
    let cumulative: Vec<f64> = (1..=ENTITIES)
        .map(|rank| {
            sum += (rank as f64).powf(-EXPONENT);
            sum
        })
        .collect();
    let bytes = shard_bytes::<MEASURES>(SLOTS);
    // Words, so that blocks are aligned.
    let mut words = vec![vec![0u64; bytes / 8]; SHARDS as usize];
    let mut blocks: Vec<&mut [u8]> = words.iter_mut().map(|w| bytes_of(w)).collect();
    for block in &mut blocks {
        ShardMut::<MEASURES>::init(block, SLOTS, RANKING_US, 0)
            .map_err(|e| anyhow!("a shard: {e}"))?;
    }
    let mut dice = Dice::new(2026);
    let windows = Window::ALL;
    let mut recent = vec![vec![0.0_f64; ENTITIES]; windows.len()];
    let mut weights = vec![0.0_f64; ENTITIES];
    for event in 0..EVENTS {
        let now_us = END_US * event as i64 / EVENTS as i64;
        let unit = dice.below(1 << 53) as f64 / (1u64 << 53) as f64 * sum;
        let entity = cumulative.partition_point(|c| *c < unit).min(ENTITIES - 1);
        let key = Key::new(SEED, 5, 16384, 20, &entity.to_be_bytes());
        let hash = key.hash(SEED);
        let mut amounts = [0; MEASURES];
        amounts[0] = 1;
        ShardMut::<MEASURES>::attach(blocks[shard_of(hash, SHARDS) as usize])
            .map_err(|e| anyhow!("a shard: {e}"))?
            .add(&key, hash, 1, &amounts, 0, now_us);
        let age_us = (END_US - now_us) as f64;
        for (window, sums) in windows.iter().zip(&mut recent) {
            sums[entity] += (-age_us / window.length_us() as f64).exp();
        }
        weights[entity] += (-age_us / RANKING_US as f64).exp();
    }
    let mut top = Vec::new();
    let mut all = Vec::new();
    for block in &blocks {
        let shard = Shard::<MEASURES>::attach(block).map_err(|e| anyhow!("a shard: {e}"))?;
        shard.top(100, END_US, &mut top);
        all.extend(shard.iter(END_US));
    }
    keep_top(&mut top, 100);
    let mut ranking: Vec<usize> = (0..ENTITIES).collect();
    ranking.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]));
    let entity_of = |key: &Key| key.inline().try_into().map(usize::from_be_bytes);
    let mut found = 0;
    for entry in &top {
        found += usize::from(ranking[..100].contains(&entity_of(&entry.key)?));
    }
    report.at_least(
        "top 100 of a million entities by Zipf(1.1), 10000 slots: recall",
        found as f64 / 100.0,
        "",
        0.99,
        "",
    );
    let mut worst: f64 = 0.0;
    let mut looked_at = 0;
    for (window, sums) in windows.iter().zip(&recent) {
        let total: f64 = sums.iter().sum();
        for entry in &all {
            let entity = entity_of(&entry.key)?;
            if sums[entity] / total > SHARE_MIN {
                // What the sum of the decayed events means as a rate, over a life of ten minutes.
                let length = window.length_us() as f64;
                let seconds = length / 1e6 * (1.0 - (-(END_US as f64) / length).exp());
                let rate = entry.rates.per_second(0, *window, END_US);
                worst = worst.max((rate / (sums[entity] / seconds) - 1.0).abs());
                looked_at += 1;
            }
        }
    }
    report.at_most(
        "rates of entities above 0.5% of the load: largest relative error",
        100.0 * worst,
        "%",
        5.0,
        &format!(" ({looked_at} rates)"),
    );
    Ok(())
}

fn bytes_of(words: &mut [u64]) -> &mut [u8] {
    // SAFETY: the same memory, any bytes are valid, and the borrow goes on in the result.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size_of_val(words)) }
}

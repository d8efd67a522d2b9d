//! Where time and latency fall on the paper, and what is drawn from the samples.

use crate::story::Outcome;
use crate::svg::Area;
use crate::writers::Lane;

const BUCKET_US: u64 = 100_000;

/// p99 of a bucket's few dozen transactions would be their maximum: take it over a second.
const P99_SPAN_US: u64 = 1_000_000;

/// Time across, latency up (log).
pub struct Scale {
    pub area: Area,
    pub from_us: f64,
    pub to_us: f64,
    pub low_ms: f64,
    pub high_ms: f64,
}

impl Scale {
    pub fn x(&self, at_us: u64) -> f64 {
        let share = (at_us as f64 - self.from_us) / (self.to_us - self.from_us);
        self.area.x + share.clamp(0.0, 1.0) * self.area.width
    }

    pub fn y(&self, ms: f64) -> f64 {
        let share = (ms / self.low_ms).log10() / (self.high_ms / self.low_ms).log10();
        self.area.bottom() - share.clamp(0.0, 1.0) * self.area.height
    }
}

/// What a lane's curves are drawn from: one a bucket, microseconds, none where there was no transaction.
pub struct Bucket {
    pub middle_us: u64,
    pub largest: Option<u64>,
    pub p99: Option<u64>,
    pub median: Option<u64>,
}

pub fn buckets(outcome: &Outcome, lane: Lane, from_us: u64, to_us: u64) -> Vec<Bucket> {
    let count = ((to_us - from_us) / BUCKET_US) as usize + 1;
    let mut took: Vec<Vec<u64>> = vec![Vec::new(); count];
    for sample in outcome.samples.iter().filter(|sample| sample.lane == lane) {
        if (from_us..to_us).contains(&sample.start_us) {
            took[((sample.start_us - from_us) / BUCKET_US) as usize].push(sample.took_us);
        }
    }
    let reach = (P99_SPAN_US / BUCKET_US / 2) as usize;
    let around = |bucket: usize| {
        let mut near = took[bucket.saturating_sub(reach)..(bucket + reach).min(count)].concat();
        near.sort_unstable();
        near
    };
    (0..count)
        .map(|bucket| {
            let near = around(bucket);
            Bucket {
                middle_us: from_us + bucket as u64 * BUCKET_US + BUCKET_US / 2,
                largest: took[bucket].iter().max().copied(),
                p99: near.get(near.len() * 99 / 100).copied(),
                median: near.get(near.len() / 2).copied(),
            }
        })
        .collect()
}

/// Round bounds around latencies in microseconds.
pub fn latency_range(took_us: impl Iterator<Item = u64>) -> (f64, f64) {
    let (least_us, largest_us) = took_us
        .map(|us| us.max(1))
        .fold((u64::MAX, 1), |(least, largest), us| {
            (least.min(us), largest.max(us))
        });
    let steps = [1.0, 2.0, 5.0, 10.0];
    let split = |us: u64| {
        let ms = us as f64 / 1e3;
        (ms, 10f64.powf(ms.log10().floor()))
    };
    let (least_ms, decade) = split(least_us.min(largest_us));
    let low_ms = steps
        .map(|step| step * decade)
        .into_iter()
        .rfind(|bound| *bound <= least_ms);
    // Room for the labels above the highest point.
    let (largest_ms, decade) = split(largest_us * 2);
    let high_ms = steps
        .map(|step| step * decade)
        .into_iter()
        .find(|bound| *bound >= largest_ms);
    let low_ms = low_ms.unwrap_or(least_ms);
    (low_ms, high_ms.unwrap_or(largest_ms).max(low_ms * 10.0))
}

pub fn decades(low_ms: f64, high_ms: f64) -> impl Iterator<Item = f64> {
    let first = low_ms.log10().floor() as i32;
    let last = high_ms.log10().floor() as i32;
    (first..=last).map(|power| 10f64.powi(power))
}

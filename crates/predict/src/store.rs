//! The recent past of every series, in bounded memory.
//!
//! A series is a ring of [`Store::ring_slots`] slots of four bytes, NaN where nothing was measured.
//! Ten thousand series over eight days of five-minute slots take 92 MB.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Values above this are not measurements. Squares of a week of them can be added up in four bytes.
pub const VALUE_MAX: f64 = 1e15;

/// The identity of a series: whatever the caller counts entities, partitions and resources by.
pub type SeriesId = u64;

/// A load as it is kept: not a number where it is none (missing, infinite, negative or absurd).
pub fn clean(value: f64) -> f32 {
    if (0.0..=VALUE_MAX).contains(&value) {
        value as f32
    } else {
        f32::NAN
    }
}

/// One series on the grid of its store.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Series {
    ring: Box<[f32]>,
    /// The first slot that had a value.
    first: i64,
    /// The last slot that had a value.
    last: i64,
}

/// Series on a common grid, up to a common newest slot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Store {
    ring_slots: usize,
    series_max: usize,
    newest: Option<i64>,
    series: BTreeMap<SeriesId, Series>,
}

impl Store {
    /// An empty store for at most so many series of so many slots (at least one).
    pub fn new(ring_slots: usize, series_max: usize) -> Store {
        Store {
            ring_slots: ring_slots.max(1),
            series_max,
            newest: None,
            series: BTreeMap::new(),
        }
    }

    /// How many slots of the past a series keeps.
    pub fn ring_slots(&self) -> usize {
        self.ring_slots
    }

    /// The newest slot, if there is any.
    pub fn newest(&self) -> Option<i64> {
        self.newest
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Is there no series?
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The series, in order of their ids.
    pub fn ids(&self) -> impl Iterator<Item = SeriesId> + '_ {
        self.series.keys().copied()
    }

    /// Forgets a series.
    pub fn remove(&mut self, id: SeriesId) {
        self.series.remove(&id);
    }

    /// Forgets series without any value since this slot.
    pub fn remove_silent_since(&mut self, slot: i64) {
        self.series.retain(|_, series| series.last >= slot);
    }

    /// Begins a slot, later than the newest one: all series are missing in it and in those that
    /// were left out. Returns false, and does nothing, if it is not later.
    pub fn advance(&mut self, slot: i64) -> bool {
        let ring_slots = self.ring_slots;
        let from = match self.newest {
            None => slot,
            Some(newest) if newest >= slot => return false,
            Some(newest) => newest
                .saturating_add(1)
                .max(slot.saturating_sub(ring_slots as i64 - 1)),
        };
        for series in self.series.values_mut() {
            for skipped in from..=slot {
                if let Some(value) = series.ring.get_mut(place(ring_slots, skipped)) {
                    *value = f32::NAN;
                }
            }
        }
        self.newest = Some(slot);
        true
    }

    /// Puts a value into the newest slot. What is not a load ([`clean`]) stays missing and makes no
    /// new series. Returns false if the store is full and the value was dropped.
    pub fn put(&mut self, id: SeriesId, value: f64) -> bool {
        let (Some(slot), value) = (self.newest, clean(value)) else {
            return true;
        };
        if value.is_nan() {
            return true;
        }
        if !self.series.contains_key(&id) {
            if self.series.len() >= self.series_max {
                return false;
            }
            let series = Series {
                ring: vec![f32::NAN; self.ring_slots].into_boxed_slice(),
                first: slot,
                last: slot,
            };
            self.series.insert(id, series);
        }
        if let Some(series) = self.series.get_mut(&id) {
            if let Some(place) = series.ring.get_mut(place(self.ring_slots, slot)) {
                *place = value;
            }
            series.last = slot;
        }
        true
    }

    /// The view of a series as of the newest slot.
    pub fn view(&self, id: SeriesId) -> Option<View<'_>> {
        let newest = self.newest?;
        self.series.get(&id).map(|series| View {
            ring: &series.ring,
            newest,
            first: series.first,
        })
    }
}

/// Where a slot lies in a ring.
fn place(ring_slots: usize, slot: i64) -> usize {
    slot.rem_euclid(ring_slots as i64) as usize
}

/// A series, read backwards from a slot that counts as the newest.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    ring: &'a [f32],
    newest: i64,
    first: i64,
}

impl<'a> View<'a> {
    /// The newest slot.
    pub fn newest(&self) -> i64 {
        self.newest
    }

    /// How many slots ago the series had its first value, the newest slot included: its age.
    pub fn age(&self) -> i64 {
        self.newest.saturating_sub(self.first).saturating_add(1)
    }

    /// The value so many slots before the newest. NaN if it is missing, too old or in the future.
    pub fn lag(&self, lag: i64) -> f32 {
        if lag < 0 || lag >= self.ring.len() as i64 {
            return f32::NAN;
        }
        let place = place(self.ring.len(), self.newest.saturating_sub(lag));
        self.ring.get(place).copied().unwrap_or(f32::NAN)
    }

    /// The values from `lag + slots - 1` slots ago to `lag` slots ago, in two pieces in order of
    /// time. Parts that are too old or in the future are left out.
    pub fn window(&self, lag: i64, slots: i64) -> (&'a [f32], &'a [f32]) {
        let length = self.ring.len() as i64;
        let oldest = lag.saturating_add(slots).min(length);
        let lag = lag.max(0);
        if oldest <= lag {
            return (&[], &[]);
        }
        let begin = place(self.ring.len(), self.newest.saturating_sub(oldest - 1));
        let count = (oldest - lag) as usize;
        let straight = count.min(self.ring.len() - begin);
        (
            self.ring.get(begin..begin + straight).unwrap_or(&[]),
            self.ring.get(..count - straight).unwrap_or(&[]),
        )
    }

    /// What a window holds (see [`window`](Self::window)).
    pub fn summary(&self, lag: i64, slots: i64) -> Summary {
        let (first, second) = self.window(lag, slots);
        let mut summary = Summary::default();
        summary.add(first);
        summary.add(second);
        summary
    }

    /// The mean of a window, if there is any value in it.
    pub fn mean(&self, lag: i64, slots: i64) -> Option<f64> {
        let (first, second) = self.window(lag, slots);
        let (sum, count) = if first.len() + second.len() < LANES {
            let known = first.iter().chain(second).filter(|value| !value.is_nan());
            known.fold((0.0, 0.0), |(sum, count), value| {
                (sum + f64::from(*value), count + 1.0)
            })
        } else {
            let ((sum, count), (more, others)) = (sum_and_count(first), sum_and_count(second));
            (sum + more, count + others)
        };
        (count > 0.0).then(|| sum / count)
    }
}

/// Sums over the values of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// How many values there are.
    pub count: u32,
    /// Their sum.
    pub sum: f64,
    /// The sum of their squares.
    pub squares: f64,
    /// The largest, or zero.
    pub max: f64,
}

/// Values that are added up side by side.
const LANES: usize = 8;

/// The sum and the number of the values that are not missing: a [`Summary`] in half the time.
fn sum_and_count(values: &[f32]) -> (f64, f64) {
    let (mut counts, mut sums) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    let chunks = values.chunks_exact(LANES);
    let (mut sum, mut count) = (0.0, 0.0);
    for value in chunks.remainder().iter().filter(|value| !value.is_nan()) {
        sum += f64::from(*value);
        count += 1.0;
    }
    for chunk in chunks {
        for ((lane_count, lane_sum), value) in counts.iter_mut().zip(&mut sums).zip(chunk) {
            *lane_count += if value.is_nan() { 0.0 } else { 1.0 };
            *lane_sum += value.max(0.0);
        }
    }
    for (lane_count, lane_sum) in counts.iter().zip(&sums) {
        sum += f64::from(*lane_sum);
        count += f64::from(*lane_count);
    }
    (sum, count)
}

impl Summary {
    /// Adds values; missing ones do not count. This is where most of the time of a forecast goes, so
    /// it is written for the processor: no branches, and [`LANES`] sums side by side.
    pub fn add(&mut self, values: &[f32]) {
        if values.is_empty() {
            return;
        }
        let (mut counts, mut sums) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        let (mut squares, mut maxima) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        let chunks = values.chunks_exact(LANES);
        let rest = chunks.remainder();
        let mut last = [f32::NAN; LANES];
        for (place, value) in last.iter_mut().zip(rest) {
            *place = *value;
        }
        for chunk in chunks
            .filter_map(|chunk| chunk.first_chunk::<LANES>())
            .chain([&last])
        {
            let lanes = counts
                .iter_mut()
                .zip(&mut sums)
                .zip(&mut squares)
                .zip(&mut maxima);
            for ((((count, sum), square), max), value) in lanes.zip(chunk) {
                // No load is negative, so this makes zeros of what is missing and of nothing else.
                let known = value.max(0.0);
                *count += if value.is_nan() { 0.0 } else { 1.0 };
                *sum += known;
                *square += known * known;
                *max = max.max(known);
            }
        }
        let total = |lanes: [f32; LANES]| lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>();
        self.count += total(counts) as u32;
        self.sum += total(sums);
        self.squares += total(squares);
        self.max = maxima
            .iter()
            .fold(self.max, |max, lane| max.max(f64::from(*lane)));
    }

    /// The mean, if there is any value.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }

    /// The standard deviation (of the values themselves, not of a sample of more).
    pub fn deviation(&self) -> Option<f64> {
        let mean = self.mean()?;
        let variance = self.squares / f64::from(self.count) - mean * mean;
        Some(variance.max(0.0).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(values: &[f64]) -> Store {
        let mut store = Store::new(8, 2);
        for (slot, value) in values.iter().enumerate() {
            assert!(store.advance(slot as i64 + 100));
            assert!(store.put(7, *value));
        }
        store
    }

    #[test]
    fn the_past_is_read_backwards() {
        let values: Vec<f64> = (0..11).map(f64::from).collect();
        let store = store(&values);
        let view = store.view(7).unwrap();
        assert_eq!((view.lag(0), view.lag(7)), (10.0, 3.0));
        assert!(view.lag(8).is_nan() && view.lag(-1).is_nan());
        let (first, second) = view.window(1, 4);
        assert_eq!([first, second].concat(), [6.0, 7.0, 8.0, 9.0]);
        assert_eq!(view.mean(0, 100), Some(6.5));
        assert_eq!(view.age(), 11);
    }

    #[test]
    fn what_was_not_measured_is_missing() {
        let mut store = store(&[1.0, f64::NAN, f64::INFINITY, -1.0, 5.0]);
        assert!(store.advance(107));
        assert!(!store.advance(107));
        let view = store.view(7).unwrap();
        assert_eq!((view.summary(0, 8).count, view.summary(0, 8).sum), (2, 6.0));
        assert_eq!((view.lag(3), view.lag(7)), (5.0, 1.0));
        assert!(store.advance(i64::MAX));
        assert_eq!(store.view(7).unwrap().mean(0, 8), None);
    }

    #[test]
    fn a_full_store_takes_no_more_series() {
        let mut store = store(&[1.0]);
        assert!(store.put(8, 1.0));
        assert!(!store.put(9, 1.0));
        store.remove_silent_since(101);
        assert!(store.is_empty());
    }
}

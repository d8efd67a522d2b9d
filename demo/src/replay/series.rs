//! What the clients counted, as curves, and when what happened.

use super::clients::{BIN_US, Bin, Book};
use super::observer::{Seen, slot_end_us};
use super::regions::{self, ALL, REGIONS};
use super::timetable::{SLOT_US, Timetable};

const BINS_PER_SLOT: usize = (SLOT_US / BIN_US) as usize;

/// Rows per second in each slot.
pub struct Figures {
    /// By region, with what moved away left out from the swap on.
    pub loads: [Vec<f64>; REGIONS],
    /// Of the region with the hot airport, as if nothing had moved.
    pub without: Vec<f64>,
    /// What the moved airports brought to the target, from the swap on.
    pub moved: Vec<f64>,
    pub announced_us: Option<u64>,
    /// When the load would have reached the capacity, once there was experience.
    pub would_cross_us: Option<u64>,
    /// When it did.
    pub crossed_us: Option<u64>,
}

impl Figures {
    pub fn of(table: &Timetable, book: &Book, seen: &Seen, begin_us: u64) -> Self {
        let slots = book.bins.len() / BINS_PER_SLOT;
        let hot = table.hot_region;
        // Each airport with its region, and from which bin on it is elsewhere.
        let left = |code: &str| {
            (seen.swaps.iter())
                .find(|swap| swap.entities.iter().any(|entity| entity == code))
                .map(|swap| (swap.at_us.saturating_sub(begin_us) / BIN_US) as usize)
        };
        let airports: Vec<(Option<usize>, Option<usize>)> = regions::airports()
            .map(|code| (regions::of(code), left(code)))
            .collect();
        let curve = |counts: &dyn Fn(Option<usize>, bool) -> bool| -> Vec<f64> {
            let rows = |(number, bin): (usize, &Bin)| -> f64 {
                (bin.iter().zip(&airports))
                    .filter(|(_, (region, left))| {
                        counts(*region, left.is_some_and(|left| number >= left))
                    })
                    .map(|(count, _)| f64::from(*count))
                    .sum()
            };
            let bins: Vec<f64> = book.bins.iter().enumerate().map(rows).collect();
            bins.chunks(BINS_PER_SLOT)
                .take(slots)
                .map(|slot| slot.iter().sum::<f64>() * 1e6 / SLOT_US as f64)
                .collect()
        };
        let loads = std::array::from_fn(|one| curve(&|region, gone| region == Some(one) && !gone));
        let without = curve(&|region, _| region == Some(hot));
        let moved = curve(&|_, gone| gone);
        let reaches = |loads: &[f64]| {
            let trusted_us = seen.trusted_us?;
            (loads.iter().enumerate())
                .filter(|(_, load)| **load >= table.capacity)
                .map(|(slot, _)| slot_end_us(begin_us, slot))
                .find(|at_us| *at_us > trusted_us)
        };
        let announced = (seen.decisions.iter())
            .find(|one| one.partition == ALL[hot].partition && one.trigger == "model");
        Self {
            would_cross_us: reaches(&without),
            crossed_us: loads.get(hot).and_then(|loads: &Vec<f64>| reaches(loads)),
            loads,
            without,
            moved,
            announced_us: announced.map(|one| one.at_us),
        }
    }
}

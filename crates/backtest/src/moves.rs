//! What moving entities away in time would have avoided.

use crate::report::Moves;
use crate::trace::Trace;
use crate::units::Partition;

/// A partition is relieved of this share of its capacity.
pub const RELIEF: f64 = 0.3;

/// Sums over the cases.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    cases: f64,
    shares: f64,
    excess: f64,
    excess_left: f64,
    slots: f64,
    slots_left: f64,
    entities: f64,
    size: f64,
    size_percent: f64,
}

impl Tally {
    /// Counts what moving these entities would have done to the saturation that begins in a slot, in
    /// the slots of an hour.
    pub fn add(
        &mut self,
        trace: &Trace,
        partition: &Partition,
        moved: &[usize],
        onset: usize,
        hour: usize,
        smooth: usize,
    ) {
        let Some(capacity) = partition.capacity else {
            return;
        };
        let away = |slot: usize| {
            let loads = moved
                .iter()
                .map(|entity| f64::from(trace.load(slot, *entity)));
            loads.filter(|load| !load.is_nan()).sum::<f64>()
        };
        let (mut excess, mut left) = (0.0, 0.0);
        for slot in onset..onset + hour {
            let load = partition.load(slot);
            if load.is_nan() {
                continue;
            }
            let window = (slot + 1).saturating_sub(smooth)..=slot;
            let away = window.map(away).sum::<f64>() / smooth as f64;
            excess += (load - capacity).max(0.0);
            left += (load - away - capacity).max(0.0);
            self.slots += f64::from(u8::from(load >= capacity));
            self.slots_left += f64::from(u8::from(load - away >= capacity));
        }
        let whole: f64 = partition
            .members
            .iter()
            .map(|entity| trace.size(*entity))
            .sum();
        let size: f64 = moved.iter().map(|entity| trace.size(*entity)).sum();
        self.cases += 1.0;
        self.shares += if excess > 0.0 {
            1.0 - left / excess
        } else {
            1.0
        };
        self.excess += excess;
        self.excess_left += left;
        self.entities += moved.len() as f64;
        self.size += size;
        self.size_percent += 100.0 * size / whole;
    }

    /// The figures.
    pub fn finish(&self) -> Moves {
        let mean = |sum: f64| (self.cases > 0.0).then(|| sum / self.cases);
        let avoided = |left: f64, all: f64| (all > 0.0).then(|| 1.0 - left / all);
        Moves {
            cases: self.cases as u64,
            avoided: mean(self.shares),
            avoided_of_sum: avoided(self.excess_left, self.excess),
            avoided_slots: avoided(self.slots_left, self.slots),
            entities: mean(self.entities),
            size_percent: mean(self.size_percent),
            size: mean(self.size),
        }
    }
}

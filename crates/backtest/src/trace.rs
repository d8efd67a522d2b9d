//! Loads of entities on a grid of slots.

/// A recorded trace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// When the first slot begins, in microseconds.
    pub start_us: i64,
    /// How long a slot is, in microseconds.
    pub step_us: i64,
    /// The entities.
    pub names: Vec<String>,
    /// How much moving each entity costs, in any measure. Empty: all alike, 1 each.
    pub sizes: Vec<f64>,
    /// The loads, one row a slot, one column an entity; NaN where none was measured.
    pub loads: Vec<f32>,
}

impl Trace {
    /// How many entities there are.
    pub fn entities(&self) -> usize {
        self.names.len()
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.loads.len().checked_div(self.entities()).unwrap_or(0)
    }

    /// The loads of a slot, by entity; nothing past the end.
    pub fn slot(&self, slot: usize) -> &[f32] {
        let from = slot.saturating_mul(self.entities());
        self.loads
            .get(from..from.saturating_add(self.entities()))
            .unwrap_or(&[])
    }

    /// The load of an entity in a slot.
    pub fn load(&self, slot: usize, entity: usize) -> f32 {
        self.slot(slot).get(entity).copied().unwrap_or(f32::NAN)
    }

    /// The size of an entity.
    pub fn size(&self, entity: usize) -> f64 {
        self.sizes.get(entity).copied().unwrap_or(1.0)
    }

    /// A trace of loads (time in microseconds, one value an entity) in any order: averaged over
    /// slots of this length, missing where there are none. At most [`SLOTS_MAX`] slots, the newest.
    pub fn of(names: Vec<String>, mut rows: Vec<(i64, Vec<f32>)>, step_us: i64) -> Trace {
        let step_us = step_us.max(1);
        rows.sort_by_key(|(at_us, _)| *at_us);
        let last = rows
            .last()
            .map_or(0, |(at_us, _)| at_us.div_euclid(step_us));
        let first = rows
            .first()
            .map_or(0, |(at_us, _)| at_us.div_euclid(step_us));
        let first = first.max(last.saturating_sub(SLOTS_MAX - 1));
        let slots = if rows.is_empty() {
            0
        } else {
            (last - first + 1) as usize
        };
        let entities = names.len();
        let mut loads = vec![f32::NAN; slots * entities];
        let same_slot =
            |a: &(i64, _), b: &(i64, _)| a.0.div_euclid(step_us) == b.0.div_euclid(step_us);
        for rows in rows.chunk_by(same_slot) {
            let slot = rows
                .first()
                .map_or(0, |(at_us, _)| at_us.div_euclid(step_us) - first);
            let Ok(slot) = usize::try_from(slot) else {
                continue;
            };
            for (entity, place) in loads
                .iter_mut()
                .skip(slot * entities)
                .take(entities)
                .enumerate()
            {
                let values = rows.iter().filter_map(|(_, row)| row.get(entity));
                let (sum, count) = values
                    .filter(|value| value.is_finite())
                    .fold((0.0, 0.0), |(sum, count), value| {
                        (sum + f64::from(*value), count + 1.0)
                    });
                *place = (sum / count) as f32;
            }
        }
        Trace {
            start_us: first.saturating_mul(step_us),
            step_us,
            names,
            sizes: Vec::new(),
            loads,
        }
    }
}

/// A trace has at most so many slots: ten years of five minutes.
pub const SLOTS_MAX: i64 = 1_051_200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_slots() {
        let rows = vec![
            (25, vec![5.0, f32::NAN]),
            (0, vec![1.0, 2.0]),
            (9, vec![3.0, f32::INFINITY]),
        ];
        let trace = Trace::of(vec!["a".into(), "b".into()], rows, 10);
        assert_eq!(
            (trace.slots(), trace.load(0, 0), trace.load(0, 1)),
            (3, 2.0, 2.0)
        );
        assert!(trace.load(1, 0).is_nan() && trace.load(2, 1).is_nan());
        assert!(trace.load(3, 0).is_nan());
    }

    #[test]
    fn nothing_is_a_trace_too() {
        assert_eq!(Trace::of(Vec::new(), Vec::new(), 0).slots(), 0);
        let far = Trace::of(
            vec!["a".into()],
            vec![(i64::MIN, vec![1.0]), (i64::MAX, vec![1.0])],
            1,
        );
        assert_eq!(far.slots() as i64, SLOTS_MAX);
    }
}

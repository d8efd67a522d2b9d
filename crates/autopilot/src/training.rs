//! The windows that our own migrations changed, to be kept out of the training labels.
//!
//! A label says whether a partition saturated within the horizon. Where the autopilot moved
//! entities away in time it did not, and a model that learns from such labels learns that its
//! alarms never come true.

use crate::words::words;
use crate::{DAY_US, HOUR_US};
use serde::{Deserialize, Serialize};

words! {
    /// What happened to a partition.
    Change {
        /// A shadow was built, grown or taken away: copying and mirroring load it.
        Build => "build",
        /// Entities left it or came to it: a swap, a revert, a failover.
        Swap => "swap",
    }
}

/// One change, from the history of shadows. Those made by a person count as well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The partition whose load changed.
    pub unit: String,
    /// What happened.
    pub change: Change,
    /// When it began, in microseconds.
    pub from_us: i64,
    /// When it ended, in microseconds; the same for a swap.
    pub to_us: i64,
}

/// How far a change reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// A label looks so far ahead, in microseconds: samples this long before a change have a label
    /// that the change may have made.
    pub horizon_us: i64,
    /// For so long after a swap features such as yesterday's maximum still speak of the entities
    /// that left, in microseconds.
    pub settle_us: i64,
}

impl Default for Reach {
    /// The horizon of the trigger, 60 minutes; a day to settle.
    fn default() -> Self {
        Reach {
            horizon_us: HOUR_US,
            settle_us: DAY_US,
        }
    }
}

/// Samples of a unit taken from `from_us` up to and including `to_us` are no training data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The partition.
    pub unit: String,
    /// Begin, in microseconds.
    pub from_us: i64,
    /// End, in microseconds.
    pub to_us: i64,
}

/// The windows to exclude, by unit and time, overlapping ones as one.
pub fn excluded_windows(events: &[Event], reach: Reach) -> Vec<Window> {
    let mut windows: Vec<Window> = events
        .iter()
        .map(|event| {
            let end_us = event.from_us.max(event.to_us);
            let settle_us = match event.change {
                Change::Build => 0,
                Change::Swap => reach.settle_us.max(0),
            };
            Window {
                unit: event.unit.clone(),
                from_us: event.from_us.saturating_sub(reach.horizon_us.max(0)),
                to_us: end_us.saturating_add(settle_us),
            }
        })
        .collect();
    windows.sort_by(|a, b| (&a.unit, a.from_us, a.to_us).cmp(&(&b.unit, b.from_us, b.to_us)));
    let mut merged: Vec<Window> = Vec::new();
    for window in windows {
        match merged.last_mut() {
            Some(last) if last.unit == window.unit && last.to_us >= window.from_us => {
                last.to_us = last.to_us.max(window.to_us);
            }
            _ => merged.push(window),
        }
    }
    merged
}

/// Whether a sample of a unit at a time (microseconds) lies in a window to be excluded. The windows
/// are those of [`excluded_windows`]: sorted and without overlaps.
pub fn is_excluded(windows: &[Window], unit: &str, at_us: i64) -> bool {
    let after = windows.partition_point(|w| (w.unit.as_str(), w.from_us) <= (unit, at_us));
    after
        .checked_sub(1)
        .and_then(|i| windows.get(i))
        .is_some_and(|w| w.unit == unit && at_us <= w.to_us)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(unit: &str, change: Change, from_us: i64, to_us: i64) -> Event {
        Event {
            unit: unit.into(),
            change,
            from_us,
            to_us,
        }
    }

    #[test]
    fn a_swap_reaches_back_by_the_horizon_and_on_by_a_day() {
        let events = [event("p1", Change::Swap, 100 * HOUR_US, 100 * HOUR_US)];
        let windows = excluded_windows(&events, Reach::default());
        assert_eq!(windows.len(), 1);
        assert!(!is_excluded(&windows, "p1", 99 * HOUR_US - 1));
        assert!(is_excluded(&windows, "p1", 99 * HOUR_US));
        assert!(is_excluded(&windows, "p1", 124 * HOUR_US));
        assert!(!is_excluded(&windows, "p1", 124 * HOUR_US + 1));
        assert!(!is_excluded(&windows, "p2", 100 * HOUR_US));
    }

    proptest! {
        /// A sample is excluded exactly if it lies within the reach of an event.
        #[test]
        fn windows_are_the_union_of_the_events(
            raw in prop::collection::vec((0u8..3, any::<bool>(), 0i64..500, 0i64..50), 0..40),
            unit in 0u8..4, at_us in -100i64..800,
        ) {
            let reach = Reach { horizon_us: 10, settle_us: 20 };
            let events: Vec<Event> = raw.iter().map(|(u, swap, from, length)| {
                let change = if *swap { Change::Swap } else { Change::Build };
                event(&u.to_string(), change, *from, from + length)
            }).collect();
            let windows = excluded_windows(&events, reach);
            for pair in windows.windows(2) {
                prop_assert!(pair[0].unit < pair[1].unit || pair[0].to_us < pair[1].from_us);
            }
            let unit = unit.to_string();
            let expected = events.iter().any(|e| {
                let settle_us = if e.change == Change::Swap { 20 } else { 0 };
                e.unit == unit && at_us >= e.from_us - 10 && at_us <= e.to_us + settle_us
            });
            prop_assert_eq!(is_excluded(&windows, &unit, at_us), expected);
        }
    }
}

//! Stories of worker, resets and gaps, and properties of rolling up.

use super::*;
use proptest::prelude::*;

const MINUTE_US: i64 = 60_000_000;
const STRETCH_MAX_US: i64 = 2 * MINUTE_US;

fn sample(minute: i64, epoch: i64, values: [u64; 2]) -> Sample<2> {
    Sample {
        at_us: minute * MINUTE_US,
        epoch,
        values,
    }
}

fn delta_of(step: Step<2>) -> Delta<2> {
    match step {
        Step::Delta(delta) => delta,
        other => panic!("no delta: {other:?}"),
    }
}

#[test]
fn counters_that_grow_make_deltas() {
    let before = sample(1, 0, [10, 100]);
    let after = sample(2, 0, [15, 100]);
    let delta = delta_of(step(Some(&before), &after, STRETCH_MAX_US));
    assert_eq!((delta.values, delta.reset), ([5, 0], false));
    assert_eq!((delta.from_us, delta.to_us), (MINUTE_US, 2 * MINUTE_US));
}

/// The second counter has passed its old value since the reset, but the first shows that there was
/// one: both count from zero.
#[test]
fn one_counter_that_fell_shows_a_reset_of_all() {
    let before = sample(1, 0, [10, 100]);
    let delta = delta_of(step(Some(&before), &sample(2, 0, [3, 120]), STRETCH_MAX_US));
    assert_eq!((delta.values, delta.reset), ([3, 120], true));
    assert_eq!(growth(10, 3), (3, true));
    assert_eq!(growth(10, 10), (0, false));
}

#[test]
fn another_epoch_is_a_reset_though_all_counters_grew() {
    let before = sample(1, 0, [10, 100]);
    let delta = delta_of(step(
        Some(&before),
        &sample(2, 7, [11, 101]),
        STRETCH_MAX_US,
    ));
    assert_eq!((delta.values, delta.reset), ([11, 101], true));
}

#[test]
fn missing_samples_are_missing() {
    let before = sample(1, 0, [10, 100]);
    assert_eq!(step(None, &before, STRETCH_MAX_US), Step::Missing);
    assert_eq!(step(Some(&before), &before, STRETCH_MAX_US), Step::Missing);
    let earlier = sample(0, 0, [10, 100]);
    assert_eq!(step(Some(&before), &earlier, STRETCH_MAX_US), Step::Missing);
    let late = step(Some(&before), &sample(5, 0, [50, 100]), STRETCH_MAX_US);
    assert!(matches!(late, Step::Gap(delta) if delta.values == [40, 0]));
}

/// Three of five minutes were measured, and the next bucket was not at all.
#[test]
fn a_bucket_knows_what_it_covers() {
    let delta = |minute: i64| Delta {
        from_us: minute * MINUTE_US,
        to_us: (minute + 1) * MINUTE_US,
        values: [60],
        reset: minute == 2,
    };
    let deltas = [delta(0), delta(1), delta(2), delta(10)];
    let buckets = roll_up(&deltas, 5 * MINUTE_US, 0, 15 * MINUTE_US);
    assert_eq!(
        buckets,
        [
            Bucket {
                start_us: 0,
                covered_us: 3 * MINUTE_US,
                values: [180],
                reset: true,
            },
            Bucket {
                start_us: 10 * MINUTE_US,
                covered_us: MINUTE_US,
                values: [60],
                reset: false,
            },
        ]
    );
}

/// Samples half past each minute: the delta across the boundary is shared out.
#[test]
fn a_delta_across_a_boundary_is_shared() {
    let delta = Delta {
        from_us: 4 * MINUTE_US + 45_000_000,
        to_us: 5 * MINUTE_US + 45_000_000,
        values: [101, 3],
        reset: false,
    };
    let buckets = roll_up([&delta], 5 * MINUTE_US, 0, 10 * MINUTE_US);
    assert_eq!(buckets[0].values, [25, 0]);
    assert_eq!(buckets[1].values, [76, 3]);
    // A bucket that is not over yet is left out.
    assert_eq!(roll_up([&delta], 5 * MINUTE_US, 0, 9 * MINUTE_US).len(), 1);
}

#[test]
fn rows_are_bounded() {
    let days = |n: i64| n * 24 * HOUR_US;
    assert_eq!(Level::Minute.rows_max(days(90)), 2881);
    assert_eq!(Level::FiveMinutes.rows_max(days(90)), 4033);
    assert_eq!(Level::Hour.rows_max(days(90)), 2161);
    assert_eq!(Level::Minute.rows_max(days(1)), 1441);
    for level in Level::ALL {
        assert_eq!(level.rows_max(0), 1);
        assert_eq!(level.rows_max(-5), 1);
        assert!(level.rows_max(i64::MAX) > 0);
        level.cutoff_us(i64::MAX, i64::MIN);
    }
}

proptest! {
    /// Whatever the samples' times: nothing is lost or counted twice, and no bucket claims to cover
    /// more than there was.
    #[test]
    fn rolling_up_conserves(
        start_us in -500_000_000i64..500_000_000,
        stretches in prop::collection::vec((1i64..200_000_000, 0u64..u64::MAX >> 8, any::<bool>()), 0..40),
        width_us in 1_000_000i64..400_000_000,
    ) {
        let mut deltas = Vec::new();
        let (mut at_us, mut sum, mut covered_us) = (start_us, 0, 0);
        for (stretch_us, value, missing) in stretches {
            if !missing {
                deltas.push(Delta { from_us: at_us, to_us: at_us + stretch_us, values: [value], reset: false });
                sum += value;
                covered_us += stretch_us;
            }
            at_us += stretch_us;
        }
        let from_us = bucket_start(start_us, width_us);
        let until_us = bucket_start(at_us, width_us) + width_us;
        let buckets = roll_up(&deltas, width_us, from_us, until_us);
        prop_assert_eq!(buckets.iter().map(|b| b.values[0]).sum::<u64>(), sum);
        prop_assert_eq!(buckets.iter().map(|b| b.covered_us).sum::<i64>(), covered_us);
        prop_assert!(buckets.iter().all(|b| 0 < b.covered_us && b.covered_us <= width_us));
        prop_assert!(buckets.iter().all(|b| b.start_us.rem_euclid(width_us) == 0));
        prop_assert!(buckets.windows(2).all(|b| b[0].start_us < b[1].start_us));

        // In two goes, as the worker does it, the rows are the same.
        let middle_us = bucket_start((from_us + until_us) / 2, width_us);
        let mut halves = roll_up(&deltas, width_us, from_us, middle_us);
        halves.extend(roll_up(&deltas, width_us, middle_us, until_us));
        prop_assert_eq!(halves, buckets);
    }

    #[test]
    fn nothing_panics(
        times in prop::collection::vec((any::<i64>(), any::<i64>()), 0..5),
        shift in 58u32..64, from_us: i64, until_us: i64, value: u64,
    ) {
        let deltas: Vec<_> = times
            .iter()
            .map(|(from_us, to_us)| Delta { from_us: *from_us, to_us: *to_us, values: [value], reset: true })
            .collect();
        // Wide buckets, that there be few of them.
        roll_up(&deltas, 1i64.checked_shl(shift).unwrap_or(i64::MAX).max(1 << 58), from_us, until_us);
        let width_us = value as i64;
        bucket_start(from_us, width_us);
    }
}

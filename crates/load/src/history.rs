//! From cumulative counters to a bounded history.
//!
//! A worker takes a [`Sample`] of each series every minute. [`step`] makes a [`Delta`] of two
//! samples, [`roll_up`] makes [`Bucket`]s of deltas, and a [`Level`] says how long its rows are
//! kept. What was not measured is missing, never zero: a bucket knows how much of its time is
//! covered, and one without any is not there.

/// The present values of the counters of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample<const MEASURES: usize> {
    /// When they were read, in microseconds.
    pub at_us: i64,
    /// Since when they count, in microseconds (or anything else that changes when they begin anew):
    /// shows a reset after which a counter has passed its old value already.
    pub epoch: i64,
    /// Their values, each of which only grows between resets.
    pub values: [u64; MEASURES],
}

/// What was counted between two samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delta<const MEASURES: usize> {
    /// When the stretch begins, in microseconds.
    pub from_us: i64,
    /// When it ends, in microseconds; later than it begins.
    pub to_us: i64,
    /// How much each counter grew: at least so much, if there was a reset.
    pub values: [u64; MEASURES],
    /// The counters were reset within the stretch. What they counted before that is not known.
    pub reset: bool,
}

/// What two consecutive samples make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<const MEASURES: usize> {
    /// Nothing: there is no sample before, or it is not earlier (the clock was set back).
    Missing,
    /// A delta over so long a stretch that samples are missing in between. It is known how much
    /// but not when: no row of the history should claim to know.
    Gap(Delta<MEASURES>),
    /// A delta.
    Delta(Delta<MEASURES>),
}

/// How much a single counter grew, and whether it was reset: one that is smaller than before began
/// again at zero.
pub fn growth(before: u64, after: u64) -> (u64, bool) {
    match after.checked_sub(before) {
        Some(grown) => (grown, false),
        None => (after, true),
    }
}

/// What lies between two samples of a series. Stretches longer than this (microseconds) are gaps.
///
/// The counters of a series are reset together: if one shows it, all began again at zero.
pub fn step<const MEASURES: usize>(
    before: Option<&Sample<MEASURES>>,
    after: &Sample<MEASURES>,
    stretch_max_us: i64,
) -> Step<MEASURES> {
    let Some(before) = before.filter(|before| before.at_us < after.at_us) else {
        return Step::Missing;
    };
    let pairs = || before.values.iter().zip(&after.values);
    let reset = before.epoch != after.epoch || pairs().any(|(old, new)| growth(*old, *new).1);
    let mut values = after.values;
    if !reset {
        for (value, (old, new)) in values.iter_mut().zip(pairs()) {
            *value = new.saturating_sub(*old);
        }
    }
    let delta = Delta {
        from_us: before.at_us,
        to_us: after.at_us,
        values,
        reset,
    };
    if after.at_us.saturating_sub(before.at_us) > stretch_max_us {
        Step::Gap(delta)
    } else {
        Step::Delta(delta)
    }
}

/// A row of the history: what was counted within a fixed stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket<const MEASURES: usize> {
    /// When it begins, in microseconds: a multiple of its width.
    pub start_us: i64,
    /// For how much of its width there are deltas, in microseconds. Rates are values divided by this;
    /// the rest is missing.
    pub covered_us: i64,
    /// The sums of the deltas' shares.
    pub values: [u64; MEASURES],
    /// Counters were reset in it: values are lower bounds.
    pub reset: bool,
}

/// The beginning of the bucket of this width (microseconds) that a time lies in.
pub fn bucket_start(at_us: i64, width_us: i64) -> i64 {
    let width_us = width_us.max(1);
    at_us.saturating_sub(at_us.rem_euclid(width_us))
}

/// Makes buckets of this width of deltas of one series, in order of time.
///
/// A delta across a boundary is shared out in proportion to time, to the last unit. Buckets that
/// begin before `from_us` or end after `until_us` are left out: they are not complete, or done
/// already. Deltas must not overlap and must be in order of time; where they are not, the part that
/// was covered before is skipped.
pub fn roll_up<'a, const MEASURES: usize>(
    deltas: impl IntoIterator<Item = &'a Delta<MEASURES>>,
    width_us: i64,
    from_us: i64,
    until_us: i64,
) -> Vec<Bucket<MEASURES>> {
    let width_us = width_us.max(1);
    let mut buckets: Vec<Bucket<MEASURES>> = Vec::new();
    let mut covered_to_us = from_us;
    for delta in deltas {
        let end_us = delta.to_us.min(until_us);
        let mut part_us = delta.from_us.max(covered_to_us);
        while part_us < end_us {
            let start_us = bucket_start(part_us, width_us);
            let next_us = start_us.saturating_add(width_us);
            let to_us = next_us.min(end_us);
            if from_us <= start_us && next_us <= until_us {
                add_part(&mut buckets, start_us, delta, part_us, to_us);
            }
            if to_us <= part_us {
                break;
            }
            part_us = to_us;
        }
        covered_to_us = covered_to_us.max(end_us);
    }
    buckets
}

/// Adds the share of a delta between two times within it to the bucket that begins at a time.
fn add_part<const MEASURES: usize>(
    buckets: &mut Vec<Bucket<MEASURES>>,
    start_us: i64,
    delta: &Delta<MEASURES>,
    part_us: i64,
    to_us: i64,
) {
    if buckets.last().is_none_or(|last| last.start_us != start_us) {
        buckets.push(Bucket {
            start_us,
            covered_us: 0,
            values: [0; MEASURES],
            reset: false,
        });
    }
    let Some(bucket) = buckets.last_mut() else {
        return;
    };
    bucket.covered_us = bucket
        .covered_us
        .saturating_add(to_us.saturating_sub(part_us));
    bucket.reset |= delta.reset;
    for (sum, value) in bucket.values.iter_mut().zip(&delta.values) {
        let share = share_until(*value, delta, to_us) - share_until(*value, delta, part_us);
        *sum = sum.saturating_add(share);
    }
}

/// How much of a value had been counted at a time within the delta, at an even pace. Rounded down;
/// does not fall with time, so differences are not negative and add up to the value.
fn share_until<const MEASURES: usize>(value: u64, delta: &Delta<MEASURES>, at_us: i64) -> u64 {
    let passed = delta
        .from_us
        .abs_diff(at_us.clamp(delta.from_us, delta.to_us.max(delta.from_us)));
    let length = delta.from_us.abs_diff(delta.to_us).max(1);
    let share = u128::from(value) * u128::from(passed) / u128::from(length);
    u64::try_from(share).unwrap_or(value).min(value)
}

/// The levels of the history, each made of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// Deltas as they are sampled, about one a minute.
    Minute,
    /// Buckets of five minutes.
    FiveMinutes,
    /// Buckets of an hour.
    Hour,
}

const HOUR_US: i64 = 3_600_000_000;

impl Level {
    /// Every level, the finest first.
    pub const ALL: [Level; 3] = [Level::Minute, Level::FiveMinutes, Level::Hour];

    /// The width of a row, in microseconds.
    pub const fn width_us(self) -> i64 {
        match self {
            Level::Minute => 60_000_000,
            Level::FiveMinutes => 300_000_000,
            Level::Hour => HOUR_US,
        }
    }

    /// How long rows are kept when the history goes back this far (both in microseconds): minutes
    /// for two days, which shows yesterday at the same time; five minutes for two weeks, which shows
    /// the same day a week ago; hours for all of it.
    pub fn kept_us(self, retention_us: i64) -> i64 {
        let kept_max_us = match self {
            Level::Minute => 48 * HOUR_US,
            Level::FiveMinutes => 14 * 24 * HOUR_US,
            Level::Hour => i64::MAX,
        };
        retention_us.clamp(0, kept_max_us)
    }

    /// How many rows of a series there are at most, for a history that goes back this far
    /// (microseconds), once those that end at or before [`cutoff_us`](Self::cutoff_us) are deleted.
    /// For minutes this needs samples no closer than a minute.
    pub fn rows_max(self, retention_us: i64) -> u64 {
        let kept_us = self.kept_us(retention_us).unsigned_abs();
        // One more, that reaches across the cutoff.
        kept_us.div_ceil(self.width_us().unsigned_abs()) + 1
    }

    /// Rows that end at or before this time (microseconds) are to be deleted now.
    pub fn cutoff_us(self, retention_us: i64, now_us: i64) -> i64 {
        now_us.saturating_sub(self.kept_us(retention_us))
    }
}

#[cfg(test)]
mod tests;

//! Features of a unit, for the trigger.
//!
//! Loads are relative to the capacity: `r = ln(1 + 8 load / capacity) / ln 9` is 0 without load and 1
//! at the capacity, which keeps a burst of a hundred times the capacity within sight of the linear
//! model. A "window" is the stretch of the day that the horizon covers; the load in a window is the
//! largest averaged load in it.

use crate::calendar::Calendar;
use crate::store::View;

/// How many features there are.
pub const COUNT: usize = 40;

/// What they are called.
pub const NAMES: [&str; COUNT] = [
    "load",
    "load 5 min ago",
    "load 15 min ago",
    "newest slot",
    "mean 1 h",
    "mean 6 h",
    "mean 24 h",
    "maximum 1 h",
    "maximum 6 h",
    "maximum 24 h",
    "maximum 7 days",
    "deviation 1 h",
    "deviation 24 h",
    "slope 15 min",
    "slope 1 h",
    "slope 6 h",
    "window yesterday",
    "window last week",
    "window mean of 7 days",
    "window maximum of 7 days",
    "window second of 7 days",
    "window exceeded, share of 7 days",
    "window exceeded yesterday",
    "hour before window, share of 7 days",
    "hour after window, share of 7 days",
    "exceeded, share of 24 h",
    "exceeded, share of 7 days",
    "load against the same time",
    "hours since exceeded",
    "sine of the day",
    "cosine of the day",
    "share of the largest entity",
    "share of the three largest",
    "window 2 hours before",
    "window 3 hours before",
    "window 4 hours before",
    "window 6 hours before",
    "window 8 hours before",
    "window 12 hours before",
    "window 2 days before",
];

/// A row of features.
pub type Features = [f32; COUNT];

/// How a unit's load is averaged and looked ahead at, in slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spans {
    /// The grid.
    pub calendar: Calendar,
    /// Averaged over so many slots.
    pub smooth: i64,
    /// The horizon.
    pub horizon: i64,
}

/// A load relative to a capacity (see the module).
pub fn relative(load: f64, capacity: f64) -> f32 {
    ((8.0 * load / capacity).ln_1p() / 9.0_f64.ln()) as f32
}

/// The load that [`relative`] makes this number of.
pub fn absolute(relative: f64, capacity: f64) -> f64 {
    (relative * 9.0_f64.ln()).exp_m1() / 8.0 * capacity
}

/// A unit's series.
#[derive(Clone, Copy, Debug)]
pub struct Loads<'a> {
    /// The load in each slot.
    pub raw: View<'a>,
    /// In each slot the mean of that slot and those before it, as many as are averaged.
    pub averaged: View<'a>,
}

/// Describes a unit as of its newest slot. None if it has no load in the slots that are averaged.
/// `shares` are those of its largest entity and of its three largest.
pub fn describe(
    loads: &Loads,
    capacity: f64,
    spans: &Spans,
    shares: Option<(f64, f64)>,
) -> Option<Features> {
    let Loads { raw, averaged } = loads;
    let minutes = |minutes| spans.calendar.slots(minutes);
    let day = i64::from(spans.calendar.slots_per_day());
    let (hour, hours6) = (minutes(60), minutes(360));
    let r = |load: f64| relative(load, capacity);
    let or_nan = |load: Option<f64>| load.map_or(f32::NAN, r);
    let load = |lag: i64| Some(f64::from(averaged.lag(lag))).filter(|load| !load.is_nan());
    let now = load(0)?;

    let exceeded = Exceeded::of(averaged, capacity, day, hour);
    let days = Days::of(averaged, capacity, spans, 0);
    let before = Days::of(averaged, capacity, spans, -spans.horizon);
    let after = Days::of(averaged, capacity, spans, spans.horizon);
    let angle = std::f64::consts::TAU * spans.calendar.day_fraction(raw.newest());
    let slope = |slots: i64| {
        let before = raw.mean(slots, slots.max(spans.smooth));
        before.map_or(f32::NAN, |before| r(now) - r(before))
    };
    let same_time: Vec<f64> = (1..=7).filter_map(|d| load(d * day)).collect();
    let same_time_mean = same_time.iter().sum::<f64>() / same_time.len() as f64;
    // What runs every so many hours.
    let period = |hours: i64| or_nan(peak(averaged, hours * hour - spans.horizon, spans.horizon));
    let (top1, top3) = shares.map_or((f32::NAN, f32::NAN), |(a, b)| (a as f32, b as f32));
    Some([
        r(now),
        or_nan(load(1)),
        or_nan(load(spans.smooth)),
        r(f64::from(raw.lag(0))),
        or_nan(raw.mean(0, hour)),
        or_nan(raw.mean(0, hours6)),
        or_nan(raw.mean(0, day)),
        or_nan(peak(averaged, 0, hour)),
        or_nan(peak(averaged, 0, hours6)),
        or_nan(peak(averaged, 0, day)),
        or_nan(peak(averaged, 0, 7 * day)),
        or_nan(raw.summary(0, hour).deviation()),
        or_nan(raw.summary(0, day).deviation()),
        slope(spans.smooth),
        slope(hour),
        slope(hours6),
        or_nan(days.yesterday),
        or_nan(days.last_week),
        or_nan(days.mean),
        or_nan(days.first),
        or_nan(days.second),
        days.exceeded,
        days.yesterday
            .map_or(f32::NAN, |load| if load >= capacity { 1.0 } else { 0.0 }),
        before.exceeded,
        after.exceeded,
        exceeded.share_day,
        exceeded.share_week,
        r(now) - r(same_time_mean),
        exceeded.hours_since,
        angle.sin() as f32,
        angle.cos() as f32,
        top1,
        top3,
        period(2),
        period(3),
        period(4),
        period(6),
        period(8),
        period(12),
        period(48),
    ])
}

/// The largest load in the `slots` slots that end `lag` slots ago, if any was measured. What lies
/// in the future is left out.
fn peak(averaged: &View, lag: i64, slots: i64) -> Option<f64> {
    let summary = averaged.summary(lag, slots);
    (summary.count > 0).then_some(summary.max)
}

/// The window of the horizon on the seven days before.
struct Days {
    yesterday: Option<f64>,
    last_week: Option<f64>,
    mean: Option<f64>,
    first: Option<f64>,
    second: Option<f64>,
    exceeded: f32,
}

impl Days {
    /// The window, shifted by so many slots into the future.
    fn of(averaged: &View, capacity: f64, spans: &Spans, shift: i64) -> Days {
        let day = i64::from(spans.calendar.slots_per_day());
        let peak = |d: i64| peak(averaged, d * day - spans.horizon - shift, spans.horizon);
        let peaks: Vec<Option<f64>> = (1..=7).map(peak).collect();
        let mut known: Vec<f64> = peaks.iter().flatten().copied().collect();
        known.sort_unstable_by(|a, b| b.total_cmp(a));
        let count = known.len() as f64;
        let over = known.iter().filter(|peak| **peak >= capacity).count() as f64;
        Days {
            yesterday: peaks.first().copied().flatten(),
            last_week: peaks.last().copied().flatten(),
            mean: (count > 0.0).then(|| known.iter().sum::<f64>() / count),
            first: known.first().copied(),
            second: known.get(1).copied(),
            exceeded: (over / count) as f32,
        }
    }
}

/// How much of the last day and week the unit was over its capacity, and how long ago.
struct Exceeded {
    share_day: f32,
    share_week: f32,
    /// ln(1 + hours).
    hours_since: f32,
}

impl Exceeded {
    fn of(averaged: &View, capacity: f64, day: i64, hour: i64) -> Exceeded {
        let over = |slots: i64| {
            let (first, second) = averaged.window(0, slots);
            let (mut count, mut over, mut newest) = (0_u32, 0_u32, None);
            for (number, load) in first.iter().chain(second).enumerate() {
                count += u32::from(!load.is_nan());
                if f64::from(*load) >= capacity {
                    over += 1;
                    newest = Some(number);
                }
            }
            let length = first.len() + second.len();
            let since = newest.map(|newest| (length - 1 - newest) as f64);
            (over as f32 / count as f32, since)
        };
        let (share_day, _) = over(day);
        let (share_week, since) = over(7 * day);
        Exceeded {
            share_day,
            share_week,
            hours_since: since.map_or(f32::NAN, |slots| (slots / hour as f64).ln_1p() as f32),
        }
    }
}

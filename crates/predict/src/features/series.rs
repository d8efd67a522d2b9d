//! Features of one series, for its forecast.
//!
//! Loads become `z(v) = ln(1 + v / (FLOOR * scale)) - ln(1 + 1 / FLOOR)`, where the scale is the
//! mean of the last 24 hours: zero at the scale itself, logarithmic above, about linear below a
//! floor, and the same whatever a load is measured in.

use crate::calendar::Calendar;
use crate::store::View;

/// Below this share of the scale differences count linearly.
const FLOOR: f64 = 0.1;

/// Lags that are features themselves, in slots of five minutes: the last half hour; and for each
/// horizon the same minute an hour or two before the target, for what runs every hour.
const LAGS: [u32; 10] = [0, 1, 2, 3, 5, 9, 11, 12, 21, 23];

/// How many features there are.
pub const COUNT: usize = 40;

/// A row of features, with what turns its forecasts back into loads.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// The features.
    pub features: [f32; COUNT],
    /// The mean of 24 hours.
    pub scale: f64,
    /// The last load: the newest, or the mean of the last three slots if that is missing.
    pub last: f64,
}

/// A load relative to a scale (see the module).
pub fn relative(load: f64, scale: f64) -> f64 {
    (load / (FLOOR * scale)).ln_1p() - (1.0 / FLOOR).ln_1p()
}

/// The load that [`relative`] makes this number of.
pub fn absolute(relative: f64, scale: f64) -> f64 {
    FLOOR * scale * (relative + (1.0 / FLOOR).ln_1p()).exp_m1()
}

/// Describes a series as of its newest slot. None if it has no load in the last three slots, or
/// only zeros in 24 hours: the forecast is then what was last.
pub fn describe(view: &View, calendar: &Calendar) -> Option<Described> {
    let minutes = |minutes| calendar.slots(minutes);
    let day = i64::from(calendar.slots_per_day());
    let newest = f64::from(view.lag(0));
    let last = if newest.is_nan() {
        view.mean(0, 3)?
    } else {
        newest
    };
    let whole = view.summary(0, day);
    let scale = whole.mean().filter(|mean| *mean > f64::MIN_POSITIVE)?;
    let (inverse, offset) = ((1.0 / (FLOOR * scale)) as f32, (1.0 / FLOOR).ln_1p() as f32);
    // As `relative`, in four bytes: this is called fifty times a forecast.
    let z = |load: f64| (1.0 + load as f32 * inverse).ln() - offset;
    let or_nan = |load: Option<f64>| load.map_or(f32::NAN, z);

    let mut features = Fill::new();
    for lag in LAGS {
        features.push(z(f64::from(
            view.lag(minutes(5 * lag.max(1)) * i64::from(lag > 0)),
        )));
    }
    let (hour, hours6) = (view.summary(0, minutes(60)), view.summary(0, minutes(360)));
    features.push(or_nan(view.mean(0, minutes(15))));
    features.push(or_nan(hour.mean()));
    features.push(or_nan(hours6.mean()));
    features.push(or_nan(hour.deviation()));
    features.push(or_nan(whole.deviation()));
    for summary in [&hour, &hours6, &whole] {
        features.push(or_nan((summary.count > 0).then_some(summary.max)));
    }
    features.push(or_nan(low(view, minutes(60))));

    let mut same_time = None;
    for horizon in calendar.horizons() {
        let mut days = [f64::NAN; 7];
        for (number, value) in days.iter_mut().enumerate() {
            let lag = (number as i64 + 1) * day - horizon;
            *value = view.mean(lag - 1, 3).unwrap_or(f64::NAN);
        }
        features.push(days.first().copied().map_or(f32::NAN, z));
        features.push(days.last().copied().map_or(f32::NAN, z));
        let mean = mean(&days);
        features.push(or_nan(mean));
        features.push(or_nan(median(&mut days)));
        same_time = same_time.or(mean);
    }
    features.push(match (same_time, view.mean(0, minutes(30))) {
        (Some(same_time), Some(now)) => z(now) - z(same_time),
        _ => f32::NAN,
    });
    for (slots, new) in [(minutes(60), &hour), (minutes(360), &hours6), (day, &whole)] {
        let change = new.mean().zip(view.mean(slots, slots));
        features.push(change.map_or(f32::NAN, |(new, old)| z(new) - z(old)));
    }
    features.push(quiet(view, day, scale, whole.count));
    features.push(quiet(view, minutes(60), scale, hour.count));
    features.push(z(f64::from(view.lag(0))) - z(f64::from(view.lag(1))));
    let angle = std::f64::consts::TAU * calendar.day_fraction(view.newest());
    features.push(angle.sin() as f32);
    features.push(angle.cos() as f32);
    Some(Described {
        features: features.values,
        scale,
        last,
    })
}

/// Fills a row from the left.
struct Fill {
    values: [f32; COUNT],
    next: usize,
}

impl Fill {
    fn new() -> Fill {
        Fill {
            values: [f32::NAN; COUNT],
            next: 0,
        }
    }

    fn push(&mut self, value: f32) {
        if let Some(place) = self.values.get_mut(self.next) {
            *place = value;
        }
        self.next += 1;
    }
}

/// The smallest load of the newest slots.
fn low(view: &View, slots: i64) -> Option<f64> {
    let (first, second) = view.window(0, slots);
    let values = first.iter().chain(second).filter(|value| !value.is_nan());
    values.copied().reduce(f32::min).map(f64::from)
}

/// The share of the newest slots with less than a tenth of the scale.
fn quiet(view: &View, slots: i64, scale: f64, known: u32) -> f32 {
    let (first, second) = view.window(0, slots);
    let limit = (FLOOR * scale) as f32;
    let below = |values: &[f32]| {
        values
            .iter()
            .map(|value| u32::from(*value < limit))
            .sum::<u32>()
    };
    (below(first) + below(second)) as f32 / known as f32
}

/// The mean of the numbers among these.
fn mean(values: &[f64]) -> Option<f64> {
    let numbers = || values.iter().filter(|value| !value.is_nan());
    let count = numbers().count();
    (count > 0).then(|| numbers().sum::<f64>() / count as f64)
}

/// The median of the numbers among these: the mean of the two in the middle.
fn median(values: &mut [f64]) -> Option<f64> {
    // Numbers that are not are sorted to the end: all loads are positive.
    values.sort_unstable_by(f64::total_cmp);
    let count = values.iter().filter(|value| !value.is_nan()).count();
    let upper = values.get(count / 2)?;
    let lower = values.get(count.checked_sub(1)? / 2)?;
    Some((lower + upper) / 2.0)
}

//! Sizes that grow slowly: a straight line through the past, with the range of its error.
//!
//! Bytes on disk do not follow the time of day. Where they will be tomorrow is where they are plus
//! what they grow by, and a least-squares line says that well enough.

use crate::forecast::Interval;

/// The 90th percentile of the standard normal distribution.
const NORMAL_90: f64 = 1.281_551_6;

/// A size and how fast it grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    /// What the line says of the newest point.
    pub now: f64,
    /// Growth per second.
    pub per_second: f64,
    /// The standard deviation of the points around the line.
    pub deviation: f64,
    /// The time of the newest point, in microseconds.
    newest_us: i64,
    /// The mean of the points' times, in seconds before the newest.
    mean_s: f64,
    /// The sum of the squared distances of the times from their mean, in square seconds.
    spread_s2: f64,
    /// How many points there were.
    count: f64,
}

impl Growth {
    /// The line through points (time in microseconds, size). None without two finite points at
    /// different times.
    pub fn of(points: &[(i64, f64)]) -> Option<Growth> {
        let finite = || points.iter().filter(|(_, size)| size.is_finite());
        let newest_us = finite().map(|(at_us, _)| *at_us).max()?;
        let seconds = |at_us: i64| (i128::from(at_us) - i128::from(newest_us)) as f64 / 1e6;
        let count = finite().count() as f64;
        let mean_s = finite().map(|(at_us, _)| seconds(*at_us)).sum::<f64>() / count;
        let mean = finite().map(|(_, size)| size / count).sum::<f64>();
        let (mut spread_s2, mut product) = (0.0, 0.0);
        for (at_us, size) in finite() {
            let distance = seconds(*at_us) - mean_s;
            spread_s2 += distance * distance;
            product += distance * (size - mean);
        }
        let per_second = product / spread_s2;
        if spread_s2 <= 0.0 || !per_second.is_finite() {
            return None;
        }
        let line = |at_us: i64| mean + per_second * (seconds(at_us) - mean_s);
        let errors = finite()
            .map(|(at_us, size)| (size - line(*at_us)).powi(2))
            .sum::<f64>();
        Some(Growth {
            now: line(newest_us),
            per_second,
            deviation: (errors / (count - 2.0).max(1.0)).sqrt(),
            newest_us,
            mean_s,
            spread_s2,
            count,
        })
    }

    /// The size at a time (microseconds), not below zero. The range is that of a new point around
    /// the line, errors taken as normal; it widens with the distance from the past.
    pub fn at(&self, at_us: i64) -> Interval {
        let ahead_s = (i128::from(at_us) - i128::from(self.newest_us)) as f64 / 1e6;
        let mid = self.now + self.per_second * ahead_s;
        let distance = ahead_s - self.mean_s;
        let scale = 1.0 + 1.0 / self.count + distance * distance / self.spread_s2;
        let half = NORMAL_90 * self.deviation * scale.sqrt();
        Interval {
            low: (mid - half).max(0.0),
            mid: mid.max(0.0),
            high: (mid + half).max(0.0),
        }
    }

    /// In how many seconds after the newest point the size reaches a limit: zero if it has, none if
    /// it does not grow towards it.
    pub fn seconds_until(&self, limit: f64) -> Option<f64> {
        if self.now >= limit {
            return Some(0.0);
        }
        let seconds = (limit - self.now) / self.per_second;
        (self.per_second > 0.0 && seconds.is_finite()).then_some(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_continued() {
        let points: Vec<(i64, f64)> = (0..10).map(|i| (i * 1_000_000, 5.0 * i as f64)).collect();
        let growth = Growth::of(&points).unwrap();
        assert!((growth.per_second - 5.0).abs() < 1e-9);
        assert!((growth.at(19_000_000).mid - 95.0).abs() < 1e-9);
        assert!((growth.seconds_until(95.0).unwrap() - 10.0).abs() < 1e-9);
        assert_eq!(growth.seconds_until(1.0), Some(0.0));
    }

    #[test]
    fn noise_widens_the_range() {
        let points: Vec<(i64, f64)> = (0..10)
            .map(|i| (i * 1_000_000, 100.0 + f64::from(i as i32 % 2)))
            .collect();
        let growth = Growth::of(&points).unwrap();
        let (near, far) = (growth.at(10_000_000), growth.at(100_000_000));
        assert!(near.high > near.mid && far.high - far.low > near.high - near.low);
    }

    #[test]
    fn there_is_no_line_through_nothing() {
        assert_eq!(Growth::of(&[]), None);
        assert_eq!(Growth::of(&[(5, 1.0)]), None);
        assert_eq!(Growth::of(&[(5, 1.0), (5, 2.0), (6, f64::NAN)]), None);
        assert_eq!(
            Growth::of(&[(i64::MIN, f64::MAX), (i64::MAX, -f64::MAX)]),
            None
        );
    }
}

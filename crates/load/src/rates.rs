//! Counters that know their recent rate.
//!
//! A [`Rates`] holds, for each of `MEASURES` measures, the exact total and three exponentially
//! decayed sums: an event of age `a` counts as `exp(-a / window)`. It is the same average as
//! UNIX's load figures use, and the same as exponential forward decay (Cormode, Shkapenyuk,
//! Srivastava, Xu: *Forward Decay*, ICDE 2009, section III.A: for the exponential the two agree).
//! A steady stream of `r` events per second makes the sum `r * window * (1 - exp(-life / window))`,
//! so the rate is the sum divided by that much time, and right from the first seconds on.
//!
//! Decay is lazy: one time stamp for all, moved when the next event comes [`STEP_US`] or more
//! after it. Events within a step count as if they had come at its start, which makes a rate too
//! low by at most `STEP_US / window` of itself: 0.083% for the shortest window.

use crate::clock::DISORDER_US;

/// How far events may be apart and still share a time stamp, in microseconds.
pub const STEP_US: i64 = 50_000;

/// A life shorter than this counts as this long, in microseconds: one event does not make a
/// million per second.
pub const LIFE_MIN_US: i64 = 1_000_000;

/// How many windows there are.
pub const WINDOWS: usize = 3;

/// The stretch of time a rate looks back over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// One minute.
    Minute,
    /// Five minutes.
    FiveMinutes,
    /// One hour.
    Hour,
}

impl Window {
    /// Every window, the shortest first.
    pub const ALL: [Window; WINDOWS] = [Window::Minute, Window::FiveMinutes, Window::Hour];

    /// The time constant of the decay, in microseconds.
    pub const fn length_us(self) -> i64 {
        match self {
            Window::Minute => 60_000_000,
            Window::FiveMinutes => 300_000_000,
            Window::Hour => 3_600_000_000,
        }
    }
}

/// What is left of a weight after this time (microseconds; none if negative).
pub(crate) fn decay(time_us: i64, length_us: i64) -> f64 {
    (-(time_us.max(0) as f64) / length_us.max(1) as f64).exp()
}

/// Totals and decayed sums of `MEASURES` measures. Plain data without pointers or padding; all
/// zeros is a valid value.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates<const MEASURES: usize> {
    since_us: i64,
    at_us: i64,
    decayed: [[f64; MEASURES]; WINDOWS],
    totals: [u64; MEASURES],
}

impl<const MEASURES: usize> Rates<MEASURES> {
    /// Nothing counted yet; the life begins now (microseconds).
    pub fn new(now_us: i64) -> Self {
        Rates {
            since_us: now_us,
            at_us: now_us,
            decayed: [[0.0; MEASURES]; WINDOWS],
            totals: [0; MEASURES],
        }
    }

    /// Counts an event that has just happened (microseconds): so much of each measure, in the
    /// measure's own unit, already multiplied by the sampling weight.
    #[inline]
    pub fn add(&mut self, amounts: &[u64; MEASURES], now_us: i64) {
        self.settle(now_us);
        for (total, amount) in self.totals.iter_mut().zip(amounts) {
            *total = total.saturating_add(*amount);
        }
        for sums in &mut self.decayed {
            for (sum, amount) in sums.iter_mut().zip(amounts) {
                *sum += *amount as f64;
            }
        }
    }

    /// Adds everything that another has counted, as of now (microseconds).
    pub fn merge(&mut self, other: &Self, now_us: i64) {
        self.settle(now_us);
        let age_us = self.at_us.saturating_sub(other.at_us);
        for (total, more) in self.totals.iter_mut().zip(&other.totals) {
            *total = total.saturating_add(*more);
        }
        for ((sums, more), window) in self.decayed.iter_mut().zip(&other.decayed).zip(Window::ALL) {
            let factor = decay(age_us, window.length_us());
            for (sum, more) in sums.iter_mut().zip(more) {
                *sum += *more * factor;
            }
        }
    }

    /// The exact sum of all that was added, in the measure's unit. Zero for no such measure.
    pub fn total(&self, measure: usize) -> u64 {
        self.totals.get(measure).copied().unwrap_or(0)
    }

    /// The exact sums of all measures.
    pub fn totals(&self) -> &[u64; MEASURES] {
        &self.totals
    }

    /// When the life began, in microseconds, on the clock as it is set now.
    pub fn since_us(&self) -> i64 {
        self.since_us
    }

    /// Units of the measure per second, averaged over the window that ends now (microseconds), or
    /// over the life where that is shorter. Zero for no such measure.
    pub fn per_second(&self, measure: usize, window: Window, now_us: i64) -> f64 {
        self.per_second_since(measure, window, self.since_us, now_us)
    }

    /// The same, as if the life had begun at another time (microseconds).
    pub fn per_second_since(
        &self,
        measure: usize,
        window: Window,
        since_us: i64,
        now_us: i64,
    ) -> f64 {
        let sum = self
            .decayed
            .get(window as usize)
            .and_then(|sums| sums.get(measure))
            .copied()
            .unwrap_or(0.0);
        let now_us = now_us.max(self.at_us);
        let life_us = now_us.saturating_sub(since_us).max(LIFE_MIN_US);
        let length_us = window.length_us();
        // 1 - exp(-x), without losing digits where x is small.
        let passed = -(-(life_us as f64) / length_us as f64).exp_m1();
        let seconds = length_us as f64 / 1e6 * passed;
        sum * decay(now_us.saturating_sub(self.at_us), length_us) / seconds
    }

    /// Moves both time stamps; what has been counted stays as old as it was.
    pub(crate) fn dated(&self, since_us: i64, at_us: i64) -> Self {
        Rates {
            since_us,
            at_us,
            ..*self
        }
    }

    /// When decay was last brought up to date, in microseconds.
    pub(crate) fn at_us(&self) -> i64 {
        self.at_us
    }

    /// Brings the sums to now, if that is a step away; follows a clock that was set back.
    fn settle(&mut self, now_us: i64) {
        let age_us = now_us.saturating_sub(self.at_us);
        if age_us >= STEP_US {
            for (sums, window) in self.decayed.iter_mut().zip(Window::ALL) {
                let factor = decay(age_us, window.length_us());
                for sum in sums {
                    *sum *= factor;
                }
            }
            self.at_us = now_us;
        } else if age_us < -DISORDER_US {
            self.since_us = self.since_us.saturating_add(age_us);
            self.at_us = now_us;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND_US: i64 = 1_000_000;

    /// 40 events a second, each of them 3 units, from time zero on.
    fn steady(seconds: i64) -> Rates<2> {
        let mut rates = Rates::new(0);
        for event in 0..seconds * 40 {
            rates.add(&[3, 0], event * SECOND_US / 40);
        }
        rates
    }

    #[test]
    fn a_steady_rate_is_right_from_the_first_seconds_on() {
        for seconds in [2, 10, 60, 300, 4000] {
            let rates = steady(seconds);
            for window in Window::ALL {
                let rate = rates.per_second(0, window, seconds * SECOND_US);
                let error = (rate / 120.0 - 1.0).abs();
                assert!(error < 0.002, "{rate} after {seconds} s in {window:?}");
            }
            assert_eq!(rates.total(0), seconds as u64 * 120);
            assert_eq!(rates.per_second(1, Window::Hour, seconds * SECOND_US), 0.0);
        }
    }

    #[test]
    fn a_rate_falls_to_a_third_in_one_window_of_silence() {
        let rates = steady(2000);
        let rate = rates.per_second(0, Window::Minute, 2060 * SECOND_US);
        assert!((rate / 120.0 - (-1.0f64).exp()).abs() < 0.001);
    }

    #[test]
    fn one_event_is_not_a_million_per_second() {
        let mut rates = Rates::<1>::new(7);
        rates.add(&[1], 7);
        assert!(rates.per_second(0, Window::Minute, 7) < 1.01);
    }

    #[test]
    fn a_clock_set_back_changes_no_rate_and_decay_goes_on() {
        let mut rates = steady(600);
        let before = rates.per_second(0, Window::Minute, 600 * SECOND_US);
        rates.add(&[0, 0], 0);
        let after = rates.per_second(0, Window::Minute, 0);
        assert!((before / after - 1.0).abs() < 0.001);
        let later = rates.per_second(0, Window::Minute, 60 * SECOND_US);
        assert!((later / after - (-1.0f64).exp()).abs() < 0.001);
    }

    proptest! {
        /// Against the definition: the sum over all events of `amount * exp(-age / window)`.
        #[test]
        fn decayed_sums_are_what_they_say(
            steps in prop::collection::vec((0i64..20_000_000, 0u64..1000, any::<bool>()), 1..200),
        ) {
            let mut one = Rates::<1>::new(0);
            let mut other = Rates::<1>::new(0);
            let mut events = Vec::new();
            let mut now_us = 0;
            for (step_us, amount, to_other) in steps {
                now_us += step_us;
                events.push((now_us, amount));
                if to_other { other.add(&[amount], now_us) } else { one.add(&[amount], now_us) }
            }
            one.merge(&other, now_us);
            prop_assert_eq!(one.total(0), events.iter().map(|e| e.1).sum::<u64>());
            for window in Window::ALL {
                let length_us = window.length_us() as f64;
                let exact: f64 = events
                    .iter()
                    .map(|(at_us, amount)| {
                        *amount as f64 * (-((now_us - at_us) as f64) / length_us).exp()
                    })
                    .sum();
                let life_us = now_us.max(LIFE_MIN_US) as f64;
                let exact = exact / (length_us / 1e6 * (1.0 - (-life_us / length_us).exp()));
                let rate = one.per_second(0, window, now_us);
                prop_assert!(rate <= exact * (1.0 + 1e-9));
                prop_assert!(rate >= exact * (1.0 - 2.0 * STEP_US as f64 / length_us - 1e-9));
            }
        }

        #[test]
        fn nothing_panics_and_every_rate_is_a_number(
            events in prop::collection::vec((any::<i64>(), any::<u64>()), 0..50),
            since_us: i64, now_us: i64, measure: usize,
        ) {
            let mut rates = Rates::<2>::new(since_us);
            for (at_us, amount) in events {
                rates.add(&[amount, 1], at_us);
                let copy = rates;
                rates.merge(&copy, at_us.wrapping_mul(3));
            }
            for window in Window::ALL {
                for measure in [0, 1, measure] {
                    let rate = rates.per_second(measure, window, now_us);
                    prop_assert!(rate.is_finite() && rate >= 0.0);
                }
            }
        }
    }
}

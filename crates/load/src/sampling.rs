//! Counting every event of a quiet table and one in 2^k of a busy one, without bias.
//!
//! A [`Rate`] is a probability `p = 2^-k`. An event is kept with probability `p`, by a coin that
//! knows nothing of the event, and then counts `1 / p` times: the estimator of Horvitz and Thompson
//! (*A Generalization of Sampling Without Replacement from a Finite Universe*, JASA 1952), whose
//! expectation is the truth. That remains so when the rate changes from event to event, as long
//! as it is chosen from the past: [`Rate::next`] looks at rates, never at the event at hand.
//!
//! Powers of two keep weights whole numbers and coins a mask of bits.
//!
//! A [`Budget`] is what one of many sessions may keep: everything while it has tokens, after that its share
//! of what all of them together should keep.

/// Fewer than one in 2^10 are never kept.
pub const LEVEL_MAX: u8 = 10;

/// A finer rate is chosen only if it would stay below this share of the target. After the rate was
/// halved, at least half the target is kept; so there is room before it is doubled again.
const FINER_BELOW: f64 = 0.7;

/// A sampling rate: one event in `2^level` is kept. Plain data of one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Rate {
    level: u8,
}

impl Rate {
    /// Every event is kept; counts are exact.
    pub const EXACT: Rate = Rate { level: 0 };

    /// One in `2^level`; levels above [`LEVEL_MAX`] are taken for it.
    pub fn of_level(level: u8) -> Self {
        Rate {
            level: level.min(LEVEL_MAX),
        }
    }

    /// The `k` of `2^-k`.
    pub fn level(self) -> u8 {
        self.level
    }

    /// The probability with which an event is kept.
    pub fn probability(self) -> f64 {
        1.0 / self.weight() as f64
    }

    /// How many events a kept one stands for.
    pub fn weight(self) -> u64 {
        1 << self.level.min(LEVEL_MAX)
    }

    /// Whether to keep an event, and if so, what to multiply its amounts by. `random` is 64 fresh
    /// random bits, of which the upper ones are used.
    #[inline]
    pub fn keep(self, random: u64) -> Option<u64> {
        let level = u32::from(self.level.min(LEVEL_MAX));
        let tossed = random.checked_shr(u64::BITS - level).unwrap_or(0);
        (tossed == 0).then(|| self.weight())
    }

    /// What a kept event of this amount adds to the estimated variance of the estimated sum:
    /// `amount^2 * (1 - p) / p^2`. The square root of the sum of these is the standard error.
    pub fn variance(self, amount: f64) -> f64 {
        let weight = self.weight() as f64;
        amount * amount * weight * (weight - 1.0)
    }

    /// The rate to go on with, when this many events happen per second (an estimate of the recent
    /// past) and this many should be kept.
    ///
    /// Coarser at once when more than the target would be kept, for the statements pay for it; finer
    /// only with room to spare, so that a steady load does not make the rate swing.
    pub fn next(self, events_per_second: f64, target_per_second: f64) -> Self {
        if !events_per_second.is_finite() || !target_per_second.is_finite() {
            return self;
        }
        let target = target_per_second.max(1.0);
        let coarser = Self::keeping(events_per_second, target);
        let finer = Self::keeping(events_per_second, target * FINER_BELOW);
        if coarser > self {
            coarser
        } else {
            finer.min(self)
        }
    }

    /// The finest rate that keeps at most this many per second, or the coarsest there is.
    fn keeping(events_per_second: f64, kept_max: f64) -> Self {
        (0..LEVEL_MAX)
            .map(Self::of_level)
            .find(|rate| events_per_second * rate.probability() <= kept_max)
            .unwrap_or(Self::of_level(LEVEL_MAX))
    }
}

/// What a session may keep.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    rate: Rate,
    tokens: f64,
    /// Most tokens.
    capacity: f64,
}

/// Tokens that come back each second whatever happens, so that a session that was quiet for long enough is
/// exact again.
const TOKENS_PER_SECOND: f64 = 1.0;

impl Budget {
    /// A full one of so many tokens.
    pub const fn new(capacity: f64) -> Self {
        Budget {
            rate: Rate::EXACT,
            tokens: capacity,
            capacity,
        }
    }

    /// The rate until the next interval ends.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// An event was kept.
    #[inline]
    pub fn spend(&mut self) {
        self.tokens -= 1.0;
    }

    /// An interval of so many seconds is over, in which so many events happened here, kept or not. All
    /// sessions together see `all_per_second` and should keep at most `kept_per_second`.
    ///
    /// Each event earns its share of a token, so that what all sessions keep in the long run is
    /// `kept_per_second`, however many they are, and everything if there is no more than that.
    pub fn settle(&mut self, events: u64, seconds: f64, all_per_second: f64, kept_per_second: f64) {
        if seconds.is_nan() || seconds <= 0.0 {
            return;
        }
        // What all sessions do may not be known yet.
        let all = all_per_second.max(events as f64 / seconds);
        let share = if all > kept_per_second {
            kept_per_second / all
        } else {
            1.0
        };
        self.tokens += events as f64 * share + seconds * TOKENS_PER_SECOND;
        self.tokens = self.tokens.min(self.capacity);
        self.rate = if self.tokens > self.capacity / 4.0 {
            Rate::EXACT
        } else {
            self.rate.next(all, kept_per_second)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sessions of one load for a while, in intervals of 0.2 s; the share that is kept in the second half.
    fn kept(sessions: usize, each_per_second: u64, seconds: u64) -> f64 {
        let all = sessions as f64 * each_per_second as f64;
        let mut budgets = vec![Budget::new(2000.0); sessions];
        let (mut kept, mut happened) = (0.0, 0);
        for interval in 0..5 * seconds {
            for budget in &mut budgets {
                let events = each_per_second / 5;
                // On average: coins are tested elsewhere.
                let here = events as f64 * budget.rate().probability();
                budget.tokens -= here;
                budget.settle(events, 0.2, all, 300.0);
                if interval > 5 * seconds / 2 {
                    kept += here;
                    happened += events;
                }
            }
        }
        kept / happened as f64
    }

    #[test]
    fn low_loads_are_exact_for_ever() {
        assert_eq!(kept(1, 300, 3600), 1.0);
        assert_eq!(kept(20, 15, 3600), 1.0);
    }

    #[test]
    fn all_sessions_share_the_budget() {
        for (sessions, each) in [(1, 10_000), (8, 5000), (200, 200)] {
            let all = sessions as f64 * each as f64;
            let kept_per_second = kept(sessions, each, 600) * all;
            let allowed = 300.0 + sessions as f64;
            assert!(
                kept_per_second <= 1.02 * allowed && kept_per_second > 100.0,
                "{sessions} sessions keep {kept_per_second} a second"
            );
        }
    }

    #[test]
    fn a_burst_of_a_quiet_session_is_exact() {
        let mut budget = Budget::new(2000.0);
        for _ in 0..5 {
            assert_eq!(budget.rate(), Rate::EXACT);
            (0..256).for_each(|_| budget.spend());
            budget.settle(256, 0.01, 50_000.0, 300.0);
        }
        (0..256).for_each(|_| budget.spend());
        budget.settle(256, 0.01, 50_000.0, 300.0);
        assert!(budget.rate() > Rate::EXACT);
        // Quiet for long enough.
        budget.settle(1, 3600.0, 50_000.0, 300.0);
        assert_eq!(budget.rate(), Rate::EXACT);
    }

    #[test]
    fn a_budget_survives_nonsense() {
        let mut budget = Budget::new(2000.0);
        for (seconds, all, kept) in [
            (0.0, 1.0, 1.0),
            (-1.0, 1.0, 1.0),
            (f64::NAN, 1.0, 1.0),
            (1.0, f64::NAN, 300.0),
            (1.0, f64::INFINITY, 300.0),
            (1.0, 1.0, 0.0),
        ] {
            budget.settle(10, seconds, all, kept);
            assert!(budget.tokens.is_finite(), "{seconds} {all} {kept}");
        }
    }

    #[test]
    fn quiet_tables_are_counted_exactly() {
        assert_eq!(Rate::EXACT.next(1999.0, 2000.0), Rate::EXACT);
        assert_eq!(Rate::of_level(7).next(3.0, 2000.0), Rate::EXACT);
        assert_eq!(Rate::EXACT.keep(u64::MAX), Some(1));
        assert_eq!(Rate::EXACT.variance(5.0), 0.0);
    }

    #[test]
    fn busy_tables_are_sampled() {
        assert_eq!(Rate::EXACT.next(2001.0, 2000.0).weight(), 2);
        assert_eq!(Rate::EXACT.next(100_000.0, 2000.0).weight(), 64);
        assert_eq!(Rate::EXACT.next(1e12, 2000.0).weight(), 1024);
        assert_eq!(Rate::of_level(200).weight(), 1024);
    }

    #[test]
    fn nonsense_changes_nothing() {
        let rate = Rate::of_level(3);
        assert_eq!(rate.next(f64::NAN, 2000.0), rate);
        assert_eq!(rate.next(1.0, f64::INFINITY), rate);
        assert_eq!(rate.next(-5.0, -5.0), Rate::EXACT);
    }

    proptest! {
        #[test]
        fn what_is_kept_stays_near_the_target(
            level in 0u8..=LEVEL_MAX, events in 0.0f64..2_000_000.0, target in 10.0f64..10_000.0,
        ) {
            let rate = Rate::of_level(level).next(events, target);
            let kept = events * rate.probability();
            prop_assert!(kept <= target || rate.level() == LEVEL_MAX);
            prop_assert!(kept > target * FINER_BELOW / 2.0 || rate == Rate::EXACT);
        }

        /// After one decision, a load that changes by less than a sixth to either side changes the
        /// rate at most once more, and never back.
        #[test]
        fn no_swinging(
            level in 0u8..=LEVEL_MAX, events in 0.0f64..2_000_000.0,
            noise in prop::collection::vec(0.84f64..1.16, 1..50),
        ) {
            let mut rate = Rate::of_level(level).next(events, 2000.0);
            let mut changes = 0;
            for factor in noise {
                let next = rate.next(events * factor, 2000.0);
                changes += u32::from(next != rate);
                rate = next;
            }
            prop_assert!(changes <= 1, "{changes} changes");
        }

        #[test]
        fn the_upper_bits_decide(level in 1u8..=LEVEL_MAX, random: u64) {
            let kept = Rate::of_level(level).keep(random);
            let expected = random.leading_zeros() >= u32::from(level);
            prop_assert_eq!(kept.is_some(), expected);
        }
    }
}

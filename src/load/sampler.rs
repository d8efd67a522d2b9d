//! How many of the events of a session are counted, so that counting stays cheap.
//!
//! A bucket of tokens: each event that is counted takes one. While there are tokens everything is counted, so
//! that a quiet session, and a burst of a loader's rows, are exact. When they run low, one event in 2^k is
//! counted, for 2^k (see `load::sampling`: no bias), with k such that all sessions of the cluster together
//! count about as many as the machine should spend time on: not so many each, or a thousand sessions would
//! spend a good part of the machine's time on being counted.

use super::memory::{self, Event};
use load::sampling::{Budget, Rate};
use pgrx::pg_sys;

/// Looks at the clock after so many events at the latest.
const EVENTS: u32 = 256;

/// An interval that is over after this much time, microseconds.
const INTERVAL_US: i64 = 200_000;

pub struct Sampler {
    event: Event,
    budget: Budget,
    /// How many all sessions together count per second.
    per_second: f64,
    /// The interval that is under way: when it began, events in it, events until the clock is asked.
    since_us: i64,
    events: u32,
    random: u64,
}

impl Sampler {
    pub const fn new(event: Event, burst: f64, per_second: f64) -> Sampler {
        Sampler {
            event,
            budget: Budget::new(burst),
            per_second,
            since_us: 0,
            events: 0,
            random: 0,
        }
    }

    /// Whether to count the next event, and if so, for how many. The time is that of the statement's
    /// start, or later.
    #[inline]
    pub fn next(&mut self, statement_us: i64) -> Option<u64> {
        if self.events >= EVENTS || statement_us - self.since_us >= INTERVAL_US {
            self.settle();
        }
        self.events += 1;
        let rate = self.budget.rate();
        let weight = if rate == Rate::EXACT {
            1
        } else {
            let random = self.dice();
            rate.keep(random)?
        };
        self.budget.spend();
        Some(weight)
    }

    /// The same for events to come: how many to pass over, and for how many the one after them counts. What
    /// comes of it, `passed` is told.
    pub fn gap(&mut self, statement_us: i64) -> (u32, u64) {
        if self.events >= EVENTS || statement_us - self.since_us >= INTERVAL_US {
            self.settle();
        }
        let rate = self.budget.rate();
        let mut gap = 0;
        if rate != Rate::EXACT {
            // Trials without success before the first, at a probability p: log(u) / log(1 - p), rounded down
            // (Devroye, *Non-Uniform Random Variate Generation*, 1986, section X.2).
            let unit = ((self.dice() >> 11) + 1) as f64 / (1u64 << 53) as f64;
            gap = (unit.ln() / (-rate.probability()).ln_1p()).min(1e6) as u32;
        }
        (gap, rate.weight())
    }

    /// So many events have come since the last draw or pick, and the last of them was counted, or was not.
    pub fn passed(&mut self, events: u32, counted: bool) {
        self.events = self.events.saturating_add(events);
        if counted {
            self.budget.spend();
        }
    }

    /// Ends an interval: what comes next is decided by the past only.
    #[cold]
    fn settle(&mut self) {
        // SAFETY: reads the clock.
        let now_us = unsafe { pg_sys::GetCurrentTimestamp() };
        // A clock that was set back, or the first event of all.
        let passed_us = (now_us - self.since_us).clamp(1, 3_600_000_000);
        let all = memory::events_per_second(self.event, self.events, now_us);
        self.budget.settle(
            u64::from(self.events),
            passed_us as f64 / 1e6,
            all,
            // As many for each row of the history, however often one is written.
            self.per_second * crate::guc::haste(),
        );
        self.since_us = now_us;
        self.events = 0;
    }

    /// Marsaglia's xorshift64* (*Xorshift RNGs*, 2003, with Vigna's multiplier of 2014).
    fn dice(&mut self) -> u64 {
        if self.random == 0 {
            let mut seed = 0u64;
            // SAFETY: fills the eight bytes given; each process seeds its own.
            unsafe { pg_sys::pg_strong_random((&raw mut seed).cast(), 8) };
            self.random = seed | 1;
        }
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

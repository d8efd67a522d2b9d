//! How many of the events of a session are counted, so that counting stays cheap.
//!
//! A bucket of tokens: each event that is counted takes one, and some come back every second. While there
//! are tokens everything is counted, so that a quiet session, and a burst of a loader's rows, are exact.
//! When they run low, one event in 2^k is counted, for 2^k (see `load::sampling`: no bias), with k such
//! that about as many are counted as tokens come back.

use load::sampling::Rate;
use pgrx::pg_sys;

/// Looks at the clock after so many events at the latest.
const EVENTS: u32 = 256;

/// An interval that is over after this much time, microseconds.
const INTERVAL_US: i64 = 200_000;

pub struct Sampler {
    rate: Rate,
    tokens: f64,
    /// Most tokens, and how many come back each second.
    capacity: f64,
    per_second: f64,
    /// The interval that is under way: when it began, events in it, events until the clock is asked.
    since_us: i64,
    events: u32,
    random: u64,
}

impl Sampler {
    pub const fn new(capacity: f64, per_second: f64) -> Sampler {
        Sampler {
            rate: Rate::EXACT,
            tokens: capacity,
            capacity,
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
        let weight = if self.rate == Rate::EXACT {
            1
        } else {
            let random = self.dice();
            self.rate.keep(random)?
        };
        self.tokens -= 1.0;
        Some(weight)
    }

    /// The same for events to come: how many to pass over, and for how many the one after them counts.
    pub fn gap(&mut self, statement_us: i64) -> (u32, u64) {
        if self.events >= EVENTS || statement_us - self.since_us >= INTERVAL_US {
            self.settle();
        }
        let mut gap = 0;
        if self.rate != Rate::EXACT {
            // Trials without success before the first, at a probability p: log(u) / log(1 - p), rounded down
            // (Devroye, *Non-Uniform Random Variate Generation*, 1986, section X.2).
            let unit = ((self.dice() >> 11) + 1) as f64 / (1u64 << 53) as f64;
            gap = (unit.ln() / (-self.rate.probability()).ln_1p()).min(1e6) as u32;
        }
        self.events = self.events.saturating_add(gap + 1);
        self.tokens -= 1.0;
        (gap, self.rate.weight())
    }

    /// Ends an interval: what comes next is decided by the past only.
    #[cold]
    fn settle(&mut self) {
        // SAFETY: reads the clock.
        let now_us = unsafe { pg_sys::GetCurrentTimestamp() };
        // A clock that was set back, or the first event of all.
        let passed_us = (now_us - self.since_us).clamp(1, 3_600_000_000);
        let seconds = passed_us as f64 / 1e6;
        // As many for each row of the history, however often one is written.
        let per_second = self.per_second * crate::guc::haste();
        self.tokens = (self.tokens + seconds * per_second).min(self.capacity);
        self.rate = if self.tokens > self.capacity / 4.0 {
            Rate::EXACT
        } else {
            self.rate
                .next(f64::from(self.events) / seconds, per_second)
        };
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

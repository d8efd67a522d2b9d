//! How many events happen per second, as many processes see it together.
//!
//! Each adds its own now and then, and gets the rate of the last stretch of time that is over. Plain
//! atomics, for shared memory: nobody waits for anybody, and a look at the wrong moment is off by what
//! was added meanwhile.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// A stretch is over after this much time, in microseconds.
const STRETCH_US: i64 = 250_000;

/// All zeroes is one that has seen nothing.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Meter {
    since_us: AtomicI64,
    events: AtomicU64,
    per_second: AtomicU64,
}

impl Meter {
    /// Adds events; gives how many there were per second lately.
    pub fn add(&self, events: u64, now_us: i64) -> f64 {
        self.events.fetch_add(events, Relaxed);
        let since = self.since_us.load(Relaxed);
        let passed = now_us.wrapping_sub(since);
        // Or the clock was set back.
        if !(0..STRETCH_US).contains(&passed)
            && self
                .since_us
                .compare_exchange(since, now_us, Relaxed, Relaxed)
                .is_ok()
        {
            let sum = self.events.swap(0, Relaxed);
            if passed > 0 {
                let rate = sum as f64 / (passed as f64 / 1e6);
                self.per_second.store(rate as u64, Relaxed);
            }
        }
        self.per_second.load(Relaxed) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let meter = Meter::default();
        let mut now = 1_000_000_000;
        for _ in 0..100 {
            now += 10_000;
            meter.add(100, now);
        }
        assert_eq!(meter.add(0, now), 10_000.0);
        now += 1_000_000;
        assert!(meter.add(5, now) < 2500.0);
        now += 300_000;
        assert_eq!(meter.add(0, now), 0.0);
        // Set back, and on from there.
        assert_eq!(meter.add(7, now - 5_000_000), 0.0);
        assert_eq!(meter.add(0, now - 4_000_000), 0.0);
    }

    #[test]
    fn nothing_is_counted_twice() {
        let meter = Meter::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let meter = &meter;
                scope.spawn(move || {
                    for i in 0..50_000i64 {
                        meter.add(1, 1_000_000 * (i % 97) + thread);
                    }
                });
            }
        });
        assert!(meter.events.load(Relaxed) <= 200_000);
    }
}

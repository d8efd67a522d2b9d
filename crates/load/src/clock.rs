//! Time that never runs backwards.
//!
//! Wall clocks are set back, and processes report events slightly out of order. Decayed weights
//! must survive both: a weight that "decays" over a negative time grows, and a clock that waits
//! for the wall to catch up would stop all decay until then. So a [`Clock`] adds up the steps
//! forward and forgets the steps backward.

/// Steps back up to this long are taken for events out of order, longer ones for a clock that was
/// set. In microseconds.
pub const DISORDER_US: i64 = 1_000_000;

/// Elapsed time, made of wall-clock readings. Plain data; all zeros is a clock at the epoch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    wall_us: i64,
    elapsed_us: i64,
}

impl Clock {
    /// A clock that has just been started: elapsed time zero at this wall time (microseconds).
    pub fn starting_at(wall_us: i64) -> Self {
        Clock {
            wall_us,
            elapsed_us: 0,
        }
    }

    /// Takes a reading of the wall clock and says how many microseconds have elapsed since the
    /// start. Never less than it said before.
    pub fn advance(&mut self, now_us: i64) -> i64 {
        let step_us = now_us.saturating_sub(self.wall_us);
        if step_us > 0 {
            self.elapsed_us = self.elapsed_us.saturating_add(step_us);
            self.wall_us = now_us;
        } else if step_us < -DISORDER_US {
            self.wall_us = now_us;
        }
        self.elapsed_us
    }

    /// What [`advance`](Self::advance) would say, in microseconds, without taking the reading.
    pub fn elapsed_us(&self, now_us: i64) -> i64 {
        let mut clock = *self;
        clock.advance(now_us)
    }

    /// The wall time (microseconds) at which this much had elapsed, on the wall clock as it is
    /// set now.
    pub fn wall_us(&self, elapsed_us: i64) -> i64 {
        self.wall_us
            .saturating_sub(self.elapsed_us.saturating_sub(elapsed_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disorder_is_ignored_and_a_clock_set_back_goes_on() {
        let mut clock = Clock::starting_at(1_000_000_000);
        assert_eq!(clock.advance(1_000_000_500), 500);
        assert_eq!(clock.advance(1_000_000_400), 500);
        assert_eq!(clock.advance(1_000_000_600), 600);
        // An hour back: nothing elapses, and from there on it does again.
        assert_eq!(clock.advance(1_000_000_600 - 3_600_000_000), 600);
        assert_eq!(clock.advance(1_000_000_700 - 3_600_000_000), 700);
        assert_eq!(clock.wall_us(500), 1_000_000_500 - 3_600_000_000);
    }

    #[test]
    fn the_ends_of_time_are_survived() {
        let mut clock = Clock::starting_at(i64::MIN);
        let mut before = 0;
        for now in [i64::MAX, i64::MIN, 0, i64::MAX, i64::MAX, -1] {
            let elapsed = clock.advance(now);
            assert!(elapsed >= before);
            assert_eq!(clock.elapsed_us(now), elapsed);
            before = elapsed;
            clock.wall_us(i64::MIN);
        }
    }
}

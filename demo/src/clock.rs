//! One time line for everything: microseconds since the demo began, whether measured here or by the server.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[derive(Clone, Copy)]
pub struct Clock {
    start: Instant,
    start_since_epoch: Duration,
}

impl Clock {
    pub fn start() -> Self {
        let start_since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            start: Instant::now(),
            start_since_epoch,
        }
    }

    pub fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    /// A server's `extract(epoch from timestamptz)`: client and server share the machine's clock.
    pub fn at_epoch_us(&self, seconds_since_epoch: f64) -> u64 {
        ((seconds_since_epoch - self.start_since_epoch.as_secs_f64()) * 1e6).max(0.0) as u64
    }

    /// The inverse: microseconds since 1970.
    pub fn epoch_us(&self, at_us: u64) -> u64 {
        self.start_since_epoch.as_micros() as u64 + at_us
    }

    /// A progress line with the time in front.
    pub fn say(&self, text: &str) {
        println!("{:6.1} s  {text}", self.start.elapsed().as_secs_f64());
    }
}

//! When to look: at whole minutes, and every few seconds in between for who waits.

use super::now_us;
use crate::pg::error::Error;
use ::load::history::{Level, bucket_start};
use pgrx::prelude::*;
use std::collections::HashSet;
use std::time::Duration;

/// Between two looks at who waits for a lock.
const WAITS_US: i64 = 5_000_000;

/// Errors that are remembered as told.
const TOLD_MAX: usize = 100;

pub struct Clock {
    tick_us: i64,
    waits_us: i64,
    /// What has been logged and not ended since: an error that stays is told once.
    told: HashSet<String>,
}

fn period_us() -> i64 {
    let setting_us = i64::from(crate::guc::HISTORY_INTERVAL_MS.get()) * 1000;
    crate::failpoint::tick_us().unwrap_or(setting_us.min(Level::Minute.width_us()))
}

impl Clock {
    /// The first look, with which later ones are compared, is due at once.
    pub fn new() -> Self {
        Clock {
            tick_us: i64::MIN,
            waits_us: i64::MIN,
            told: HashSet::new(),
        }
    }

    /// Does what is due. Never fails: recording must not keep the scheduler from its jobs.
    pub fn work(&mut self) {
        let now = now_us();
        // The clock may have been set back, or the period changed.
        self.tick_us = self.tick_us.min(now.saturating_add(period_us()));
        self.waits_us = self.waits_us.min(now.saturating_add(WAITS_US));
        if now >= self.waits_us {
            self.waits_us = bucket_start(now, WAITS_US).saturating_add(WAITS_US);
            for step in [super::sample_waits, crate::load::triggers::reconcile] {
                if let Err(error) = step() {
                    self.tell(&error);
                }
            }
        }
        if now >= self.tick_us {
            self.tick_us = bucket_start(now, period_us()).saturating_add(period_us());
            let failed = super::tick();
            if failed.is_empty() {
                self.told.clear();
            }
            for error in &failed {
                self.tell(error);
            }
        }
    }

    /// How long nothing is due.
    pub fn rest(&self) -> Duration {
        let until = self.tick_us.min(self.waits_us).saturating_sub(now_us());
        Duration::from_micros(until.clamp(1_000, WAITS_US).unsigned_abs())
    }

    fn tell(&mut self, error: &Error) {
        if self.told.len() >= TOLD_MAX {
            self.told.clear();
        }
        if self.told.insert(error.message.clone()) {
            log!("shadowpart history: {error} [{}]", error.sqlstate);
        }
    }
}

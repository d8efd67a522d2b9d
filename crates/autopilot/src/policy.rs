//! What the autopilot may do, and when it does it.

use crate::selection::Rules;
use crate::words::words;
use crate::{DAY_US, HOUR_US, MINUTE_US};
use serde::{Deserialize, Serialize};
use std::fmt;

words! {
    /// How much the autopilot does by itself.
    Mode {
        /// Nothing, and what it has under way is cancelled: the kill switch.
        Off => "off",
        /// It records what it would do.
        Advise => "advise",
        /// It creates, resizes and drops shadows.
        Shadow => "shadow",
        /// It also swaps.
        Migrate => "migrate",
    }
}

/// A stretch of the day, in minutes after midnight. It may wrap around midnight; `from` belongs to
/// it, `to` does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuietHours {
    /// First minute, 0 to 1439.
    pub from_minute: u16,
    /// First minute after it, 0 to 1439.
    pub to_minute: u16,
}

impl QuietHours {
    /// Whether a time (microseconds since midnight of any day, UTC) lies in it, where local time is
    /// so many minutes ahead of UTC.
    pub fn contain(&self, now_us: i64, utc_offset_minutes: i32) -> bool {
        let minute = now_us.div_euclid(MINUTE_US).rem_euclid(1440) + i64::from(utc_offset_minutes);
        let minute = minute.rem_euclid(1440);
        let (from, to) = (i64::from(self.from_minute), i64::from(self.to_minute));
        if from <= to {
            (from..to).contains(&minute)
        } else {
            minute >= from || minute < to
        }
    }
}

/// The policy of the server, or of one table.
///
/// Budgets, the number of moves at a time and the latency guard protect the machine, so they are
/// taken from the server's policy; everything else from the table's, where it has one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// How much it does by itself.
    pub mode: Mode,
    /// From this probability of saturation on a shadow is worth having. Lower than for a swap: a
    /// shadow that was not needed costs a copy, and no user notices. A choice, not measured.
    pub shadow_confidence: f64,
    /// Below this probability a partition is calm. Lower than the one above, so that a probability
    /// that hovers does not create and drop.
    pub calm_confidence: f64,
    /// From this probability on, on `migrate_ticks` of the last `migrate_window` predictions, it
    /// swaps. Measured: .70 on 2 of 3 had a precision of .80 at a recall of .44.
    pub migrate_confidence: f64,
    /// Predictions that must reach it.
    pub migrate_ticks: usize,
    /// Predictions looked at, at most [`WINDOW_MAX`].
    pub migrate_window: usize,
    /// The reactive rule: load at this fraction of capacity, for `reactive_ticks` ticks.
    pub reactive_fraction: f64,
    /// Ticks in a row that the load must stay there; 1 acts at once.
    pub reactive_ticks: u32,
    /// What is selected brings the predicted peak down to this fraction of capacity.
    pub relief_fraction: f64,
    /// A partition above this fraction of capacity is not calm.
    pub release_fraction: f64,
    /// Calm ticks in a row before a shadow is dropped.
    pub calm_ticks: u32,
    /// Ticks in a row that an entity must be unneeded before it is removed from a shadow.
    pub remove_ticks: u32,
    /// A partition is left alone for so long after a swap, in microseconds.
    pub unit_cooldown_us: i64,
    /// An entity is left alone for so long after a swap, in microseconds.
    pub entity_cooldown_us: i64,
    /// For so long after a shadow was dropped the prediction creates no other for the same
    /// partition, and no shadow is dropped that is younger, in microseconds.
    pub shadow_cooldown_us: i64,
    /// Bytes copied in any 24 hours. `None`: any number.
    pub budget_bytes_day: Option<u64>,
    /// Copies under way at a time.
    pub moves_max: usize,
    /// No copy starts and nothing is swapped in these hours.
    pub quiet_hours: Option<QuietHours>,
    /// The reactive rule acts in quiet hours too.
    pub quiet_reactive: bool,
    /// The latency guard: with the host this busy (fraction) nothing is begun, except what takes
    /// load away and copies nothing: shadows are dropped, and the reactive rule may swap what
    /// stands ready.
    pub busy_fraction: f64,
    /// The guard lets go below this fraction.
    pub busy_resume_fraction: f64,
    /// After a failure it waits so long before the next attempt, twice as long after each further
    /// one, in microseconds.
    pub backoff_us: i64,
    /// It never waits longer than this, in microseconds.
    pub backoff_max_us: i64,
    /// When a move is worth it.
    pub rules: Rules,
}

/// Predictions remembered of each partition.
pub const WINDOW_MAX: usize = 16;

impl Default for Policy {
    fn default() -> Self {
        Policy {
            mode: Mode::Advise,
            shadow_confidence: 0.4,
            calm_confidence: 0.2,
            migrate_confidence: 0.7,
            migrate_ticks: 2,
            migrate_window: 3,
            reactive_fraction: 0.95,
            reactive_ticks: 2,
            relief_fraction: 0.7,
            release_fraction: 0.6,
            calm_ticks: 12,
            remove_ticks: 6,
            unit_cooldown_us: HOUR_US,
            entity_cooldown_us: DAY_US,
            shadow_cooldown_us: HOUR_US,
            budget_bytes_day: Some(100 << 30),
            moves_max: 2,
            quiet_hours: None,
            quiet_reactive: false,
            busy_fraction: 0.85,
            busy_resume_fraction: 0.75,
            backoff_us: MINUTE_US,
            backoff_max_us: HOUR_US,
            rules: Rules::default(),
        }
    }
}

/// A setting that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The setting, by the name of its field.
    pub field: &'static str,
    /// What is wrong with it: a sentence without its subject.
    pub why: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" {}", self.field, self.why)
    }
}

impl std::error::Error for Invalid {}

impl Policy {
    /// Everything that is wrong with it; nothing if it may be used.
    pub fn validate(&self) -> Result<(), Vec<Invalid>> {
        let mut wrong = Wrong(Vec::new());
        for (field, value) in [
            ("shadow_confidence", self.shadow_confidence),
            ("calm_confidence", self.calm_confidence),
            ("migrate_confidence", self.migrate_confidence),
            ("relief_fraction", self.relief_fraction),
            ("release_fraction", self.release_fraction),
            ("busy_fraction", self.busy_fraction),
            ("busy_resume_fraction", self.busy_resume_fraction),
            ("rules.relief_min", self.rules.relief_min),
            ("rules.dominant_share", self.rules.dominant_share),
        ] {
            wrong.unless(
                (0.0..=1.0).contains(&value),
                field,
                "must lie between 0 and 1",
            );
        }
        for (field, value) in [
            ("unit_cooldown_us", self.unit_cooldown_us),
            ("entity_cooldown_us", self.entity_cooldown_us),
            ("shadow_cooldown_us", self.shadow_cooldown_us),
            ("backoff_us", self.backoff_us),
            ("backoff_max_us", self.backoff_max_us),
            ("rules.late_max_us", self.rules.late_max_us),
            ("rules.payback_us", self.rules.payback_us),
        ] {
            wrong.unless(value >= 0, field, "must not be negative");
        }
        wrong.unless(
            self.reactive_fraction > 0.0 && self.reactive_fraction <= 10.0,
            "reactive_fraction",
            "must be above 0 and at most 10",
        );
        wrong.unless(
            (1.0..=100.0).contains(&self.rules.lead_factor),
            "rules.lead_factor",
            "must lie between 1 and 100",
        );
        wrong.unless(
            self.calm_confidence <= self.shadow_confidence,
            "calm_confidence",
            "must not be above shadow_confidence, or shadows would be created and dropped in turn",
        );
        wrong.unless(
            self.shadow_confidence <= self.migrate_confidence,
            "shadow_confidence",
            "must not be above migrate_confidence: the shadow comes before the swap",
        );
        wrong.unless(
            self.release_fraction < self.reactive_fraction,
            "release_fraction",
            "must be below reactive_fraction",
        );
        wrong.unless(
            self.relief_fraction < self.reactive_fraction,
            "relief_fraction",
            "must be below reactive_fraction, or a migration would not end what called for it",
        );
        wrong.unless(
            self.busy_resume_fraction <= self.busy_fraction,
            "busy_resume_fraction",
            "must not be above busy_fraction",
        );
        wrong.unless(
            (1..=WINDOW_MAX).contains(&self.migrate_window),
            "migrate_window",
            "must lie between 1 and 16",
        );
        wrong.unless(
            (1..=self.migrate_window).contains(&self.migrate_ticks),
            "migrate_ticks",
            "must lie between 1 and migrate_window",
        );
        wrong.unless(
            self.reactive_ticks >= 1,
            "reactive_ticks",
            "must be at least 1",
        );
        wrong.unless(self.calm_ticks >= 1, "calm_ticks", "must be at least 1");
        wrong.unless(self.remove_ticks >= 1, "remove_ticks", "must be at least 1");
        wrong.unless(
            self.backoff_us <= self.backoff_max_us,
            "backoff_us",
            "must not be above backoff_max_us",
        );
        wrong.unless(
            self.rules.entities_max >= 1,
            "rules.entities_max",
            "must be at least 1",
        );
        if let Some(quiet) = self.quiet_hours {
            wrong.unless(
                quiet.from_minute < 1440 && quiet.to_minute < 1440,
                "quiet_hours",
                "must be minutes of the day, 0 to 1439",
            );
            wrong.unless(
                quiet.from_minute != quiet.to_minute,
                "quiet_hours",
                "must not be empty: use mode advise to never act",
            );
        }
        if wrong.0.is_empty() {
            Ok(())
        } else {
            Err(wrong.0)
        }
    }
}

struct Wrong(Vec<Invalid>);

impl Wrong {
    fn unless(&mut self, right: bool, field: &'static str, why: &str) {
        if !right {
            self.0.push(Invalid {
                field,
                why: why.to_owned(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_policy_advises_and_is_valid() {
        assert_eq!(Policy::default().mode, Mode::Advise);
        assert_eq!(Policy::default().validate(), Ok(()));
    }

    #[test]
    fn every_wrong_setting_is_named() {
        let policy = Policy {
            shadow_confidence: 0.9,
            calm_confidence: f64::NAN,
            migrate_ticks: 4,
            backoff_us: -1,
            quiet_hours: Some(QuietHours {
                from_minute: 1440,
                to_minute: 0,
            }),
            ..Policy::default()
        };
        let fields: Vec<_> = policy
            .validate()
            .unwrap_err()
            .iter()
            .map(|i| i.field)
            .collect();
        for field in [
            "calm_confidence",
            "shadow_confidence",
            "migrate_ticks",
            "backoff_us",
            "quiet_hours",
        ] {
            assert!(fields.contains(&field), "{field} in {fields:?}");
        }
    }

    #[test]
    fn quiet_hours_may_wrap_midnight_and_know_the_offset() {
        let night = QuietHours {
            from_minute: 22 * 60,
            to_minute: 6 * 60,
        };
        let at = |hour: i64| hour * HOUR_US;
        assert!(night.contain(at(23), 0) && night.contain(at(5), 0) && night.contain(at(22), 0));
        assert!(!night.contain(at(6), 0) && !night.contain(at(12), 0));
        assert!(night.contain(at(20), 120) && !night.contain(at(20), -120));
        assert!(night.contain(at(-1), 0) && night.contain(i64::MIN, i32::MIN) | true);
    }

    #[test]
    fn a_policy_is_read_from_the_settings_that_differ() {
        let policy: Policy =
            serde_json::from_str(r#"{"mode": "migrate", "rules": {"relief_min": 0.5}}"#).unwrap();
        assert_eq!(policy.mode, Mode::Migrate);
        assert_eq!(policy.rules.relief_min, 0.5);
        assert_eq!(policy.shadow_confidence, 0.4);
        assert!(serde_json::from_str::<Policy>(r#"{"moed": "off"}"#).is_err());
    }
}

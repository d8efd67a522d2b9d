//! Settings of tables, of partitions and of targets: checked when they are set, merged when they are read.

use super::resource;
use crate::api::{as_superuser, checks, require_preload};
use crate::guc;
use crate::pg::error::{Error, Result, or_raise};
use crate::pg::sql;
use ::autopilot::policy::{Mode, Policy, QuietHours};
use ::autopilot::resource::Capacities;
use pgrx::datum::JsonB;
use pgrx::prelude::*;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Settings beside the capacities.
const OTHERS: [&str; 13] = [
    "autopilot",
    "threshold",
    "shadow_threshold",
    "ticks",
    "reactive",
    "relief",
    "release",
    "cooldown_ms",
    "entity_cooldown_ms",
    "decommission_after_ms",
    "quiet_hours",
    "quiet_reactive",
    "targets",
];

/// What is set of a table or partition; what is not holds as it is one level up.
pub type Given = Map<String, Value>;

/// What holds for a table or partition.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Settings {
    pub autopilot: String,
    /// `None`: learned.
    pub capacity: Capacities,
    pub threshold: f64,
    pub shadow_threshold: f64,
    /// On how many of how many predictions.
    pub ticks: (u32, u32),
    pub reactive: f64,
    /// What is moved brings the predicted peak down to this fraction of the capacity.
    pub relief: f64,
    pub release: f64,
    pub cooldown_ms: i64,
    pub entity_cooldown_ms: i64,
    pub decommission_after_ms: i64,
    /// Minutes of the day, begin and end.
    pub quiet: Option<(u16, u16)>,
    pub quiet_reactive: bool,
    /// Tablespaces; none: all that the table's owner may use.
    pub targets: Option<Vec<String>>,
}

fn refuse(message: String, detail: &str, hint: &str) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message)
        .detail(detail)
        .hint(hint)
}

fn number(given: &Given, name: &str) -> Option<f64> {
    given.get(name).and_then(Value::as_f64)
}

/// `2 of 3`
fn ticks(text: &str) -> Option<(u32, u32)> {
    let (some, of) = text.split_once("of")?;
    let (some, of) = (some.trim().parse().ok()?, of.trim().parse().ok()?);
    (1 <= some && some <= of && of <= ::autopilot::policy::WINDOW_MAX as u32).then_some((some, of))
}

/// `22:00-06:00`, in minutes of the day.
fn hours(text: &str) -> Option<(u16, u16)> {
    let minutes = |text: &str| {
        let (hour, minute) = text.trim().split_once(':')?;
        let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
        (hour < 24 && minute < 60 || (hour, minute) == (24, 0)).then_some(hour * 60 + minute)
    };
    let (from, to) = text.split_once('-')?;
    let (from, to) = (minutes(from)? % 1440, minutes(to)? % 1440);
    (from != to).then_some((from, to))
}

/// One setting, checked. Its name is one of those of `shadow_set_policy`.
fn check(name: &str, value: &Value) -> Result<()> {
    let number = value.as_f64().unwrap_or(f64::NAN);
    let within = |low: f64, high: f64, unit: &str| {
        if (low..=high).contains(&number) {
            return Ok(());
        }
        Err(refuse(
            format!("{name} must be between {low} and {high}{unit}"),
            &format!("It is {value}."),
            "See shadow_policies for what holds now.",
        ))
    };
    match name {
        "autopilot"
            if matches!(
                value.as_str(),
                Some("off" | "advise" | "shadow" | "migrate")
            ) =>
        {
            Ok(())
        }
        "autopilot" => Err(refuse(
            "autopilot must be off, advise, shadow or migrate".to_owned(),
            &format!("It is {value}."),
            "advise records what would be done; shadow makes shadows; migrate also swaps.",
        )),
        "threshold" | "shadow_threshold" => within(0.0, 1.0, ""),
        "reactive" => within(0.01, 10.0, " times the capacity"),
        "relief" | "release" => within(0.0, 1.0, " times the capacity"),
        "cooldown_ms" | "entity_cooldown_ms" | "decommission_after_ms" => {
            if (0.0..=366.0 * 86_400_000.0).contains(&number) {
                return Ok(());
            }
            Err(refuse(
                format!(
                    "{} must be between 0 and 366 days",
                    name.trim_end_matches("_ms")
                ),
                &format!("It is {} seconds.", number / 1000.0),
                "See shadow_policies for what holds now.",
            ))
        }
        "ticks" if value.as_str().and_then(ticks).is_some() => Ok(()),
        "ticks" => Err(refuse(
            "ticks must be like '2 of 3', of 16 at most".to_owned(),
            &format!("It is {value}."),
            "It says on how many of the last predictions the confidence must reach the threshold.",
        )),
        "quiet_hours" if value.as_str().and_then(hours).is_some() => Ok(()),
        "quiet_hours" => Err(refuse(
            "quiet_hours must be like '22:00-06:00'".to_owned(),
            &format!("It is {value}."),
            "Begin and end in the time zone of the database; the end may be on the next day. For all day, set \
             autopilot to advise.",
        )),
        "quiet_reactive" if value.is_boolean() => Ok(()),
        "quiet_reactive" => Err(refuse(
            "quiet_reactive must be true or false".to_owned(),
            &format!("It is {value}."),
            "It says whether the reactive rule acts in quiet hours too.",
        )),
        "targets" => Ok(()),
        _ if resource::of(name).is_some() => {
            // A capacity of nothing would always be exceeded.
            if number > 0.0 && number.is_finite() {
                return Ok(());
            }
            Err(refuse(
                format!("{name} must be greater than zero"),
                &format!("It is {value}."),
                "shadow_reset_policy() takes a capacity away; it is then learned from the history.",
            ))
        }
        _ => known(name),
    }
}

/// A number without a fraction that says nothing.
fn plain(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e15 {
        return (number as i64).into();
    }
    number.into()
}

/// Settings that must be in order.
fn check_together(settings: &Settings) -> Result<()> {
    if settings.shadow_threshold > settings.threshold {
        return Err(refuse(
            "shadow_threshold must not be above threshold".to_owned(),
            &format!(
                "They are {} and {}.",
                settings.shadow_threshold, settings.threshold
            ),
            "A shadow has to be there before it can be swapped.",
        ));
    }
    for (name, value) in [("release", settings.release), ("relief", settings.relief)] {
        if value >= settings.reactive {
            return Err(refuse(
                format!("{name} must be below reactive"),
                &format!("They are {value} and {}.", settings.reactive),
                "Between them nothing is done; without such a gap entities would go to and fro.",
            ));
        }
    }
    Ok(())
}

impl Settings {
    /// What holds where this is given, the first before the others.
    pub fn merged(layers: &[&Given]) -> Settings {
        let find = |name: &str| layers.iter().find_map(|given| given.get(name));
        let float = |name: &str, default: f64| {
            (layers.iter().find_map(|given| number(given, name))).unwrap_or(default)
        };
        let text = |name: &str| find(name).and_then(Value::as_str);
        let day_ms = f64::from(guc::DAY_LENGTH_MS.get());
        let autopilot = general().mode.word();
        let capacity = Capacities::from_fn(|resource| {
            (layers.iter()).find_map(|given| number(given, resource::name(resource)))
        });
        Settings {
            // Off for all is off.
            autopilot: if autopilot == "off" {
                autopilot
            } else {
                text("autopilot").unwrap_or(autopilot)
            }
            .to_owned(),
            capacity,
            threshold: float("threshold", 0.7),
            shadow_threshold: float("shadow_threshold", 0.4),
            ticks: text("ticks").and_then(ticks).unwrap_or((2, 3)),
            reactive: float("reactive", 0.95),
            relief: float("relief", 0.7),
            release: float("release", 0.6),
            cooldown_ms: float("cooldown_ms", day_ms / 24.0) as i64,
            entity_cooldown_ms: float("entity_cooldown_ms", day_ms) as i64,
            decommission_after_ms: float("decommission_after_ms", day_ms / 12.0) as i64,
            quiet: text("quiet_hours").and_then(hours),
            quiet_reactive: find("quiet_reactive")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            targets: find("targets").and_then(Value::as_array).map(|list| {
                list.iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect()
            }),
        }
    }

    /// As the pure part takes it.
    pub fn policy(&self) -> Policy {
        let general = general();
        let tick_ms = (super::decide::tick_us() / 1000).max(1);
        let ticks = |ms: i64| u32::try_from((ms / tick_ms).max(1)).unwrap_or(u32::MAX);
        Policy {
            mode: Mode::from_word(&self.autopilot).unwrap_or(Mode::Advise),
            shadow_confidence: self.shadow_threshold,
            calm_confidence: general.calm_confidence.min(self.shadow_threshold / 2.0),
            migrate_confidence: self.threshold,
            migrate_ticks: self.ticks.0 as usize,
            migrate_window: self.ticks.1 as usize,
            reactive_fraction: self.reactive,
            relief_fraction: self.relief,
            release_fraction: self.release,
            calm_ticks: ticks(self.decommission_after_ms),
            remove_ticks: ticks(self.decommission_after_ms / 2),
            unit_cooldown_us: self.cooldown_ms * 1000,
            shadow_cooldown_us: self.cooldown_ms * 1000,
            entity_cooldown_us: self.entity_cooldown_ms * 1000,
            quiet_hours: (self.quiet).map(|(from_minute, to_minute)| QuietHours {
                from_minute,
                to_minute,
            }),
            quiet_reactive: self.quiet_reactive,
            ..general
        }
    }

    /// As users see it: by the names of `shadow_set_policy`.
    fn shown(&self) -> Value {
        let mut map = Map::new();
        let mut put = |name: &str, value: Value| map.insert(name.to_owned(), value);
        put("autopilot", self.autopilot.as_str().into());
        for (resource, capacity) in self.capacity.iter() {
            // Only where there is a day that repeats itself can a capacity be learned from it.
            let unknown = if *resource::LEARNED == resource {
                "learned"
            } else {
                "unlimited"
            };
            put(
                resource::name(resource),
                capacity.map_or_else(|| unknown.into(), plain),
            );
        }
        put("threshold", self.threshold.into());
        put("shadow_threshold", self.shadow_threshold.into());
        put(
            "ticks",
            format!("{} of {}", self.ticks.0, self.ticks.1).into(),
        );
        put("reactive", self.reactive.into());
        put("relief", self.relief.into());
        put("release", self.release.into());
        put("cooldown_ms", self.cooldown_ms.into());
        put("entity_cooldown_ms", self.entity_cooldown_ms.into());
        put("decommission_after_ms", self.decommission_after_ms.into());
        let clock = |m: u16| format!("{:02}:{:02}", m / 60, m % 60);
        let quiet = self
            .quiet
            .map(|(from, to)| format!("{}-{}", clock(from), clock(to)));
        put(
            "quiet_hours",
            quiet.unwrap_or_else(|| "none".to_owned()).into(),
        );
        put("quiet_reactive", self.quiet_reactive.into());
        let targets = match &self.targets {
            None => "all".to_owned(),
            Some(none) if none.is_empty() => "none".to_owned(),
            Some(some) => some.join(", "),
        };
        put("targets", targets.into());
        Value::Object(map)
    }
}

/// What holds for the server as a whole.
pub fn general() -> Policy {
    let mode = match guc::AUTOPILOT.get() {
        guc::Autopilot::Off => Mode::Off,
        guc::Autopilot::Advise => Mode::Advise,
        guc::Autopilot::Shadow => Mode::Shadow,
        guc::Autopilot::Migrate => Mode::Migrate,
    };
    let busy = f64::from(guc::BUSY_PERCENT.get()) / 100.0;
    let day_us = i64::from(guc::DAY_LENGTH_MS.get()) * 1000;
    Policy {
        mode,
        budget_bytes_day: match guc::MOVE_BUDGET_MB.get() {
            -1 => None,
            mb => Some(u64::from(mb.unsigned_abs()) << 20),
        },
        moves_max: guc::MAX_MOVES.get().unsigned_abs() as usize,
        busy_fraction: busy,
        busy_resume_fraction: (busy - 0.1).max(0.0),
        backoff_us: day_us / 1440,
        backoff_max_us: day_us / 24,
        ..Policy::default()
    }
}

/// All that is given in this database, by the OID of what it is given to. By a superuser.
pub fn all() -> Result<HashMap<u32, Given>> {
    let rows = sql::query(
        "SELECT subject::oid, settings FROM shadowpart.policy",
        &[],
        |row| Ok((row.get::<pg_sys::Oid>(1)?, row.get::<JsonB>(2)?)),
    )?;
    let known = rows.into_iter().filter_map(|(subject, settings)| {
        let Value::Object(given) = settings?.0 else {
            return None;
        };
        Some((subject?.to_u32(), given))
    });
    Ok(known.collect())
}

/// Targets that were added, with what they can take.
pub fn targets() -> Result<HashMap<String, Capacities>> {
    let rows = sql::query(
        "SELECT tablespace::text, settings FROM shadowpart.target",
        &[],
        |row| Ok((row.get::<String>(1)?, row.get::<JsonB>(2)?)),
    )?;
    let known = rows.into_iter().filter_map(|(name, settings)| {
        let Value::Object(given) = settings?.0 else {
            return None;
        };
        Some((
            name?,
            Capacities::from_fn(|r| number(&given, resource::name(r))),
        ))
    });
    Ok(known.collect())
}

/// Merges what is now given into what was: `null` takes a setting away, `{"*": null}` all of them.
fn merge(old: Given, new: Given) -> Given {
    if new.contains_key("*") {
        return Given::new();
    }
    let mut merged = old;
    for (name, value) in new {
        if value.is_null() {
            merged.remove(&name);
        } else {
            merged.insert(name, value);
        }
    }
    merged
}

#[pg_extern(sql = false)]
fn set_policy(relation: Option<pg_sys::Oid>, settings: Option<JsonB>) {
    or_raise((|| {
        require_preload()?;
        checks::not_in_recovery()?;
        let relid = relation.ok_or_else(|| {
            Error::new(
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                "relation must not be NULL",
            )
            .detail("There is no table to set something of.")
            .hint("Give the name of a managed table, or of one of its partitions.")
        })?;
        let table = checks::table(relid)?;
        checks::owner(&table)?;
        let (root, _) = as_superuser(|| checks::managed(&table))?;
        checks::owner(&checks::table(root)?)?;
        let Some(Value::Object(new)) = settings.map(|json| json.0) else {
            return Ok(());
        };
        for (name, value) in new.iter().filter(|(name, _)| *name != "*") {
            if value.is_null() {
                known(name)?;
            } else {
                check(name, value)?;
            }
            if relid != root && resource::of(name).is_none() {
                return Err(Error::new(
                    PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                    format!("{name} cannot be set of a partition"),
                )
                .detail(format!(
                    "{} is a partition; partitions have capacities of their own.",
                    table.name
                ))
                .hint("Set it of the managed table."));
            }
        }
        if let Some(Value::Array(list)) = new.get("targets") {
            for name in list {
                checks::tablespace_exists(name.as_str().unwrap_or_default())?;
            }
        }
        as_superuser(|| {
            // Two that set different things at the same time must not forget one of them.
            sql::execute(
                "LOCK TABLE shadowpart.policy IN SHARE ROW EXCLUSIVE MODE",
                &[],
            )?;
            let mut given = all()?;
            let of_table = given.get(&root.to_u32()).cloned().unwrap_or_default();
            let merged = merge(given.remove(&relid.to_u32()).unwrap_or_default(), new);
            check_together(&Settings::merged(&[&merged, &of_table]))?;
            if merged.is_empty() {
                sql::execute(
                    "DELETE FROM shadowpart.policy WHERE subject = $1",
                    &[relid.into()],
                )?;
            } else {
                sql::execute(
                    "INSERT INTO shadowpart.policy (subject, relation, settings) VALUES ($1, $2, $3)
                     ON CONFLICT (subject) DO UPDATE SET settings = excluded.settings",
                    &[relid.into(), root.into(), JsonB(Value::Object(merged)).into()],
                )?;
            }
            Ok(())
        })?;
        pgrx::register_xact_callback(
            pgrx::PgXactCallbackEvent::Commit,
            crate::job::shared::wake_autopilot,
        );
        Ok(())
    })());
}

/// There is a setting of this name.
fn known(name: &str) -> Result<()> {
    if OTHERS.contains(&name) || resource::of(name).is_some() {
        return Ok(());
    }
    Err(refuse(
        format!("there is no setting \"{name}\""),
        "Settings are named as shadow_policies shows them.",
        "SELECT DISTINCT setting FROM shadow_policies lists them.",
    ))
}

#[pg_extern(sql = false)]
fn set_target(tablespace: Option<String>, settings: Option<JsonB>) {
    or_raise((|| {
        require_preload()?;
        checks::not_in_recovery()?;
        // SAFETY: looks at the current user.
        if unsafe { !pg_sys::superuser() } {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                "must be superuser to add or drop targets",
            )
            .detail("A target is for all managed tables of the database.")
            .hint("The owner of a table chooses among the targets with shadow_set_policy(..., targets => ...)."));
        }
        let name = tablespace.ok_or_else(|| {
            Error::new(
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                "tablespace must not be NULL",
            )
            .detail("A target is a tablespace.")
            .hint("SELECT spcname FROM pg_tablespace lists them.")
        })?;
        let Some(settings) = settings else {
            let gone = sql::value::<bool>(
                "DELETE FROM shadowpart.target WHERE tablespace = $1::name RETURNING true",
                &[name.as_str().into()],
            )?;
            if gone != Some(true) {
                return Err(Error::new(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                    format!("tablespace \"{name}\" is not a target"),
                )
                .detail("Only what shadow_add_target() has added can be dropped.")
                .hint("To keep entities of one table away from it, use shadow_set_policy(..., targets => ...)."));
            }
            pgrx::register_xact_callback(
                pgrx::PgXactCallbackEvent::Commit,
                crate::job::shared::wake_autopilot,
            );
            return Ok(());
        };
        checks::tablespace_exists(&name)?;
        if let Value::Object(given) = &settings.0 {
            for (name, value) in given {
                check(name, value)?;
            }
        }
        sql::execute(
            "INSERT INTO shadowpart.target (tablespace, settings) VALUES ($1::name, $2)
             ON CONFLICT (tablespace) DO UPDATE SET settings = excluded.settings",
            &[name.into(), settings.into()],
        )?;
        pgrx::register_xact_callback(
            pgrx::PgXactCallbackEvent::Commit,
            crate::job::shared::wake_autopilot,
        );
        Ok(())
    })());
}

#[pg_extern(sql = false)]
fn effective_policy(subject: pg_sys::Oid, relation: pg_sys::Oid) -> JsonB {
    let settings = or_raise(as_superuser(|| {
        let given = all()?;
        let of = |oid: pg_sys::Oid| given.get(&oid.to_u32()).cloned().unwrap_or_default();
        Ok(Settings::merged(&[&of(subject), &of(relation)]))
    }));
    JsonB(settings.shown())
}

//! What would have been predicted and done on the recorded history of a table.

use super::memory;
use super::resource;
use super::series::{self, FLOWS};
use super::show::require_to_ask;
use crate::api::{as_superuser, checks, require_preload};
use crate::pg::error::{Error, Result, or_raise};
use crate::pg::latch;
use crate::record;
use ::backtest::{Options, Report, Trace};
use pgrx::datum::JsonB;
use pgrx::prelude::*;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Days of history that are replayed at most: rows of five minutes are not kept for longer.
const DAYS_MAX: i64 = 14;
/// Slots that are read at a time.
const CHUNK: i64 = 24;
/// Entities that are replayed, those that did most.
const ENTITIES_MAX: usize = 2_000;

/// The series of a table's entities, with the partition in which each was last seen.
struct Recorded {
    names: Vec<String>,
    partitions: Vec<u32>,
    /// By time, in microseconds: for each entity its load. Entities that come later are longer rows.
    slots: Vec<(i64, Vec<f32>)>,
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message)
}

#[pg_extern(sql = false)]
fn backtest(
    relation: Option<pg_sys::Oid>,
    resource: Option<String>,
    partitions: Option<i32>,
    horizon_ms: Option<i64>,
    seed: Option<i64>,
) -> JsonB {
    let metrics = or_raise((|| {
        require_preload()?;
        let table = checks::table(relation.unwrap_or(pg_sys::InvalidOid))?;
        let (root, _) = as_superuser(|| checks::managed(&table))?;
        require_to_ask(root)?;
        let name = resource.unwrap_or_default();
        let flow = resource::FLOWS
            .iter()
            .position(|r| resource::name(*r) == name);
        let flow = flow.ok_or_else(|| {
            invalid(format!("there is no recorded resource \"{name}\""))
                .detail(format!(
                    "They are {}.",
                    resource::FLOWS.map(resource::name).join(", ")
                ))
                .hint("The size of entities is not recorded over time.")
        })?;
        let partitions = match partitions {
            Some(n) if (1..=10_000).contains(&n) => Some(n as usize),
            None => None,
            Some(n) => {
                return Err(invalid("partitions must be between 1 and 10000")
                    .detail(format!("It is {n}."))
                    .hint("NULL takes the partitions that the entities are in."));
            }
        };
        let config = memory::config();
        let day_ms = i64::from(crate::guc::DAY_LENGTH_MS.get());
        let minutes = horizon_ms.unwrap_or(0).saturating_mul(1440) / day_ms;
        let minutes = u32::try_from(minutes)
            .ok()
            .filter(|m| (5..=1440).contains(m))
            .ok_or_else(|| {
                invalid("horizon must be between 5 minutes and a day")
                    .detail("It is how far ahead saturation is predicted.")
                    .hint("An hour is usual.")
            })?;
        let recorded = as_superuser(|| read(root.to_u32(), flow))?;
        // The pure part counts in real days.
        let step_us = 86_400_000_000 / i64::from(config.calendar.slots_per_day()).max(1);
        let options = Options {
            partitions: partitions.unwrap_or(0),
            horizon_minutes: minutes,
            seed: seed.unwrap_or(1).unsigned_abs(),
            ..Options::default()
        };
        run(recorded, step_us, options, partitions.is_none())
    })());
    JsonB(metrics)
}

fn run(recorded: Recorded, step_us: i64, mut options: Options, as_they_are: bool) -> Result<Value> {
    let count = recorded.names.len();
    let slots: Vec<(i64, Vec<f32>)> = (recorded.slots.into_iter())
        .map(|(slot, mut loads)| {
            loads.resize(count, 0.0);
            (slot.saturating_mul(step_us), loads)
        })
        .collect();
    let trace = Trace::of(recorded.names, slots, step_us);
    let mut members: Vec<Vec<usize>> = Vec::new();
    if as_they_are {
        let mut place: HashMap<u32, usize> = HashMap::new();
        for (entity, partition) in recorded.partitions.iter().enumerate() {
            let at = *place.entry(*partition).or_insert_with(|| {
                members.push(Vec::new());
                members.len() - 1
            });
            members[at].push(entity);
        }
        options.partitions = members.len();
    }
    let report = ::backtest::run_with(
        &trace,
        &options,
        as_they_are.then_some(members),
        &mut || {
            latch::check_interrupts();
        },
    );
    match report {
        Ok(report) => Ok(metrics(&report)),
        Err(why) => Err(Error::new(PgSqlErrorCode::ERRCODE_NO_DATA_FOUND, why.to_string())
            .detail("The history of the table is what is replayed.")
            .hint("Come back when the table has been managed for some days; see shadow_load_history.")),
    }
}

/// Reads the recorded load of the entities of a table.
fn read(root: u32, flow: usize) -> Result<Recorded> {
    let config = memory::config();
    let width_us = config.calendar.step_us();
    let now = config.calendar.slot(record::now_us());
    let level = series::level_of(width_us);
    let first = now - DAYS_MAX * i64::from(config.calendar.slots_per_day());
    let mut place: HashMap<String, usize> = HashMap::new();
    let mut recorded = Recorded {
        names: Vec::new(),
        partitions: Vec::new(),
        slots: Vec::new(),
    };
    let mut from = first;
    while from < now {
        let last = (from + CHUNK - 1).min(now - 1);
        for (number, slot) in series::read(width_us, level, from, last)? {
            if !slot.entities_of.contains(&root) {
                continue;
            }
            let mut loads = vec![0.0f32; recorded.names.len()];
            for load in slot.entities.iter().filter(|load| load.relation == root) {
                let at = match place.get(&load.entity) {
                    Some(at) => *at,
                    None if recorded.names.len() >= ENTITIES_MAX => continue,
                    None => {
                        place.insert(load.entity.clone(), recorded.names.len());
                        recorded.names.push(load.entity.clone());
                        recorded.partitions.push(0);
                        loads.push(0.0);
                        recorded.names.len() - 1
                    }
                };
                let rates: [f64; FLOWS] = load.rates;
                loads[at] += rates[flow] as f32;
                if load.partition != 0 {
                    recorded.partitions[at] = load.partition;
                }
            }
            recorded.slots.push((number, loads));
        }
        latch::check_interrupts();
        from = last + 1;
    }
    Ok(recorded)
}

/// What is shown, one figure a row: of the model, and of the reactive rule where it has one.
fn metrics(report: &Report) -> Value {
    let mut rows: Vec<Value> = Vec::new();
    let mut put = |metric: String, model: Option<f64>, reactive: Option<f64>| {
        rows.push(json!({"metric": metric, "model": model, "reactive": reactive}));
    };
    put("days forecast".into(), Some(report.trace.days), None);
    put("entities".into(), Some(report.trace.entities as f64), None);
    put(
        "partitions".into(),
        Some(report.trace.partitions as f64),
        None,
    );
    for (what, forecasts) in [
        ("entities", &report.entities),
        ("partitions", &report.partitions),
    ] {
        for (minutes, rmae) in forecasts.minutes.iter().zip(&forecasts.rmae) {
            put(
                format!("rMAE of {what}, {minutes:.0} min"),
                *rmae,
                Some(1.0),
            );
        }
    }
    let (trigger, reactive) = (&report.trigger, &report.reactive);
    put("base rate".into(), trigger.base_rate, None);
    put(
        "average precision".into(),
        trigger.average_precision,
        reactive.average_precision,
    );
    put("Brier score".into(), trigger.brier, None);
    put("calibration error".into(), trigger.ece, None);
    let rule = &reactive.at_80_percent;
    for (name, alarms, other) in [
        ("p >= 0.6", &trigger.at_60, None),
        ("p >= 0.7 in 2 of 3", &trigger.at_70_in_2_of_3, Some(rule)),
        (
            "p >= 0.7 in 2 of 3 or load >= 0.95",
            &report.trigger_with_net,
            None,
        ),
    ] {
        put(
            format!("precision, {name}"),
            alarms.precision,
            other.and_then(|o| o.precision),
        );
        put(
            format!("recall, {name}"),
            alarms.recall,
            other.and_then(|o| o.recall),
        );
        put(
            format!("lead in minutes, {name}"),
            alarms.lead_minutes,
            other.and_then(|o| o.lead_minutes),
        );
    }
    let moves = &report.moves;
    put("saturation avoided".into(), moves.avoided, None);
    put("entities moved a time".into(), moves.entities, None);
    put("size moved, per cent".into(), moves.size_percent, None);
    Value::Array(rows)
}

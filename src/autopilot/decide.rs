//! From what is seen to what is done: asks the pure state machine, records its decisions, and hands those
//! that are to be carried out to the jobs.

use super::act;
use super::forecasts::{self, Forecast};
use super::memory::Memory;
use super::resource;
use super::seen::{self, CANDIDATES_MAX, Leaf, Present};
use super::worker::step;
use crate::job::shared;
use crate::pg::error::Result;
use crate::pg::sql;
use crate::record::{self, time};
use ::autopilot::estimate::{Estimate, PastMove, TargetKind};
use ::autopilot::machine::{Action, Decision, Observation, Outcome, State, Tick};
use ::autopilot::policy::Mode;
use ::autopilot::resource::Loads;
use ::autopilot::selection::{Candidate, Rejected};
use pgrx::datum::{DatumWithOid, JsonB};
use pgrx::pg_sys;
use predict::EntityForecast;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Between two looks, unless a setting has changed, in microseconds: rules about the present load react within
/// a minute.
pub fn tick_us() -> i64 {
    (i64::from(crate::guc::PREDICT_SLOT_MS.get()) * 1000).min(60_000_000)
}

/// Entities of which a decision says why they were not chosen.
const REJECTED_STORED: usize = 20;

/// Entities that are kept, for shadow_plan(), of what was seen last.
const CANDIDATES_KEPT: usize = 2_000;

/// An executed decision whose outcome is open.
#[derive(Clone, Debug)]
struct Open {
    /// Its number in the state machine.
    decision: i64,
    row: i64,
    shadow: i64,
    action: String,
}

#[derive(Default)]
pub struct Decider {
    state: Option<State>,
    /// When it is time to look again, in microseconds since 2000.
    due_us: i64,
    /// The newest forecasts, by partition, with their time.
    forecasts: HashMap<u32, Vec<Forecast>>,
    entities: HashMap<u64, EntityForecast>,
    predicted_us: i64,
    open: Vec<Open>,
    /// The rows of the decisions of the tick before.
    rows: HashMap<(String, String), i64>,
}

impl Decider {
    /// There are new forecasts.
    pub fn predicted(
        &mut self,
        memory: &Memory,
        rows: Vec<Forecast>,
        entities: Vec<EntityForecast>,
    ) {
        self.forecasts.clear();
        for row in rows.into_iter().filter(|row| row.entity.is_none()) {
            self.forecasts.entry(row.partition).or_default().push(row);
        }
        self.entities = entities
            .into_iter()
            .map(|forecast| (forecast.id, forecast))
            .collect();
        self.predicted_us = memory.predictor.newest().map_or(0, |newest| {
            memory.predictor.config().calendar.start_us(newest + 1)
        });
        self.due_us = i64::MIN;
    }

    /// A setting has changed: it looks at once.
    pub fn hurry(&mut self) {
        self.due_us = i64::MIN;
    }

    /// Decides if it is time to.
    pub fn work(&mut self, memory: &Memory) -> Result<()> {
        let now_us = record::now_us();
        // The clock may have been set back.
        self.due_us = self.due_us.min(now_us + tick_us());
        if now_us < self.due_us && !shared::take_hurry() {
            return Ok(());
        }
        self.due_us = now_us + tick_us();
        if self.state.is_none() {
            let (state, open) = step(|| Ok((saved_state()?, open_decisions()?)))?;
            self.state = Some(state);
            self.open = open;
        }
        self.follow()?;
        let (mut seen, present, leaves) = step(seen::observe)?;
        self.complete(memory, &mut seen, &present, &leaves)?;
        let Some(state) = &mut self.state else {
            return Ok(());
        };
        let tick = state.tick(&seen);
        for cancel in &tick.cancel {
            log_failure(act::cancel(cancel.shadow));
        }
        self.record(&seen, &leaves, tick)
    }

    /// What became of the decisions that were carried out.
    fn follow(&mut self) -> Result<()> {
        let now_us = record::now_us();
        let open = std::mem::take(&mut self.open);
        for open in open {
            let outcome = step(|| act::outcome(open.shadow, &open.action))?;
            let Some((outcome, word, cost)) = outcome else {
                self.open.push(open);
                continue;
            };
            if let Some(state) = &mut self.state {
                state.outcome(open.decision, outcome, now_us);
                if let Some(cost) = cost {
                    state.record_move(&PastMove {
                        kind: TargetKind::Tablespace,
                        cost,
                    });
                }
            }
            step(|| set_outcome(open.row, &word))?;
        }
        Ok(())
    }

    /// Adds what the model says, and the entities of partitions that may need it.
    fn complete(
        &self,
        memory: &Memory,
        seen: &mut Observation,
        present: &Present,
        leaves: &[Leaf],
    ) -> Result<()> {
        let horizon_us = forecasts::horizon_ms(memory.predictor.config().trigger_minutes) * 1000;
        let with_shadows: Vec<String> = seen.shadows.iter().map(|s| s.unit.clone()).collect();
        for (unit, leaf) in seen.units.iter_mut().zip(leaves) {
            let rows: Vec<&Forecast> = self
                .forecasts
                .get(&leaf.partition)
                .into_iter()
                .flatten()
                .collect();
            let learned = seen::learned(&rows);
            for resource in ::autopilot::resource::Resource::ALL {
                if unit.capacity.get(*resource).is_none() {
                    *unit.capacity.get_mut(*resource) = *learned.get(*resource);
                }
            }
            let size =
                (memory.partitions.get(&leaf.partition)).and_then(|p| p.sizes.back().map(|s| s.1));
            unit.load = seen::with_size(unit.load, size);
            unit.prediction = seen::prediction(&rows, self.predicted_us, horizon_us);
            let policy = unit.policy.clone().unwrap_or_default();
            let fullest = unit
                .load
                .fullest(&unit.capacity)
                .map_or(0.0, |(_, fraction)| fraction);
            let confidence = unit.prediction.map_or(0.0, |p| p.confidence);
            // Where nothing may be done, too: shadow_plan() says what would be.
            let interesting = fullest >= policy.release_fraction
                || confidence >= policy.calm_confidence
                || with_shadows.contains(&unit.unit);
            if interesting && unit.candidates.is_empty() {
                unit.candidates = step(|| self.candidates(memory, present, leaf, size))?;
            }
        }
        Ok(())
    }

    /// The heaviest entities of a partition.
    fn candidates(
        &self,
        memory: &Memory,
        present: &Present,
        leaf: &Leaf,
        size: Option<f64>,
    ) -> Result<Vec<Candidate>> {
        let (bytes, other_bytes) = match size {
            Some(size) => seen::entity_bytes(leaf, size)?,
            None => (HashMap::new(), None),
        };
        let last = predict::HORIZONS - 1;
        let mut rates: HashMap<String, ([f64; super::series::FLOWS], u64)> = HashMap::new();
        for (id, entity) in memory
            .entities
            .iter()
            .filter(|(_, e)| e.partition == leaf.partition)
        {
            rates.insert(entity.name.clone(), (entity.rates, *id));
        }
        for ((relation, name), (partition, now)) in &present.entities {
            if *relation == leaf.relation && *partition == leaf.partition {
                let id = super::series::entity_id(*relation, name);
                rates.entry(name.clone()).or_insert((*now, id)).0 = *now;
            }
        }
        let mut list: Vec<(f64, Candidate)> = Vec::new();
        for (name, (rates, id)) in rates {
            let size = bytes.get(&name).copied().or(other_bytes);
            let now = seen::flows(&rates);
            // Other resources are taken to rise as the rows do.
            let (mut factor, mut usual) = (1.0, None);
            if let Some(forecast) = self.entities.get(&id) {
                let ratio = |value: f64| {
                    if rates[0] > 0.0 {
                        (value / rates[0]).min(1e6)
                    } else {
                        0.0
                    }
                };
                factor = if rates[0] > 0.0 {
                    ratio(forecast.at[last].mid.max(0.0))
                } else {
                    1.0
                };
                usual = forecast
                    .same_time
                    .map(|load| now.times(ratio(load.max(0.0))));
            }
            let candidate = Candidate {
                entity: name,
                forecast: seen::with_size(now.times(factor), size),
                usual: usual.map(|usual| seen::with_size(usual, size)),
                bytes: size.map(|bytes| bytes.max(1.0) as u64),
                ..Candidate::default()
            };
            list.push((candidate.relief().write_rows, candidate));
        }
        list.sort_by(|a, b| {
            b.0.total_cmp(&a.0)
                .then_with(|| a.1.entity.cmp(&b.1.entity))
        });
        Ok(list
            .into_iter()
            .take(CANDIDATES_MAX)
            .map(|(_, candidate)| candidate)
            .collect())
    }

    /// Records the decisions of a tick and carries out those that say so.
    fn record(&mut self, seen: &Observation, leaves: &[Leaf], tick: Tick) -> Result<()> {
        let relation_of: HashMap<String, u32> = leaves
            .iter()
            .map(|leaf| (leaf.partition.to_string(), leaf.relation))
            .collect();
        let mut again: Vec<i64> = Vec::new();
        let mut rows: HashMap<(String, String), i64> = HashMap::new();
        for decision in &tick.decisions {
            let key = (decision.unit.clone(), decision.action.word().to_owned());
            let relation = relation_of.get(&decision.unit).copied().unwrap_or(0);
            let known = self
                .rows
                .get(&key)
                .copied()
                .filter(|_| !decision.fresh && !decision.execute);
            let row = match known {
                Some(row) => {
                    again.push(row);
                    row
                }
                None => step(|| insert(decision, relation, &tick.rejected))?,
            };
            if decision.execute {
                self.execute(decision, relation, row)?;
            }
            rows.insert(key, row);
        }
        self.rows = rows;
        let state = serde_json::to_value(&self.state).unwrap_or(Value::Null);
        let seen = serde_json::to_value(short(seen)).unwrap_or(Value::Null);
        step(|| {
            save(state, seen)?;
            if !again.is_empty() {
                sql::execute(
                    "UPDATE shadowpart.decision SET times = times + 1, last_seen = pg_catalog.clock_timestamp()
                      WHERE id = ANY ($1)",
                    &[again.into()],
                )?;
            }
            judge_proposals()
        })
    }

    fn execute(&mut self, decision: &Decision, relation: u32, row: i64) -> Result<()> {
        let now_us = record::now_us();
        let done = step(|| {
            let shadow = act::carry_out(relation, &decision.action)?;
            sql::execute(
                "UPDATE shadowpart.decision SET shadow_id = $2, outcome = 'started' WHERE id = $1",
                &[row.into(), shadow.into()],
            )?;
            Ok(shadow)
        });
        let Some(state) = &mut self.state else {
            return Ok(());
        };
        match done {
            Ok(shadow) => {
                state.outcome(decision.id, Outcome::Started, now_us);
                self.open.push(Open {
                    decision: decision.id,
                    row,
                    shadow,
                    action: decision.action.word().to_owned(),
                });
                shared::wake_scheduler();
            }
            Err(error) => {
                state.outcome(decision.id, Outcome::Failed, now_us);
                step(|| set_outcome(row, &format!("failed: {}", error.message)))?;
            }
        }
        Ok(())
    }
}

/// What is kept of what was seen: the heaviest entities of partitions in need, a bounded number in all.
fn short(seen: &Observation) -> Observation {
    let mut short = seen.clone();
    let needy = short
        .units
        .iter()
        .filter(|unit| !unit.candidates.is_empty())
        .count();
    let each = (CANDIDATES_KEPT / needy.max(1)).max(5);
    for unit in &mut short.units {
        unit.candidates.truncate(each);
    }
    short
}

fn log_failure(outcome: Result<()>) {
    if let Err(error) = outcome {
        pgrx::log!("shadowpart autopilot: {error}");
    }
}

fn saved_state() -> Result<State> {
    let saved = sql::value::<JsonB>("SELECT machine FROM shadowpart.autopilot_state", &[])?;
    // What cannot be read was written by another version: it begins anew.
    Ok(saved
        .and_then(|json| serde_json::from_value(json.0).ok())
        .unwrap_or_default())
}

/// What the autopilot remembers, and what it saw last.
pub fn saved() -> Result<Option<(State, Observation)>> {
    let rows = sql::query(
        "SELECT machine, seen FROM shadowpart.autopilot_state",
        &[],
        |row| Ok((row.get::<JsonB>(1)?, row.get::<JsonB>(2)?)),
    )?;
    Ok(rows.into_iter().next().and_then(|(state, seen)| {
        Some((
            serde_json::from_value(state?.0).ok()?,
            serde_json::from_value(seen?.0).ok()?,
        ))
    }))
}

fn save(state: Value, seen: Value) -> Result<()> {
    sql::execute(
        "INSERT INTO shadowpart.autopilot_state (at, machine, seen)
         VALUES (pg_catalog.clock_timestamp(), $1, $2)
         ON CONFLICT (singleton) DO UPDATE SET at = excluded.at, machine = excluded.machine, seen = excluded.seen",
        &[JsonB(state).into(), JsonB(seen).into()],
    )?;
    Ok(())
}

fn open_decisions() -> Result<Vec<Open>> {
    sql::query(
        "SELECT (details ->> 'decision')::bigint, id, shadow_id, action FROM shadowpart.decision
          WHERE executed AND outcome = 'started' AND shadow_id IS NOT NULL ORDER BY id",
        &[],
        |row| {
            Ok(Open {
                decision: row.get::<i64>(1)?.unwrap_or(0),
                row: row.get::<i64>(2)?.unwrap_or(0),
                shadow: row.get::<i64>(3)?.unwrap_or(0),
                action: row.get::<String>(4)?.unwrap_or_default(),
            })
        },
    )
}

fn set_outcome(row: i64, outcome: &str) -> Result<()> {
    sql::execute(
        "UPDATE shadowpart.decision SET outcome = $2, outcome_at = pg_catalog.clock_timestamp() WHERE id = $1",
        &[row.into(), outcome.into()],
    )?;
    Ok(())
}

/// Entities of an action and its target.
pub fn objects(action: &Action) -> (Option<Vec<String>>, Option<String>) {
    match action {
        Action::CreateShadow { target, entities } => (Some(entities.clone()), Some(target.clone())),
        Action::AddEntities { entities, .. } | Action::RemoveEntities { entities, .. } => {
            (Some(entities.clone()), None)
        }
        Action::DropShadow { .. } | Action::Swap { .. } | Action::Hold => (None, None),
    }
}

/// The reason as one word: what kept it from being done, or called for it.
pub fn reason(decision: &Decision) -> &'static str {
    match (decision.blocked_by, decision.rejection) {
        (Some(block), _) => block.word(),
        (None, Some(rejection)) => rejection.word(),
        (None, None) => decision.reason.word(),
    }
}

/// Loads by the names that people set capacities by, as far as there are any.
fn amounts(loads: &Loads) -> Value {
    let some = (loads.iter()).filter(|(_, amount)| **amount > 0.0);
    some.map(|(resource, amount)| {
        let amount = (amount * 100.0).round() / 100.0;
        (resource::name(resource).to_owned(), json!(amount))
    })
    .collect::<serde_json::Map<_, _>>()
    .into()
}

/// Figures of a decision that have no column.
pub fn details(decision: &Decision, rejected: &[Rejected]) -> Value {
    let of_unit: Vec<Value> = (rejected.iter())
        .filter(|r| r.unit == decision.unit)
        .take(REJECTED_STORED)
        .map(
            |r| json!({"entity": r.entity, "target": r.target, "reason": r.reason, "text": r.text}),
        )
        .collect();
    json!({
        "decision": decision.id,
        "why": decision.reason,
        "need": amounts(&decision.need),
        "relief": amounts(&decision.relief),
        "dominant": decision.dominant,
        "rejected": of_unit,
    })
}

fn insert(decision: &Decision, relation: u32, rejected: &[Rejected]) -> Result<i64> {
    let (entities, target) = objects(&decision.action);
    let Estimate {
        bytes,
        duration_us,
        stall_us,
    } = decision.estimate;
    let partition = decision.unit.parse::<u32>().unwrap_or(0);
    let args: Vec<DatumWithOid<'_>> = vec![
        pg_sys::Oid::from(relation).into(),
        pg_sys::Oid::from(partition).into(),
        decision.action.word().into(),
        decision.trigger.word().into(),
        reason(decision).into(),
        decision.text.as_str().into(),
        entities.into(),
        target.into(),
        decision.confidence.into(),
        i64::try_from(bytes).unwrap_or(i64::MAX).into(),
        (duration_us / 1000).into(),
        (stall_us as f64 / 1000.0).into(),
        decision.execute.into(),
        decision.action.shadow().into(),
        JsonB(details(decision, rejected)).into(),
        decision.at_us.into(),
    ];
    let id = sql::value::<i64>(
        &format!(
            "INSERT INTO shadowpart.decision (at, last_seen, relation, partition, action, trigger, reason, message,
                    entities, target, confidence, bytes, duration_ms, stall_ms, executed, shadow_id, details)
             VALUES ({at}, {at}, $1, $2, $3, $4, $5, $6, $7, $8::name, $9, $10, $11, $12, $13, $14, $15)
             RETURNING id",
            at = time("$16")
        ),
        &args,
    )?;
    Ok(id.unwrap_or(0))
}

/// What was only proposed is judged too: did the partition saturate within the horizon?
fn judge_proposals() -> Result<()> {
    let horizon_ms = forecasts::horizon_ms(crate::guc::PREDICT_HORIZON_MIN.get().unsigned_abs());
    sql::execute(
        "UPDATE shadowpart.decision d
            SET outcome = CASE WHEN EXISTS (
                    SELECT FROM shadowpart.prediction p
                     WHERE p.partition = d.partition AND p.entity IS NULL AND p.crossed
                       AND p.at BETWEEN d.at - $1 * interval '1 ms' AND d.at + $1 * interval '1 ms'
                       AND p.crossed_at BETWEEN d.at AND d.at + $1 * interval '1 ms')
                    THEN 'saturated' ELSE 'did not saturate' END,
                outcome_at = pg_catalog.clock_timestamp()
          WHERE d.outcome IS NULL AND NOT d.executed AND d.action IN ('create_shadow', 'add_entities', 'swap')
            AND d.at < pg_catalog.clock_timestamp() - 2 * $1 * interval '1 ms'
            AND d.id > (SELECT coalesce(max(id), 0) - 1000 FROM shadowpart.decision)",
        &[horizon_ms.into()],
    )?;
    Ok(())
}

/// What would be decided now, by what was seen last, with settings and shadows as they are now. In the
/// session of whoever asks, with the rights of a superuser.
pub fn plan() -> Result<(Tick, Vec<Leaf>)> {
    let (now, _, leaves) = seen::observe()?;
    let (state, last) = saved()?.unwrap_or_default();
    let mut seen = now;
    // Quiet hours are by the worker's clock, whatever the time zone of who asks.
    if last.now_us != 0 {
        seen.utc_offset_minutes = last.utc_offset_minutes;
    }
    for unit in &mut seen.units {
        let Some(old) = last.units.iter().find(|old| old.unit == unit.unit) else {
            continue;
        };
        for resource in ::autopilot::resource::Resource::ALL {
            if unit.capacity.get(*resource).is_none() {
                *unit.capacity.get_mut(*resource) = *old.capacity.get(*resource);
            }
        }
        unit.load = seen::with_size(unit.load, Some(old.load.size));
        unit.prediction = old.prediction;
        if unit.candidates.is_empty() {
            unit.candidates = old.candidates.clone();
        }
    }
    // Off decides nothing; who asks wants to know what it would advise.
    if seen.policy.mode == Mode::Off {
        seen.policy.mode = Mode::Advise;
        for policy in seen
            .units
            .iter_mut()
            .filter_map(|unit| unit.policy.as_mut())
        {
            policy.mode = Mode::Advise;
            // Nobody has counted for how long the load has been as it is.
            policy.reactive_ticks = 1;
        }
    }
    Ok((state.plan(&seen), leaves))
}

//! Forecasts in a table: written, and judged once their horizon has passed.

use super::memory::Memory;
use super::resource;
use super::series;
use crate::guc;
use crate::pg::error::Result;
use crate::pg::sql;
use crate::record::time;
use ::autopilot::resource::Resource;
use pgrx::datum::{DatumWithOid, JsonB};
use pgrx::pg_sys;
use predict::growth::Growth;
use predict::{EntityForecast, Interval, UnitForecast, calendar::HORIZON_MINUTES};
use serde_json::json;

/// Entities of each table whose forecasts are stored, those with the most load to come.
const ENTITIES_STORED: usize = 20;
/// Forecasts judged in one transaction.
const JUDGED_MAX: i64 = 5_000;
/// Forecasts deleted in one transaction.
const DELETED_MAX: i64 = 20_000;
/// Forecasts are kept for two weeks.
const KEPT_DAYS: i64 = 14;

/// A row of the table, but for what is the same for all of one moment.
#[derive(Clone, Debug, Default)]
pub struct Forecast {
    pub relation: u32,
    pub partition: u32,
    pub entity: Option<String>,
    pub resource: &'static str,
    pub horizon_ms: i64,
    pub load: Option<f64>,
    pub capacity: Option<f64>,
    pub forecast: f64,
    pub low: f64,
    pub high: f64,
    pub probability: Option<f64>,
    pub stage: &'static str,
    pub drivers: Option<serde_json::Value>,
}

fn stage(stage: predict::Stage) -> &'static str {
    match stage {
        predict::Stage::Reactive => "reactive",
        predict::Stage::Linear => "linear",
        predict::Stage::Forest => "forest",
    }
}

/// Milliseconds that so many minutes of the calendar's day last.
pub fn horizon_ms(minutes: u32) -> i64 {
    i64::from(minutes) * i64::from(guc::DAY_LENGTH_MS.get()) / 1440
}

/// What is stored of units and entities. Units without a load and without a capacity say nothing.
pub fn rows(memory: &Memory, units: &[UnitForecast], entities: &[EntityForecast]) -> Vec<Forecast> {
    let mut rows = Vec::new();
    for unit in units {
        let partition = (unit.unit >> 8) as u32;
        let Some(resource) = Resource::ALL.get((unit.unit & 0xff) as usize) else {
            continue;
        };
        let Some(known) = memory.partitions.get(&partition) else {
            continue;
        };
        // What nobody said is too much is learned of rows alone.
        if unit.capacity.is_none()
            || unit.now.is_none()
            || unit.capacity_learned && resource != resource::LEARNED
        {
            continue;
        }
        rows.push(Forecast {
            relation: known.relation,
            partition,
            resource: resource::name(*resource),
            horizon_ms: horizon_ms(memory.predictor.config().trigger_minutes),
            load: unit.now,
            capacity: unit.capacity,
            forecast: unit.peak.mid,
            low: unit.peak.low,
            high: unit.peak.high,
            probability: Some(unit.probability),
            stage: stage(unit.stage),
            drivers: Some(json!({
                "features": unit.drivers.iter()
                    .map(|d| json!([d.name, (d.contribution * 1000.0).round() / 1000.0])).collect::<Vec<_>>(),
                "capacity_learned": unit.capacity_learned,
            })),
            ..Forecast::default()
        });
    }
    let mut of_table: std::collections::BTreeMap<u32, Vec<&EntityForecast>> = Default::default();
    for forecast in entities {
        if let Some(entity) = memory.entities.get(&forecast.id) {
            of_table.entry(entity.relation).or_default().push(forecast);
        }
    }
    for (relation, mut list) in of_table {
        let last = predict::HORIZONS - 1;
        list.sort_by(|a, b| (b.at[last].mid.total_cmp(&a.at[last].mid)).then(a.id.cmp(&b.id)));
        for forecast in list.into_iter().take(ENTITIES_STORED) {
            let Some(entity) = memory.entities.get(&forecast.id) else {
                continue;
            };
            for (at, minutes) in forecast.at.iter().zip(HORIZON_MINUTES) {
                rows.push(Forecast {
                    relation,
                    partition: entity.partition,
                    entity: Some(entity.name.clone()),
                    resource: resource::name(Resource::WriteRows),
                    horizon_ms: horizon_ms(minutes),
                    load: forecast.now,
                    forecast: at.mid,
                    low: at.low,
                    high: at.high,
                    stage: "entity",
                    ..Forecast::default()
                });
            }
        }
    }
    rows
}

/// How sure it is that sizes reach what was set for them: a straight line through the last sizes.
pub fn sizes(memory: &Memory) -> Result<Vec<Forecast>> {
    let given = super::policy::all()?;
    let nothing = super::policy::Given::new();
    let of = |oid: u32| given.get(&oid).unwrap_or(&nothing);
    let horizon_ms = horizon_ms(memory.predictor.config().trigger_minutes);
    let mut rows = Vec::new();
    for (oid, partition) in &memory.partitions {
        let settings = super::policy::Settings::merged(&[of(*oid), of(partition.relation)]);
        let (Some(capacity), Some((at_us, size))) =
            (settings.capacity.size, partition.sizes.back())
        else {
            continue;
        };
        let points: Vec<(i64, f64)> = partition.sizes.iter().copied().collect();
        let ahead = Growth::of(&points).map(|growth| growth.at(at_us + horizon_ms * 1000));
        let ahead = ahead.unwrap_or(Interval {
            low: *size,
            mid: *size,
            high: *size,
        });
        rows.push(Forecast {
            relation: partition.relation,
            partition: *oid,
            resource: resource::name(Resource::Size),
            horizon_ms,
            load: Some(*size),
            capacity: Some(capacity),
            forecast: ahead.mid,
            low: ahead.low,
            high: ahead.high,
            probability: Some(probability_above(&ahead, capacity)),
            stage: "growth",
            ..Forecast::default()
        });
    }
    rows.sort_by_key(|row| row.partition);
    Ok(rows)
}

/// The probability that a value is above a limit, where one in ten is above `high` and errors are normal
/// (the logistic function with a factor of 1.702 is within 0.01 of the normal distribution: Bowling et al.,
/// JIEM 2009).
fn probability_above(ahead: &Interval, limit: f64) -> f64 {
    let deviation = (ahead.high - ahead.mid) / 1.2816;
    if deviation <= 0.0 {
        return f64::from(u8::from(ahead.mid >= limit));
    }
    1.0 / (1.0 + (1.702 * (limit - ahead.mid) / deviation).exp())
}

/// Stores the forecasts of one moment, in microseconds since 2000: the end of the slot they are made from.
pub fn store(at_us: i64, rows: &[Forecast]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let oid = |oid: u32| pg_sys::Oid::from(oid);
    let args: Vec<DatumWithOid<'_>> = vec![
        at_us.into(),
        rows.iter()
            .map(|r| oid(r.relation))
            .collect::<Vec<_>>()
            .into(),
        rows.iter()
            .map(|r| oid(r.partition))
            .collect::<Vec<_>>()
            .into(),
        rows.iter()
            .map(|r| r.entity.clone())
            .collect::<Vec<_>>()
            .into(),
        rows.iter()
            .map(|r| Some(r.resource.to_owned()))
            .collect::<Vec<_>>()
            .into(),
        rows.iter().map(|r| r.horizon_ms).collect::<Vec<_>>().into(),
        rows.iter().map(|r| r.load).collect::<Vec<_>>().into(),
        rows.iter().map(|r| r.capacity).collect::<Vec<_>>().into(),
        rows.iter().map(|r| r.forecast).collect::<Vec<_>>().into(),
        rows.iter().map(|r| r.low).collect::<Vec<_>>().into(),
        rows.iter().map(|r| r.high).collect::<Vec<_>>().into(),
        rows.iter()
            .map(|r| r.probability)
            .collect::<Vec<_>>()
            .into(),
        rows.iter()
            .map(|r| Some(r.stage.to_owned()))
            .collect::<Vec<_>>()
            .into(),
        rows.iter()
            .map(|r| r.drivers.clone().map(|d| d.to_string()))
            .collect::<Vec<_>>()
            .into(),
    ];
    sql::execute(
        &format!(
            "INSERT INTO shadowpart.prediction (at, relation, partition, entity, resource, horizon_ms, load,
                    capacity, forecast, low, high, probability, stage, drivers, due_at)
             SELECT {at}, r.relation, nullif(r.partition, 0), r.entity, r.resource, r.horizon_ms, r.load,
                    r.capacity, r.forecast, r.low, r.high, r.probability, r.stage, r.drivers::jsonb,
                    {at} + r.horizon_ms * interval '1 ms'
               FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
                    r (relation, partition, entity, resource, horizon_ms, load, capacity, forecast, low, high,
                       probability, stage, drivers)",
            at = time("$1")
        ),
        &args,
    )?;
    Ok(())
}

/// Judges forecasts whose horizon ends before the slot that comes next.
pub fn judge(memory: &Memory) -> Result<()> {
    let Some(next) = memory.next else {
        return Ok(());
    };
    let calendar = memory.predictor.config().calendar;
    let open = sql::query(
        &format!(
            "SELECT p.ctid::text, p.relation, p.partition, p.entity, p.resource, p.capacity,
                    (extract(epoch FROM p.at - timestamptz '2000-01-01 00:00:00+00') * 1000000)::bigint,
                    p.horizon_ms,
                    p.partition IS NOT NULL AND EXISTS (
                        SELECT FROM shadowpart.event e JOIN shadowpart.pair q ON q.shadow_id = e.shadow_id
                         WHERE e.event IN ('swap', 'revert') AND e.at BETWEEN p.at AND p.due_at
                           AND p.partition IN (q.primary_relid, q.shadow_relid))
               FROM shadowpart.prediction p
              WHERE p.resolved_at IS NULL AND p.due_at <= {}
              ORDER BY p.due_at LIMIT {JUDGED_MAX}",
            time("$1")
        ),
        &[calendar.start_us(next).into()],
        |row| {
            Ok((
                row.get::<String>(1)?.unwrap_or_default(),
                row.get::<pg_sys::Oid>(2)?.map_or(0, |oid| oid.to_u32()),
                row.get::<pg_sys::Oid>(3)?.map_or(0, |oid| oid.to_u32()),
                row.get::<String>(4)?,
                row.get::<String>(5)?.unwrap_or_default(),
                row.get::<f64>(6)?,
                row.get::<i64>(7)?.unwrap_or(0),
                row.get::<i64>(8)?.unwrap_or(0),
                row.get::<bool>(9)?.unwrap_or(false),
            ))
        },
    )?;
    let mut ids: Vec<String> = Vec::new();
    let mut actual: Vec<Option<f64>> = Vec::new();
    let mut crossed: Vec<Option<bool>> = Vec::new();
    let mut crossed_us: Vec<Option<i64>> = Vec::new();
    let mut excluded: Vec<bool> = Vec::new();
    for (id, relation, partition, entity, resource, capacity, at_us, horizon_ms, ours) in open {
        // Forecasts are made at the end of a slot, the newest that they know.
        let after = calendar.slot(at_us - 1);
        let until = calendar.slot((at_us + horizon_ms * 1000 - 1).max(at_us));
        let flow = resource::FLOWS
            .iter()
            .position(|r| resource::name(*r) == resource);
        let (value, crossing) = match (entity, flow) {
            (Some(entity), _) => {
                let slots =
                    ((horizon_ms * 1000 + calendar.step_us() / 2) / calendar.step_us()).max(1);
                let id = series::entity_id(relation, &entity);
                (memory.entity_load(id, after + slots), None)
            }
            (None, Some(flow)) => match memory.outcome(partition, flow, after, until, capacity) {
                Some((peak, slot)) => (Some(peak), slot),
                None => (None, None),
            },
            (None, None) => {
                let size =
                    (memory.partitions.get(&partition)).and_then(|p| p.sizes.back().map(|s| s.1));
                (size, None)
            }
        };
        ids.push(id);
        actual.push(value);
        crossed.push(
            value
                .zip(capacity)
                .map(|(value, capacity)| value >= capacity),
        );
        crossed_us.push(crossing.map(|slot| calendar.start_us(slot + 1)));
        excluded.push(ours);
    }
    if ids.is_empty() {
        return Ok(());
    }
    sql::execute(
        &format!(
            "UPDATE shadowpart.prediction p
                SET actual = u.actual, crossed = u.crossed, excluded = u.excluded,
                    crossed_at = {}, resolved_at = pg_catalog.clock_timestamp()
               FROM unnest($1::text[], $2, $3, $4, $5) u (id, actual, crossed, crossed_us, excluded)
              WHERE p.ctid = u.id::tid",
            time("u.crossed_us")
        ),
        &[
            ids.into(),
            actual.into(),
            crossed.into(),
            crossed_us.into(),
            excluded.into(),
        ],
    )?;
    Ok(())
}

/// Deletes what is old, a bounded number of rows.
pub fn retire(now_us: i64) -> Result<()> {
    let day_us = i64::from(guc::DAY_LENGTH_MS.get()) * 1000;
    let retention_us = i64::from(guc::HISTORY_RETENTION_MIN.get()) * 60_000_000;
    let cutoff_us = now_us - (KEPT_DAYS * day_us.max(86_400_000_000)).min(retention_us);
    for (table, column) in [("prediction", "at"), ("decision", "last_seen")] {
        sql::execute(
            &format!(
                "DELETE FROM shadowpart.{table} WHERE ctid = ANY (ARRAY(
                    SELECT ctid FROM shadowpart.{table} WHERE {column} < {} LIMIT {DELETED_MAX}))",
                time("$1")
            ),
            &[cutoff_us.into()],
        )?;
    }
    Ok(())
}

/// The model's state, if one was saved.
pub fn saved_model() -> Result<Option<Vec<u8>>> {
    sql::value::<Vec<u8>>("SELECT state FROM shadowpart.model", &[])
}

/// Saves the model's state.
pub fn save_model(state: Vec<u8>, details: serde_json::Value) -> Result<()> {
    sql::execute(
        "INSERT INTO shadowpart.model (state, saved_at, details) VALUES ($1, pg_catalog.clock_timestamp(), $2)
         ON CONFLICT (singleton) DO UPDATE
            SET state = excluded.state, saved_at = excluded.saved_at, details = excluded.details",
        &[state.into(), JsonB(details).into()],
    )?;
    Ok(())
}

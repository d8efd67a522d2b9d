//! What the autopilot looks at: partitions, entities, shadows, targets and the machine, as they are now.

use super::policy::{self, Given, Settings};
use super::resource;
use super::series::{self, FLOWS};
use crate::guc;
use crate::pg::error::Result;
use crate::pg::sql;
use crate::record;
use ::autopilot::machine::{
    Busy, Job, JobKind, Observation, Origin, Prediction, ShadowSeen, Stage, UnitSeen,
};
use ::autopilot::resource::{Loads, PerResource, Resource};
use ::autopilot::selection::{Barred, Candidate, Target};
use ::autopilot::training::{Change, Event};
use ::load::history::Level;
use lifecycle::{Goal, State};
use pgrx::pg_sys;
use std::collections::{HashMap, HashSet};

/// Looks at the counters that the present load is averaged over.
const PRESENT_ROWS: i64 = 3;
/// Entities of a partition that are considered: the heaviest.
pub const CANDIDATES_MAX: usize = 200;

/// A learned capacity of fewer rows a second is none: any machine bears more.
const LEARNED_MIN: f64 = 10.0;

/// A leaf of a managed table.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub relation: u32,
    pub partition: u32,
    pub tablespace: String,
    /// Where the table's owner may create.
    pub allowed: Vec<String>,
}

/// The load of the last minutes.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// Per second, by partition.
    pub partitions: HashMap<u32, [f64; FLOWS]>,
    /// Partition and load per second, by table and entity.
    pub entities: HashMap<(u32, String), (u32, [f64; FLOWS])>,
    /// The end of the newest row, in microseconds since 2000.
    pub at_us: Option<i64>,
}

/// Loads of resources that flow.
pub fn flows(rates: &[f64; FLOWS]) -> Loads {
    let mut loads = Loads::default();
    for (resource, rate) in resource::FLOWS.iter().zip(rates) {
        *loads.get_mut(*resource) = *rate;
    }
    loads.known()
}

/// The leaves of all managed tables.
pub fn leaves() -> Result<Vec<Leaf>> {
    sql::query(
        "SELECT m.relation::oid, t.relid, coalesce(s.spcname, d.spcname)::text,
                ARRAY(SELECT a.spcname::text FROM pg_catalog.pg_tablespace a
                       WHERE a.spcname <> 'pg_global'
                         AND (a.oid = d.oid OR pg_catalog.has_tablespace_privilege(r.relowner, a.oid, 'CREATE'))
                       ORDER BY 1)
           FROM shadowpart.managed m
           JOIN pg_catalog.pg_class r ON r.oid = m.relation
          CROSS JOIN LATERAL shadowpart.tree(m.relation) t
           JOIN pg_catalog.pg_class c ON c.oid = t.relid
          CROSS JOIN (SELECT s.oid, s.spcname FROM pg_catalog.pg_database b JOIN pg_catalog.pg_tablespace s
                         ON s.oid = b.dattablespace WHERE b.datname = pg_catalog.current_database()) d
           LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = c.reltablespace
          WHERE t.isleaf AND c.relkind = 'r' ORDER BY 1, 2",
        &[],
        |row| {
            Ok(Leaf {
                relation: row.get::<pg_sys::Oid>(1)?.map_or(0, |oid| oid.to_u32()),
                partition: row.get::<pg_sys::Oid>(2)?.map_or(0, |oid| oid.to_u32()),
                tablespace: row.get::<String>(3)?.unwrap_or_default(),
                allowed: row.get::<Vec<String>>(4)?.unwrap_or_default(),
            })
        },
    )
}

/// What was done in the last minutes, from the newest rows of the history.
pub fn present() -> Result<Present> {
    let tick_us = i64::from(guc::HISTORY_INTERVAL_MS.get()) * 1000;
    let now_us = record::now_us();
    let last = now_us.div_euclid(tick_us);
    let rows = series::read(tick_us, Level::Minute, last - PRESENT_ROWS - 3, last)?;
    let mut present = Present::default();
    let newest: Vec<_> = (rows.iter().rev())
        .filter(|(_, row)| !row.partitions_of.is_empty())
        .take(PRESENT_ROWS as usize)
        .collect();
    let count = newest.len().max(1) as f64;
    for (slot, row) in newest {
        present.at_us = present.at_us.max(Some((*slot + 1).saturating_mul(tick_us)));
        for load in &row.partitions {
            let sums = present.partitions.entry(load.partition).or_default();
            for (sum, rate) in sums.iter_mut().zip(load.rates) {
                *sum += rate / count;
            }
        }
        for load in &row.entities {
            let key = (load.relation, load.entity.clone());
            let (_, sums) = present
                .entities
                .entry(key)
                .or_insert((load.partition, [0.0; FLOWS]));
            for (sum, rate) in sums.iter_mut().zip(load.rates) {
                *sum += rate / count;
            }
        }
    }
    Ok(present)
}

/// A live shadow, with what is not the pure part's business.
struct Live {
    id: i64,
    partition: u32,
    entities: Option<Vec<String>>,
    target: String,
    state: State,
    goal: Goal,
    ours: bool,
    created_us: i64,
    swapped_us: Option<i64>,
}

fn live() -> Result<Vec<Live>> {
    let rows = sql::query(
        "SELECT s.id, (SELECT q.primary_relid FROM shadowpart.pair q WHERE q.shadow_id = s.id ORDER BY q.id LIMIT 1),
                s.entities, s.target::text, s.state, s.goal, s.origin = 'autopilot',
                (extract(epoch FROM s.created_at - timestamptz '2000-01-01 00:00:00+00') * 1000000)::bigint,
                (SELECT (extract(epoch FROM max(e.at) - timestamptz '2000-01-01 00:00:00+00') * 1000000)::bigint
                   FROM shadowpart.event e WHERE e.shadow_id = s.id AND e.event IN ('swap', 'revert'))
           FROM shadowpart.shadow s
          WHERE s.state NOT IN ('finalized', 'dropped', 'failed', 'cancelled') ORDER BY s.id",
        &[],
        |row| {
            Ok((
                row.get::<i64>(1)?.unwrap_or(0),
                row.get::<pg_sys::Oid>(2)?.map_or(0, |oid| oid.to_u32()),
                row.get::<Vec<String>>(3)?,
                row.get::<String>(4)?.unwrap_or_default(),
                row.get::<String>(5)?.unwrap_or_default(),
                row.get::<String>(6)?.unwrap_or_default(),
                row.get::<bool>(7)?.unwrap_or(false),
                row.get::<i64>(8)?.unwrap_or(0),
                row.get::<i64>(9)?,
            ))
        },
    )?;
    let known = rows.into_iter().filter_map(
        |(id, partition, entities, target, state, goal, ours, created_us, swapped_us)| {
            Some(Live {
                id,
                partition,
                entities,
                target,
                state: state.parse().ok()?,
                goal: goal.parse().ok()?,
                ours,
                created_us,
                swapped_us,
            })
        },
    );
    Ok(known.collect())
}

fn stage(state: State, goal: Goal) -> Stage {
    match (state, goal) {
        (_, Goal::Dropped | Goal::Cancelled | Goal::Failed | Goal::Finalized) => Stage::Ending,
        (State::Ready, _) => Stage::Ready,
        (State::Migrated, _) => Stage::Migrated,
        (State::Queued | State::Building | State::Adding | State::Removing, _) => Stage::Building,
        _ => Stage::Ending,
    }
}

/// What a shadow that is not where it should be has under way.
fn job(live: &Live) -> Option<JobKind> {
    lifecycle::next(live.state, live.goal)?;
    Some(match (live.state, live.goal) {
        (_, Goal::Dropped | Goal::Cancelled | Goal::Failed | Goal::Finalized) => JobKind::Drop,
        (State::Queued | State::Building, _) => JobKind::Create,
        (State::Adding | State::Removing, _) => JobKind::Resize,
        _ => JobKind::Swap,
    })
}

fn origin(ours: bool) -> Origin {
    if ours {
        Origin::Autopilot
    } else {
        Origin::Person
    }
}

/// How busy CPUs and disks were in the last minutes.
fn busy() -> Result<Vec<Busy>> {
    if guc::BUSY_PERCENT.get() >= 100 {
        return Ok(Vec::new());
    }
    let rows = sql::query(
        "SELECT what, used FROM (
            SELECT 'cpu' AS what, h.cpu_busy AS used, h.at, 1 AS place FROM (
                SELECT * FROM shadowpart.host_history WHERE level = 1 ORDER BY at DESC LIMIT 1) h
            UNION ALL
            SELECT d.device, d.utilisation, d.at, 2 FROM (
                SELECT DISTINCT ON (device) * FROM shadowpart.disk_history
                 WHERE level = 1 AND at > pg_catalog.now() - interval '3 min' ORDER BY device, at DESC) d) b
          WHERE b.used IS NOT NULL AND b.at > pg_catalog.now() - interval '3 min' ORDER BY b.place, b.what",
        &[],
        |row| Ok((row.get::<String>(1)?, row.get::<f64>(2)?)),
    )?;
    let known = rows.into_iter().filter_map(|(what, fraction)| {
        Some(Busy {
            what: what?,
            fraction: fraction.filter(|f| f.is_finite())?,
        })
    });
    Ok(known.collect())
}

/// Minutes that the time zone of the database is ahead of UTC now.
fn utc_offset() -> Result<i32> {
    let minutes = sql::value::<i32>(
        "SELECT (extract(timezone FROM pg_catalog.now()) / 60)::integer",
        &[],
    )?;
    Ok(minutes.unwrap_or(0))
}

/// Everything but what the model says of it.
pub fn observe() -> Result<(Observation, Present, Vec<Leaf>)> {
    let given = policy::all()?;
    let leaves = leaves()?;
    let present = present()?;
    let shadows = live()?;
    let mut seen = Observation {
        now_us: record::now_us(),
        utc_offset_minutes: utc_offset()?,
        kill: false,
        policy: policy::general(),
        busy: busy()?,
        targets: targets(&leaves, &present)?,
        ..Observation::default()
    };
    for live in &shadows {
        seen.shadows.push(ShadowSeen {
            id: live.id,
            unit: live.partition.to_string(),
            target: live.target.clone(),
            entities: live.entities.clone().unwrap_or_default(),
            stage: stage(live.state, live.goal),
            origin: origin(live.ours),
            created_at_us: live.created_us,
            swapped_at_us: live.swapped_us,
        });
        seen.jobs.extend(job(live).map(|kind| Job {
            id: live.id,
            shadow: live.id,
            kind,
            origin: origin(live.ours),
        }));
    }
    let whole: HashSet<u32> = (shadows.iter())
        .filter(|live| live.entities.is_none())
        .map(|live| live.partition)
        .collect();
    let nothing = Given::new();
    let of = |oid: u32| given.get(&oid).unwrap_or(&nothing);
    for leaf in &leaves {
        let settings = Settings::merged(&[of(leaf.partition), of(leaf.relation)]);
        let allowed = leaf.allowed.iter().filter(|name| {
            settings
                .targets
                .as_ref()
                .is_none_or(|targets| targets.contains(name))
        });
        let rates = present
            .partitions
            .get(&leaf.partition)
            .copied()
            .unwrap_or_default();
        seen.units.push(UnitSeen {
            unit: leaf.partition.to_string(),
            table: leaf.relation.to_string(),
            policy: Some(settings.policy()),
            load: flows(&rates),
            load_at_us: present.at_us,
            capacity: settings.capacity,
            home: Some(leaf.tablespace.clone()),
            targets: Some(allowed.cloned().collect()),
            // All of it is under way already.
            candidates: if whole.contains(&leaf.partition) {
                vec![Candidate {
                    barred: Some(Barred::Held),
                    ..Candidate::default()
                }]
            } else {
                Vec::new()
            },
            ..UnitSeen::default()
        });
    }
    Ok((seen, present, leaves))
}

/// Targets: those that were added, or all tablespaces that any owner may use; their load is that of all
/// partitions that lie there.
fn targets(leaves: &[Leaf], present: &Present) -> Result<Vec<Target>> {
    let added = policy::targets()?;
    let mut names: Vec<String> = if added.is_empty() {
        leaves
            .iter()
            .flat_map(|leaf| leaf.allowed.iter().cloned())
            .collect()
    } else {
        added.keys().cloned().collect()
    };
    names.sort_unstable();
    names.dedup();
    let mut loads: HashMap<&str, Loads> = HashMap::new();
    for leaf in leaves {
        if let Some(rates) = present.partitions.get(&leaf.partition) {
            let sum = loads.entry(leaf.tablespace.as_str()).or_default();
            *sum = sum.plus(&flows(rates));
        }
    }
    let targets = names.into_iter().map(|name| Target {
        capacity: added.get(&name).copied().unwrap_or_default(),
        load: loads.get(name.as_str()).copied().unwrap_or_default(),
        free_bytes: crate::pg::disk::free_bytes(&name),
        name,
        ..Target::default()
    });
    Ok(targets.collect())
}

/// What the model says of a partition: its confidence is the highest over the resources.
pub fn prediction(
    rows: &[&super::forecasts::Forecast],
    at_us: i64,
    horizon_us: i64,
) -> Option<Prediction> {
    let mut peak = Loads::default();
    let mut best: Option<(f64, i64)> = None;
    for row in rows {
        let (Some(resource), Some(probability)) = (resource::of(row.resource), row.probability)
        else {
            continue;
        };
        *peak.get_mut(resource) = row.forecast.max(0.0);
        // The load is taken to rise evenly up to the peak.
        let lead_us = match (row.load, row.capacity) {
            (Some(load), Some(capacity)) if row.forecast > capacity && capacity > load => {
                (horizon_us as f64 * (capacity - load) / (row.forecast - load)) as i64
            }
            // It has crossed; zero would mean that it is not known.
            (Some(load), Some(capacity)) if load >= capacity => 1,
            _ => horizon_us,
        };
        if best.is_none_or(|(confidence, _)| probability > confidence) {
            best = Some((probability, lead_us));
        }
    }
    let (confidence, lead_us) = best?;
    Some(Prediction {
        at_us,
        confidence,
        peak: peak.known(),
        lead_us,
    })
}

/// Capacities that forecasts were made against, where they are not configured. A partition that idles has
/// not shown what it can bear.
pub fn learned(rows: &[&super::forecasts::Forecast]) -> PerResource<Option<f64>> {
    PerResource::from_fn(|resource| {
        (rows.iter())
            .filter(|row| resource::of(row.resource) == Some(resource))
            .find_map(|row| row.capacity)
            .filter(|capacity| *capacity >= LEARNED_MIN)
    })
}

/// Bytes of the entities of a partition, as far as its statistics tell: the share of rows of the most common
/// ones, and what is left shared among the others. Nothing without statistics.
pub fn entity_bytes(leaf: &Leaf, size: f64) -> Result<(HashMap<String, f64>, Option<f64>)> {
    let rows = sql::query(
        "SELECT s.most_common_vals::text::text[], s.most_common_freqs::float8[],
                CASE WHEN s.n_distinct < 0 THEN -s.n_distinct * greatest(c.reltuples, 1) ELSE s.n_distinct END::float8
           FROM shadowpart.managed m
           JOIN pg_catalog.pg_class c ON c.oid = $2
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_catalog.pg_stats s
             ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = m.entity_column
          WHERE m.relation = $1 AND NOT s.inherited",
        &[pg_sys::Oid::from(leaf.relation).into(), pg_sys::Oid::from(leaf.partition).into()],
        |row| {
            Ok((
                row.get::<Vec<Option<String>>>(1)?.unwrap_or_default(),
                row.get::<Vec<f64>>(2)?.unwrap_or_default(),
                row.get::<f64>(3)?.unwrap_or(0.0),
            ))
        },
    )?;
    let Some((values, shares, distinct)) = rows.into_iter().next() else {
        return Ok((HashMap::new(), None));
    };
    let common: f64 = shares.iter().sum();
    let others = (distinct - values.len() as f64).max(1.0);
    let rest = (size * (1.0 - common).max(0.0) / others).max(1.0);
    let known = values
        .into_iter()
        .zip(&shares)
        .filter_map(|(value, share)| Some((value?, size * share)));
    Ok((known.collect(), Some(rest)))
}

/// What was done to partitions by shadows since a time, in microseconds since 2000.
pub fn changes(since_us: i64) -> Result<Vec<Event>> {
    let rows = sql::query(
        &format!(
            "SELECT q.primary_relid, q.shadow_relid, e.event IN ('swap', 'revert'),
                    (extract(epoch FROM e.at - timestamptz '2000-01-01 00:00:00+00') * 1000000)::bigint,
                    coalesce(e.took_ms, 0)
               FROM shadowpart.event e JOIN shadowpart.pair q ON q.shadow_id = e.shadow_id
              WHERE e.at >= {} AND e.event IN ('swap', 'revert', 'copy')",
            record::time("$1")
        ),
        &[since_us.into()],
        |row| {
            Ok((
                [row.get::<pg_sys::Oid>(1)?, row.get::<pg_sys::Oid>(2)?],
                row.get::<bool>(3)?.unwrap_or(false),
                row.get::<i64>(4)?.unwrap_or(0),
                row.get::<f64>(5)?.unwrap_or(0.0),
            ))
        },
    )?;
    let mut events = Vec::new();
    for (sides, swap, at_us, took_ms) in rows {
        for side in sides.into_iter().flatten() {
            events.push(Event {
                unit: side.to_u32().to_string(),
                change: if swap { Change::Swap } else { Change::Build },
                from_us: at_us - (took_ms * 1000.0) as i64,
                to_us: at_us,
            });
        }
    }
    Ok(events)
}

/// The size of an entity among its loads.
pub fn with_size(mut loads: Loads, bytes: Option<f64>) -> Loads {
    *loads.get_mut(Resource::Size) = bytes.unwrap_or(0.0);
    loads
}

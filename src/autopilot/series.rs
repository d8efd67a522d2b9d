//! The recorded load, as the predictor takes it: one slot after the other, what was not measured missing.
//!
//! A slot is made of the rows of the history whose middle lies in it. Rows of five minutes serve where slots
//! are no finer and the rows are there; the newest slots are made of minutes, as they come.

use crate::pg::error::Result;
use crate::pg::sql;
use ::autopilot::resource::Resource;
use ::load::history::Level;
use pgrx::pg_sys;
use std::collections::{BTreeMap, HashMap, HashSet};

/// How many measures of an entity are followed; see [`super::resource::FLOWS`].
pub const FLOWS: usize = super::resource::FLOWS.len();

/// What an entity did in a slot, per second.
#[derive(Clone, Debug)]
pub struct EntityLoad {
    pub relation: u32,
    pub entity: String,
    /// Where it was last seen; zero if not known.
    pub partition: u32,
    pub rates: [f64; FLOWS],
}

/// What was done to a partition in a slot, per second; its size at the end.
#[derive(Clone, Debug)]
pub struct PartitionLoad {
    pub relation: u32,
    pub partition: u32,
    pub rates: [f64; FLOWS],
    pub size: Option<f64>,
}

/// One slot.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    /// Tables whose entities were looked at: who has no row there did nothing.
    pub entities_of: HashSet<u32>,
    pub entities: Vec<EntityLoad>,
    /// Likewise for partitions.
    pub partitions_of: HashSet<u32>,
    pub partitions: Vec<PartitionLoad>,
}

/// SQL for the number of the slot that the middle of a row lies in; `$1` is the width in microseconds.
const SLOT: &str =
    "(floor((extract(epoch FROM h.at - timestamptz '2000-01-01 00:00:00+00') * 1000000
                    + h.covered_ms * 500) / $1::bigint))::bigint";

/// What both questions are asked with: width, level, begin and end of the rows, first and last slot.
fn arguments(
    width_us: i64,
    level: Level,
    first: i64,
    last: i64,
) -> Vec<pgrx::datum::DatumWithOid<'static>> {
    let minutes = level.width_us() / 60_000_000;
    vec![
        width_us.into(),
        minutes.into(),
        // Rows may begin before the slot that their middle lies in.
        first
            .saturating_mul(width_us)
            .saturating_sub(level.width_us())
            .into(),
        last.saturating_add(1).saturating_mul(width_us).into(),
        first.into(),
        last.into(),
    ]
}

const RANGE: &str = "h.level = $2
            AND h.at >= timestamptz '2000-01-01 00:00:00+00' + $3::bigint * interval '1 microsecond'
            AND h.at < timestamptz '2000-01-01 00:00:00+00' + $4::bigint * interval '1 microsecond'";

/// The slots from `first` to `last` that something is known of.
pub fn read(width_us: i64, level: Level, first: i64, last: i64) -> Result<BTreeMap<i64, Slot>> {
    let mut slots: BTreeMap<i64, Slot> = BTreeMap::new();
    entities(width_us, level, first, last, &mut slots)?;
    partitions(width_us, level, first, last, &mut slots)?;
    Ok(slots)
}

fn entities(
    width_us: i64,
    level: Level,
    first: i64,
    last: i64,
    slots: &mut BTreeMap<i64, Slot>,
) -> Result<()> {
    let rows = sql::query(
        &format!(
            "SELECT s.slot, h.relation, h.entity, pg_catalog.max(h.partition),
                    pg_catalog.sum(h.inserts + h.updates + h.deletes)::float8,
                    pg_catalog.sum(h.bytes_written)::float8, pg_catalog.sum(h.cpu_us)::float8 / 1000,
                    pg_catalog.sum(h.blocks_read)::float8, pg_catalog.sum(h.covered_ms)::float8 / 1000
               FROM shadowpart.entity_history h CROSS JOIN LATERAL (SELECT {SLOT} AS slot) s
              WHERE {RANGE} AND s.slot BETWEEN $5 AND $6
              GROUP BY s.slot, h.relation, h.entity
              ORDER BY s.slot, h.entity IS NOT NULL"
        ),
        &arguments(width_us, level, first, last),
        |row| {
            let float = |place| Ok::<f64, pgrx::spi::Error>(row.get::<f64>(place)?.unwrap_or(0.0));
            Ok((
                row.get::<i64>(1)?.unwrap_or(0),
                row.get::<pg_sys::Oid>(2)?.map_or(0, |oid| oid.to_u32()),
                row.get::<String>(3)?,
                row.get::<pg_sys::Oid>(4)?.map_or(0, |oid| oid.to_u32()),
                [float(5)?, float(6)?, float(7)?, float(8)?],
                float(9)?,
            ))
        },
    )?;
    // Rates are over what was covered of the table, which its row without an entity says: it comes first.
    let mut covered: HashMap<u32, f64> = HashMap::new();
    let mut slot_now = None;
    for (slot, relation, entity, partition, sums, covered_s) in rows {
        if slot_now != Some(slot) {
            covered.clear();
            slot_now = Some(slot);
        }
        let of = slots.entry(slot).or_default();
        let Some(entity) = entity else {
            if covered_s > 0.0 {
                of.entities_of.insert(relation);
                covered.insert(relation, covered_s);
            }
            continue;
        };
        if let Some(covered_s) = covered.get(&relation) {
            of.entities.push(EntityLoad {
                relation,
                entity,
                partition,
                rates: sums.map(|sum| sum / covered_s),
            });
        }
    }
    Ok(())
}

fn partitions(
    width_us: i64,
    level: Level,
    first: i64,
    last: i64,
    slots: &mut BTreeMap<i64, Slot>,
) -> Result<()> {
    let rows = sql::query(
        &format!(
            "SELECT s.slot, h.relation, h.partition,
                    pg_catalog.sum(coalesce(h.counted_rows, h.inserts + h.updates + h.deletes))::float8,
                    pg_catalog.sum(h.counted_bytes)::float8, pg_catalog.sum(h.counted_cpu_us)::float8 / 1000,
                    pg_catalog.sum(h.blks_read)::float8, pg_catalog.sum(h.covered_ms)::float8 / 1000,
                    (pg_catalog.array_agg(h.size_bytes ORDER BY h.at DESC)
                        FILTER (WHERE h.size_bytes IS NOT NULL))[1]::float8
               FROM shadowpart.partition_history h CROSS JOIN LATERAL (SELECT {SLOT} AS slot) s
              WHERE {RANGE} AND s.slot BETWEEN $5 AND $6
              GROUP BY s.slot, h.relation, h.partition
              ORDER BY s.slot, h.partition IS NOT NULL"
        ),
        &arguments(width_us, level, first, last),
        |row| {
            let float = |place| Ok::<f64, pgrx::spi::Error>(row.get::<f64>(place)?.unwrap_or(0.0));
            Ok((
                row.get::<i64>(1)?.unwrap_or(0),
                row.get::<pg_sys::Oid>(2)?.map_or(0, |oid| oid.to_u32()),
                row.get::<pg_sys::Oid>(3)?.map(|oid| oid.to_u32()),
                [float(4)?, float(5)?, float(6)?, float(7)?],
                float(8)?,
                row.get::<f64>(9)?,
            ))
        },
    )?;
    let mut covered: HashMap<u32, f64> = HashMap::new();
    let mut slot_now = None;
    for (slot, relation, partition, sums, covered_s, size) in rows {
        if slot_now != Some(slot) {
            covered.clear();
            slot_now = Some(slot);
        }
        let of = slots.entry(slot).or_default();
        let Some(partition) = partition else {
            if covered_s > 0.0 {
                of.partitions_of.insert(relation);
                covered.insert(relation, covered_s);
            }
            continue;
        };
        if let Some(covered_s) = covered.get(&relation) {
            of.partitions.push(PartitionLoad {
                relation,
                partition,
                rates: sums.map(|sum| sum / covered_s),
                size,
            });
        }
    }
    Ok(())
}

/// The newest time that rows of a level reach up to, in microseconds since 2000.
pub fn newest_us(level: Level) -> Result<Option<i64>> {
    sql::value::<i64>(
        "SELECT (extract(epoch FROM pg_catalog.max(at) - timestamptz '2000-01-01 00:00:00+00') * 1000000)::bigint
           FROM shadowpart.partition_history WHERE level = $1 AND at <= pg_catalog.clock_timestamp()",
        &[(level.width_us() / 60_000_000).into()],
    )
}

/// The level whose rows a stretch of the past is made of: the coarsest that is no coarser than a slot.
pub fn level_of(width_us: i64) -> Level {
    if width_us >= Level::FiveMinutes.width_us() {
        Level::FiveMinutes
    } else {
        Level::Minute
    }
}

/// A number for a series of an entity that stays the same over restarts: FNV-1a (Fowler, Noll, Vo) of table
/// and text. Two of 10,000 entities share one with a probability of 3e-12; their loads would then be added.
pub fn entity_id(relation: u32, entity: &str) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in relation.to_le_bytes().iter().chain(entity.as_bytes()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    }
    hash
}

/// A number for a resource of a partition.
pub fn unit_id(partition: u32, resource: Resource) -> u64 {
    let place = Resource::ALL
        .iter()
        .position(|r| *r == resource)
        .unwrap_or(0) as u64;
    u64::from(partition) << 8 | place
}

//! What SQL, and the history, see of the sums.

use super::memory::Counted;
use super::{Measure, entity, managed, memory};
use crate::api::require_preload;
use crate::pg::error::or_raise;
use load::rates::Window;
use pgrx::prelude::*;

/// What has been counted of an entity of a managed table since it was noticed.
pub struct Sampled {
    /// The managed table.
    pub relation: pg_sys::Oid,
    /// `None`: statements that named none, and rows that belong to none.
    pub entity: Option<String>,
    /// The partition in which it was last seen.
    pub partition: pg_sys::Oid,
    /// Changes when the counters begin anew; microseconds since 2000.
    pub since_us: i64,
    pub totals: super::Amounts,
}

/// Everything that is known of the entities of this database. `None` if nothing is counted. In a
/// transaction.
pub fn sample(database: pg_sys::Oid) -> Option<Vec<Sampled>> {
    if !crate::guc::TRACK_LOAD.get() {
        return None;
    }
    let (entries, _) = memory::read(database.to_u32());
    let mut all = Vec::with_capacity(entries.len());
    for entry in entries {
        let relid = pg_sys::Oid::from(entry.key.relation());
        let (relation, name) = match entity::kind(&entry.key) {
            entity::Kind::Total => continue,
            entity::Kind::Entity => (relid, Some(entity::text(&entry.key))),
            entity::Kind::Many => match managed::lookup(relid) {
                Some(managed) => (managed.root, None),
                None => continue,
            },
        };
        if managed::lookup(relation).is_none_or(|m| m.root != relation) {
            continue;
        }
        all.push(Sampled {
            relation,
            entity: name,
            partition: pg_sys::Oid::from(entry.tag as u32),
            since_us: entry.since_us,
            totals: *entry.rates.totals(),
        });
    }
    Some(all)
}

/// What was counted of each partition as a whole, with when that began. `None` if nothing is counted.
pub fn partition_totals(
    database: pg_sys::Oid,
) -> Option<std::collections::HashMap<u32, (i64, super::Amounts)>> {
    if !crate::guc::TRACK_LOAD.get() {
        return None;
    }
    let (entries, _) = memory::read(database.to_u32());
    let totals = (entries.iter())
        .filter(|entry| entity::kind(&entry.key) == entity::Kind::Total)
        .map(|entry| {
            (
                entry.key.relation(),
                (entry.since_us, *entry.rates.totals()),
            )
        });
    Some(totals.collect())
}

/// Whether the user may know which entities a table has.
// The constant is narrower than the type in some versions.
#[allow(clippy::useless_conversion)]
fn may_see(root: pg_sys::Oid) -> bool {
    // SAFETY: looks at the catalog only.
    unsafe {
        let user = pg_sys::GetUserId();
        if pg_sys::has_privs_of_role(user, pg_sys::ROLE_PG_MONITOR.into()) {
            return true;
        }
        pg_sys::pg_class_aclcheck(root, user, pg_sys::ACL_SELECT.into())
            == pg_sys::AclResult::ACLCHECK_OK
            && pg_sys::check_enable_rls(root, user, true)
                != pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
    }
}

fn timestamp(us: i64) -> Option<TimestampWithTimeZone> {
    TimestampWithTimeZone::try_from(us).ok()
}

/// The measures' rates per second over a window, `None` for what has not lived long enough to have one.
fn rates(entry: &memory::Entry, window: Window, now_us: i64) -> Vec<f64> {
    (0..super::MEASURES)
        .map(|measure| entry.rates.per_second(measure, window, now_us))
        .collect()
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn entity_load() -> TableIterator<
    'static,
    (
        name!(relation, pg_sys::Oid),
        name!(kind, String),
        name!(entity, Option<String>),
        name!(partition, pg_sys::Oid),
        name!(since, Option<TimestampWithTimeZone>),
        name!(totals, Vec<i64>),
        name!(minute, Vec<f64>),
        name!(five_minutes, Vec<f64>),
        name!(hour, Vec<f64>),
    ),
> {
    or_raise(require_preload());
    // SAFETY: set once, when the process connects.
    let database = unsafe { pg_sys::MyDatabaseId.to_u32() };
    let (entries, _) = memory::read(database);
    let now = memory::now_us();
    let mut seen = std::collections::HashMap::new();
    let mut rows = Vec::new();
    for entry in entries {
        let relid = pg_sys::Oid::from(entry.key.relation());
        let Some(managed) = managed::lookup(relid) else {
            continue;
        };
        let kind = entity::kind(&entry.key);
        if kind == entity::Kind::Entity && managed.root != relid {
            continue;
        }
        if !*seen
            .entry(managed.root)
            .or_insert_with(|| may_see(managed.root))
        {
            continue;
        }
        rows.push((
            managed.root,
            match kind {
                entity::Kind::Entity => "entity",
                entity::Kind::Many => "many",
                entity::Kind::Total => "total",
            }
            .to_owned(),
            (kind == entity::Kind::Entity).then(|| entity::text(&entry.key)),
            pg_sys::Oid::from(entry.tag as u32),
            timestamp(entry.since_us),
            entry
                .rates
                .totals()
                .iter()
                .map(|t| i64::try_from(*t).unwrap_or(i64::MAX))
                .collect(),
            rates(&entry, Window::Minute, now),
            rates(&entry, Window::FiveMinutes, now),
            rates(&entry, Window::Hour, now),
        ));
    }
    TableIterator::new(rows)
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn stats_info() -> TableIterator<
    'static,
    (
        name!(max_entities, i32),
        name!(entities, i64),
        name!(evictions, i64),
        name!(last_eviction, Option<TimestampWithTimeZone>),
        name!(error_bound, f64),
        name!(tail_writes, i64),
        name!(tail_reads, i64),
        name!(rows_counted, i64),
        name!(rows_estimated, i64),
        name!(statements_counted, i64),
        name!(statements_estimated, i64),
        name!(long_values, i64),
        name!(long_values_lost, i64),
        name!(memory_bytes, i64),
        name!(reset_at, Option<TimestampWithTimeZone>),
    ),
> {
    or_raise(require_preload());
    let (_, infos) = memory::read(0);
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let tail = |measures: &[Measure]| {
        let sum = infos
            .iter()
            .flat_map(|i| measures.iter().map(|m| i.tail.total(*m as usize)))
            .fold(0, u64::saturating_add);
        number(sum)
    };
    let Counted {
        rows,
        rows_estimated,
        statements,
        statements_estimated,
    } = memory::counted();
    let row = (
        infos.iter().map(|i| i.slots).sum::<u32>() as i32,
        infos.iter().map(|i| i64::from(i.used)).sum(),
        number(infos.iter().map(|i| i.evictions).sum()),
        infos
            .iter()
            .filter_map(|i| i.last_eviction_us)
            .max()
            .and_then(timestamp),
        infos.iter().map(|i| i.floor).fold(0.0, f64::max),
        tail(&[Measure::Inserts, Measure::Updates, Measure::Deletes]),
        tail(&[Measure::Reads]),
        number(rows),
        number(rows_estimated),
        number(statements),
        number(statements_estimated),
        memory::values_info().map_or(0, |v| i64::from(v.used)),
        memory::values_info().map_or(0, |v| number(v.replaced.saturating_add(v.too_long))),
        memory::bytes() as i64,
        memory::reset_us().and_then(timestamp),
    );
    TableIterator::new([row])
}

#[pg_extern(sql = false)]
fn stats_reset() {
    or_raise(require_preload());
    memory::reset();
}

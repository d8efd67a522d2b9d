//! Bounds are the switch: a swap assigns them, nothing else.

use super::Pair;
use crate::pg::error::{Error, Result};
use crate::pg::partition::{self, Key};
use crate::pg::raw;
use crate::planner;
use pgrx::prelude::*;
use std::ffi::CString;

/// The bound of one partition of a wrapper, values in the key's type.
struct Bound {
    is_default: bool,
    values: Vec<pg_sys::Datum>,
    null: bool,
}

/// Which way the roles are exchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the primary to the shadow.
    Away,
    /// From the shadow back to the primary.
    Back,
}

/// New bounds of the two sides of a pair, ready to be written.
pub struct Exchange {
    wrapper: pg_sys::Oid,
    key: Key,
    bounds: [(pg_sys::Oid, Bound); 2],
}

/// Works out how primary and shadow exchange what they own: the entities given, or everything.
///
/// The caller holds EXCLUSIVE on wrapper, primary and shadow: no writer has routed by the old bounds and
/// not finished. Readers need not wait: a plan pins one partition descriptor, filters by it, and both
/// sides hold the rows. All pairs of a swap are worked out before the first is written.
pub fn exchange(
    pair: &Pair,
    entities: Option<&[String]>,
    direction: Direction,
) -> Result<Exchange> {
    // SAFETY: relations are locked; nodes are allocated in the transaction's memory.
    unsafe {
        let (from_relid, to_relid) = match direction {
            Direction::Away => (pair.primary, pair.shadow()?),
            Direction::Back => (pair.shadow()?, pair.primary),
        };
        let wrapper = pg_sys::table_open(pair.wrapper()?, pg_sys::NoLock as i32);
        let key = partition::list_key(wrapper);
        let outcome = key
            .ok_or_else(|| not_a_wrapper(pair))
            .and_then(|key| Ok((read(from_relid)?, read(to_relid)?, key)))
            .and_then(|(from, to, key)| {
                let moved = match entities {
                    Some(entities) => Some(owned_by(wrapper, &key, &from, parse(&key, entities)?)),
                    None => None,
                };
                Ok((from, to, key, moved))
            });
        pg_sys::table_close(wrapper, pg_sys::NoLock as i32);
        let (mut from, mut to, key, moved) = outcome?;
        let reserved = Reserved::of(pair, &key)?;
        reserved.take_from(&mut from, &key);
        reserved.take_from(&mut to, &key);

        if from.is_default && moved.is_none() {
            to = Bound {
                is_default: true,
                values: Vec::new(),
                null: false,
            };
            from = Bound {
                is_default: false,
                values: Vec::new(),
                null: false,
            };
        } else {
            let moved = moved.unwrap_or_else(|| std::mem::take(&mut from.values));
            from.values
                .retain(|v| !moved.iter().any(|m| equal(&key, *v, *m)));
            if !to.is_default {
                to.values.extend(moved);
            }
        }
        // Whoever owns nothing holds its place with the reserved value; so does a shadow that shares with
        // its primary, so that the way back needs no new value.
        let holder = if from.owns_nothing() {
            &mut from
        } else if to.owns_nothing() || direction == Direction::Away {
            &mut to
        } else {
            &mut from
        };
        reserved.give_to(holder);
        Ok(Exchange {
            wrapper: pair.wrapper()?,
            key,
            bounds: [(from_relid, from), (to_relid, to)],
        })
    }
}

impl Exchange {
    /// Writes the new bounds.
    pub fn store(&self) {
        // SAFETY: the catalog rows written are those of the two partitions, which the caller has locked.
        unsafe { store(self.wrapper, &self.key, &self.bounds) }
    }
}

/// Those of the entities that a partition with this bound owns. The entities of one shadow may lie in
/// several partitions of one table, and each pair moves its own.
unsafe fn owned_by(
    wrapper: pg_sys::Relation,
    key: &Key,
    bound: &Bound,
    mut entities: Vec<pg_sys::Datum>,
) -> Vec<pg_sys::Datum> {
    // SAFETY: the descriptor is that of an open, locked relation; its arrays have the lengths it states.
    unsafe {
        if !bound.is_default {
            entities.retain(|e| bound.values.iter().any(|v| equal(key, *e, *v)));
            return entities;
        }
        let info = (*pg_sys::RelationGetPartitionDesc(wrapper, false)).boundinfo;
        if !info.is_null() {
            let named: Vec<_> = (0..(*info).ndatums as usize)
                .map(|i| **(*info).datums.add(i))
                .collect();
            entities.retain(|e| !named.iter().any(|v| equal(key, *e, *v)));
        }
        entities
    }
}

/// Builds a wrapper's partition descriptor while nobody waits for it.
pub fn warm(wrapper: pg_sys::Oid) {
    // SAFETY: opened and closed here; the cache keeps the descriptor.
    unsafe {
        let relation = pg_sys::try_table_open(wrapper, pg_sys::AccessShareLock as i32);
        if !relation.is_null() {
            pg_sys::RelationGetPartitionDesc(relation, false);
            pg_sys::table_close(relation, pg_sys::NoLock as i32);
        }
    }
}

/// Takes the reserved value away from a shadow that owns its entities for good.
pub fn give_up_reserved(pair: &Pair) -> Result<()> {
    // SAFETY: as for `exchange`.
    unsafe {
        let wrapper = pg_sys::table_open(pair.wrapper()?, pg_sys::NoLock as i32);
        let key = partition::list_key(wrapper);
        pg_sys::table_close(wrapper, pg_sys::NoLock as i32);
        let key = key.ok_or_else(|| not_a_wrapper(pair))?;
        let relid = pair.shadow()?;
        let mut bound = read(relid)?;
        let reserved = Reserved::of(pair, &key)?;
        reserved.take_from(&mut bound, &key);
        if !bound.owns_nothing() {
            store(pair.wrapper()?, &key, &[(relid, bound)]);
        }
        Ok(())
    }
}

/// Whether rows can still be routed to a partition.
pub fn is_needed(pair: &Pair, relid: pg_sys::Oid) -> Result<bool> {
    // SAFETY: as for `exchange`, reading only.
    unsafe {
        let wrapper = pg_sys::table_open(pair.wrapper()?, pg_sys::AccessShareLock as i32);
        let key = partition::list_key(wrapper);
        pg_sys::table_close(wrapper, pg_sys::NoLock as i32);
        let key = key.ok_or_else(|| not_a_wrapper(pair))?;
        let mut bound = read(relid)?;
        Reserved::of(pair, &key)?.take_from(&mut bound, &key);
        Ok(!bound.owns_nothing())
    }
}

impl Bound {
    fn owns_nothing(&self) -> bool {
        !self.is_default && self.values.is_empty() && !self.null
    }
}

/// The value with which a partition that owns nothing holds its place.
enum Reserved {
    Null,
    Value(pg_sys::Datum),
}

impl Reserved {
    unsafe fn of(pair: &Pair, key: &Key) -> Result<Reserved> {
        // SAFETY: see parse.
        unsafe {
            Ok(match &pair.reserved {
                None => Reserved::Null,
                Some(text) => Reserved::Value(parse(key, std::slice::from_ref(text))?[0]),
            })
        }
    }

    unsafe fn take_from(&self, bound: &mut Bound, key: &Key) {
        // SAFETY: values of the key's type.
        unsafe {
            match self {
                Reserved::Null => bound.null = false,
                Reserved::Value(v) => bound.values.retain(|w| !equal(key, *v, *w)),
            }
        }
    }

    fn give_to(&self, bound: &mut Bound) {
        match self {
            Reserved::Null => bound.null = true,
            Reserved::Value(v) => bound.values.push(*v),
        }
    }
}

fn not_a_wrapper(pair: &Pair) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "the partitions of pair {} are not under a LIST-partitioned table any more",
            pair.id
        ),
    )
    .hint("Somebody has detached or re-partitioned them. Attach them again, or drop the shadow.")
}

/// Values from their text forms. Domains are read as their base type: the reserved value need not satisfy
/// a domain's checks, and entities were checked when they came in.
unsafe fn parse(key: &Key, texts: &[String]) -> Result<Vec<pg_sys::Datum>> {
    // SAFETY: the type's own input function.
    unsafe {
        let base = pg_sys::getBaseType(key.typid);
        let mut input = pg_sys::InvalidOid;
        let mut ioparam = pg_sys::InvalidOid;
        pg_sys::getTypeInputInfo(base, &mut input, &mut ioparam);
        texts
            .iter()
            .map(|text| {
                let text = CString::new(text.as_str()).map_err(|_| {
                    Error::new(
                        PgSqlErrorCode::ERRCODE_UNTRANSLATABLE_CHARACTER,
                        "an entity contains a NUL character",
                    )
                })?;
                Ok(pg_sys::OidInputFunctionCall(
                    input,
                    text.as_ptr().cast_mut(),
                    ioparam,
                    -1,
                ))
            })
            .collect()
    }
}

unsafe fn equal(key: &Key, a: pg_sys::Datum, b: pg_sys::Datum) -> bool {
    // SAFETY: the equality function of the key's own operator class.
    unsafe {
        let c = &key.comparison;
        let operator = pg_sys::get_opfamily_member(
            c.opfamily,
            c.opcintype,
            c.opcintype,
            pg_sys::BTEqualStrategyNumber as i16,
        );
        pg_sys::OidFunctionCall2Coll(pg_sys::get_opcode(operator), c.collation, a, b).value() != 0
    }
}

unsafe fn read(relid: pg_sys::Oid) -> Result<Bound> {
    // SAFETY: relpartbound is read from the system cache and turned into nodes.
    unsafe {
        let tuple =
            pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, relid.into());
        let gone = || {
            Error::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("relation with OID {} is no partition", relid.to_u32()),
            )
        };
        if tuple.is_null() {
            return Err(gone());
        }
        let mut null = false;
        let datum = pg_sys::SysCacheGetAttr(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            tuple,
            pg_sys::Anum_pg_class_relpartbound as i16,
            &mut null,
        );
        let spec = if null {
            std::ptr::null_mut()
        } else {
            pg_sys::stringToNode(pg_sys::text_to_cstring(datum.cast_mut_ptr()))
                as *mut pg_sys::PartitionBoundSpec
        };
        pg_sys::ReleaseSysCache(tuple);
        if spec.is_null() {
            return Err(gone());
        }
        let (values, null) = planner::list_values(spec);
        Ok(Bound {
            is_default: (*spec).is_default,
            values,
            null,
        })
    }
}

/// Writes bounds into the catalog, all at once: between the first and the last no descriptor is built, so
/// that no value is ever owned twice.
unsafe fn store(wrapper: pg_sys::Oid, key: &Key, bounds: &[(pg_sys::Oid, Bound)]) {
    // SAFETY: updates of pg_class rows of relations locked by the caller; the same writes and
    // invalidations that attaching a partition does.
    unsafe {
        let class = pg_sys::table_open(pg_sys::RelationRelationId, pg_sys::RowExclusiveLock as i32);
        for (relid, bound) in bounds {
            let spec = pg_sys::palloc0(size_of::<pg_sys::PartitionBoundSpec>())
                as *mut pg_sys::PartitionBoundSpec;
            (*spec).type_ = pg_sys::NodeTag::T_PartitionBoundSpec;
            (*spec).strategy = b'l' as _;
            (*spec).is_default = bound.is_default;
            (*spec).location = -1;
            for value in &bound.values {
                (*spec).listdatums =
                    pg_sys::lappend((*spec).listdatums, constant(key, Some(*value)).cast());
            }
            if bound.null {
                (*spec).listdatums =
                    pg_sys::lappend((*spec).listdatums, constant(key, None).cast());
            }
            let text = pg_sys::cstring_to_text(pg_sys::nodeToString(spec.cast()));
            let old = pg_sys::SearchSysCacheCopy(
                pg_sys::SysCacheIdentifier::RELOID as i32,
                (*relid).into(),
                pg_sys::Datum::from(0),
                pg_sys::Datum::from(0),
                pg_sys::Datum::from(0),
            );
            const COLUMNS: usize = pg_sys::Natts_pg_class as usize;
            let mut values = [pg_sys::Datum::from(0); COLUMNS];
            let mut nulls = [false; COLUMNS];
            let mut replace = [false; COLUMNS];
            let column = pg_sys::Anum_pg_class_relpartbound as usize - 1;
            values[column] = pg_sys::Datum::from(text);
            replace[column] = true;
            let new = pg_sys::heap_modify_tuple(
                old,
                (*class).rd_att,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                replace.as_mut_ptr(),
            );
            pg_sys::CatalogTupleUpdate(class, &mut (*new).t_self, new);
            if bound.is_default {
                raw::missing::update_default_partition_oid(wrapper, *relid);
            }
        }
        pg_sys::table_close(class, pg_sys::RowExclusiveLock as i32);
        pg_sys::CacheInvalidateRelcacheByRelid(wrapper);
        for (relid, _) in bounds {
            pg_sys::CacheInvalidateRelcacheByRelid(*relid);
        }
        // The DEFAULT partition's constraint is everything that the others do not name.
        let default = raw::missing::get_default_partition_oid(wrapper);
        if default != pg_sys::InvalidOid {
            pg_sys::CacheInvalidateRelcacheByRelid(default);
        }
        pg_sys::CommandCounterIncrement();
    }
}

unsafe fn constant(key: &Key, value: Option<pg_sys::Datum>) -> *mut pg_sys::Const {
    // SAFETY: a fresh node.
    unsafe {
        pg_sys::makeConst(
            key.typid,
            key.typmod,
            key.comparison.collation,
            i32::from(key.comparison.typlen),
            value.unwrap_or(pg_sys::Datum::from(0)),
            value.is_none(),
            key.comparison.typbyval,
        )
    }
}

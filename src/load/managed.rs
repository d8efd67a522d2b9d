//! Which relations are of interest: managed tables and their partitions.
//!
//! Looked up once for each relation and backend, and again when the relation changes. `shadow_manage`
//! and `shadow_unmanage` make all of a table's relations change.

use crate::pg::raw;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::HashMap;

/// A managed table, as one of its relations sees it.
#[derive(Clone, Copy, Debug)]
pub struct Managed {
    /// The managed table itself.
    pub root: pg_sys::Oid,
    /// The entity column of this relation.
    pub attno: i16,
    /// Its type, under all domains, and how long and how its values are.
    pub typid: pg_sys::Oid,
    pub length: i16,
    pub by_value: bool,
}

thread_local! {
    /// The list of managed tables that was looked at last.
    static CATALOG: std::cell::Cell<pg_sys::Oid> = const { std::cell::Cell::new(pg_sys::InvalidOid) };
    static KNOWN: RefCell<HashMap<pg_sys::Oid, Option<Managed>>> = RefCell::new(HashMap::new());
}

/// Forgets so many relations rather than remember them all.
const KNOWN_MAX: usize = 100_000;

/// Answers of [`is_of_interest`], by the lowest bits of the relation's number: the number, and the answer.
const NEAR: usize = 256;
static mut ANSWERS: [(u32, bool); NEAR] = [(0, false); NEAR];

/// Whether a relation is a managed table or a part of one. Asked for each relation of each statement.
#[inline]
pub fn is_of_interest(relid: pg_sys::Oid) -> bool {
    let number = relid.to_u32();
    // SAFETY: a backend has one thread, and no reference is kept.
    let (known, answer) = unsafe { ANSWERS[number as usize % NEAR] };
    if known == number { answer } else { ask(relid) }
}

/// Asked from hooks, in frames that an error must not unwind through: a guard takes it here and raises it anew.
#[cold]
#[pgrx::pg_guard]
extern "C-unwind" fn ask(relid: pg_sys::Oid) -> bool {
    let answer = lookup(relid).is_some();
    // What could not be looked up is not known: `lookup` remembers what is.
    if KNOWN.with_borrow(|k| k.contains_key(&relid)) {
        let number = relid.to_u32();
        // SAFETY: as above.
        unsafe { ANSWERS[number as usize % NEAR] = (number, answer) }
    }
    answer
}

/// What a relation is, if it is of interest.
pub fn lookup(relid: pg_sys::Oid) -> Option<Managed> {
    if let Some(known) = KNOWN.with_borrow(|k| k.get(&relid).copied()) {
        return known;
    }
    register();
    let Ok(found) = find(relid) else {
        return None;
    };
    KNOWN.with_borrow_mut(|k| {
        if k.len() >= KNOWN_MAX {
            k.clear();
        }
        k.insert(relid, found);
    });
    found
}

fn register() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: a callback that lives as long as the process.
    ONCE.call_once(|| unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(changed), pg_sys::Datum::from(0));
    });
}

unsafe extern "C-unwind" fn changed(_: pg_sys::Datum, relid: pg_sys::Oid) {
    // SAFETY: a backend has one thread, and no reference is kept.
    unsafe {
        if relid == pg_sys::InvalidOid || relid == CATALOG.get() {
            ANSWERS = [(0, false); NEAR];
        } else {
            let number = relid.to_u32();
            ANSWERS[number as usize % NEAR] = (0, false);
        }
    }
    // Never while the map is borrowed: `lookup` asks the catalog in between its uses.
    let _ = KNOWN.try_with(|k| {
        if let Ok(mut known) = k.try_borrow_mut() {
            // Without the list of managed tables there are none: the extension has been dropped.
            if relid == pg_sys::InvalidOid || relid == CATALOG.get() {
                known.clear();
            } else {
                known.remove(&relid);
            }
        }
    });
}

fn find(relid: pg_sys::Oid) -> Result<Option<Managed>, Busy> {
    // SAFETY: catalog look-ups in a transaction.
    unsafe {
        // Catalogs come first in every database.
        if relid.to_u32() < pg_sys::FirstNormalObjectId {
            return Ok(None);
        }
        let Some(catalog) = catalog() else {
            return Ok(None);
        };
        CATALOG.set(catalog);
        let mut candidates = vec![relid];
        if pg_sys::get_rel_relispartition(relid) {
            let ancestors = raw::missing::get_partition_ancestors(relid);
            for i in 0..crate::pg::list::length(ancestors) {
                candidates.push((*(*ancestors).elements.add(i)).oid_value);
            }
        }
        for root in candidates {
            if let Some(column) = entity_column(catalog, root)? {
                let attno = pg_sys::get_attnum(relid, column.as_ptr());
                if attno <= 0 {
                    return Ok(None);
                }
                let typid = pg_sys::getBaseType(pg_sys::get_atttype(relid, attno));
                let (mut length, mut by_value) = (0, false);
                pg_sys::get_typlenbyval(typid, &mut length, &mut by_value);
                return Ok(Some(Managed {
                    root,
                    attno,
                    typid,
                    length,
                    by_value,
                }));
            }
        }
        Ok(None)
    }
}

/// The table of managed tables; none before CREATE EXTENSION.
unsafe fn catalog() -> Option<pg_sys::Oid> {
    // SAFETY: catalog look-ups.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"shadowpart".as_ptr(), true);
        if schema == pg_sys::InvalidOid {
            return None;
        }
        let relid = pg_sys::get_relname_relid(c"managed".as_ptr(), schema);
        (relid != pg_sys::InvalidOid).then_some(relid)
    }
}

/// The catalog cannot be looked at now.
struct Busy;

/// The entity column of a managed table.
unsafe fn entity_column(
    catalog: pg_sys::Oid,
    root: pg_sys::Oid,
) -> Result<Option<std::ffi::CString>, Busy> {
    // SAFETY: a scan of a small table by its first column. It sees what is committed and what this transaction
    // did, and takes no part in the checks of SERIALIZABLE: no statement of a user is to fail, or make
    // another fail, because we have looked. What changes while it looks changes the relations, too, and is
    // looked up again.
    unsafe {
        // Never wait: somebody may be dropping the extension, and not be done for long.
        if !pg_sys::ConditionalLockRelationOid(catalog, pg_sys::AccessShareLock as i32) {
            return Err(Busy);
        }
        let relation = pg_sys::try_table_open(catalog, pg_sys::NoLock as i32);
        if relation.is_null() {
            pg_sys::UnlockRelationOid(catalog, pg_sys::AccessShareLock as i32);
            return Ok(None);
        }
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut key,
            1,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::F_OIDEQ.into(),
            root.into(),
        );
        let scan = pg_sys::systable_beginscan(
            relation,
            pg_sys::InvalidOid,
            false,
            &raw mut pg_sys::SnapshotSelfData,
            1,
            &mut key,
        );
        let tuple = pg_sys::systable_getnext(scan);
        let mut column = None;
        if !tuple.is_null() {
            let mut null = false;
            let datum = pg_sys::heap_getattr(tuple, 2, (*relation).rd_att, &mut null);
            if !null {
                let name = std::ffi::CStr::from_ptr(datum.cast_mut_ptr());
                column = Some(name.to_owned());
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        Ok(column)
    }
}

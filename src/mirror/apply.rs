//! What the other side needs for one event of a row.
//!
//! Two ways. The *direct* way applies the event: an INSERT inserts, a DELETE finds by key and deletes,
//! an UPDATE finds by the old key and replaces. It relies on events arriving in the order of the
//! changes. Triggers that write to the table again can turn that order round: their statements, and
//! their events, end before the events that are still queued around them. From the first event at a
//! trigger depth of two or more on, the transaction therefore takes the *state* way: for each key of
//! an event it makes the other side's row equal to the row that this side has now. That is right in
//! any order, because after the last change of a key comes one event that sees its result.

use super::side::{self, KEYS_MAX, Side};
use super::stale;
use pgrx::prelude::*;
use std::ffi::CStr;

/// An open pair, as one trigger sees it. Lives in the transaction's memory.
pub struct Link {
    trigger: pg_sys::Oid,
    pair: i64,
    /// The side that is written to. Null: it is gone, nothing is mirrored.
    other: *mut Side,
    /// The side that the trigger fires on; opened when the state way needs it.
    this: *mut Side,
    this_relid: pg_sys::Oid,
    /// From this side's columns to the other's; null when the layouts are the same.
    map: *mut pg_sys::AttrMap,
    columns: i32,
    /// A row on its way to the other side.
    row: *mut pg_sys::TupleTableSlot,
    /// The same, where columns are mapped or missing.
    mapped: *mut pg_sys::TupleTableSlot,
    key_count: usize,
    key_names: [*const std::ffi::c_char; KEYS_MAX],
    key_attnos: [i16; KEYS_MAX],
    entity_attno: i16,
    /// Which of the keys the entity column is: every key contains it. Beyond them: it is none, after all.
    entity_key: usize,
    entity_collation: pg_sys::Oid,
    entity_equal: pg_sys::FmgrInfo,
    entity_byval: bool,
    /// Members of the pair; none means everything.
    members: *mut pg_sys::Datum,
    member_count: usize,
}

/// Open links of the transaction. Few: one for each pair and direction that it writes to.
static mut LINKS: Vec<*mut Link> = Vec::new();
/// From the first nested event on, until the transaction ends.
static mut BY_STATE: bool = false;

mod c {
    use pgrx::pg_sys::*;
    unsafe extern "C-unwind" {
        pub fn pg_trigger_depth(fcinfo: FunctionCallInfo) -> Datum;
        pub fn execute_attr_map_slot(
            map: *mut AttrMap,
            source: *mut TupleTableSlot,
            target: *mut TupleTableSlot,
        ) -> *mut TupleTableSlot;
        pub fn CommandCounterIncrement();
        pub fn FunctionCall2Coll(
            flinfo: *mut FmgrInfo,
            collation: Oid,
            a: Datum,
            b: Datum,
        ) -> Datum;
    }
}

/// The link of a trigger, opened on first use in the transaction.
///
/// # Safety
/// Called by a row trigger with its own data.
pub unsafe fn link_of(data: *const pg_sys::TriggerData) -> *mut Link {
    // SAFETY: a backend has one thread; links live until the transaction ends.
    unsafe {
        let oid = (*(*data).tg_trigger).tgoid;
        let links = &*&raw const LINKS;
        for link in links {
            if (**link).trigger == oid {
                return *link;
            }
        }
        open_link(data)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn open_link(data: *const pg_sys::TriggerData) -> *mut Link {
    // SAFETY: memory and resources are those of the top transaction, so that they outlive statement and
    // subtransaction; both are set back before returning, and an error aborts at least the statement,
    // whose abort sets them back too.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::CurrentMemoryContext = pg_sys::TopTransactionContext;
        pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
        let link = build_link(data);
        pg_sys::CurrentMemoryContext = context;
        pg_sys::CurrentResourceOwner = owner;
        (*&raw mut LINKS).push(link);
        link
    }
}

unsafe fn build_link(data: *const pg_sys::TriggerData) -> *mut Link {
    // SAFETY: see open_link.
    unsafe {
        let mut args = [c""; KEYS_MAX];
        let count = side::arguments((*data).tg_trigger, 0, &mut args);
        let number = |i: usize| {
            args[i]
                .to_str()
                .ok()
                .and_then(|t| t.parse::<i64>().ok())
                .unwrap_or(0)
        };
        let ends = Ends {
            pair: number(0),
            source: (*data).tg_relation,
            other: pg_sys::Oid::from(number(1) as u32),
            column: args[2],
            members: args[3],
            keys: &args[4..count.max(4)],
        };
        let link = connect(&ends);
        (*link).trigger = (*(*data).tg_trigger).tgoid;
        link
    }
}

/// What a link goes between.
pub struct Ends<'a> {
    pub pair: i64,
    pub source: pg_sys::Relation,
    pub other: pg_sys::Oid,
    pub column: &'a CStr,
    /// Text form of an array; empty: everything.
    pub members: &'a CStr,
    pub keys: &'a [&'a CStr],
}

unsafe fn connect(ends: &Ends<'_>) -> *mut Link {
    // SAFETY: see open_link.
    unsafe {
        let source = ends.source;
        let keys = ends.keys;
        let link = pg_sys::palloc0(size_of::<Link>()) as *mut Link;
        (*link).this_relid = (*source).rd_id;
        (*link).pair = ends.pair;
        (*link).key_count = keys.len();
        for (i, name) in keys.iter().enumerate() {
            (*link).key_names[i] = pg_sys::pstrdup(name.as_ptr());
            (*link).key_attnos[i] = pg_sys::get_attnum((*source).rd_id, name.as_ptr());
        }
        let Some(other) = side::open(ends.other, keys, pg_sys::RowExclusiveLock as i32) else {
            return link;
        };
        (*link).other = other;
        let target = (*(*other).relation).rd_att;
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let map = pg_sys::build_attrmap_by_name_if_req((*source).rd_att, target);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let map = pg_sys::build_attrmap_by_name_if_req((*source).rd_att, target, false);
        (*link).map = map;
        (*link).columns = (*(*source).rd_att).natts;
        (*link).row = pg_sys::MakeSingleTupleTableSlot(target, &raw const pg_sys::TTSOpsHeapTuple);
        (*link).mapped = pg_sys::MakeSingleTupleTableSlot(target, &raw const pg_sys::TTSOpsVirtual);
        build_membership(link, source, ends.column, ends.members);
        link
    }
}

unsafe fn build_membership(
    link: *mut Link,
    source: pg_sys::Relation,
    column: &CStr,
    members: &CStr,
) {
    // SAFETY: type cache entries are permanent; the array is read in the transaction's memory.
    unsafe {
        if members.is_empty() {
            return;
        }
        let attno = pg_sys::get_attnum((*source).rd_id, column.as_ptr());
        let mut typid = pg_sys::InvalidOid;
        let mut typmod = 0;
        let mut collation = pg_sys::InvalidOid;
        pg_sys::get_atttypetypmodcoll(
            (*source).rd_id,
            attno,
            &mut typid,
            &mut typmod,
            &mut collation,
        );
        let base = pg_sys::getBaseType(typid);
        let cache = pg_sys::lookup_type_cache(base, pg_sys::TYPECACHE_EQ_OPR_FINFO as i32);
        pg_sys::fmgr_info_cxt(
            (*cache).eq_opr_finfo.fn_oid,
            &mut (*link).entity_equal,
            pg_sys::CurrentMemoryContext,
        );
        (*link).entity_attno = attno;
        let keys = &(&(*link).key_attnos)[..(*link).key_count];
        (*link).entity_key = keys
            .iter()
            .position(|key| *key == attno)
            .unwrap_or(usize::MAX);
        (*link).entity_collation = collation;
        (*link).entity_byval = (*cache).typbyval;
        let mut input = pg_sys::InvalidOid;
        let mut ioparam = pg_sys::InvalidOid;
        let array_type = pg_sys::get_array_type(base);
        pg_sys::getTypeInputInfo(array_type, &mut input, &mut ioparam);
        let array = pg_sys::OidInputFunctionCall(input, members.as_ptr().cast_mut(), ioparam, -1);
        let mut count = 0;
        pg_sys::deconstruct_array(
            array.cast_mut_ptr(),
            base,
            i32::from((*cache).typlen),
            (*cache).typbyval,
            (*cache).typalign,
            &mut (*link).members,
            std::ptr::null_mut(),
            &mut count,
        );
        (*link).member_count = count as usize;
    }
}

/// Whether a row belongs to the pair.
unsafe fn is_member(link: *mut Link, slot: *mut pg_sys::TupleTableSlot) -> bool {
    // SAFETY: the slot has the layout of the trigger's relation.
    unsafe {
        (*link).member_count == 0
            || is_member_value(link, side::attribute(slot, (*link).entity_attno))
    }
}

unsafe fn is_member_value(link: *mut Link, entity: pg_sys::Datum) -> bool {
    // SAFETY: a value of the entity column.
    unsafe {
        (0..(*link).member_count).any(|i| {
            c::FunctionCall2Coll(
                &mut (*link).entity_equal,
                (*link).entity_collation,
                entity,
                *(*link).members.add(i),
            )
            .value()
                != 0
        })
    }
}

/// The row in the other side's layout, in memory of its own.
unsafe fn converted(
    link: *mut Link,
    slot: *mut pg_sys::TupleTableSlot,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: a heap tuple may be stored with fewer columns than the table has now, the rest coming from
    // the table's own missing values: such a row is taken apart and built anew.
    unsafe {
        if !(*link).map.is_null() {
            return c::execute_attr_map_slot((*link).map, slot, (*link).mapped);
        }
        let stored = slot.cast::<pg_sys::HeapTupleTableSlot>();
        let complete = (*slot).tts_ops == &raw const pg_sys::TTSOpsBufferHeapTuple
            && !(*stored).tuple.is_null()
            && i32::from((*(*(*stored).tuple).t_data).t_infomask2 & pg_sys::HEAP_NATTS_MASK as u16)
                == (*link).columns;
        let target = if complete {
            (*link).row
        } else {
            (*link).mapped
        };
        if complete {
            (*(*target).tts_ops).copyslot.unwrap_unchecked()(target, slot);
        } else {
            side::clear(target);
            side::attribute(slot, (*link).columns as i16);
            for i in 0..(*link).columns as usize {
                *(*target).tts_values.add(i) = *(*slot).tts_values.add(i);
                *(*target).tts_isnull.add(i) = *(*slot).tts_isnull.add(i);
            }
            (*target).tts_flags &= !(pg_sys::TTS_FLAG_EMPTY as u16);
            (*target).tts_nvalid = (*link).columns as i16;
        }
        target
    }
}

unsafe fn keys_of(link: *mut Link, slot: *mut pg_sys::TupleTableSlot) -> [pg_sys::Datum; KEYS_MAX] {
    // SAFETY: key columns are NOT NULL columns of the trigger's relation.
    unsafe {
        let mut keys = [pg_sys::Datum::from(0); KEYS_MAX];
        for (i, key) in keys.iter_mut().enumerate().take((*link).key_count) {
            *key = side::attribute(slot, (*link).key_attnos[i]);
        }
        keys
    }
}

/// One event. `old` and `new` are null where the event has none.
///
/// # Safety
/// Called by the row trigger with the slots of its event.
pub unsafe fn apply(
    link: *mut Link,
    old: *mut pg_sys::TupleTableSlot,
    new: *mut pg_sys::TupleTableSlot,
) {
    // SAFETY: all work happens in per-tuple memory of the trigger call; slots are cleared before return.
    unsafe {
        if (*link).other.is_null() {
            return;
        }
        if !BY_STATE && c::pg_trigger_depth(std::ptr::null_mut()).value() > 1 {
            BY_STATE = true;
        }
        if BY_STATE {
            apply_state(link, old, new);
            return;
        }
        let other = &mut *(*link).other;
        if old.is_null() {
            let row = converted(link, new);
            other.insert(row, std::ptr::null_mut());
            side::clear(row);
            return;
        }
        if !other.can_find() {
            stale::mark((*link).pair, c"the other side has no usable key index");
            return;
        }
        // What belongs to no member is not looked for: while entities are added, or leave, the other side has
        // rows of theirs that are somebody else's business.
        let was = is_member(link, old);
        let found = was && other.find(&keys_of(link, old)[..(*link).key_count]);
        let wanted = !new.is_null() && is_member(link, new);
        let mut exact = found == was;
        if wanted {
            let row = converted(link, new);
            if found {
                exact &= other.update(row);
            } else {
                other.insert(row, std::ptr::null_mut());
            }
            side::clear(row);
        } else if found {
            exact &= other.delete();
        }
        side::clear(other.found);
        if !exact {
            stale::mark(
                (*link).pair,
                c"a row was not found where it should have been",
            );
        }
    }
}

unsafe fn apply_state(
    link: *mut Link,
    old: *mut pg_sys::TupleTableSlot,
    new: *mut pg_sys::TupleTableSlot,
) {
    // SAFETY: as for `apply`.
    unsafe {
        if (*link).this.is_null() {
            open_this(link);
        }
        if (*link).this.is_null() || !(*(*link).this).can_find() || !(*(*link).other).can_find() {
            stale::mark((*link).pair, c"a side has no usable key index");
            return;
        }
        if !old.is_null() {
            level(link, &keys_of(link, old));
        }
        if !new.is_null() {
            level(link, &keys_of(link, new));
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn open_this(link: *mut Link) {
    // SAFETY: as for open_link.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::CurrentMemoryContext = pg_sys::TopTransactionContext;
        pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
        let mut names = [c""; KEYS_MAX];
        for (i, name) in names.iter_mut().enumerate().take((*link).key_count) {
            *name = CStr::from_ptr((*link).key_names[i]);
        }
        (*link).this = side::open(
            (*link).this_relid,
            &names[..(*link).key_count],
            pg_sys::RowExclusiveLock as i32,
        )
        .unwrap_or(std::ptr::null_mut());
        pg_sys::CurrentMemoryContext = context;
        pg_sys::CurrentResourceOwner = owner;
    }
}

/// A link for the background worker, which levels keys that were captured, and copies rows. Closed at
/// commit.
///
/// # Safety
/// Inside a transaction; the source relation is open and stays so.
pub unsafe fn link_between(ends: &Ends<'_>) -> *mut Link {
    // SAFETY: as for open_link.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::CurrentMemoryContext = pg_sys::TopTransactionContext;
        pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
        let link = connect(ends);
        pg_sys::CurrentMemoryContext = context;
        pg_sys::CurrentResourceOwner = owner;
        (*&raw mut LINKS).push(link);
        link
    }
}

/// Inserts a row of this side into the other, unless there is one with its key. `None` when the other side
/// cannot be read by key.
///
/// # Safety
/// A link from `link_between` in this transaction; the slot holds a row of its source.
pub unsafe fn copy_row(link: *mut Link, slot: *mut pg_sys::TupleTableSlot) -> Option<bool> {
    // SAFETY: as for `apply`.
    unsafe {
        if (*link).other.is_null() || !(*(*link).other).can_find() {
            return None;
        }
        let other = &mut *(*link).other;
        if other.find(&keys_of(link, slot)[..(*link).key_count]) {
            side::clear(other.found);
            return Some(false);
        }
        let row = converted(link, slot);
        other.insert(row, std::ptr::null_mut());
        side::clear(row);
        Some(true)
    }
}

/// Levels one key, given in the order of the key columns. False when the sides cannot be read by key.
///
/// # Safety
/// A link from `link_between` in this transaction.
pub unsafe fn level_key(link: *mut Link, keys: &[pg_sys::Datum]) -> bool {
    // SAFETY: keys are valid for the call.
    unsafe {
        if (*link).this.is_null() {
            open_this(link);
        }
        if (*link).other.is_null()
            || (*link).this.is_null()
            || !(*(*link).other).can_find()
            || !(*(*link).this).can_find()
        {
            return false;
        }
        let mut all = [pg_sys::Datum::from(0); KEYS_MAX];
        all[..keys.len()].copy_from_slice(keys);
        level(link, &all);
        true
    }
}

/// Makes the other side's row with this key what this side's is now, if the key is that of a member: the
/// entity is part of every key. Keys of others may be somebody else's to level at this very moment.
unsafe fn level(link: *mut Link, keys: &[pg_sys::Datum; KEYS_MAX]) {
    // SAFETY: as for `apply`.
    unsafe {
        let this = &mut *(*link).this;
        let other = &mut *(*link).other;
        let keys = &keys[..(*link).key_count];
        if (*link).member_count > 0
            && let Some(entity) = keys.get((*link).entity_key)
            && !is_member_value(link, *entity)
        {
            return;
        }
        let there = other.find(keys);
        // A key that comes again within one command: what it wrote the first time must be older.
        if there && other.found_is_new() {
            c::CommandCounterIncrement();
        }
        let here = this.find(keys) && is_member(link, this.found);
        let mut exact = true;
        if here {
            let row = converted(link, this.found);
            if there {
                exact = other.update(row);
            } else {
                other.insert(row, std::ptr::null_mut());
            }
            side::clear(row);
        } else if there {
            exact = other.delete();
        }
        side::clear(this.found);
        side::clear(other.found);
        if !exact {
            stale::mark((*link).pair, c"a row was changed from elsewhere");
        }
    }
}

/// Closes all links: before the transaction ends, and before utility statements.
pub fn close_all() {
    // SAFETY: a backend has one thread; relations were opened under the top transaction's owner.
    unsafe {
        let links = &mut *&raw mut LINKS;
        if links.is_empty() {
            return;
        }
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
        while let Some(link) = links.pop() {
            for side in [(*link).other, (*link).this] {
                if !side.is_null() {
                    side::close(side);
                }
            }
            for slot in [(*link).row, (*link).mapped] {
                if !slot.is_null() {
                    pg_sys::ExecDropSingleTupleTableSlot(slot);
                }
            }
        }
        pg_sys::CurrentResourceOwner = owner;
    }
}

/// The transaction was aborted, and with it went what the links held.
pub fn forget_all() {
    // SAFETY: a backend has one thread.
    unsafe {
        (*&raw mut LINKS).clear();
        BY_STATE = false;
    }
}

/// A subtransaction was aborted, perhaps in the middle of an event: pins that the slots knew of are
/// released already.
pub fn after_subtransaction_abort() {
    // SAFETY: slots are replaced, not cleared; the old ones go with the transaction's memory. Relations
    // stay open: they belong to the top transaction.
    unsafe {
        for link in &*&raw const LINKS {
            for side in [(**link).other, (**link).this] {
                if !side.is_null() {
                    side::replace_found(side);
                }
            }
        }
    }
}

//! One side of a pair, opened for raw reads by key and raw writes.
//!
//! Writes go to the table and its indexes directly: no triggers, no constraint checks (the other side
//! has passed them already, and a row of an entity that lives elsewhere violates this side's partition
//! constraint by design), no uniqueness checks (the side that owns the entity enforces them).
//!
//! Everything here is called from trigger functions that hold nothing with a destructor, and calls
//! PostgreSQL without pgrx's guards: this is the hot path of every mirrored write.

use pgrx::pg_sys;
use std::ffi::CStr;

/// Most columns a key can have: PostgreSQL's own limit for an index.
pub const KEYS_MAX: usize = 32;

/// PostgreSQL functions as they are, unguarded.
mod c {
    use pgrx::pg_sys::*;
    unsafe extern "C-unwind" {
        pub fn GetCurrentCommandId(used: bool) -> CommandId;
        pub fn FormIndexDatum(
            info: *mut IndexInfo,
            slot: *mut TupleTableSlot,
            estate: *mut EState,
            values: *mut Datum,
            isnull: *mut bool,
        );
        pub fn index_insert(
            index: Relation,
            values: *mut Datum,
            isnull: *mut bool,
            tid: ItemPointer,
            heap: Relation,
            check: IndexUniqueCheck::Type,
            unchanged: bool,
            info: *mut IndexInfo,
        ) -> bool;
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        pub fn index_insert_cleanup(index: Relation, info: *mut IndexInfo);
        #[cfg(not(feature = "pg18"))]
        pub fn index_beginscan(
            heap: Relation,
            index: Relation,
            snapshot: Snapshot,
            n: i32,
            o: i32,
        ) -> IndexScanDesc;
        #[cfg(feature = "pg18")]
        pub fn index_beginscan(
            heap: Relation,
            index: Relation,
            snapshot: Snapshot,
            instrument: *mut IndexScanInstrumentation,
            n: i32,
            o: i32,
        ) -> IndexScanDesc;
        pub fn index_rescan(scan: IndexScanDesc, keys: ScanKey, n: i32, orderbys: ScanKey, o: i32);
        pub fn index_getnext_slot(
            scan: IndexScanDesc,
            direction: ScanDirection::Type,
            slot: *mut TupleTableSlot,
        ) -> bool;
        pub fn index_endscan(scan: IndexScanDesc);
        pub fn FunctionCall2Coll(
            flinfo: *mut FmgrInfo,
            collation: Oid,
            a: Datum,
            b: Datum,
        ) -> Datum;
        pub fn slot_getsomeattrs_int(slot: *mut TupleTableSlot, attnum: i32);
        pub fn MemoryContextReset(context: MemoryContext);
        pub fn TransactionIdIsCurrentTransactionId(xid: TransactionId) -> bool;
        pub fn HeapTupleHeaderGetCmin(tuple: *const HeapTupleHeaderData) -> CommandId;
    }
}

/// An open side. Lives in a memory context of the transaction.
pub struct Side {
    pub relation: pg_sys::Relation,
    indexes: *mut pg_sys::ResultRelInfo,
    /// For indexes with expressions or predicates; null where there is none.
    estate: *mut pg_sys::EState,
    /// Index by which rows are found; null where nobody looks.
    key_index: pg_sys::Relation,
    key_count: usize,
    /// For each column of the key index, which of the caller's keys it is.
    key_order: [usize; KEYS_MAX],
    scan_keys: [pg_sys::ScanKeyData; KEYS_MAX],
    /// Heap column of each key column of the index.
    heap_attnos: [i16; KEYS_MAX],
    /// The row that `find` found.
    pub found: *mut pg_sys::TupleTableSlot,
    /// Where it found the one before.
    last: pg_sys::ItemPointerData,
    /// How many times to look into the index before the next guess.
    index_first: u32,
    /// How many guesses in a row were wrong.
    wrong: u32,
}

/// Opens a relation and its indexes for writing. Allocates in the current memory context and takes
/// resources of the current owner.
///
/// # Safety
/// Inside a transaction. `keys` are names of columns that a unique index of the relation covers.
pub unsafe fn open(relid: pg_sys::Oid, keys: &[&CStr], lock: i32) -> Option<*mut Side> {
    // SAFETY: table_open and friends as the executor uses them.
    unsafe {
        let relation = pg_sys::try_table_open(relid, lock);
        if relation.is_null() {
            return None;
        }
        // Only what ExecOpenIndices looks at: InitResultRelInfo would copy all triggers too.
        let indexes =
            pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()) as *mut pg_sys::ResultRelInfo;
        (*indexes).type_ = pg_sys::NodeTag::T_ResultRelInfo;
        (*indexes).ri_RelationDesc = relation;
        pg_sys::ExecOpenIndices(indexes, false);
        let computes = (0..(*indexes).ri_NumIndices as usize).any(|i| {
            let info = &**(*indexes).ri_IndexRelationInfo.add(i);
            !info.ii_Expressions.is_null() || !info.ii_Predicate.is_null()
        });
        let estate = if computes {
            pg_sys::CreateExecutorState()
        } else {
            std::ptr::null_mut()
        };
        let side = pg_sys::palloc0(size_of::<Side>()) as *mut Side;
        (*side).relation = relation;
        (*side).indexes = indexes;
        (*side).estate = estate;
        (*side).found = pg_sys::table_slot_create(relation, std::ptr::null_mut());
        choose_key_index(side, keys);
        Some(side)
    }
}

/// Closes it; locks are kept to the end of the transaction.
///
/// # Safety
/// `side` came from `open` in this transaction and is not used afterwards.
pub unsafe fn close(side: *mut Side) {
    // SAFETY: everything was opened under the top transaction's resource owner.
    unsafe {
        pg_sys::ExecDropSingleTupleTableSlot((*side).found);
        pg_sys::ExecCloseIndices((*side).indexes);
        if !(*side).estate.is_null() {
            pg_sys::FreeExecutorState((*side).estate);
        }
        pg_sys::table_close((*side).relation, pg_sys::NoLock as i32);
    }
}

unsafe fn choose_key_index(side: *mut Side, keys: &[&CStr]) {
    // SAFETY: index descriptors opened just before.
    unsafe {
        if keys.is_empty() || keys.len() > KEYS_MAX {
            return;
        }
        let relid = (*(*side).relation).rd_id;
        for i in 0..(*(*side).indexes).ri_NumIndices as usize {
            let index = *(*(*side).indexes).ri_IndexRelationDescs.add(i);
            let form = &*(*index).rd_index;
            let info = &**(*(*side).indexes).ri_IndexRelationInfo.add(i);
            if !form.indisunique
                || !form.indimmediate
                || !form.indisvalid
                || form.indnkeyatts as usize != keys.len()
                || !info.ii_Predicate.is_null()
                || !info.ii_Expressions.is_null()
            {
                continue;
            }
            let mut order = [0usize; KEYS_MAX];
            let mut heap_attnos = [0i16; KEYS_MAX];
            let all_found = (0..keys.len()).all(|k| {
                let attno = info.ii_IndexAttrNumbers[k];
                let wanted = keys
                    .iter()
                    .position(|name| pg_sys::get_attnum(relid, name.as_ptr()) == attno);
                order[k] = wanted.unwrap_or(0);
                heap_attnos[k] = attno;
                wanted.is_some()
            });
            if !all_found {
                continue;
            }
            for k in 0..keys.len() {
                let operator = pg_sys::get_opfamily_member(
                    *(*index).rd_opfamily.add(k),
                    *(*index).rd_opcintype.add(k),
                    *(*index).rd_opcintype.add(k),
                    pg_sys::BTEqualStrategyNumber as i16,
                );
                pg_sys::ScanKeyEntryInitialize(
                    &mut (*side).scan_keys[k],
                    0,
                    (k + 1) as i16,
                    pg_sys::BTEqualStrategyNumber as u16,
                    pg_sys::InvalidOid,
                    *(*index).rd_indcollation.add(k),
                    pg_sys::get_opcode(operator),
                    pg_sys::Datum::from(0),
                );
            }
            (*side).key_index = index;
            (*side).key_count = keys.len();
            (*side).key_order = order;
            (*side).heap_attnos = heap_attnos;
            return;
        }
    }
}

impl Side {
    pub fn can_find(&self) -> bool {
        !self.key_index.is_null()
    }

    /// Finds the live row with this key, own changes included, into `found`. Nobody else can be
    /// changing it: whoever does holds the lock of the row on the other side.
    ///
    /// # Safety
    /// `values` are in the order of the keys given to `open`. The caller clears `found` afterwards.
    pub unsafe fn find(&mut self, values: &[pg_sys::Datum]) -> bool {
        // SAFETY: the scan begins and ends here; its pins are gone when `found` is cleared.
        unsafe {
            for k in 0..self.key_count {
                self.scan_keys[k].sk_argument = values[self.key_order[k]];
            }
            if self.guess() {
                return true;
            }
            let snapshot = &raw mut pg_sys::SnapshotSelfData;
            #[cfg(not(feature = "pg18"))]
            let scan = c::index_beginscan(
                self.relation,
                self.key_index,
                snapshot,
                self.key_count as i32,
                0,
            );
            #[cfg(feature = "pg18")]
            let scan = c::index_beginscan(
                self.relation,
                self.key_index,
                snapshot,
                std::ptr::null_mut(),
                self.key_count as i32,
                0,
            );
            c::index_rescan(
                scan,
                self.scan_keys.as_mut_ptr(),
                self.key_count as i32,
                std::ptr::null_mut(),
                0,
            );
            let found = c::index_getnext_slot(
                scan,
                pg_sys::ScanDirection::ForwardScanDirection,
                self.found,
            );
            c::index_endscan(scan);
            if found {
                self.last = (*self.found).tts_tid;
            }
            found
        }
    }

    /// Looks right behind the row found last. Statements on many rows mostly take them in the order in
    /// which they lie, on both sides: then this spares the way down the index. A key is unique, so a live
    /// row that has it is the row.
    unsafe fn guess(&mut self) -> bool {
        // SAFETY: a row is fetched by its address on a page that exists; an address that holds none, or one
        // that is not visible, is said to be empty.
        unsafe {
            if self.last.ip_posid == 0 {
                return false;
            }
            if self.index_first > 0 {
                self.index_first -= 1;
                return false;
            }
            let mut tid = self.last;
            tid.ip_posid += 1;
            let fetch = (*(*self.relation).rd_tableam)
                .tuple_fetch_row_version
                .unwrap_unchecked();
            let snapshot = &raw mut pg_sys::SnapshotSelfData;
            let right = fetch(self.relation, &mut tid, snapshot, self.found)
                && (0..self.key_count).all(|k| {
                    let key = &mut self.scan_keys[k];
                    let value = attribute(self.found, self.heap_attnos[k]);
                    c::FunctionCall2Coll(&mut key.sk_func, key.sk_collation, value, key.sk_argument)
                        .value()
                        != 0
                });
            if right {
                self.last = tid;
                self.wrong = 0;
                return true;
            }
            clear(self.found);
            self.wrong = (self.wrong + 1).min(6);
            // One wrong guess a page is what to expect; where all are wrong, few are made.
            if self.wrong > 1 {
                self.index_first = 1 << self.wrong;
            }
            false
        }
    }

    /// Whether the row in `found` was written by the command that is running now: heap access methods
    /// refuse to change such a row a second time.
    ///
    /// # Safety
    /// `find` has just returned true.
    pub unsafe fn found_is_new(&self) -> bool {
        // SAFETY: slots of this kind hold a heap tuple, pinned.
        unsafe {
            if (*self.found).tts_ops != &raw const pg_sys::TTSOpsBufferHeapTuple {
                return true;
            }
            let tuple = (*self.found.cast::<pg_sys::HeapTupleTableSlot>()).tuple;
            let header = (*tuple).t_data;
            c::TransactionIdIsCurrentTransactionId((*header).t_choice.t_heap.t_xmin)
                && c::HeapTupleHeaderGetCmin(header) >= c::GetCurrentCommandId(false)
        }
    }

    /// # Safety
    /// The slot holds a row of this relation.
    pub unsafe fn insert(
        &mut self,
        slot: *mut pg_sys::TupleTableSlot,
        bulk: *mut pg_sys::BulkInsertStateData,
    ) {
        // SAFETY: the table access method's own entry point.
        unsafe {
            let insert = (*(*self.relation).rd_tableam)
                .tuple_insert
                .unwrap_unchecked();
            insert(self.relation, slot, c::GetCurrentCommandId(true), 0, bulk);
            self.insert_index_entries(slot, false);
        }
    }

    /// Replaces the row in `found`. False when somebody else had changed it, which cannot be.
    ///
    /// # Safety
    /// `find` has just returned true; the slot holds a row of this relation.
    pub unsafe fn update(&mut self, slot: *mut pg_sys::TupleTableSlot) -> bool {
        // SAFETY: as above.
        unsafe {
            let update = (*(*self.relation).rd_tableam)
                .tuple_update
                .unwrap_unchecked();
            let mut failure = std::mem::MaybeUninit::<pg_sys::TM_FailureData>::uninit();
            let mut mode = 0;
            let mut indexes = std::mem::zeroed();
            let mut tid = (*self.found).tts_tid;
            let result = update(
                self.relation,
                &mut tid,
                slot,
                c::GetCurrentCommandId(true),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                true,
                failure.as_mut_ptr(),
                &mut mode,
                &mut indexes,
            );
            if result != pg_sys::TM_Result::TM_Ok {
                return false;
            }
            #[cfg(any(feature = "pg14", feature = "pg15"))]
            if indexes {
                self.insert_index_entries(slot, false);
            }
            #[cfg(not(any(feature = "pg14", feature = "pg15")))]
            if indexes != pg_sys::TU_UpdateIndexes::TU_None {
                self.insert_index_entries(
                    slot,
                    indexes == pg_sys::TU_UpdateIndexes::TU_Summarizing,
                );
            }
            true
        }
    }

    /// Deletes the row in `found`. False when somebody else had changed it, which cannot be.
    ///
    /// # Safety
    /// `find` has just returned true.
    pub unsafe fn delete(&mut self) -> bool {
        // SAFETY: as above.
        unsafe { delete_at(self.relation, (*self.found).tts_tid) }
    }

    unsafe fn insert_index_entries(
        &mut self,
        slot: *mut pg_sys::TupleTableSlot,
        only_summarizing: bool,
    ) {
        // SAFETY: what ExecInsertIndexTuples does, without its checks.
        unsafe {
            let count = (*self.indexes).ri_NumIndices as usize;
            if count == 0 {
                return;
            }
            let mut context = std::ptr::null_mut();
            if !self.estate.is_null() {
                context = (*self.estate).es_per_tuple_exprcontext;
                if context.is_null() {
                    context = pg_sys::MakePerTupleExprContext(self.estate);
                }
                (*context).ecxt_scantuple = slot;
            }
            let mut values = [pg_sys::Datum::from(0); KEYS_MAX];
            let mut nulls = [false; KEYS_MAX];
            for i in 0..count {
                let index = *(*self.indexes).ri_IndexRelationDescs.add(i);
                let info = *(*self.indexes).ri_IndexRelationInfo.add(i);
                if index.is_null() || !(*info).ii_ReadyForInserts {
                    continue;
                }
                #[cfg(not(any(feature = "pg14", feature = "pg15")))]
                if only_summarizing && !(*info).ii_Summarizing {
                    continue;
                }
                let _ = only_summarizing;
                if !(*info).ii_Predicate.is_null() {
                    if (*info).ii_PredicateState.is_null() {
                        (*info).ii_PredicateState =
                            pg_sys::ExecPrepareQual((*info).ii_Predicate, self.estate);
                    }
                    if !qual_holds((*info).ii_PredicateState, context) {
                        continue;
                    }
                }
                c::FormIndexDatum(
                    info,
                    slot,
                    self.estate,
                    values.as_mut_ptr(),
                    nulls.as_mut_ptr(),
                );
                c::index_insert(
                    index,
                    values.as_mut_ptr(),
                    nulls.as_mut_ptr(),
                    &mut (*slot).tts_tid,
                    self.relation,
                    pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO,
                    false,
                    info,
                );
                // BRIN keeps pages pinned from one insert to the next, under whatever resource owner is
                // current; it gives them up here, not at the end of the transaction.
                #[cfg(any(feature = "pg17", feature = "pg18"))]
                if (*(*index).rd_indam).aminsertcleanup.is_some() {
                    c::index_insert_cleanup(index, info);
                }
            }
            if !context.is_null() {
                c::MemoryContextReset((*context).ecxt_per_tuple_memory);
            }
        }
    }
}

/// ExecQual: NULL counts as true for an empty qual only.
///
/// # Safety
/// A prepared qual, or null, and a context whose tuples are set.
pub unsafe fn qual_holds(state: *mut pg_sys::ExprState, context: *mut pg_sys::ExprContext) -> bool {
    // SAFETY: a prepared expression and its context; evaluated in per-tuple memory.
    unsafe {
        if state.is_null() {
            return true;
        }
        let outer = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = (*context).ecxt_per_tuple_memory;
        let mut null = false;
        let value = (*state).evalfunc.unwrap_unchecked()(state, context, &mut null);
        pg_sys::CurrentMemoryContext = outer;
        !null && value.value() != 0
    }
}

/// Deletes the row version at `tid`; no trigger, no cascade.
///
/// # Safety
/// The relation is open and locked for writing.
pub unsafe fn delete_at(relation: pg_sys::Relation, mut tid: pg_sys::ItemPointerData) -> bool {
    // SAFETY: the table access method's own entry point.
    unsafe {
        let delete = (*(*relation).rd_tableam).tuple_delete.unwrap_unchecked();
        let mut failure = std::mem::MaybeUninit::<pg_sys::TM_FailureData>::uninit();
        delete(
            relation,
            &mut tid,
            c::GetCurrentCommandId(true),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            true,
            failure.as_mut_ptr(),
            false,
        ) == pg_sys::TM_Result::TM_Ok
    }
}

/// Attribute `attno` of a slot, which must not be NULL.
///
/// # Safety
/// The slot holds a row with that attribute.
pub unsafe fn attribute(slot: *mut pg_sys::TupleTableSlot, attno: i16) -> pg_sys::Datum {
    // SAFETY: slot_getattr.
    unsafe {
        if attno > (*slot).tts_nvalid {
            c::slot_getsomeattrs_int(slot, i32::from(attno));
        }
        *(*slot).tts_values.add(attno as usize - 1)
    }
}

/// ExecClearTuple.
///
/// # Safety
/// A valid slot.
pub unsafe fn clear(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: every kind of slot has this operation.
    unsafe { (*(*slot).tts_ops).clear.unwrap_unchecked()(slot) }
}

/// Names of the triggers' arguments from `first` on.
///
/// # Safety
/// A trigger from the relation cache.
pub unsafe fn arguments(
    trigger: *const pg_sys::Trigger,
    first: usize,
    out: &mut [&CStr; KEYS_MAX],
) -> usize {
    // SAFETY: tgargs has tgnargs C strings, which live as long as the relation cache entry.
    unsafe {
        let count = ((*trigger).tgnargs as usize)
            .saturating_sub(first)
            .min(KEYS_MAX);
        for (i, slot) in out.iter_mut().enumerate().take(count) {
            *slot = CStr::from_ptr(*(*trigger).tgargs.add(first + i));
        }
        count
    }
}

/// Gives a side a new slot for what it finds, without touching the old one.
///
/// # Safety
/// The side is open; the old slot is never used again.
pub unsafe fn replace_found(side: *mut Side) {
    // SAFETY: allocated where the side itself lives.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = pg_sys::TopTransactionContext;
        (*side).found = pg_sys::MakeSingleTupleTableSlot(
            (*(*side).relation).rd_att,
            pg_sys::table_slot_callbacks((*side).relation),
        );
        pg_sys::CurrentMemoryContext = context;
    }
}

//! Copying the members' rows into the shadow, in committed chunks.
//!
//! Blocks of the primary are read in order. Where an index begins with the entity column, a first pass
//! over it notes which blocks hold members, one bit a block, so that a small tenant of a big partition
//! costs its own blocks only. Rows are taken as they lie (no expressions, defaults or checks are
//! evaluated) and go in with the table access method's multi-insert.

use super::{Pair, Shadow, members};
use crate::pg::error::Result;
use crate::pg::sql;
use pgrx::prelude::*;

/// Rows of one multi-insert.
const BATCH: usize = 512;
/// Blocks read in one transaction: 4 MB of the primary at the usual block size. Whoever commits meanwhile
/// waits until the log is written up to their own record, and so for what a chunk has written.
const CHUNK_BLOCKS: i64 = 512;

/// The same while others write.
const CHUNK_BLOCKS_AMONG_OTHERS: i64 = 64;

/// Blocks of one chunk: with a rate limit, about a quarter of a second's worth.
fn chunk_blocks(among_others: bool) -> i64 {
    let most = if among_others {
        CHUNK_BLOCKS_AMONG_OTHERS
    } else {
        CHUNK_BLOCKS
    };
    match i64::from(crate::guc::COPY_RATE_LIMIT_KB.get()) {
        0 => most,
        limit => (limit * 1024 / 4 / i64::from(pg_sys::BLCKSZ)).clamp(8, most),
    }
}

/// Whether anybody else writes to the log. Who commits waits until the log is on disk up to their own
/// record: a copy at full speed would make everybody wait for what it has written.
#[derive(Default)]
pub struct Company {
    all: u64,
    own: u64,
}

impl Company {
    /// Looks at what has been written since the last look.
    pub fn look(&mut self) -> bool {
        // SAFETY: counters of the server and of this process.
        let (all, own) = unsafe { (pg_sys::GetXLogInsertRecPtr(), pg_sys::pgWalUsage.wal_bytes) };
        let ours = own.saturating_sub(self.own);
        let others = all.saturating_sub(self.all).saturating_sub(ours);
        let first = self.all == 0;
        (self.all, self.own) = (all, own);
        // The log's own page headers, and this server's housekeeping, are not company.
        !first && others > 4096 + ours / 200
    }
}

/// Blocks of the primary that may hold members.
pub enum Blocks {
    All,
    Some { bits: Vec<u64>, upto: i64 },
}

impl Blocks {
    fn contains(&self, block: i64) -> bool {
        match self {
            Blocks::All => true,
            // Blocks that came after the look at the index hold only what was captured, or moved.
            Blocks::Some { bits, upto } => {
                block < *upto
                    && bits
                        .get((block / 64) as usize)
                        .is_some_and(|w| w >> (block % 64) & 1 == 1)
            }
        }
    }
}

/// What one chunk did.
pub struct Chunk {
    pub rows: i64,
    pub bytes: i64,
    pub next_block: i64,
    pub done: bool,
}

/// Which blocks to read: an index that begins with the entity column tells.
pub fn blocks_with_members(shadow: &Shadow, relid: pg_sys::Oid) -> Result<Blocks> {
    let Some(entities) = &shadow.entities else {
        return Ok(Blocks::All);
    };
    let index = sql::value::<pg_sys::Oid>(
        "SELECT i.indexrelid FROM pg_catalog.pg_index i
           JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am m ON m.oid = c.relam
           JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
          WHERE i.indrelid = $1 AND a.attname = $2 AND m.amname = 'btree' AND i.indisvalid AND i.indpred IS NULL
          ORDER BY pg_catalog.pg_relation_size(i.indexrelid) LIMIT 1",
        &[relid.into(), shadow.entity_column.as_str().into()],
    )?;
    let Some(index) = index else {
        return Ok(Blocks::All);
    };
    let matcher = Matcher::new(relid, &shadow.entity_column, Some(entities))?;
    // SAFETY: an index scan with one key for each entity; only tuple ids are looked at.
    unsafe {
        let heap = pg_sys::table_open(relid, pg_sys::AccessShareLock as i32);
        let index = pg_sys::index_open(index, pg_sys::AccessShareLock as i32);
        let upto = i64::from(pg_sys::RelationGetNumberOfBlocksInFork(
            heap,
            pg_sys::ForkNumber::MAIN_FORKNUM,
        ));
        let mut bits = vec![0u64; (upto / 64 + 1) as usize];
        let operator = pg_sys::get_opfamily_member(
            *(*index).rd_opfamily,
            *(*index).rd_opcintype,
            *(*index).rd_opcintype,
            pg_sys::BTEqualStrategyNumber as i16,
        );
        for value in &matcher.members {
            let mut key = pg_sys::ScanKeyData::default();
            pg_sys::ScanKeyEntryInitialize(
                &mut key,
                0,
                1,
                pg_sys::BTEqualStrategyNumber as u16,
                pg_sys::InvalidOid,
                *(*index).rd_indcollation,
                pg_sys::get_opcode(operator),
                *value,
            );
            let snapshot = pg_sys::GetActiveSnapshot();
            #[cfg(not(feature = "pg18"))]
            let scan = pg_sys::index_beginscan(heap, index, snapshot, 1, 0);
            #[cfg(feature = "pg18")]
            let scan = pg_sys::index_beginscan(heap, index, snapshot, std::ptr::null_mut(), 1, 0);
            pg_sys::index_rescan(scan, &mut key, 1, std::ptr::null_mut(), 0);
            loop {
                let tid =
                    pg_sys::index_getnext_tid(scan, pg_sys::ScanDirection::ForwardScanDirection);
                if tid.is_null() {
                    break;
                }
                let block =
                    (i64::from((*tid).ip_blkid.bi_hi) << 16) | i64::from((*tid).ip_blkid.bi_lo);
                if block < upto {
                    bits[(block / 64) as usize] |= 1 << (block % 64);
                }
            }
            pg_sys::index_endscan(scan);
            crate::pg::latch::check_interrupts();
        }
        pg_sys::index_close(index, pg_sys::NoLock as i32);
        pg_sys::table_close(heap, pg_sys::NoLock as i32);
        Ok(Blocks::Some { bits, upto })
    }
}

/// Tells members' rows from others.
pub struct Matcher {
    pub members: Vec<pg_sys::Datum>,
    attno: i16,
    collation: pg_sys::Oid,
    equal: pg_sys::FmgrInfo,
    everything: bool,
}

impl Matcher {
    pub fn new(relid: pg_sys::Oid, column: &str, entities: Option<&[String]>) -> Result<Matcher> {
        let mut matcher = Matcher {
            members: Vec::new(),
            attno: 0,
            collation: pg_sys::InvalidOid,
            equal: pg_sys::FmgrInfo::default(),
            everything: entities.is_none(),
        };
        let Some(entities) = entities else {
            return Ok(matcher);
        };
        members::column(relid, column)?;
        // SAFETY: catalog look-ups; values live as long as the transaction.
        unsafe {
            let name = std::ffi::CString::new(column).unwrap_or_default();
            let attno = pg_sys::get_attnum(relid, name.as_ptr());
            let mut typid = pg_sys::InvalidOid;
            let mut typmod = 0;
            pg_sys::get_atttypetypmodcoll(
                relid,
                attno,
                &mut typid,
                &mut typmod,
                &mut matcher.collation,
            );
            let base = pg_sys::getBaseType(typid);
            let cache = pg_sys::lookup_type_cache(base, pg_sys::TYPECACHE_EQ_OPR_FINFO as i32);
            pg_sys::fmgr_info((*cache).eq_opr_finfo.fn_oid, &mut matcher.equal);
            let mut input = pg_sys::InvalidOid;
            let mut ioparam = pg_sys::InvalidOid;
            pg_sys::getTypeInputInfo(base, &mut input, &mut ioparam);
            for entity in entities {
                let text = std::ffi::CString::new(entity.as_str()).unwrap_or_default();
                matcher.members.push(pg_sys::OidInputFunctionCall(
                    input,
                    text.as_ptr().cast_mut(),
                    ioparam,
                    -1,
                ));
            }
            matcher.attno = attno;
        }
        Ok(matcher)
    }

    /// # Safety
    /// The slot holds a row of the relation given to `new`.
    pub unsafe fn matches(&mut self, slot: *mut pg_sys::TupleTableSlot) -> bool {
        // SAFETY: entity columns are NOT NULL.
        unsafe { self.everything || self.has(crate::mirror::side::attribute(slot, self.attno)) }
    }

    /// # Safety
    /// A value of the entity column.
    unsafe fn has(&mut self, entity: pg_sys::Datum) -> bool {
        // SAFETY: the equality of the column's type.
        unsafe {
            for i in 0..self.members.len() {
                if pg_sys::FunctionCall2Coll(
                    &mut self.equal,
                    self.collation,
                    entity,
                    self.members[i],
                )
                .value()
                    != 0
                {
                    return true;
                }
            }
            false
        }
    }
}

/// For each of some entities, whether it is equal to one of the others.
pub fn equal(
    relid: pg_sys::Oid,
    column: &str,
    some: &[String],
    others: &[String],
) -> Result<Vec<bool>> {
    let values = Matcher::new(relid, column, Some(some))?.members;
    let mut matcher = Matcher::new(relid, column, Some(others))?;
    // SAFETY: values that the type's input function has made.
    Ok(values
        .into_iter()
        .map(|value| unsafe { matcher.has(value) })
        .collect())
}

/// Walks the visible rows of members in blocks from `start` on, at most a chunk of blocks that count.
///
/// `row` gets each row and its size; returns the block to go on with, and whether that was all.
pub fn walk(
    relid: pg_sys::Oid,
    blocks: &Blocks,
    start: i64,
    matcher: &mut Matcher,
    lock: u32,
    among_others: bool,
    mut row: impl FnMut(pg_sys::Relation, *mut pg_sys::TupleTableSlot),
) -> Result<(i64, bool)> {
    // SAFETY: a TID range scan under the active snapshot, begun and ended here.
    unsafe {
        let relation = pg_sys::table_open(relid, lock as i32);
        let method = &*(*relation).rd_tableam;
        let total = i64::from(pg_sys::RelationGetNumberOfBlocksInFork(
            relation,
            pg_sys::ForkNumber::MAIN_FORKNUM,
        ));
        let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
        let mut block = start;
        let limit = chunk_blocks(among_others);
        let mut read = 0;
        while block < total && read < limit {
            if !blocks.contains(block) {
                block += 1;
                continue;
            }
            // A run of blocks that count is one scan.
            let mut end = block + 1;
            while end < total && end - block < limit - read && blocks.contains(end) {
                end += 1;
            }
            let mut low = tid(block, 1);
            let mut high = tid(end - 1, u16::MAX);
            let flags =
                pg_sys::ScanOptions::SO_TYPE_TIDRANGESCAN | pg_sys::ScanOptions::SO_ALLOW_PAGEMODE;
            let scan = method.scan_begin.unwrap_unchecked()(
                relation,
                pg_sys::GetActiveSnapshot(),
                0,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                flags,
            );
            method.scan_set_tidrange.unwrap_unchecked()(scan, &mut low, &mut high);
            let next = method.scan_getnextslot_tidrange.unwrap_unchecked();
            while next(scan, pg_sys::ScanDirection::ForwardScanDirection, slot) {
                if matcher.matches(slot) {
                    row(relation, slot);
                }
            }
            crate::mirror::side::clear(slot);
            method.scan_end.unwrap_unchecked()(scan);
            read += end - block;
            block = end;
            crate::pg::latch::check_interrupts();
        }
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
        Ok((block, block >= total))
    }
}

fn tid(block: i64, offset: u16) -> pg_sys::ItemPointerData {
    let mut tid = pg_sys::ItemPointerData::default();
    tid.ip_blkid.bi_hi = (block >> 16) as u16;
    tid.ip_blkid.bi_lo = (block & 0xffff) as u16;
    tid.ip_posid = offset;
    tid
}

/// Copies the next chunk and records how far it came.
pub fn chunk(shadow: &Shadow, pair: &Pair, blocks: &Blocks, among_others: bool) -> Result<Chunk> {
    let mut matcher = Matcher::new(
        pair.primary,
        &shadow.entity_column,
        shadow.entities.as_deref(),
    )?;
    let mut rows = 0i64;
    let size = || -> Result<i64> {
        Ok(sql::value::<i64>(
            "SELECT pg_catalog.pg_table_size($1)",
            &[pair.shadow()?.into()],
        )?
        .unwrap_or(0))
    };
    let before = size()?;
    // SAFETY: slots hold copies of the rows until they are inserted; the map goes from the primary's columns
    // to the shadow's by name.
    let (next_block, done) = unsafe {
        let target = pg_sys::table_open(pair.shadow()?, pg_sys::RowExclusiveLock as i32);
        let mut insert = BulkInsert::new(target);
        let source = pg_sys::table_open(pair.primary, pg_sys::AccessShareLock as i32);
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let map = pg_sys::build_attrmap_by_name_if_req((*source).rd_att, (*target).rd_att);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let map = pg_sys::build_attrmap_by_name_if_req((*source).rd_att, (*target).rd_att, false);
        pg_sys::table_close(source, pg_sys::NoLock as i32);
        let position = walk(
            pair.primary,
            blocks,
            pair.blocks_done,
            &mut matcher,
            pg_sys::AccessShareLock,
            among_others,
            |_, slot| {
                rows += 1;
                insert.add(slot, map);
            },
        )?;
        insert.finish();
        pg_sys::table_close(target, pg_sys::NoLock as i32);
        position
    };
    // What was written, values out of line included.
    let bytes = size()? - before;
    sql::execute(
        "UPDATE shadowpart.pair SET blocks_done = $2, rows_done = rows_done + $3, bytes_done = bytes_done + $4
          WHERE id = $1",
        &[pair.id.into(), next_block.into(), rows.into(), bytes.into()],
    )?;
    Ok(Chunk {
        rows,
        bytes,
        next_block,
        done,
    })
}

/// Rows waiting to go in together.
struct BulkInsert {
    relation: pg_sys::Relation,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    filled: usize,
    size: usize,
    state: *mut pg_sys::BulkInsertStateData,
    /// Memory for what the access method allocates for a batch.
    context: pg_sys::MemoryContext,
}

impl BulkInsert {
    unsafe fn new(relation: pg_sys::Relation) -> Self {
        // SAFETY: an open relation.
        unsafe {
            BulkInsert {
                relation,
                slots: Vec::with_capacity(BATCH),
                filled: 0,
                size: 0,
                state: pg_sys::GetBulkInsertState(),
                context: pg_sys::AllocSetContextCreateInternal(
                    pg_sys::CurrentMemoryContext,
                    c"shadowpart copy".as_ptr(),
                    pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
                ),
            }
        }
    }

    /// Takes a copy of the row.
    unsafe fn add(&mut self, row: *mut pg_sys::TupleTableSlot, map: *mut pg_sys::AttrMap) {
        // SAFETY: each slot owns the tuple that is put into it.
        unsafe {
            if self.filled == self.slots.len() {
                self.slots.push(pg_sys::MakeSingleTupleTableSlot(
                    (*self.relation).rd_att,
                    &raw const pg_sys::TTSOpsHeapTuple,
                ));
            }
            let slot = self.slots[self.filled];
            crate::mirror::side::clear(slot);
            let columns = (*(*row).tts_tupleDescriptor).natts;
            let tuple = if map.is_null() {
                let stored = (*row.cast::<pg_sys::HeapTupleTableSlot>()).tuple;
                let natts =
                    i32::from((*(*stored).t_data).t_infomask2 & pg_sys::HEAP_NATTS_MASK as u16);
                if natts == columns {
                    pg_sys::heap_copytuple(stored)
                } else {
                    crate::mirror::side::attribute(row, columns as i16);
                    pg_sys::heap_form_tuple(
                        (*self.relation).rd_att,
                        (*row).tts_values,
                        (*row).tts_isnull,
                    )
                }
            } else {
                crate::mirror::side::attribute(row, columns as i16);
                let old = pg_sys::heap_form_tuple(
                    (*row).tts_tupleDescriptor,
                    (*row).tts_values,
                    (*row).tts_isnull,
                );
                let converted = map_tuple(
                    old,
                    (*row).tts_tupleDescriptor,
                    (*self.relation).rd_att,
                    map,
                );
                pg_sys::heap_freetuple(old);
                converted
            };
            let size = i64::from((*tuple).t_len);
            pg_sys::ExecForceStoreHeapTuple(tuple, slot, true);
            self.filled += 1;
            self.size += size as usize;
            if self.filled == BATCH || self.size > 1 << 20 {
                self.flush();
            }
        }
    }

    unsafe fn flush(&mut self) {
        // SAFETY: the access method's own entry point; option 2 is TABLE_INSERT_SKIP_FSM, new pages only.
        unsafe {
            if self.filled == 0 {
                return;
            }
            let outer = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = self.context;
            let insert = (*(*self.relation).rd_tableam)
                .multi_insert
                .unwrap_unchecked();
            insert(
                self.relation,
                self.slots.as_mut_ptr(),
                self.filled as i32,
                pg_sys::GetCurrentCommandId(true),
                pg_sys::TABLE_INSERT_SKIP_FSM as i32,
                self.state,
            );
            pg_sys::CurrentMemoryContext = outer;
            pg_sys::MemoryContextReset(self.context);
            for slot in &self.slots[..self.filled] {
                crate::mirror::side::clear(*slot);
            }
            self.filled = 0;
            self.size = 0;
        }
    }

    unsafe fn finish(&mut self) {
        // SAFETY: gives back what `new` took.
        unsafe {
            self.flush();
            pg_sys::FreeBulkInsertState(self.state);
            for slot in self.slots.drain(..) {
                pg_sys::ExecDropSingleTupleTableSlot(slot);
            }
            pg_sys::MemoryContextDelete(self.context);
        }
    }
}

unsafe fn map_tuple(
    tuple: pg_sys::HeapTuple,
    from: pg_sys::TupleDesc,
    to: pg_sys::TupleDesc,
    map: *mut pg_sys::AttrMap,
) -> pg_sys::HeapTuple {
    // SAFETY: attribute numbers in the map count from 1; 0 is a column that the source lacks.
    unsafe {
        let natts = (*to).natts as usize;
        let mut values = vec![pg_sys::Datum::from(0); natts];
        let mut nulls = vec![true; natts];
        for i in 0..natts {
            let source = *(*map).attnums.add(i);
            if source > 0 {
                values[i] = pg_sys::heap_getattr(tuple, i32::from(source), from, &mut nulls[i]);
            }
        }
        pg_sys::heap_form_tuple(to, values.as_mut_ptr(), nulls.as_mut_ptr())
    }
}

//! The partition key of a table, of which pgrx's bindings know only the name.

use pgrx::pg_sys;

/// How values of a partition key are compared.
#[derive(Clone, Copy)]
pub struct Comparison {
    pub opfamily: pg_sys::Oid,
    pub opcintype: pg_sys::Oid,
    pub collation: pg_sys::Oid,
    pub typlen: i16,
    pub typbyval: bool,
}

/// A partition key of one plain column.
#[derive(Clone, Copy)]
pub struct Key {
    pub attno: i16,
    pub typid: pg_sys::Oid,
    pub typmod: i32,
    pub comparison: Comparison,
}

/// Field for field what `partitioning/partdefs.h` and `utils/partcache.h` declare, up to the last
/// field that is read here.
#[repr(C)]
struct PartitionKeyData {
    #[cfg(any(feature = "pg14", feature = "pg15"))]
    strategy: std::ffi::c_char,
    #[cfg(not(any(feature = "pg14", feature = "pg15")))]
    strategy: pg_sys::PartitionStrategy::Type,
    partnatts: i16,
    partattrs: *mut i16,
    partexprs: *mut pg_sys::List,
    partopfamily: *mut pg_sys::Oid,
    partopcintype: *mut pg_sys::Oid,
    partsupfunc: *mut pg_sys::FmgrInfo,
    partcollation: *mut pg_sys::Oid,
    parttypid: *mut pg_sys::Oid,
    parttypmod: *mut i32,
    parttyplen: *mut i16,
    parttypbyval: *mut bool,
}

unsafe extern "C-unwind" {
    fn RelationGetPartitionKey(relation: pg_sys::Relation) -> *const PartitionKeyData;
}

/// The key of a table partitioned by LIST on one plain column; `None` for every other relation.
pub unsafe fn list_key(relation: pg_sys::Relation) -> Option<Key> {
    // SAFETY: an open relation; the arrays have `partnatts` elements.
    unsafe {
        let key = RelationGetPartitionKey(relation);
        if key.is_null()
            || (*key).strategy as u8 != b'l'
            || (*key).partnatts != 1
            || *(*key).partattrs == 0
        {
            return None;
        }
        let key = &*key;
        Some(Key {
            attno: *key.partattrs,
            typid: *key.parttypid,
            typmod: *key.parttypmod,
            comparison: Comparison {
                opfamily: *key.partopfamily,
                opcintype: *key.partopcintype,
                collation: *key.partcollation,
                typlen: *key.parttyplen,
                typbyval: *key.parttypbyval,
            },
        })
    }
}

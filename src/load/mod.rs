//! What each entity costs: counters in shared memory. Only the shape of it, so that the history can be
//! built; the counters themselves come from elsewhere.

use pgrx::pg_sys;

/// What one entity of a managed table has cost since its counters began.
#[derive(Clone, Debug)]
pub struct Sampled {
    /// The managed table.
    pub relation: pg_sys::Oid,
    /// `None`: statements that touched many entities of it.
    pub entity: Option<String>,
    /// The partition it was last seen in; may be `InvalidOid`.
    pub partition: pg_sys::Oid,
    /// Since when they count; microseconds since 2000.
    pub since_us: i64,
    /// Inserts, updates, deletes, bytes written, bytes removed, reads, rows read, microseconds of
    /// execution, microseconds of CPU, blocks read.
    pub totals: [u64; 10],
}

/// The counters of a database as they are now.
pub fn sample(_database: pg_sys::Oid) -> Vec<Sampled> {
    Vec::new()
}

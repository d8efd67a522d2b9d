//! The tables that are measured: a partitioned table with the tenants of one leaf, rows of some 120
//! bytes, an index by key and others.

use shadowpart_tests::{Result, Session};

/// The entity that gets a shadow, and one that lives in the same leaf.
pub const MOVED: i32 = 1;
pub const OTHER: i32 = 2;

pub const TABLESPACE: &str = "bench";

/// Makes `name`, partitioned, with one leaf for all tenants.
pub fn create(session: &mut Session, name: &str) -> Result<()> {
    session.run(&format!(
        "CREATE TABLE {name} (
             tenant int NOT NULL, id bigint NOT NULL, a int NOT NULL, b int NOT NULL, c int NOT NULL,
             d int NOT NULL, note text NOT NULL, PRIMARY KEY (tenant, id)
         ) PARTITION BY HASH (tenant);
         CREATE TABLE {name}_leaf PARTITION OF {name} FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
    ))
}

/// The rows of a tenant, as the SELECT of an INSERT.
pub fn rows_of(tenant: i32, from: u64, to: u64) -> String {
    format!(
        "SELECT {tenant}, g, 1 + g % 1000, 1 + g % 997, 1 + g % 991, 1 + g % 983, \
         repeat(md5(g::text), 2) FROM generate_series({from}, {to}) g"
    )
}

pub fn fill(session: &mut Session, name: &str, tenant: i32, rows: u64) -> Result<()> {
    session.run(&format!(
        "INSERT INTO {name} {}",
        rows_of(tenant, 1, rows.max(1))
    ))
}

/// As a table that has been in use for a while: statistics, visibility map, nothing dirty.
pub fn settle(session: &mut Session, names: &[&str]) -> Result<()> {
    for name in names {
        session.run(&format!("VACUUM ANALYZE {name}"))?;
    }
    session.run("CHECKPOINT")
}

pub fn manage(session: &mut Session, name: &str) -> Result<()> {
    session.run(&format!("SELECT shadow_manage('{name}', 'tenant')"))
}

/// Milliseconds of the events of a shadow, in order.
pub fn events(session: &mut Session, id: i64, event: &str, figure: &str) -> Result<Vec<f64>> {
    let values = session.column(&format!(
        "SELECT {figure} FROM shadow_history WHERE id = {id} AND event = '{event}' ORDER BY at"
    ))?;
    Ok(values.iter().map(|v| v.parse()).collect::<Result<_, _>>()?)
}

/// Makes `name` with so many rows of both tenants and a shadow that stands by; gives its id.
pub fn with_shadow(session: &mut Session, name: &str, rows: u64) -> Result<i64> {
    create(session, name)?;
    for tenant in [MOVED, OTHER] {
        fill(session, name, tenant, rows)?;
    }
    manage(session, name)?;
    let id = session.create_shadow(name, &MOVED.to_string(), TABLESPACE)?;
    // Both sides, or one would be cheaper to read than the other.
    settle(session, &[name])?;
    Ok(id)
}

/// Milliseconds of the last swaps and reverts of a shadow.
pub fn last_swaps(session: &mut Session, id: i64, count: u32, figure: &str) -> Result<Vec<f64>> {
    let values = session.column(&format!(
        "SELECT {figure} FROM shadow_history WHERE id = {id} AND event IN ('swap', 'revert')
         ORDER BY at DESC LIMIT {count}"
    ))?;
    Ok(values.iter().map(|v| v.parse()).collect::<Result<_, _>>()?)
}

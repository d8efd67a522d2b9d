//! A client that reads the accounts by every kind of plan; their number and sum never change.

use crate::{ACCOUNTS, MONEY, TENANTS};
use shadowpart_tests::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Settings that lead to a kind of plan, and a query whose answer is always the same.
const QUERIES: [(&str, &str, &str); 6] = [
    ("sequential", "SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off", SUM),
    ("indexed", "SET LOCAL enable_seqscan = off", SUM),
    (
        "parallel",
        "SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0;
         SET LOCAL min_parallel_table_scan_size = 0; SET LOCAL enable_partitionwise_aggregate = on",
        SUM,
    ),
    (
        "nested loop",
        "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_seqscan = off",
        "SELECT count(*) || ' ' || sum(s.v) FROM keys k JOIN stock s ON s.tenant = k.tenant AND s.id = k.id",
    ),
    (
        "partition-wise join",
        "SET LOCAL enable_partitionwise_join = on",
        "SELECT count(*) || ' ' || sum(a.v) FROM stock a JOIN stock b USING (tenant, id)
         WHERE a.id < 0 AND b.id < 0",
    ),
    (
        "lateral",
        "SET LOCAL enable_seqscan = off",
        "SELECT sum(n) || ' ' || sum(v) FROM generate_series(1, 6) t,
         LATERAL (SELECT count(*) AS n, sum(v) AS v FROM stock s WHERE s.tenant = t AND s.id < 0) x",
    ),
];
const SUM: &str = "SELECT count(*) || ' ' || sum(v) FROM stock WHERE id < 0";

pub fn read(server: &Server, level: &str, stop: &AtomicBool) -> Result<u64> {
    let options = "-c plan_cache_mode=force_generic_plan";
    let mut session = server.connect_with("postgres", "postgres", options)?;
    let point = session.prepare("SELECT v FROM stock WHERE tenant = $1 AND id = $2")?;
    let of_tenant = session.prepare("SELECT count(*) FROM stock WHERE tenant = $1 AND id < 0")?;
    let expected = format!("{ACCOUNTS} {MONEY}");
    let mut dice = Dice::new(level.len() as u64);
    let mut reads = 0;
    while !stop.load(Ordering::Relaxed) {
        let (name, settings, sql) = *dice.pick(&QUERIES);
        session.run(&format!("BEGIN ISOLATION LEVEL {level}; {settings}"))?;
        for _ in 0..2 {
            let found = session.value(sql)?;
            ensure!(found == expected, "{name}: {found}, not {expected}");
            reads += 1;
        }
        session.run("COMMIT")?;

        // Outside a transaction block each statement has a snapshot of its own.
        for _ in 0..20 {
            let n = 1 + dice.below(ACCOUNTS as u64) as i64;
            let tenant = 1 + (n % i64::from(TENANTS)) as i32;
            let rows = session.query(&point, &[&tenant, &-n])?;
            ensure!(
                rows.len() == 1,
                "generic plan: {} rows for account {n}",
                rows.len()
            );
            let count: i64 = session.query_one(&of_tenant, &[&tenant])?.get(0);
            ensure!(
                count == ACCOUNTS / i64::from(TENANTS),
                "generic plan: {count} of {tenant}"
            );
            reads += 2;
        }
        if dice.one_in(4) {
            cursor(&mut session, level, &expected)?;
            reads += 1;
        }
    }
    Ok(reads)
}

/// A cursor that is read slowly, over a swap or more, shows the rows of the moment it was opened.
fn cursor(session: &mut Session, level: &str, expected: &str) -> Result<()> {
    session.run(&format!(
        "BEGIN ISOLATION LEVEL {level};
         SET LOCAL enable_seqscan = off;
         DECLARE c NO SCROLL CURSOR FOR SELECT tenant, id, v FROM stock WHERE id < 0 ORDER BY tenant, id;
         DECLARE d NO SCROLL CURSOR FOR SELECT tenant, id, v FROM stock WHERE id < 0"
    ))?;
    for name in ["c", "d"] {
        let (mut rows, mut sum) = (0, 0);
        loop {
            let some = session.rows(&format!("FETCH 40 FROM {name}"))?;
            if some.is_empty() {
                break;
            }
            for row in &some {
                sum += row[2].as_deref().context("v is not null")?.parse::<i64>()?;
            }
            rows += some.len();
            std::thread::sleep(Duration::from_millis(15));
        }
        ensure!(
            format!("{rows} {sum}") == expected,
            "cursor {name}: {rows} {sum}, not {expected}"
        );
    }
    session.run("COMMIT")
}

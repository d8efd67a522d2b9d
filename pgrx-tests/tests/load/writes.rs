//! Every path on which rows are written, each compared with what it is known to write.

use super::*;
use std::io::Write;

#[test]
fn statements_of_every_kind() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        session.run(TABLE)?;
        session.run(
            "CREATE TABLE other (tenant int, id int); INSERT INTO other VALUES (1, 1), (2, 1)",
        )?;
        for (sql, expected) in [
            ("INSERT INTO t VALUES (1, 1, 'a')", "1 +1"),
            (
                "INSERT INTO t VALUES (1, 2), (2, 1), (2, 2), (9, 1)",
                "1 +1, 2 +2, 9 +1",
            ),
            // Ten of each; the first tenant has 103, 106, ..., the second 101, 104, ...
            (
                "INSERT INTO t SELECT 1 + g % 3, 100 + g FROM generate_series(1, 30) g",
                "1 +10, 2 +10, 3 +10",
            ),
            ("INSERT INTO t_1 VALUES (1, 200)", "1 +1"),
            ("UPDATE t_1 SET note = 'x' WHERE id = 200", "1 ~1"),
            ("DELETE FROM t_1 WHERE id = 200", "1 -1"),
            (
                "UPDATE t SET note = 'x' WHERE tenant = 2 AND id < 3",
                "2 ~2",
            ),
            (
                "UPDATE t SET note = 'u' WHERE id > 100",
                "1 ~10, 2 ~10, 3 ~10",
            ),
            ("DELETE FROM t WHERE tenant = 3 AND id <= 110", "3 -3"),
            ("DELETE FROM t WHERE id > 125", "1 -2, 2 -1, 3 -2"),
            ("DELETE FROM t WHERE tenant = 77", "nothing"),
            (
                "INSERT INTO t VALUES (1, 1), (1, 900), (2, 1)
                 ON CONFLICT (tenant, id) DO UPDATE SET note = excluded.note",
                "1 +1 ~1, 2 ~1",
            ),
            (
                "INSERT INTO t VALUES (1, 1, 'b') ON CONFLICT (tenant, id) DO UPDATE SET note = 'c'",
                "1 ~1",
            ),
            (
                "INSERT INTO t VALUES (1, 1), (1, 901) ON CONFLICT DO NOTHING",
                "1 +1",
            ),
            (
                "INSERT INTO t VALUES (1, 1) ON CONFLICT DO NOTHING",
                "nothing",
            ),
            (
                "MERGE INTO t USING (VALUES (1, 900), (1, 901), (2, 50), (9, 1)) s(tenant, id)
                 ON t.tenant = s.tenant AND t.id = s.id
                 WHEN MATCHED AND s.id = 900 THEN DELETE
                 WHEN MATCHED THEN UPDATE SET note = 'm'
                 WHEN NOT MATCHED THEN INSERT VALUES (s.tenant, s.id)",
                "1 ~1 -1, 2 +1, 9 ~1",
            ),
            // To another entity: in the same partition it is an update of the new one, and a row of it;
            // in another partition the row goes here and comes there.
            (
                "UPDATE t SET tenant = 3 WHERE tenant = 2 AND id = 50",
                "3 ~1",
            ),
            (
                "UPDATE t SET tenant = 1, id = 950 WHERE tenant = 3 AND id = 50",
                "1 +1, 3 -1",
            ),
            (
                "WITH gone AS (DELETE FROM t WHERE tenant = 1 AND id = 950 RETURNING id),
                      new AS (INSERT INTO t SELECT 9, id FROM gone RETURNING id)
                 SELECT * FROM new",
                "1 -1, 9 +1",
            ),
            (
                "WITH new AS (INSERT INTO t SELECT 4, g FROM generate_series(1, 3) g RETURNING id)
                 UPDATE t SET note = 'w' FROM new WHERE t.tenant = 9 AND t.id = new.id",
                "4 +3, 9 ~1",
            ),
            (
                "UPDATE t SET note = 'f' FROM other o WHERE t.tenant = o.tenant AND t.id = o.id",
                "1 ~1, 2 ~1",
            ),
            (
                "DELETE FROM t USING other o WHERE t.tenant = o.tenant AND t.id = o.id",
                "1 -1, 2 -1",
            ),
            ("TRUNCATE t", "nothing"),
            (
                "BEGIN; INSERT INTO t VALUES (5, 1); UPDATE t SET note = 'x'; DELETE FROM t; COMMIT",
                "5 +1 ~1 -1",
            ),
            // Work that is rolled back was work.
            (
                "BEGIN; INSERT INTO t VALUES (5, 2), (5, 3); ROLLBACK",
                "5 +2",
            ),
        ] {
            assert_writes(&mut session, sql, expected)?;
        }
        Ok(())
    });
}

#[test]
fn protocols_and_copy() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        session.run(TABLE)?;
        let statement = session.prepare("INSERT INTO t VALUES ($1, $2, $3)")?;
        let change = session.prepare("UPDATE t SET note = $3 WHERE tenant = $1 AND id = $2")?;
        session.run("SELECT shadow_stats_reset()")?;
        // More than five: the plan becomes generic.
        for id in 0..20_i32 {
            let tenant = 1 + id % 4;
            session.execute(&statement, &[&tenant, &id, &"n"])?;
            session.execute(&change, &[&tenant, &id, &"m"])?;
        }
        let found = writes(&mut session, "t")?;
        ensure!(found == "1 +5 ~5, 2 +5 ~5, 3 +5 ~5, 4 +5 ~5", "{found}");

        for (target, expected) in [("t", "1 +2, 2 +1, 9 +1"), ("t_1", "1 +2")] {
            for options in ["", "WITH (FORMAT csv)"] {
                session.run("TRUNCATE t; SELECT shadow_stats_reset()")?;
                let lines = match (target, options) {
                    ("t", "") => "1\t1\ta\n1\t2\t\\N\n2\t1\tx\n9\t1\ty\n",
                    ("t", _) => "1,1,a\n1,2,\n2,1,x\n9,1,y\n",
                    (_, "") => "1\t1\ta\n1\t2\tb\n",
                    _ => "1,1,a\n1,2,b\n",
                };
                let mut copy = session.copy_in(&format!("COPY {target} FROM STDIN {options}"))?;
                copy.write_all(lines.as_bytes())?;
                copy.finish()?;
                let found = writes(&mut session, "t")?;
                ensure!(found == expected, "{found}: COPY {target} {options}");
            }
        }
        // A thousand rows by COPY: still in the burst that is counted exactly.
        session.run("TRUNCATE t; SELECT shadow_stats_reset()")?;
        let mut copy = session.copy_in("COPY t FROM STDIN")?;
        for id in 0..1000 {
            writeln!(copy, "{}\t{id}\tx", 1 + id % 5)?;
        }
        copy.finish()?;
        let found = writes(&mut session, "t")?;
        ensure!(found == "1 +200, 2 +200, 3 +200, 4 +200, 5 +200", "{found}");
        Ok(())
    });
}

/// Bytes are those of rows as they lie in the table, and of values in the TOAST table.
#[test]
fn bytes() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        session.run(TABLE)?;
        let of = |session: &mut Session, what: &str, tenant: u32| {
            session.number(&format!(
                "SELECT coalesce(sum({what}), 0) FROM shadow_entity_counters WHERE entity = '{tenant}'"
            ))
        };
        // Of all lengths, and NULLs.
        session.run(
            "SELECT shadow_stats_reset();
             INSERT INTO t SELECT 1 + g % 2, g, CASE WHEN g % 5 > 0 THEN repeat('x', g) END
             FROM generate_series(1, 500) g",
        )?;
        for tenant in [1, 2] {
            let found = of(&mut session, "bytes_written", tenant)?;
            let rows = session.number(&format!(
                "SELECT sum(pg_column_size(t.*)) FROM t WHERE tenant = {tenant}"
            ))?;
            ensure!(
                (found - rows).abs() * 100 <= rows,
                "{found} bytes, not {rows}"
            );
        }
        // An update writes the new version and removes the old one.
        let old = session.number("SELECT sum(pg_column_size(t.*)) FROM t WHERE tenant = 2")?;
        session.run(
            "SELECT shadow_stats_reset(); UPDATE t SET note = repeat('y', 300) WHERE tenant = 2",
        )?;
        let new = session.number("SELECT sum(pg_column_size(t.*)) FROM t WHERE tenant = 2")?;
        let (written, removed) = (
            of(&mut session, "bytes_written", 2)?,
            of(&mut session, "bytes_removed", 2)?,
        );
        ensure!(
            (written - new).abs() * 100 <= new,
            "{written} written, not {new}"
        );
        ensure!(
            (removed - old).abs() * 100 <= old,
            "{removed} removed, not {old}"
        );
        // From entity to entity within a partition: the old one loses what the new one gets.
        session.run("UPDATE t SET tenant = 3, id = id + 1000 WHERE tenant = 2")?;
        let moved = of(&mut session, "bytes_written", 3)?;
        ensure!(moved == written, "{moved}, not {written}, came to 3");
        let left = of(&mut session, "bytes_removed", 2)? - removed;
        ensure!(left == written, "{left}, not {written}, left 2");
        ensure!(
            of(&mut session, "bytes_written", 2)? == written,
            "2 has got something"
        );
        // Lies in the TOAST table: 200000 characters that do not compress to less than a quarter.
        session.run(
            "SELECT shadow_stats_reset();
             INSERT INTO t SELECT 7, 1, string_agg(md5(g::text), '') FROM generate_series(1, 6250) g",
        )?;
        let found = of(&mut session, "bytes_written", 7)?;
        let size = session.number("SELECT pg_column_size(note) FROM t WHERE tenant = 7")?;
        ensure!(size > 50_000, "{size} bytes: the value does not tell");
        ensure!((found - size).abs() < 100, "{found} bytes, not {size}");
        session.run("SELECT shadow_stats_reset(); DELETE FROM t WHERE tenant = 7")?;
        let found = of(&mut session, "bytes_removed", 7)?;
        ensure!(
            (found - size).abs() < 100,
            "{found} bytes removed, not {size}"
        );
        Ok(())
    });
}

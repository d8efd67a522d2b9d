//! Who may see what is counted, and how counting gets along with what else happens to a database.

use super::*;

#[test]
fn privileges() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        session.run(TABLE)?;
        session.run(
            "CREATE ROLE stranger LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE watcher LOGIN IN ROLE pg_monitor;
             CREATE ROLE writer LOGIN; GRANT INSERT ON t TO writer; GRANT SELECT ON t TO reader;
             INSERT INTO t VALUES (1, 1), (2, 1); SELECT * FROM t",
        )?;
        let seen = |role: &str| -> Result<(i64, i64)> {
            let mut session = server.connect_as(role)?;
            Ok((
                session.number("SELECT count(*) FROM shadow_entity_counters")?,
                session.number("SELECT count(*) FROM shadow_entities")?,
            ))
        };
        // Two entities, and a row for each partition that was read as a whole.
        for (role, expected) in [
            ("postgres", 5),
            ("watcher", 5),
            ("reader", 5),
            ("writer", 0),
            ("stranger", 0),
        ] {
            let found = seen(role)?;
            ensure!(found == (expected, expected), "{role} sees {found:?}");
        }
        // Row security hides rows of the table from the reader, and so whose they are.
        session.run(
            "ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (tenant = 1)",
        )?;
        for (role, expected) in [
            ("postgres", 5),
            ("watcher", 5),
            ("reader", 0),
            ("stranger", 0),
        ] {
            let found = seen(role)?;
            ensure!(
                found == (expected, expected),
                "{role} sees {found:?} with row security"
            );
        }
        session.run("ALTER ROLE reader BYPASSRLS")?;
        ensure!(seen("reader")? == (5, 5));

        for role in ["stranger", "reader", "writer", "watcher"] {
            let mut other = server.connect_as(role)?;
            let failure = other.failure("SELECT shadow_stats_reset()")?;
            ensure!(failure.sqlstate == "42501", "{role}: {failure:?}");
            other.rows("SELECT * FROM shadow_stats_info")?;
            // Triggers call it; by itself it does nothing but complain.
            let failure = other.failure("SELECT shadowpart.load()")?;
            ensure!(failure.sqlstate != "XX000", "{failure:?}");
        }
        session.run("GRANT EXECUTE ON FUNCTION shadow_stats_reset() TO stranger")?;
        server
            .connect_as("stranger")?
            .run("SELECT shadow_stats_reset()")?;
        ensure!(seen("postgres")? == (0, 0));
        Ok(())
    });
}

/// Whoever writes needs nothing but the privilege to write, and is counted.
#[test]
fn writers_need_no_privileges() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        session.run(TABLE)?;
        session.run(
            "CREATE ROLE writer LOGIN; GRANT INSERT, DELETE ON t TO writer; GRANT SELECT (tenant) ON t TO writer;
             CREATE ROLE owner LOGIN; ALTER TABLE t OWNER TO owner",
        )?;
        for (number, role) in ["owner", "writer"].into_iter().enumerate() {
            let mut other = server.connect_as(role)?;
            session.run("SELECT shadow_stats_reset()")?;
            other.run(&format!(
                "INSERT INTO t VALUES (1, {number}), (2, {number}); DELETE FROM t WHERE tenant = 2;
                 SELECT tenant FROM t WHERE tenant = 1"
            ))?;
            let found = writes(&mut session, "t")?;
            ensure!(found == "1 +1, 2 +1 -1", "{found} by {role}");
        }
        Ok(())
    });
}

#[test]
fn databases() {
    scenario(Settings::default(), |server| {
        let mut first = server.connect()?;
        first.run("CREATE DATABASE second")?;
        first.run(TABLE)?;
        let mut second = server.connect_to("second")?;
        second.run("CREATE EXTENSION shadowpart")?;
        second.run(TABLE)?;
        first.run("SELECT shadow_stats_reset(); INSERT INTO t VALUES (1, 1), (2, 1)")?;
        second.run("INSERT INTO t VALUES (2, 1), (2, 2), (3, 1)")?;
        let (one, two) = (writes(&mut first, "t")?, writes(&mut second, "t")?);
        ensure!(one == "1 +1, 2 +1" && two == "2 +2, 3 +1", "{one}; {two}");
        Ok(())
    });
}

/// Names change, tables go, and tables are managed and unmanaged.
#[test]
fn the_table_changes() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        session.run(TABLE)?;
        session.run("INSERT INTO t VALUES (1, 1); ALTER TABLE t RENAME TO renamed; ALTER TABLE t_1 RENAME TO one")?;
        session.run("INSERT INTO renamed VALUES (1, 2), (2, 1)")?;
        let found = writes(&mut session, "renamed")?;
        ensure!(found == "1 +2, 2 +1", "{found}");
        let partitions = session
            .column("SELECT DISTINCT partition::text FROM shadow_entity_counters ORDER BY 1")?;
        ensure!(partitions == ["one", "t_23"], "{partitions:?}");
        session.run("ALTER TABLE renamed RENAME TO t; ALTER TABLE t RENAME tenant TO customer")?;
        assert_writes(
            &mut session,
            "INSERT INTO t VALUES (1, 3); UPDATE t SET note = 'x' WHERE customer = 1",
            "1 +1 ~3",
        )?;
        assert_reads(&mut session, "SELECT * FROM t WHERE customer = 1", "1 1/3")?;

        // With other sessions that remember what the table was.
        let mut other = server.connect()?;
        other.run("INSERT INTO t VALUES (1, 4)")?;
        session.run("SELECT shadow_unmanage('t')")?;
        ensure!(counting_triggers(&mut session)?.is_empty());
        for session in [&mut session, &mut other] {
            session.run("SELECT shadow_stats_reset(); INSERT INTO t VALUES (2, 10 + pg_backend_pid()); SELECT * FROM t WHERE customer = 1")?;
            ensure!(session.number("SELECT count(*) FROM shadow_entity_counters")? == 0);
        }
        session.run("SELECT shadow_manage('t', 'customer')")?;
        ensure!(counting_triggers(&mut session)?.len() == 3);
        for session in [&mut session, &mut other] {
            assert_writes(
                session,
                "DELETE FROM t WHERE customer = 2 AND id = 10 + pg_backend_pid()",
                "2 -1",
            )?;
            assert_reads(session, "SELECT * FROM t WHERE customer = 1", "1 1/4")?;
        }
        session.run("INSERT INTO t VALUES (5, 1); DROP TABLE t")?;
        ensure!(session.number("SELECT count(*) FROM shadow_entity_counters")? == 0);
        ensure!(session.number("SELECT count(*) FROM shadow_entities")? == 0);
        // A new one by the same name begins with nothing.
        session.run(TABLE)?;
        let found = writes(&mut session, "t")?;
        ensure!(found == "nothing", "{found}");
        assert_writes(&mut session, "INSERT INTO t VALUES (5, 1)", "5 +1")
    });
}

#[test]
fn the_extension_goes() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        let mut other = server.connect()?;
        session.run(TABLE)?;
        for session in [&mut session, &mut other] {
            session.run("INSERT INTO t VALUES (1, pg_backend_pid())")?;
        }
        let prepared = other.prepare("INSERT INTO t VALUES (2, $1)")?;
        other.execute(&prepared, &[&1_i32])?;
        session.run("DROP EXTENSION shadowpart")?;
        ensure!(counting_triggers(&mut session)?.is_empty());
        other.execute(&prepared, &[&2_i32])?;
        for (number, session) in [&mut session, &mut other].into_iter().enumerate() {
            session.run(&format!(
                "INSERT INTO t VALUES (3, {number}); UPDATE t SET note = 'x'; INSERT INTO t_1 VALUES (1, {number});
                 DELETE FROM t WHERE tenant = 3 AND id = {number}"
            ))?;
        }
        session.run("CREATE EXTENSION shadowpart")?;
        session.run("SELECT shadow_manage('t', 'tenant')")?;
        assert_writes(&mut other, "INSERT INTO t VALUES (3, 1)", "3 +1")?;
        // With everything that belongs to it, too.
        session.run("DROP EXTENSION shadowpart CASCADE")?;
        ensure!(counting_triggers(&mut session)?.is_empty());
        other.run("INSERT INTO t VALUES (3, 2); DELETE FROM t")
    });
}

/// What was managed by the extension that went is not managed by the one that comes.
#[test]
fn the_extension_comes_back() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        session.run(TABLE)?;
        session.run("INSERT INTO t VALUES (1, 1); SELECT * FROM t WHERE tenant = 1")?;
        ensure!(session.number("SELECT count(*) FROM shadow_entity_counters")? == 1);
        session.run("DROP EXTENSION shadowpart; CREATE EXTENSION shadowpart")?;
        for session in [&mut session, &mut server.connect()?] {
            ensure!(session.number("SELECT count(*) FROM shadow_entity_counters")? == 0);
            assert_reads(session, "SELECT * FROM t WHERE tenant = 1", "nothing")?;
        }
        Ok(())
    });
}

#[test]
fn switched_off() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        session.run(TABLE)?;
        let both = |session: &mut Session, id: u32| -> Result<(String, String)> {
            session.run(&format!(
                "SELECT shadow_stats_reset(); INSERT INTO t VALUES (1, {id}); INSERT INTO t SELECT 2, {id} + g FROM generate_series(1, 20) g;
                 INSERT INTO t VALUES (2, {id} + 50), (3, {id} + 50); UPDATE t SET note = 'x' WHERE id >= {id};
                 UPDATE t SET note = 'y' WHERE tenant = 3 AND id = {id} + 50; DELETE FROM t_1 WHERE id = {id} - 100;
                 SELECT * FROM t WHERE tenant = 1 AND id = {id}"
            ))?;
            Ok((writes(session, "t")?, reads(session, "t")?))
        };
        session.run("INSERT INTO t VALUES (1, 0)")?;
        let on = (
            "1 +1 ~1 -1, 2 +21 ~21, 3 +1 ~2".to_owned(),
            "1 1/1".to_owned(),
        );
        let off = ("nothing".to_owned(), "nothing".to_owned());
        ensure!(both(&mut session, 100)? == on);
        session.run("SET shadowpart.track_load = off")?;
        let found = both(&mut session, 200)?;
        ensure!(found == off, "{found:?}");
        session.run("SET shadowpart.track_load = on")?;
        ensure!(both(&mut session, 300)? == on);
        // It is not for everybody to escape.
        session.run("CREATE ROLE stranger LOGIN")?;
        let failure = server
            .connect_as("stranger")?
            .failure("SET shadowpart.track_load = off")?;
        ensure!(failure.sqlstate == "42501", "{failure:?}");
        Ok(())
    });
}

#[test]
fn beside_other_extensions() {
    for libraries in [
        "pg_stat_statements, auto_explain, shadowpart",
        "shadowpart, auto_explain, pg_stat_statements",
    ] {
        let settings = Settings::default()
            .set("shared_preload_libraries", libraries)
            .set("auto_explain.log_min_duration", "0")
            .set("auto_explain.log_analyze", "on")
            .set("auto_explain.log_nested_statements", "on")
            .set("pg_stat_statements.track", "all");
        let there = Installation::under_test().is_ok_and(|i| i.has_extension("pg_stat_statements"));
        if !there {
            println!("skipped: this server has no pg_stat_statements");
            return;
        }
        scenario(settings, |server| {
            let mut session = server.connect()?;
            session.run(TABLE)?;
            session
                .run("CREATE EXTENSION pg_stat_statements; SELECT pg_stat_statements_reset()")?;
            for (number, busy) in [false, true].into_iter().enumerate() {
                if busy {
                    exhaust(&mut session)?;
                    session.run("SELECT pg_stat_statements_reset()")?;
                }
                let mut quiet = server.connect()?;
                let base = 1000 * number;
                assert_writes(
                    &mut quiet,
                    &format!("INSERT INTO t SELECT 1, {base} + g FROM generate_series(1, 10) g"),
                    "1 +10",
                )?;
                assert_reads(
                    &mut quiet,
                    &format!("SELECT * FROM t WHERE tenant = 1 AND id > {base}"),
                    "1 1/10",
                )?;
                for i in 0..20 {
                    session.run(&format!("INSERT INTO t VALUES (2, {base} + {i})"))?;
                    session.count_of(&format!(
                        "SELECT * FROM t WHERE tenant = 2 AND id = {base} + {i}"
                    ))?;
                }
                let look = |session: &mut Session, pattern: &str| -> Result<String> {
                    session.value(&format!(
                        "SELECT sum(calls) || ' ' || sum(rows) || ' ' || (sum(total_exec_time) > 0)
                         FROM pg_stat_statements WHERE query LIKE '{pattern}' AND toplevel"
                    ))
                };
                for (pattern, expected) in [
                    ("INSERT INTO t SELECT%", "1 10 true"),
                    ("INSERT INTO t VALUES%", "20 20 true"),
                    ("SELECT * FROM t WHERE tenant = $1 AND id = %", "20 20 true"),
                ] {
                    let found = look(&mut session, pattern)?;
                    ensure!(
                        found == expected,
                        "{found}, not {expected}: {pattern} with {libraries}"
                    );
                }
                session.run("SELECT pg_stat_statements_reset()")?;
            }
            let log = server.log();
            for text in [
                "Query Text: INSERT INTO t VALUES (2, 1000 + 3)",
                "(actual time=",
            ] {
                ensure!(
                    log.contains(text),
                    "not in the log with {libraries}: {text}"
                );
            }
            Ok(())
        });
    }
}

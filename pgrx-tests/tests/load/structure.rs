//! Tables whose partitions come and go, and whose rows move: shadows, other types, prepared transactions.

use super::*;
use std::time::Duration;

#[test]
fn partitions_come_and_go() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        session.run(TABLE)?;
        ensure!(counting_triggers(&mut session)? == ["t_1", "t_23", "t_rest"]);
        session.run("CREATE TABLE t_4 PARTITION OF t FOR VALUES IN (4)")?;
        assert_writes(
            &mut session,
            "INSERT INTO t VALUES (4, 1); INSERT INTO t_4 VALUES (4, 2)",
            "4 +2",
        )?;
        session.run(
            "CREATE TABLE plain (LIKE t INCLUDING ALL); INSERT INTO plain VALUES (5, 1);
             ALTER TABLE t ATTACH PARTITION plain FOR VALUES IN (5)",
        )?;
        assert_writes(
            &mut session,
            "INSERT INTO t VALUES (5, 2); DELETE FROM plain WHERE id = 1",
            "5 +1 -1",
        )?;
        // A tree that comes as a whole.
        session.run(
            "CREATE TABLE tree (LIKE t INCLUDING ALL) PARTITION BY RANGE (id);
             CREATE TABLE tree_low PARTITION OF tree FOR VALUES FROM (MINVALUE) TO (100);
             CREATE TABLE tree_high PARTITION OF tree FOR VALUES FROM (100) TO (MAXVALUE);
             ALTER TABLE t ATTACH PARTITION tree FOR VALUES IN (6, 7)",
        )?;
        assert_writes(
            &mut session,
            "INSERT INTO t VALUES (6, 1), (6, 200), (7, 300)",
            "6 +2, 7 +1",
        )?;
        session
            .run("CREATE TABLE tree_none PARTITION OF tree DEFAULT; INSERT INTO t VALUES (6, 2)")?;
        ensure!(
            counting_triggers(&mut session)?.len() == 8,
            "{:?}",
            counting_triggers(&mut session)?
        );
        // A session that has seen the partition in the table goes on writing to it outside.
        let mut other = server.connect()?;
        other.run("INSERT INTO plain VALUES (5, 10)")?;
        session.run(
            "ALTER TABLE t DETACH PARTITION plain; ALTER TABLE t DETACH PARTITION tree; DROP TABLE t_rest",
        )?;
        session.run("ALTER TABLE t DETACH PARTITION t_4 CONCURRENTLY")?;
        let left = counting_triggers(&mut session)?;
        ensure!(left == ["t_1", "t_23"], "{left:?}");
        assert_writes(
            &mut other,
            "INSERT INTO plain VALUES (5, 11); INSERT INTO tree VALUES (6, 11), (6, 211); INSERT INTO t_4 VALUES (4, 11)",
            "nothing",
        )?;
        session.run("ALTER TABLE t ATTACH PARTITION t_4 FOR VALUES IN (4)")?;
        assert_writes(
            &mut other,
            "INSERT INTO t VALUES (4, 12), (1, 12)",
            "1 +1, 4 +1",
        )?;
        session.run("DROP TABLE t_4")?;
        assert_writes(&mut other, "INSERT INTO t VALUES (1, 13)", "1 +1")
    });
}

/// Entities are the same in every layout of the table.
#[test]
fn layouts() {
    scenario(Settings::default(), |server| {
        for layout in LAYOUTS {
            let mut session = server.connect()?;
            session
                .run("DROP SCHEMA IF EXISTS live CASCADE; DROP SCHEMA IF EXISTS twin CASCADE")?;
            let orders = Orders::new(layout);
            let twin = orders.create(&mut session)?;
            session.run(
                "SELECT shadow_manage('live.orders', 'tenant'); SELECT shadow_stats_reset()",
            )?;
            // Of each of the five tenants a fifth, in all the months and regions.
            orders.fill(&twin, &mut session, 1000)?;
            let found = writes(&mut session, "live.orders")?;
            ensure!(
                found == "1 +200, 2 +200, 3 +200, 4 +200, 5 +200",
                "{found}: {}",
                layout.name
            );
            session.run("SELECT shadow_stats_reset(); UPDATE live.orders SET amount = 0 WHERE tenant = 2; DELETE FROM live.orders WHERE tenant = 3")?;
            let found = writes(&mut session, "live.orders")?;
            ensure!(found == "2 ~200, 3 -200", "{found}: {}", layout.name);
            session
                .run("SELECT shadow_stats_reset(); SELECT * FROM live.orders WHERE tenant = 4")?;
            let found = reads(&mut session, "live.orders")?;
            ensure!(found == "4 1/200", "{found}: {}", layout.name);
        }
        Ok(())
    });
}

/// Rows of an entity that has a shadow, or has moved, are written twice, and count once.
#[test]
fn entities_that_move() {
    scenario(Settings::default(), |server| {
        server.tablespace("fast")?;
        for layout in [LIST, MONTH] {
            let mut session = server.connect()?;
            session
                .run("DROP SCHEMA IF EXISTS live CASCADE; DROP SCHEMA IF EXISTS twin CASCADE")?;
            let orders = Orders::new(layout);
            let twin = orders.create(&mut session)?;
            orders.fill(&twin, &mut session, 500)?;
            session.run("SELECT shadow_manage('live.orders', 'tenant')")?;
            let mut base = 10_000;
            let mut check = |session: &mut Session, state: &str| -> Result<()> {
                base += 1000;
                let mut session_of = server.connect()?;
                for session in [session, &mut session_of] {
                    base += 100;
                    session.run(&format!(
                        "SELECT shadow_stats_reset();
                         INSERT INTO live.orders VALUES (1, 1, {base}, '2024-01-05', 1, 'a'), (1, 2, {base}, '2024-01-05', 1, 'a');
                         INSERT INTO live.orders SELECT 1, 1, {base} + g, '2024-01-05', 1, 'a' FROM generate_series(1, 20) g;
                         UPDATE live.orders SET note = 'b' WHERE tenant = 1 AND id BETWEEN {base} AND {base} + 9;
                         UPDATE live.orders SET note = 'c' WHERE id = {base};
                         DELETE FROM live.orders WHERE tenant = 1 AND id = {base} + 1;
                         INSERT INTO live.orders VALUES (1, 1, {base}, '2024-01-05', 1, 'a') ON CONFLICT DO NOTHING;
                         SELECT count(*) FROM live.orders WHERE tenant = 1"
                    ))?;
                    let found = writes(session, "live.orders")?;
                    ensure!(
                        found == "1 +21 ~11 -1, 2 +1 ~1",
                        "{found}: {state}, {}",
                        layout.name
                    );
                    let found = reads(session, "live.orders")?;
                    ensure!(found == "1 1/1", "{found}: {state}, {}", layout.name);
                }
                Ok(())
            };
            check(&mut session, "managed")?;
            let id = session.create_shadow("live.orders", "1", "fast")?;
            check(&mut session, "ready")?;
            session.swap(id)?;
            check(&mut session, "migrated")?;
            session.revert(id)?;
            check(&mut session, "reverted")?;
            session.swap(id)?;
            session.run("SELECT shadow_stats_reset()")?;
            session.finalize(id)?;
            // Jobs copy, compare and delete, and are nobody's load.
            let found = writes(&mut session, "live.orders")?;
            ensure!(found == "nothing", "the job wrote {found}");
            check(&mut session, "finalized")?;
            session.run("SELECT shadow_stats_reset()")?;
            session.migrate("live.orders", "2", "fast")?;
            let found = writes(&mut session, "live.orders")?;
            ensure!(found == "nothing", "the job wrote {found}");
            check(&mut session, "another")?;
        }
        Ok(())
    });
}

/// The trigger is in nobody's way when the entity column changes its type.
#[test]
fn the_type_changes() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        session.run(
            "CREATE TABLE t (tenant int, id int, at date, n serial, PRIMARY KEY (tenant, at, n)) PARTITION BY RANGE (at);
             CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
             CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
             SELECT shadow_manage('t', 'tenant');
             INSERT INTO t VALUES (1, 1, '2024-01-01'), (1, 1, '2024-02-01'), (2, 1, '2024-02-01')",
        )?;
        let found = writes(&mut session, "t")?;
        ensure!(found == "1 +2, 2 +1", "{found}");
        for typid in ["bigint", "text", "numeric"] {
            let mut other = server.connect()?;
            session.run(&format!(
                "ALTER TABLE t ALTER tenant TYPE {typid} USING tenant::{typid}"
            ))?;
            for session in [&mut session, &mut other] {
                assert_writes(
                    session,
                    "INSERT INTO t VALUES (1, 1, '2024-01-01'), (1, 1, '2024-02-01')",
                    "1 +2",
                )
                .context(typid)?;
                assert_writes(session, "UPDATE t SET id = 2 WHERE tenant = '2'", "2 ~1")
                    .context(typid)?;
            }
        }
        session
            .run("ALTER TABLE t DROP COLUMN id; ALTER TABLE t ADD COLUMN more text DEFAULT 'x'")?;
        assert_writes(
            &mut session,
            "INSERT INTO t VALUES (3, '2024-01-01')",
            "3 +1",
        )?;
        session.run(
            "ALTER TABLE t ALTER tenant TYPE uuid USING md5(tenant::text)::uuid; DELETE FROM t",
        )
    });
}

#[test]
fn cancelled_and_prepared() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        session.run(TABLE)?;
        session.run("SET statement_timeout = '100ms'")?;
        let failure = session.failure(
            "INSERT INTO t SELECT 1, g, CASE WHEN g > 200 THEN pg_sleep(0.01)::text END FROM generate_series(1, 100000) g",
        )?;
        ensure!(failure.sqlstate == "57014", "{failure:?}");
        session.run("RESET statement_timeout")?;
        assert_writes(
            &mut session,
            "INSERT INTO t SELECT 2, g FROM generate_series(1, 30) g; INSERT INTO t VALUES (1, 1)",
            "1 +1, 2 +30",
        )?;
        // By another session, in a function with a savepoint.
        let token = session.cancel_token();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            token.cancel_query(postgres::NoTls)
        });
        session.run("SELECT shadow_stats_reset()")?;
        let failure = session.failure(
            "DO $$ BEGIN
                 INSERT INTO t VALUES (4, 1);
                 BEGIN INSERT INTO t SELECT 5, length(pg_sleep(30)::text) FROM generate_series(1, 5);
                 EXCEPTION WHEN unique_violation THEN NULL; END;
             END $$",
        )?;
        ensure!(failure.sqlstate == "57014", "{failure:?}");
        killer.join().expect("no panic")?;
        assert_writes(
            &mut session,
            "INSERT INTO t SELECT 3, g FROM generate_series(1, 30) g",
            "3 +30",
        )?;

        // Two-phase commit: what is prepared is done.
        assert_writes(
            &mut session,
            "BEGIN; INSERT INTO t VALUES (6, 1), (6, 2); PREPARE TRANSACTION 'one'",
            "6 +2",
        )?;
        assert_writes(&mut session, "COMMIT PREPARED 'one'", "nothing")?;
        session.run("BEGIN; INSERT INTO t VALUES (6, 3); PREPARE TRANSACTION 'two'")?;
        session.run("ROLLBACK PREPARED 'two'")?;
        ensure!(session.number("SELECT count(*) FROM t WHERE tenant = 6")? == 2);
        assert_writes(&mut session, "DELETE FROM t WHERE tenant = 6", "6 -2")
    });
}

/// Statements of an owner who is no superuser put the triggers on; what the owner's search_path offers is
/// not used for it, since it is done with more rights than the owner has.
#[test]
fn a_hostile_search_path() {
    scenario(Settings::default(), |server| {
        let mut admin = server.connect()?;
        admin.run(
            "CREATE ROLE owner LOGIN; GRANT CREATE ON DATABASE postgres TO owner; GRANT ALL ON SCHEMA public TO owner",
        )?;
        let mut session = server.connect_as("owner")?;
        session.run(
            "CREATE SCHEMA evil;
             CREATE TABLE evil.who (name text);
             GRANT ALL ON SCHEMA evil TO PUBLIC; GRANT ALL ON evil.who TO PUBLIC;
             CREATE FUNCTION evil.eq(oid, oid) RETURNS boolean LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO evil.who VALUES (current_user); RETURN $1 OPERATOR(pg_catalog.=) $2; END';
             CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.eq);
             CREATE FUNCTION evil.eq(name, text) RETURNS boolean LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO evil.who VALUES (current_user); RETURN $1::text OPERATOR(pg_catalog.=) $2; END';
             CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = text, FUNCTION = evil.eq);
             CREATE TABLE t (tenant int NOT NULL, id int, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
             SELECT shadow_manage('t', 'tenant');
             SET search_path = evil, public, pg_catalog;
             CREATE TABLE t_1 PARTITION OF t FOR VALUES IN (1);
             CREATE TABLE t_2 (LIKE t INCLUDING ALL);
             ALTER TABLE t ATTACH PARTITION t_2 FOR VALUES IN (2);
             ALTER TABLE t DETACH PARTITION t_2;
             ALTER TABLE t RENAME tenant TO customer;
             INSERT INTO t VALUES (1, 1)",
        )?;
        ensure!(session.number("SELECT count(*) FROM evil.who")? == 0);
        ensure!(
            writes(&mut admin, "public.t")? == "1 +1",
            "{}",
            writes(&mut admin, "public.t")?
        );
        Ok(())
    });
}

/// Who forbids triggers by an event trigger gets partitions all the same, and no error.
#[test]
fn an_event_trigger_that_objects() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        session.run(TABLE)?;
        session.run(
            "CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS
                 'BEGIN RAISE EXCEPTION ''no triggers here''; END';
             CREATE EVENT TRIGGER no ON ddl_command_start WHEN TAG IN ('CREATE TRIGGER') EXECUTE FUNCTION no();
             CREATE TABLE t_4 PARTITION OF t FOR VALUES IN (4);
             INSERT INTO t VALUES (4, 1)",
        )?;
        ensure!(session.number("SELECT count(*) FROM t WHERE tenant = 4")? == 1);
        // Later it is counted, once nobody objects.
        session.run("DROP EVENT TRIGGER no")?;
        let counts = "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 't_4'::regclass AND tgname = '!shadowpart_load')";
        eventually(
            "the trigger is there",
            std::time::Duration::from_secs(30),
            || Ok(session.value(counts)? == "t"),
        )
    });
}

/// Nobody waits for writers: partitions that are in use are counted, or not any more, a little later.
#[test]
fn partitions_in_use() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        let unmanaged = TABLE.rsplit_once(';').context("it is managed last")?.0;
        session.run(unmanaged)?;
        let mut writer = server.connect()?;
        writer.run("BEGIN; INSERT INTO t VALUES (1, 1)")?;
        session.run("SELECT shadow_manage('t', 'tenant')")?;
        ensure!(counting_triggers(&mut session)? == ["t_23", "t_rest"]);
        writer.run("COMMIT")?;
        let later = Duration::from_secs(30);
        eventually("all are counted", later, || {
            Ok(counting_triggers(&mut session)?.len() == 3)
        })?;
        writer.run("BEGIN; INSERT INTO t VALUES (2, 1)")?;
        session.run("SELECT shadow_unmanage('t')")?;
        ensure!(counting_triggers(&mut session)? == ["t_23"]);
        writer.run("COMMIT")?;
        eventually("none is counted", later, || {
            Ok(counting_triggers(&mut session)?.is_empty())
        })
    });
}

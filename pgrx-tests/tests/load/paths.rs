//! Rows that other things than the client's statement write: triggers, functions, foreign keys.

use super::*;

#[test]
fn functions_and_savepoints() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        session.run(TABLE)?;
        session.run(
            "CREATE FUNCTION f(who int, n int) RETURNS int LANGUAGE plpgsql AS $$
             BEGIN
                 FOR i IN 1..n LOOP
                     BEGIN
                         INSERT INTO t VALUES (who, i);
                         IF i % 3 = 0 THEN RAISE division_by_zero; END IF;
                     EXCEPTION WHEN division_by_zero THEN
                         INSERT INTO t VALUES (who + 1, i)
                             ON CONFLICT (tenant, id) DO UPDATE SET note = 'again';
                     WHEN unique_violation THEN
                         UPDATE t SET note = 'twice' WHERE tenant = who AND id = i;
                     END;
                 END LOOP;
                 RETURN n;
             END $$;
             CREATE PROCEDURE p(n int) LANGUAGE plpgsql AS $$
             BEGIN
                 FOR i IN 1..n LOOP
                     INSERT INTO t VALUES (20, i);
                     IF i % 2 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
                 END LOOP;
             END $$",
        )?;
        for (sql, expected) in [
            // Nine rows, three of them rolled back; those were work, too.
            ("SELECT f(10, 9)", "10 +9, 11 +3"),
            // Six are there already. The statements that fail write nothing that counts.
            ("SELECT f(10, 9); DELETE FROM t", "10 +3 ~6 -6, 11 ~3 -3"),
            ("CALL p(6)", "20 +6"),
            (
                "BEGIN; INSERT INTO t VALUES (1, 1); SAVEPOINT a; INSERT INTO t VALUES (1, 2), (2, 2);
                 ROLLBACK TO a; INSERT INTO t VALUES (1, 3); RELEASE a; COMMIT",
                "1 +3, 2 +1",
            ),
            (
                "BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO t VALUES (3, 1), (3, 2);
                 UPDATE t SET note = 's' WHERE tenant = 3; COMMIT",
                "3 +2 ~2",
            ),
            (
                "DO $$ BEGIN EXECUTE 'INSERT INTO t VALUES (4, 1)'; PERFORM f(30, 2); END $$",
                "4 +1, 30 +2",
            ),
            // Functions within a statement on the table, before, in between and after its own rows.
            ("INSERT INTO t SELECT 40, f(50 + 2 * g, 1) * g FROM generate_series(1, 3) g", "40 +3, 52 +1, 54 +1, 56 +1"),
        ] {
            assert_writes(&mut session, sql, expected)?;
        }
        // What failed as a whole has not come to its triggers; what came before it has.
        session.run("SELECT shadow_stats_reset()")?;
        session.run("BEGIN; INSERT INTO t VALUES (60, 1)")?;
        session.failure("INSERT INTO t SELECT 61, 1 / (3 - g) FROM generate_series(1, 5) g")?;
        session.run("ROLLBACK")?;
        let found = writes(&mut session, "t")?;
        ensure!(found == "60 +1", "{found}");
        assert_writes(&mut session, "INSERT INTO t VALUES (62, 1)", "62 +1")
    });
}

#[test]
fn triggers() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        session.run(TABLE)?;
        session.run(
            "CREATE TABLE source (tenant int, n int);
             CREATE FUNCTION after_row() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO t SELECT new.tenant, g FROM generate_series(1, new.n) g; RETURN NULL; END';
             CREATE FUNCTION after_statement() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO t SELECT 100, count(*) FROM new; RETURN NULL; END';
             CREATE TRIGGER r AFTER INSERT ON source FOR EACH ROW EXECUTE FUNCTION after_row();
             CREATE TRIGGER s AFTER INSERT ON source REFERENCING NEW TABLE AS new FOR EACH STATEMENT
                 EXECUTE FUNCTION after_statement();
             CREATE FUNCTION before_row() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN IF new.id = 1000 THEN RETURN NULL; END IF;
                  IF new.id = 1001 THEN new.tenant = 3; END IF; RETURN new; END';
             CREATE TRIGGER b BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION before_row();
             CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN IF new.id > 2000 THEN INSERT INTO t VALUES (new.tenant + 1, new.id - 1000); END IF;
                  RETURN NULL; END';
             CREATE TRIGGER a AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION again()",
        )?;
        for (sql, expected) in [
            (
                "INSERT INTO source VALUES (1, 3), (2, 4)",
                "1 +3, 2 +4, 100 +1",
            ),
            ("INSERT INTO t VALUES (2, 1000)", "nothing"),
            ("INSERT INTO t VALUES (2, 1001)", "3 +1"),
            // Each row makes another one below: 3500 of 1, 2500 of 2, 1500 of 3.
            ("INSERT INTO t VALUES (1, 3500)", "1 +1, 2 +1, 3 +1"),
            (
                "INSERT INTO t SELECT 20, 2100 + g FROM generate_series(1, 50) g",
                "20 +50, 21 +50",
            ),
        ] {
            assert_writes(&mut session, sql, expected)?;
        }
        // Replicated changes, and restored ones: the user's triggers do not fire, ours does.
        assert_writes(
            &mut session,
            "SET session_replication_role = replica; INSERT INTO t VALUES (2, 1000), (50, 4000)",
            "2 +1, 50 +1",
        )?;
        session.run("RESET session_replication_role")?;
        assert_writes(
            &mut session,
            "ALTER TABLE t_1 DISABLE TRIGGER USER; DELETE FROM t_1 WHERE id < 3",
            "1 -2",
        )
    });
}

#[test]
fn foreign_keys() {
    scenario(Settings::default(), |server| {
        for timing in ["", "DEFERRABLE INITIALLY DEFERRED"] {
            let mut session = server.connect()?;
            session.run("DROP TABLE IF EXISTS t, parent")?;
            session.run("CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1), (2), (3), (4)")?;
            session.run(TABLE)?;
            session.run(&format!(
                "ALTER TABLE t ADD parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE {timing};
                 CREATE TABLE grandchild (tenant int, id int, PRIMARY KEY (tenant, id),
                     FOREIGN KEY (tenant, id) REFERENCES t ON DELETE CASCADE)"
            ))?;
            for (sql, expected) in [
                (
                    "INSERT INTO t SELECT 1 + g % 3, g, NULL, 1 + g % 4 FROM generate_series(1, 24) g",
                    "1 +8, 2 +8, 3 +8",
                ),
                ("DELETE FROM parent WHERE id = 1", "1 -2, 2 -2, 3 -2"),
                ("UPDATE parent SET id = 20 WHERE id = 2", "1 ~2, 2 ~2, 3 ~2"),
                // The statement itself writes to the table, and so does its foreign key.
                (
                    "WITH d AS (DELETE FROM parent WHERE id = 3) INSERT INTO t VALUES (9, 1, NULL, 4)",
                    "1 -2, 2 -2, 3 -2, 9 +1",
                ),
                (
                    "BEGIN; DELETE FROM parent WHERE id = 4; COMMIT",
                    "1 -2, 2 -2, 3 -2, 9 -1",
                ),
            ] {
                assert_writes(&mut session, sql, expected).context(timing)?;
            }
            session.run("DROP TABLE grandchild")?;
        }
        Ok(())
    });
}

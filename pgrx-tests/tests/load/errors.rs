//! Whether a table is managed or not, and whether its rows are counted, sampled or spared: users'
//! statements fail with the same errors, and do the same.

use super::*;

const DEFINITION: &str = "
    CREATE TABLE {s}.checked (tenant int NOT NULL, id int NOT NULL, small int CHECK (small < 100), note varchar(5),
        twice int GENERATED ALWAYS AS (small * 2) STORED, number serial, gone int,
        PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
    CREATE TABLE {s}.other (id int PRIMARY KEY); INSERT INTO {s}.other VALUES (1);
    ALTER TABLE {s}.checked ADD other int REFERENCES {s}.other;
    ALTER TABLE {s}.checked DROP COLUMN gone;
    CREATE TABLE {s}.checked_1 PARTITION OF {s}.checked FOR VALUES IN (1);
    CREATE TABLE {s}.checked_2 (other int, small int, note varchar(5), id int NOT NULL, twice int GENERATED ALWAYS AS (small * 2) STORED,
        number int NOT NULL, tenant int NOT NULL);
    ALTER TABLE {s}.checked_2 ADD CONSTRAINT checked_small_check CHECK (small < 100);
    ALTER TABLE {s}.checked ATTACH PARTITION {s}.checked_2 FOR VALUES IN (2, 3);
    CREATE FUNCTION {s}.before() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF new.id = 666 THEN RAISE EXCEPTION 'the row %, %', new.tenant, new.id USING DETAIL = 'before', HINT = 'do not'; END IF;
            IF new.id = 667 THEN RETURN NULL; END IF;
            IF new.id = 668 THEN new.tenant = 3; END IF;
            IF new.id = 669 THEN new.tenant = 1; END IF;
            RETURN new;
        END $$;
    CREATE FUNCTION {s}.after() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF new.id = 777 THEN PERFORM 1 / (new.id - 777); END IF; RETURN NULL; END $$;
    CREATE TRIGGER b BEFORE INSERT OR UPDATE ON {s}.checked FOR EACH ROW EXECUTE FUNCTION {s}.before();
    CREATE TRIGGER a AFTER INSERT OR UPDATE ON {s}.checked FOR EACH ROW EXECUTE FUNCTION {s}.after();
    CREATE FUNCTION {s}.zero(n int) RETURNS int VOLATILE LANGUAGE plpgsql AS 'BEGIN RETURN 1 / n; END';
    CREATE PROCEDURE {s}.add(who int, what int, more int, name text) LANGUAGE plpgsql AS
        'BEGIN INSERT INTO {s}.checked (tenant, id, small, note) VALUES (who, what, more, name); END';
    INSERT INTO {s}.checked (tenant, id, small, note) SELECT 1 + g % 3, g, g, 'n' FROM generate_series(1, 30) g";

const FAILING: [&str; 21] = [
    "INSERT INTO {s}.checked (tenant, id) VALUES (1, 3)",
    "INSERT INTO {s}.checked_1 (tenant, id) VALUES (1, 3)",
    "INSERT INTO {s}.checked_1 (tenant, id) VALUES (2, 3)",
    "INSERT INTO {s}.checked (tenant, id) VALUES (9, 1)",
    "INSERT INTO {s}.checked (tenant, id) VALUES (NULL, 1)",
    "INSERT INTO {s}.checked (tenant, id) VALUES (2, NULL)",
    "INSERT INTO {s}.checked (tenant, id, small) VALUES (2, 40, 100)",
    "INSERT INTO {s}.checked (tenant, id, note) VALUES (2, 40, 'too long')",
    "INSERT INTO {s}.checked (tenant, id, other) VALUES (2, 40, 7)",
    "INSERT INTO {s}.checked (tenant, id, twice) VALUES (2, 40, 7)",
    "INSERT INTO {s}.checked (tenant, id, small) VALUES (2, 40, {s}.zero(0))",
    "INSERT INTO {s}.checked (tenant, id) VALUES (2, 666)",
    "INSERT INTO {s}.checked (tenant, id) VALUES (2, 669)",
    "INSERT INTO {s}.checked (tenant, id) VALUES (2, 777)",
    "INSERT INTO {s}.checked (tenant, id) SELECT 1 + g % 3, 100 + g / 3 * 3 FROM generate_series(1, 50) g, generate_series(1, 2)",
    "CALL {s}.add(1, 3, 5, 'x')",
    "CALL {s}.add(9, 3, 5, 'x')",
    "UPDATE {s}.checked SET tenant = 9 WHERE id = 4",
    "UPDATE {s}.checked SET small = small / (id - 4)",
    "UPDATE {s}.checked SET id = 5 WHERE tenant = 3",
    "DELETE FROM {s}.checked WHERE {s}.zero(id - 8) = 1",
];

/// Of this session's own: both twins use each number once.
const SUCCEEDING: [&str; 12] = [
    "INSERT INTO {s}.checked (tenant, id, small, note) VALUES (1, {n}, 1, 'a')",
    "INSERT INTO {s}.checked (tenant, id, small, note) VALUES (2, {n}, 2, 'b')",
    "INSERT INTO {s}.checked_2 (tenant, id, small, number) VALUES (3, 5 * {n}, 2, {n})",
    "INSERT INTO {s}.checked (tenant, id) VALUES (2, {n}) ON CONFLICT (tenant, id) DO UPDATE SET note = 'c', small = checked.small + 1",
    "INSERT INTO {s}.checked (tenant, id) VALUES (1, {n}) ON CONFLICT DO NOTHING",
    "INSERT INTO {s}.checked (tenant, id) VALUES (2, 667)",
    "DELETE FROM {s}.checked WHERE tenant = 3 AND id = 668",
    "INSERT INTO {s}.checked (tenant, id) VALUES (2, 668)",
    "UPDATE {s}.checked SET tenant = 3, note = 'm' WHERE tenant = 1 AND id = {n}",
    "UPDATE {s}.checked SET small = 3 WHERE tenant = 2 AND id = {n}",
    "MERGE INTO {s}.checked c USING (SELECT 1 AS tenant, {n} AS id) s ON c.tenant = s.tenant AND c.id = s.id
     WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (tenant, id) VALUES (s.tenant, s.id)",
    "DELETE FROM {s}.checked WHERE tenant = 2 AND id = {n} - 1",
];

fn both(session: &mut Session, base: u32, rounds: u32) -> Result<()> {
    for round in 0..rounds {
        for sql in FAILING {
            let mut failures = Vec::new();
            for schema in ["live", "twin"] {
                let failure = session.failure(&sql.replace("{s}", schema))?;
                failures.push(format!("{failure:?}").replace("live", "twin"));
            }
            ensure!(
                failures[0] == failures[1],
                "{sql}, round {round}:\n{}\n{}",
                failures[0],
                failures[1]
            );
        }
        for sql in SUCCEEDING {
            let mut rows = Vec::new();
            for schema in ["live", "twin"] {
                let sql = sql
                    .replace("{s}", schema)
                    .replace("{n}", &(base + round).to_string());
                rows.push(session.rows(&format!(
                    "{sql}{}",
                    if sql.starts_with("MERGE") {
                        ""
                    } else {
                        " RETURNING *"
                    }
                ))?);
            }
            ensure!(rows[0] == rows[1], "{sql}, round {round}: {rows:?}");
        }
    }
    Ok(())
}

#[test]
fn statements_fail_as_ever() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        let twin = Twin::create(&mut session, &["checked"], DEFINITION)?;
        session.run("SELECT shadow_manage('live.checked', 'tenant')")?;
        both(&mut session, 1000, 3)?;
        twin.assert_same(&mut session)?;
        // The same with statements that are spared, of which only one in many is counted.
        exhaust(&mut session)?;
        both(&mut session, 10_000, 40)?;
        twin.assert_same(&mut session)?;
        let mut quiet = server.connect()?;
        quiet.run(
            "SELECT shadow_stats_reset(); DELETE FROM live.checked WHERE tenant = 1 AND id = 3",
        )?;
        let found = writes(&mut quiet, "live.checked")?;
        ensure!(found == "1 -1", "{found}");
        Ok(())
    });
}

/// Random writes of every kind by a session that is spared most of its triggers.
#[test]
fn spared_statements_do_the_same() {
    scenario(Settings::default(), |server| {
        for layout in [LIST, MONTH, ATTACHED] {
            let mut session = server.connect()?;
            session
                .run("DROP SCHEMA IF EXISTS live CASCADE; DROP SCHEMA IF EXISTS twin CASCADE")?;
            exhaust(&mut session)?;
            let orders = Orders::new(layout);
            let twin = orders.create(&mut session)?;
            session.run("SELECT shadow_manage('live.orders', 'tenant')")?;
            orders.fill(&twin, &mut session, 1000)?;
            for round in 1..=4 {
                orders.write(&twin, &mut session, round)?;
            }
            twin.assert_same(&mut session).context(layout.name)?;
        }
        Ok(())
    });
}

/// What the hooks look up takes no part in the checks of SERIALIZABLE: a transaction that is doomed fails with
/// its own statement, and never takes the server with it; one that is not does not fail because of us.
#[test]
fn doomed_transactions() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        session.run(
            "CREATE TABLE t (tenant int, id int, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
             CREATE TABLE t_1 PARTITION OF t DEFAULT;
             SELECT shadow_manage('t', 'tenant');
             CREATE TABLE a (n int); CREATE TABLE b (n int); CREATE TABLE fresh (n int);
             INSERT INTO a VALUES (1); INSERT INTO b VALUES (1); INSERT INTO fresh VALUES (1)",
        )?;
        let started = session.value("SELECT pg_postmaster_start_time()")?;
        for _ in 0..3 {
            let mut first = server.connect()?;
            let mut second = server.connect()?;
            let mut third = server.connect()?;
            for session in [&mut first, &mut second, &mut third] {
                session.run("BEGIN ISOLATION LEVEL SERIALIZABLE")?;
            }
            first.run("UPDATE a SET n = n + 1")?;
            first.rows("SELECT n FROM b")?;
            first.run("SAVEPOINT s")?;
            third.rows("SELECT n FROM a")?;
            second.run("UPDATE b SET n = n + 1")?;
            second.run("COMMIT")?;
            // Either answer is PostgreSQL's to give.
            if let Err(error) = first.rows("SELECT n FROM fresh") {
                ensure!(sqlstate(&error) == Some("40001"), "{error:?}");
            }
            drop(first);
            drop(third);
            eventually(
                "the server is well",
                std::time::Duration::from_secs(20),
                || Ok(server.connect().and_then(|mut s| s.number("SELECT 1"))? == 1),
            )?;
        }
        ensure!(session.value("SELECT pg_postmaster_start_time()")? == started);
        ensure!(
            !server.log().contains("terminated by signal"),
            "nobody crashed"
        );
        // And what was looked up is right: a table that is managed now is counted.
        session.run("INSERT INTO t VALUES (1, 1)")?;
        ensure!(
            session.number("SELECT count(*) FROM shadow_entity_counters WHERE inserts = 1")? == 1
        );
        Ok(())
    });
}

//! Sessions that write much: estimates are right on average, and as near as the sampling design says.

use super::*;

/// Most rows that one row looked at stands for.
const WEIGHT_MAX: f64 = 1024.0;

/// How far an estimate of so many rows may be off.
///
/// Each row is kept by a coin of its own with a probability of at least 1/1024 that the past decides, and
/// then counts for its inverse. The errors are a martingale with steps of less than 1024 and a variance of
/// less than 1023 a row: by Freedman's inequality (*On Tail Probabilities for Martingales*, 1975) the sum
/// of n rows is off by more than `t` with a probability of at most
/// `2 exp(-t^2 / (2 (1023 n + 1024 t / 3)))`. Here `t` is such that this is one in a million, which is
/// about five standard errors; the tests of this file make fewer than a hundred comparisons.
pub fn tolerance(rows: i64) -> i64 {
    let exponent = (2e6_f64).ln();
    let variance = (WEIGHT_MAX - 1.0) * rows as f64;
    let linear = WEIGHT_MAX / 3.0 * exponent;
    (linear + (linear * linear + 2.0 * variance * exponent).sqrt()).ceil() as i64
}

/// Compares what is counted of entities with the truth; gives the ratio of the sums.
fn compare(session: &mut Session, column: &str, truth: &[(i64, i64)]) -> Result<f64> {
    let mut sums = (0, 0);
    for (entity, rows) in truth {
        let estimate = session.number(&format!(
            "SELECT coalesce(sum({column}), 0) FROM shadow_entity_counters
             WHERE relation = 't'::regclass AND entity = '{entity}'"
        ))?;
        sums = (sums.0 + estimate, sums.1 + rows);
        ensure!(
            (estimate - rows).abs() < tolerance(*rows),
            "{column} of {entity}: {estimate}, not {rows}, give or take {}",
            tolerance(*rows)
        );
    }
    let (estimate, rows) = sums;
    ensure!(
        (estimate - rows).abs() < tolerance(rows),
        "{column}: {estimate}, not {rows}, give or take {}",
        tolerance(rows)
    );
    println!("{column}: {estimate} of {rows}");
    Ok(estimate as f64 / rows as f64)
}

/// As many as need be for a tolerance of a third of the truth.
const ROWS: i64 = 400_000;

fn sampled(session: &mut Session) -> Result<()> {
    let share = session.value("SELECT row_sampling FROM shadow_stats_info")?;
    println!("{share} of the rows were looked at");
    ensure!(
        share.parse::<f64>()? < 0.2,
        "nothing tells: {share} of the rows were looked at"
    );
    Ok(())
}

/// Shares from 55 ‰ to 145 ‰.
fn shares() -> (String, Vec<(i64, i64)>) {
    let mut bound = 0;
    let mut cases = String::new();
    let mut truth = Vec::new();
    for entity in 1..=10 {
        let share = 45 + 10 * entity;
        bound += share;
        cases += &format!(" WHEN g * 7919 % 1000 < {bound} THEN {entity}");
        truth.push((entity, share * ROWS / 1000));
    }
    (format!("CASE{cases} END"), truth)
}

const HEAP: &str = "
    CREATE TABLE t (tenant int, id int, note text, n serial, PRIMARY KEY (tenant, n)) PARTITION BY HASH (tenant);
    CREATE TABLE t_0 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE t_1 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    CREATE FUNCTION entity(g bigint) RETURNS int IMMUTABLE LANGUAGE sql AS '";

fn prepare(server: &Server) -> Result<(Session, Vec<(i64, i64)>)> {
    let (expression, truth) = shares();
    let mut session = server.connect()?;
    session.run(&format!(
        "{HEAP}SELECT {expression}'; SELECT shadow_manage('t', 'tenant')"
    ))?;
    Ok((session, truth))
}

#[test]
fn one_statement() {
    scenario(Settings::default(), |server| {
        let (mut session, truth) = prepare(server)?;
        session.run(&format!(
            "INSERT INTO t SELECT entity(g), g, 'x' FROM generate_series(1, {ROWS}) g"
        ))?;
        sampled(&mut session)?;
        compare(&mut session, "inserts", &truth)?;
        session.run("UPDATE t SET note = 'y'")?;
        compare(&mut session, "updates", &truth)?;
        session.run("DELETE FROM t")?;
        compare(&mut session, "deletes", &truth)?;
        Ok(())
    });
}

/// Each statement is counted as a whole or not at all, and then costs nothing.
#[test]
fn many_statements() {
    scenario(Settings::default(), |server| {
        let (mut session, truth) = prepare(server)?;
        let parts = 4;
        std::thread::scope(|scope| -> Result<()> {
            let sessions: Vec<_> = (0..parts)
                .map(|part| {
                    let mut session = server.connect()?;
                    let size = ROWS / 4 / parts;
                    Ok(scope.spawn(move || {
                        session.run(&format!(
                            "DO $$ BEGIN
                                 FOR i IN 1 + {part} * {size}..({part} + 1) * {size} LOOP
                                     INSERT INTO t VALUES (entity(i), i, 'x');
                                 END LOOP;
                             END $$"
                        ))
                    }))
                })
                .collect::<Result<_>>()?;
            for session in sessions {
                session.join().expect("no session panics")?;
            }
            Ok(())
        })?;
        let quarter: Vec<(i64, i64)> = truth.iter().map(|(e, n)| (*e, n / 4)).collect();
        sampled(&mut session)?;
        compare(&mut session, "inserts", &quarter)?;
        ensure!(session.number("SELECT count(*) FROM t")? == ROWS / 4);
        Ok(())
    });
}

/// Statements within statements, of which each counts its own rows: from a function that the outer one
/// calls, and from a trigger on its rows.
#[test]
fn nested_statements() {
    scenario(Settings::default(), |server| {
        let (mut session, _) = prepare(server)?;
        session.run(
            "CREATE FUNCTION f(g int) RETURNS int LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO t VALUES (2, g, ''f''); RETURN 1; END';
             INSERT INTO t SELECT f(g), g FROM generate_series(1, 60000) g",
        )?;
        sampled(&mut session)?;
        let rows = 60_000;
        compare(&mut session, "inserts", &[(1, rows), (2, rows)])?;
        // The inner statements are large, the outer ones small.
        session.run(
            "CREATE FUNCTION many(g int) RETURNS int LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO t SELECT 4, n FROM generate_series(1, 30) n; RETURN 3; END';
             DO $$ BEGIN FOR i IN 1..4000 LOOP INSERT INTO t VALUES (many(i), i); END LOOP; END $$",
        )?;
        compare(&mut session, "inserts", &[(3, 4000), (4, 120_000)])?;
        session.run(
            "CREATE TABLE source (id int);
             CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN IF new.tenant = 5 THEN INSERT INTO t VALUES (6, new.id); END IF; RETURN NULL; END';
             CREATE TRIGGER a AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION again();
             INSERT INTO t SELECT 5, g FROM generate_series(1, 60000) g",
        )?;
        compare(&mut session, "inserts", &[(5, rows), (6, rows)])?;
        // A rolled back statement leaves nothing that others would be counted by.
        session.run("BEGIN; SAVEPOINT a")?;
        session
            .failure("INSERT INTO t SELECT 7, 1 / (30000 - g) FROM generate_series(1, 60000) g")?;
        session.run(
            "ROLLBACK TO a; INSERT INTO t SELECT 8, g FROM generate_series(1, 60000) g; COMMIT",
        )?;
        compare(&mut session, "inserts", &[(8, rows)])?;
        Ok(())
    });
}

/// Statements that are expected to change many rows, and change one: as much is looked at as of any other.
#[test]
fn one_row_where_many_are_expected() {
    let settings = Settings::default().set("autovacuum", "off");
    scenario(settings, |server| {
        let (mut session, _) = prepare(server)?;
        session.run(
            "INSERT INTO t SELECT 1, g % 20, 'x' FROM generate_series(1, 1000) g; CREATE INDEX ON t (tenant, id); ANALYZE t;
             DELETE FROM t WHERE n > 20",
        )?;
        exhaust(&mut session)?;
        session.run("SELECT shadow_stats_reset()")?;
        let begin = std::time::Instant::now();
        session.run(
            "DO $$ BEGIN
                 FOR i IN 1..20000 LOOP UPDATE t SET note = 'u' WHERE tenant = 1 AND id = i % 20; END LOOP;
             END $$",
        )?;
        let seconds = begin.elapsed().as_secs_f64();
        compare(&mut session, "updates", &[(1, 20_000)])?;
        let counted = session.number("SELECT rows_counted FROM shadow_stats_info")?;
        ensure!(
            counted as f64 > 30.0 * seconds && counted < 20_000,
            "{counted} rows were looked at in {seconds} s"
        );
        Ok(())
    });
}

#[test]
fn statements_that_read() {
    scenario(Settings::default(), |server| {
        let (mut session, _) = prepare(server)?;
        session.run(
            "INSERT INTO t SELECT entity(g), g FROM generate_series(1, 500) g; CREATE INDEX ON t (tenant, id); ANALYZE t;
             DO $$ DECLARE who int; n int; BEGIN
                 FOR i IN 1..60000 LOOP
                     who = 1 + i % 3;
                     SELECT count(*) INTO n FROM t WHERE tenant = who AND id = 1;
                 END LOOP;
             END $$",
        )?;
        let share = session.value("SELECT statement_sampling FROM shadow_stats_info")?;
        ensure!(
            share.parse::<f64>()? < 0.3,
            "{share} of the statements were looked at"
        );
        for column in ["reads", "rows_read"] {
            compare(
                &mut session,
                column,
                &[(1, 20_000), (2, 20_000), (3, 20_000)],
            )?;
        }
        Ok(())
    });
}

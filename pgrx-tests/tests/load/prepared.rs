//! Statements whose values come later, and results that are fetched bit by bit.

use super::reads::prepare;
use super::*;

#[test]
fn parameters() {
    scenario(Settings::default(), |server| {
        let mut session = prepare(server)?;
        for mode in ["force_custom_plan", "force_generic_plan", "auto"] {
            session.run(&format!("SET plan_cache_mode = {mode}; DEALLOCATE ALL"))?;
            session.run(
                "PREPARE one (int) AS SELECT * FROM t WHERE tenant = $1 AND id <= 20;
                 PREPARE several (int[]) AS SELECT * FROM t WHERE tenant = ANY ($1) AND id <= 20",
            )?;
            assert_reads(&mut session, "EXECUTE one (2)", "2 1/20").context(mode)?;
            assert_reads(
                &mut session,
                "EXECUTE several ('{1,2,9}')",
                "1 1/20, 2 1/20, 9 1/20",
            )
            .context(mode)?;

            let one = session.prepare("SELECT * FROM t WHERE tenant = $1 AND id <= $2")?;
            let several = session.prepare("SELECT * FROM t WHERE tenant = ANY ($1)")?;
            session.run("SELECT shadow_stats_reset()")?;
            for round in 0..12_i32 {
                session.query(&one, &[&(1 + round % 3), &10_i32])?;
            }
            session.query(&several, &[&vec![3_i32, 9]])?;
            let found = reads(&mut session, "t")?;
            ensure!(
                found == "1 4/40, 2 4/40, 3 5/115, 9 1/75",
                "{found}: {mode}"
            );
        }
        Ok(())
    });
}

#[test]
fn cursors_and_functions() {
    scenario(Settings::default(), |server| {
        let mut session = prepare(server)?;
        session.run(
            "CREATE FUNCTION of(who int) RETURNS bigint LANGUAGE plpgsql AS
                 'BEGIN RETURN (SELECT count(*) FROM t WHERE tenant = who); END';
             CREATE FUNCTION plain(who int) RETURNS SETOF t STABLE LANGUAGE sql AS
                 'SELECT * FROM t WHERE tenant = who'",
        )?;
        for (sql, expected) in [
            (
                "BEGIN; DECLARE c CURSOR FOR SELECT * FROM t WHERE tenant = 1;
                 FETCH ALL FROM c; CLOSE c; COMMIT",
                "1 1/100",
            ),
            (
                "BEGIN; DECLARE c CURSOR FOR SELECT * FROM t WHERE tenant = 2; FETCH 7 FROM c; COMMIT",
                "2 1/7",
            ),
            (
                "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT * FROM t WHERE tenant = 9; COMMIT; FETCH 3 FROM c; CLOSE c",
                "9 1/50",
            ),
            ("SELECT of(1), of(9)", "1 1/1, 9 1/1"),
            ("SELECT of(1) FROM generate_series(1, 20)", "1 20/20"),
            ("SELECT * FROM plain(3)", "3 1/100"),
        ] {
            assert_reads(&mut session, sql, expected)?;
        }
        Ok(())
    });
}

/// Rows of a result that is fetched bit by bit.
#[test]
fn fetches_add_up() {
    scenario(Settings::default(), |server| {
        let mut session = prepare(server)?;
        session.run(
            "CREATE FUNCTION loop(who int) RETURNS int LANGUAGE plpgsql AS
                 'DECLARE r record; n int = 0;
                  BEGIN FOR r IN SELECT * FROM t WHERE tenant = who LOOP n = n + 1; END LOOP; RETURN n; END'",
        )?;
        let mut wrong = Vec::new();
        for (sql, expected) in [
            (
                "BEGIN; DECLARE c CURSOR FOR SELECT * FROM t WHERE tenant = 2;
                 FETCH 10 FROM c; FETCH 5 FROM c; CLOSE c; COMMIT",
                "2 1/15",
            ),
            ("SELECT loop(2)", "2 1/100"),
        ] {
            let found = counted(&mut session, sql, reads)?;
            if found != expected {
                wrong.push(format!("{found}, not {expected}: {sql}"));
            }
        }
        // The protocol's own portals, of ten rows at a time.
        session.run("SELECT shadow_stats_reset()")?;
        let mut transaction = session.transaction()?;
        let portal = transaction.bind("SELECT * FROM t WHERE tenant = 3", &[])?;
        while !transaction.query_portal(&portal, 10)?.is_empty() {}
        drop(portal);
        transaction.commit()?;
        let found = reads(&mut session, "t")?;
        if found != "3 1/100" {
            wrong.push(format!("{found}, not 3 1/100: portal"));
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    });
}

/// A list of parameters, in a plan that knows no values.
#[test]
fn lists_of_parameters() {
    scenario(Settings::default(), |server| {
        let mut session = prepare(server)?;
        for mode in ["force_custom_plan", "force_generic_plan"] {
            session.run(&format!("SET plan_cache_mode = {mode}; DEALLOCATE ALL"))?;
            session.run(
                "PREPARE two (int, int) AS SELECT * FROM t WHERE tenant IN ($1, $2) AND id <= 20",
            )?;
            assert_reads(&mut session, "EXECUTE two (1, 9)", "1 1/20, 9 1/20").context(mode)?;
        }
        Ok(())
    });
}

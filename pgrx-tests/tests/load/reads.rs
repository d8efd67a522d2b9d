//! Statements that read: which entities they name, and how many rows they give.

use super::*;

/// The first three tenants have 100 rows each, the ninth has 50.
pub fn prepare(server: &Server) -> Result<Session> {
    let mut session = server.connect()?;
    session.run(TABLE)?;
    session.run(
        "INSERT INTO t SELECT tenant, g, repeat('x', 100) FROM generate_series(1, 100) g, (VALUES (1), (2), (3)) v(tenant);
         INSERT INTO t SELECT 9, g, 'y' FROM generate_series(1, 50) g;
         CREATE TABLE other (tenant int, id int, name text);
         INSERT INTO other SELECT tenant, g, 'n' FROM generate_series(1, 10) g, (VALUES (1), (2), (3)) v(tenant);
         CREATE TABLE second (tenant int, id int, PRIMARY KEY (tenant, id)) PARTITION BY HASH (tenant);
         CREATE TABLE second_0 PARTITION OF second FOR VALUES WITH (MODULUS 1, REMAINDER 0);
         INSERT INTO second SELECT tenant, id FROM other;
         SELECT shadow_manage('second', 'tenant')",
    )?;
    session.run("VACUUM ANALYZE t, other, second")?;
    Ok(session)
}

#[test]
fn statements_that_name_entities() {
    scenario(Settings::default(), |server| {
        let mut session = prepare(server)?;
        for (sql, expected) in [
            ("SELECT * FROM t WHERE tenant = 1", "1 1/100"),
            ("SELECT * FROM t WHERE 1 = tenant AND id < 11", "1 1/10"),
            ("SELECT * FROM t WHERE tenant = 1 AND false", "nothing"),
            ("SELECT count(*) FROM t WHERE tenant = 9", "9 1/1"),
            ("SELECT * FROM t WHERE tenant = 77", "77 1/0"),
            ("SELECT * FROM t_1 WHERE tenant = 1", "1 1/100"),
            (
                "SELECT * FROM t WHERE tenant = 1; SELECT * FROM t WHERE tenant = 1 AND id = 1",
                "1 2/101",
            ),
            // Several: each is read once, and has an even share of the rows.
            ("SELECT * FROM t WHERE tenant IN (1, 2)", "1 1/100, 2 1/100"),
            (
                "SELECT * FROM t WHERE tenant IN (2, 3) AND id <= 5",
                "2 1/5, 3 1/5",
            ),
            (
                "SELECT * FROM t WHERE tenant = ANY ('{1,2,3,9}') AND id = 7",
                "1 1/1, 2 1/1, 3 1/1, 9 1/1",
            ),
            (
                "SELECT * FROM t WHERE tenant = 1 UNION ALL SELECT * FROM t WHERE tenant = 2",
                "1 1/100, 2 1/100",
            ),
            // Joins to a constant, of either table.
            (
                "SELECT * FROM t JOIN other o USING (tenant, id) WHERE t.tenant = 1",
                "1 1/10",
            ),
            (
                "SELECT * FROM t JOIN other o USING (tenant, id) WHERE o.tenant = 2",
                "2 1/10",
            ),
            (
                "SELECT * FROM t JOIN (VALUES (3)) v(x) ON t.tenant = v.x",
                "3 1/100",
            ),
            (
                "SELECT * FROM t JOIN second s USING (tenant, id) WHERE s.tenant = 3",
                "3 1/5",
            ),
            (
                "SELECT * FROM (SELECT tenant, count(*) FROM t WHERE tenant = 2 GROUP BY 1) s",
                "2 1/1",
            ),
            (
                "SELECT (SELECT max(id) FROM t WHERE tenant = 3), 1",
                "3 1/1",
            ),
            (
                "SELECT * FROM other o WHERE EXISTS (SELECT FROM t WHERE t.tenant = 2 AND t.id = o.id)",
                "2 1/30",
            ),
            (
                "WITH w AS MATERIALIZED (SELECT * FROM t WHERE tenant = 1) SELECT * FROM w LIMIT 3",
                "1 1/3",
            ),
            ("SELECT * FROM t WHERE tenant = 2 FOR UPDATE", "2 1/100"),
            (
                "CREATE TEMP TABLE copy AS SELECT * FROM t WHERE tenant = 1",
                "1 1/100",
            ),
            // None in particular: for each partition that is read.
            ("SELECT * FROM t", "-t_1 1/117, -t_23 1/117, -t_rest 1/116"),
            (
                "SELECT * FROM t WHERE tenant > 1 AND tenant < 4",
                "-t_23 1/100, -t_rest 1/100",
            ),
            (
                "SELECT * FROM t JOIN (VALUES (1), (2)) v(x) ON t.tenant = v.x WHERE t.id = 1",
                "-t_1 1/1, -t_23 1/1, -t_rest 1/0",
            ),
            ("SELECT * FROM t_1", "-t_1 1/100"),
            // Nothing is read.
            ("EXPLAIN SELECT * FROM t WHERE tenant = 1", "nothing"),
            (
                "EXPLAIN (ANALYZE) SELECT * FROM t WHERE tenant = 1",
                "1 1/100",
            ),
            (
                "PREPARE never AS SELECT * FROM t WHERE tenant = 1",
                "nothing",
            ),
            // Whoever writes is no reader.
            (
                "INSERT INTO t SELECT 9, 1000 + id FROM t WHERE tenant = 1",
                "nothing",
            ),
            ("UPDATE t SET note = 'z' WHERE tenant = 9", "nothing"),
            ("DELETE FROM t WHERE tenant = 9 AND id > 50", "nothing"),
        ] {
            assert_reads(&mut session, sql, expected)?;
        }
        Ok(())
    });
}

/// However the rows are found.
#[test]
fn plans() {
    scenario(Settings::default(), |server| {
        let mut session = prepare(server)?;
        let ways = [
            (
                "Seq Scan",
                "SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off",
                "*",
            ),
            (
                "Index Scan",
                "SET enable_seqscan = off; SET enable_bitmapscan = off",
                "*",
            ),
            (
                "Bitmap Heap Scan",
                "SET enable_seqscan = off; SET enable_indexscan = off",
                "*",
            ),
            (
                "Index Only Scan",
                "SET enable_seqscan = off; SET enable_bitmapscan = off",
                "tenant, id",
            ),
        ];
        for (node, settings, columns) in ways {
            session.run(&format!("RESET ALL; {settings}"))?;
            for (condition, expected) in [
                ("tenant = 2", "2 1/100"),
                ("tenant IN (2, 3)", "2 1/100, 3 1/100"),
                ("tenant = 2 AND id BETWEEN 1 AND 10", "2 1/10"),
            ] {
                let sql = format!("SELECT {columns} FROM t WHERE {condition}");
                let plan = session.column(&format!("EXPLAIN {sql}"))?.join("\n");
                ensure!(plan.contains(node), "no {node}: {plan}");
                assert_reads(&mut session, &sql, expected).context(node)?;
            }
        }
        session.run(
            "RESET ALL; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
             SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 2",
        )?;
        let plan = session
            .column("EXPLAIN SELECT * FROM t WHERE tenant = 2")?
            .join("\n");
        ensure!(plan.contains("Gather"), "not parallel: {plan}");
        assert_reads(&mut session, "SELECT * FROM t WHERE tenant = 2", "2 1/100")
            .context("parallel")
    });
}

/// What reading takes: time, CPU, and blocks that are not in memory.
#[test]
fn costs() {
    // Nobody else reads the table.
    scenario(Settings::default().set("autovacuum", "off"), |server| {
        let mut session = prepare(server)?;
        session.run("CHECKPOINT")?;
        drop(session);
        server.restart(Shutdown::Fast)?;
        let mut session = server.connect()?;
        let costs = "SELECT sum(exec_ms)::numeric(20,3) || ' ' || sum(cpu_ms)::numeric(20,3) || ' ' || sum(blocks_read)
                     FROM shadow_entity_counters WHERE relation = 't'::regclass AND entity = '1'";
        let look = |session: &mut Session| -> Result<Vec<f64>> {
            let text = session.value(costs)?;
            Ok(text.split(' ').filter_map(|n| n.parse().ok()).collect())
        };
        session.run("SELECT count(note) FROM t WHERE tenant = 1")?;
        let blocks = session.number("SELECT pg_relation_size('t_1') / 8192")?;
        let cold = look(&mut session)?;
        ensure!(
            cold.len() == 3 && cold[2] >= blocks as f64,
            "{cold:?}, {blocks} blocks"
        );
        session.run("SELECT count(note) FROM t WHERE tenant = 1")?;
        let warm = look(&mut session)?;
        ensure!(warm[2] < 2.0 * cold[2], "read again: {cold:?}, {warm:?}");

        session.run("SELECT shadow_stats_reset()")?;
        let begin = std::time::Instant::now();
        session.run("SELECT sum(length(md5(a.note || g))) FROM t a, generate_series(1, 2000) g WHERE tenant = 1")?;
        let wall = begin.elapsed().as_secs_f64() * 1000.0;
        let heavy = look(&mut session)?;
        ensure!(heavy[0] > 1.0 && heavy[0] <= wall, "{heavy:?} of {wall} ms");
        ensure!(
            heavy[1] > 1.0 && heavy[1] <= wall + 20.0,
            "{heavy:?} of {wall} ms"
        );
        // Sleeping takes time, and no CPU.
        session.run(
            "SELECT shadow_stats_reset(); SELECT pg_sleep(0.3) FROM t WHERE tenant = 1 LIMIT 1",
        )?;
        let idle = look(&mut session)?;
        ensure!(idle[0] >= 300.0 && idle[1] < 200.0, "{idle:?}");
        // Writers' time is that of the entity they write to.
        session.run(
            "SELECT shadow_stats_reset(); INSERT INTO t SELECT 1, 5000, pg_sleep(0.2)::text",
        )?;
        ensure!(look(&mut session)?[0] >= 200.0);
        Ok(())
    });
}

/// Joins to something that tells which entity it is, however they are made. If it tells of one, the statement was
/// on that; of none or of several, on nobody in particular.
#[test]
fn joins_to_one_entity() {
    scenario(Settings::default(), |server| {
        let mut session = prepare(server)?;
        session.run(
            "CREATE TABLE names (name text, id bigint, small smallint);
             INSERT INTO names VALUES ('one', 1, 1), ('nine', 9, 9), ('two', 2, 2), ('two', 3, 3), ('null', NULL, NULL);
             INSERT INTO names SELECT 'x', 1000 + g, 1000 + g FROM generate_series(1, 20) g;
             ANALYZE names",
        )?;
        let no_index = "SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off";
        let kinds = [
            (
                "Hash Join",
                "SET enable_nestloop = off; SET enable_mergejoin = off".to_owned(),
            ),
            (
                "Hash Join",
                format!("SET enable_nestloop = off; SET enable_mergejoin = off; {no_index}"),
            ),
            (
                "Merge Join",
                "SET enable_nestloop = off; SET enable_hashjoin = off".to_owned(),
            ),
            (
                "Merge Join",
                format!("SET enable_nestloop = off; SET enable_hashjoin = off; {no_index}"),
            ),
            (
                "Nested Loop",
                "SET enable_hashjoin = off; SET enable_mergejoin = off".to_owned(),
            ),
        ];
        let nobody = |rows: [u32; 3]| {
            let [a, b, c] = rows;
            format!("-t_1 1/{a}, -t_23 1/{b}, -t_rest 1/{c}")
        };
        for (kind, settings) in kinds {
            session.run(&format!("RESET ALL; {settings}"))?;
            for (sql, expected) in [
                (
                    "SELECT * FROM t JOIN names n ON t.tenant = n.id WHERE n.name = 'one'",
                    "1 1/100".to_owned(),
                ),
                (
                    "SELECT * FROM t JOIN names n ON n.small = t.tenant WHERE n.name = 'nine'",
                    "9 1/50".to_owned(),
                ),
                (
                    "SELECT note FROM names n JOIN t ON n.id = t.tenant WHERE n.name = 'one' AND t.id <= 7",
                    "1 1/7".to_owned(),
                ),
                (
                    "SELECT count(*) FROM t JOIN names n ON t.tenant = n.id WHERE n.name = 'nine'",
                    "9 1/1".to_owned(),
                ),
                (
                    "SELECT n.name, s.c FROM (SELECT 1) one, LATERAL (SELECT count(*) AS c FROM t JOIN names m ON t.tenant = m.id WHERE m.name = 'nine') s, names n WHERE n.name = 'one'",
                    "9 1/1".to_owned(),
                ),
                (
                    "SELECT tenant, t.id FROM t JOIN names n ON t.tenant = n.id WHERE n.name = 'one'",
                    "1 1/100".to_owned(),
                ),
                (
                    "SELECT * FROM names n LEFT JOIN t ON t.tenant = n.id WHERE n.name = 'nine'",
                    "9 1/50".to_owned(),
                ),
                (
                    "SELECT * FROM t JOIN names n ON t.tenant = n.id WHERE n.name = 'two'",
                    nobody([67, 67, 66]),
                ),
                (
                    "SELECT * FROM t JOIN names n ON t.tenant = n.id WHERE n.name = 'nobody'",
                    nobody([0, 0, 0]),
                ),
            ] {
                assert_reads(&mut session, sql, &expected).with_context(|| settings.clone())?;
            }
            let plan = session
                .column(
                    "EXPLAIN SELECT * FROM t JOIN names n ON t.tenant = n.id WHERE n.name = 'one'",
                )?
                .join("\n");
            ensure!(plan.contains(kind), "no {kind}: {plan}");
            session.run(
                "PREPARE p (text) AS SELECT * FROM t JOIN names n ON t.tenant = n.id WHERE n.name = $1",
            )?;
            for mode in ["force_custom_plan", "force_generic_plan"] {
                session.run(&format!("SET plan_cache_mode = {mode}"))?;
                assert_reads(&mut session, "EXECUTE p ('one')", "1 1/100")
                    .with_context(|| format!("{settings}, {mode}"))?;
                assert_reads(&mut session, "EXECUTE p ('nine')", "9 1/50").context(mode)?;
            }
            session.run("DEALLOCATE p")?;
        }
        session.run("RESET ALL; SET enable_nestloop = off")?;
        for (sql, expected) in [
            ("SELECT * FROM t WHERE tenant IN (SELECT id FROM names WHERE name = 'nine')", "9 1/50".to_owned()),
            // All rows are asked for, whatever the other side gives.
            ("SELECT * FROM t LEFT JOIN names n ON t.tenant = n.id AND n.name = 'one'", nobody([117, 117, 116])),
            ("SELECT * FROM t WHERE NOT EXISTS (SELECT FROM names n WHERE n.id = t.tenant AND n.name = 'one')", nobody([84, 83, 83])),
            ("SELECT * FROM t FULL JOIN (SELECT * FROM names WHERE name = 'one') n ON t.tenant = n.id", nobody([117, 117, 116])),
            // Of another column.
            ("SELECT * FROM t JOIN names n ON t.id = n.id WHERE n.name = 'one'", nobody([2, 1, 1])),
            // What is fetched of it is counted.
            (
                "BEGIN; DECLARE c CURSOR FOR SELECT * FROM t JOIN names n ON t.tenant = n.id WHERE n.name = 'one';
                 FETCH 10 FROM c; FETCH 5 FROM c; COMMIT",
                "1 1/15".to_owned(),
            ),
        ] {
            assert_reads(&mut session, sql, &expected)?;
        }
        Ok(())
    });
}

/// The same of keys that are text, of tables with other columns in other places, and of two managed tables.
#[test]
fn joins_by_text() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        session.run(
            "CREATE TABLE t (gone int, id int, tenant varchar(20) NOT NULL, note text, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
             ALTER TABLE t DROP gone;
             CREATE TABLE t_a (note text, tenant varchar(20) NOT NULL, id int NOT NULL);
             ALTER TABLE t ATTACH PARTITION t_a FOR VALUES IN ('a');
             CREATE TABLE t_rest PARTITION OF t DEFAULT;
             INSERT INTO t (tenant, id) SELECT v, g FROM unnest('{a,b,c}'::text[]) v, generate_series(1, 100) g;
             CREATE TABLE names (number int, key text); INSERT INTO names VALUES (1, 'a'), (2, 'b');
             SELECT shadow_manage('t', 'tenant'); ANALYZE t; ANALYZE names",
        )?;
        for settings in [
            "SET enable_nestloop = off; SET enable_mergejoin = off",
            "SET enable_nestloop = off; SET enable_hashjoin = off",
            "SET enable_mergejoin = off; SET enable_hashjoin = off; SET enable_indexscan = off; SET enable_bitmapscan = off",
        ] {
            session.run(&format!("RESET ALL; {settings}"))?;
            for (number, expected) in [(1, "a 1/100"), (2, "b 1/100"), (3, "-t_a 1/0, -t_rest 1/0")]
            {
                assert_reads(
                    &mut session,
                    &format!("SELECT t.* FROM t JOIN names n ON t.tenant = n.key WHERE n.number = {number}"),
                    expected,
                )
                .context(settings)?;
            }
        }
        Ok(())
    });
}

//! The memory in which all is counted: fixed, shared, and gone with the server.

use super::*;

/// What docs/reference.md says of the memory, for so many entities: a head, sixteen shards, the totals of
/// partitions, long values.
fn formula(max_entities: i64) -> i64 {
    let up = |n: i64, to: i64| (n + to - 1) / to * to;
    let slots = up(max_entities, 16) / 16;
    let shard = |slots: i64| up(120 + 32 * 10 + (156 + 32 * 10) * slots, 64);
    let values = up(56 + (32 + 2712) * up(slots, 8), 64);
    128 + 16 * shard(slots) + shard(2 * slots) + values
}

fn info(session: &mut Session, column: &str) -> Result<i64> {
    session.number(&format!("SELECT {column} FROM shadow_stats_info"))
}

const LISTED: &str = "SELECT coalesce(sum(inserts), 0) FROM shadow_entity_counters";

/// A hundred thousand entities in memory for 160.
#[test]
fn many_entities() {
    let settings = Settings::default().set("shadowpart.max_entities", "160");
    scenario(settings, |server| {
        let mut session = server.connect()?;
        session.run(TABLE)?;
        let bytes = info(&mut session, "memory_bytes")?;
        ensure!(bytes == formula(160), "{bytes} bytes, not {}", formula(160));
        ensure!(info(&mut session, "max_entities")? == 160);

        // Each of five has a tenth of the rows; nobody else has more than one. Some sessions of the
        // many are quiet: all that they do is counted.
        let mut rows = 0;
        for part in 0..10 {
            let mut other = server.connect()?;
            other.run(&format!(
                "INSERT INTO t SELECT CASE WHEN g % 2 = 0 THEN g / 2 % 5 ELSE 1000 + {part} * 1000000 + g END, {part} * 1000000 + g
                 FROM generate_series(1, 1000) g"
            ))?;
            rows += 1000;
            let shown = session.number("SELECT count(*) FROM shadow_entity_counters")?;
            ensure!(shown <= 160, "{shown} entities");
        }
        let listed = session.number(LISTED)?;
        let tail = info(&mut session, "tail_writes")?;
        ensure!(
            listed + tail == rows,
            "{listed} listed, {tail} in the tail, {rows} rows"
        );
        ensure!(info(&mut session, "rows_estimated")? == rows);
        ensure!(info(&mut session, "rows_counted")? == rows);
        ensure!(info(&mut session, "evictions")? > 0);
        ensure!(info(&mut session, "error_bound::bigint")? > 0);
        let heavy = session.value(
            "SELECT string_agg(inserts::text, ' ') FROM shadow_entity_counters WHERE entity IN ('0', '1', '2', '3', '4')",
        )?;
        ensure!(heavy == "1000 1000 1000 1000 1000", "{heavy}");

        // All the others at once, and still the heaviest are there. The rows that the estimate stands
        // for are all in the list or in the tail.
        session.run(
            "INSERT INTO t SELECT CASE WHEN g % 2 = 0 THEN g / 2 % 5 ELSE 20000000 + g END, 20000000 + g
             FROM generate_series(1, 200000) g",
        )?;
        rows += 200_000;
        let estimated = info(&mut session, "rows_estimated")?;
        let tolerance = estimates::tolerance(200_000);
        ensure!(
            (estimated - rows).abs() < tolerance,
            "{estimated}, not {rows}"
        );
        let (listed, tail) = (session.number(LISTED)?, info(&mut session, "tail_writes")?);
        ensure!(
            listed + tail == estimated,
            "{listed} listed, {tail} in the tail, of {estimated}"
        );
        let top = session.value(
            "SELECT string_agg(entity, ' ' ORDER BY length(entity), entity)
             FROM (SELECT entity FROM shadow_entity_counters ORDER BY inserts DESC LIMIT 5) e",
        )?;
        ensure!(top == "0 1 2 3 4", "{top}");
        ensure!(info(&mut session, "entities")? <= 160);
        ensure!(
            info(&mut session, "memory_bytes")? == bytes,
            "the memory has grown"
        );

        session.run("SELECT shadow_stats_reset()")?;
        for column in [
            "entities",
            "evictions",
            "tail_writes",
            "tail_reads",
            "rows_counted",
            "rows_estimated",
            "statements_counted",
            "statements_estimated",
            "long_values",
            "error_bound::bigint",
        ] {
            let left = info(&mut session, column)?;
            ensure!(left == 0, "{column} is {left} after the reset");
        }
        ensure!(session.number("SELECT count(*) FROM shadow_entity_counters")? == 0);
        assert_writes(
            &mut server.connect()?,
            "INSERT INTO t VALUES (1, 0)",
            "1 +1",
        )
    });
}

/// The counters live as long as the server, and nobody misses them.
#[test]
fn restarts_and_crashes() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        session.run(TABLE)?;
        let mut id = 0;
        for event in ["restart", "crash", "killed", "immediate"] {
            id += 10;
            session.run(&format!("INSERT INTO t VALUES (1, {id}), (2, {id})"))?;
            session.run("SELECT * FROM t WHERE tenant = 1")?;
            let found = writes(&mut session, "t")?;
            ensure!(found == "1 +1, 2 +1", "{found} before: {event}");
            match event {
                "restart" => server.restart(Shutdown::Fast)?,
                "immediate" => server.restart(Shutdown::Immediate)?,
                "killed" => {
                    let victim = server.connect()?;
                    server.kill_process(victim.pid)?;
                    // Everybody is thrown out.
                    eventually(
                        "the session is gone",
                        std::time::Duration::from_secs(30),
                        || Ok(session.run("SELECT 1").is_err()),
                    )?;
                    server.wait_until_ready()?;
                }
                _ => {
                    server.crash()?;
                    server.start()?;
                }
            }
            session = server.connect()?;
            let found = writes(&mut session, "t")?;
            ensure!(found == "nothing", "{found} after: {event}");
            assert_writes(
                &mut session,
                &format!("INSERT INTO t VALUES (3, {id})"),
                "3 +1",
            )
            .context(event)?;
            session.run("SELECT shadow_stats_reset()")?;
        }
        Ok(())
    });
}

#[test]
fn sessions_count_together() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        session.run(TABLE)?;
        session.run("SELECT shadow_stats_reset()")?;
        std::thread::scope(|scope| -> Result<()> {
            let sessions: Vec<_> = (0..8)
                .map(|number| {
                    let mut session = server.connect()?;
                    Ok(scope.spawn(move || -> Result<()> {
                        for i in 0..300 {
                            let id = number * 1000 + i;
                            session.run(&format!(
                                "INSERT INTO t VALUES (1 + {i} % 3, {id}), (100 + {number}, {id})"
                            ))?;
                            session.count_of(&format!(
                                "SELECT * FROM t WHERE tenant = 100 + {number} AND id = {id}"
                            ))?;
                            session.count_of("SELECT 1 FROM t WHERE tenant = 1 LIMIT 1")?;
                        }
                        session.run(&format!("DELETE FROM t WHERE tenant = 100 + {number}"))
                    }))
                })
                .collect::<Result<_>>()?;
            for session in sessions {
                session.join().expect("no session panics")?;
            }
            Ok(())
        })?;
        let mut expected = "1 +800, 2 +800, 3 +800".to_owned();
        for number in 0..8 {
            expected += &format!(", {} +300 -300", 100 + number);
        }
        let found = writes(&mut session, "t")?;
        ensure!(found == expected, "{found}");
        let found = reads(&mut session, "t")?;
        ensure!(found.starts_with("1 2400/2400, 100 300/300, "), "{found}");
        ensure!(info(&mut session, "rows_counted")? == 8 * 900);
        ensure!(info(&mut session, "statements_counted")? == 8 * 600);
        Ok(())
    });
}

/// Without room for anybody everything is in the tail.
#[test]
fn no_room() {
    let settings = Settings::default().set("shadowpart.max_entities", "0");
    scenario(settings, |server| {
        let mut session = server.connect()?;
        session.run(TABLE)?;
        session.run("INSERT INTO t SELECT 1 + g % 5, g FROM generate_series(1, 100) g")?;
        session
            .run("SELECT * FROM t WHERE tenant = 1; UPDATE t SET note = 'x' WHERE tenant = 1")?;
        ensure!(session.number("SELECT count(*) FROM shadow_entity_counters")? == 0);
        ensure!(session.number("SELECT count(*) FROM shadow_entities")? == 0);
        ensure!(info(&mut session, "memory_bytes")? == formula(0));
        ensure!(info(&mut session, "rows_estimated")? == 120);
        let tail = (
            info(&mut session, "tail_writes")?,
            info(&mut session, "tail_reads")?,
        );
        ensure!(tail == (120, 1), "the tail has {tail:?}");
        session.run("SELECT shadow_stats_reset()")?;
        ensure!(info(&mut session, "tail_writes")? == 0);
        Ok(())
    });
}

//! The history of the load: written by the scheduler once a minute, missing where nobody looked, summed up
//! and thrown away.
//!
//! `shadowpart.tick()` does a minute's work at once, with the memory of the session that calls it; the
//! failpoint `tick=MILLISECONDS` makes the scheduler's minutes shorter.

use shadowpart_tests::*;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// A database without history: the scheduler looks once, at the start, and not again during the test.
fn by_hand() -> Settings {
    Settings::default().set("shadowpart.failpoint", "tick=3600000")
}

/// The scheduler looks twice a second.
fn quick() -> Settings {
    Settings::default().set("shadowpart.failpoint", "tick=500")
}

fn prepare(session: &mut Session) -> Result<()> {
    session.run(
        "CREATE TABLE orders (tenant int, id int, note text, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
         CREATE TABLE orders_a PARTITION OF orders FOR VALUES IN (1, 2);
         CREATE TABLE orders_b PARTITION OF orders DEFAULT;
         SELECT shadow_manage('orders', 'tenant');
         CREATE TABLE hour AS SELECT date_trunc('hour', now()) AS at",
    )
}

fn tick(session: &mut Session) -> Result<()> {
    // What the session itself did is in the statistics once it has reported it.
    session.run("SELECT pg_stat_force_next_flush()")?;
    session.run("SELECT shadowpart.tick()")
}

const SCHEDULERS: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'shadowpart scheduler'";

/// The scheduler is there when the first table is managed, stays, writes, and goes with the last one.
#[test]
fn the_scheduler_stays_while_tables_are_managed() {
    scenario(quick(), |server| {
        let mut session = server.connect()?;
        eventually("nothing is watched", SOON, || {
            Ok(session.number(SCHEDULERS)? == 0)
        })?;
        session.run("BEGIN")?;
        prepare(&mut session)?;
        session.run("COMMIT")?;
        for rows in [1, 4] {
            eventually("minutes are written", SOON, || {
                let sql = "SELECT least(
                    (SELECT count(*) FROM shadowpart.partition_history WHERE partition IS NULL),
                    (SELECT count(*) FROM shadowpart.entity_history WHERE entity IS NULL),
                    (SELECT count(*) FROM shadowpart.host_history))";
                Ok(session.number(sql)? >= rows)
            })?;
        }
        ensure!(session.number(SCHEDULERS)? == 1);
        // It reports what it writes, or autovacuum would never come.
        eventually("autovacuum can know of the history", SOON, || {
            Ok(session.number(
                "SELECT n_tup_ins FROM pg_stat_all_tables WHERE relid = 'shadowpart.host_history'::regclass",
            )? > 0)
        })?;
        session.run("SELECT shadow_unmanage('orders')")?;
        eventually("the scheduler ends", SOON, || {
            Ok(session.number(SCHEDULERS)? == 0)
        })?;
        session.run("SELECT shadow_manage('orders', 'tenant')")?;
        eventually("it is back", SOON, || Ok(session.number(SCHEDULERS)? == 1))?;
        // Whoever ends it has not seen the last of it, at whatever moment.
        for round in 0..3 {
            eventually("it can be ended", SOON, || {
                Ok(session.number(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                      WHERE backend_type = 'shadowpart scheduler'",
                )? == 1)
            })
            .with_context(|| format!("round {round}"))?;
        }
        let rows = session.number("SELECT count(*) FROM shadowpart.host_history")?;
        eventually("another goes on", SOON, || {
            Ok(session.number("SELECT count(*) FROM shadowpart.host_history")? > rows + 1)
        })?;
        ensure!(!server.log().contains("shadowpart history:"), "no errors");
        Ok(())
    });
}

/// The first look gives nothing, the second what came in between; idle partitions have no row, the table
/// always has.
#[test]
fn a_minute_has_what_came_in_it() {
    scenario(by_hand(), |server| {
        let mut session = server.connect()?;
        prepare(&mut session)?;
        session.run("INSERT INTO orders SELECT 1, g FROM generate_series(1, 1000) g")?;
        tick(&mut session)?;
        let count = "SELECT count(*) FROM shadowpart.partition_history";
        ensure!(session.number(count)? == 0);
        session.run("INSERT INTO orders SELECT 1, g FROM generate_series(1001, 1500) g")?;
        session.run("UPDATE orders SET note = 'x' WHERE tenant = 1 AND id <= 10")?;
        session.run("DELETE FROM orders WHERE tenant = 1 AND id = 11")?;
        tick(&mut session)?;
        let rows = session.rows(
            "SELECT coalesce(partition::regclass::text, '*'), inserts, updates, deletes, lock_waits, reset
               FROM shadowpart.partition_history ORDER BY 1",
        )?;
        let rows: Vec<String> = rows
            .iter()
            .map(|row| row.iter().flatten().cloned().collect::<Vec<_>>().join(" "))
            .collect();
        ensure!(
            rows == ["* 500 10 1 0 f", "orders_a 500 10 1 0 f"],
            "{rows:?}"
        );
        // The entities' table says that the minute is covered, whoever counted.
        let entities = session.number(
            "SELECT count(*) FROM shadowpart.entity_history WHERE entity IS NULL AND level = 1",
        )?;
        ensure!(entities == 1);
        let view = session.rows(
            "SELECT partition::text, writes_s > 0, reads_s >= 0, growth_mb_h > 0, covered >= '0'
               FROM shadow_partitions ORDER BY 1",
        )?;
        let truth = |text: &str| Some(text.to_owned());
        ensure!(
            view == [
                vec![
                    truth("orders_a"),
                    truth("t"),
                    truth("t"),
                    truth("t"),
                    truth("t")
                ],
                vec![
                    truth("orders_b"),
                    truth("f"),
                    truth("t"),
                    truth("f"),
                    truth("t")
                ]
            ],
            "{view:?}"
        );
        Ok(())
    });
}

/// After a start, clean or not, nothing is known of the time in between: missing, not zero.
#[test]
fn what_nobody_saw_is_missing() {
    scenario(quick(), |server| {
        let mut session = server.connect()?;
        prepare(&mut session)?;
        let count = "SELECT count(*) FROM shadowpart.partition_history WHERE partition IS NULL";
        for crash in [false, true] {
            let before = session.number(count)?;
            eventually("minutes are written", SOON, || {
                Ok(session.number(count)? > before + 2)
            })?;
            session.run("INSERT INTO orders SELECT 1, coalesce(max(id), 0) + 1 FROM orders")?;
            let last = "SELECT extract(epoch FROM max(at)) FROM shadowpart.partition_history";
            let last = session.value(last)?;
            drop(session);
            if crash {
                server.crash()?;
            } else {
                server.stop(Shutdown::Fast)?;
            }
            std::thread::sleep(Duration::from_secs(2));
            server.start()?;
            session = server.connect()?;
            eventually("minutes are written again, unasked", SOON, || {
                let sql = format!(
                    "SELECT count(*) FROM shadowpart.partition_history
                      WHERE partition IS NULL AND extract(epoch FROM at) > {last} + 2"
                );
                Ok(session.number(&sql)? > 1)
            })?;
            let longest = session.number(
                "SELECT max(covered_ms) FROM shadowpart.partition_history WHERE level = 1",
            )?;
            ensure!(longest < 10_000, "a stretch of {longest} ms");
            let overlaps = session.number(
                "SELECT count(*) FROM (
                     SELECT at, lag(at + covered_ms * interval '1 ms') OVER (ORDER BY at) AS ended
                       FROM shadowpart.partition_history WHERE partition IS NULL AND level = 1) x
                  WHERE at < ended - interval '2 ms'",
            )?;
            ensure!(overlaps == 0, "{overlaps} stretches overlap");
            let most = session.number("SELECT max(inserts) FROM shadowpart.partition_history")?;
            ensure!(most <= 1, "all of the past in one minute: {most}");
        }
        Ok(())
    });
}

/// Statistics that are reset make a lower bound, also for the partitions whose counters did not fall.
#[test]
fn reset_statistics_are_recognised() {
    scenario(by_hand(), |server| {
        let mut session = server.connect()?;
        prepare(&mut session)?;
        session
            .run("INSERT INTO orders SELECT 1 + 2 * (g % 2), g FROM generate_series(1, 1000) g")?;
        tick(&mut session)?;
        session.run("SELECT pg_stat_reset_single_table_counters('orders_a'::regclass)")?;
        session.run(
            "INSERT INTO orders SELECT 1 + 2 * (g % 2), g FROM generate_series(1001, 1020) g",
        )?;
        tick(&mut session)?;
        let sql = "SELECT inserts || ' ' || reset FROM shadowpart.partition_history
                    WHERE at = (SELECT max(at) FROM shadowpart.partition_history) ORDER BY partition";
        let rows = session.column(sql)?;
        ensure!(rows == ["10 true", "10 true", "20 true"], "{rows:?}");
        session.run("SELECT pg_stat_reset()")?;
        session.run("INSERT INTO orders SELECT 1, g FROM generate_series(2001, 2005) g")?;
        tick(&mut session)?;
        let rows = session.column(sql)?;
        ensure!(
            rows.len() == 3 && rows.iter().all(|row| row.ends_with("true")),
            "{rows:?}"
        );
        ensure!(rows[2] == "5 true", "{rows:?}");
        tick(&mut session)?;
        let rows = session.column(&sql.replace("ORDER BY", "AND partition IS NULL ORDER BY"))?;
        ensure!(rows == ["0 false"], "{rows:?}");
        Ok(())
    });
}

/// Rows of minutes from two hours ago, as the scheduler would have written them.
const PAST: &str = "
    INSERT INTO shadowpart.entity_history
    SELECT 1, (SELECT at FROM hour) - interval '2 hours' + m * interval '1 min' + interval '3 ms', 60000,
           'orders'::regclass, e.entity, NULL, e.n, 0, 0, 10 * e.n, 0, 1, 1, 5, 4, 3, m = 7
      FROM generate_series(0, 119) m,
           LATERAL (VALUES (NULL, 0), ('1', 2), (CASE WHEN m % 10 = 0 THEN '2' END, 3)) e (entity, n)
     WHERE m NOT BETWEEN 20 AND 29 AND (e.entity IS NOT NULL OR e.n = 0);
    INSERT INTO shadowpart.partition_history
    SELECT 1, (SELECT at FROM hour) - interval '2 hours' + m * interval '1 min', 60000,
           'orders'::regclass, p, 2, 1, 0, 1, 3, 4, 5, 6, 7, 0.5, 1, 8192, 100000 + m, 10, 1, 3, 30, 4, 500, false
      FROM generate_series(0, 119) m, unnest(ARRAY[NULL, 'orders_a'::regclass]) p
     WHERE m NOT BETWEEN 20 AND 29;
    INSERT INTO shadowpart.host_history (level, at, covered_ms, cpu_busy, load1)
    SELECT 1, (SELECT at FROM hour) - interval '2 hours' + m * interval '1 min', 60000, (m % 5) / 10.0,
           CASE WHEN m % 5 = 0 THEN 3 END
      FROM generate_series(0, 119) m WHERE m NOT BETWEEN 20 AND 29;
    INSERT INTO shadowpart.disk_history (level, at, covered_ms, device, tablespaces, utilisation, reads_s, read_ms)
    SELECT 1, (SELECT at FROM hour) - interval '2 hours' + m * interval '1 min', 60000, 'vda',
           ARRAY['pg_default'], 0.5, m % 2, CASE WHEN m % 2 = 1 THEN 4 END
      FROM generate_series(0, 119) m WHERE m NOT BETWEEN 20 AND 29;";

/// All coarse rows, without those that the scheduler itself has made of its own minutes meanwhile.
fn coarse(session: &mut Session) -> Result<Vec<Row>> {
    let past = "level > 1 AND at < (SELECT at FROM hour)";
    session.rows(&format!(
        "SELECT 'e', level, at, covered_ms, entity, inserts, bytes_written, reads, reset::text
           FROM shadowpart.entity_history WHERE {past}
         UNION ALL SELECT 'p', level, at, covered_ms, partition::text, inserts, size_bytes, grown_bytes, read_ms::text
           FROM shadowpart.partition_history WHERE {past}
         UNION ALL SELECT 'h', level, at, covered_ms, NULL, NULL, NULL, NULL, cpu_busy || ' ' || load1
           FROM shadowpart.host_history WHERE {past}
         UNION ALL SELECT 'd', level, at, covered_ms, device, NULL, NULL, NULL, utilisation || ' ' || read_ms
           FROM shadowpart.disk_history WHERE {past}
         ORDER BY 1, 2, 3, 5"
    ))
}

/// Minutes become five minutes and hours, once, whatever happens in between.
#[test]
fn minutes_are_summed_up_once() {
    scenario(by_hand(), |server| {
        let mut session = server.connect()?;
        prepare(&mut session)?;
        session.run(PAST)?;
        // An hour of five minutes each time; the hours follow.
        tick(&mut session)?;
        drop(session);
        server.crash()?;
        server.start()?;
        let mut session = server.connect()?;
        eventually("all is summed up", SOON, || {
            tick(&mut session)?;
            Ok(session.number(
                "SELECT least((SELECT count(*) FROM shadowpart.disk_history WHERE level = 60),
                              (SELECT count(*) FROM shadowpart.host_history WHERE level = 60),
                              (SELECT count(DISTINCT at) FROM shadowpart.entity_history WHERE level = 60),
                              (SELECT count(DISTINCT at) FROM shadowpart.partition_history WHERE level = 60))",
            )? >= 2)
        })?;
        let done = coarse(&mut session)?;
        for _ in 0..3 {
            tick(&mut session)?;
        }
        ensure!(done == coarse(&mut session)?, "doubled");
        let number = |session: &mut Session, sql: &str| session.number(sql);
        let past = "at < (SELECT at FROM hour)";
        for (table, series, per_minute) in [
            ("entity_history", "entity = '1'", 2),
            ("partition_history", "partition IS NULL", 2),
        ] {
            for level in [1, 5, 60] {
                let sum = number(
                    &mut session,
                    &format!(
                        "SELECT sum(inserts) FROM shadowpart.{table} WHERE level = {level} AND {series} AND {past}"
                    ),
                )?;
                ensure!(sum == 110 * per_minute, "{table} {level}: {sum}");
            }
        }
        let counted = session.column(&format!(
            "SELECT level || ' ' || sum(counted_rows) || ' ' || sum(counted_cpu_us) FROM shadowpart.partition_history
              WHERE partition IS NULL AND {past} GROUP BY level ORDER BY level"
        ))?;
        ensure!(
            counted == ["1 330 55000", "5 330 55000", "60 330 55000"],
            "{counted:?}"
        );
        // Ten minutes are missing: two buckets are not there, and the hour says so.
        let fives = number(
            &mut session,
            &format!(
                "SELECT count(*) FROM shadowpart.entity_history WHERE level = 5 AND entity IS NULL AND {past}"
            ),
        )?;
        ensure!(fives == 22, "{fives} rows of five minutes");
        let covered = session.column(&format!(
            "SELECT covered_ms / 60000 || ' ' || reset FROM shadowpart.entity_history
              WHERE level = 60 AND entity = '1' AND {past} ORDER BY at"
        ))?;
        ensure!(covered == ["50 true", "60 false"], "{covered:?}");
        // One that did something in one minute of ten is covered as its table is.
        let rare = session.column(&format!(
            "SELECT covered_ms / 60000 || ' ' || inserts FROM shadowpart.entity_history
              WHERE level = 60 AND entity = '2' AND {past} ORDER BY at"
        ))?;
        ensure!(rare == ["50 15", "60 18"], "{rare:?}");
        let means =
            session
                .column(&format!(
            "SELECT round(cpu_busy::numeric, 3) || ' ' || load1 FROM shadowpart.host_history
              WHERE level = 60 AND {past}"))?;
        ensure!(means == ["0.200 3", "0.200 3"], "{means:?}");
        let disk = session.column(&format!(
            "SELECT DISTINCT utilisation || ' ' || read_ms FROM shadowpart.disk_history WHERE level = 60 AND {past}"))?;
        ensure!(disk == ["0.5 4"], "{disk:?}");
        let sizes = session.column(&format!(
            "SELECT size_bytes FROM shadowpart.partition_history
              WHERE level = 60 AND partition IS NOT NULL AND {past} ORDER BY at"
        ))?;
        ensure!(sizes == ["100059", "100119"], "{sizes:?}");
        Ok(())
    });
}

/// More entities than have rows of their own stay bounded when they are summed up, and nothing is lost.
#[test]
fn many_entities_are_pooled() {
    scenario(by_hand(), |server| {
        let mut session = server.connect()?;
        prepare(&mut session)?;
        session.run(
            "INSERT INTO shadowpart.entity_history
             SELECT 1, (SELECT at FROM hour) - interval '1 hour' + m * interval '1 min', 60000,
                    'orders'::regclass, e, NULL, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, false
               FROM generate_series(0, 4) m,
                    LATERAL (SELECT (m * 1000 + g)::text FROM generate_series(1, 1000) g
                              UNION ALL SELECT NULL) x (e)",
        )?;
        // The scheduler's first look may be at it in the same moment.
        eventually("it is summed up", SOON, || {
            tick(&mut session)?;
            Ok(
                session.number("SELECT count(*) FROM shadowpart.entity_history WHERE level = 5")?
                    > 0,
            )
        })?;
        let found = session.rows(
            "SELECT count(*), sum(inserts), count(*) FILTER (WHERE entity IS NULL) FROM shadowpart.entity_history
              WHERE level = 5 AND at < (SELECT at FROM hour)",
        )?;
        let expected: Row = ["1001", "5005", "1"]
            .map(|text| Some(text.to_owned()))
            .to_vec();
        ensure!(found == [expected], "{found:?}");
        Ok(())
    });
}

/// What is older than its level is kept goes; with no retention all goes and nothing comes.
#[test]
fn old_rows_are_deleted() {
    scenario(by_hand(), |server| {
        let mut session = server.connect()?;
        prepare(&mut session)?;
        session.run(
            "INSERT INTO shadowpart.host_history (level, at, covered_ms)
             SELECT l, now() - d * interval '1 day', 60000
               FROM unnest(ARRAY[1, 5, 60]) l, unnest(ARRAY[1, 3, 13, 15, 29, 31]) d",
        )?;
        tick(&mut session)?;
        let kept = "SELECT level || ': ' || string_agg(round(extract(epoch FROM now() - at) / 86400)::text, ' ' ORDER BY at DESC)
                      FROM shadowpart.host_history WHERE at < now() - interval '12 hours' GROUP BY level ORDER BY level";
        ensure!(session.column(kept)? == ["1: 1", "5: 1 3 13", "60: 1 3 13 15 29"]);
        session.run("ALTER SYSTEM SET shadowpart.history_retention = '2h'")?;
        session.run("SELECT pg_reload_conf()")?;
        eventually("the setting is known", SOON, || {
            Ok(session.value("SHOW shadowpart.history_retention")? == "2h")
        })?;
        tick(&mut session)?;
        ensure!(session.column(kept)?.is_empty());
        session.run("ALTER SYSTEM SET shadowpart.history_retention = 0")?;
        session.run("SELECT pg_reload_conf()")?;
        eventually("the setting is known", SOON, || {
            Ok(session.value("SHOW shadowpart.history_retention")? == "0")
        })?;
        session.run(PAST)?;
        tick(&mut session)?;
        tick(&mut session)?;
        let rows = session.number(
            "SELECT (SELECT count(*) FROM shadowpart.entity_history)
                  + (SELECT count(*) FROM shadowpart.partition_history)
                  + (SELECT count(*) FROM shadowpart.host_history)",
        )?;
        ensure!(rows == 0, "{rows} rows");
        Ok(())
    });
}

/// Each database has a history of its own. Whoever drops, copies or renames one is not kept from it.
#[test]
fn databases_by_themselves() {
    scenario(quick(), |server| {
        let mut session = server.connect()?;
        prepare(&mut session)?;
        session.run("CREATE DATABASE other")?;
        let mut other = server.connect_to("other")?;
        other.run("CREATE EXTENSION shadowpart")?;
        prepare(&mut other)?;
        other.run("INSERT INTO orders SELECT 1, 1")?;
        for each in [&mut session, &mut other] {
            eventually("minutes are written", SOON, || {
                Ok(each.number("SELECT count(*) FROM shadowpart.host_history")? > 1)
            })?;
        }
        ensure!(session.number(SCHEDULERS)? == 2);
        drop(other);
        session.run("CREATE DATABASE copy TEMPLATE other")?;
        session.run("ALTER DATABASE other RENAME TO another")?;
        // Who may not do it does not send the scheduler away either.
        session.run("CREATE ROLE stranger LOGIN")?;
        let mut stranger = server.connect_as("stranger")?;
        ensure!(stranger.failure("DROP DATABASE another")?.sqlstate == "42501");
        eventually("its scheduler comes back", SOON, || {
            Ok(session.number(&format!("{SCHEDULERS} AND datname = 'another'"))? == 1)
        })?;
        stranger.failure("DROP DATABASE another")?;
        ensure!(session.number(&format!("{SCHEDULERS} AND datname = 'another'"))? == 1);
        session.run("DROP DATABASE another")?;
        session.run("DROP DATABASE copy")?;
        ensure!(session.number(SCHEDULERS)? == 1);
        Ok(())
    });
}

/// A managed table that is dropped, and one that is renamed; the extension dropped and made again while
/// the scheduler is at work.
#[test]
fn dropped_and_renamed() {
    scenario(quick(), |server| {
        let mut session = server.connect()?;
        prepare(&mut session)?;
        session.run(
            "CREATE TABLE gone (tenant int PRIMARY KEY) PARTITION BY LIST (tenant);
             CREATE TABLE gone_rest PARTITION OF gone DEFAULT;
             SELECT shadow_manage('gone', 'tenant')",
        )?;
        session.run("DROP TABLE gone; ALTER TABLE orders RENAME TO purchases")?;
        eventually("the dropped table is forgotten", SOON, || {
            Ok(session.column("SELECT relation::text FROM shadowpart.managed")? == ["purchases"])
        })?;
        let view = session.column("SELECT DISTINCT relation::text FROM shadow_partitions")?;
        ensure!(view == ["purchases"], "{view:?}");
        for _ in 0..5 {
            session.run("DROP EXTENSION shadowpart; CREATE EXTENSION shadowpart")?;
            session.run("SELECT shadow_manage('purchases', 'tenant')")?;
            std::thread::sleep(Duration::from_millis(300));
        }
        eventually("minutes are written", SOON, || {
            Ok(session.number("SELECT count(*) FROM shadowpart.host_history")? > 1)
        })?;
        session.run("DROP EXTENSION shadowpart")?;
        eventually("the scheduler ends", SOON, || {
            Ok(session.number(SCHEDULERS)? == 0)
        })?;
        Ok(())
    });
}

/// Who waits for a lock on a partition, or on a row of it, is noticed; and a table that somebody holds
/// exclusively does not stop the recording.
#[test]
fn waits_for_locks() {
    scenario(by_hand(), |server| {
        let mut session = server.connect()?;
        prepare(&mut session)?;
        session.run("INSERT INTO orders VALUES (1, 1), (3, 1)")?;
        tick(&mut session)?;
        let mut holder = server.connect()?;
        holder.run("BEGIN; UPDATE orders SET note = 'held' WHERE tenant = 1")?;
        let mut waiter = server.connect()?;
        let pid = waiter.pid;
        let waiting = std::thread::spawn(move || {
            waiter.failure("UPDATE orders SET note = 'late' WHERE tenant = 1")
        });
        eventually("somebody waits", SOON, || {
            Ok(session
                .number("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")?
                == 1)
        })?;
        let mut exclusive = server.connect()?;
        exclusive.run("BEGIN; LOCK orders_b IN ACCESS EXCLUSIVE MODE")?;
        session.run("SET lock_timeout = '5s'")?;
        tick(&mut session)?;
        session.run(&format!("SELECT pg_cancel_backend({pid})"))?;
        let failure = waiting
            .join()
            .map_err(|_| anyhow!("the waiter panicked"))??;
        ensure!(failure.sqlstate == "57014", "{failure:?}");
        let waits = session.rows(
            "SELECT coalesce(partition::regclass::text, '*'), lock_waits FROM shadowpart.partition_history
              WHERE lock_waits > 0 ORDER BY 1",
        )?;
        let row = |a: &str, b: &str| vec![Some(a.to_owned()), Some(b.to_owned())];
        ensure!(waits == [row("*", "1"), row("orders_a", "1")], "{waits:?}");
        exclusive.run("ROLLBACK")?;
        ensure!(
            session.number(
                "SELECT waits FROM shadow_partitions WHERE partition = 'orders_a'::regclass"
            )? == 1
        );
        Ok(())
    });
}

/// Owners see their tables, pg_monitor sees all and the machine, strangers see nothing.
#[test]
fn who_may_look() {
    scenario(by_hand(), |server| {
        let mut session = server.connect()?;
        prepare(&mut session)?;
        tick(&mut session)?;
        session.run("INSERT INTO orders SELECT 1, g FROM generate_series(1, 10) g")?;
        tick(&mut session)?;
        session.run(
            "CREATE ROLE watcher LOGIN IN ROLE pg_monitor; CREATE ROLE reader LOGIN; CREATE ROLE stranger LOGIN;
             GRANT SELECT ON orders TO reader",
        )?;
        let views = [
            "shadow_partitions",
            "shadow_load_history",
            "shadow_partition_history",
        ];
        for (role, sees) in [("watcher", true), ("reader", true), ("stranger", false)] {
            let mut session = server.connect_as(role)?;
            for view in views {
                let some = session.number(&format!("SELECT count(*) FROM {view}"))? > 0;
                ensure!(some == sees, "{role} sees {view}: {some}");
            }
            for table in [
                "entity_history",
                "partition_history",
                "host_history",
                "disk_history",
            ] {
                let failure = session.failure(&format!("SELECT * FROM shadowpart.{table}"))?;
                ensure!(failure.sqlstate == "42501", "{role} {table}: {failure:?}");
            }
            for view in ["shadow_host", "shadow_host_history"] {
                if role == "watcher" {
                    ensure!(
                        session.number(&format!("SELECT count(*) FROM {view}"))? > 1,
                        "{view}"
                    );
                } else {
                    let failure = session.failure(&format!("SELECT * FROM {view}"))?;
                    ensure!(failure.sqlstate == "42501", "{role} {view}: {failure:?}");
                }
            }
            if role != "watcher" {
                let failure = session.failure("SELECT * FROM shadowpart.host_now()")?;
                ensure!(failure.sqlstate == "42501", "{role}: {failure:?}");
            }
        }
        Ok(())
    });
}

/// The machine, now: a row for its CPUs, one for its memory, and disks with all tablespaces on them.
#[test]
fn the_machine_now() {
    scenario(by_hand(), |server| {
        server.tablespace("fast")?;
        let mut session = server.connect()?;
        for round in 0..3 {
            let rows = session.rows(
                "SELECT resource, used_pct BETWEEN 0 AND 100, tablespaces FROM shadow_host ORDER BY resource",
            )?;
            let kinds: Vec<_> = rows
                .iter()
                .map(|row| row[0].clone().unwrap_or_default())
                .collect();
            ensure!(
                kinds.iter().filter(|k| *k == "cpu").count() == 1,
                "{rows:?}"
            );
            ensure!(
                kinds.iter().filter(|k| *k == "memory").count() == 1,
                "{rows:?}"
            );
            let spaces: Vec<String> = rows.iter().filter_map(|row| row[2].clone()).collect();
            let spaces = spaces.join(", ");
            ensure!(
                spaces.contains("fast") && spaces.contains("pg_default"),
                "{rows:?}"
            );
            ensure!(
                rows.iter().all(|row| row[1].as_deref() != Some("f")),
                "{rows:?}"
            );
            if round == 1 {
                std::thread::sleep(Duration::from_millis(1100));
            }
        }
        Ok(())
    });
}

/// A standby writes nothing and shows what the primary server wrote, with sizes of its own.
#[test]
fn on_a_standby() {
    scenario(by_hand(), |server| {
        let mut session = server.connect()?;
        prepare(&mut session)?;
        tick(&mut session)?;
        session.run("INSERT INTO orders SELECT 1, g FROM generate_series(1, 100) g")?;
        tick(&mut session)?;
        let standby = server.standby(Settings::default())?;
        server.wait_for_standby(&standby)?;
        let mut there = standby.connect()?;
        ensure!(there.number(SCHEDULERS)? == 0);
        let row = there.rows(
            "SELECT partition::text, writes_s > 0, dead_pct, size <> '' FROM shadow_partitions ORDER BY 1 LIMIT 1",
        )?;
        let expected: Row = ["orders_a", "t", "0.0", "t"]
            .map(|text| Some(text.to_owned()))
            .to_vec();
        ensure!(row == [expected], "{row:?}");
        for view in [
            "shadow_host",
            "shadow_load_history",
            "shadow_partition_history",
            "shadow_host_history",
        ] {
            ensure!(
                there.number(&format!("SELECT count(*) FROM {view}"))? > 0,
                "{view}"
            );
        }
        Ok(())
    });
}

/// PostgreSQL's statistics count what a mirror writes; what statements wrote is counted beside it, once.
#[test]
fn mirrored_writes_are_nobodys_load() {
    scenario(by_hand(), |server| {
        server.tablespace("fast")?;
        let mut session = server.connect()?;
        prepare(&mut session)?;
        session.run("INSERT INTO orders SELECT 1, g FROM generate_series(1, 100) g")?;
        session.run("SELECT shadow_create('orders', 1, tablespace => 'fast')")?;
        tick(&mut session)?;
        session.run("INSERT INTO orders SELECT 1, g FROM generate_series(101, 140) g")?;
        session.run("UPDATE orders SET note = 'x' WHERE tenant = 1 AND id <= 10")?;
        tick(&mut session)?;
        let row = session.column(
            "SELECT inserts || ' ' || counted_rows || ' ' || (counted_bytes > 0) FROM shadowpart.partition_history
              WHERE partition IS NULL ORDER BY at DESC LIMIT 1",
        )?;
        ensure!(row == ["80 50 true"], "{row:?}");
        Ok(())
    });
}

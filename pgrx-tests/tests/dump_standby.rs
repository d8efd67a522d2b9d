//! What leaves the server by other ways than queries: pg_dump, COPY of a leaf, and a hot standby. At
//! every moment of a migration all of them show exactly the visible rows.

use shadowpart_tests::*;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn prepare(server: &mut Server, layout: Layout, rows: u32) -> Result<(Session, Orders, Twin)> {
    server.tablespace("fast")?;
    let mut session = server.connect()?;
    let orders = Orders::new(layout);
    let twin = orders.create(&mut session)?;
    orders.fill(&twin, &mut session, rows)?;
    session.run("SELECT shadow_manage('live.orders', 'tenant')")?;
    Ok((session, orders, twin))
}

/// Restores a dump into a database of its own; there both tables must be the same, take writes, and
/// be ready to be managed and migrated.
fn assert_restores(
    server: &Server,
    orders: &Orders,
    twin: &Twin,
    dump: &std::path::Path,
    name: &str,
) -> Result<()> {
    server.restore(dump, name, &[])?;
    let mut session = server.connect_to(name)?;
    twin.assert_same(&mut session)?;
    ensure!(session.number("SELECT count(*) FROM live.orders WHERE tenant = 1")? > 50);
    orders.write(twin, &mut session, 9)?;
    twin.assert_same(&mut session)?;
    drop(session);
    server.connect()?.run(&format!("DROP DATABASE {name}"))
}

/// All leaves of the table by COPY TO, together: exactly the table.
fn assert_copies(session: &mut Session) -> Result<()> {
    let leaves = session.column(
        "SELECT relid::regclass::text FROM pg_partition_tree('live.orders') WHERE isleaf",
    )?;
    let columns = "region, tenant, id, at, amount, note";
    for options in [
        "",
        "WITH (FORMAT csv, FORCE_QUOTE *)",
        "(DELIMITER '|', NULL 'none')",
    ] {
        let mut found = Vec::new();
        for leaf in &leaves {
            let mut text = String::new();
            session
                .copy_out(&format!("COPY {leaf} ({columns}) TO STDOUT {options}"))?
                .read_to_string(&mut text)?;
            found.extend(text.lines().map(str::to_owned));
        }
        let mut text = String::new();
        session
            .copy_out(&format!(
                "COPY (SELECT {columns} FROM twin.orders) TO STDOUT {options}"
            ))?
            .read_to_string(&mut text)?;
        let mut expected: Vec<String> = text.lines().map(str::to_owned).collect();
        found.sort();
        expected.sort();
        ensure!(
            found == expected,
            "COPY of the leaves {leaves:?} {options} gives {} rows, not {}",
            found.len(),
            expected.len()
        );
    }
    // Without a column list, binary, and with a header: the row counts must fit.
    let mut rows = 0;
    for leaf in &leaves {
        rows += session.count_of(&format!(
            "COPY {leaf} TO PROGRAM 'cat > /dev/null' WITH (FORMAT binary)"
        ))?;
    }
    let expected = session.number("SELECT count(*) FROM twin.orders")?;
    ensure!(
        rows as i64 == expected,
        "{rows} rows by binary COPY, not {expected}"
    );
    Ok(())
}

#[test]
fn dump_and_copy_in_every_state() {
    for layout in [LIST, MONTH] {
        scenario(Settings::default(), |server| {
            let (mut session, orders, twin) = prepare(server, layout, 600)?;
            let state =
                |session: &mut Session, server: &Server, name: &str, round: u32| -> Result<()> {
                    orders.write(&twin, session, round)?;
                    assert_copies(session).context(name.to_owned())?;
                    let dump = server.dump("postgres", &format!("{name}.dump"), &[])?;
                    assert_restores(server, &orders, &twin, &dump, name).context(name.to_owned())
                };
            state(&mut session, server, "managed", 1)?;
            let id = session.create_shadow("live.orders", "1", "fast")?;
            state(&mut session, server, "ready", 2)?;
            session.swap(id)?;
            state(&mut session, server, "migrated", 3)?;
            session.revert(id)?;
            state(&mut session, server, "reverted", 4)?;
            session.swap(id)?;
            session.finalize(id)?;
            state(&mut session, server, "finalized", 5)?;
            let leaf = leaf_of(&mut session, "live.orders", "tenant = 3")?.remove(0);
            session.run(&format!(
                "SELECT shadow_migrate('{leaf}', \"all\" => true, tablespace => 'fast')"
            ))?;
            state(&mut session, server, "whole", 6)
        });
    }
}

/// Dumps of other kinds, in the state that has hidden rows: plain SQL, inserts, data only, by two
/// jobs, and of a single leaf.
#[test]
fn dumps_of_all_kinds() {
    scenario(Settings::default(), |server| {
        let (mut session, orders, twin) = prepare(server, LIST, 500)?;
        session.migrate("live.orders", "1", "fast")?;
        orders.write(&twin, &mut session, 1)?;

        let inserts = server.dump("postgres", "inserts.dump", &["--rows-per-insert=50"])?;
        assert_restores(server, &orders, &twin, &inserts, "inserts")?;

        let directory = server.home().join("jobs.dump");
        let mut command = server.tool("pg_dump", "postgres");
        command.args(["-Fd", "-j", "2", "-f"]).arg(&directory);
        let output = command.output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_restores(server, &orders, &twin, &directory, "jobs")?;

        let leaf = leaf_of(&mut session, "live.orders", "tenant = 2")?.remove(0);
        let mut command = server.tool("pg_dump", "postgres");
        command.args(["--data-only", "--inserts", "-t", &leaf]);
        let output = command.output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let found = text.matches("INSERT INTO").count() as i64;
        let expected = session.number(&format!("SELECT count(*) FROM {leaf}"))?;
        let visible = session.number("SELECT count(*) FROM twin.orders WHERE tenant IN (2, 5)")?;
        ensure!(
            found == expected && found == visible,
            "{found}, {expected}, {visible}"
        );
        Ok(())
    });
}

/// pg_dump again and again while a migration goes on and a client writes to both tables in one
/// transaction: each dump is of one moment, in which both are the same.
#[test]
fn dumps_during_a_migration() {
    let settings = Settings::default().set("shadowpart.copy_rate_limit", "1MB");
    scenario(settings, |server| {
        let (mut session, orders, twin) = prepare(server, LIST, 8000)?;
        let stop = &AtomicBool::new(false);
        let writer = server.connect()?;
        let dumps = std::thread::scope(|scope| -> Result<Vec<std::path::PathBuf>> {
            let writer = scope.spawn(move || -> Result<u32> {
                let mut writer = writer;
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    let id = 100_000_000 + n;
                    let both = ["live", "twin"].map(|schema| {
                        format!(
                            "INSERT INTO {schema}.orders VALUES (1, 1 + {n} % 2, {id}, '2024-01-01', {n}, 'n');
                             UPDATE {schema}.orders SET amount = amount + 1 WHERE tenant = 1 AND id % 100 = {n} % 100;
                             DELETE FROM {schema}.orders WHERE id = {id} - 7;"
                        )
                    });
                    writer.run(&format!("BEGIN; {} {} COMMIT", both[0], both[1]))?;
                }
                Ok(n)
            });
            let mut all = || -> Result<Vec<std::path::PathBuf>> {
                let mut dumps = Vec::new();
                let id = session.start_migrate("live.orders", "1", "fast")?;
                let begin = Instant::now();
                while session.state(id)? != "migrated" {
                    ensure!(begin.elapsed() < Duration::from_secs(120), "never migrated");
                    if dumps.len() < 12 {
                        dumps.push(server.dump(
                            "postgres",
                            &format!("{}.dump", dumps.len()),
                            &[],
                        )?);
                    }
                }
                session.run(&format!("SELECT shadow_finalize({id}, wait => false)"))?;
                while session.state(id)? != "finalized" {
                    ensure!(
                        begin.elapsed() < Duration::from_secs(180),
                        "never finalized"
                    );
                    if dumps.len() < 16 {
                        dumps.push(server.dump(
                            "postgres",
                            &format!("{}.dump", dumps.len()),
                            &[],
                        )?);
                    }
                }
                Ok(dumps)
            };
            let dumps = all();
            stop.store(true, Ordering::Relaxed);
            let written = writer.join().expect("the writer does not panic")?;
            let dumps = dumps?;
            println!("{} dumps beside {written} transactions", dumps.len());
            Ok(dumps)
        })?;
        ensure!(dumps.len() >= 3, "only {} dumps", dumps.len());
        for (number, dump) in dumps.iter().enumerate() {
            assert_restores(server, &orders, &twin, dump, &format!("d{number}"))
                .with_context(|| format!("dump {number} of {}", dumps.len()))?;
        }
        twin.assert_same(&mut session)
    });
}

/// A standby that tells the primary server what its transactions may still read.
fn reporting() -> Settings {
    Settings::default()
        .set("hot_standby_feedback", "on")
        .set("wal_receiver_status_interval", "1s")
}

/// A standby shows the same rows in every state, to new readers and to those older than the swap.
#[test]
fn a_standby_in_every_state() {
    scenario(Settings::default(), |server| {
        let (mut session, orders, twin) = prepare(server, LIST, 800)?;
        // Old readers on the standby keep what they may still read from being vacuumed away.
        let standby = server.standby(reporting().set("max_standby_streaming_delay", "60s"))?;
        let mut id = 0;
        for (round, state) in [
            "managed",
            "ready",
            "migrated",
            "reverted",
            "migrated",
            "finalized",
        ]
        .iter()
        .enumerate()
        {
            server.wait_for_standby(&standby)?;
            // With its snapshot taken before the step; what it reads first comes after.
            let mut old = standby.connect()?;
            old.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM pg_class LIMIT 1")?;
            std::thread::sleep(Duration::from_millis(1500));
            if *state == "finalized" {
                // What it may still read is not taken away before it has ended.
                drop(old);
                session.run(&format!("SELECT shadow_finalize({id})"))?;
                old = standby.connect()?;
                old.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM pg_class LIMIT 1")?;
            }
            match (round, *state) {
                (_, "ready") => id = session.create_shadow("live.orders", "1", "fast")?,
                (_, "migrated") => session.swap(id)?,
                (_, "reverted") => session.revert(id)?,
                _ => {}
            }
            orders.write(&twin, &mut session, 1 + round as u32)?;
            if *state != "finalized" {
                server.wait_for_standby(&standby)?;
                twin.assert_same_here(&mut old)
                    .with_context(|| format!("old reader, {state}"))?;
            }
            drop(old);
            server.wait_for_standby(&standby)?;
            let mut reader = standby.connect()?;
            for level in ["READ COMMITTED", "REPEATABLE READ"] {
                reader.run(&format!("BEGIN ISOLATION LEVEL {level} READ ONLY"))?;
                twin.assert_same_here(&mut reader)
                    .with_context(|| format!("{level}, {state}"))?;
                reader.run("COMMIT")?;
            }
            assert_copies(&mut reader).context(*state)?;
        }
        Ok(())
    });
}

/// A standby that is read all the time, by generic plans too, while the primary swaps to and fro.
#[test]
fn a_standby_is_exact_while_swaps_are_replayed() {
    scenario(Settings::default(), |server| {
        let (mut session, _orders, _twin) = prepare(server, LIST, 1000)?;
        let standby =
            &server.standby(Settings::default().set("max_standby_streaming_delay", "60s"))?;
        let id = session.create_shadow("live.orders", "1", "fast")?;
        server.wait_for_standby(standby)?;
        let stop = &AtomicBool::new(false);
        let (swaps, reads) = std::thread::scope(|scope| -> Result<(u32, u32)> {
            let readers: Vec<_> = ["force_generic_plan", "force_custom_plan"]
                .into_iter()
                .map(|mode| {
                    scope.spawn(move || -> Result<u32> {
                        let options = format!("-c plan_cache_mode={mode}");
                        let mut reader = standby.connect_with("postgres", "postgres", &options)?;
                        let one =
                            reader.prepare("SELECT count(*) FROM live.orders WHERE tenant = $1")?;
                        let all = reader.prepare("SELECT count(*) FROM live.orders")?;
                        let mut reads = 0;
                        while !stop.load(Ordering::Relaxed) {
                            for tenant in [1, 2] {
                                let count: i64 = reader.query_one(&one, &[&tenant])?.get(0);
                                ensure!(count == 200, "{mode}: {count} rows of tenant {tenant}");
                            }
                            let count: i64 = reader.query_one(&all, &[])?.get(0);
                            ensure!(count == 1000, "{mode}: {count} rows");
                            reads += 1;
                        }
                        Ok(reads)
                    })
                })
                .collect();
            let begin = Instant::now();
            let mut swaps = 0;
            let mut moving = || -> Result<()> {
                while begin.elapsed() < Duration::from_secs(8) {
                    session.swap(id)?;
                    session.revert(id)?;
                    swaps += 2;
                }
                Ok(())
            };
            let moved = moving();
            stop.store(true, Ordering::Relaxed);
            let mut reads = 0;
            for reader in readers {
                reads += reader.join().expect("readers do not panic")?;
            }
            moved?;
            Ok((swaps, reads))
        })?;
        println!("{swaps} swaps, {reads} reads on the standby");
        ensure!(swaps > 5 && reads > 50);
        Ok(())
    });
}

/// The standby takes over in the middle: its table is exact and mirrored, and the job can go on.
#[test]
fn a_standby_is_promoted() {
    scenario(Settings::default(), |server| {
        let (mut session, orders, twin) = prepare(server, LIST, 500)?;
        let standing = session.create_shadow("live.orders", "1", "fast")?;
        let moved = session.migrate("live.orders", "2", "fast")?;
        let standby = server.standby(Settings::default())?;
        orders.write(&twin, &mut session, 1)?;
        server.wait_for_standby(&standby)?;
        server.crash()?;
        let mut session = standby.connect()?;
        session.run("SELECT pg_promote()")?;
        twin.assert_same(&mut session)?;
        orders.write(&twin, &mut session, 2)?;
        session.swap(standing)?;
        session.revert(moved)?;
        orders.write(&twin, &mut session, 3)?;
        twin.assert_same(&mut session)?;
        session.finalize(standing)?;
        session.drop_shadow(moved)?;
        twin.assert_same(&mut session)
    });
}

/// Transactions on a standby that the job on the primary server has not waited for: older than the
/// copy, than the swap, than the way back, and first looking at the table after it.
#[test]
fn a_standby_transaction_older_than_the_shadow() {
    scenario(Settings::default(), |server| {
        let (mut session, orders, twin) = prepare(server, LIST_WITH_DEFAULT, 1000)?;
        // What they may read must not be vacuumed away; nothing waits for them before the swap.
        let standby = &server.standby(reporting().set("max_standby_streaming_delay", "-1"))?;
        let mut readers = Vec::new();
        let mut open = |when: &str| -> Result<()> {
            server.wait_for_standby(standby)?;
            let mut reader = standby.connect()?;
            reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class")?;
            readers.push((when.to_owned(), reader));
            std::thread::sleep(Duration::from_millis(1500));
            Ok(())
        };
        open("before all")?;
        // Of two partitions, with others that stay; and a whole partition.
        let some = session
            .number("SELECT shadow_create('live.orders', ARRAY[1, 2, 3], tablespace => 'fast')")?;
        orders.write(&twin, &mut session, 1)?;
        open("before the swap")?;
        session.swap(some)?;
        orders.write(&twin, &mut session, 2)?;
        open("before the way back")?;
        session.revert(some)?;
        session.swap(some)?;
        orders.write(&twin, &mut session, 3)?;
        open("last")?;
        server.wait_for_standby(standby)?;
        for (when, reader) in &mut readers {
            twin.assert_same_here(reader)
                .with_context(|| format!("a transaction that began {when}"))?;
            for tenant in 0..5 {
                let sql = format!(
                    "SELECT (SELECT count(*) FROM live.orders WHERE tenant = {0})
                          - (SELECT count(*) FROM twin.orders WHERE tenant = {0})",
                    orders.literal(tenant)
                );
                let missing = reader.value(&sql)?;
                ensure!(missing == "0", "{when}, {sql}: {missing}");
            }
            // What it has planned stays right, and pruning is as it was.
            twin.assert_same_here(reader)?;
            ensure!(reader.value("SHOW enable_partition_pruning")? == "on");
            reader.run("COMMIT")?;
            twin.assert_same_here(reader)?;
        }
        Ok(())
    });
}

/// The same for entities that came to the shadow and left it: who is older than that would miss the one, and find
/// the other twice.
#[test]
fn a_standby_transaction_older_than_a_resize() {
    scenario(Settings::default(), |server| {
        let (mut session, orders, twin) = prepare(server, LIST_WITH_DEFAULT, 1000)?;
        let standby = &server.standby(reporting().set("max_standby_streaming_delay", "-1"))?;
        let mut readers = Vec::new();
        let mut open = |when: &str| -> Result<()> {
            server.wait_for_standby(standby)?;
            let mut reader = standby.connect()?;
            reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class")?;
            readers.push((when.to_owned(), reader));
            std::thread::sleep(Duration::from_millis(1500));
            Ok(())
        };
        let id = session
            .number("SELECT shadow_create('live.orders', ARRAY[1, 2], tablespace => 'fast')")?;
        open("before the addition")?;
        session.run(&format!("SELECT shadow_add_entities({id}, ARRAY[3, 5])"))?;
        orders.write(&twin, &mut session, 1)?;
        open("before the removal")?;
        session.run(&format!("SELECT shadow_remove_entities({id}, ARRAY[2, 5])"))?;
        orders.write(&twin, &mut session, 2)?;
        open("before the swap")?;
        session.swap(id)?;
        orders.write(&twin, &mut session, 3)?;
        server.wait_for_standby(standby)?;
        for (when, reader) in &mut readers {
            twin.assert_same_here(reader)
                .with_context(|| format!("a transaction that began {when}"))?;
            reader.run("COMMIT")?;
            twin.assert_same_here(reader)?;
        }
        Ok(())
    });
}

/// A standby that reports its snapshots is waited for before hidden rows go, and not before the swap.
#[test]
fn a_standby_with_feedback_is_waited_for() {
    scenario(Settings::default(), |server| {
        let (mut session, _orders, twin) = prepare(server, LIST, 1000)?;
        let standby = &server.standby(reporting().set("max_standby_streaming_delay", "-1"))?;
        server.wait_for_standby(standby)?;
        let mut reader = standby.connect()?;
        reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class")?;
        until("the standby has told", Duration::from_secs(20), || {
            let told = session
                .value("SELECT count(*) FROM pg_stat_replication WHERE backend_xmin IS NOT NULL")?;
            Ok((told == "1").then_some(()))
        })?;
        let id = session.migrate("live.orders", "1", "fast")?;
        let mut caller = server.connect()?;
        let call = std::thread::spawn(move || caller.finalize(id));
        until("it waits for the standby", Duration::from_secs(20), || {
            let query =
                session.column("SELECT waiting_query FROM shadow_progress WHERE phase = 'wait'")?;
            Ok(query.iter().any(|q| q.starts_with("standby")).then_some(()))
        })?;
        std::thread::sleep(Duration::from_secs(3));
        ensure!(!call.is_finished(), "nobody waited");
        twin.assert_same_here(&mut reader)?;
        reader.run("COMMIT")?;
        call.join().expect("the caller does not panic")
    });
}

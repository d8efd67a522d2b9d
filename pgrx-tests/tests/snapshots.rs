//! Transactions that live across a swap. What their snapshot shows is what they see, whichever side
//! they read it from, and what they may not overwrite unseen they do not.

use shadowpart_tests::*;
use std::time::{Duration, Instant};

/// A standing shadow for tenant 1 in the tablespace `fast`.
fn prepare(server: &mut Server, layout: Layout) -> Result<(Session, Orders, Twin, i64)> {
    server.tablespace("fast")?;
    let mut session = server.connect()?;
    session.run("CREATE TABLE elsewhere AS SELECT 1 AS n")?;
    let orders = Orders::new(layout);
    let twin = orders.create(&mut session)?;
    orders.fill(&twin, &mut session, 1000)?;
    session.run("SELECT shadow_manage('live.orders', 'tenant')")?;
    let id = session.create_shadow("live.orders", "1", "fast")?;
    Ok((session, orders, twin, id))
}

/// A reader takes its snapshot, then the world changes: writes, swaps, a revert, even the removal of
/// the hidden rows. When it touches the table for the first time it sees its snapshot, and so it does
/// at every later time.
#[test]
fn readers_older_than_the_swap() {
    for (level, layout) in [
        ("REPEATABLE READ", LIST),
        ("SERIALIZABLE", HASH),
        ("SERIALIZABLE READ ONLY", MONTH),
        ("SERIALIZABLE READ ONLY DEFERRABLE", LIST_WITH_DEFAULT),
    ] {
        scenario(Settings::default(), |server| {
            let (mut session, orders, twin, id) = prepare(server, layout)?;
            let mut readers = Vec::new();
            for round in 1..=5 {
                // One reader a round: the one of round 1 lives through all of it.
                let mut reader = server.connect()?;
                reader.run(&format!(
                    "BEGIN ISOLATION LEVEL {level}; SELECT n FROM elsewhere"
                ))?;
                readers.push(reader);
                orders.write(&twin, &mut session, round)?;
                if round % 2 == 1 {
                    session.swap(id)?;
                } else {
                    session.revert(id)?;
                }
                orders.write(&twin, &mut session, round + 5)?;
                // Each second reader looks now and again later, the others only at the end.
                for reader in readers.iter_mut().step_by(2) {
                    twin.assert_same_here(reader)
                        .with_context(|| format!("{level}, {round}"))?;
                }
            }
            session.run(&format!("SELECT shadow_finalize({id}, wait => false)"))?;
            std::thread::sleep(Duration::from_secs(2));
            for reader in &mut readers {
                twin.assert_same_here(reader)
                    .with_context(|| format!("{level}, finalizing"))?;
                let one = reader.number("SELECT count(*) FROM live.orders WHERE tenant = 1")?;
                let two = reader.number("SELECT count(*) FROM twin.orders WHERE tenant = 1")?;
                ensure!(one == two && one > 100, "{one} and {two}");
            }
            for mut reader in readers {
                reader.run("COMMIT")?;
            }
            session.wait_for_state(id, &["finalized"])?;
            twin.assert_same(&mut session)
        });
    }
}

/// Plans and cursors made before the swap, and run after it.
#[test]
fn plans_and_cursors_older_than_the_swap() {
    scenario(Settings::default(), |server| {
        let (mut session, orders, twin, id) = prepare(server, LIST)?;
        for mode in ["force_generic_plan", "force_custom_plan"] {
            let options = format!("-c plan_cache_mode={mode}");
            let mut reader = server.connect_with("postgres", "postgres", &options)?;
            let count = reader.prepare("SELECT count(*) FROM live.orders WHERE tenant = $1")?;
            let update = reader.prepare("UPDATE live.orders SET amount = 5 WHERE tenant = $1")?;
            let change = reader.prepare("UPDATE live.orders SET id = id + $2 WHERE tenant = $1")?;
            let mut repeat = server.connect()?;
            repeat.run(
                "BEGIN ISOLATION LEVEL REPEATABLE READ;
                 PREPARE c AS SELECT count(*) FROM live.orders WHERE tenant = 1; EXECUTE c",
            )?;
            for round in 1..=4_i64 {
                let rows = session.number("SELECT count(*) FROM live.orders WHERE tenant = 1")?;
                let mut cursor = server.connect()?;
                cursor.run(
                    "BEGIN; DECLARE c SCROLL CURSOR FOR SELECT id FROM live.orders WHERE tenant = 1;
                     FETCH 3 FROM c",
                )?;
                let before: i64 = reader.query_one(&count, &[&1])?.get(0);
                ensure!(before == rows);
                if round % 2 == 1 {
                    session.swap(id)?;
                } else {
                    session.revert(id)?;
                }
                let after: i64 = reader.query_one(&count, &[&1])?.get(0);
                ensure!(after == rows, "{mode}: {after}, not {rows}");
                let updated = reader.execute(&update, &[&1])?;
                ensure!(
                    updated as i64 == rows,
                    "{mode}: {updated} updated, not {rows}"
                );
                let changed = reader.execute(&change, &[&1, &(round << 50)])?;
                ensure!(
                    changed as i64 == rows,
                    "{mode}: {changed} changed, not {rows}"
                );
                session.run("UPDATE twin.orders SET amount = 5 WHERE tenant = 1")?;
                session.run(&format!(
                    "UPDATE twin.orders SET id = id + {} WHERE tenant = 1",
                    round << 50
                ))?;
                let left = cursor.rows("FETCH ALL FROM c")?.len() as i64;
                ensure!(
                    left == rows - 3,
                    "{left} rows left in the cursor, not {}",
                    rows - 3
                );
                ensure!(
                    cursor.rows("MOVE ABSOLUTE 0 IN c; FETCH ALL FROM c")?.len() as i64 == rows
                );
                cursor.run("COMMIT")?;
                let seen = repeat.number("EXECUTE c")?;
                let wanted = repeat.number("SELECT count(*) FROM twin.orders WHERE tenant = 1")?;
                ensure!(seen == wanted, "{mode}, repeatable: {seen}, not {wanted}");
                twin.assert_same(&mut session)?;
            }
            repeat.run("COMMIT")?;
            orders.write(&twin, &mut session, 1 + mode.len() as u32 % 3)?;
            session.run("DELETE FROM live.orders; DELETE FROM twin.orders")?;
            orders.fill(&twin, &mut session, 1000)?;
        }
        Ok(())
    });
}

/// A transaction in REPEATABLE READ or above must not overwrite what it cannot see: a change that was
/// made after its snapshot, before the swap or after it.
#[test]
fn no_update_is_lost_across_a_swap() {
    scenario(Settings::default(), |server| {
        let (mut session, _orders, twin, id) = prepare(server, LIST)?;
        let mut migrated = false;
        for level in ["REPEATABLE READ", "SERIALIZABLE"] {
            for (change, when) in [
                (
                    "UPDATE {s}.orders SET amount = amount + 1 WHERE tenant = 1 AND id = 5",
                    "before",
                ),
                (
                    "UPDATE {s}.orders SET amount = amount + 1 WHERE tenant = 1 AND id = 5",
                    "after",
                ),
                (
                    "UPDATE {s}.orders SET note = 'x' WHERE tenant = 1",
                    "before",
                ),
                ("UPDATE {s}.orders SET note = 'y' WHERE tenant = 1", "after"),
            ] {
                for overwrite in [
                    "UPDATE live.orders SET amount = 0 WHERE tenant = 1 AND id = 5",
                    "DELETE FROM live.orders WHERE tenant = 1 AND id = 5",
                    "SELECT * FROM live.orders WHERE tenant = 1 AND id = 5 FOR UPDATE",
                ] {
                    let mut old = server.connect()?;
                    old.run(&format!(
                        "BEGIN ISOLATION LEVEL {level}; SELECT n FROM elsewhere"
                    ))?;
                    if when == "before" {
                        twin.both_alike(&mut session, change)?;
                    }
                    if migrated {
                        session.revert(id)?
                    } else {
                        session.swap(id)?
                    }
                    migrated = !migrated;
                    if when == "after" {
                        twin.both_alike(&mut session, change)?;
                    }
                    let failure = old.failure(overwrite)?;
                    ensure!(
                        failure.sqlstate == "40001",
                        "{level}, {when}, {overwrite}: {failure:?}"
                    );
                    old.run("ROLLBACK")?;
                    twin.assert_same(&mut session)?;
                }
            }
            // What nobody else changed may be changed, and lands where it belongs.
            let mut old = server.connect()?;
            old.run(&format!(
                "BEGIN ISOLATION LEVEL {level}; SELECT n FROM elsewhere"
            ))?;
            if migrated {
                session.revert(id)?
            } else {
                session.swap(id)?
            }
            migrated = !migrated;
            twin.both_alike(
                &mut old,
                "UPDATE {s}.orders SET note = 'mine' WHERE tenant = 1",
            )?;
            old.run("COMMIT")?;
            twin.assert_same(&mut session)?;
        }
        Ok(())
    });
}

/// Where in its life each of two serializable transactions is when the swap comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Swap {
    Never,
    BeforeBothRead,
    BetweenTheReads,
    AfterBothRead,
}

/// Two transactions each read what the other is about to write. One of them must fail, swap or not,
/// whether they read rows, ranges or nothing at all.
#[test]
fn write_skew_is_detected_across_a_swap() {
    scenario(Settings::default(), |server| {
        let (mut session, _orders, _twin, id) = prepare(server, LIST)?;
        let mut migrated = false;
        let mut number = 0;
        for plan in [
            "-c enable_seqscan=off",
            "-c enable_indexscan=off -c enable_bitmapscan=off",
        ] {
            for (read, one, two) in [
                (
                    "SELECT sum(amount) FROM live.orders WHERE tenant = 1",
                    "UPDATE live.orders SET amount = amount - 1 WHERE tenant = 1 AND id = 500",
                    "UPDATE live.orders SET amount = amount - 1 WHERE tenant = 1 AND id = 505",
                ),
                (
                    "SELECT count(*) FROM live.orders WHERE tenant = 1 AND id > 5000000",
                    "INSERT INTO live.orders VALUES (0, 1, {n} * 10 + 5000001)",
                    "INSERT INTO live.orders VALUES (0, 1, {n} * 10 + 5000002)",
                ),
                (
                    "SELECT sum(amount) FROM live.orders WHERE tenant = 1",
                    "DELETE FROM live.orders WHERE tenant = 1 AND id = (SELECT min(id) FROM live.orders WHERE tenant = 1)",
                    "DELETE FROM live.orders WHERE tenant = 1 AND id = (SELECT max(id) FROM live.orders WHERE tenant = 1)",
                ),
            ] {
                for when in [
                    Swap::Never,
                    Swap::BeforeBothRead,
                    Swap::BetweenTheReads,
                    Swap::AfterBothRead,
                    Swap::AfterBothRead,
                ] {
                    let mut a = server.connect_with("postgres", "postgres", plan)?;
                    let mut b = server.connect_with("postgres", "postgres", plan)?;
                    let mut swap_at = |moment: Swap, session: &mut Session| -> Result<()> {
                        if moment == when {
                            if migrated {
                                session.revert(id)?
                            } else {
                                session.swap(id)?
                            }
                            migrated = !migrated;
                        }
                        Ok(())
                    };
                    for reader in [&mut a, &mut b] {
                        reader
                            .run("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT n FROM elsewhere")?;
                    }
                    swap_at(Swap::BeforeBothRead, &mut session)?;
                    a.run(read)?;
                    swap_at(Swap::BetweenTheReads, &mut session)?;
                    b.run(read)?;
                    swap_at(Swap::AfterBothRead, &mut session)?;
                    number += 1;
                    let n = number.to_string();
                    let mut failures = Vec::new();
                    for (writer, sql) in [(&mut a, one), (&mut b, two)] {
                        let outcome = writer
                            .run(&sql.replace("{n}", &n))
                            .and_then(|()| writer.run("COMMIT"));
                        if let Err(error) = outcome {
                            failures.push(sqlstate(&error).unwrap_or("?").to_owned());
                            writer.run("ROLLBACK")?;
                        }
                    }
                    ensure!(
                        failures == ["40001"],
                        "{when:?} with {plan}: {read}; failed: {failures:?}"
                    );
                }
            }
        }
        Ok(())
    });
}

/// A reader in the middle of its transaction does not hold a swap up. A writer does, and then nobody
/// else waits longer than max_stall, however long the writer takes.
#[test]
fn a_swap_waits_for_writers_only_and_nobody_for_it() {
    let settings = Settings::default().set("shadowpart.max_stall", "50ms");
    scenario(settings, |server| {
        let (mut session, _orders, twin, id) = prepare(server, LIST)?;
        let mut reader = server.connect()?;
        reader.run(
            "BEGIN; DECLARE c CURSOR FOR SELECT * FROM live.orders; FETCH 1 FROM c;
             SELECT count(*) FROM live.orders",
        )?;
        let begin = Instant::now();
        session.swap(id)?;
        ensure!(
            begin.elapsed() < Duration::from_secs(5),
            "waited for a reader: {:?}",
            begin.elapsed()
        );
        reader.run("COMMIT")?;

        let mut writer = server.connect()?;
        writer.run("BEGIN; UPDATE live.orders SET note = 'long' WHERE tenant = 1 AND id = 500")?;
        session.run("UPDATE twin.orders SET note = 'long' WHERE tenant = 1 AND id = 500")?;
        session.run(&format!("SELECT shadow_revert({id}, wait => false)"))?;
        let begin = Instant::now();
        let mut slowest = Duration::ZERO;
        let mut other = server.connect()?;
        while begin.elapsed() < Duration::from_secs(4) {
            let one = Instant::now();
            twin.both_alike(
                &mut other,
                "UPDATE {s}.orders SET note = 'short' WHERE id = 11",
            )?;
            other.number("SELECT count(*) FROM live.orders WHERE tenant = 1")?;
            slowest = slowest.max(one.elapsed());
        }
        // max_stall, and as much again many times for a machine that is busy.
        ensure!(
            slowest < Duration::from_millis(700),
            "another writer stood still for {slowest:?}"
        );
        ensure!(session.state(id)? == "migrated", "reverted over a writer");
        let waits = format!("SELECT waiting_pid FROM shadow_progress WHERE id = {id}");
        ensure!(
            session.value(&waits)? == writer.pid.to_string(),
            "for whom does it wait?"
        );
        writer.run("COMMIT")?;
        session.wait_for_state(id, &["ready"])?;
        twin.assert_same(&mut session)
    });
}

/// A transaction that was prepared before the shadow was asked for holds locks; the job says so and
/// goes on when it is gone. One that is prepared while the pair lives is exact after a swap.
#[test]
fn prepared_transactions() {
    scenario(Settings::default(), |server| {
        let (mut session, _orders, twin, id) = prepare(server, LIST)?;
        for verb in ["COMMIT", "ROLLBACK"] {
            for schema in ["live", "twin"] {
                session.run(&format!(
                    "BEGIN; UPDATE {schema}.orders SET note = 'two' WHERE id % 7 = 0;
                     DELETE FROM {schema}.orders WHERE id % 11 = 0;
                     INSERT INTO {schema}.orders VALUES (0, 1, 77000000); PREPARE TRANSACTION '{schema}'"
                ))?;
            }
            session.run(&format!("SELECT shadow_swap({id}, wait => false)"))?;
            std::thread::sleep(Duration::from_millis(600));
            ensure!(
                session.state(id)? == "ready",
                "swapped over a prepared transaction"
            );
            twin.assert_same(&mut session)?;
            session.run(&format!("{verb} PREPARED 'live'"))?;
            session.run(&format!("{verb} PREPARED 'twin'"))?;
            session.wait_for_state(id, &["migrated"])?;
            twin.assert_same(&mut session)?;
            session.revert(id)?;
            twin.assert_same(&mut session)?;
            session.run("DELETE FROM live.orders WHERE id = 77000000")?;
            session.run("DELETE FROM twin.orders WHERE id = 77000000")?;
        }
        Ok(())
    });
}

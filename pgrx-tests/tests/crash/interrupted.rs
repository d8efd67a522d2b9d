//! Ends that come from outside, in the middle of a long copy: the worker is terminated or killed, the
//! waiting statement is cancelled, the server is shut down in every way, over and over.

use shadowpart_tests::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// So slowly that the copy of the table below outlasts what is done meanwhile, on a busy machine too.
const SLOWLY: &str = "100kB";

fn prepare(server: &mut Server, layout: Layout) -> Result<(Orders, Twin)> {
    server.tablespace("fast")?;
    let mut session = server.connect()?;
    let orders = Orders::new(layout);
    let twin = orders.create(&mut session)?;
    orders.fill(&twin, &mut session, 12_000)?;
    session.run("SELECT shadow_manage('live.orders', 'tenant')")?;
    Ok((orders, twin))
}

fn slowly() -> Settings {
    Settings::default().set("shadowpart.copy_rate_limit", SLOWLY)
}

fn at_full_speed(server: &Server) -> Result<()> {
    server.configure("shadowpart.copy_rate_limit", "0")?;
    server.reload()
}

fn rows_done(session: &mut Session, id: i64) -> Result<i64> {
    session.number(&format!(
        "SELECT coalesce(max(rows_done), 0) FROM shadow_progress WHERE id = {id}"
    ))
}

fn wait_for_copy(session: &mut Session, id: i64, more_than: i64) -> Result<i64> {
    until("some rows are copied", Duration::from_secs(40), || {
        let done = rows_done(session, id)?;
        Ok((done > more_than).then_some(done))
    })
    .with_context(|| format!("{:?}", session.rows("SELECT * FROM shadow_progress")))
}

/// The worker of the job, as everybody can see it in pg_stat_activity.
fn workers(session: &mut Session) -> Result<Vec<u32>> {
    let pids = session.column(
        "SELECT pid FROM pg_stat_activity WHERE backend_type ILIKE '%shadowpart%'
         AND backend_type NOT ILIKE '%launcher%' AND backend_type NOT ILIKE '%scheduler%'",
    )?;
    pids.iter().map(|pid| Ok(pid.parse()?)).collect()
}

/// The worker is terminated three times; the copy goes on where it was, and ends.
#[test]
fn the_worker_is_terminated() {
    scenario(slowly(), |server| {
        let (orders, twin) = prepare(server, LIST)?;
        let mut session = server.connect()?;
        let id = session.start_migrate("live.orders", "1", "fast")?;
        let mut done = 0;
        for round in 1..=3 {
            done = wait_for_copy(&mut session, id, done)?;
            let pids = workers(&mut session)?;
            ensure!(!pids.is_empty(), "no worker to be seen");
            for pid in pids {
                session.run(&format!("SELECT pg_terminate_backend({pid})"))?;
            }
            orders.write(&twin, &mut session, round)?;
            twin.assert_same(&mut session)?;
        }
        at_full_speed(server)?;
        session.wait_for_state(id, &["migrated"])?;
        twin.assert_same(&mut session)?;
        ensure!(tablespaces_of(&mut session, "live.orders", "tenant = 1")? == ["fast"]);
        Ok(())
    });
}

/// The worker is killed with kill -9, which restarts the server; the job goes on by itself.
#[test]
fn the_worker_is_killed() {
    scenario(slowly(), |server| {
        let (orders, twin) = prepare(server, HASH)?;
        let mut session = server.connect()?;
        let id = session.start_migrate("live.orders", "1", "fast")?;
        wait_for_copy(&mut session, id, 0)?;
        orders.write(&twin, &mut session, 1)?;
        let pid = *workers(&mut session)?
            .first()
            .context("no worker to be seen")?;
        server.kill_process(pid)?;
        let gone = || Ok(session.run("SELECT 1").is_err());
        eventually("the server restarts", Duration::from_secs(20), gone)?;
        server.wait_until_ready()?;
        at_full_speed(server)?;
        let mut session = server.connect()?;
        orders.write(&twin, &mut session, 2)?;
        twin.assert_same(&mut session)?;
        session.wait_for_state(id, &["migrated"])?;
        twin.assert_same(&mut session)
    });
}

/// The server goes down and comes back in the middle of the copy, in each way.
#[test]
fn the_server_goes_down_in_the_copy() {
    for layout in [LIST, MONTH] {
        scenario(slowly(), |server| {
            let (orders, twin) = prepare(server, layout)?;
            let mut session = server.connect()?;
            let id = session.start_migrate("live.orders", "1", "fast")?;
            let mut done = 0;
            for round in 1..=3 {
                let mut session = server.connect()?;
                done = wait_for_copy(&mut session, id, done)?;
                orders.write(&twin, &mut session, round)?;
                match round {
                    1 => server.restart(Shutdown::Fast)?,
                    2 => server.restart(Shutdown::Immediate)?,
                    _ => {
                        server.crash()?;
                        server.start()?;
                    }
                }
                let mut session = server.connect()?;
                twin.assert_same(&mut session)?;
                orders.write(&twin, &mut session, round + 5)?;
            }
            at_full_speed(server)?;
            let mut session = server.connect()?;
            session.wait_for_state(id, &["migrated"])?;
            twin.assert_same(&mut session)?;
            session.revert(id)?;
            server.crash()?;
            server.start()?;
            let mut session = server.connect()?;
            orders.write(&twin, &mut session, 9)?;
            twin.assert_same(&mut session)?;
            session.swap(id)?;
            session.finalize(id)?;
            server.crash()?;
            server.start()?;
            let mut session = server.connect()?;
            twin.assert_same(&mut session)
        });
    }
}

/// The statement that waits is cancelled, then its session terminated: the job goes with it, and
/// nothing is left. Then shadow_cancel does the same from another session.
#[test]
fn the_waiter_is_cancelled() {
    scenario(slowly(), |server| {
        let (orders, twin) = prepare(server, LIST_WITH_DEFAULT)?;
        let mut session = server.connect()?;
        let before = Orphans::look(&mut session)?;
        for (round, how) in ["cancel", "terminate", "timeout", "shadow_cancel"]
            .iter()
            .enumerate()
        {
            let mut waiter = server.connect()?;
            let pid = waiter.pid;
            if *how == "timeout" {
                waiter.run("SET statement_timeout = '2s'")?;
            }
            let call =
                std::thread::spawn(move || waiter.migrate("live.orders", "1", "fast").map(|_| ()));
            let id = until("the job is there", Duration::from_secs(20), || {
                let sql = "SELECT id FROM shadow_status WHERE state IN ('queued', 'building')";
                Ok(session.column(sql)?.first().cloned())
            })?;
            let id: i64 = id.parse()?;
            wait_for_copy(&mut session, id, 0)?;
            orders.write(&twin, &mut session, 1 + round as u32)?;
            match *how {
                "cancel" => session.run(&format!("SELECT pg_cancel_backend({pid})"))?,
                "terminate" => session.run(&format!("SELECT pg_terminate_backend({pid})"))?,
                "timeout" => {}
                _ => {
                    let answer = session.value(&format!("SELECT shadow_cancel({id})"))?;
                    ensure!(answer == "t", "shadow_cancel said {answer}");
                }
            }
            let error = call
                .join()
                .expect("the waiter does not panic")
                .err()
                .with_context(|| format!("{how}: the call succeeded"))?;
            let code = sqlstate(&error).unwrap_or("none").to_owned();
            // Of the last words of a session the client may hear only that it is closed.
            let expected: &[&str] = if *how == "terminate" {
                &["57P01", "none"]
            } else {
                &["57014"]
            };
            ensure!(
                expected.contains(&code.as_str()),
                "{how}: {code}: {error:#}"
            );
            session.wait_for_state(id, &["cancelled", "dropped"])?;
            twin.assert_same(&mut session)?;
            orders.write(&twin, &mut session, 5 + round as u32)?;
            twin.assert_same(&mut session)?;
            let now = Orphans::look(&mut session)?;
            now.assert_tidy_since(&before, &mut session, "live.orders")
                .context(*how)?;
        }
        at_full_speed(server)?;
        session.migrate("live.orders", "1", "fast")?;
        twin.assert_same(&mut session)
    });
}

/// The whole server dies at random moments of random steps while a client writes. What the client was
/// told is committed is there, at most the one transaction it heard nothing of besides, and both
/// sides of a pair agree.
#[test]
fn power_failures_under_load() {
    scenario(Settings::default(), |server| {
        let (orders, twin) = prepare(server, LIST)?;
        server.connect()?.run(
            "CREATE TABLE journal (n int PRIMARY KEY);
             SELECT shadow_create('live.orders', 1, tablespace => 'fast')",
        )?;
        let mut dice = Dice::new(2024);
        let mut committed = 0_i64;
        for round in 1..=6_u32 {
            let patience = Duration::from_millis(100 + dice.below(1500));
            let stop = AtomicBool::new(false);
            let (told, _) = std::thread::scope(|scope| {
                let writer = scope.spawn(|| -> i64 {
                    let mut n = committed;
                    let Ok(mut session) = server.connect() else { return n };
                    // Both tables and the journal in one transaction: all of it or nothing.
                    while !stop.load(Ordering::Relaxed) {
                        let next = n + 1;
                        let id = 100_000_000 + next;
                        let write = ["live", "twin"].map(|schema| {
                            format!(
                                "INSERT INTO {schema}.orders VALUES (1, {t}, {id}, '2024-01-01', {next}, 'n');
                                 UPDATE {schema}.orders SET amount = amount + 1 WHERE tenant = 1 AND id % 50 = {m};
                                 DELETE FROM {schema}.orders WHERE id = {id} - 7;",
                                t = 1 + next % 2,
                                m = next % 50,
                            )
                        });
                        let sql = format!(
                            "BEGIN; {} {} INSERT INTO journal VALUES ({next}); COMMIT", write[0], write[1]
                        );
                        if session.run(&sql).is_err() {
                            break;
                        }
                        n = next;
                    }
                    n
                });
                let mover = scope.spawn(|| -> Option<()> {
                    // It runs until the power fails, so that its end is an error always.
                    let mut session = server.connect().ok()?;
                    loop {
                        let row = session
                            .rows("SELECT id, state FROM shadow_status ORDER BY id DESC LIMIT 1")
                            .ok()?;
                        let (id, state) = match row.first().map(Vec::as_slice) {
                            Some([Some(id), Some(state)]) => {
                                (id.parse::<i64>().ok()?, state.clone())
                            }
                            _ => (0, "none".to_owned()),
                        };
                        match state.as_str() {
                            "ready" => session.swap(id).ok()?,
                            "migrated" if id % 2 == 0 => session.finalize(id).ok()?,
                            "migrated" => {
                                session.revert(id).ok()?;
                                session.drop_shadow(id).ok()?;
                            }
                            "none" | "finalized" | "dropped" | "cancelled" | "failed" => {
                                let there =
                                    tablespaces_of(&mut session, "live.orders", "tenant = 1")
                                        .ok()?;
                                let target = if there == ["fast"] {
                                    "pg_default"
                                } else {
                                    "fast"
                                };
                                session.create_shadow("live.orders", "1", target).ok()?;
                            }
                            _ => std::thread::sleep(Duration::from_millis(50)),
                        }
                    }
                });
                std::thread::sleep(patience);
                crash_now(server);
                stop.store(true, Ordering::Relaxed);
                (
                    writer.join().expect("no panic"),
                    mover.join().expect("no panic"),
                )
            });
            server.after_crash()?;
            server.start()?;
            let mut session = server.connect()?;
            let journal = session.number("SELECT coalesce(max(n), 0) FROM journal")?;
            ensure!(
                journal == told || journal == told + 1,
                "told {told}, but found {journal}"
            );
            committed = journal;
            twin.assert_same(&mut session)
                .with_context(|| format!("round {round}"))?;
            let newest = session.number("SELECT max(id) FROM shadow_status")?;
            let state = session.wait_until_settled(newest)?;
            if state == "ready" || state == "migrated" {
                let verify = format!("SELECT * FROM shadow_verify({newest})");
                let different = session.rows(&verify)?;
                ensure!(different.is_empty(), "round {round}: {different:?}");
            }
            orders.write(&twin, &mut session, round)?;
            twin.assert_same(&mut session)
                .with_context(|| format!("round {round}, writes"))?;
        }
        ensure!(committed > 100, "only {committed} transactions");
        Ok(())
    });
}

/// Kills all processes of the server through a shared reference, from beside its clients.
fn crash_now(server: &Server) {
    server.kill_all().expect("processes can be killed");
}

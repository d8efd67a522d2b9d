//! The harness itself, on servers without the extension: if these fail, no other result counts.
//! Above all a comparison must be able to find a difference.

use shadowpart_tests::*;
use std::time::Duration;

fn plain() -> Settings {
    Settings::default()
        .set("shared_preload_libraries", "")
        .without_extension()
}

/// A server is stopped in every way there is, and what was committed is there afterwards.
#[test]
fn a_server_comes_back_after_every_kind_of_end() {
    scenario(plain(), |server| {
        server.connect()?.run("CREATE TABLE t (n int)")?;
        for n in 1..=4 {
            server
                .connect()?
                .run(&format!("INSERT INTO t VALUES ({n})"))?;
            match n {
                1 => server.restart(Shutdown::Fast)?,
                2 => server.restart(Shutdown::Immediate)?,
                3 => {
                    server.crash()?;
                    server.start()?;
                }
                _ => {
                    let victim = server.connect()?;
                    server.kill_process(victim.pid)?;
                    let gone = || Ok(server.log().contains("was terminated by signal 9"));
                    eventually("the postmaster noticed", Duration::from_secs(10), gone)?;
                    server.wait_until_ready()?;
                }
            }
            ensure!(server.connect()?.number("SELECT count(*) FROM t")? == n);
        }
        Ok(())
    });
}

/// A twin that has lost, gained or changed a row is noticed in every way to read, even where the
/// rows count as equal.
#[test]
fn a_twin_that_differs_is_noticed() {
    scenario(plain(), |server| {
        let mut session = server.connect()?;
        let definition = "CREATE TABLE {s}.t (id int PRIMARY KEY, n numeric);
                          INSERT INTO {s}.t SELECT g, g FROM generate_series(1, 100) g";
        let twin = Twin::create(&mut session, &["t"], definition)?;
        twin.assert_same(&mut session)?;
        for (change, word) in [
            ("DELETE FROM live.t WHERE id = 7", "missing: (7,7)"),
            ("INSERT INTO live.t VALUES (101, 1)", "too many: (101,1)"),
            (
                "UPDATE live.t SET n = 7.0 WHERE id = 7",
                "too many: (7,7.0)",
            ),
        ] {
            session.run(&format!("BEGIN; {change}"))?;
            let error = twin
                .assert_same_here(&mut session)
                .err()
                .context("not noticed")?;
            ensure!(error.to_string().contains(word), "{error}");
            session.run("ROLLBACK")?;
        }
        ensure!(twin.both_alike(&mut session, "UPDATE {s}.t SET n = n + 1")? == 100);
        session.run("DELETE FROM live.t WHERE id = 1")?;
        ensure!(
            twin.both_alike(&mut session, "UPDATE {s}.t SET n = n + 1")
                .is_err()
        );
        ensure!(twin.assert_same(&mut session).is_err());
        Ok(())
    });
}

/// Failures give all their fields, success where failure is due is an error, notices are kept.
#[test]
fn errors_and_notices_are_seen_whole() {
    scenario(plain(), |server| {
        let mut session = server.connect()?;
        session.run("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")?;
        let failure = session.failure("INSERT INTO t VALUES (1)")?;
        ensure!(failure.sqlstate == "23505" && failure.constraint.as_deref() == Some("t_pkey"));
        ensure!(
            failure
                .detail
                .is_some_and(|detail| detail.contains("(id)=(1)"))
        );
        ensure!(session.failure("SELECT 1").is_err());
        let error = session.run("SELECT 1/0").err().context("no error")?;
        ensure!(sqlstate(&error) == Some("22012"), "{error:?}");
        session.notices();
        session
            .run("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two' USING HINT = 'h'; END $$")?;
        ensure!(session.notices() == ["NOTICE: one", "WARNING: two | h"]);
        Ok(())
    });
}

/// Dump and restore, a standby, and a tablespace that both have.
#[test]
fn the_tools_work() {
    scenario(plain(), |server| {
        server.tablespace("fast")?;
        let mut session = server.connect()?;
        session.run("CREATE TABLE t TABLESPACE fast AS SELECT generate_series(1, 1000) AS n")?;
        ensure!(tablespaces_of(&mut session, "t", "n > 5")? == ["fast"]);
        let standby = server.standby(Settings::default().set("shared_preload_libraries", ""))?;
        session.run("DELETE FROM t WHERE n > 900")?;
        server.wait_for_standby(&standby)?;
        ensure!(standby.connect()?.number("SELECT count(*) FROM t")? == 900);
        let dump = server.dump("postgres", "all.dump", &[])?;
        server.restore(&dump, "copy", &[])?;
        ensure!(server.psql("copy", "SELECT count(*) FROM t")?.trim() == "900");
        ensure!(server.psql("copy", "SELECT 1/0").is_err());
        Ok(())
    });
}

/// The stories' table and writes are sound by themselves, in every layout.
#[test]
fn orders_can_be_written() {
    scenario(plain(), |server| {
        let mut session = server.connect()?;
        for layout in LAYOUTS {
            session.run("DROP SCHEMA IF EXISTS live, twin CASCADE")?;
            let orders = Orders::new(layout);
            let twin = orders.create(&mut session)?;
            orders.fill(&twin, &mut session, 2000)?;
            for round in 1..=4 {
                orders.write(&twin, &mut session, round)?;
            }
            twin.assert_same(&mut session).context(layout.name)?;
        }
        for (tenant_type, tenants) in [
            ("boolean", &["false", "true"][..]),
            (
                "text",
                &["", "Ada", "Zoë's", "ada", "zz \"quoted\" \\ {x,y} NULL"],
            ),
            ("numeric", &["-1.50", "0", "1", "1e30", "NaN"]),
        ] {
            session.run("DROP SCHEMA IF EXISTS live, twin CASCADE")?;
            let orders = Orders::of_type(HASH, tenant_type, tenants);
            let twin = orders.create(&mut session)?;
            orders.fill(&twin, &mut session, 2000)?;
            for round in 1..=4 {
                orders.write(&twin, &mut session, round)?;
            }
            twin.assert_same(&mut session)
                .context(tenant_type.to_owned())?;
        }
        Ok(())
    });
}

//! Changes that come from another server, and reads on one that only follows.

use super::*;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(60);

/// The subscriber counts what is applied there: the first copy, and every change after it.
#[test]
fn logical_replication() {
    let publishing = Settings::default().set("wal_level", "logical");
    scenario(publishing, |publisher| {
        scenario(Settings::default(), |subscriber| {
            let mut source = publisher.connect()?;
            let mut target = subscriber.connect()?;
            source.run(
                "CREATE TABLE t (tenant int NOT NULL, id int NOT NULL, note text, PRIMARY KEY (tenant, id));
                 INSERT INTO t SELECT 1 + g % 2, g FROM generate_series(1, 40) g; CREATE PUBLICATION p FOR TABLE t",
            )?;
            target.run(TABLE)?;
            target.run(&format!(
                "CREATE SUBSCRIPTION s CONNECTION '{}' PUBLICATION p",
                publisher.conninfo("postgres")
            ))?;
            let comes = |target: &mut Session, expected: &str| -> Result<()> {
                let mut found = String::new();
                eventually("the changes are counted", TIMEOUT, || {
                    found = writes(target, "t")?;
                    Ok(found == expected)
                })
                .with_context(|| format!("{found}, not {expected}"))
            };
            comes(&mut target, "1 +20, 2 +20")?;
            eventually("the tables are in step", TIMEOUT, || {
                Ok(
                    target.value("SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel")?
                        == "t",
                )
            })?;
            target.run("SELECT shadow_stats_reset()")?;
            source.run(
                "INSERT INTO t SELECT 3, g FROM generate_series(1, 10) g;
                 UPDATE t SET note = 'x' WHERE tenant = 1; DELETE FROM t WHERE tenant = 2 AND id < 10",
            )?;
            comes(&mut target, "1 ~20, 2 -5, 3 +10")?;
            // To another partition of the subscriber's table, and within one.
            target.run("SELECT shadow_stats_reset()")?;
            source.run("UPDATE t SET tenant = 4, id = id + 100 WHERE tenant = 3 AND id = 1")?;
            comes(&mut target, "3 -1, 4 +1")?;
            target.run("SELECT shadow_stats_reset()")?;
            source
                .run("BEGIN; INSERT INTO t VALUES (5, 1); ROLLBACK; INSERT INTO t VALUES (6, 1)")?;
            comes(&mut target, "6 +1")?;
            target.run("DROP SUBSCRIPTION s")
        });
        Ok(())
    });
}

/// A standby has counters of its own.
#[test]
fn a_standby() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        session.run(TABLE)?;
        session.run("INSERT INTO t SELECT 1 + g % 3, g FROM generate_series(1, 30) g")?;
        let standby = server.standby(Settings::default())?;
        server.wait_for_standby(&standby)?;
        let mut reader = standby.connect()?;
        ensure!(
            reader.number("SELECT count(*) FROM shadow_entity_counters")? == 0,
            "writes of the primary"
        );
        reader.run("SELECT * FROM t WHERE tenant = 2; SELECT * FROM t WHERE tenant = 2; SELECT count(*) FROM t WHERE tenant IN (1, 3)")?;
        let found = reads(&mut reader, "t")?;
        ensure!(found == "1 1/1, 2 2/20, 3 1/0", "{found}");
        reader.rows("SELECT * FROM shadow_entities")?;
        reader.rows("SELECT * FROM shadow_stats_info")?;
        let found = reads(&mut session, "t")?;
        ensure!(found == "nothing", "{found} on the primary");
        // Partitions that come there, and the end of it all.
        session.run(
            "CREATE TABLE t_50 PARTITION OF t FOR VALUES IN (50); INSERT INTO t VALUES (50, 1)",
        )?;
        server.wait_for_standby(&standby)?;
        assert_reads(&mut reader, "SELECT * FROM t WHERE tenant = 50", "50 1/1")?;
        session.run("SELECT shadow_unmanage('t')")?;
        server.wait_for_standby(&standby)?;
        reader.run("SELECT shadow_stats_reset(); SELECT * FROM t WHERE tenant = 2")?;
        ensure!(reader.number("SELECT count(*) FROM shadow_entity_counters")? == 0);
        Ok(())
    });
}

//! What can be set, of what, and by whom.

use super::*;

#[test]
fn settings_are_merged_and_shown() {
    scenario(Settings::default(), |server| {
        let mut session = prepare(server)?;
        let shown = |session: &mut Session, what: &str| {
            session.value(&format!(
                "SELECT string_agg(coalesce(partition::text, '*') || ' ' || value || ' ' || source, ', ' ORDER BY partition NULLS FIRST)
                   FROM shadow_policies WHERE setting = '{what}'"
            ))
        };
        ensure!(shown(&mut session, "autopilot")? == "* advise default");
        ensure!(shown(&mut session, "write_rows_s")? == "* learned default");
        ensure!(shown(&mut session, "cpu_ms_s")? == "* unlimited default");
        session.run(
            "SELECT shadow_set_policy('orders', autopilot => 'migrate', write_rows_s => 1000, cooldown => '10 min');
             SELECT shadow_set_policy('orders_a', write_rows_s => 50.5)",
        )?;
        let autopilot = shown(&mut session, "autopilot")?;
        ensure!(
            autopilot == "* migrate table, orders_a migrate table",
            "{autopilot}"
        );
        ensure!(shown(&mut session, "write_rows_s")? == "* 1000 table, orders_a 50.5 partition");
        ensure!(shown(&mut session, "cooldown")? == "* 00:10:00 table, orders_a 00:10:00 table");
        ensure!(shown(&mut session, "decommission_after")?.starts_with("* 02:00:00 default"));
        // By the names that they are set by.
        session.run("SELECT shadow_reset_policy('orders', ARRAY['cooldown'])")?;
        ensure!(shown(&mut session, "cooldown")?.starts_with("* 01:00:00 default"));
        session.run("SELECT shadow_set_policy('orders', targets => '{}')")?;
        ensure!(shown(&mut session, "targets")?.starts_with("* none table"));
        session.run("SELECT shadow_reset_policy('orders', ARRAY['targets'])")?;
        // What is not named stays.
        session.run("SELECT shadow_set_policy('orders', threshold => 0.9)")?;
        ensure!(shown(&mut session, "autopilot")?.starts_with("* migrate table"));
        session.run("SELECT shadow_reset_policy('orders', ARRAY['autopilot'])")?;
        ensure!(shown(&mut session, "autopilot")?.starts_with("* advise default"));
        ensure!(shown(&mut session, "threshold")?.starts_with("* 0.9 table"));
        session
            .run("SELECT shadow_reset_policy('orders_a'); SELECT shadow_reset_policy('orders')")?;
        ensure!(shown(&mut session, "write_rows_s")? == "* learned default");
        ensure!(session.number("SELECT count(*) FROM shadowpart.policy")? == 0);
        // The server's setting is the default of all, and off is off for all.
        session.run("SELECT shadow_set_policy('orders', autopilot => 'shadow')")?;
        server.configure("shadowpart.autopilot", "off")?;
        server.reload()?;
        eventually("off is off", SOON, || {
            Ok(server
                .connect()?
                .value("SELECT value FROM shadow_policies WHERE setting = 'autopilot'")?
                == "off")
        })?;
        // What is managed no more has no settings.
        session.run("SELECT shadow_unmanage('orders')")?;
        ensure!(session.number("SELECT count(*) FROM shadowpart.policy")? == 0);
        // A table that goes takes its settings with it, at the next minute's latest.
        session.run(
            "SELECT shadow_manage('orders', 'tenant');
             SELECT shadow_set_policy('orders', threshold => 0.9);
             DROP TABLE orders",
        )?;
        ensure!(session.number("SELECT count(*) FROM shadow_policies")? == 0);
        Ok(())
    });
}

#[test]
fn bad_settings_are_refused() {
    scenario(Settings::default(), |server| {
        let mut session = prepare(server)?;
        session.run("CREATE TABLE plain (a int); CREATE ROLE stranger LOGIN")?;
        for (arguments, sqlstate) in [
            ("'orders', autopilot => 'full'", "22023"),
            ("'orders', write_rows_s => 0", "22023"),
            ("'orders', write_rows_s => -5", "22023"),
            ("'orders', write_rows_s => 'NaN'", "22023"),
            ("'orders', cpu_ms_s => 'Infinity'", "22023"),
            ("'orders', threshold => 1.5", "22023"),
            ("'orders', threshold => 0.3", "22023"),
            ("'orders', shadow_threshold => 0.8", "22023"),
            ("'orders', ticks => 'two'", "22023"),
            ("'orders', ticks => '4 of 3'", "22023"),
            ("'orders', quiet_hours => '25:00-03:00'", "22023"),
            ("'orders', quiet_hours => 'night'", "22023"),
            ("'orders', quiet_hours => '00:00-24:00'", "22023"),
            ("'orders', cooldown => '-1 s'", "22023"),
            ("'orders', reactive => 0.5", "22023"),
            ("'orders', targets => '{nowhere}'", "42704"),
            ("'orders_a', threshold => 0.8", "42809"),
            ("'plain', threshold => 0.8", "0A000"),
            ("NULL, threshold => 0.8", "22004"),
        ] {
            let failure = session.failure(&format!("SELECT shadow_set_policy({arguments})"))?;
            ensure!(failure.sqlstate == sqlstate, "{arguments}: {failure:?}");
            ensure!(
                failure.detail.is_some() && failure.hint.is_some(),
                "{arguments}: {failure:?}"
            );
        }
        let failure = session.failure("SELECT shadow_reset_policy('orders', ARRAY['nonsense'])")?;
        ensure!(failure.sqlstate == "22023", "{failure:?}");
        ensure!(session.number("SELECT count(*) FROM shadowpart.policy")? == 0);

        let mut other = server.connect_as("stranger")?;
        for call in [
            "shadow_set_policy('orders', threshold => 0.8)",
            "shadow_reset_policy('orders')",
            "shadow_add_target('fast')",
            "shadow_drop_target('fast')",
            "shadow_plan('orders')",
        ] {
            let failure = other.failure(&format!("SELECT {call}"))?;
            ensure!(failure.sqlstate == "42501", "{call}: {failure:?}");
        }
        for view in [
            "shadow_policies",
            "shadow_predictions",
            "shadow_decisions",
            "shadow_plan()",
            "shadow_predict()",
        ] {
            ensure!(
                other.number(&format!("SELECT count(*) FROM {view}"))? == 0,
                "{view}"
            );
        }
        for (call, sqlstate) in [
            ("shadow_add_target('nowhere')", "42704"),
            ("shadow_add_target(NULL)", "22004"),
            ("shadow_drop_target('nowhere')", "42704"),
            ("shadow_drop_target(NULL)", "22004"),
        ] {
            let failure = session.failure(&format!("SELECT {call}"))?;
            ensure!(failure.sqlstate == sqlstate, "{call}: {failure:?}");
            ensure!(
                failure.detail.is_some() && failure.hint.is_some(),
                "{call}: {failure:?}"
            );
        }
        Ok(())
    });
}

/// Settings and targets are what a dump of the database has to keep.
#[test]
fn settings_are_dumped() {
    scenario(Settings::default(), |server| {
        let mut session = prepare(server)?;
        session.run(
            "SELECT shadow_set_policy('orders', autopilot => 'shadow', write_rows_s => 1000);
             SELECT shadow_set_policy('orders_a', write_rows_s => 10);
             SELECT shadow_add_target('fast', write_rows_s => 5000)",
        )?;
        let dump = server.dump("postgres", "settings", &[])?;
        server.restore(&dump, "other", &[])?;
        let mut other = server.connect_to("other")?;
        let sql = "SELECT string_agg(subject || ' ' || settings, ', ' ORDER BY subject::text) FROM shadowpart.policy";
        ensure!(other.value(sql)? == session.value(sql)?);
        ensure!(
            other.value("SELECT tablespace || ' ' || settings FROM shadowpart.target")?
                == "fast {\"write_rows_s\": 5000}"
        );
        Ok(())
    });
}

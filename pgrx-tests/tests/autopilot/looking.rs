//! What is predicted, whether it comes true, and what is planned.

use super::*;

/// The plain rule needs no model: a table that has just been managed is watched from the first look on.
#[test]
fn a_threshold_works_from_the_first_minute() {
    scenario(quick(), |server| {
        let mut session = prepare(server)?;
        session.run("SELECT shadow_set_policy('orders', write_rows_s => 100)")?;
        let load = Load::start(server)?;
        load.set(1, 150);
        load.set(2, 20);
        load.set(7, 10);
        eventually("a proposal is recorded", SOON, || {
            Ok(session.number(
                "SELECT count(*) FROM shadow_decisions
                  WHERE action = 'create_shadow' AND partition = 'orders_a'::regclass AND NOT executed",
            )? > 0)
        })?;
        let row = session.rows(
            "SELECT entities::text, target::text, trigger, reason, message <> '' FROM shadow_decisions
              WHERE action = 'create_shadow' ORDER BY id LIMIT 1",
        )?;
        ensure!(row[0][0].as_deref() == Some("{1}"), "{row:?}");
        ensure!(row[0][1].as_deref() == Some("fast"), "{row:?}");
        ensure!(row[0][3].as_deref() == Some("mode"), "{row:?}");
        // It is advice: nothing was done.
        ensure!(session.number("SELECT count(*) FROM shadow_status")? == 0);
        let plan = session.rows(
            "SELECT action, entities::text, would_execute, locks IS NOT NULL, blockers IS NOT NULL
               FROM shadow_plan('orders') WHERE partition = 'orders_a'::regclass",
        )?;
        ensure!(
            plan.iter()
                .any(|row| row[0].as_deref() == Some("create_shadow")
                    && row[1].as_deref() == Some("{1}")
                    && row[2].as_deref() == Some("f")
                    && row[3].as_deref() == Some("t")),
            "{plan:?}"
        );
        // The other partition is well, and the plan says so.
        let other = session.value(
            "SELECT string_agg(action, ',') FROM shadow_plan('orders') WHERE partition = 'orders_b'::regclass",
        )?;
        ensure!(other == "hold", "{other}");
        // Of one partition alone; what holds costs nothing.
        let other = session.rows(
            "SELECT partition::text, size, duration::text, stall_ms::text FROM shadow_plan('orders_b')",
        )?;
        ensure!(other.len() == 1, "{other:?}");
        ensure!(other[0][0].as_deref() == Some("orders_b"), "{other:?}");
        ensure!(other[0][1..].iter().all(Option::is_none), "{other:?}");
        // Figures go by the names that capacities are set by.
        let need = session.value(
            "SELECT string_agg(DISTINCT need, ',') FROM shadow_plan('orders_a'),
                    jsonb_object_keys(details -> 'need') need",
        )?;
        ensure!(need == "write_rows_s", "{need}");
        load.stop()?;
        Ok(())
    });
}

/// Forecasts are stored, shown and judged; a restart loses none of what was learned.
#[test]
fn forecasts_are_judged() {
    scenario(quick(), |server| {
        let mut session = prepare(server)?;
        session.run("SELECT shadow_set_policy('orders', write_rows_s => 1000)")?;
        let load = Load::start(server)?;
        load.set(1, 100);
        load.set(7, 40);
        eventually("forecasts are there", SOON, || {
            Ok(session.number("SELECT count(*) FROM shadow_predict('orders')")? > 0)
        })?;
        eventually(
            "forecasts of partitions and entities are judged",
            SOON,
            || {
                Ok(session.number(
                "SELECT least(count(*) FILTER (WHERE entity IS NULL), count(*) FILTER (WHERE entity IS NOT NULL))
                   FROM shadow_predictions WHERE actual IS NOT NULL",
            )? >= 20)
            },
        )?;
        let newest = session.rows(
            "SELECT count(DISTINCT at), count(DISTINCT partition) FROM shadow_predict('orders_a')",
        )?;
        ensure!(newest[0][0].as_deref() == Some("1"), "{newest:?}");
        ensure!(newest[0][1].as_deref() == Some("1"), "{newest:?}");
        // However many are stored, the newest are found at once.
        session.run("SET enable_seqscan = off")?;
        let plan = session.rows("EXPLAIN SELECT * FROM shadow_predict('orders')")?;
        session.run("RESET enable_seqscan")?;
        ensure!(
            plan.iter()
                .flatten()
                .flatten()
                .any(|line| line.contains("prediction_at")),
            "{plan:?}"
        );
        // Close to what is written: the error of a steady load is small.
        let near = session.value(
            "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY actual) BETWEEN 50 AND 150 FROM shadow_predictions
              WHERE partition = 'orders_a'::regclass AND entity IS NULL AND actual IS NOT NULL",
        )?;
        ensure!(near == "t", "what happened was about 100 rows a second");
        let quality = session.rows(
            "SELECT forecasts > 0, mean_error IS NOT NULL, brier IS NOT NULL, crossed FROM shadow_prediction_quality
              WHERE partition = 'orders_a'::regclass AND entity IS NULL AND resource = 'write_rows_s'",
        )?;
        ensure!(quality.len() == 1, "{quality:?}");
        ensure!(
            quality[0][1].as_deref() == Some("t") && quality[0][2].as_deref() == Some("t"),
            "{quality:?}"
        );
        ensure!(session.number("SELECT count(*) FROM shadow_calibration")? > 0);
        // A day has passed, or passes: the model is saved, and there after a restart.
        eventually("the model is saved", SOON, || {
            Ok(session.number("SELECT count(*) FROM shadowpart.model")? == 1)
        })?;
        load.stop()?;
        server.crash()?;
        server.start()?;
        let mut session = server.connect()?;
        ensure!(session.number("SELECT count(*) FROM shadowpart.model")? == 1);
        let before = session.number("SELECT count(*) FROM shadow_predictions")?;
        eventually("it goes on", SOON, || {
            Ok(session.number("SELECT count(*) FROM shadow_predictions")? > before)
        })?;
        ensure!(
            !server.log().contains("learns from the history again"),
            "the model can be read"
        );
        ensure!(
            !server.log().contains("shadowpart autopilot: "),
            "no errors"
        );
        Ok(())
    });
}

/// Off decides nothing and makes nothing; with no interval nothing is predicted either.
#[test]
fn off_does_nothing() {
    scenario(quick().set("shadowpart.autopilot", "off"), |server| {
        let mut session = prepare(server)?;
        session.run(
            "SELECT shadow_set_policy('orders', autopilot => 'migrate', write_rows_s => 10)",
        )?;
        let load = Load::start(server)?;
        load.set(1, 100);
        eventually("it is predicted all the same", SOON, || {
            Ok(session
                .number("SELECT count(*) FROM shadow_predictions WHERE resolved_at IS NOT NULL")?
                > 0)
        })?;
        ensure!(session.number("SELECT count(*) FROM shadow_decisions")? == 0);
        ensure!(session.number("SELECT count(*) FROM shadow_status")? == 0);
        // Who asks is told what would be advised.
        let plan = session.number("SELECT count(*) FROM shadow_plan('orders') WHERE action = 'create_shadow' AND NOT would_execute")?;
        ensure!(plan > 0);
        let workers =
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'shadowpart autopilot'";
        ensure!(session.number(workers)? == 1);
        server.configure("shadowpart.predict_interval", "0")?;
        server.reload()?;
        eventually(
            "the worker ends",
            SOON,
            || Ok(session.number(workers)? == 0),
        )?;
        load.stop()?;
        Ok(())
    });
}

//! What is predicted, whether it comes true, and what is planned.

use super::*;

/// The plain rule needs no model: a table that has just been managed is watched from the first look on.
#[test]
fn a_threshold_works_from_the_first_minute() {
    scenario(quick(), |server| {
        let mut session = prepare(server)?;
        session.run("SELECT shadow_set_policy('orders', write_rows_s => 100)")?;
        let load = Load::start(server)?;
        load.set(1, 300);
        load.set(2, 20);
        load.set(7, 10);
        // Who makes most of it is among those to move.
        eventually("a proposal is recorded", SOON, || {
            Ok(session.number(
                "SELECT count(*) FROM shadow_decisions
                  WHERE action = 'create_shadow' AND partition = 'orders_a'::regclass AND NOT executed
                    AND '1' = ANY (entities) AND target = 'fast' AND reason = 'mode' AND message <> ''",
            )? > 0)
        })?;
        // It is advice: nothing was done.
        ensure!(session.number("SELECT count(*) FROM shadow_status")? == 0);
        eventually("it is planned", SOON, || {
            Ok(session.number(
                "SELECT count(*) FROM shadow_plan('orders')
                  WHERE partition = 'orders_a'::regclass AND action = 'create_shadow' AND '1' = ANY (entities)
                    AND NOT would_execute AND locks IS NOT NULL AND blockers IS NOT NULL",
            )? > 0)
        })?;
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
        eventually("the plan says what", SOON, || {
            Ok(session.number(
                "SELECT count(*) FROM shadow_plan('orders') WHERE action = 'create_shadow' AND NOT would_execute",
            )? > 0)
        })?;
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

/// What would have been: the recorded history of a table, walked through with what was known at each moment.
#[test]
fn the_recorded_history_is_tested_on() {
    scenario(
        Settings::default().set("shadowpart.predict_interval", "0"),
        |server| {
            let mut session = prepare(server)?;
            let nothing = session.failure("SELECT * FROM shadow_backtest('orders')")?;
            ensure!(
                nothing.sqlstate == "P0002" && nothing.hint.is_some(),
                "{nothing:?}"
            );
            // Ten days in which the load of each tenant follows the time of day; one of them has two peaks.
            session.run(
            "INSERT INTO shadowpart.entity_history
             SELECT 5, date_bin('5 min', now(), '2000-01-01') - m * interval '5 min', 300000, 'orders'::regclass, e.entity,
                    CASE WHEN e.n IN (1, 2, 3, 4, 5) THEN 'orders_a'::regclass WHEN e.n > 0 THEN 'orders_b'::regclass END,
                    (e.n * 300 * (2 + sin(2 * pi() * ((m + 20 * e.n) % 288) / 288.0)
                        + CASE WHEN e.n = 3 AND m % 144 < 12 THEN 3 ELSE 0 END))::bigint,
                    0, 0, 0, 0, 0, 0, 0, 0, 0, false
               FROM generate_series(1, 2880) m,
                    LATERAL (SELECT NULL AS entity, 0 AS n UNION ALL SELECT g::text, g FROM generate_series(1, 10) g) e",
        )?;
            let rows = session.rows("SELECT metric, model FROM shadow_backtest('orders')")?;
            let figure = |metric: &str| -> Result<f64> {
                let row = rows.iter().find(|row| row[0].as_deref() == Some(metric));
                let value = row.and_then(|row| row[1].clone());
                Ok(value
                    .with_context(|| format!("{metric} in {rows:?}"))?
                    .parse()?)
            };
            ensure!(
                figure("entities")? == 10.0 && figure("partitions")? == 2.0,
                "{rows:?}"
            );
            ensure!((4.0..6.0).contains(&figure("days forecast")?), "{rows:?}");
            ensure!(figure("rMAE of entities, 60 min")? < 0.8, "{rows:?}");
            // By seed, into as many partitions as are asked for.
            let four = session.value(
            "SELECT model::int FROM shadow_backtest('orders', partitions => 4) WHERE metric = 'partitions'",
        )?;
            ensure!(four == "4", "{four}");
            for (arguments, sqlstate) in [
                ("'orders', 'size_bytes'", "22023"),
                ("'orders', horizon => '1 s'", "22023"),
                ("'orders', partitions => 0", "22023"),
                ("'orders_a'::regclass::text::regclass, 'nonsense'", "22023"),
            ] {
                let failure =
                    session.failure(&format!("SELECT * FROM shadow_backtest({arguments})"))?;
                ensure!(failure.sqlstate == sqlstate, "{arguments}: {failure:?}");
            }
            session.run("CREATE ROLE stranger LOGIN")?;
            let failure = server
                .connect_as("stranger")?
                .failure("SELECT * FROM shadow_backtest('orders')")?;
            ensure!(failure.sqlstate == "42501", "{failure:?}");
            Ok(())
        },
    );
}

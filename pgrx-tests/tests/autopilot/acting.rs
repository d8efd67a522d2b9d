//! What is done about it: a load rises, a shadow comes, grows and is swapped; a load falls, and it goes.

use super::*;

fn done(session: &mut Session, action: &str, outcome: &str) -> Result<i64> {
    session.number(&format!(
        "SELECT count(*) FROM shadow_decisions WHERE executed AND action = '{action}' AND outcome = '{outcome}'"
    ))
}

/// The reactive rule moves the entity that causes the load; nothing is lost meanwhile.
#[test]
fn a_saturated_partition_is_relieved() {
    scenario(quick(), |server| {
        let mut session = prepare(server)?;
        session.run(
            "SELECT shadow_set_policy('orders', autopilot => 'migrate', write_rows_s => 200, cooldown => '1 min')",
        )?;
        let load = Load::start(server)?;
        for tenant in 2..=5 {
            load.set(tenant, 15);
        }
        load.set(1, 400);
        eventually("it is migrated", SOON, || {
            Ok(session.value("SELECT tablespace FROM shadow_route('orders', 1)")? == "fast")
        })?;
        // What our own move changed says nothing about the forecasts.
        eventually("forecasts are left out of the judgement", SOON, || {
            Ok(session.number("SELECT count(*) FROM shadow_predictions WHERE excluded")? > 0)
        })?;
        // It stays so: what was decided together is done, and then not one migration after the other.
        std::thread::sleep(Duration::from_secs(2));
        let swaps = "SELECT count(*) FROM shadow_decisions WHERE executed AND action = 'swap'";
        let before = session.number(swaps)?;
        std::thread::sleep(Duration::from_secs(5));
        ensure!(session.number(swaps)? == before);
        ensure!(done(&mut session, "swap", "migrated")? > 0);
        let twice = "SELECT count(*) - count(DISTINCT e) FROM shadow_status, unnest(entities) e";
        ensure!(session.number(twice)? == 0, "an entity in two shadows");
        let written = load.stop()?;
        ensure!(session.number("SELECT count(*) FROM orders")? == 20_000 + written as i64);
        let mirrored = "SELECT count(*) FROM shadow_status s, shadow_verify(s.id) WHERE s.state IN ('ready', 'migrated')";
        ensure!(session.number(mirrored)? == 0);
        ensure!(
            !server.log().contains("shadowpart autopilot: "),
            "no errors"
        );
        Ok(())
    });
}

/// In mode shadow a shadow is made and, when the load falls, taken away; nothing is swapped.
#[test]
fn a_shadow_comes_and_goes() {
    scenario(quick(), |server| {
        let mut session = prepare(server)?;
        session.run(
            "SELECT shadow_set_policy('orders', autopilot => 'shadow', write_rows_s => 200, cooldown => '2 s',
                entity_cooldown => '1 s', decommission_after => '3 s')",
        )?;
        let load = Load::start(server)?;
        load.set(1, 400);
        load.set(2, 10);
        eventually("its shadow is ready", SOON, || {
            Ok(done(&mut session, "create_shadow", "ready")? > 0)
        })?;
        load.set(1, 1);
        eventually("all is dropped", SOON, || {
            Ok(done(&mut session, "drop_shadow", "dropped")? > 0
                && session.number("SELECT count(*) FROM shadow_status WHERE state <> 'dropped'")?
                    == 0)
        })?;
        ensure!(session.number("SELECT count(*) FROM shadow_history WHERE event = 'swap'")? == 0);
        load.stop()?;
        Ok(())
    });
}

/// A shadow follows the load: who gets hot comes to it, who is not needed any more leaves, and when all is
/// calm it goes.
#[test]
fn a_shadow_is_resized() {
    scenario(quick(), |server| {
        let mut session = prepare(server)?;
        session.run(
            "SELECT shadow_set_policy('orders', autopilot => 'shadow', write_rows_s => 200, cooldown => '1 s',
                entity_cooldown => '1 s', decommission_after => '4 s')",
        )?;
        let load = Load::start(server)?;
        // Nobody has most of it: they share a shadow.
        for tenant in 1..=5 {
            load.set(tenant, 45);
        }
        eventually("a shadow is ready", SOON, || {
            Ok(done(&mut session, "create_shadow", "ready")? > 0)
        })?;
        let before = session.value("SELECT entities::text FROM shadow_status WHERE id = 1")?;
        for tenant in 1..=5 {
            load.set(tenant, 90);
        }
        eventually("others come to it", SOON, || {
            Ok(done(&mut session, "add_entities", "ready")? > 0)
        })?;
        let grown = session.value(
            "SELECT entities::text FROM shadow_decisions WHERE executed AND action = 'add_entities' LIMIT 1",
        )?;
        ensure!(grown != before, "{grown}");
        ensure!(session.number("SELECT count(*) FROM shadow_history WHERE event = 'add'")? > 0);
        for tenant in 1..=5 {
            load.set(tenant, 1);
        }
        eventually("it is gone", SOON, || {
            Ok(session.number("SELECT count(*) FROM shadow_status WHERE state = 'dropped'")? > 0)
        })?;
        let written = load.stop()?;
        ensure!(session.number("SELECT count(*) FROM orders")? == 20_000 + written as i64);
        Ok(())
    });
}

/// What a person made is left alone, and the kill switch stops what is under way at once.
#[test]
fn people_come_first() {
    scenario(
        quick().set("shadowpart.copy_rate_limit", "100kB"),
        |server| {
            let mut session = prepare(server)?;
            // Enough to copy for a while.
            session.run("INSERT INTO orders SELECT 1, g, repeat('x', 200) FROM generate_series(100001, 120000) g")?;
            session.run("SELECT shadow_create('orders', 6, tablespace => 'fast')")?;
            session.run(
                "SELECT shadow_set_policy('orders', autopilot => 'migrate', write_rows_s => 100)",
            )?;
            let load = Load::start(server)?;
            load.set(6, 300);
            load.set(1, 300);
            eventually("a shadow is begun", SOON, || {
                Ok(done(&mut session, "create_shadow", "started")? > 0)
            })?;
            server.configure("shadowpart.autopilot", "off")?;
            server.reload()?;
            eventually("it is stopped", SOON, || {
                let states = session.column("SELECT state FROM shadow_status WHERE id > 1")?;
                Ok(states.iter().any(|state| state == "cancelled")
                    && states
                        .iter()
                        .all(|state| state == "cancelled" || state == "ready"))
            })?;
            // The person's stands as it stood.
            ensure!(
                session.value("SELECT state || ' ' || goal FROM shadow_status WHERE id = 1")?
                    == "ready ready"
            );
            load.stop()?;
            Ok(())
        },
    );
}

/// Whoever ends the worker has not seen the last of it, and a database can be dropped while it is watched.
#[test]
fn the_worker_comes_back_and_leaves() {
    scenario(quick(), |server| {
        let mut session = prepare(server)?;
        let workers = |session: &mut Session| {
            session.number(
                "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'shadowpart autopilot'",
            )
        };
        eventually("it is there", SOON, || Ok(workers(&mut session)? == 1))?;
        session.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'shadowpart autopilot'",
        )?;
        eventually("it is gone", SOON, || Ok(workers(&mut session)? == 0))?;
        eventually("it is back", SOON, || Ok(workers(&mut session)? == 1))?;
        session.run("CREATE DATABASE other")?;
        let mut other = server.connect_to("other")?;
        other.run("CREATE EXTENSION shadowpart")?;
        other.run(TABLE)?;
        eventually("each database has its own", SOON, || {
            Ok(workers(&mut session)? == 2)
        })?;
        other.run("SELECT shadow_set_policy('orders', write_rows_s => 5)")?;
        drop(other);
        session.run("DROP DATABASE other")?;
        session.run("SELECT shadow_unmanage('orders')")?;
        eventually("nothing is watched, nobody watches", SOON, || {
            Ok(workers(&mut session)? == 0)
        })?;
        Ok(())
    });
}

//! Random tables, random writes from several sessions in step with a twin, and a mover that creates,
//! migrates, resizes, reverts, finalizes, drops and cancels at random moments. At every moment, in every
//! isolation level and by every kind of plan, the table equals the twin.
//!
//! `SHADOWPART_CASES` says how many cases (10), `SHADOWPART_SEED` runs one alone.

mod driver;
mod mover;
mod schema;
mod statements;

use driver::Driver;
use shadowpart_tests::*;
use std::sync::atomic::{AtomicBool, Ordering};

const CASES: u64 = 10;
const OPERATIONS: u32 = 160;

fn case(seed: u64) {
    let settings = Settings::default()
        .set("max_locks_per_transaction", "256")
        .set("shadowpart.max_stall", "100ms");
    scenario(settings, |server| {
        server.tablespace("fast")?;
        server.tablespace("faster")?;
        let mut dice = Dice::new(seed);
        let mut session = server.connect()?;
        let orders = schema::random_orders(&mut dice, &mut session)?;
        let twin = schema::create(&orders, &mut dice, &mut session)?;
        orders.fill(&twin, &mut session, 300 + dice.below(700) as u32)?;
        session.run("SELECT shadow_manage('live.orders', 'tenant')")?;
        println!("seed {seed}: {}", orders.layout.name);

        let stop = &AtomicBool::new(false);
        let mut driver = Driver::new(server, &orders, &twin, dice)?;
        let orders = &orders;
        let (driven, moved) = std::thread::scope(|scope| {
            let server: &Server = server;
            let mover = scope.spawn(move || mover::move_about(server, orders, seed, stop));
            let mut driven = Ok(());
            for _ in 0..OPERATIONS {
                driven = driver.operate();
                if driven.is_err() {
                    break;
                }
            }
            let ended = driver.end();
            stop.store(true, Ordering::Relaxed);
            (
                driven.and(ended),
                mover.join().expect("the mover does not panic"),
            )
        });
        driven.with_context(|| format!("seed {seed}; {}", driver.history()))?;
        let moves = moved.with_context(|| format!("the mover, seed {seed}"))?;
        println!("seed {seed}: {moves:?}");
        twin.assert_same(&mut session)
            .with_context(|| format!("seed {seed}, at the end"))?;
        mover::settle(&mut session)?;
        twin.assert_same(&mut session)
            .with_context(|| format!("seed {seed}, settled"))?;
        orders.write(&twin, &mut session, 1)?;
        twin.assert_same(&mut session)
            .with_context(|| format!("seed {seed}, writes after it"))
    });
}

/// Every second seed, so that two cores have work.
fn cases(remainder: u64) {
    if let Ok(seed) = std::env::var("SHADOWPART_SEED") {
        let seed: u64 = seed.parse().expect("SHADOWPART_SEED is a number");
        if seed % 2 == remainder {
            case(seed);
        }
        return;
    }
    let cases = match std::env::var("SHADOWPART_CASES") {
        Ok(cases) => cases.parse().expect("SHADOWPART_CASES is a number"),
        Err(_) => CASES,
    };
    let mut failures = Vec::new();
    for seed in (1..=cases).filter(|seed| seed % 2 == remainder) {
        if let Err(panic) = std::panic::catch_unwind(|| case(seed)) {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .unwrap_or_else(|| "panic".into());
            failures.push(format!("seed {seed}: {text}"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} cases:\n{}",
        failures.len(),
        failures.join("\n---\n")
    );
}

#[test]
fn even_seeds() {
    cases(0);
}

#[test]
fn odd_seeds() {
    cases(1);
}

/// The control: the same without shadowpart. What fails here is a fault of the generator.
#[test]
fn by_itself() {
    let settings = Settings::default()
        .set("shared_preload_libraries", "")
        .without_extension();
    scenario(settings, |server| {
        for seed in 1..=3 {
            let mut dice = Dice::new(seed);
            let mut session = server.connect()?;
            session.run("DROP SCHEMA IF EXISTS live, twin CASCADE; DROP TYPE IF EXISTS carrier")?;
            let orders = schema::random_orders(&mut dice, &mut session)?;
            let twin = schema::create(&orders, &mut dice, &mut session)?;
            orders.fill(&twin, &mut session, 300)?;
            let mut driver = Driver::new(server, &orders, &twin, dice)?;
            for _ in 0..OPERATIONS {
                driver
                    .operate()
                    .with_context(|| format!("seed {seed}; {}", driver.history()))?;
            }
            driver.end()?;
            twin.assert_same(&mut session)?;
        }
        Ok(())
    });
}

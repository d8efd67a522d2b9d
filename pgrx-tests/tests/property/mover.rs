//! Moves entities about at random moments, beside the driver.

use shadowpart_tests::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// What was done and how often, and how often it was refused.
pub type Moves = BTreeMap<String, u32>;

/// Refusals that are part of the game: the entity lies there already, another job has it, it has no
/// rows, or the statement was cancelled (by the timeout below) while it waited for a writer.
fn part_of_the_game(error: &anyhow::Error) -> bool {
    let Some(code) = sqlstate(error) else {
        return false;
    };
    // 0A000 no room for a second shadow, 22023 invalid parameter, 42704 not in the shadow, 42809 of a whole partition, 42710 duplicate, 55000 not in the state, 55006 in use, 57014 cancelled,
    // 02000 no data, 42P17 invalid definition, 57000 and 57P01 a worker that was terminated.
    [
        "0A000", "22023", "42704", "42809", "42710", "55000", "55006", "57014", "02000", "42P17",
        "57000", "57P01",
    ]
    .contains(&code)
}

/// What the mover likes to do.
#[derive(Clone, Copy, PartialEq)]
pub enum Taste {
    /// A bit of everything.
    Anything,
    /// Mostly to change the entities of a standing shadow.
    Resizing,
}

pub fn move_about(
    server: &Server,
    orders: &Orders,
    seed: u64,
    taste: Taste,
    count: &AtomicU32,
    stop: &AtomicBool,
) -> Result<Moves> {
    let mut dice = Dice::new(seed ^ 0xfeed);
    let mut session = server.connect_with("postgres", "postgres", "-c statement_timeout=15s")?;
    let mut moves = Moves::new();
    while !stop.load(Ordering::Relaxed) {
        let jobs = session.rows(
            "SELECT id, state FROM shadow_status WHERE state IN ('ready', 'migrated') ORDER BY id",
        )?;
        let mut call = None;
        if !jobs.is_empty() && dice.below(4) > 0 {
            let job = dice.pick(&jobs);
            let [Some(id), Some(state)] = job.as_slice() else {
                bail!("{job:?}")
            };
            if state == "ready" && (dice.one_in(2) || taste == Taste::Resizing && !dice.one_in(4)) {
                call = Some(resize(&mut dice, orders, id));
            }
            let verb = match state.as_str() {
                "ready" if dice.one_in(4) => "shadow_drop",
                "ready" => "shadow_swap",
                _ if dice.one_in(3) => "shadow_finalize",
                _ => "shadow_revert",
            };
            call = call.or(Some((verb.to_owned(), format!("{verb}({id})"))));
        } else if jobs.len() < 3 {
            call = if taste == Taste::Resizing && !jobs.is_empty() {
                None
            } else if taste == Taste::Resizing {
                let entity = some_entities(&mut dice, orders);
                let call = format!("shadow_create('live.orders', {entity}, tablespace => 'fast')");
                Some(("shadow_create".to_owned(), call))
            } else {
                new_job(&mut dice, &mut session, orders)?
            };
        }
        if let Some((verb, call)) = call {
            let name = match session.run(&format!("SELECT {call}")) {
                Ok(()) => verb,
                Err(error) if part_of_the_game(&error) => {
                    format!("{verb} refused {}", sqlstate(&error).unwrap_or_default())
                }
                Err(error) => return Err(error.context(call)),
            };
            count.fetch_add(1, Ordering::Relaxed);
            *moves.entry(name).or_default() += 1;
        }
        std::thread::sleep(Duration::from_millis(dice.below(100)));
    }
    Ok(moves)
}

/// An entity or two come to a standing shadow, or leave it; sometimes that is cancelled in the middle.
fn resize(dice: &mut Dice, orders: &Orders, id: &str) -> (String, String) {
    let verb = *dice.pick(&["shadow_add_entities", "shadow_remove_entities"]);
    let entities = some_entities(dice, orders);
    if dice.one_in(5) {
        let call =
            format!("{verb}({id}, {entities}, wait => false), pg_sleep(0.02), shadow_cancel({id})");
        return (format!("{verb} cancelled"), call);
    }
    (verb.to_owned(), format!("{verb}({id}, {entities})"))
}

fn some_entities(dice: &mut Dice, orders: &Orders) -> String {
    let first = dice.below(5) as usize;
    if dice.one_in(3) {
        let second = (first + 1 + dice.below(4) as usize) % 5;
        orders.sql(&format!("ARRAY[{{v{first}}}, {{v{second}}}]::{{type}}[]"))
    } else {
        orders.literal(first)
    }
}

fn new_job(
    dice: &mut Dice,
    session: &mut Session,
    orders: &Orders,
) -> Result<Option<(String, String)>> {
    let target = *dice.pick(&["fast", "faster", "pg_default"]);
    let verb = *dice.pick(&["shadow_create", "shadow_migrate"]);
    if dice.one_in(5) {
        let leaves = session.column(
            "SELECT relid::regclass::text FROM pg_partition_tree('live.orders') WHERE isleaf",
        )?;
        let leaf = dice.pick(&leaves);
        let call = format!("{verb}('{leaf}', \"all\" => true, tablespace => '{target}')");
        return Ok(Some((format!("{verb} all"), call)));
    }
    let entity = some_entities(dice, orders);
    let call = format!("{verb}('live.orders', {entity}, tablespace => '{target}')");
    Ok(Some((verb.to_owned(), call)))
}

/// Brings every job to its end. Both sides of each living pair must agree before.
pub fn settle(session: &mut Session) -> Result<()> {
    session.run("SET statement_timeout = 0")?;
    let ids = session.column(
        "SELECT id FROM shadow_status WHERE state NOT IN ('finalized', 'dropped', 'cancelled', 'failed')",
    )?;
    for id in ids {
        let id: i64 = id.parse()?;
        let state = session.wait_until_settled(id)?;
        if ["ready", "migrated"].contains(&state.as_str()) {
            let different = session.rows(&format!("SELECT * FROM shadow_verify({id})"))?;
            ensure!(different.is_empty(), "job {id}: {different:?}");
        }
        match state.as_str() {
            "ready" => session.drop_shadow(id)?,
            "migrated" => session.finalize(id)?,
            _ => {}
        }
    }
    // Where a type has one reserved value only, whether a second shadow has to share it shows when it joins.
    let failed = session.rows(
        "SELECT id, last_error FROM shadow_status
          WHERE state = 'failed' AND details #>> '{error,sqlstate}' IS DISTINCT FROM '0A000'",
    )?;
    ensure!(failed.is_empty(), "failed jobs: {failed:?}");
    Ok(())
}

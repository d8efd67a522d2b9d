//! One step at a time: each function takes a shadow one action further, in transactions of its own, and
//! records the new state in the last of them.

use super::catalog::{self, record, round, set_phase, set_state};
use super::resize;
use super::worker::check_stop;
use crate::guc;
use crate::pair::bound::Direction;
use crate::pair::copy::{self, Blocks};
use crate::pair::wait::Who;
use crate::pair::{
    self, Pair, Shadow, bound, build, catch_up, hidden, hierarchy, index, swap, trigger, verify,
    wait,
};
use crate::pg::error::{Error, Result};
use crate::pg::latch;
use crate::pg::xact::{self, ms_since, transaction};
use lifecycle::{Action, State};
use pgrx::prelude::*;
use serde_json::json;
use std::time::{Duration, Instant};

/// Whether the job goes on at once.
pub enum Outcome {
    Go,
    /// Not now: the scheduler starts a worker again when it is due.
    #[allow(dead_code)]
    Later,
}

pub fn perform(shadow: &Shadow, action: Action) -> Result<Outcome> {
    match action {
        Action::Begin => {
            enter(shadow, State::Building)?;
            crate::failpoint!("begin");
        }
        Action::Build => build_all(shadow)?,
        Action::Add => resize::add(shadow)?,
        Action::CallOff => resize::call_off(shadow)?,
        Action::Remove => resize::remove(shadow)?,
        Action::Swap => exchange(shadow, Direction::Away)?,
        Action::Revert => exchange(shadow, Direction::Back)?,
        Action::GiveUpWayBack => give_up_way_back(shadow)?,
        Action::RemoveHidden => remove_hidden(shadow)?,
        Action::BeginDrop => enter(shadow, State::Dropping)?,
        Action::Drop => take_away(shadow)?,
        Action::End => enter(shadow, shadow.goal.end())?,
    }
    Ok(Outcome::Go)
}

pub(super) fn enter(shadow: &Shadow, state: State) -> Result<()> {
    transaction(|| {
        set_state(shadow, state)?;
        catalog::announce(shadow.id, state)
    })
}

pub(super) fn phase(shadow: &Shadow, name: &str) -> Result<()> {
    transaction(|| set_phase(shadow.id, name))
}

pub(super) fn pairs(shadow: &Shadow) -> Result<Vec<Pair>> {
    transaction(|| shadow.pairs())
}

/// What a step that took locks has cost others.
pub(super) struct Stall {
    /// From asking for the first lock to the end of the commit, in the attempt that succeeded.
    pub(super) total_ms: f64,
    pub(super) attempts: u32,
}

/// Runs a transaction that takes strong locks, bounded by the shadow's `max_stall`: past it everything is
/// rolled back and tried again, ever less often. Nobody queues behind it for longer than that.
pub(super) fn briefly<T>(
    shadow: &Shadow,
    relations: &[pg_sys::Oid],
    mut work: impl FnMut() -> Result<T>,
) -> Result<(T, Stall)> {
    briefly_after(shadow, relations, || Ok(()), |()| work())
}

/// The same, with something to do before each attempt, without a lock, whose result the attempt gets.
fn briefly_after<P, T>(
    shadow: &Shadow,
    relations: &[pg_sys::Oid],
    mut prepare: impl FnMut() -> Result<P>,
    mut work: impl FnMut(P) -> Result<T>,
) -> Result<(T, Stall)> {
    let limit = stall_limit(shadow);
    let deadline = wait_deadline();
    let mut pause = Duration::from_millis(5);
    let mut attempts = 0;
    loop {
        check_stop(shadow)?;
        let prepared = prepare()?;
        attempts += 1;
        let started = Instant::now();
        let outcome = transaction(|| {
            xact::commit_without_wait();
            xact::arm(limit);
            work(prepared)
        });
        match outcome {
            Ok(value) => {
                let total_ms = ms_since(started);
                if attempts > 1 {
                    transaction(|| catalog::set_waiting(shadow.id, None))?;
                }
                return Ok((value, Stall { total_ms, attempts }));
            }
            Err(error) if error.is_transient() => {
                if deadline.is_some_and(|d| Instant::now() > d) {
                    return Err(error.hint(
                        "Transactions that write to the table leave no gap. Look at shadow_progress for who they \
                         are, raise max_stall, or try again when there is less load.",
                    ));
                }
                report_blockers(shadow, relations, attempts)?;
            }
            Err(error) => return Err(error),
        }
        latch::nap(pause);
        pause = (pause * 2).min(Duration::from_millis(1000));
    }
}

/// How long locks may be waited for and held: `max_stall`, and less than `deadlock_timeout`, so that in a
/// deadlock with a user's transaction it is always this side that gives way.
fn stall_limit(shadow: &Shadow) -> Duration {
    // SAFETY: a plain variable of the server.
    let deadlock_ms = unsafe { pg_sys::DeadlockTimeout };
    Duration::from_millis(i64::from(shadow.max_stall_ms.min(deadlock_ms * 8 / 10).max(1)) as u64)
}

fn report_blockers(shadow: &Shadow, relations: &[pg_sys::Oid], attempts: u32) -> Result<()> {
    transaction(|| {
        // The first time somebody may just have been quick.
        if attempts > 1 {
            wait::cancel_autovacuum(relations)?;
        }
        let blockers = wait::blockers(relations)?;
        catalog::set_waiting(shadow.id, waiting(&blockers))
    })
}

fn waiting(list: &[wait::Older]) -> Option<serde_json::Value> {
    list.first().map(|first| {
        json!({
            "pid": first.pid, "query": first.query, "xact_start": first.xact_start,
            "transaction": first.transaction, "others": list.len() - 1,
        })
    })
}

fn wait_deadline() -> Option<Instant> {
    match guc::WAIT_TIMEOUT_S.get() {
        0 => None,
        s => Some(Instant::now() + Duration::from_secs(s as u64)),
    }
}

/// Waits until every transaction and snapshot older than now is gone.
pub(super) fn wait_for_older(shadow: &Shadow, relations: &[pg_sys::Oid], who: Who) -> Result<f64> {
    phase(shadow, "wait")?;
    let started = Instant::now();
    let deadline = wait_deadline();
    let mut horizon = transaction(|| wait::Horizon::now(relations, shadow, who))?;
    let mut pause = Duration::from_millis(2);
    let mut reported = false;
    while !horizon.list.is_empty() {
        check_stop(shadow)?;
        if started.elapsed() > Duration::from_millis(200) {
            reported = true;
            let seen = waiting(&horizon.list);
            transaction(|| catalog::set_waiting(shadow.id, seen))?;
        }
        if deadline.is_some_and(|d| Instant::now() > d) {
            let first = &horizon.list[0];
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
                "older transactions have not ended in time",
            )
            .detail(format!(
                "Transaction {} of process {} began at {}.",
                first.transaction,
                first
                    .pid
                    .map_or("none (prepared)".to_owned(), |p| p.to_string()),
                first.xact_start.as_deref().unwrap_or("an unknown time")
            ))
            .hint("End it, or raise shadowpart.wait_timeout."));
        }
        latch::nap(pause);
        pause = (pause * 2).min(Duration::from_millis(200));
        transaction(|| horizon.look_again(relations, shadow))?;
    }
    if reported {
        transaction(|| catalog::set_waiting(shadow.id, None))?;
    }
    Ok(ms_since(started))
}

pub(super) fn relations_of(pairs: &[Pair]) -> Vec<pg_sys::Oid> {
    pairs
        .iter()
        .flat_map(|p| [Some(p.primary), p.shadow, p.wrapper])
        .flatten()
        .collect()
}

/// From nothing to a shadow that is equal to its primary in every snapshot.
fn build_all(shadow: &Shadow) -> Result<()> {
    if transaction(|| shadow.stale_reason())?.is_some() {
        start_over(shadow)?;
    }
    for pair in pairs(shadow)? {
        build_pair(shadow, pair)?;
    }
    let all = pairs(shadow)?;
    if !shadow.waited {
        crate::failpoint!("wait-before");
        wait_until_known(shadow, &all)?;
        crate::failpoint!("wait-after");
    }
    if shadow.goal == lifecycle::Goal::Migrated {
        verify_all(shadow, &all)?;
    }
    if transaction(|| shadow.stale_reason())?.is_some() {
        // TRUNCATE came in between: the next round builds it again.
        return Ok(());
    }
    enter(shadow, State::Ready)
}

/// Waits until nobody is left who cannot see what has become of the shadow's rows.
pub(super) fn wait_until_known(shadow: &Shadow, pairs: &[Pair]) -> Result<()> {
    transaction(|| pairs.iter().try_for_each(trigger::certify))?;
    let took = wait_for_older(shadow, &relations_of(pairs), Who::Here)?;
    transaction(|| {
        crate::pg::sql::execute(
            "UPDATE shadowpart.shadow SET waited = true WHERE id = $1",
            &[shadow.id.into()],
        )?;
        record(shadow.id, "wait", took, json!({}))
    })
}

/// Takes away what has been built of a stale shadow; its pairs begin again.
fn start_over(shadow: &Shadow) -> Result<()> {
    for pair in pairs(shadow)? {
        take_pair_away(shadow, &pair)?;
        transaction(|| {
            crate::pg::sql::execute(
                "UPDATE shadowpart.pair SET phase = 'new', shadow_relid = NULL, delta_relid = NULL, reserved = NULL
                  WHERE id = $1",
                &[pair.id.into()],
            )
        })?;
    }
    transaction(|| {
        crate::pg::sql::execute(
            "UPDATE shadowpart.shadow SET waited = false, verified = false WHERE id = $1",
            &[shadow.id.into()],
        )?;
        record(shadow.id, "start-over", 0.0, json!({}))
    })
}

/// Compares all pairs, unless that was done or is not wanted; a difference is an error.
fn verify_all(shadow: &Shadow, pairs: &[Pair]) -> Result<()> {
    if !shadow.verify || shadow.verified {
        return Ok(());
    }
    phase(shadow, "verify")?;
    crate::failpoint!("verify-before");
    let started = Instant::now();
    for pair in pairs {
        let differences = transaction(|| verify::differences(shadow, pair, 5))?;
        if let Some(first) = differences.first() {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                format!("shadow {} differs from its primary", shadow.id),
            )
            .detail(format!(
                "The row with key {} is {}.",
                first.key.0, first.what
            ))
            .hint(
                "Nothing has been swapped. Please report this with the output of shadow_verify().",
            ));
        }
    }
    let took = ms_since(started);
    transaction(|| {
        crate::pg::sql::execute(
            "UPDATE shadowpart.shadow SET verified = true WHERE id = $1",
            &[shadow.id.into()],
        )?;
        record(shadow.id, "verify", took, json!({}))
    })
}

pub(super) fn build_pair(shadow: &Shadow, mut pair: Pair) -> Result<()> {
    loop {
        check_stop(shadow)?;
        match pair.phase.as_str() {
            "new" => {
                phase(shadow, "capture")?;
                crate::failpoint!("capture-before");
                if pair.shadow.is_none() {
                    transaction(|| build::prepare(shadow, &pair))?;
                    pair = reload(shadow, pair.id)?;
                }
                briefly(shadow, &[pair.primary], || build::capture(shadow, &pair))?;
                crate::failpoint!("capture-after");
            }
            "copy" => copy_rows(shadow, &pair)?,
            "index" => build_indexes(shadow, &pair)?,
            "join" => join(shadow, &pair)?,
            "catch-up" => catch_up(shadow, &pair)?,
            "mirror" if pair.delta.is_some() => transaction(|| swap::drop_delta(&pair))?,
            _ => return Ok(()),
        }
        pair = reload(shadow, pair.id)?;
    }
}

pub(super) fn reload(shadow: &Shadow, id: i64) -> Result<Pair> {
    pairs(shadow)?
        .into_iter()
        .find(|p| p.id == id)
        .ok_or_else(|| {
            Error::new(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                format!("pair {id} has disappeared"),
            )
        })
}

/// Naps so that the bytes just moved stay within `shadowpart.copy_rate_limit`.
pub(super) fn throttle(shadow: &Shadow, bytes: i64, took: Duration) -> Result<()> {
    let limit = i64::from(guc::COPY_RATE_LIMIT_KB.get()) * 1024;
    if limit > 0 {
        let due = Duration::from_secs_f64(bytes as f64 / limit as f64);
        let until = Instant::now() + due.saturating_sub(took);
        while Instant::now() < until {
            check_stop(shadow)?;
            latch::nap((until - Instant::now()).min(Duration::from_millis(200)));
        }
    }
    Ok(())
}

pub(super) fn copy_rows(shadow: &Shadow, pair: &Pair) -> Result<()> {
    let growing = pair.is_growing();
    phase(shadow, "copy")?;
    crate::failpoint!("copy-before");
    let started = Instant::now();
    let blocks = transaction(|| copy::blocks_with_members(shadow, pair.primary))?;
    let mut pair = pair.clone();
    let (mut rows, mut bytes) = (0, 0);
    let mut company = copy::Company::default();
    loop {
        check_stop(shadow)?;
        super::launcher::reload_if_asked();
        let among_others = company.look();
        let chunk_started = Instant::now();
        let chunk = transaction(|| {
            if growing {
                pair::resize::chunk(shadow, &pair, &blocks, among_others)
            } else {
                copy::chunk(shadow, &pair, &blocks, among_others)
            }
        })?;
        rows += chunk.rows;
        bytes += chunk.bytes;
        pair.blocks_done = chunk.next_block;
        if growing {
            crate::failpoint!("add-chunk");
        } else {
            crate::failpoint!("copy-chunk");
        }
        if among_others {
            // Half of the time is theirs.
            let most = if growing { 200 } else { 20 };
            latch::nap(chunk_started.elapsed().min(Duration::from_millis(most)));
        }
        throttle(shadow, chunk.bytes, chunk_started.elapsed())?;
        if chunk.done {
            break;
        }
    }
    crate::failpoint!("copy-after");
    let took = ms_since(started);
    transaction(|| {
        pair.enter(if growing { "add-catch-up" } else { "index" })?;
        record(
            shadow.id,
            "copy",
            took,
            json!({"rows": rows, "bytes": bytes}),
        )
    })
}

fn build_indexes(shadow: &Shadow, pair: &Pair) -> Result<()> {
    phase(shadow, "index")?;
    crate::failpoint!("index-before");
    let started = Instant::now();
    let mut company = copy::Company::default();
    company.look();
    transaction(|| index::remove_captured(pair))?;
    let mut count = 0;
    loop {
        let among_others = company.look();
        if !transaction(|| index::build_next(shadow, pair, among_others))? {
            break;
        }
        check_stop(shadow)?;
        count += 1;
        crate::failpoint!("index-each");
    }
    transaction(|| index::analyze(pair))?;
    briefly(shadow, &[pair.primary], || {
        index::finish(pair)?;
        pair.enter("join")
    })?;
    crate::failpoint!("index-after");
    let took = ms_since(started);
    transaction(|| record(shadow.id, "index", took, json!({"indexes": count})))
}

/// Under the wrapper, with a bound that owns nothing yet.
fn join(shadow: &Shadow, pair: &Pair) -> Result<()> {
    let mut pair = pair.clone();
    if pair.wrapper.is_none() {
        let parent = transaction(|| hierarchy::parent_of(pair.primary))?;
        let usable = match parent {
            Some(parent) => transaction(|| hierarchy::is_wrapper(parent, &shadow.entity_column))?,
            None => false,
        };
        if usable {
            pair.wrapper = parent;
        } else {
            phase(shadow, "wrap")?;
            crate::failpoint!("wrap-before");
            let relations: Vec<_> = [Some(pair.primary), parent].into_iter().flatten().collect();
            let (wrapped, stall) = briefly(shadow, &relations, || {
                let mut pair = pair.clone();
                hierarchy::wrap(shadow, &mut pair)?;
                crate::pg::sql::execute(
                    "UPDATE shadowpart.pair SET wrapper_relid = $2, wrapped = true WHERE id = $1",
                    &[pair.id.into(), pair.wrapper.into()],
                )?;
                Ok(pair)
            })?;
            pair = wrapped;
            crate::failpoint!("wrap-after");
            transaction(|| {
                record(
                    shadow.id,
                    "wrap",
                    stall.total_ms,
                    json!({"attempts": stall.attempts}),
                )
            })?;
        }
    }
    phase(shadow, "join")?;
    crate::failpoint!("join-before");
    let relations = relations_of(std::slice::from_ref(&pair));
    let (_, stall) = briefly(shadow, &relations, || {
        hierarchy::join(shadow, &mut pair.clone())?;
        pair.enter("catch-up")
    })?;
    crate::failpoint!("join-after");
    transaction(|| {
        record(
            shadow.id,
            "join",
            stall.total_ms,
            json!({"attempts": stall.attempts}),
        )
    })
}

/// Fewest keys that are levelled while writers are held off.
const LAST_KEYS: usize = 100;

/// Brings the shadow level with the primary, and begins to mirror.
///
/// Rounds without a lock come first, each levelling what was captured during the one before it, until what
/// is left can be levelled in a tenth of `max_stall` at the speed measured so far.
pub(super) fn catch_up(shadow: &Shadow, pair: &Pair) -> Result<()> {
    phase(shadow, "catch-up")?;
    let started = Instant::now();
    let deadline = wait_deadline();
    let relations = relations_of(std::slice::from_ref(pair));
    let mut keys = 0;
    let mut limit = LAST_KEYS;
    let mut rounds = || loop {
        check_stop(shadow)?;
        let round_started = Instant::now();
        let count = transaction(|| {
            xact::commit_without_wait();
            catch_up::batch(shadow, pair, catch_up::BATCH)
        })?;
        keys += count;
        if pair.is_growing() {
            crate::failpoint!("add-catch-up");
        } else {
            crate::failpoint!("catch-up-batch");
        }
        if count >= LAST_KEYS {
            let per_key = round_started.elapsed().as_secs_f64() / count as f64;
            let budget = f64::from(shadow.max_stall_ms.max(1)) / 10_000.0;
            limit = LAST_KEYS.max((budget / per_key) as usize);
        }
        if count < limit {
            return Ok(limit);
        }
        if deadline.is_some_and(|d| Instant::now() > d) {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
                "the shadow cannot keep up with the writes to its entities",
            )
            .detail(format!(
                "{keys} changes have been applied, and as many come in."
            ))
            .hint("Try again when there is less load, or raise shadowpart.wait_timeout."));
        }
    };
    crate::failpoint!("mirror-before");
    let stall = loop {
        let (mirrored, stall) = briefly_after(shadow, &relations, &mut rounds, |limit| {
            swap::begin_mirror(shadow, pair, limit)
        })?;
        if mirrored {
            break stall;
        }
    };
    crate::failpoint!("mirror-after");
    let took = ms_since(started);
    transaction(|| {
        record(shadow.id, "catch-up", took, json!({"keys": keys}))?;
        record(
            shadow.id,
            "mirror",
            stall.total_ms,
            json!({"attempts": stall.attempts}),
        )
    })
}

/// The swap, away or back.
fn exchange(shadow: &Shadow, direction: Direction) -> Result<()> {
    let all = pairs(shadow)?;
    let away = direction == Direction::Away;
    if away {
        if transaction(|| shadow.stale_reason())?.is_some() {
            return enter(shadow, State::Building);
        }
        verify_all(shadow, &all)?;
    }
    let name = if away { "swap" } else { "revert" };
    phase(shadow, name)?;
    crate::failpoint!("swap-before");
    let relations = relations_of(&all);
    let state = if away { State::Migrated } else { State::Ready };
    let (timing, stall) = briefly(shadow, &relations, || {
        let timing = swap::swap(shadow, &all, direction)?;
        set_state(shadow, state)?;
        crate::pg::sql::execute(
            "UPDATE shadowpart.shadow SET reverted = NOT $2, revert_until = CASE
                    WHEN NOT $2 THEN NULL
                    WHEN revert_window_s < 0 THEN 'infinity'
                    ELSE clock_timestamp() + revert_window_s * interval '1 s' END
              WHERE id = $1",
            &[shadow.id.into(), away.into()],
        )?;
        Ok(timing)
    })?;
    crate::failpoint!("swap-after");
    let lock_wait_ms = (timing.granted - timing.asked).as_secs_f64() * 1000.0;
    transaction(|| {
        record(
            shadow.id,
            name,
            stall.total_ms,
            json!({
                "lock_wait_ms": round(lock_wait_ms),
                "held_ms": round(stall.total_ms - lock_wait_ms),
                "attempts": stall.attempts,
                "pairs": all.len(),
            }),
        )?;
        catalog::announce(shadow.id, state)
    })
}

/// Stops the reverse mirror, once nobody is left who planned before the swap.
fn give_up_way_back(shadow: &Shadow) -> Result<()> {
    let all = pairs(shadow)?;
    let relations = relations_of(&all);
    wait_for_older(shadow, &relations, Who::Everywhere)?;
    phase(shadow, "finalize")?;
    let (_, stall) = briefly(shadow, &relations, || {
        swap::give_up_way_back(&all)?;
        crate::pg::sql::execute(
            "UPDATE shadowpart.shadow SET revert_until = NULL WHERE id = $1",
            &[shadow.id.into()],
        )?;
        set_state(shadow, State::Finalizing)
    })?;
    crate::failpoint!("finalize-after");
    transaction(|| {
        record(
            shadow.id,
            "finalize",
            stall.total_ms,
            json!({"attempts": stall.attempts}),
        )?;
        catalog::announce(shadow.id, State::Finalizing)
    })
}

fn remove_hidden(shadow: &Shadow) -> Result<()> {
    let started = Instant::now();
    let (mut rows, mut retired) = (0, 0);
    for pair in pairs(shadow)? {
        // Whoever died here may have been past it already; a primary that was retired is gone.
        if pair.phase == "done" || pair.phase == "retired" {
            continue;
        }
        let needed = transaction(|| bound::is_needed(&pair, pair.primary))?;
        if needed {
            phase(shadow, "hidden-rows")?;
            rows += remove_rows(shadow, &pair, pair.primary)?;
            crate::failpoint!("hidden-after");
        }
        let relations = relations_of(std::slice::from_ref(&pair));
        wait_for_older(shadow, &relations, Who::Everywhere)?;
        crate::failpoint!("retire-before");
        phase(shadow, "retire")?;
        briefly(shadow, &relations, || {
            if !needed {
                // The stronger lock first: what follows takes a weaker one on it.
                swap::lock(pair.wrapper()?, pg_sys::AccessExclusiveLock)?;
            }
            hidden::unmark(&pair)?;
            if !needed {
                hierarchy::retire_primary(&pair)?;
            }
            pair.enter(if needed { "done" } else { "retired" })
        })?;
        crate::failpoint!("retire-after");
        if !needed {
            crate::failpoint!("retire-dropped");
        }
        retired += i64::from(!needed);
    }
    unwrap_all(shadow, pairs(shadow)?)?;
    transaction(|| {
        record(
            shadow.id,
            "hidden-rows",
            ms_since(started),
            json!({"rows": rows, "partitions_dropped": retired}),
        )
    })?;
    enter(shadow, State::Finalized)
}

/// Removes the rows of the shadow's entities from one side of a pair, in batches.
pub(super) fn remove_rows(shadow: &Shadow, pair: &Pair, from: pg_sys::Oid) -> Result<i64> {
    let blocks = match &shadow.entities {
        Some(_) => transaction(|| copy::blocks_with_members(shadow, from))?,
        None => Blocks::All,
    };
    let mut pair = pair.clone();
    let mut rows = 0;
    loop {
        super::launcher::reload_if_asked();
        let started = Instant::now();
        let chunk = transaction(|| hidden::remove_batch(shadow, &pair, from, &blocks))?;
        rows += chunk.rows;
        pair.blocks_done = chunk.next_block;
        if pair.is_shrinking() {
            crate::failpoint!("remove-batch");
        } else {
            crate::failpoint!("hidden-batch");
        }
        throttle(shadow, chunk.bytes, started.elapsed())?;
        if chunk.done {
            break;
        }
    }
    Ok(rows)
}

/// Wrappers of ours in which one partition is left go; the partition takes their place.
pub(super) fn unwrap_all(shadow: &Shadow, pairs: Vec<Pair>) -> Result<()> {
    for pair in pairs.into_iter().filter(|p| p.wrapped) {
        let Some(wrapper) = pair.wrapper else {
            continue;
        };
        phase(shadow, "unwrap")?;
        crate::failpoint!("unwrap-before");
        let alone = transaction(|| {
            crate::pg::sql::value::<bool>(
                "SELECT count(*) = 1 FROM pg_catalog.pg_inherits WHERE inhparent = $1",
                &[wrapper.into()],
            )
        })?;
        if alone == Some(true) {
            let parent = transaction(|| hierarchy::parent_of(wrapper))?;
            let relations: Vec<_> = [Some(wrapper), parent].into_iter().flatten().collect();
            briefly(shadow, &relations, || hierarchy::unwrap(wrapper))?;
        }
        crate::failpoint!("unwrap-after");
    }
    Ok(())
}

/// Takes the shadow away; the primary is as it was.
fn take_away(shadow: &Shadow) -> Result<()> {
    crate::failpoint!("drop-before");
    for pair in pairs(shadow)? {
        take_pair_away(shadow, &pair)?;
    }
    unwrap_all(shadow, pairs(shadow)?)?;
    crate::failpoint!("drop-after");
    enter(shadow, shadow.goal.end())
}

pub(super) fn take_pair_away(shadow: &Shadow, pair: &Pair) -> Result<()> {
    if pair.phase != "gone" {
        phase(shadow, "drop")?;
        let relations = relations_of(std::slice::from_ref(pair));
        briefly(shadow, &relations, || {
            if let Some(relid) = pair.shadow
                && let Some(parent) = hierarchy::parent_of(relid)?
            {
                swap::lock(parent, pg_sys::AccessExclusiveLock)?;
            }
            hidden::unmark(pair)?;
            hierarchy::leave(pair)?;
            swap::drop_delta(pair)?;
            crate::pg::sql::execute(
                "DELETE FROM shadowpart.stale WHERE pair_id = $1",
                &[pair.id.into()],
            )?;
            pair.enter("gone")
        })?;
    }
    Ok(())
}

//! The process that predicts and decides: one for each database with managed tables.
//!
//! It keeps the recent past of all series in its memory, takes new slots as the history brings them, and
//! every `shadowpart.predict_interval` forecasts, judges what it forecast before, and decides. Each of these
//! is a small transaction of its own. What it has learned is saved; after a restart it replays the history.

use super::memory::{self, Memory};
use super::{decide, forecasts, policy, resource, series};
use crate::guc;
use crate::job::{launcher, shared};
use crate::pg::error::{Error, Result};
use crate::pg::{latch, xact};
use crate::record;
use ::autopilot::resource::Resource;
use ::load::history::Level;
use pgrx::prelude::*;
use predict::Predictor;
use serde_json::json;
use std::collections::HashMap;
use std::time::Duration;

/// No transaction is open for longer.
const STEP_LIMIT: Duration = Duration::from_secs(10);
/// Days of the past that a predictor without memory learns from.
const REPLAY_DAYS: i64 = 14;
/// Slots that are read from the history at a time.
const CHUNK: i64 = 24;
/// Between two looks at what is new.
const PAUSE: Duration = Duration::from_secs(5);

#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn shadowpart_autopilot(database: pg_sys::Datum) {
    launcher::be_interruptible();
    // SAFETY: connects as the bootstrap superuser, as the argument allows.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(
            (database.value() as u32).into(),
            pg_sys::InvalidOid,
            0,
        )
    };
    shared::release_at_exit();
    if !shared::become_autopilot() {
        return;
    }
    launcher::harden(c"shadowpart autopilot", c"100ms");
    crate::load::ignore_this_process();
    Pilot::new().run();
    shared::release();
}

/// A step of the worker: a transaction of bounded length.
pub fn step<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    xact::transaction(|| {
        xact::arm(STEP_LIMIT);
        work()
    })
}

struct Pilot {
    memory: Memory,
    /// The replay of the past is over.
    ready: bool,
    /// When it is time to predict again, in microseconds since 2000.
    predict_us: i64,
    /// The slot that the newest forecasts were made after.
    predicted: Option<i64>,
    decider: decide::Decider,
    told: Option<String>,
}

impl Pilot {
    fn new() -> Pilot {
        Pilot {
            memory: Memory::new(Predictor::new(memory::config())),
            ready: false,
            predict_us: i64::MIN,
            predicted: None,
            decider: decide::Decider::default(),
            told: None,
        }
    }

    fn run(&mut self) {
        loop {
            if launcher::reload_if_asked() {
                // It may have been switched off.
                self.decider.hurry();
            }
            if guc::PREDICT_INTERVAL_MS.get() == 0 || shared::leaves() {
                return;
            }
            match self.work() {
                Ok(true) => self.told = None,
                Ok(false) => return,
                Err(error) => self.tell(&error),
            }
            latch::nap(self.rest());
        }
    }

    fn tell(&mut self, error: &Error) {
        if !error.is_transient() && self.told.as_ref() != Some(&error.message) {
            log!("shadowpart autopilot: {error} [{}]", error.sqlstate);
            self.told = Some(error.message.clone());
        }
    }

    /// How long nothing is due: a slot may end, or somebody may set the latch.
    fn rest(&self) -> Duration {
        let step_us = self
            .memory
            .step_us()
            .min(i64::from(guc::PREDICT_INTERVAL_MS.get()) * 1000);
        PAUSE.min(Duration::from_micros(
            (step_us / 4).max(20_000).unsigned_abs(),
        ))
    }

    /// Does what is due. False: there is nothing to watch.
    fn work(&mut self) -> Result<bool> {
        let wanted = step(|| Ok(super::is_installed()? && record::is_wanted()?))?;
        if !wanted {
            return Ok(false);
        }
        if *self.memory.predictor.config() != memory::config() {
            // Another grid: what was learned on the old one is of no use.
            self.memory = Memory::new(Predictor::new(memory::config()));
            self.ready = false;
        }
        if !self.ready {
            self.recall()?;
        }
        self.advance()?;
        let now_us = record::now_us();
        self.predict_us = self
            .predict_us
            .min(now_us + i64::from(guc::PREDICT_INTERVAL_MS.get()) * 1000);
        if now_us >= self.predict_us {
            self.predict_us = now_us + i64::from(guc::PREDICT_INTERVAL_MS.get()) * 1000;
            self.predict()?;
        }
        self.decider.work(&self.memory)?;
        Ok(true)
    }

    /// What was learned before this process began, if it can still be used.
    fn recall(&mut self) -> Result<()> {
        let saved = step(forecasts::saved_model)?;
        let config = memory::config();
        let restored = saved.and_then(|bytes| match Predictor::restore(&bytes, config) {
            Ok(predictor) => Some(predictor),
            Err(error) => {
                log!("shadowpart autopilot: {error}; it learns from the history again");
                None
            }
        });
        let days = if restored.is_some() { 8 } else { REPLAY_DAYS };
        let predictor = restored.unwrap_or_else(|| Predictor::new(config));
        self.memory = Memory::new(predictor);
        let calendar = self.memory.predictor.config().calendar;
        let now = calendar.slot(record::now_us());
        self.memory.next = Some(now - days * i64::from(calendar.slots_per_day()));
        self.predicted = None;
        self.ready = true;
        Ok(())
    }

    /// Takes the slots that are complete by now.
    fn advance(&mut self) -> Result<()> {
        let calendar = self.memory.predictor.config().calendar;
        let step_us = calendar.step_us();
        // The row that covers the end of a slot is written a little later.
        let late_us = 2 * i64::from(guc::HISTORY_INTERVAL_MS.get()) * 1000;
        let now_us = record::now_us();
        let (coarse_us, fine_us) = step(|| {
            Ok((
                series::newest_us(series::level_of(step_us))?,
                series::newest_us(Level::Minute)?,
            ))
        })?;
        // A slot is over when rows behind its end are there, or should be.
        let over = |slot: i64| {
            let end_us = calendar.start_us(slot + 1);
            fine_us.is_some_and(|newest| newest >= end_us) || now_us >= end_us + late_us
        };
        let coarse = coarse_us.map_or(i64::MIN, |newest| calendar.slot(newest));
        while let Some(first) = self.memory.next.filter(|slot| over(*slot)) {
            let mut last = first;
            while last + 1 < first + CHUNK && over(last + 1) {
                last += 1;
            }
            let mut level = series::level_of(step_us);
            if first > coarse {
                level = Level::Minute;
            } else {
                last = last.min(coarse);
            }
            let slots = step(|| series::read(step_us, level, first, last))?;
            for slot in first..=last {
                if self.memory.push(slot, slots.get(&slot)) {
                    self.retrain()?;
                }
            }
            latch::check_interrupts();
        }
        Ok(())
    }

    fn retrain(&mut self) -> Result<()> {
        exclude_changed(&mut self.memory)?;
        self.refresh_units()?;
        let verdict = self.memory.predictor.retrain();
        self.save(&verdict)
    }

    fn save(&mut self, verdict: &predict::Decision) -> Result<()> {
        match self.memory.predictor.save() {
            Ok(state) => step(|| {
                let details = json!({
                    "trigger": verdict.trigger,
                    "entities": verdict.entities,
                    "bytes": state.len(),
                });
                forecasts::save_model(state, details)
            }),
            Err(error) => {
                log!("shadowpart autopilot: {error}");
                Ok(())
            }
        }
    }

    /// Tells the predictor what units can take and who their load comes from.
    fn refresh_units(&mut self) -> Result<()> {
        let given = step(policy::all)?;
        let nothing = policy::Given::new();
        let of = |oid: u32| given.get(&oid).unwrap_or(&nothing);
        let mut members: HashMap<u32, Vec<u64>> = HashMap::new();
        for (id, entity) in &self.memory.entities {
            members.entry(entity.partition).or_default().push(*id);
        }
        for (oid, partition) in &self.memory.partitions {
            let settings = policy::Settings::merged(&[of(*oid), of(partition.relation)]);
            let mut ids = members.remove(oid).unwrap_or_default();
            ids.sort_unstable();
            for (kind, resource) in (1..).zip(resource::FLOWS) {
                let unit = series::unit_id(*oid, resource);
                let capacity = *settings.capacity.get(resource);
                // Shares are shares of rows; those of other resources are not followed.
                let ids = if resource == Resource::WriteRows {
                    ids.as_slice()
                } else {
                    &[]
                };
                self.memory.predictor.set_unit(unit, capacity, ids);
                self.memory.predictor.set_kind(unit, kind);
            }
        }
        Ok(())
    }

    fn predict(&mut self) -> Result<()> {
        self.refresh_units()?;
        exclude_changed(&mut self.memory)?;
        let Some(newest) = self.memory.predictor.newest() else {
            return Ok(());
        };
        step(|| forecasts::judge(&self.memory))?;
        if self.predicted != Some(newest) {
            let units = self.memory.predictor.forecast_units();
            let mut ids: Vec<u64> = self.memory.entities.keys().copied().collect();
            ids.sort_unstable();
            let entities = self.memory.predictor.forecast_entities(&ids);
            let mut rows = forecasts::rows(&self.memory, &units, &entities);
            rows.extend(step(|| forecasts::sizes(&self.memory))?);
            let at_us = self.memory.predictor.config().calendar.start_us(newest + 1);
            step(|| forecasts::store(at_us, &rows))?;
            self.predicted = Some(newest);
            self.decider.predicted(&self.memory, rows, entities);
        }
        step(|| forecasts::retire(record::now_us()))?;
        // SAFETY: outside any transaction; without it autovacuum never hears of what is written here.
        unsafe {
            pg_sys::pgstat_report_stat(true);
        }
        Ok(())
    }
}

/// What our own shadows changed is no lesson.
fn exclude_changed(memory: &mut Memory) -> Result<()> {
    let day_us = i64::from(guc::DAY_LENGTH_MS.get()) * 1000;
    let reach = ::autopilot::training::Reach {
        horizon_us: forecasts::horizon_ms(memory.predictor.config().trigger_minutes) * 1000,
        settle_us: day_us,
    };
    let events = step(|| super::seen::changes(record::now_us() - REPLAY_DAYS * day_us))?;
    for window in ::autopilot::training::excluded_windows(&events, reach) {
        let Ok(partition) = window.unit.parse::<u32>() else {
            continue;
        };
        for resource in resource::FLOWS {
            let window = (
                series::unit_id(partition, resource),
                window.from_us,
                window.to_us,
            );
            if memory.excluded.insert(window) {
                memory.predictor.exclude(window.0, window.1, window.2);
            }
        }
    }
    Ok(())
}

//! The onlooker: reads the extension's views, says in plain words what happens, and collects it for the picture.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use postgres::Client;

use super::clients::Meter;
use super::regions::ALL;
use super::timetable::{DAY_US, HOT, SLOT_US, Timetable, weekday};
use crate::clock::Clock;
use crate::interrupt::Interrupt;

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A forecast of a partition, as it was made.
pub struct Forecast {
    pub at_us: u64,
    pub partition: String,
    pub forecast: f64,
    pub low: f64,
    pub high: f64,
}

/// What the autopilot carried out.
pub struct Decision {
    pub at_us: u64,
    pub partition: String,
    pub trigger: String,
    pub confidence: f64,
}

pub struct Swap {
    pub id: i64,
    pub at_us: u64,
    pub entities: Vec<String>,
    pub rows: i64,
    pub stall_ms: f64,
    pub lock_wait_ms: Option<f64>,
}

/// All that was seen.
#[derive(Default)]
pub struct Seen {
    pub forecasts: Vec<Forecast>,
    pub decisions: Vec<Decision>,
    /// When a shadow stood ready.
    pub ready_us: Option<u64>,
    /// In order of time: entities that have most of a load get shadows of their own.
    pub swaps: Vec<Swap>,
    /// When it was trusted with more than advice.
    pub trusted_us: Option<u64>,
}

impl Seen {
    /// Everybody who was moved, the first first.
    pub fn moved(&self) -> Vec<String> {
        self.swaps
            .iter()
            .flat_map(|swap| swap.entities.iter().cloned())
            .collect()
    }
}

pub struct Observer<'a> {
    clock: Clock,
    table: &'a Timetable,
    begin_us: u64,
    meter: Arc<Meter>,
    /// Decisions told, with the outcome that was told.
    told: BTreeMap<i64, Option<String>>,
    events: i64,
    /// The newest forecast that was looked at, seconds since 1970.
    newest: f64,
    stage: String,
    /// The highest load of each partition since the last line.
    peaks: BTreeMap<String, f64>,
    day: u64,
    /// The partition was full today.
    full: bool,
    trusted_us: Option<u64>,
}

impl<'a> Observer<'a> {
    pub fn new(clock: Clock, table: &'a Timetable, begin_us: u64, meter: Arc<Meter>) -> Self {
        Self {
            clock,
            table,
            begin_us,
            meter,
            told: BTreeMap::new(),
            events: 0,
            newest: 0.0,
            stage: String::new(),
            peaks: BTreeMap::new(),
            day: 0,
            full: false,
            trusted_us: None,
        }
    }

    fn hot(&self) -> &'static str {
        ALL[self.table.hot_region].partition
    }

    /// The day and the hour of the replay.
    fn when(&self, at_us: u64) -> String {
        let passed = at_us.saturating_sub(self.begin_us);
        let (day, of_day) = (passed / DAY_US, passed % DAY_US);
        let minute = of_day * 1440 / DAY_US;
        format!(
            "day {} ({}) {:02}:{:02}",
            day + 1,
            weekday(day),
            minute / 60,
            minute % 60
        )
    }

    /// Until the clients have written everything.
    pub fn watch(&mut self, client: &mut Client, interrupt: &Interrupt) -> Result<()> {
        while !self.meter.all_done() {
            interrupt.sleep(LOOK_EVERY)?;
            self.forecasts(client)?;
            self.decisions(client)?;
            self.events(client)?;
            let day = self.clock.now_us().saturating_sub(self.begin_us) / DAY_US;
            if day > self.day {
                self.end_of_day();
                self.day = day;
                self.trust(client)?;
            }
        }
        Ok(())
    }

    /// In the night after the first saturation it may do what it has only advised so far: what it has never
    /// seen it cannot foresee, and this it has seen.
    fn trust(&mut self, client: &mut Client) -> Result<()> {
        if !self.full || self.trusted_us.is_some() {
            return Ok(());
        }
        let call = "SELECT shadow_set_policy('flights', autopilot => 'migrate')";
        client.batch_execute(call)?;
        self.trusted_us = Some(self.clock.now_us());
        self.clock.say(&format!(
            ">>>    {} was full today for the first time, and no model could know. Now one does: {call}",
            self.hot()
        ));
        Ok(())
    }

    fn end_of_day(&mut self) {
        let rows = self.meter.rows.swap(0, Ordering::Relaxed);
        let largest_us = self.meter.largest_us.swap(0, Ordering::Relaxed);
        let day = self.day;
        let mut text = format!(
            "day {:2} {} {rows:6} rows; busiest hour, % of capacity:",
            day + 1,
            weekday(day)
        );
        for (partition, peak) in std::mem::take(&mut self.peaks) {
            // A shadow that is gone has a number only.
            let Some(name) = partition.strip_prefix("flights_") else {
                continue;
            };
            text += &format!(" {name} {:.0}", peak / self.table.capacity * 100.0);
        }
        text += &format!("; slowest transaction {:.0} ms", largest_us as f64 / 1e3);
        if day < self.table.days() {
            self.clock.say(&text);
        }
        let growth = self.table.growth(day + 1);
        if growth > self.table.growth(day) {
            self.clock.say(&format!(
                "       MADE UP: a second airline adds {growth:.1} flights to each one to {HOT}"
            ));
        }
    }

    /// The newest forecasts: the load of each partition, and which model it goes by.
    fn forecasts(&mut self, client: &mut Client) -> Result<()> {
        let rows = client.query(
            "SELECT extract(epoch FROM at)::float8, partition::text, load::float8, stage
               FROM shadow_predictions
              WHERE entity IS NULL AND resource = 'write_rows_s' AND at > to_timestamp($1) ORDER BY at",
            &[&self.newest],
        )?;
        for row in rows {
            self.newest = row.get(0);
            let partition: String = row.get(1);
            let load: f64 = row.get::<_, Option<f64>>(2).unwrap_or(0.0);
            let stage: String = row.get(3);
            if partition == self.hot() && stage != self.stage {
                let text = match stage.as_str() {
                    "reactive" => "the worker watches; there is no model yet, it only reacts",
                    "linear" => {
                        "the worker has seen a day: a linear model of all partitions predicts"
                    }
                    "forest" => "the worker has seen a week: trees join the linear model",
                    other => other,
                };
                self.clock.say(&format!("       {text}"));
                self.stage = stage;
            }
            // One hour may be an accident of a busy machine.
            let calm = self.clock.now_us() < self.begin_us + self.table.hot_from_day * DAY_US;
            self.full |= partition == self.hot() && load >= self.table.capacity && !calm;
            let peak = self.peaks.entry(partition).or_default();
            *peak = peak.max(load);
        }
        Ok(())
    }

    /// What the autopilot does, in its own words.
    fn decisions(&mut self, client: &mut Client) -> Result<()> {
        let rows = client.query(
            "SELECT id, partition::text, action, coalesce(array_to_string(entities, ', '), ''),
                    confidence::float8, message, outcome, extract(epoch FROM at)::float8
               FROM shadow_decisions WHERE executed ORDER BY id",
            &[],
        )?;
        for row in rows {
            let id: i64 = row.get(0);
            let outcome: Option<String> = row.get(6);
            let known = self.told.get(&id);
            if known.is_some_and(|known| *known == outcome) {
                continue;
            }
            let (partition, action): (Option<String>, String) = (row.get(1), row.get(2));
            let entities: String = row.get(3);
            if known.is_none() {
                if action == "create_shadow" {
                    self.announcement(client, partition.as_deref().unwrap_or_default())?;
                }
                let at = self.when(self.clock.at_epoch_us(row.get(7)));
                self.clock.say(&format!(
                    ">>>    {at}: autopilot on {}: {action} {entities}: {}",
                    partition.unwrap_or_default(),
                    row.get::<_, String>(5)
                ));
            }
            if let Some(outcome) = &outcome
                && outcome != "started"
            {
                self.clock
                    .say(&format!("       {action} {entities}: {outcome}"));
            }
            self.told.insert(id, outcome);
        }
        Ok(())
    }

    /// What the worker foresees of a partition.
    fn announcement(&self, client: &mut Client, partition: &str) -> Result<()> {
        let row = client.query_opt(
            "SELECT load::float8, forecast::float8, low::float8, high::float8, capacity::float8,
                    probability::float8, extract(epoch FROM horizon)::float8, drivers -> 'features' -> 0 ->> 0
               FROM shadow_predict('flights')
              WHERE entity IS NULL AND resource = 'write_rows_s' AND partition = $1::text::regclass",
            &[&partition],
        )?;
        if let Some(row) = row {
            let number = |column: usize| row.get::<_, Option<f64>>(column).unwrap_or(0.0);
            let driver: Option<String> = row.get(7);
            self.clock.say(&format!(
                ">>>    SELECT * FROM shadow_predict('flights'): {partition} writes {:.0} rows/s now, and within {:.1} s \
                 {:.0} ({:.0} to {:.0}) of {:.0} that it bears; probability {:.2}{}",
                number(0),
                number(6),
                number(1),
                number(2),
                number(3),
                number(4),
                number(5),
                driver.map_or(String::new(), |name| format!("; most of all because of: {name}"))
            ));
        }
        Ok(())
    }

    /// Steps of shadows under way.
    fn events(&mut self, client: &mut Client) -> Result<()> {
        let rows = client.query(
            "SELECT event, took_ms FROM shadow_history ORDER BY at, event OFFSET $1",
            &[&self.events],
        )?;
        for row in rows {
            self.events += 1;
            let took_ms: Option<f64> = row.get(1);
            let took = took_ms.map_or(String::new(), |ms| format!(", {ms:.1} ms"));
            self.clock.say(&format!(
                "         shadow: {}{took}",
                row.get::<_, String>(0)
            ));
        }
        Ok(())
    }

    /// Everything again, for the picture.
    pub fn finish(self, client: &mut Client) -> Result<Seen> {
        let at = |epoch: f64| self.clock.at_epoch_us(epoch);
        let mut seen = Seen {
            trusted_us: self.trusted_us,
            ..Seen::default()
        };
        for row in client.query(
            "SELECT extract(epoch FROM at)::float8, partition::text, forecast::float8, low::float8, high::float8
               FROM shadow_predictions
              WHERE entity IS NULL AND resource = 'write_rows_s' ORDER BY at",
            &[],
        )? {
            let number = |column: usize| row.get::<_, Option<f64>>(column).unwrap_or(0.0);
            seen.forecasts.push(Forecast {
                at_us: at(row.get(0)),
                partition: row.get(1),
                forecast: number(2),
                low: number(3),
                high: number(4),
            });
        }
        for row in client.query(
            "SELECT extract(epoch FROM at)::float8, partition::text, trigger, confidence::float8
               FROM shadow_decisions WHERE executed ORDER BY id",
            &[],
        )? {
            seen.decisions.push(Decision {
                at_us: at(row.get(0)),
                partition: row.get::<_, Option<String>>(1).unwrap_or_default(),
                trigger: row.get::<_, Option<String>>(2).unwrap_or_default(),
                confidence: row.get::<_, Option<f64>>(3).unwrap_or(0.0),
            });
        }
        for row in client.query(
            "SELECT h.id, extract(epoch FROM h.at)::float8, h.took_ms, (h.details ->> 'lock_wait_ms')::float8,
                    s.entities, s.rows,
                    (SELECT extract(epoch FROM max(w.at))::float8 FROM shadow_history w
                      WHERE w.id = h.id AND w.event = 'wait' AND w.at <= h.at)
               FROM shadow_history h JOIN shadow_status s ON s.id = h.id
              WHERE h.event = 'swap' ORDER BY h.at",
            &[],
        )? {
            seen.ready_us = seen.ready_us.or(row.get::<_, Option<f64>>(6).map(at));
            seen.swaps.push(Swap {
                id: row.get(0),
                at_us: at(row.get(1)),
                stall_ms: row.get(2),
                lock_wait_ms: row.get(3),
                entities: row.get::<_, Option<Vec<String>>>(4).unwrap_or_default(),
                rows: row.get::<_, Option<i64>>(5).unwrap_or(0),
            });
        }
        Ok(seen)
    }
}

/// Slots as the extension counts them, from the begin of the replay.
pub fn slot_end_us(begin_us: u64, slot: usize) -> u64 {
    begin_us + (slot as u64 + 1) * SLOT_US
}

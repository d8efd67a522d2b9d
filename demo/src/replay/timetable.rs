//! When each flight of the year is written, on a clock that runs much faster.
//!
//! The 52 weeks of 2013 lie on top of each other: each day of the replay carries the flights of the same
//! weekday of several weeks in a row. So every flight of the year is written once, and the rhythm of day and
//! week is theirs.

use anyhow::{Context, Result};

use super::regions::{self, REGIONS};
use crate::data::Flight;

/// A day of the replay. The extension is told, see `DAY_LENGTH` in the story.
pub const DAY_US: u64 = 9_600_000;
/// An hour of it: what the extension forecasts in.
pub const SLOT_US: u64 = DAY_US / 24;

const WEEKS_OF_YEAR: u64 = 52;

/// What is made up: a second airline opens services to one airport, more of them each day.
pub const HOT: &str = "LAX";
pub const HOT_CARRIER: &str = "2ND";
/// In flights of the real ones.
const GROWTH_PER_DAY: f64 = 0.6;
const GROWTH_MAX: f64 = 2.4;
/// When it begins, of the time that the replay has: the worker must have seen a week and a half of calm.
const HOT_FROM: f64 = 15.0 / 28.0;
/// The second airline leaves this much later than the first.
const HOT_LATER_MIN: f64 = 11.0;
/// Ids of the made-up flights begin above those of the file.
const HOT_IDS: i64 = 1_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Departs,
    Lands,
}

/// A row to be written at a time (microseconds since the replay began).
#[derive(Clone, Copy)]
pub struct Event {
    pub at_us: u64,
    pub flight: u32,
    /// 0: as the file has it; else made up.
    pub copy: u8,
    pub region: u8,
    /// In the order of the regions.
    pub airport: u8,
    pub kind: Kind,
}

impl Event {
    pub fn id(&self, flights: &[Flight]) -> i64 {
        let id = flights
            .get(self.flight as usize)
            .map_or(0, |flight| flight.id);
        id + i64::from(self.copy) * HOT_IDS
    }

    pub fn carrier<'a>(&self, flight: &'a Flight) -> &'a str {
        if self.copy == 0 {
            &flight.carrier
        } else {
            HOT_CARRIER
        }
    }
}

pub struct Timetable {
    pub weeks: u64,
    pub hot_region: usize,
    pub hot_from_day: u64,
    pub events: Vec<Event>,
    pub real_flights: u64,
    pub made_up_flights: u64,
    /// Rows per second that every partition is said to bear.
    pub capacity: f64,
    /// The highest hour of each region without what is made up, rows per second.
    pub usual_peaks: [f64; REGIONS],
}

impl Timetable {
    pub fn new(flights: &[Flight], weeks: u64) -> Result<Self> {
        let hot_region = regions::of(HOT).context("the hot airport is in no region")?;
        let hot_from_day = (weeks as f64 * 7.0 * HOT_FROM) as u64;
        let mut table = Timetable {
            weeks,
            hot_region,
            hot_from_day,
            events: Vec::with_capacity(flights.len() * 2),
            real_flights: 0,
            made_up_flights: 0,
            capacity: 0.0,
            usual_peaks: [0.0; REGIONS],
        };
        for (number, flight) in flights.iter().enumerate() {
            table.add(number as u32, flight)?;
        }
        // Stable, so that nothing lands before it left.
        table.events.sort_by_key(|event| event.at_us);
        table.set_capacity();
        Ok(table)
    }

    /// How many days the replay has.
    pub fn days(&self) -> u64 {
        self.weeks * 7
    }

    fn add(&mut self, number: u32, flight: &Flight) -> Result<()> {
        let region = regions::of(&flight.dest)
            .with_context(|| format!("{} is in no region", flight.dest))?;
        let airport = regions::airports()
            .position(|code| code == flight.dest)
            .unwrap_or(0);
        let of_year = day_of_year(flight.month, flight.day);
        let week = (of_year / 7).min(WEEKS_OF_YEAR - 1) * self.weeks / WEEKS_OF_YEAR;
        let day = week * 7 + of_year % 7;
        let scheduled = f64::from(flight.sched_dep_time / 100 * 60 + flight.sched_dep_time % 100);
        let departs = scheduled + f64::from(flight.dep_delay.unwrap_or(0));
        let is_hot = flight.dest == HOT;
        let more = if is_hot { self.growth(day) } else { 0.0 };
        // The same flights every time: Knuth's multiplicative hash of the id, as a fraction.
        let drawn = (flight.id as u64).wrapping_mul(2_654_435_761) % 1_000;
        let copies = (more + drawn as f64 / 1_000.0) as u8;
        for copy in 0..=copies {
            let minute = departs + f64::from(copy) * HOT_LATER_MIN;
            let at = |minute: f64| {
                (day * DAY_US).saturating_add_signed((minute * DAY_US as f64 / 1440.0) as i64)
            };
            let event = |at_us: u64, kind: Kind| Event {
                at_us,
                flight: number,
                copy,
                region: region as u8,
                airport: airport as u8,
                kind,
            };
            self.events.push(event(at(minute), Kind::Departs));
            if let Some(air_time) = flight.air_time {
                self.events
                    .push(event(at(minute + f64::from(air_time)), Kind::Lands));
            }
            if copy == 0 {
                self.real_flights += 1;
            } else {
                self.made_up_flights += 1;
            }
        }
        Ok(())
    }

    /// Made-up flights to the hot airport on a day, for each real one.
    pub fn growth(&self, day: u64) -> f64 {
        let days = (day + 1).saturating_sub(self.hot_from_day) as f64;
        (days * GROWTH_PER_DAY).min(GROWTH_MAX)
    }

    /// Just above all that the real flights ever ask for: without the second airline it would do.
    fn set_capacity(&mut self) {
        let last = self.events.last().map_or(0, |event| event.at_us);
        let mut rows = vec![[0u32; REGIONS]; (last / SLOT_US) as usize + 1];
        for event in self.events.iter().filter(|event| event.copy == 0) {
            if let Some(count) = rows
                .get_mut((event.at_us / SLOT_US) as usize)
                .and_then(|slot| slot.get_mut(event.region as usize))
            {
                *count += 1;
            }
        }
        for (region, peak) in self.usual_peaks.iter_mut().enumerate() {
            let most = rows.iter().filter_map(|slot| slot.get(region)).max();
            *peak = f64::from(most.copied().unwrap_or(0)) * 1e6 / SLOT_US as f64;
        }
        let highest = self.usual_peaks.iter().copied().fold(0.0, f64::max);
        self.capacity = (highest / 50.0).ceil() * 50.0;
    }
}

/// From 0 on, in 2013.
fn day_of_year(month: i16, day: i16) -> u64 {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let before = BEFORE
        .get((month - 1).max(0) as usize)
        .copied()
        .unwrap_or(0);
    before + (day - 1).max(0) as u64
}

/// 1 January 2013 was a Tuesday.
pub fn weekday(day: u64) -> &'static str {
    const NAMES: [&str; 7] = ["Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "Mon"];
    NAMES[(day % 7) as usize]
}

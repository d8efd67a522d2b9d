//! Forecasts.

use super::{Predictor, Present, Unit};
use crate::calendar::HORIZONS;
use crate::features::series;
use crate::features::unit;
use crate::forecast::{Alarm, Driver, EntityForecast, Interval, Stage, UnitForecast};
use crate::metrics::sustained;
use crate::series_model::SeriesModel;
use crate::store::{SeriesId, Store};

/// The reactive net catches a unit at this share of its capacity...
const NET: f64 = 0.95;

/// ... in so many slots in a row.
const NET_TICKS: i64 = 2;

/// At most so many drivers are named.
const DRIVERS_MAX: usize = 5;

impl Predictor {
    /// Forecasts the loads of these entities; unknown ones are left out, and those that had no load
    /// in the last three slots.
    pub fn forecast_entities(&self, ids: &[SeriesId]) -> Vec<EntityForecast> {
        let forecasts = self.forecast_series(&self.entities, self.learner.entities.as_ref(), ids);
        let horizon = self.spans.horizon;
        let day = i64::from(self.config.calendar.slots_per_day());
        let entity = |(id, at): (SeriesId, [Interval; HORIZONS])| {
            let view = self.entities.view(id)?;
            let now = f64::from(view.lag(0));
            let mut same_time = (0.0, 0.0);
            for load in (1..=7).filter_map(|d| view.mean(d * day - horizon, horizon)) {
                same_time = (same_time.0 + load, same_time.1 + 1.0);
            }
            Some(EntityForecast {
                id,
                now: (!now.is_nan()).then_some(now),
                at,
                same_time: (same_time.1 > 0.0).then(|| same_time.0 / same_time.1),
            })
        };
        forecasts.into_iter().filter_map(entity).collect()
    }

    /// Forecasts series of a store, in the order of their ids as given.
    fn forecast_series(
        &self,
        store: &Store,
        model: Option<&SeriesModel>,
        ids: &[SeriesId],
    ) -> Vec<(SeriesId, [Interval; HORIZONS])> {
        let day = i64::from(self.config.calendar.slots_per_day());
        let mut prepared = Vec::with_capacity(ids.len());
        let mut known = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(view) = store.view(*id) else {
                continue;
            };
            let Some(last) = last(&view) else { continue };
            // Of a series that is younger than this its features tell too little.
            let model = model.filter(|_| view.age() >= day / 4);
            let described = model.zip(series::describe(&view, &self.config.calendar));
            known.push((*id, point(last), described.is_some()));
            if let Some((model, series)) = described {
                prepared.push(model.prepare(&series.features, series.scale, series.last));
            }
        }
        let forecasts = model.map_or(Vec::new(), |model| model.forecast(&prepared));
        let mut forecasts = forecasts.into_iter();
        known
            .into_iter()
            .map(|(id, flat, described)| {
                let forecast = if described { forecasts.next() } else { None };
                (id, forecast.unwrap_or([flat; HORIZONS]))
            })
            .collect()
    }

    /// Says of every unit, in order of their ids, whether it will saturate.
    pub fn forecast_units(&self) -> Vec<UnitForecast> {
        let ids: Vec<SeriesId> = self.units.keys().copied().collect();
        let forecasts = self.forecast_series(&self.loads, self.learner.totals.as_ref(), &ids);
        let mut forecasts = forecasts.into_iter().peekable();
        let rows: Vec<&[f32]> = self
            .present
            .iter()
            .map(|unit| unit.features.as_slice())
            .collect();
        let rises = self
            .learner
            .trigger
            .as_ref()
            .map(|model| model.rises(&rows));
        let rises = rises.unwrap_or_else(|| vec![[0.0; 3]; rows.len()]);
        let mut present = self.present.iter().zip(rises).peekable();
        self.units
            .iter()
            .map(|(id, unit)| {
                let at = forecasts
                    .next_if(|(forecast, _)| forecast == id)
                    .map(|(_, at)| at);
                let present = present.next_if(|(present, _)| present.unit == *id);
                self.unit_forecast(*id, unit, at, present)
            })
            .collect()
    }

    fn unit_forecast(
        &self,
        id: SeriesId,
        unit: &Unit,
        at: Option<[Interval; HORIZONS]>,
        present: Option<(&Present, [f32; 3])>,
    ) -> UnitForecast {
        let now = self.averaged.view(id).map(|view| f64::from(view.lag(0)));
        let now = now.filter(|now| !now.is_nan());
        let at = at.unwrap_or([point(now.unwrap_or(0.0)); HORIZONS]);
        let mut forecast = UnitForecast {
            unit: id,
            at_us: self.config.calendar.start_us(self.newest().unwrap_or(0)),
            now,
            capacity: unit.capacity(),
            capacity_learned: unit.capacity.is_none() && unit.learned.is_some(),
            at,
            peak: point(now.unwrap_or(0.0)),
            probability: 0.0,
            stage: Stage::Reactive,
            alarm: Alarm::None,
            warm: false,
            drivers: Vec::new(),
        };
        if let Some((present, rises)) = present {
            let ratio = present.now / present.capacity;
            forecast.stage = self.stage(present.age);
            forecast.probability = present.probability;
            forecast.warm = ratio >= super::learn::WARM;
            forecast.alarm = self.alarm(unit, present);
            forecast.peak = peak(present, rises);
            forecast.drivers = self.drivers(present);
        }
        forecast
    }

    /// Is there reason to act?
    fn alarm(&self, unit: &Unit, present: &Present) -> Alarm {
        let ticks: Vec<f64> = unit.ticks.iter().map(|tick| f64::from(*tick)).collect();
        let (of, window) = (
            self.config.alarm_ticks as usize,
            self.config.alarm_window as usize,
        );
        let high = sustained(&ticks, self.config.alarm_probability, of, window);
        let caught = |lag: i64| {
            let view = self.averaged.view(present.unit);
            view.is_some_and(|view| f64::from(view.lag(lag)) >= NET * present.capacity)
        };
        if high.last() == Some(&true) {
            Alarm::Predicted
        } else if (0..NET_TICKS).all(caught) {
            Alarm::Reactive
        } else {
            Alarm::None
        }
    }

    /// What contributes most: the probability against what it would be with a typical value.
    fn drivers(&self, present: &Present) -> Vec<Driver> {
        let stage = self.stage(present.age);
        let Some(model) = self
            .learner
            .trigger
            .as_ref()
            .filter(|_| stage != Stage::Reactive)
        else {
            return Vec::new();
        };
        let mut rows = Vec::with_capacity(unit::COUNT);
        for (number, typical) in model.typical().iter().enumerate() {
            let mut row = present.features;
            if let Some(value) = row.get_mut(number) {
                *value = *typical;
            }
            rows.push(row);
        }
        let rows: Vec<&[f32]> = rows.iter().map(|row| row.as_slice()).collect();
        let mut drivers: Vec<Driver> = model
            .scores(&rows)
            .into_iter()
            .zip(unit::NAMES)
            .map(|(scores, name)| {
                let score = self.mix(scores, present.age);
                let without = self.learner.calibrator.apply(score);
                Driver {
                    name,
                    contribution: present.probability - without,
                }
            })
            .filter(|driver| driver.contribution != 0.0)
            .collect();
        drivers.sort_by(|a, b| b.contribution.abs().total_cmp(&a.contribution.abs()));
        drivers.truncate(DRIVERS_MAX);
        drivers
    }
}

/// The last load of a series: the newest, or the mean of the last three slots if that is missing.
fn last(view: &crate::store::View) -> Option<f64> {
    let newest = f64::from(view.lag(0));
    if newest.is_nan() {
        view.mean(0, 3)
    } else {
        Some(newest)
    }
}

/// The peak of a unit's load that rises by so much, relatively.
fn peak(present: &Present, rises: [f32; 3]) -> Interval {
    let now = unit::relative(present.now, present.capacity);
    let [low, mid, high] =
        rises.map(|rise| unit::absolute(f64::from(now + rise), present.capacity).max(0.0));
    Interval { low, mid, high }
}

/// A forecast without a range.
fn point(value: f64) -> Interval {
    Interval {
        low: value,
        mid: value,
        high: value,
    }
}

//! The figures of a backtest. Their definitions are in docs/prediction.md.

use std::fmt;

use predict::metrics::{Alarms, Bin};
use serde::Serialize;

/// Everything that was found out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// What was looked at.
    pub trace: Extent,
    /// Forecasts of entities.
    pub entities: Forecasts,
    /// Forecasts of partitions' totals.
    pub partitions: Forecasts,
    /// The trigger.
    pub trigger: Trigger,
    /// Alarms of the trigger together with the reactive net: load at least .95 of the capacity, in
    /// two slots in a row.
    pub trigger_with_net: Rule,
    /// The reactive rule: load at least .8 of the capacity.
    pub reactive: Reactive,
    /// What moving entities away in time would have avoided.
    pub moves: Moves,
    /// What it took.
    pub cost: Cost,
}

/// What was looked at.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Extent {
    /// Entities in the trace.
    pub entities: usize,
    /// Partitions they were assigned to.
    pub partitions: usize,
    /// Slots in the trace.
    pub slots: usize,
    /// The length of a slot, in minutes.
    pub step_minutes: f64,
    /// Slots of the first part, which capacities come from.
    pub first_part: usize,
    /// Days that were forecast.
    pub days: f64,
    /// The trigger's horizon, in minutes.
    pub horizon_minutes: f64,
}

/// Errors of forecasts, relative to those of the last value: below one is better.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Forecasts {
    /// Minutes ahead. Where slots are longer than 5 minutes, the nearest number of slots.
    pub minutes: Vec<f64>,
    /// The rMAE at each of them.
    pub rmae: Vec<Option<f64>>,
    /// The same, where every error is divided by the mean load of its entity first: what the typical
    /// entity sees, while a few large ones make most of the rMAE.
    pub rmae_scaled: Vec<Option<f64>>,
    /// The share of values that lay within the forecast's range, of which .8 is promised.
    pub covered: Vec<Option<f64>>,
    /// Forecasts that were compared at each of them.
    pub count: Vec<u64>,
}

/// How probabilities fared.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Trigger {
    /// Probabilities with a known outcome.
    pub count: u64,
    /// The share in which it happened.
    pub base_rate: Option<f64>,
    /// The average precision.
    pub average_precision: Option<f64>,
    /// The Brier score.
    pub brier: Option<f64>,
    /// The expected calibration error, in 10 bins.
    pub ece: Option<f64>,
    /// Alarms at a probability of at least .6.
    pub at_60: Rule,
    /// Alarms at a probability of at least .7 in 2 of 3 slots.
    pub at_70_in_2_of_3: Rule,
    /// The calibration table.
    pub calibration: Vec<Bin>,
}

/// How the reactive rule fared.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Reactive {
    /// The average precision of load / capacity.
    pub average_precision: Option<f64>,
    /// Its alarms.
    pub at_80_percent: Rule,
}

/// How alarms fared.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rule {
    /// The share of alarms that were right.
    pub precision: Option<f64>,
    /// The share of what happened that had an alarm.
    pub recall: Option<f64>,
    /// Onsets of saturation.
    pub onsets: u64,
    /// Of these, with an alarm within the horizon before.
    pub onsets_caught: u64,
    /// The median of the time from the first such alarm to the onset, in minutes.
    pub lead_minutes: Option<f64>,
    /// The counts.
    pub alarms: Alarms,
}

/// What moving entities away would have avoided.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Moves {
    /// Onsets of saturation for which entities were chosen.
    pub cases: u64,
    /// The share of the load above capacity, in the hour after the onset, that was avoided: the mean
    /// over the cases.
    pub avoided: Option<f64>,
    /// The same, of the sum over the cases.
    pub avoided_of_sum: Option<f64>,
    /// The share of saturated slots that were avoided.
    pub avoided_slots: Option<f64>,
    /// The mean number of entities moved.
    pub entities: Option<f64>,
    /// The mean size moved, in the measure of the sizes; entities, if there are none.
    pub size: Option<f64>,
    /// The mean size moved, in percent of the partition's size.
    pub size_percent: Option<f64>,
}

/// What it took.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Trainings.
    pub trainings: u64,
    /// Of these, trigger models that were promoted.
    pub promoted: u64,
    /// The mean of their times, in milliseconds.
    pub training_ms: f64,
    /// The longest.
    pub training_ms_max: f64,
    /// The most rows that a trigger was trained on and judged by.
    pub rows_max: usize,
    /// The time to forecast 10,000 entities, in milliseconds.
    pub entities_10000_ms: f64,
    /// The time to forecast all partitions, in milliseconds.
    pub partitions_ms: f64,
    /// The mean time to take a slot, in milliseconds.
    pub push_ms: f64,
    /// The size of the saved predictor, in bytes.
    pub saved_bytes: usize,
    /// The peak memory of the process, in bytes, where it is known.
    pub memory_peak_bytes: Option<u64>,
}

/// A figure with so many decimals, or a dash.
struct Figure(Option<f64>, usize);

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => f.pad(&format!("{value:.*}", self.1)),
            None => f.pad("-"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trace = &self.trace;
        writeln!(
            f,
            "{} entities in {} partitions, {} slots of {} min; capacities from the first {}, then {:.1} days forecast\n",
            trace.entities,
            trace.partitions,
            trace.slots,
            trace.step_minutes,
            trace.first_part,
            trace.days
        )?;
        writeln!(
            f,
            "forecast rMAE (last value = 1), and share of values within the range (.8 is promised)"
        )?;
        self.entities.write(f, "entities")?;
        self.partitions.write(f, "partitions")?;
        self.write_trigger(f)?;
        self.write_moves(f)?;
        self.cost.write(f)
    }
}

impl Forecasts {
    fn write(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        write!(f, "  {name:<12}")?;
        let figures = self
            .minutes
            .iter()
            .zip(&self.rmae)
            .zip(&self.rmae_scaled)
            .zip(&self.covered);
        for (((minutes, rmae), scaled), covered) in figures {
            let (rmae, scaled) = (Figure(*rmae, 3), Figure(*scaled, 3));
            write!(
                f,
                "{minutes:>6} min: {rmae} / {scaled} ({})",
                Figure(*covered, 2)
            )?;
        }
        writeln!(f)
    }
}

impl Report {
    fn write_trigger(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            trigger, reactive, ..
        } = self;
        writeln!(
            f,
            "\nsaturation within {} min: {} probabilities, base rate {}",
            self.trace.horizon_minutes,
            trigger.count,
            Figure(trigger.base_rate, 4)
        )?;
        writeln!(
            f,
            "  AP {}  Brier {}  ECE {}    (load / capacity: AP {})",
            Figure(trigger.average_precision, 3),
            Figure(trigger.brier, 4),
            Figure(trigger.ece, 4),
            Figure(reactive.average_precision, 3)
        )?;
        writeln!(
            f,
            "  rule                         precision   recall   onsets caught   median lead"
        )?;
        for (name, rule) in [
            ("p >= .6", &trigger.at_60),
            ("p >= .7 in 2 of 3", &trigger.at_70_in_2_of_3),
            ("p >= .7 in 2 of 3, or net", &self.trigger_with_net),
            ("load >= .8 capacity", &reactive.at_80_percent),
        ] {
            writeln!(
                f,
                "  {name:<27} {:>10} {:>8} {:>7} of {:<5} {:>8} min",
                Figure(rule.precision, 3),
                Figure(rule.recall, 3),
                rule.onsets_caught,
                rule.onsets,
                Figure(rule.lead_minutes, 0)
            )?;
        }
        Ok(())
    }

    fn write_moves(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moves = &self.moves;
        writeln!(f, "\nmoves chosen 30 min before {} onsets", moves.cases)?;
        writeln!(
            f,
            "  avoided {} of the saturation (of its sum {}, of its slots {}) with {} entities, size {} ({} %)",
            Figure(moves.avoided, 3),
            Figure(moves.avoided_of_sum, 3),
            Figure(moves.avoided_slots, 3),
            Figure(moves.entities, 2),
            Figure(moves.size, 2),
            Figure(moves.size_percent, 1)
        )
    }
}

impl Cost {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{} trainings ({} triggers promoted), up to {} rows: {:.0} ms, at most {:.0} ms",
            self.trainings, self.promoted, self.rows_max, self.training_ms, self.training_ms_max
        )?;
        write!(
            f,
            "10,000 entities {:.1} ms, partitions {:.2} ms, a slot {:.2} ms; saved {:.1} MB; peak memory {} MB",
            self.entities_10000_ms,
            self.partitions_ms,
            self.push_ms,
            self.saved_bytes as f64 / 1e6,
            Figure(self.memory_peak_bytes.map(|bytes| bytes as f64 / 1e6), 0)
        )
    }
}

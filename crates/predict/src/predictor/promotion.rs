//! Candidates for the current model, and what they have to be better than.
//!
//! A candidate is fitted to the rows before the newest day and judged on the rows of that day, which
//! the current model has not seen either.

use super::Verdict;
use crate::metrics::{Pair, brier};
use crate::rows::Rows;
use crate::series_model::{SeriesModel, SeriesRow};
use crate::trigger::{TriggerModel, UnitRow};

/// Trains and judges a model of series.
pub(super) fn retrain_series(
    current: &mut Option<SeriesModel>,
    rows: &mut Rows<SeriesRow>,
    newest_day: i64,
    seed: u64,
) -> Verdict {
    let limit = rows.limit();
    let all = rows.as_slice();
    let (old, new) = all.split_at(all.partition_point(|row| row.slot < newest_day));
    let mut verdict = Verdict {
        rows: old.len(),
        judged: new.len(),
        baseline: Some(1.0),
        ..Verdict::default()
    };
    let Some(mut candidate) = SeriesModel::fit(old, limit, seed) else {
        verdict.reason = "too few rows".into();
        return verdict;
    };
    candidate.learn_ranges(new);
    verdict.candidate = candidate.rmae(new, limit);
    verdict.current = current.as_ref().and_then(|model| model.rmae(new, limit));
    judge(&mut verdict, "the last value");
    if verdict.promoted {
        *current = Some(candidate);
    }
    verdict
}

/// Trains and judges a trigger.
pub(super) fn retrain_trigger(
    current: &mut Option<TriggerModel>,
    rows: &mut Rows<UnitRow>,
    newest_day: i64,
    seed: u64,
) -> Verdict {
    let all = rows.as_slice();
    let (old, new) = all.split_at(all.partition_point(|row| row.slot < newest_day));
    let mut verdict = Verdict {
        rows: old.len(),
        judged: new.len(),
        ..Verdict::default()
    };
    let Some(mut candidate) = TriggerModel::fit(old, seed) else {
        verdict.reason = "too few rows, or too few of either outcome".into();
        return verdict;
    };
    candidate.learn_range(new);
    verdict.candidate = score(&candidate, new);
    verdict.current = current.as_ref().and_then(|model| score(model, new));
    verdict.baseline = reactive_brier(old, new);
    judge(&mut verdict, "the reactive rule");
    if verdict.promoted {
        *current = Some(candidate);
    }
    verdict
}

/// The Brier score of a model's raw scores.
fn score(model: &TriggerModel, rows: &[UnitRow]) -> Option<f64> {
    let features: Vec<&[f32]> = rows.iter().map(|row| row.features.as_slice()).collect();
    let pairs: Vec<Pair> = model
        .scores(&features)
        .iter()
        .zip(rows)
        .map(|(scores, row)| Pair {
            probability: scores.mix(1.0),
            outcome: row.outcome,
        })
        .collect();
    brier(&pairs)
}

/// The Brier score of the reactive rule, if it says how often it was right, with and without alarm,
/// in the rows before.
fn reactive_brier(old: &[UnitRow], new: &[UnitRow]) -> Option<f64> {
    let frequency = |warm: bool| {
        let (count, happened) = old
            .iter()
            .filter(|row| row.warm == warm)
            .fold((0.0, 0.0), |(c, h), row| {
                (c + 1.0, h + f64::from(u8::from(row.outcome)))
            });
        // One of two, without any.
        (happened + 0.5) / (count + 1.0)
    };
    let (cold, warm) = (frequency(false), frequency(true));
    let pairs: Vec<Pair> = new
        .iter()
        .map(|row| Pair {
            probability: if row.warm { warm } else { cold },
            outcome: row.outcome,
        })
        .collect();
    brier(&pairs)
}

/// Promotes a candidate whose score is better than the others.
fn judge(verdict: &mut Verdict, baseline: &str) {
    let Some(candidate) = verdict.candidate else {
        verdict.reason = "there is nothing to judge it on".into();
        return;
    };
    let better = |other: Option<f64>| other.is_none_or(|other| candidate < other);
    verdict.promoted = better(verdict.baseline) && better(verdict.current);
    verdict.reason = match (better(verdict.baseline), better(verdict.current)) {
        (true, true) => format!("better than {baseline} and than the current model, if any"),
        (false, _) => format!("not better than {baseline}"),
        (true, false) => "not better than the current model".into(),
    };
}

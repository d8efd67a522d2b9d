//! What a predictor answers to those who feed it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a push did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The slot that is the newest now.
    pub slot: i64,
    /// Values that were dropped because there are too many series.
    pub dropped: u64,
    /// A day has passed since the last training: call [`Predictor::retrain`](crate::Predictor::retrain).
    pub retrain_due: bool,
}

/// Why a push did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// The time does not lie in a later slot than the newest one.
    NotLater {
        /// The slot that the time lies in.
        slot: i64,
        /// The newest slot.
        newest: i64,
    },
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PushError::NotLater { slot, newest } => {
                write!(f, "slot {slot} is not later than the newest one, {newest}")
            }
        }
    }
}

impl std::error::Error for PushError {}

/// Why a state could not be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaveError(pub(super) String);

impl fmt::Display for SaveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not encode the predictor: {}", self.0)
    }
}

impl std::error::Error for SaveError {}

/// Why a state could not be restored. Begin with a new predictor and replay the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// It was written by another version of this crate, or is none at all.
    Version,
    /// It was made with another calendar, horizon or average.
    Config,
    /// It is damaged.
    Damaged(String),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Version => f.write_str("the predictor was saved by another version"),
            RestoreError::Config => f.write_str("the predictor was saved with other settings"),
            RestoreError::Damaged(why) => write!(f, "the saved predictor is damaged: {why}"),
        }
    }
}

impl std::error::Error for RestoreError {}

/// What became of a candidate model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// It is the current model now.
    pub promoted: bool,
    /// Why, or why not, in words.
    pub reason: String,
    /// Rows it was trained on.
    pub rows: usize,
    /// Rows of the newest day it was judged on.
    pub judged: usize,
    /// The candidate's score on those rows: smaller is better.
    pub candidate: Option<f64>,
    /// The score of the current model, if there is one.
    pub current: Option<f64>,
    /// The score of what needs no model.
    pub baseline: Option<f64>,
}

/// What a training led to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The trigger. Scores are Brier scores; the baseline is the reactive rule (load at least .8 of
    /// the capacity), which gets the benefit of the frequencies that it should say.
    pub trigger: Verdict,
    /// The forecasts of entities. Scores are rMAE over all horizons; the baseline is the last value
    /// and scores 1.
    pub entities: Verdict,
    /// The forecasts of units' totals, by the same scores.
    pub totals: Verdict,
}

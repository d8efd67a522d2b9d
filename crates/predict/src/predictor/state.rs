//! What outlives the process.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::learn::Learner;
use super::{Predictor, RestoreError, SaveError, Unit};
use crate::calendar::Calendar;
use crate::config::Config;
use crate::random::mix;
use crate::store::SeriesId;

/// Changes with everything that is saved, smartcore's version included: its models cannot be read by
/// another one.
const VERSION: &[u8] = b"shadowpart predict 1, smartcore 0.7.0\n";

/// The length of the sum behind the version.
const SUM: usize = 8;

/// A sum over bytes that shows damage: a forest with damaged places would panic.
fn sum(bytes: &[u8]) -> [u8; SUM] {
    let mut sum = bytes.len() as u64;
    for chunk in bytes.chunks(SUM) {
        let mut word = [0; SUM];
        for (place, byte) in word.iter_mut().zip(chunk) {
            *place = *byte;
        }
        sum = mix(sum ^ u64::from_le_bytes(word));
    }
    sum.to_le_bytes()
}

/// What has to be as it was.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Fixed {
    calendar: Calendar,
    trigger_minutes: u32,
    smooth_minutes: u32,
}

impl Fixed {
    fn of(config: &Config) -> Fixed {
        Fixed {
            calendar: config.calendar,
            trigger_minutes: config.trigger_minutes,
            smooth_minutes: config.smooth_minutes,
        }
    }
}

/// What is read; what is written is the same, borrowed.
#[derive(Deserialize)]
struct Saved {
    fixed: Fixed,
    units: BTreeMap<SeriesId, Unit>,
    kinds: BTreeMap<SeriesId, u8>,
    learner: Learner,
}

impl Predictor {
    /// Everything that was learned (models, calibration, training rows, settings of units), as bytes
    /// in the format of [`postcard`] behind a version and a sum. The series are not part of it: after
    /// [`restore`](Self::restore) push the last eight days of the history.
    pub fn save(&self) -> Result<Vec<u8>, SaveError> {
        let saved = (
            Fixed::of(&self.config),
            &self.units,
            &self.kinds,
            &self.learner,
        );
        let bytes = postcard::to_stdvec(&saved).map_err(|error| SaveError(error.to_string()))?;
        Ok([VERSION, &sum(&bytes), &bytes].concat())
    }

    /// Makes a predictor of what [`save`](Self::save) gave. The settings may be others, but for the
    /// calendar and the minutes of the trigger and its average.
    pub fn restore(bytes: &[u8], config: Config) -> Result<Predictor, RestoreError> {
        let bytes = bytes.strip_prefix(VERSION).ok_or(RestoreError::Version)?;
        let (_, bytes) = bytes
            .split_first_chunk::<SUM>()
            .filter(|(expected, bytes)| **expected == sum(bytes))
            .ok_or_else(|| RestoreError::Damaged("the sum does not match".into()))?;
        let saved: Saved = postcard::from_bytes(bytes)
            .map_err(|error| RestoreError::Damaged(error.to_string()))?;
        if saved.fixed != Fixed::of(&config) {
            return Err(RestoreError::Config);
        }
        if !saved.learner.is_sound() {
            return Err(RestoreError::Damaged("numbers out of range".into()));
        }
        let mut predictor = Predictor::new(config);
        predictor.units = saved.units;
        predictor.kinds = saved.kinds;
        predictor.learner = saved.learner;
        Ok(predictor)
    }
}

//! Waiting for something that another process does. Always bounded, and a wait that ends without the
//! thing says what was waited for.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(20);

/// Calls `look` until it gives a value. An error of `look` ends the wait at once.
pub fn until<T>(
    what: &str,
    timeout: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if begin.elapsed() > timeout {
            bail!("waited {timeout:?} in vain until {what}");
        }
        std::thread::sleep(PAUSE);
    }
}

/// Calls `holds` until it is true.
pub fn eventually(
    what: &str,
    timeout: Duration,
    mut holds: impl FnMut() -> Result<bool>,
) -> Result<()> {
    until(what, timeout, || Ok(holds()?.then_some(())))
}

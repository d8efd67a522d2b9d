//! Ctrl-C and SIGTERM: cancel what the server is doing for us, let the story unwind, and with it the server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use postgres::{CancelToken, Client, NoTls};

#[derive(Clone, Default)]
pub struct Interrupt {
    raised: Arc<AtomicBool>,
    running: Arc<Mutex<Vec<CancelToken>>>,
}

impl Interrupt {
    pub fn install() -> Result<Self> {
        let interrupt = Self::default();
        let seen = interrupt.clone();
        ctrlc::set_handler(move || {
            if seen.raised.swap(true, Ordering::SeqCst) {
                return;
            }
            eprintln!("\ninterrupted: stopping the server");
            let tokens = seen
                .running
                .lock()
                .map(|list| list.clone())
                .unwrap_or_default();
            for token in tokens {
                // The server may be gone already; then there is nothing left to cancel.
                let _ = token.cancel_query(NoTls);
            }
        })
        .context("cannot install the Ctrl-C handler")?;
        Ok(interrupt)
    }

    /// Long statements of this connection are cancelled on Ctrl-C.
    pub fn cancels(&self, client: &Client) {
        if let Ok(mut running) = self.running.lock() {
            running.push(client.cancel_token());
        }
    }

    pub fn check(&self) -> Result<()> {
        if self.raised.load(Ordering::SeqCst) {
            bail!("interrupted");
        }
        Ok(())
    }

    pub fn sleep(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

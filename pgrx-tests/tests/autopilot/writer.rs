//! A load that can be turned up and down: rows that a tenant inserts per second.

use shadowpart_tests::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Writers of ten tenants, each in its own rate; ends with the value.
pub struct Load {
    rates: Arc<[AtomicU32; 11]>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
}

/// Between two statements of a writer.
const BEAT: Duration = Duration::from_millis(20);

impl Load {
    pub fn start(server: &Server) -> Result<Load> {
        let mut session = server.connect()?;
        let rates: Arc<[AtomicU32; 11]> = Arc::new(Default::default());
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (rates, stop) = (rates.clone(), stop.clone());
            move || {
                let mut id: u64 = 1_000_000;
                let mut owed = [0.0; 11];
                let mut last = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    let passed = last.elapsed().as_secs_f64();
                    last = Instant::now();
                    for (tenant, owed) in owed.iter_mut().enumerate() {
                        let rate = rates[tenant].load(Ordering::Relaxed);
                        // Whoever was held up does not make up for it: that would be another load.
                        let most = f64::max(f64::from(rate) / 4.0, 1.0);
                        *owed = f64::min(*owed + f64::from(rate) * passed, most);
                        let rows = *owed as u64;
                        if rows > 0 {
                            session.run(&format!(
                                "INSERT INTO orders SELECT {tenant}, g, 'written' FROM generate_series({}, {}) g",
                                id + 1,
                                id + rows
                            ))?;
                            id += rows;
                            *owed -= rows as f64;
                        }
                    }
                    std::thread::sleep(BEAT);
                }
                Ok(id - 1_000_000)
            }
        });
        Ok(Load {
            rates,
            stop,
            thread: Some(thread),
        })
    }

    /// Rows per second from now on.
    pub fn set(&self, tenant: usize, rate: u32) {
        self.rates[tenant].store(rate, Ordering::Relaxed);
    }

    /// Ends it; how many rows were written. An error of a writer is one of the test.
    pub fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it runs")?;
        thread.join().map_err(|_| anyhow!("a writer panicked"))?
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

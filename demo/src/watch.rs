//! A second connection that looks at shadow_progress while a call waits: phases for the picture, lines for the eye.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use postgres::{Config, NoTls};

use crate::clock::Clock;
use crate::writers::Meter;

/// A stretch of time in which a job was in one phase.
#[derive(Clone)]
pub struct Phase {
    pub name: String,
    pub from_us: u64,
    pub to_us: u64,
}

const LOOK_EVERY: Duration = Duration::from_millis(20);
const LINE_EVERY_US: u64 = 1_000_000;

/// A shadow that is ready or migrated rests: that is no phase.
const PROGRESS: &str = "
SELECT phase, rows_total, rows_done, rows_per_s, extract(epoch FROM time_left)::float8,
       waiting_pid, extract(epoch FROM waiting_age)::float8
  FROM shadow_progress WHERE phase NOT IN ('ready', 'migrated') ORDER BY id DESC LIMIT 1";

pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Vec<Phase>>>>,
}

impl Watch {
    pub fn start(config: &Config, clock: Clock, meter: Arc<Meter>) -> Result<Self> {
        let mut config = config.clone();
        let mut client = config
            .application_name("watch")
            .connect(NoTls)
            .context("the watch cannot connect")?;
        let statement = client.prepare(PROGRESS)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut phases: Vec<Phase> = Vec::new();
            let mut line_us = clock.now_us();
            let mut last_us = line_us;
            while !stopped.load(Ordering::Relaxed) {
                let row = client.query_opt(&statement, &[])?;
                let now_us = clock.now_us();
                let phase: Option<String> = row.as_ref().and_then(|row| row.get(0));
                if let Some(name) = &phase {
                    match phases.last_mut() {
                        Some(open) if open.name == *name && open.to_us == last_us => {
                            open.to_us = now_us
                        }
                        _ => phases.push(Phase {
                            name: name.clone(),
                            from_us: last_us,
                            to_us: now_us,
                        }),
                    }
                }
                last_us = now_us;
                if now_us - line_us >= LINE_EVERY_US {
                    let detail = row.as_ref().map(progress).unwrap_or_default();
                    clock.say(&line(&meter, now_us - line_us, &detail));
                    line_us = now_us;
                }
                std::thread::sleep(LOOK_EVERY);
            }
            Ok(phases)
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    pub fn stop(mut self) -> Result<Vec<Phase>> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take() {
            Some(thread) => thread.join().map_err(|_| anyhow!("the watch panicked"))?,
            None => Ok(Vec::new()),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn line(meter: &Meter, span_us: u64, detail: &str) -> String {
    let (transactions, largest_us) = meter.take();
    let rate = transactions as f64 * 1e6 / span_us as f64;
    format!(
        "  clients {rate:5.0} tx/s, largest {:5.1} ms{detail}",
        largest_us as f64 / 1e3
    )
}

fn progress(row: &postgres::Row) -> String {
    let phase: Option<String> = row.get(0);
    let mut text = format!("   {}", phase.unwrap_or_default());
    let (total, done): (Option<i64>, Option<i64>) = (row.get(1), row.get(2));
    if let (Some(total), Some(done)) = (total, done)
        && total > 0
    {
        text += &format!(" {done} of {total} rows");
    }
    if let Some(rate) = row.get::<_, Option<f64>>(3)
        && rate > 0.0
    {
        text += &format!(", {rate:.0} rows/s");
    }
    if let Some(left) = row.get::<_, Option<f64>>(4) {
        text += &format!(", {left:.1} s left");
    }
    if let Some(pid) = row.get::<_, Option<i32>>(5) {
        let age: f64 = row.get::<_, Option<f64>>(6).unwrap_or_default();
        text += &format!(", waiting for pid {pid} ({age:.1} s)");
    }
    text
}

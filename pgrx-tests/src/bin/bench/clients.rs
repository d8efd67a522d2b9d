//! Clients that run one small transaction after the other, as pgbench's do, and time each of them.

use shadowpart_tests::{Context, Dice, Result, Server, anyhow};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A client that fails and fails is not waited for.
const FAILURES_MAX: usize = 1000;

/// One transaction as a client saw it.
#[derive(Clone, Copy)]
pub struct Sample {
    pub at: Instant,
    pub took: Duration,
    pub tenant: i32,
}

/// What a crowd of clients writes down.
#[derive(Default)]
pub struct Diary {
    stop: AtomicBool,
    samples: Mutex<Vec<Sample>>,
    failures: Mutex<Vec<String>>,
    ready: AtomicUsize,
}

impl Diary {
    fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
        of.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn samples(&self) -> Vec<Sample> {
        Self::lock(&self.samples).clone()
    }

    pub fn failures(&self) -> Vec<String> {
        Self::lock(&self.failures).clone()
    }
}

/// What a client does: transactions on random rows, below `rows`, of its tenant.
#[derive(Clone)]
pub struct Client {
    pub table: &'static str,
    pub tenant: i32,
    pub rows: u64,
    /// Reads a row now and then, too.
    pub reads: bool,
    pub seed: u64,
}

/// Runs the clients while `story` runs, which gets their diary.
pub fn with_clients<T>(
    server: &Server,
    clients: &[Client],
    story: impl FnOnce(&Diary) -> Result<T>,
) -> Result<(T, Diary)> {
    let diary = Diary::default();
    let outcome = std::thread::scope(|scope| {
        for client in clients {
            let diary = &diary;
            scope.spawn(move || {
                if let Err(error) = work(server, client, diary) {
                    Diary::lock(&diary.failures).push(format!("{error:#}"));
                    diary.ready.fetch_add(1, Ordering::Release);
                }
            });
        }
        while diary.ready.load(Ordering::Acquire) < clients.len() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let outcome = story(&diary);
        diary.stop.store(true, Ordering::Release);
        outcome
    });
    let outcome = outcome.map_err(|error| match diary.failures().first() {
        Some(failure) => error.context(anyhow!("a client: {failure}")),
        None => error,
    })?;
    Ok((outcome, diary))
}

fn work(server: &Server, client: &Client, diary: &Diary) -> Result<()> {
    let mut session = server.connect()?;
    let table = client.table;
    let update = session.prepare(&format!(
        "UPDATE {table} SET b = b + 1 WHERE tenant = $1 AND id = $2"
    ))?;
    let read = session.prepare(&format!(
        "SELECT b FROM {table} WHERE tenant = $1 AND id = $2"
    ))?;
    let mut dice = Dice::new(client.seed);
    let mut mine = Vec::new();
    diary.ready.fetch_add(1, Ordering::Release);
    while !diary.stop.load(Ordering::Acquire) {
        let id = 1 + dice.below(client.rows) as i64;
        let statement = if client.reads && dice.below(4) == 0 {
            &read
        } else {
            &update
        };
        let at = Instant::now();
        let outcome = session.execute(statement, &[&client.tenant, &id]);
        let took = at.elapsed();
        match outcome {
            Ok(1) => mine.push(Sample {
                at,
                took,
                tenant: client.tenant,
            }),
            Ok(count) => Diary::lock(&diary.failures).push(format!("{count} rows, not 1")),
            Err(error) => {
                let closed = error.is_closed();
                Diary::lock(&diary.failures).push(
                    error
                        .as_db_error()
                        .map_or_else(|| error.to_string(), ToString::to_string),
                );
                if closed || diary.failures().len() > FAILURES_MAX {
                    break;
                }
            }
        }
    }
    Diary::lock(&diary.samples).append(&mut mine);
    Ok(())
}

/// Transactions a second of `count` clients over `time`.
pub fn rate(server: &Server, client: &Client, count: u64, time: Duration) -> Result<f64> {
    let clients: Vec<Client> = (0..count)
        .map(|n| Client {
            seed: client.seed + n,
            ..client.clone()
        })
        .collect();
    let ((begin, end), diary) = with_clients(server, &clients, |_| {
        let begin = Instant::now();
        std::thread::sleep(time);
        Ok((begin, Instant::now()))
    })?;
    let failures = diary.failures();
    if let Some(failure) = failures.first() {
        return Err(anyhow!("{failure}"))
            .with_context(|| format!("{} transactions failed", failures.len()));
    }
    let done = diary
        .samples()
        .iter()
        .filter(|s| s.at >= begin && s.at + s.took <= end)
        .count();
    Ok(done as f64 / (end - begin).as_secs_f64())
}

//! The clients: single-row transactions on the flights of one carrier, each timed where a user would feel it.
//!
//! A client owns its share of the carrier's rows, so it always knows what each of them must hold. It schedules
//! flights (INSERT), delays them (UPDATE), strikes them off (DELETE) and looks them up by key (SELECT): a look-up
//! that does not return what this client was told is committed is a wrong answer, found while the move runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use postgres::{Client, Config, NoTls, Statement};

use crate::clock::Clock;
use crate::data::Flight;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// Clients of the carrier that moves.
    Moved,
    Others,
}

#[derive(Clone, Copy)]
pub struct Sample {
    pub lane: Lane,
    pub start_us: u64,
    pub took_us: u64,
}

/// What a client knows of one row of its own.
pub struct Known {
    pub id: i64,
    /// Row of the file that it is, or that it repeats a year later.
    pub template: i64,
    pub dep_delay: Option<i16>,
    pub arr_delay: Option<i16>,
}

/// What a client brings home.
pub struct Book {
    pub carrier: String,
    pub rows: Vec<Known>,
    pub samples: Vec<Sample>,
    pub inserts: u64,
    pub updates: u64,
    pub deletes: u64,
    pub reads: u64,
    pub failed: Vec<String>,
    pub wrong: Vec<String>,
}

/// Live figures for the progress lines.
#[derive(Default)]
pub struct Meter {
    transactions: AtomicU64,
    largest_us: AtomicU64,
}

impl Meter {
    fn count(&self, took_us: u64) {
        self.transactions.fetch_add(1, Ordering::Relaxed);
        self.largest_us.fetch_max(took_us, Ordering::Relaxed);
    }

    /// Transactions and the largest latency since the last call.
    pub fn take(&self) -> (u64, u64) {
        (
            self.transactions.swap(0, Ordering::Relaxed),
            self.largest_us.swap(0, Ordering::Relaxed),
        )
    }
}

pub struct Order<'a> {
    pub carrier: &'a str,
    pub lane: Lane,
    pub clients: usize,
}

pub struct Writers {
    stop: Arc<AtomicBool>,
    pub meter: Arc<Meter>,
    threads: Vec<JoinHandle<Result<Book>>>,
}

impl Writers {
    /// Connects and prepares everything, then lets all clients begin together.
    pub fn start(
        config: &Config,
        flights: &[Flight],
        orders: &[Order],
        clock: Clock,
    ) -> Result<Self> {
        let total: usize = orders.iter().map(|order| order.clients).sum();
        let barrier = Arc::new(Barrier::new(total));
        let mut writers = Self {
            stop: Arc::default(),
            meter: Arc::default(),
            threads: Vec::with_capacity(total),
        };
        let mut ready = Vec::with_capacity(total);
        for order in orders {
            for share in 0..order.clients {
                let number = ready.len() as i64 + 1;
                let own = flights
                    .iter()
                    .filter(|row| {
                        row.carrier == order.carrier && row.id as usize % order.clients == share
                    })
                    .cloned()
                    .collect();
                ready.push(Writer::connect(config, number, order, own)?);
            }
        }
        for mut writer in ready {
            let (stop, meter, barrier) =
                (writers.stop.clone(), writers.meter.clone(), barrier.clone());
            writers.threads.push(std::thread::spawn(move || {
                barrier.wait();
                while !stop.load(Ordering::Relaxed) {
                    let pause_us = writer.random(2_000) + 500;
                    std::thread::sleep(Duration::from_micros(pause_us));
                    writer.transaction(clock, &meter)?;
                }
                Ok(writer.book)
            }));
        }
        Ok(writers)
    }

    pub fn stop(mut self) -> Result<Vec<Book>> {
        self.stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads);
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a client panicked"))?)
            .collect()
    }
}

impl Drop for Writers {
    /// On the way out of an error: let the clients end before the server does.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

struct Statements {
    insert: Statement,
    update: Statement,
    delete: Statement,
    select: Statement,
}

struct Writer {
    client: Client,
    statements: Statements,
    lane: Lane,
    templates: Vec<Flight>,
    next_id: i64,
    random: u64,
    book: Book,
}

/// Ids of client n begin at n billion: far above the file's row numbers, never the same in two clients.
const IDS_PER_CLIENT: i64 = 1_000_000_000;
/// A client that only fails would fill memory with its messages.
const FAILURES_MAX: usize = 1_000;

impl Writer {
    fn connect(config: &Config, number: i64, order: &Order, own: Vec<Flight>) -> Result<Self> {
        if own.is_empty() {
            bail!(
                "carrier {} has no flights for client {number}",
                order.carrier
            );
        }
        let mut config = config.clone();
        let mut client = config
            .application_name(&format!("client {number} ({})", order.carrier))
            .connect(NoTls)
            .context("a client cannot connect")?;
        let statements = Statements {
            insert: client.prepare(
                "INSERT INTO flights (id, carrier, year, month, day, sched_dep_time, sched_arr_time, flight, \
                 tailnum, origin, dest, distance, hour, minute, time_hour) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, \
                 $15::text::timestamptz + interval '1 year')",
            )?,
            update: client.prepare(
                "UPDATE flights SET dep_delay = $3, arr_delay = $4 WHERE carrier = $1 AND id = $2",
            )?,
            delete: client.prepare("DELETE FROM flights WHERE carrier = $1 AND id = $2")?,
            select: client.prepare(
                "SELECT dep_delay, arr_delay FROM flights WHERE carrier = $1 AND id = $2",
            )?,
        };
        let rows = own.iter().map(|flight| Known {
            id: flight.id,
            template: flight.id,
            dep_delay: flight.dep_delay,
            arr_delay: flight.arr_delay,
        });
        let book = Book {
            carrier: order.carrier.to_owned(),
            rows: rows.collect(),
            samples: Vec::with_capacity(100_000),
            inserts: 0,
            updates: 0,
            deletes: 0,
            reads: 0,
            failed: Vec::new(),
            wrong: Vec::new(),
        };
        Ok(Self {
            client,
            statements,
            lane: order.lane,
            templates: own,
            next_id: number * IDS_PER_CLIENT,
            random: number as u64 * 0x9E37_79B9_7F4A_7C15,
            book,
        })
    }

    /// xorshift: the same run of choices each time.
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn transaction(&mut self, clock: Clock, meter: &Meter) -> Result<()> {
        let kind = self.random(100);
        let start_us = clock.now_us();
        let start = Instant::now();
        let done = match kind {
            0..35 => self.schedule(),
            35..70 => self.delay(),
            70..80 => self.strike(),
            _ => self.look_up(),
        };
        let took_us = start.elapsed().as_micros() as u64;
        meter.count(took_us);
        self.book.samples.push(Sample {
            lane: self.lane,
            start_us,
            took_us,
        });
        if let Err(error) = done {
            if self.book.failed.len() >= FAILURES_MAX || self.client.is_closed() {
                return Err(error).context("a client gave up");
            }
            self.book.failed.push(describe(&error));
        }
        Ok(())
    }

    fn schedule(&mut self) -> Result<(), postgres::Error> {
        let choice = self.random(self.templates.len() as u64) as usize;
        let flight = &self.templates[choice];
        let id = self.next_id;
        self.next_id += 1;
        self.client.execute(
            &self.statements.insert,
            &[
                &id,
                &flight.carrier,
                &(flight.year + 1),
                &flight.month,
                &flight.day,
                &flight.sched_dep_time,
                &flight.sched_arr_time,
                &flight.flight,
                &flight.tailnum,
                &flight.origin,
                &flight.dest,
                &flight.distance,
                &flight.hour,
                &flight.minute,
                &flight.time_hour,
            ],
        )?;
        self.book.inserts += 1;
        self.book.rows.push(Known {
            id,
            template: flight.id,
            dep_delay: None,
            arr_delay: None,
        });
        Ok(())
    }

    fn delay(&mut self) -> Result<(), postgres::Error> {
        let row = self.any_row();
        let delay = self.random(300) as i16 - 20;
        let known = &mut self.book.rows[row];
        let changed = self.client.execute(
            &self.statements.update,
            &[&self.book.carrier, &known.id, &delay, &(delay + 5)],
        )?;
        known.dep_delay = Some(delay);
        known.arr_delay = Some(delay + 5);
        self.book.updates += 1;
        if changed != 1 {
            self.book
                .wrong
                .push(format!("UPDATE of id {} changed {changed} rows", known.id));
        }
        Ok(())
    }

    fn strike(&mut self) -> Result<(), postgres::Error> {
        let row = self.any_row();
        let id = self.book.rows[row].id;
        let changed = self
            .client
            .execute(&self.statements.delete, &[&self.book.carrier, &id])?;
        self.book.rows.swap_remove(row);
        self.book.deletes += 1;
        if changed != 1 {
            self.book
                .wrong
                .push(format!("DELETE of id {id} removed {changed} rows"));
        }
        Ok(())
    }

    fn look_up(&mut self) -> Result<(), postgres::Error> {
        let row = self.any_row();
        let known = &self.book.rows[row];
        let found = self
            .client
            .query(&self.statements.select, &[&self.book.carrier, &known.id])?;
        self.book.reads += 1;
        let told: Vec<_> = found.iter().map(|row| (row.get(0), row.get(1))).collect();
        if told != [(known.dep_delay, known.arr_delay)] {
            self.book
                .wrong
                .push(format!("SELECT of id {} returned {told:?}", known.id));
        }
        Ok(())
    }

    /// Deletes are rarer than inserts, so there is always a row.
    fn any_row(&mut self) -> usize {
        let count = self.book.rows.len() as u64;
        self.random(count) as usize
    }
}

pub fn describe(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{}: {}", error.code().code(), error.message()),
        None => error.to_string(),
    }
}

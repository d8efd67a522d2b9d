//! The clients: each departure an INSERT, each landing an UPDATE, in small transactions as their time comes.
//!
//! A client owns its share of the flights, so that a landing never overtakes its departure. One that was held
//! up does not make up for it in a burst, which would be a load that is not there: it goes on a little faster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use postgres::{Client, Config, NoTls, Statement};

use super::timetable::{Event, Kind};
use crate::clock::Clock;
use crate::data::Flight;
use crate::writers::describe;

pub const CLIENTS: usize = 4;
/// What was written is counted in stretches of this length.
pub const BIN_US: u64 = 100_000;
/// Between two looks at what is due.
const BEAT: Duration = Duration::from_millis(20);
const ROWS_MAX: usize = 400;
/// Held up for less than this it does all at once: that is the same hour of the replay.
const SHORT: Duration = Duration::from_millis(200);
/// Faster than the clock by this factor while behind.
const CATCH_UP: f64 = 1.1;
const FAILURES_MAX: usize = 1_000;

/// Rows written in a stretch, by airport in the order of the regions.
pub type Bin = [u16; AIRPORTS];
/// At least as many as there are.
pub const AIRPORTS: usize = 112;

#[derive(Clone, Copy)]
pub struct Sample {
    pub start_us: u64,
    pub took_us: u64,
}

/// What a client brings home.
#[derive(Default)]
pub struct Book {
    pub bins: Vec<Bin>,
    pub samples: Vec<Sample>,
    pub inserts: u64,
    pub updates: u64,
    pub failed: Vec<String>,
    pub wrong: Vec<String>,
    /// How far it ever was behind its timetable.
    pub behind_us: u64,
}

impl Book {
    fn count(&mut self, at_us: u64, events: &[Event]) {
        let number = (at_us / BIN_US) as usize;
        if self.bins.len() <= number {
            self.bins.resize(number + 1, [0; AIRPORTS]);
        }
        let Some(bin) = self.bins.get_mut(number) else {
            return;
        };
        for event in events {
            if let Some(count) = bin.get_mut(event.airport as usize) {
                *count += 1;
            }
        }
    }
}

/// All clients' books in one.
pub fn sum(books: Vec<Book>) -> Book {
    let mut all = Book::default();
    for book in books {
        if all.bins.len() < book.bins.len() {
            all.bins.resize(book.bins.len(), [0; AIRPORTS]);
        }
        for (sum, bin) in all.bins.iter_mut().zip(&book.bins) {
            for (sum, count) in sum.iter_mut().zip(bin) {
                *sum += count;
            }
        }
        all.samples.extend(book.samples);
        all.inserts += book.inserts;
        all.updates += book.updates;
        all.failed.extend(book.failed);
        all.wrong.extend(book.wrong);
        all.behind_us = all.behind_us.max(book.behind_us);
    }
    all.samples.sort_by_key(|sample| sample.start_us);
    all
}

/// For the commentary.
#[derive(Default)]
pub struct Meter {
    pub rows: AtomicU64,
    pub largest_us: AtomicU64,
    done: AtomicU64,
}

impl Meter {
    pub fn all_done(&self) -> bool {
        self.done.load(Ordering::Relaxed) == CLIENTS as u64
    }
}

pub struct Clients {
    stop: Arc<AtomicBool>,
    pub meter: Arc<Meter>,
    threads: Vec<JoinHandle<Result<Book>>>,
}

impl Clients {
    /// Connects and prepares everything; they begin when the clock says `begin_us`.
    pub fn start(
        config: &Config,
        flights: &Arc<Vec<Flight>>,
        events: &[Event],
        clock: Clock,
        begin_us: u64,
    ) -> Result<Self> {
        let mut clients = Self {
            stop: Arc::default(),
            meter: Arc::default(),
            threads: Vec::with_capacity(CLIENTS),
        };
        for number in 0..CLIENTS {
            let own = (events.iter())
                .filter(|event| event.flight as usize % CLIENTS == number)
                .copied()
                .collect();
            let mut one = One::connect(config, number + 1, flights.clone(), own)?;
            let (stop, meter) = (clients.stop.clone(), clients.meter.clone());
            clients.threads.push(std::thread::spawn(move || {
                let outcome = one.play(clock, begin_us, &stop, &meter);
                meter.done.fetch_add(1, Ordering::Relaxed);
                outcome?;
                Ok(one.book)
            }));
        }
        Ok(clients)
    }

    /// Waits for them, or, if they have not done all, stops them.
    pub fn stop(mut self) -> Result<Book> {
        self.stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads);
        let books: Result<Vec<Book>> = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a client panicked"))?)
            .collect();
        Ok(sum(books?))
    }
}

impl Drop for Clients {
    /// On the way out of an error: let the clients end before the server does.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

struct One {
    client: Client,
    insert: Statement,
    update: Statement,
    flights: Arc<Vec<Flight>>,
    events: Vec<Event>,
    book: Book,
}

const INSERT: &str = "
INSERT INTO flights (id, dest, carrier, flight, tailnum, origin, time_hour, dep_time, dep_delay, sched_arr_time, distance)
SELECT n.id, n.dest, n.carrier, n.flight, n.tailnum, n.origin, n.time_hour::timestamptz, n.dep_time, n.dep_delay,
       n.sched_arr_time, n.distance
  FROM unnest($1::bigint[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::text[], $7::text[],
              $8::smallint[], $9::smallint[], $10::smallint[], $11::smallint[])
       n (id, dest, carrier, flight, tailnum, origin, time_hour, dep_time, dep_delay, sched_arr_time, distance)";

const UPDATE: &str = "
UPDATE flights f SET arr_time = n.arr_time, arr_delay = n.arr_delay, air_time = n.air_time
  FROM unnest($1::text[], $2::bigint[], $3::smallint[], $4::smallint[], $5::smallint[])
       n (dest, id, arr_time, arr_delay, air_time)
 WHERE f.dest = n.dest AND f.id = n.id";

impl One {
    fn connect(
        config: &Config,
        number: usize,
        flights: Arc<Vec<Flight>>,
        events: Vec<Event>,
    ) -> Result<Self> {
        let mut config = config.clone();
        let mut client = config
            .application_name(&format!("client {number}"))
            .connect(NoTls)
            .context("a client cannot connect")?;
        // Row by row through the key, as single statements would, while the tables are still small.
        client.batch_execute(
            "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off",
        )?;
        Ok(Self {
            insert: client.prepare(INSERT)?,
            update: client.prepare(UPDATE)?,
            client,
            flights,
            events,
            book: Book::default(),
        })
    }

    fn play(
        &mut self,
        clock: Clock,
        begin_us: u64,
        stop: &AtomicBool,
        meter: &Meter,
    ) -> Result<()> {
        std::thread::sleep(Duration::from_micros(
            begin_us.saturating_sub(clock.now_us()),
        ));
        let mut next = 0;
        // Where in the timetable it is; behind the clock if it was held up.
        let mut at_us = 0.0_f64;
        let mut last = Instant::now();
        while next < self.events.len() && !stop.load(Ordering::Relaxed) {
            let passed = last.elapsed();
            last = Instant::now();
            let real_us = clock.now_us().saturating_sub(begin_us) as f64;
            at_us = real_us.min(at_us + passed.min(SHORT).as_secs_f64() * 1e6 * CATCH_UP);
            let behind_us = (real_us - at_us) as u64;
            self.book.behind_us = self.book.behind_us.max(behind_us);
            let due = self.events[next..]
                .iter()
                .take(ROWS_MAX)
                .take_while(|event| event.at_us as f64 <= at_us)
                .count();
            if due == 0 {
                std::thread::sleep(BEAT);
                continue;
            }
            let events = self.events[next..next + due].to_vec();
            next += due;
            let (start_us, start) = (clock.now_us(), Instant::now());
            let done = self.write(&events);
            let took_us = start.elapsed().as_micros() as u64;
            self.book.samples.push(Sample { start_us, took_us });
            meter.rows.fetch_add(due as u64, Ordering::Relaxed);
            meter.largest_us.fetch_max(took_us, Ordering::Relaxed);
            match done {
                Ok(()) => self
                    .book
                    .count(clock.now_us().saturating_sub(begin_us), &events),
                Err(error) => {
                    if self.book.failed.len() >= FAILURES_MAX || self.client.is_closed() {
                        return Err(error).context("a client gave up");
                    }
                    self.book.failed.push(describe(&error));
                }
            }
            // The rest of the beat: transactions of single rows would only be more of the same.
            std::thread::sleep(BEAT.saturating_sub(last.elapsed()));
        }
        Ok(())
    }

    fn write(&mut self, events: &[Event]) -> Result<(), postgres::Error> {
        let flights = &self.flights;
        let of = |kind: Kind| -> Vec<(&Event, &Flight)> {
            (events.iter().filter(|event| event.kind == kind))
                .filter_map(|event| Some((event, flights.get(event.flight as usize)?)))
                .collect()
        };
        let (departing, landing) = (of(Kind::Departs), of(Kind::Lands));
        let ids = |of: &[(&Event, &Flight)]| -> Vec<i64> {
            of.iter().map(|(event, _)| event.id(flights)).collect()
        };
        let mut transaction = self.client.transaction()?;
        if !departing.is_empty() {
            let inserted = transaction.execute(
                &self.insert,
                &[
                    &ids(&departing),
                    &column(&departing, |_, flight| flight.dest.as_str()),
                    &column(&departing, |event, flight| event.carrier(flight)),
                    &column(&departing, |_, flight| flight.flight),
                    &column(&departing, |_, flight| flight.tailnum.as_deref()),
                    &column(&departing, |_, flight| flight.origin.as_str()),
                    &column(&departing, |_, flight| flight.time_hour.as_str()),
                    &column(&departing, |_, flight| flight.dep_time),
                    &column(&departing, |_, flight| flight.dep_delay),
                    &column(&departing, |_, flight| flight.sched_arr_time),
                    &column(&departing, |_, flight| flight.distance),
                ],
            )?;
            self.book.inserts += inserted;
        }
        if !landing.is_empty() {
            let updated = transaction.execute(
                &self.update,
                &[
                    &column(&landing, |_, flight| flight.dest.as_str()),
                    &ids(&landing),
                    &column(&landing, |_, flight| flight.arr_time),
                    &column(&landing, |_, flight| flight.arr_delay),
                    &column(&landing, |_, flight| flight.air_time),
                ],
            )?;
            self.book.updates += updated;
            if updated != landing.len() as u64 {
                (self.book.wrong).push(format!(
                    "{} flights landed, UPDATE changed {updated}",
                    landing.len()
                ));
            }
        }
        transaction.commit()
    }
}

fn column<'a, T>(
    rows: &[(&'a Event, &'a Flight)],
    of: impl Fn(&'a Event, &'a Flight) -> T,
) -> Vec<T> {
    rows.iter()
        .map(|(event, flight)| of(event, flight))
        .collect()
}

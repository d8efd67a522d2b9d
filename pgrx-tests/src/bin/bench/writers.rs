//! Clients that write rows of their own, and keep books, while the tenant goes to and fro all the time:
//! no transaction fails, and in the end the table holds what the books say.

use super::report::{Report, largest, median};
use super::tables::{self, MOVED, OTHER, TABLESPACE};
use postgres::Statement;
use postgres::types::ToSql;
use shadowpart_tests::{Dice, Result, Server, Session, ensure};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

const CLIENTS: i64 = 8;
/// Swaps and reverts in turn, so many together.
const SWAPS: u32 = 200;
/// The clients' ids begin above those of the rows that were there before.
const FIRST_ID: i64 = 1_000_000_000;

// With tenant, id and value of a row. Each finds the row only as it is in the book.
const INSERT: &str = "INSERT INTO t VALUES ($1, $2, $3, 0, 0, 0, 'written')";
const UPDATE: &str = "UPDATE t SET a = a + 1 WHERE tenant = $1 AND id = $2 AND a = $3";
const DELETE: &str = "DELETE FROM t WHERE tenant = $1 AND id = $2 AND a = $3";
const LOCK: &str = "SELECT FROM t WHERE tenant = $1 AND id = $2 AND a = $3 FOR UPDATE";
const ALL: [&str; 4] = [INSERT, UPDATE, DELETE, LOCK];

/// Tenant, id and value, as in the table's columns tenant, id and a.
type Row = (i32, i64, i32);

struct Client {
    session: Session,
    prepared: HashMap<&'static str, Statement>,
    dice: Dice,
    next_id: i64,
    /// The rows that are there after all that was committed.
    book: Vec<Row>,
    transactions: usize,
    failures: Vec<String>,
}

impl Client {
    fn new(server: &Server, number: i64) -> Result<Self> {
        // Every second client has plans that know nothing of the values.
        let mode = ["auto", "force_generic_plan"][number as usize % 2];
        let options = format!("-c plan_cache_mode={mode}");
        let mut session = server.connect_with("postgres", "postgres", &options)?;
        let mut prepared = HashMap::new();
        for sql in ALL {
            prepared.insert(sql, session.prepare(sql)?);
        }
        Ok(Self {
            prepared,
            session,
            dice: Dice::new(number as u64),
            next_id: FIRST_ID + number,
            book: Vec::new(),
            transactions: 0,
            failures: Vec::new(),
        })
    }

    /// Runs a statement, prepared or not, that must touch exactly the one row.
    fn touch(&mut self, sql: &str, (tenant, id, a): Row) -> Result<()> {
        let values: [&(dyn ToSql + Sync); 3] = [&tenant, &id, &a];
        let count = if self.dice.one_in(2) {
            self.session.execute(&self.prepared[sql], &values)?
        } else {
            let sql = sql
                .replace("$1", &tenant.to_string())
                .replace("$2", &id.to_string())
                .replace("$3", &a.to_string());
            self.session.count_of(&sql)?
        };
        ensure!(count == 1, "{count} rows, not 1: {sql}");
        Ok(())
    }

    fn transact(&mut self) -> Result<()> {
        let sql = *self.dice.pick(&ALL);
        if sql == INSERT || self.book.is_empty() {
            let row = (*self.dice.pick(&[MOVED, OTHER]), self.next_id, 1);
            self.next_id += CLIENTS;
            self.touch(INSERT, row)?;
            self.book.push(row);
            return Ok(());
        }
        let index = self.dice.below(self.book.len() as u64) as usize;
        let row = self.book[index];
        if sql == LOCK {
            self.session.run("BEGIN")?;
            self.touch(LOCK, row)?;
            self.touch(UPDATE, row)?;
            self.session.run("COMMIT")?;
        } else {
            self.touch(sql, row)?;
        }
        if sql == DELETE {
            self.book.swap_remove(index);
        } else {
            self.book[index].2 += 1;
        }
        Ok(())
    }

    fn work(mut self, stop: &AtomicBool) -> Self {
        while !stop.load(Ordering::Relaxed) {
            self.transactions += 1;
            if let Err(error) = self.transact() {
                self.failures.push(format!("{error:#}"));
                if self.session.run("ROLLBACK").is_err() {
                    break;
                }
            }
        }
        self
    }
}

/// Rows of the table that are in no book, and the other way round.
fn differences(session: &mut Session, clients: &[Client]) -> Result<usize> {
    let sql = format!("SELECT tenant, id, a FROM t WHERE id >= {FIRST_ID}");
    let rows = session.query(&sql, &[])?;
    let rows = rows.iter().map(|r| (r.get(0), r.get(1), r.get(2)));
    let rows: Vec<Row> = rows.collect();
    let found: BTreeSet<Row> = rows.iter().copied().collect();
    let books: BTreeSet<Row> = clients.iter().flat_map(|c| &c.book).copied().collect();
    let twice = rows.len() - found.len();
    Ok(twice + found.symmetric_difference(&books).count())
}

pub fn measure(server: &mut Server, report: &mut Report, rows: u64) -> Result<()> {
    server.tablespace(TABLESPACE)?;
    let mut session = server.connect()?;
    let id = tables::with_shadow(&mut session, (rows / 10).max(1000))?;
    let others = format!("SELECT count(*) || ' ' || sum(a) FROM t WHERE id < {FIRST_ID}");
    let before = session.value(&others)?;

    let clients: Vec<Client> = (0..CLIENTS)
        .map(|number| Client::new(server, number))
        .collect::<Result<_>>()?;
    let stop = &AtomicBool::new(false);
    let begin = Instant::now();
    let (moved, clients) = std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .map(|client| scope.spawn(move || client.work(stop)))
            .collect();
        let moved = (0..SWAPS).try_for_each(|n| match n % 2 {
            0 => session.swap(id),
            _ => session.revert(id),
        });
        stop.store(true, Ordering::Relaxed);
        let clients = threads.into_iter().map(|t| t.join().expect("no panic"));
        (moved, clients.collect::<Vec<Client>>())
    });
    let lasted = begin.elapsed().as_secs_f64();
    moved?;

    let transactions: usize = clients.iter().map(|c| c.transactions).sum();
    let failures: Vec<&String> = clients.iter().flat_map(|c| &c.failures).collect();
    let first = failures.first().map(|f| format!(": {f}"));
    report.zero(
        format!("failed of {transactions} transactions of {CLIENTS} writers"),
        failures.len(),
        &first.unwrap_or_default(),
    );
    let others_too = usize::from(before != session.value(&others)?);
    let wrong = differences(&mut session, &clients)? + others_too;
    report.zero("rows of which table and books differ", wrong, "");
    let apart = session.count_of(&format!("SELECT * FROM shadow_verify({id})"))?;
    report.zero("rows of which both sides differ", apart as usize, "");
    let took = tables::last_swaps(&mut session, id, SWAPS)?;
    let done = took.len();
    report.note(
        format!("{done} swaps and reverts among {CLIENTS} writers, in {lasted:.0} s"),
        format!("{:.2} ms (max {:.2})", median(&took), largest(&took)),
    );
    Ok(())
}

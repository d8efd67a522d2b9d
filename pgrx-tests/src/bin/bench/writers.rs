//! Clients that write rows of their own, and keep books, while the tenant goes to and fro all the time:
//! no transaction fails, and in the end the table holds what the books say.

use super::report::{Report, largest, median};
use super::tables::{self, MOVED, OTHER, TABLESPACE};
use postgres::{Statement, types::ToSql};
use shadowpart_tests::{Dice, Result, Server, Session, ensure};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

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
        let prepare = |sql| Ok((sql, session.prepare(sql)?));
        let prepared = ALL.into_iter().map(prepare).collect::<Result<_>>()?;
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
            let sql = sql.replace("$1", &tenant.to_string());
            let sql = sql.replace("$2", &id.to_string());
            self.session.count_of(&sql.replace("$3", &a.to_string()))?
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
        if sql == DELETE {
            self.touch(DELETE, row)?;
            self.book.swap_remove(index);
            return Ok(());
        }
        if sql == LOCK {
            self.session.run("BEGIN")?;
            self.touch(LOCK, row)?;
            self.touch(UPDATE, row)?;
            self.session.run("COMMIT")?;
        } else {
            self.touch(UPDATE, row)?;
        }
        self.book[index].2 += 1;
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

fn all_rows(session: &mut Session) -> Result<Vec<Row>> {
    let rows = session.query("SELECT tenant, id, a FROM t", &[])?;
    let rows = rows.iter().map(|r| (r.get(0), r.get(1), r.get(2)));
    Ok(rows.collect())
}

pub fn measure(server: &mut Server, report: &mut Report, rows: u64) -> Result<()> {
    server.tablespace(TABLESPACE)?;
    let mut session = server.connect()?;
    let id = tables::with_shadow(&mut session, "t", (rows / 10).max(1000))?;
    let before = all_rows(&mut session)?;
    let clients = (0..CLIENTS).map(|number| Client::new(server, number));
    let clients: Vec<Client> = clients.collect::<Result<_>>()?;
    let stop = &AtomicBool::new(false);
    let clients = std::thread::scope(|scope| {
        let start = |client: Client| scope.spawn(move || client.work(stop));
        let threads: Vec<_> = clients.into_iter().map(start).collect();
        let moved = (0..SWAPS).try_for_each(|n| match n % 2 {
            0 => session.swap(id),
            _ => session.revert(id),
        });
        stop.store(true, Ordering::Relaxed);
        let clients = threads.into_iter().map(|t| t.join().expect("no panic"));
        let clients: Vec<Client> = clients.collect();
        moved.map(|()| clients)
    })?;
    let transactions: usize = clients.iter().map(|c| c.transactions).sum();
    let failures: Vec<&String> = clients.iter().flat_map(|c| &c.failures).collect();
    let first = failures.first().map_or("".into(), |f| format!(": {f}"));
    let what = format!("failed of {transactions} transactions of {CLIENTS} writers");
    report.zero(what, failures.len(), &first);
    let rows = all_rows(&mut session)?;
    let found: BTreeSet<&Row> = rows.iter().collect();
    let books = clients.iter().flat_map(|c| &c.book);
    let books = books.chain(&before).collect();
    let wrong = found.symmetric_difference(&books).count() + rows.len() - found.len();
    report.zero("rows of which table and books differ", wrong, "");
    let apart = session.count_of(&format!("SELECT * FROM shadow_verify({id})"))?;
    report.zero("rows of which both sides differ", apart as usize, "");
    let took = tables::last_swaps(&mut session, id, SWAPS, "took_ms")?;
    report.note(
        format!("{SWAPS} swaps and reverts among {CLIENTS} writers"),
        format!("{:.2} ms (max {:.2})", median(&took), largest(&took)),
    );
    Ok(())
}

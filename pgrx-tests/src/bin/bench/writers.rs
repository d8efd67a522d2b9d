//! Clients that write rows of their own, and keep books, while the tenant goes to and fro all the time:
//! no transaction fails, and in the end the table holds what the books say.

use super::report::{Report, largest, median};
use super::tables::{self, MOVED, OTHER, TABLESPACE};
use postgres::Statement;
use postgres::types::ToSql;
use shadowpart_tests::{Context, Dice, Result, Server, Session, ensure};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

const CLIENTS: i64 = 8;
/// Swaps and reverts in turn, so many together.
const SWAPS: u32 = 200;
/// The clients' ids begin above those of the rows that were there before.
const FIRST_ID: i64 = 1_000_000_000;
const BOOK_MAX: usize = 300;
/// A client that fails and fails is not waited for.
const FAILURES_MAX: usize = 100;

const INSERT: usize = 0;
const UPDATE: usize = 1;
const DELETE: usize = 2;
const LOCK: usize = 3;

/// With tenant, id and value of a row. Each finds the row only as it is in the book.
const STATEMENTS: [&str; 4] = [
    "INSERT INTO t VALUES ($1, $2, $3, 0, 0, 0, 'written')",
    "UPDATE t SET a = a + 1 WHERE tenant = $1 AND id = $2 AND a = $3",
    "DELETE FROM t WHERE tenant = $1 AND id = $2 AND a = $3",
    "SELECT FROM t WHERE tenant = $1 AND id = $2 AND a = $3 FOR UPDATE",
];

/// Tenant, id and value, as in the table's columns tenant, id and a.
type Row = (i32, i64, i32);

struct Client {
    session: Session,
    prepared: Vec<Statement>,
    dice: Dice,
    number: i64,
    inserted: i64,
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
        Ok(Self {
            prepared: STATEMENTS
                .iter()
                .map(|sql| session.prepare(sql))
                .collect::<Result<_, _>>()?,
            session,
            dice: Dice::new(number as u64),
            number,
            inserted: 0,
            book: Vec::new(),
            transactions: 0,
            failures: Vec::new(),
        })
    }

    /// Runs a statement, prepared or not, that must touch exactly the one row.
    fn touch(&mut self, kind: usize, (tenant, id, a): Row) -> Result<()> {
        let values: [&(dyn ToSql + Sync); 3] = [&tenant, &id, &a];
        let count = if self.dice.one_in(2) {
            self.session.execute(&self.prepared[kind], &values)?
        } else {
            let sql = STATEMENTS[kind]
                .replace("$1", &tenant.to_string())
                .replace("$2", &id.to_string())
                .replace("$3", &a.to_string());
            self.session.count_of(&sql)?
        };
        ensure!(count == 1, "{count} rows, not 1: {}", STATEMENTS[kind]);
        Ok(())
    }

    fn transact(&mut self) -> Result<()> {
        let kind = match self.book.len() {
            0 => INSERT,
            BOOK_MAX.. => DELETE,
            _ => self.dice.below(STATEMENTS.len() as u64) as usize,
        };
        if kind == INSERT {
            self.inserted += 1;
            let id = FIRST_ID + self.inserted * CLIENTS + self.number;
            let row = (*self.dice.pick(&[MOVED, OTHER]), id, 1);
            self.touch(INSERT, row)?;
            self.book.push(row);
            return Ok(());
        }
        let index = self.dice.below(self.book.len() as u64) as usize;
        let row = self.book[index];
        if kind == LOCK {
            self.session.run("BEGIN")?;
            self.touch(LOCK, row)?;
            self.touch(UPDATE, row)?;
            self.session.run("COMMIT")?;
        } else {
            self.touch(kind, row)?;
        }
        if kind == DELETE {
            self.book.swap_remove(index);
        } else {
            self.book[index].2 += 1;
        }
        Ok(())
    }

    fn work(mut self, stop: &AtomicBool) -> Self {
        while !stop.load(Ordering::Relaxed) && self.failures.len() < FAILURES_MAX {
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
    let rows: Vec<Row> = session
        .query(&sql, &[])?
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    let found: BTreeSet<Row> = rows.iter().copied().collect();
    let books: BTreeSet<Row> = clients.iter().flat_map(|c| &c.book).copied().collect();
    let twice = rows.len() - found.len();
    Ok(twice + found.symmetric_difference(&books).count())
}

pub fn measure(server: &mut Server, report: &mut Report, rows: u64) -> Result<()> {
    server.tablespace(TABLESPACE)?;
    let mut session = server.connect()?;
    tables::create(&mut session, "t")?;
    session.run("CREATE INDEX ON t (a)")?;
    for tenant in [MOVED, OTHER] {
        tables::fill(&mut session, "t", tenant, (rows / 10).max(1000))?;
    }
    tables::settle(&mut session, &["t"])?;
    tables::manage(&mut session, "t")?;
    let id = session.create_shadow("t", &MOVED.to_string(), TABLESPACE)?;
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
            0 => session.swap(id).with_context(|| format!("swap {n}")),
            _ => session.revert(id).with_context(|| format!("swap {n}")),
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
        format!("failed of {transactions} transactions of {CLIENTS} writers, {SWAPS} swaps"),
        failures.len(),
        &first.unwrap_or_default(),
    );
    let wrong =
        differences(&mut session, &clients)? + usize::from(before != session.value(&others)?);
    report.zero(
        "differences between the writers' books and the table",
        wrong,
        "",
    );
    let apart = session.count_of(&format!("SELECT * FROM shadow_verify({id})"))?;
    report.zero("differences between both sides", apart as usize, "");
    let mut stalls = tables::events(&mut session, id, "swap", "took_ms")?;
    stalls.append(&mut tables::events(&mut session, id, "revert", "took_ms")?);
    report.note(
        format!(
            "{} swaps and reverts among {CLIENTS} writers, {lasted:.0} s",
            stalls.len()
        ),
        format!("{:.2} ms (max {:.2})", median(&stalls), largest(&stalls)),
    );
    Ok(())
}

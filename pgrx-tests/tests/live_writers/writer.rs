//! A client that writes rows of its own and knows exactly what it wrote.

use crate::{ACCOUNTS, Shape, TENANTS};
use shadowpart_tests::*;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ids of one writer are this far apart, so that no two writers share one.
const WRITERS: i64 = 16;
const ROWS_MAX: usize = 400;

/// What a writer has committed: its rows, id to tenant and value.
pub struct Book {
    number: i64,
    rows: BTreeMap<i64, (i32, i64)>,
    next: i64,
    pub transactions: u64,
}

impl Book {
    /// The table holds exactly the rows of the book.
    pub fn compare(&self, session: &mut Session) -> Result<()> {
        let sql = format!(
            "SELECT id, tenant, v FROM stock WHERE writer = {} ORDER BY id",
            self.number
        );
        let mut expected = self.rows.iter();
        for row in session.query(&sql, &[])? {
            let found: (i64, (i32, i64)) = (row.get(0), (row.get(1), row.get(2)));
            let wanted = expected.next().map(|(id, row)| (*id, *row));
            ensure!(
                wanted == Some(found),
                "writer {}: {found:?}, not {wanted:?}",
                self.number
            );
        }
        let left = expected.next();
        ensure!(left.is_none(), "writer {}: {left:?} is lost", self.number);
        Ok(())
    }

    fn new_id(&mut self) -> i64 {
        self.next += 1;
        self.next * WRITERS + self.number
    }

    fn any_id(&self, dice: &mut Dice) -> Option<i64> {
        let ids: Vec<i64> = self.rows.keys().copied().collect();
        (!ids.is_empty()).then(|| *dice.pick(&ids))
    }
}

pub struct Writer<'a> {
    session: Session,
    dice: Dice,
    book: Book,
    shape: &'a Shape,
    insert: postgres::Statement,
    update: postgres::Statement,
    lock: postgres::Statement,
    delete: postgres::Statement,
}

/// Writes until told to stop; gives the book.
pub fn write(server: &Server, shape: &Shape, number: i64, stop: &AtomicBool) -> Result<Book> {
    // Every second client always has generic plans, which know nothing of the values.
    let mode = if number % 2 == 0 {
        "force_generic_plan"
    } else {
        "auto"
    };
    let mut session = server.connect_with(
        "postgres",
        "postgres",
        &format!("-c plan_cache_mode={mode}"),
    )?;
    let insert = session.prepare(
        "INSERT INTO stock VALUES ($1, $2::bigint, date '2024-01-01' + ($2::bigint % 60)::int, $3, $4, 'prepared')",
    )?;
    let update = session.prepare("UPDATE stock SET v = $3 WHERE tenant = $1 AND id = $2")?;
    let lock = session.prepare("SELECT v FROM stock WHERE tenant = $1 AND id = $2 FOR UPDATE")?;
    let delete = session.prepare("DELETE FROM stock WHERE tenant = $1 AND id = $2")?;
    let book = Book {
        number,
        rows: BTreeMap::new(),
        next: 0,
        transactions: 0,
    };
    let dice = Dice::new(number as u64 + 100);
    let mut writer = Writer {
        session,
        dice,
        book,
        shape,
        insert,
        update,
        lock,
        delete,
    };
    while !stop.load(Ordering::Relaxed) {
        let kind = writer.dice.below(16);
        writer
            .step(kind)
            .with_context(|| format!("step of kind {kind}"))?;
        writer.book.transactions += 1;
    }
    Ok(writer.book)
}

impl Writer<'_> {
    fn tenant(&mut self) -> i32 {
        // Half of all writes go to the tenants that move.
        let all = if self.dice.one_in(2) {
            2
        } else {
            TENANTS as u64
        };
        1 + self.dice.below(all) as i32
    }

    /// A row of one's own: id, tenant and value; none if there is none yet.
    fn own(&mut self) -> Option<(i64, i32, i64)> {
        let id = self.book.any_id(&mut self.dice)?;
        let (tenant, v) = self.book.rows[&id];
        Some((id, tenant, v))
    }

    fn touch(&mut self, sql: &str, rows: u64) -> Result<()> {
        let touched = self.session.count_of(sql)?;
        ensure!(touched == rows, "{touched} rows, not {rows}: {sql}");
        Ok(())
    }

    fn step(&mut self, kind: u64) -> Result<()> {
        if self.book.rows.len() > ROWS_MAX {
            return self.delete_many();
        }
        match kind {
            0 | 1 => self.insert_prepared(),
            2 => self.insert_many(),
            3 => self.copy(),
            4 => self.upsert(),
            5 => self.merge(),
            6 | 7 => self.update_prepared(),
            8 => self.change_tenant(),
            9 => self.lock_and_update(),
            10 => self.delete_one(),
            11 => self.rolled_back(),
            12 => self.savepoints(),
            13 => self.two_phases(),
            14 => self.transfer(),
            _ => self.book.compare(&mut self.session),
        }
    }

    fn insert_prepared(&mut self) -> Result<()> {
        let (id, tenant) = (self.book.new_id(), self.tenant());
        let number = self.book.number as i32;
        let rows = self
            .session
            .execute(&self.insert, &[&tenant, &id, &number, &7_i64])?;
        ensure!(rows == 1, "{rows} rows inserted");
        self.book.rows.insert(id, (tenant, 7));
        Ok(())
    }

    /// New rows as VALUES, not yet in the book.
    fn new_rows(&mut self, count: usize) -> (Vec<(i64, i32, i64)>, String) {
        let rows: Vec<(i64, i32, i64)> = (0..count)
            .map(|n| (self.book.new_id(), self.tenant(), n as i64))
            .collect();
        (rows.clone(), values(&rows, self.book.number))
    }

    fn insert_many(&mut self) -> Result<()> {
        let (rows, values) = self.new_rows(9);
        self.touch(&format!("INSERT INTO stock VALUES {values}"), 9)?;
        self.enter(&rows);
        Ok(())
    }

    fn enter(&mut self, rows: &[(i64, i32, i64)]) {
        for (id, tenant, v) in rows {
            self.book.rows.insert(*id, (*tenant, *v));
        }
    }

    fn copy(&mut self) -> Result<()> {
        let (rows, _) = self.new_rows(20);
        let mut copy = self
            .session
            .copy_in("COPY stock (tenant, id, at, writer, v) FROM STDIN")?;
        for (id, tenant, v) in &rows {
            writeln!(
                copy,
                "{tenant}\t{id}\t{}\t{}\t{v}",
                date(*id),
                self.book.number
            )?;
        }
        let copied = copy.finish()?;
        ensure!(copied == 20, "{copied} rows copied");
        self.enter(&rows);
        Ok(())
    }

    fn upsert(&mut self) -> Result<()> {
        let (mut rows, _) = self.new_rows(2);
        if let Some((id, tenant, v)) = self.own() {
            rows.push((id, tenant, v + 1));
        }
        let sql = format!(
            "INSERT INTO stock VALUES {} ON CONFLICT ({}) DO UPDATE SET v = excluded.v, note = 'again'",
            values(&rows, self.book.number),
            self.shape.key
        );
        self.touch(&sql, rows.len() as u64)?;
        self.enter(&rows);
        Ok(())
    }

    fn merge(&mut self) -> Result<()> {
        let (mut rows, _) = self.new_rows(2);
        if let Some((id, tenant, v)) = self.own() {
            rows.push((id, tenant, v + 5));
        }
        let sql = format!(
            "MERGE INTO stock t USING (VALUES {}) AS s (tenant, id, at, writer, v, note)
             ON t.tenant = s.tenant AND t.id = s.id
             WHEN MATCHED THEN UPDATE SET v = s.v
             WHEN NOT MATCHED THEN INSERT VALUES (s.tenant, s.id, s.at, s.writer, s.v, s.note)",
            values(&rows, self.book.number)
        );
        self.touch(&sql, rows.len() as u64)?;
        self.enter(&rows);
        Ok(())
    }

    fn update_prepared(&mut self) -> Result<()> {
        let Some((id, tenant, v)) = self.own() else {
            return Ok(());
        };
        let rows = self
            .session
            .execute(&self.update, &[&tenant, &id, &(v + 1)])?;
        ensure!(rows == 1, "{rows} rows updated");
        self.book.rows.insert(id, (tenant, v + 1));
        Ok(())
    }

    fn change_tenant(&mut self) -> Result<()> {
        let Some((id, tenant, v)) = self.own() else {
            return Ok(());
        };
        let new = self.tenant();
        self.touch(
            &format!("UPDATE stock SET tenant = {new} WHERE tenant = {tenant} AND id = {id}"),
            1,
        )?;
        self.book.rows.insert(id, (new, v));
        Ok(())
    }

    fn lock_and_update(&mut self) -> Result<()> {
        let Some((id, tenant, v)) = self.own() else {
            return Ok(());
        };
        let mut transaction = self.session.transaction()?;
        let found: i64 = transaction.query_one(&self.lock, &[&tenant, &id])?.get(0);
        ensure!(found == v, "locked {found}, not {v}");
        let rows = transaction.execute(&self.update, &[&tenant, &id, &(v * 2 % 1000)])?;
        ensure!(rows == 1, "{rows} rows updated under a lock");
        transaction.commit()?;
        self.book.rows.insert(id, (tenant, v * 2 % 1000));
        Ok(())
    }

    fn delete_one(&mut self) -> Result<()> {
        let Some((id, tenant, _)) = self.own() else {
            return Ok(());
        };
        let rows = self.session.execute(&self.delete, &[&tenant, &id])?;
        ensure!(rows == 1, "{rows} rows deleted");
        self.book.rows.remove(&id);
        Ok(())
    }

    fn delete_many(&mut self) -> Result<()> {
        let number = self.book.number;
        let keep: i64 = self.book.next * WRITERS / 2;
        let gone = self
            .book
            .rows
            .keys()
            .filter(|id| **id < keep || **id % 3 == 0)
            .count();
        self.touch(
            &format!("DELETE FROM stock WHERE writer = {number} AND (id < {keep} OR id % 3 = 0)"),
            gone as u64,
        )?;
        self.book.rows.retain(|id, _| *id >= keep && *id % 3 != 0);
        Ok(())
    }

    fn rolled_back(&mut self) -> Result<()> {
        let (_, values) = self.new_rows(3);
        self.session.run("BEGIN")?;
        self.touch(&format!("INSERT INTO stock VALUES {values}"), 3)?;
        let mine = self.book.rows.len() as u64 + 3;
        self.touch(
            &format!("DELETE FROM stock WHERE writer = {}", self.book.number),
            mine,
        )?;
        self.session.run("ROLLBACK")
    }

    fn savepoints(&mut self) -> Result<()> {
        let (kept, values) = self.new_rows(2);
        let (_, lost) = self.new_rows(2);
        let mine = self.book.rows.len() as u64;
        self.session.run("BEGIN")?;
        self.touch(&format!("INSERT INTO stock VALUES {values}"), 2)?;
        self.session.run("SAVEPOINT a")?;
        self.touch(&format!("INSERT INTO stock VALUES {lost}"), 2)?;
        let all = format!(
            "UPDATE stock SET v = v + 1 WHERE writer = {}",
            self.book.number
        );
        self.touch(&all, mine + 4)?;
        self.session.run("ROLLBACK TO a; SAVEPOINT b")?;
        self.touch(&all, mine + 2)?;
        self.session.run("RELEASE b; COMMIT")?;
        self.enter(&kept);
        self.book.rows.values_mut().for_each(|row| row.1 += 1);
        Ok(())
    }

    fn two_phases(&mut self) -> Result<()> {
        let (rows, values) = self.new_rows(2);
        let name = format!("w{}_{}", self.book.number, self.book.next);
        self.session.run("BEGIN")?;
        self.touch(&format!("INSERT INTO stock VALUES {values}"), 2)?;
        self.session.run(&format!("PREPARE TRANSACTION '{name}'"))?;
        let commit = self.dice.one_in(2);
        let verb = if commit { "COMMIT" } else { "ROLLBACK" };
        self.session.run(&format!("{verb} PREPARED '{name}'"))?;
        if commit {
            self.enter(&rows);
        }
        Ok(())
    }

    /// Moves money between two accounts that all writers share, locked in one order.
    fn transfer(&mut self) -> Result<()> {
        let mut ids = [0, 0].map(|_: i32| 1 + self.dice.below(ACCOUNTS as u64) as i64);
        ids.sort_unstable();
        if ids[0] == ids[1] {
            return Ok(());
        }
        let account = |n: i64| (1 + (n % i64::from(TENANTS)) as i32, -n);
        let amount = 1 + self.dice.below(9) as i64;
        let mut transaction = self.session.transaction()?;
        for (n, change) in [(ids[0], -amount), (ids[1], amount)] {
            let (tenant, id) = account(n);
            let v: i64 = transaction.query_one(&self.lock, &[&tenant, &id])?.get(0);
            let rows = transaction.execute(&self.update, &[&tenant, &id, &(v + change)])?;
            ensure!(rows == 1, "{rows} accounts updated");
        }
        Ok(transaction.commit()?)
    }
}

/// The date of a row: the same for the same id, as it is part of the key in one layout.
fn date(id: i64) -> String {
    let day = id.rem_euclid(60);
    if day < 31 {
        format!("2024-01-{:02}", day + 1)
    } else {
        format!("2024-02-{:02}", day - 30)
    }
}

fn values(rows: &[(i64, i32, i64)], writer: i64) -> String {
    let rows: Vec<String> = rows
        .iter()
        .map(|(id, tenant, v)| {
            format!(
                "({tenant}, {id}, date '{}', {writer}, {v}, repeat('v', {}))",
                date(*id),
                id % 300
            )
        })
        .collect();
    rows.join(", ")
}

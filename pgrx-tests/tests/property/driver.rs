//! Several sessions in step, one statement at a time: each is done to the table and to its twin in
//! the same transaction, so that any snapshot must show the same rows in both.

use crate::statements::{MISTAKE, SESSIONS, Statements};
use shadowpart_tests::*;
use std::io::Write;

const OPERATIONS_MAX: u32 = 8;
const HISTORY_SHOWN: usize = 40;

struct Hand {
    session: Session,
    /// In a transaction, since that many operations.
    open: Option<u32>,
    savepoints: u32,
}

pub struct Driver<'a> {
    server: &'a Server,
    twin: &'a Twin,
    statements: Statements<'a>,
    dice: Dice,
    hands: Vec<Hand>,
    prepared: u32,
    history: Vec<String>,
}

impl<'a> Driver<'a> {
    pub fn new(server: &'a Server, orders: &'a Orders, twin: &'a Twin, dice: Dice) -> Result<Self> {
        let mut hands = Vec::new();
        for number in 0..SESSIONS {
            let mode = if number % 2 == 0 {
                "auto"
            } else {
                "force_generic_plan"
            };
            // A statement that waits for long waits for a lock that nobody gives back.
            let options = format!("-c plan_cache_mode={mode} -c lock_timeout=30s");
            let session = server.connect_with("postgres", "postgres", &options)?;
            hands.push(Hand {
                session,
                open: None,
                savepoints: 0,
            });
        }
        let statements = Statements::new(orders);
        Ok(Self {
            server,
            twin,
            statements,
            dice,
            hands,
            prepared: 0,
            history: Vec::new(),
        })
    }

    pub fn history(&self) -> String {
        let shown = self.history.len().saturating_sub(HISTORY_SHOWN);
        format!("the last statements:\n{}", self.history[shown..].join("\n"))
    }

    fn note(&mut self, hand: usize, sql: &str) {
        let short: String = sql.split_whitespace().collect::<Vec<_>>().join(" ");
        self.history.push(format!(
            "  {hand}: {}",
            short.chars().take(400).collect::<String>()
        ));
    }

    fn run(&mut self, hand: usize, sql: &str) -> Result<()> {
        self.note(hand, sql);
        self.hands[hand].session.run(sql)
    }

    /// One random operation of one random session.
    pub fn operate(&mut self) -> Result<()> {
        let hand = self.dice.below(SESSIONS) as usize;
        match self.hands[hand].open {
            None => self.begin(hand)?,
            Some(count) if count >= OPERATIONS_MAX => return self.finish(hand),
            Some(_) => {}
        }
        self.hands[hand].open = self.hands[hand].open.map(|count| count + 1);
        match self.dice.below(24) {
            0..=11 => self.statement(hand),
            12 => self.copy(hand),
            13 | 14 => self.savepoint(hand),
            15 => self.compare_here(hand),
            16 => self.compare_elsewhere(),
            17 => self.truncate(hand),
            18 => self.pause(),
            19 => self.terminate_a_worker(),
            _ => self.finish(hand),
        }
    }

    fn begin(&mut self, hand: usize) -> Result<()> {
        let level = *self.dice.pick(&[
            "READ COMMITTED",
            "READ COMMITTED",
            "REPEATABLE READ",
            "SERIALIZABLE",
        ]);
        self.run(hand, &format!("BEGIN ISOLATION LEVEL {level}"))?;
        if self.dice.one_in(3) {
            // A snapshot that is older than what it will look at.
            self.run(hand, "SELECT 1 FROM pg_class LIMIT 1")?;
        }
        self.hands[hand].open = Some(0);
        self.hands[hand].savepoints = 0;
        Ok(())
    }

    fn finish(&mut self, hand: usize) -> Result<()> {
        self.hands[hand].open = None;
        match self.dice.below(8) {
            0 => self.run(hand, "ROLLBACK"),
            1 => {
                self.prepared += 1;
                let name = format!("p{}", self.prepared);
                let verb = if self.dice.one_in(2) {
                    "COMMIT"
                } else {
                    "ROLLBACK"
                };
                self.run(hand, &format!("PREPARE TRANSACTION '{name}'"))
                    .and_then(|()| self.run(hand, &format!("{verb} PREPARED '{name}'")))
                    .or_else(|error| forgive_serialization(error).map(|_| ()))
            }
            _ => self
                .run(hand, "COMMIT")
                .or_else(|error| forgive_serialization(error).map(|_| ())),
        }
    }

    /// After an error the transaction is over, on both sides.
    fn abandon(&mut self, hand: usize) -> Result<()> {
        self.hands[hand].open = None;
        self.run(hand, "ROLLBACK")
    }

    fn statement(&mut self, hand: usize) -> Result<()> {
        let sql = self.statements.random(&mut self.dice, hand as u64);
        if sql.contains(MISTAKE) {
            return self.mistake(hand, &sql);
        }
        let extended = !sql.contains(';') && self.dice.one_in(2);
        let mut counts = Vec::new();
        for schema in ["live", "twin"] {
            let sql = sql.replace("{s}", schema);
            self.note(hand, &sql);
            let session = &mut self.hands[hand].session;
            let outcome = if extended {
                session.execute(&sql, &[]).map_err(anyhow::Error::from)
            } else {
                session.count_of(&sql)
            };
            match outcome {
                Ok(count) => counts.push(count),
                Err(error) => {
                    forgive_serialization(error)?;
                    return self.abandon(hand);
                }
            }
        }
        ensure!(
            counts[0] == counts[1],
            "{counts:?} rows, managed and twin: {sql}"
        );
        Ok(())
    }

    /// What is refused on one side is refused on the other, from the same start and for the same
    /// reason; and the transaction goes on from there.
    fn mistake(&mut self, hand: usize, sql: &str) -> Result<()> {
        let mut outcomes = Vec::new();
        self.run(hand, "SAVEPOINT mistake")?;
        for schema in ["live", "twin"] {
            let outcome = self.run(hand, &sql.replace("{s}", schema));
            outcomes.push(match outcome {
                Ok(()) => "fine".to_owned(),
                Err(error) => sqlstate(&error)
                    .context("no error of the server")?
                    .to_owned(),
            });
            self.run(hand, "ROLLBACK TO SAVEPOINT mistake")?;
        }
        if outcomes.iter().any(|outcome| outcome == "40001") {
            return self.abandon(hand);
        }
        let known = ["fine", "23505"].contains(&outcomes[0].as_str());
        ensure!(
            known && outcomes[0] == outcomes[1],
            "{outcomes:?}, managed and twin: {sql}"
        );
        self.run(hand, "RELEASE SAVEPOINT mistake")
    }

    fn copy(&mut self, hand: usize) -> Result<()> {
        let count = 1 + self.dice.below(30);
        let mut lines = String::new();
        for _ in 0..count {
            let id = self.statements.new_id(hand as u64);
            let tenant = self.statements.orders.tenant(self.dice.below(5) as usize);
            let tenant = tenant.replace('\\', "\\\\");
            lines.push_str(&format!(
                "{}\t{tenant}\t{id}\t2024-01-{:02}\n",
                id % 3,
                1 + id % 30
            ));
        }
        for schema in ["live", "twin"] {
            let sql = format!("COPY {schema}.orders (region, tenant, id, at) FROM STDIN");
            self.note(hand, &sql);
            let mut writer = self.hands[hand].session.copy_in(&sql)?;
            writer.write_all(lines.as_bytes())?;
            match writer.finish() {
                Ok(copied) => ensure!(copied == count, "{copied} rows copied, not {count}"),
                Err(error) => {
                    forgive_serialization(error.into())?;
                    return self.abandon(hand);
                }
            }
        }
        Ok(())
    }

    /// Savepoints s1, s2, ... as deep as `savepoints` says.
    fn savepoint(&mut self, hand: usize) -> Result<()> {
        let depth = self.hands[hand].savepoints;
        let (depth, sql) = match self.dice.below(3) {
            // ROLLBACK TO keeps the savepoint itself and forgets the deeper ones.
            0 if depth > 0 => {
                let to = 1 + self.dice.below(u64::from(depth)) as u32;
                (to, format!("ROLLBACK TO SAVEPOINT s{to}"))
            }
            1 if depth > 0 => (depth - 1, format!("RELEASE SAVEPOINT s{depth}")),
            _ => (depth + 1, format!("SAVEPOINT s{}", depth + 1)),
        };
        self.hands[hand].savepoints = depth;
        self.run(hand, &sql)
    }

    fn compare_here(&mut self, hand: usize) -> Result<()> {
        self.note(hand, "-- compare here");
        match self.twin.assert_same_here(&mut self.hands[hand].session) {
            Ok(()) => Ok(()),
            Err(error) if sqlstate(&error) == Some("40001") => self.abandon(hand),
            Err(error) => Err(error),
        }
    }

    fn compare_elsewhere(&mut self) -> Result<()> {
        self.note(99, "-- compare in all levels and plans");
        let mut session = self.server.connect()?;
        self.twin.assert_same(&mut session)
    }

    /// Needs the table for itself: only when no other session is in a transaction.
    fn truncate(&mut self, hand: usize) -> Result<()> {
        let alone = self
            .hands
            .iter()
            .enumerate()
            .all(|(n, other)| n == hand || other.open.is_none());
        if !alone || !self.dice.one_in(2) {
            return self.statement(hand);
        }
        for schema in ["live", "twin"] {
            self.run(hand, &format!("TRUNCATE {schema}.orders"))?;
        }
        // Not for long: others wait for it.
        self.finish(hand)
    }

    fn pause(&mut self) -> Result<()> {
        std::thread::sleep(std::time::Duration::from_millis(self.dice.below(150)));
        Ok(())
    }

    fn terminate_a_worker(&mut self) -> Result<()> {
        if !self.dice.one_in(3) {
            return Ok(());
        }
        self.note(99, "-- terminate workers");
        self.server.connect()?.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type ILIKE '%shadowpart%'",
        )
    }

    /// Ends all transactions.
    pub fn end(&mut self) -> Result<()> {
        for hand in 0..self.hands.len() {
            if self.hands[hand].open.is_some() {
                self.run(hand, "COMMIT")
                    .or_else(|error| forgive_serialization(error).map(|_| ()))?;
                self.hands[hand].open = None;
            }
        }
        Ok(())
    }
}

/// A serialization failure may happen to anybody above READ COMMITTED; everything else may not.
fn forgive_serialization(error: anyhow::Error) -> Result<()> {
    if sqlstate(&error) == Some("40001") {
        Ok(())
    } else {
        Err(error)
    }
}

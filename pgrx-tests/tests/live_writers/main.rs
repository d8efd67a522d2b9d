//! Clients write and read as hard as they can while a mover migrates, reverts and finalizes under
//! them. No transaction fails; every statement touches exactly the rows that the client's own
//! bookkeeping says; every reader, in every isolation level and by every kind of plan, sees sums that
//! no write ever changes.

mod reader;
mod writer;

use shadowpart_tests::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Rows with ids below 0 are accounts: writers move money between them, and the sum stays.
pub const ACCOUNTS: i64 = 240;
pub const MONEY: i64 = ACCOUNTS * 1000;
pub const TENANTS: i32 = 6;

pub struct Shape {
    partition_by: &'static str,
    pub key: &'static str,
    partitions: &'static str,
}

const BY_LIST: Shape = Shape {
    partition_by: "LIST (tenant)",
    key: "tenant, id",
    partitions: "CREATE TABLE stock_a PARTITION OF stock FOR VALUES IN (1, 2, 3);
                 CREATE TABLE stock_rest PARTITION OF stock DEFAULT",
};

const BY_HASH: Shape = Shape {
    partition_by: "HASH (tenant)",
    key: "tenant, id",
    partitions: "CREATE TABLE stock_0 PARTITION OF stock FOR VALUES WITH (MODULUS 2, REMAINDER 0);
                 CREATE TABLE stock_1 PARTITION OF stock FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
};

const BY_MONTH: Shape = Shape {
    partition_by: "RANGE (at)",
    key: "tenant, id, at",
    partitions: "CREATE TABLE stock_01 PARTITION OF stock FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
                 CREATE TABLE stock_02 PARTITION OF stock FOR VALUES FROM ('2024-02-01') TO (MAXVALUE)",
};

fn prepare(server: &Server, shape: &Shape) -> Result<()> {
    server.tablespace("fast")?;
    let mut session = server.connect()?;
    session.run(&format!(
        "CREATE TABLE stock (
             tenant int NOT NULL, id bigint NOT NULL, at date NOT NULL, writer int, v bigint NOT NULL, note text,
             PRIMARY KEY ({})) PARTITION BY {};
         {};
         CREATE INDEX stock_writer ON stock (writer);
         CREATE TABLE keys AS SELECT 1 + n % {TENANTS} AS tenant, -n AS id FROM generate_series(1, {ACCOUNTS}) n;
         INSERT INTO stock SELECT tenant, id, date '2024-01-01' + (-id % 60)::int, NULL, 1000, repeat('n', 50)
             FROM keys;
         INSERT INTO stock SELECT 1 + n % {TENANTS}, 1000000000 + n, '2024-01-15', NULL, 0, repeat('n', 200)
             FROM generate_series(1, 6000) n;
         ANALYZE",
        shape.key, shape.partition_by, shape.partitions
    ))
}

/// Runs writers and readers beside `mover` until it is done, then compares all bookkeeping.
fn beside(
    server: &Server,
    shape: &Shape,
    mover: impl FnOnce(&mut Session) -> Result<()>,
) -> Result<()> {
    prepare(server, shape)?;
    let stop = &AtomicBool::new(false);
    let mut books = Vec::new();
    let mut reads = 0;
    let mut failures = Vec::new();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|number| {
                scope.spawn(move || stopping(stop, writer::write(server, shape, number, stop)))
            })
            .collect();
        let readers: Vec<_> = LEVELS
            .iter()
            .map(|level| scope.spawn(move || stopping(stop, reader::read(server, level, stop))))
            .collect();
        let moved = server.connect().and_then(|mut session| mover(&mut session));
        stop.store(true, Ordering::Relaxed);
        if let Err(error) = moved {
            failures.push(error.context("the mover"));
        }
        for (number, writer) in writers.into_iter().enumerate() {
            match writer.join().expect("writers do not panic") {
                Ok(book) => books.push(book),
                Err(error) => failures.push(error.context(format!("writer {number}"))),
            }
        }
        for (level, reader) in LEVELS.iter().zip(readers) {
            match reader.join().expect("readers do not panic") {
                Ok(count) => reads += count,
                Err(error) => failures.push(error.context(format!("reader in {level}"))),
            }
        }
    });
    let told: Vec<String> = failures.iter().map(|error| format!("{error:#}")).collect();
    ensure!(told.is_empty(), "{}", told.join("\n---\n"));

    let mut session = server.connect()?;
    let transactions: u64 = books.iter().map(|book| book.transactions).sum();
    println!("{transactions} transactions and {reads} reads beside it");
    ensure!(
        transactions > 100 && reads > 20,
        "too little went on: {transactions} and {reads}"
    );
    for book in &books {
        book.compare(&mut session)?;
    }
    let total = session.value("SELECT count(*) || ' ' || sum(v) FROM stock WHERE id < 0")?;
    ensure!(
        total == format!("{ACCOUNTS} {MONEY}"),
        "money was lost or made: {total}"
    );
    Ok(())
}

/// One that fails ends the whole run, so that the failure is near in the log.
fn stopping<T>(stop: &AtomicBool, result: Result<T>) -> Result<T> {
    if result.is_err() {
        stop.store(true, Ordering::Relaxed);
    }
    result
}

fn manage(session: &mut Session) -> Result<()> {
    session.run("SELECT shadow_manage('stock', 'tenant')")
}

/// A whole life, again and again for some seconds.
fn lives(session: &mut Session, seconds: u64) -> Result<()> {
    manage(session)?;
    let begin = Instant::now();
    let mut target = "fast";
    let mut swaps = 0;
    while begin.elapsed() < Duration::from_secs(seconds) {
        let id = session.number(&format!(
            "SELECT shadow_migrate('stock', ARRAY[1, 2], tablespace => '{target}')"
        ))?;
        session.revert(id)?;
        session.swap(id)?;
        session.finalize(id)?;
        swaps += 3;
        target = if target == "fast" {
            "pg_default"
        } else {
            "fast"
        };
    }
    println!("{swaps} swaps");
    Ok(())
}

/// A pair that swaps to and fro all the time.
fn swaps(session: &mut Session, seconds: u64) -> Result<()> {
    manage(session)?;
    let begin = Instant::now();
    let id = session.number("SELECT shadow_create('stock', ARRAY[1, 2], tablespace => 'fast')")?;
    let mut swaps = 0;
    while begin.elapsed() < Duration::from_secs(seconds) {
        session.swap(id)?;
        session.revert(id)?;
        swaps += 2;
    }
    println!("{swaps} swaps");
    ensure!(swaps >= 10, "only {swaps} swaps in {seconds} s");
    session.drop_shadow(id)
}

/// Entities come to a standing shadow and leave it, and what is left is swapped there and back.
fn resizes(session: &mut Session, seconds: u64) -> Result<()> {
    manage(session)?;
    let begin = Instant::now();
    let id = session.number("SELECT shadow_create('stock', ARRAY[1, 2], tablespace => 'fast')")?;
    let mut rounds = 0;
    while begin.elapsed() < Duration::from_secs(seconds) {
        session.run(&format!("SELECT shadow_add_entities({id}, ARRAY[3, 4])"))?;
        assert_equal_sides(session, id)?;
        session.swap(id)?;
        session.revert(id)?;
        session.run(&format!("SELECT shadow_remove_entities({id}, ARRAY[1, 3])"))?;
        assert_equal_sides(session, id)?;
        session.swap(id)?;
        session.revert(id)?;
        session.run(&format!("SELECT shadow_add_entities({id}, 1)"))?;
        assert_equal_sides(session, id)?;
        session.run(&format!("SELECT shadow_remove_entities({id}, 4)"))?;
        rounds += 1;
    }
    println!("{rounds} rounds");
    ensure!(rounds > 0, "not one round in {seconds} s");
    session.drop_shadow(id)
}

fn assert_equal_sides(session: &mut Session, id: i64) -> Result<()> {
    let different = session.rows(&format!("SELECT * FROM shadow_verify({id})"))?;
    ensure!(different.is_empty(), "the sides differ: {different:?}");
    Ok(())
}

/// Whole partitions to and fro.
fn whole_partitions(session: &mut Session, seconds: u64) -> Result<()> {
    manage(session)?;
    let begin = Instant::now();
    let mut target = "fast";
    while begin.elapsed() < Duration::from_secs(seconds) {
        let leaf = leaf_of(session, "stock", "tenant = 1 AND id = -6")?.remove(0);
        let id = session.number(&format!(
            "SELECT shadow_migrate('{leaf}', \"all\" => true, tablespace => '{target}')"
        ))?;
        session.revert(id)?;
        session.swap(id)?;
        session.finalize(id)?;
        target = if target == "fast" {
            "pg_default"
        } else {
            "fast"
        };
    }
    Ok(())
}

/// Clients that never pause leave few gaps on a machine with few cores. How long a gap may be waited
/// for is not what is tested here.
fn patient() -> Settings {
    Settings::default().set("shadowpart.max_stall", "1s")
}

#[test]
fn whole_lives_by_list() {
    scenario(patient(), |server| {
        beside(server, &BY_LIST, |mover| lives(mover, 15))
    });
}

#[test]
fn whole_lives_by_month() {
    scenario(patient(), |server| {
        beside(server, &BY_MONTH, |mover| lives(mover, 15))
    });
}

#[test]
fn swaps_by_hash() {
    scenario(patient(), |server| {
        beside(server, &BY_HASH, |mover| swaps(mover, 15))
    });
}

#[test]
fn resizes_by_list() {
    scenario(patient(), |server| {
        beside(server, &BY_LIST, |mover| resizes(mover, 15))
    });
}

#[test]
fn resizes_by_month() {
    scenario(patient(), |server| {
        beside(server, &BY_MONTH, |mover| resizes(mover, 15))
    });
}

#[test]
fn whole_partitions_by_list() {
    scenario(patient(), |server| {
        beside(server, &BY_LIST, |mover| whole_partitions(mover, 12))
    });
}

/// The control: the same clients, and nobody moves anything. What fails here is no fault of a swap.
#[test]
fn by_themselves() {
    let settings = Settings::default()
        .set("shared_preload_libraries", "")
        .without_extension();
    scenario(settings, |server| {
        beside(server, &BY_MONTH, |_| {
            std::thread::sleep(Duration::from_secs(3));
            Ok(())
        })
    });
}

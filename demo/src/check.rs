//! Exactness: the table against the file plus what the clients were told is committed.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context, Result};
use postgres::Client;

use crate::writers::{Book, Known};

/// The expected table, built without shadowpart: carriers nobody wrote to come from the plain copy of the file,
/// the others from the clients' books. A row that a client scheduled repeats its template a year later.
const EXPECTED: &str = "
CREATE VIEW flights_expected AS
SELECT f.* FROM flights_file f WHERE NOT EXISTS (SELECT FROM flights_written w WHERE w.carrier = f.carrier)
UNION ALL
SELECT f.id, f.year, f.month, f.day, f.dep_time, f.sched_dep_time, k.dep_delay, f.arr_time, f.sched_arr_time,
       k.arr_delay, f.carrier, f.flight, f.tailnum, f.origin, f.dest, f.air_time, f.distance, f.hour, f.minute,
       f.time_hour
  FROM flights_known k JOIN flights_file f ON f.id = k.template
 WHERE k.id = k.template
UNION ALL
SELECT k.id, f.year + 1::smallint, f.month, f.day, NULL, f.sched_dep_time, k.dep_delay, NULL, f.sched_arr_time,
       k.arr_delay, f.carrier, f.flight, f.tailnum, f.origin, f.dest, NULL, f.distance, f.hour, f.minute,
       f.time_hour + interval '1 year'
  FROM flights_known k JOIN flights_file f ON f.id = k.template
 WHERE k.id <> k.template;
ANALYZE flights_known, flights_written;
";

/// Equal rows found twice would pass the join, so the counts are compared too.
const COMPARE: &str = "
WITH compared AS (
    SELECT carrier, id,
           CASE WHEN f.year IS NULL THEN 'missing' WHEN e.year IS NULL THEN 'extra' ELSE 'different' END AS difference
      FROM flights f FULL JOIN flights_expected e USING (carrier, id)
     WHERE ROW(f.*) IS DISTINCT FROM ROW(e.*)
), counted AS (
    SELECT (SELECT count(*) FROM flights) AS found, (SELECT count(*) FROM flights_expected) AS expected
)
SELECT carrier || ' ' || id || ': ' || difference FROM compared
UNION ALL
SELECT found || ' rows, expected ' || expected FROM counted WHERE found <> expected";

/// Lays the clients' books into the database, once, after they have stopped.
pub fn prepare(client: &mut Client, books: &[Book]) -> Result<()> {
    client.batch_execute(
        "CREATE TABLE flights_known (id bigint, template bigint, dep_delay smallint, arr_delay smallint);
         CREATE TABLE flights_written (carrier text)",
    )?;
    let mut sink = client.copy_in("COPY flights_known FROM STDIN (FORMAT csv)")?;
    let mut line = String::new();
    for Known {
        id,
        template,
        dep_delay,
        arr_delay,
    } in books.iter().flat_map(|book| &book.rows)
    {
        let text = |value: &Option<i16>| value.map(|value| value.to_string()).unwrap_or_default();
        line.clear();
        writeln!(
            line,
            "{id},{template},{},{}",
            text(dep_delay),
            text(arr_delay)
        )?;
        sink.write_all(line.as_bytes())?;
    }
    sink.finish()?;
    for book in books {
        client.execute("INSERT INTO flights_written VALUES ($1)", &[&book.carrier])?;
    }
    client
        .batch_execute(EXPECTED)
        .context("cannot lay out the expected table")
}

/// Differences, in words; empty when the table is exact.
pub fn differences(client: &mut Client) -> Result<Vec<String>> {
    let rows = client
        .query(COMPARE, &[])
        .context("cannot compare the table")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// shadow_verify: primary and shadow row by row.
pub fn shadow_differences(client: &mut Client, id: i64) -> Result<Vec<String>> {
    let rows = client
        .query(
            "SELECT partition::text || ' ' || key || ': ' || difference FROM shadow_verify($1)",
            &[&id],
        )
        .context("shadow_verify failed")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

//! Exactness: the table against the timetable.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context, Result};
use postgres::Client;

use super::Check;
use super::timetable::{Event, Kind, Timetable};
use crate::data::Flight;

/// Equal rows found twice would pass the join, so the counts are compared too.
const COMPARE: &str = "
WITH compared AS (
    SELECT dest, id,
           CASE WHEN f.carrier IS NULL THEN 'missing' WHEN e.carrier IS NULL THEN 'extra' ELSE 'different' END
               AS difference
      FROM flights f FULL JOIN flights_expected e USING (dest, id)
     WHERE ROW(f.*) IS DISTINCT FROM ROW(e.*)
), counted AS (
    SELECT (SELECT count(*) FROM flights) AS found, (SELECT count(*) FROM flights_expected) AS expected
)
SELECT dest || ' ' || id || ': ' || difference FROM compared
UNION ALL
SELECT found || ' rows, expected ' || expected FROM counted WHERE found <> expected";

/// Lays out what the table has to hold: a plain table that shadowpart never sees.
pub fn prepare(client: &mut Client, flights: &[Flight], table: &Timetable) -> Result<()> {
    let mut sink = client.copy_in(
        "COPY flights_expected (id, dest, carrier, flight, tailnum, origin, time_hour, dep_time, dep_delay,
             sched_arr_time, distance, arr_time, arr_delay, air_time) FROM STDIN (FORMAT csv)",
    )?;
    let mut line = String::new();
    for event in table
        .events
        .iter()
        .filter(|event| event.kind == Kind::Departs)
    {
        let Some(flight) = flights.get(event.flight as usize) else {
            continue;
        };
        line.clear();
        describe(&mut line, event, flight, flights)?;
        sink.write_all(line.as_bytes())?;
    }
    sink.finish()?;
    client
        .batch_execute("ANALYZE flights_expected")
        .context("cannot lay out the expected table")
}

fn describe(line: &mut String, event: &Event, flight: &Flight, flights: &[Flight]) -> Result<()> {
    let text = |value: Option<i16>| value.map(|value| value.to_string()).unwrap_or_default();
    // What never landed has nothing to say of it.
    let landed = flight.air_time.is_some();
    let after = |value: Option<i16>| text(value.filter(|_| landed));
    writeln!(
        line,
        "{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
        event.id(flights),
        flight.dest,
        event.carrier(flight),
        flight.flight,
        flight.tailnum.as_deref().unwrap_or_default(),
        flight.origin,
        flight.time_hour,
        text(flight.dep_time),
        text(flight.dep_delay),
        flight.sched_arr_time,
        flight.distance,
        after(flight.arr_time),
        after(flight.arr_delay),
        after(flight.air_time),
    )?;
    Ok(())
}

/// Differences, in words; none when the table is exact.
pub fn differences(client: &mut Client, name: &'static str) -> Result<Check> {
    let rows = client
        .query(COMPARE, &[])
        .context("cannot compare the table")?;
    Ok(Check {
        name,
        differences: rows.iter().map(|row| row.get(0)).collect(),
    })
}

/// shadow_verify: primary and shadow row by row.
pub fn shadow_differences(client: &mut Client, id: i64) -> Result<Check> {
    Ok(Check {
        name: "primary and shadow (shadow_verify)",
        differences: crate::check::shadow_differences(client, id)?,
    })
}

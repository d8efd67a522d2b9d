//! The flights of 2013: read from the compressed file, laid into the partitioned table and into a plain copy.

use std::io::{Cursor, Write};

use anyhow::{Context, Result};
use postgres::Client;

/// As the file has them; the row's number goes in front as `id`.
const COLUMNS: &str = "id, year, month, day, dep_time, sched_dep_time, dep_delay, arr_time, sched_arr_time, \
                       arr_delay, carrier, flight, tailnum, origin, dest, air_time, distance, hour, minute, time_hour";

const SCHEMA: &str = "
CREATE TABLE flights (
    id              bigint NOT NULL,
    year            smallint,
    month           smallint,
    day             smallint,
    dep_time        smallint,
    sched_dep_time  smallint,
    dep_delay       smallint,
    arr_time        smallint,
    sched_arr_time  smallint,
    arr_delay       smallint,
    carrier         text NOT NULL,
    flight          integer NOT NULL,
    tailnum         text,
    origin          text NOT NULL,
    dest            text NOT NULL,
    air_time        smallint,
    distance        smallint,
    hour            smallint,
    minute          smallint,
    time_hour       timestamptz NOT NULL,
    PRIMARY KEY (carrier, id)
) PARTITION BY HASH (carrier);
CREATE TABLE flights_0 PARTITION OF flights FOR VALUES WITH (MODULUS 4, REMAINDER 0);
CREATE TABLE flights_1 PARTITION OF flights FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE flights_2 PARTITION OF flights FOR VALUES WITH (MODULUS 4, REMAINDER 2);
CREATE TABLE flights_3 PARTITION OF flights FOR VALUES WITH (MODULUS 4, REMAINDER 3);
CREATE INDEX flights_by_departure ON flights (time_hour, origin);
CREATE INDEX flights_by_aircraft ON flights (tailnum, time_hour);

-- What the file says, for the comparison at the end: a plain table that shadowpart never sees.
CREATE TABLE flights_file (LIKE flights, PRIMARY KEY (id));
";

/// One row of the file, as far as the clients need it.
#[derive(Clone)]
pub struct Flight {
    pub id: i64,
    pub year: i16,
    pub month: i16,
    pub day: i16,
    /// None: it never left.
    pub dep_time: Option<i16>,
    pub sched_dep_time: i16,
    pub dep_delay: Option<i16>,
    pub arr_time: Option<i16>,
    pub sched_arr_time: i16,
    pub arr_delay: Option<i16>,
    pub carrier: String,
    pub flight: i32,
    pub tailnum: Option<String>,
    pub origin: String,
    pub dest: String,
    /// Minutes in the air; none: it never left, or was diverted.
    pub air_time: Option<i16>,
    pub distance: i16,
    pub hour: i16,
    pub minute: i16,
    pub time_hour: String,
}

/// The flights of 2013, as they lie beside this package.
const PACKED: &[u8] = include_bytes!("../data/flights.csv.xz");

pub struct Data {
    csv: Vec<u8>,
    pub flights: Vec<Flight>,
}

impl Data {
    pub fn read() -> Result<Self> {
        let mut csv = Vec::with_capacity(32 << 20);
        lzma_rs::xz_decompress(&mut Cursor::new(PACKED), &mut csv)
            .context("cannot unpack the flights")?;

        let mut flights = Vec::with_capacity(340_000);
        for (index, record) in csv::Reader::from_reader(csv.as_slice())
            .records()
            .enumerate()
        {
            let record = record.with_context(|| format!("row {} of the flights", index + 1))?;
            let flight = parse(index as i64 + 1, &record)
                .with_context(|| format!("row {} of the flights", index + 1))?;
            flights.push(flight);
        }
        Ok(Self { csv, flights })
    }

    /// Creates the tables and loads both; returns the rows in `flights`.
    pub fn load(&self, client: &mut Client) -> Result<i64> {
        client
            .batch_execute(SCHEMA)
            .context("cannot create the tables")?;
        for table in ["flights", "flights_file"] {
            let copy = format!("COPY {table} ({COLUMNS}) FROM STDIN (FORMAT csv, NULL 'NA')");
            let mut sink = client.copy_in(&copy)?;
            let lines = self
                .csv
                .split(|byte| *byte == b'\n')
                .skip(1)
                .filter(|line| !line.is_empty());
            for (index, line) in lines.enumerate() {
                write!(sink, "{},", index + 1)?;
                sink.write_all(line)?;
                sink.write_all(b"\n")?;
            }
            sink.finish()
                .with_context(|| format!("cannot load {table}"))?;
        }
        // One at a time: VACUUM does not run in a batch, which is one transaction.
        for tidy in [
            "VACUUM ANALYZE flights",
            "VACUUM ANALYZE flights_file",
            "CHECKPOINT",
        ] {
            client.batch_execute(tidy)?;
        }
        Ok(client
            .query_one("SELECT count(*) FROM flights", &[])?
            .get(0))
    }
}

fn parse(id: i64, record: &csv::StringRecord) -> Result<Flight> {
    let text = |column: usize| record.get(column).context("too few columns");
    let number = |column: usize| -> Result<i16> { Ok(text(column)?.parse()?) };
    let maybe = |column: usize| -> Result<Option<i16>> {
        Ok(match text(column)? {
            "NA" => None,
            value => Some(value.parse()?),
        })
    };
    Ok(Flight {
        id,
        year: number(0)?,
        month: number(1)?,
        day: number(2)?,
        dep_time: maybe(3)?,
        sched_dep_time: number(4)?,
        dep_delay: maybe(5)?,
        arr_time: maybe(6)?,
        sched_arr_time: number(7)?,
        arr_delay: maybe(8)?,
        carrier: text(9)?.to_owned(),
        flight: text(10)?.parse()?,
        tailnum: Some(text(11)?)
            .filter(|value| *value != "NA")
            .map(str::to_owned),
        origin: text(12)?.to_owned(),
        dest: text(13)?.to_owned(),
        air_time: maybe(14)?,
        distance: number(15)?,
        hour: number(16)?,
        minute: number(17)?,
        time_hour: text(18)?.to_owned(),
    })
}

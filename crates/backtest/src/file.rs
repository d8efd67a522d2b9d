//! Traces from CSV files.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::trace::Trace;

/// Why a file is no trace.
#[derive(Debug)]
pub enum FileError {
    /// It could not be read.
    Read(std::io::Error),
    /// It is not CSV.
    Csv(csv::Error),
    /// A time could not be understood.
    Time {
        /// The line.
        line: u64,
        /// What stands there.
        text: String,
    },
    /// There is no column besides the time, or no row.
    Empty,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Read(error) => write!(f, "could not read the file: {error}"),
            FileError::Csv(error) => write!(f, "could not read the CSV: {error}"),
            FileError::Time { line, text } => {
                write!(
                    f,
                    "line {line}: neither a number nor an ISO time: \"{text}\""
                )
            }
            FileError::Empty => f.write_str("there are no loads in the file"),
        }
    }
}

impl std::error::Error for FileError {}

/// Reads a file: a header; then rows of a time and one load an entity, empty where none was
/// measured. What is not a number is missing. Gzip is recognised by its first bytes. Slots are
/// `step_us` long, or as long as the file's own step if that is longer; numbered steps are
/// `step_us` each.
pub fn read(path: &Path, step_us: i64) -> Result<Trace, FileError> {
    let mut file = BufReader::new(File::open(path).map_err(FileError::Read)?);
    let mut head = [0; 2];
    let length = file.read(&mut head).map_err(FileError::Read)?;
    let whole = head.get(..length).unwrap_or(&[]).chain(file);
    if head == [0x1f, 0x8b] {
        parse(MultiGzDecoder::new(whole), step_us)
    } else {
        parse(whole, step_us)
    }
}

/// Reads CSV: see [`read`].
pub fn parse(text: impl Read, step_us: i64) -> Result<Trace, FileError> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text);
    let header = reader.headers().map_err(FileError::Csv)?;
    let names: Vec<String> = header.iter().skip(1).map(str::to_owned).collect();
    let mut rows: Vec<(i64, Vec<f32>)> = Vec::new();
    let mut steps = true;
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(FileError::Csv)? {
        let text = record.get(0).unwrap_or("").trim();
        let at = time(text).ok_or_else(|| FileError::Time {
            line: record.position().map_or(0, csv::Position::line),
            text: text.to_owned(),
        })?;
        let at_us = match at {
            Time::Number(number) => {
                steps &= number.abs() < STEPS_MAX;
                (number * 1e6) as i64
            }
            Time::Micros(at_us) => {
                steps = false;
                at_us
            }
        };
        let load = |field: usize| {
            let text = record.get(field + 1).unwrap_or("").trim();
            text.parse::<f32>().unwrap_or(f32::NAN)
        };
        rows.push((at_us, (0..names.len()).map(load).collect()));
    }
    if names.is_empty() || rows.is_empty() {
        return Err(FileError::Empty);
    }
    let step_us = step_us.max(1);
    if steps {
        for (at_us, _) in &mut rows {
            *at_us = (i128::from(*at_us) * i128::from(step_us) / 1_000_000) as i64;
        }
    }
    let own_us = own_step(&rows);
    Ok(Trace::of(names, rows, step_us.max(own_us)))
}

/// Reads the sizes of entities: a header; then rows of entity and size. Entities that are not in the
/// file, or have no positive size there, have the mean of the others, or 1.
pub fn sizes(path: &Path, names: &[String]) -> Result<Vec<f64>, FileError> {
    let mut sizes = BTreeMap::new();
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .from_path(path)
        .map_err(FileError::Csv)?;
    for record in reader.records() {
        let record = record.map_err(FileError::Csv)?;
        let size = record
            .get(1)
            .and_then(|size| size.trim().parse::<f64>().ok());
        if let (Some(name), Some(size)) = (
            record.get(0),
            size.filter(|size| *size > 0.0 && size.is_finite()),
        ) {
            sizes.insert(name.to_owned(), size);
        }
    }
    let known: Vec<f64> = names
        .iter()
        .filter_map(|name| sizes.get(name).copied())
        .collect();
    let mean = if known.is_empty() {
        1.0
    } else {
        known.iter().sum::<f64>() / known.len() as f64
    };
    Ok(names
        .iter()
        .map(|name| sizes.get(name).copied().unwrap_or(mean))
        .collect())
}

/// Numbers below this are step numbers; above they are seconds since 1970 (this is in 1973).
const STEPS_MAX: f64 = 1e8;

/// A time in a file.
enum Time {
    Number(f64),
    Micros(i64),
}

/// Understands a number or an ISO time: `2013-01-31`, `2013-01-31 08:00[:00[.5]]`, with a T for the
/// space, with Z or an offset like +01 or -05:30. Without one it is UTC.
fn time(text: &str) -> Option<Time> {
    if let Ok(number) = text.parse::<f64>() {
        return number.is_finite().then_some(Time::Number(number));
    }
    let (date, rest) = text.split_at_checked(10)?;
    let mut date = date.split('-');
    let year: i64 = date.next()?.parse().ok()?;
    let month: i64 = date
        .next()?
        .parse()
        .ok()
        .filter(|month| (1..=12).contains(month))?;
    let day: i64 = date
        .next()?
        .parse()
        .ok()
        .filter(|day| (1..=31).contains(day))?;
    let clock = rest
        .trim_start_matches(['T', 't', ' '])
        .trim_end_matches(['Z', 'z']);
    let zone_from = clock.find(['+', '-']).unwrap_or(clock.len());
    let (clock, zone) = clock.split_at_checked(zone_from)?;
    let seconds = clock_seconds(clock)?;
    let offset = match zone.get(1..) {
        None | Some("") => 0.0,
        Some(offset) if zone.starts_with('-') => -clock_seconds(offset)?,
        Some(offset) => clock_seconds(offset)?,
    };
    let seconds = days(year, month, day) as f64 * 86_400.0 + seconds - offset;
    Some(Time::Micros((seconds * 1e6) as i64))
}

/// The seconds of hours, minutes and seconds; nothing is midnight.
fn clock_seconds(text: &str) -> Option<f64> {
    let mut seconds = 0.0;
    let mut unit = 3_600.0;
    for part in text.split(':').filter(|_| !text.is_empty()) {
        seconds += unit * part.parse::<f64>().ok()?;
        unit /= 60.0;
    }
    Some(seconds)
}

/// Days since 1970 of a date: Hinnant, *chrono-compatible low-level date algorithms*.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The distance of consecutive rows that is found most often, in microseconds; 0 without two.
fn own_step(rows: &[(i64, Vec<f32>)]) -> i64 {
    let mut times: Vec<i64> = rows.iter().map(|(at_us, _)| *at_us).collect();
    times.sort_unstable();
    let mut steps: Vec<i64> = times
        .windows(2)
        .filter_map(|pair| pair.last()?.checked_sub(*pair.first()?))
        .filter(|step| *step > 0)
        .collect();
    steps.sort_unstable();
    let most = steps
        .chunk_by(|a, b| a == b)
        .max_by_key(|equal| equal.len());
    most.and_then(|equal| equal.first().copied()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        match time(text) {
            Some(Time::Micros(at_us)) => at_us / 1_000_000,
            _ => panic!("{text} is no ISO time"),
        }
    }

    #[test]
    fn times_are_understood() {
        assert_eq!(at("1970-01-01"), 0);
        assert_eq!(at("2013-01-01 08:00:00"), 1_357_027_200);
        assert_eq!(at("2013-07-31T22:00:00Z"), 1_375_308_000);
        assert_eq!(at("2000-02-29 01:00+01"), 951_782_400);
        assert_eq!(at("2000-02-28T18:30:00.5-05:30"), 951_782_400);
        assert!(time("yesterday").is_none() && time("2013-13-01").is_none() && time("").is_none());
        assert!(time("ääääääääää").is_none() && time("NaN").is_none());
    }

    #[test]
    fn steps_seconds_and_times_make_the_same_trace() {
        let minutes5 = 300_000_000;
        let steps = parse("step,a,b\n0,1,\n1,2,x\n3,4,5\n".as_bytes(), minutes5).unwrap();
        let iso = "t,a,b\n1970-01-01 00:00,1,\n1970-01-01 00:05,2,\n1970-01-01 00:15,4,5\n";
        let iso = parse(iso.as_bytes(), minutes5).unwrap();
        assert_eq!(format!("{steps:?}"), format!("{iso:?}"));
        assert_eq!((steps.slots(), steps.entities()), (4, 2));
        let hourly = parse("t,a\n1375308000,1\n1375311600,2\n".as_bytes(), minutes5).unwrap();
        assert_eq!((hourly.step_us, hourly.slots()), (3_600_000_000, 2));
    }

    #[test]
    fn what_is_no_trace_is_an_error() {
        assert!(matches!(parse("".as_bytes(), 1), Err(FileError::Empty)));
        assert!(matches!(
            parse("t,a\n".as_bytes(), 1),
            Err(FileError::Empty)
        ));
        assert!(matches!(
            parse("t\n1\n".as_bytes(), 1),
            Err(FileError::Empty)
        ));
        assert!(matches!(
            parse("t,a\nx,1\n".as_bytes(), 1),
            Err(FileError::Time { line: 2, .. })
        ));
    }
}

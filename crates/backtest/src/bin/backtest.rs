//! What the predictor would have said, from the command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use backtest::{Options, file, run};

/// How to call it.
const USAGE: &str = "\
usage: backtest FILE.csv[.gz] [--partitions 16] [--horizon-minutes 60] [--step-minutes 5] [--seed 1] [--json]
                [--first-share 0.5] [--sizes FILE.csv] [--entities-every 1]

The first column of the file is the time: unix seconds, an ISO time or a step number. Each other
column is an entity; empty means missing. Capacities are the 95th percentile of the load, averaged
over 15 minutes, in the first part of the trace; the rest is forecast. Sizes: rows of entity, size.";

/// What was asked for.
struct Arguments {
    path: PathBuf,
    sizes: Option<PathBuf>,
    step_minutes: f64,
    json: bool,
    options: Options,
}

fn main() -> ExitCode {
    let mut given = std::env::args().skip(1);
    let arguments = match arguments(&mut given) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match backtest(&arguments) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{}: {why}", arguments.path.display());
            ExitCode::FAILURE
        }
    }
}

/// Understands the command line. None: help is wanted.
fn arguments(given: &mut impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut path = None;
    let mut arguments = Arguments {
        path: PathBuf::new(),
        sizes: None,
        step_minutes: 5.0,
        json: false,
        options: Options::default(),
    };
    let options = &mut arguments.options;
    while let Some(argument) = given.next() {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (argument.as_str(), None),
        };
        let mut value = || value.clone().or_else(|| given.next());
        match name {
            "-h" | "--help" => return Ok(None),
            "--json" => arguments.json = true,
            "--partitions" => options.partitions = number(name, value(), 1, 1_000_000)?,
            "--horizon-minutes" => options.horizon_minutes = number(name, value(), 1, 10_080)?,
            "--step-minutes" => arguments.step_minutes = number(name, value(), 0.01, 1_440.0)?,
            "--seed" => options.seed = number(name, value(), 0, u64::MAX)?,
            "--first-share" => options.first_share = number(name, value(), 0.01, 0.99)?,
            "--entities-every" => options.entities_every = number(name, value(), 1, 1_000_000)?,
            "--sizes" => arguments.sizes = value().map(PathBuf::from),
            _ if name.starts_with('-') && name.len() > 1 => {
                return Err(format!("unknown option: {name}"));
            }
            _ if path.is_none() => path = Some(PathBuf::from(argument)),
            _ => return Err("more than one file".into()),
        }
    }
    arguments.path = path.ok_or("no file")?;
    Ok(Some(arguments))
}

/// A number within bounds.
fn number<T: FromStr + PartialOrd + std::fmt::Display>(
    name: &str,
    value: Option<String>,
    min: T,
    max: T,
) -> Result<T, String> {
    let number = value.and_then(|value| value.parse().ok());
    number
        .filter(|number| *number >= min && *number <= max)
        .ok_or_else(|| format!("{name} needs a number from {min} to {max}"))
}

/// Runs the backtest and says what it found.
fn backtest(arguments: &Arguments) -> Result<String, Box<dyn std::error::Error>> {
    let step_us = (arguments.step_minutes * 6e7) as i64;
    let mut trace = file::read(&arguments.path, step_us)?;
    if let Some(path) = &arguments.sizes {
        trace.sizes = file::sizes(path, &trace.names)?;
    }
    let mut report = run(&trace, &arguments.options)?;
    report.cost.memory_peak_bytes = memory_peak_bytes();
    Ok(if arguments.json {
        serde_json::to_string_pretty(&report)?
    } else {
        report.to_string()
    })
}

/// The most memory that this process ever had, as Linux tells it.
fn memory_peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kb| kb * 1_024)
}

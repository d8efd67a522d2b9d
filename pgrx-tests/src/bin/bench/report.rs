//! The table of results, and the arithmetic on measurements.

use std::fmt;
use std::time::{Duration, Instant};

#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
    failures: usize,
}

struct Row {
    what: String,
    measured: String,
    goal: String,
    /// None: only reported, or not measured.
    met: Option<bool>,
}

impl Report {
    fn add(&mut self, what: String, measured: String, goal: String, met: Option<bool>) {
        eprintln!("  {what}: {measured}");
        self.rows.push(Row {
            what,
            measured,
            goal,
            met,
        });
    }

    /// A figure that should be at most `goal`; `more` says what lies behind it.
    pub fn at_most(
        &mut self,
        what: impl Into<String>,
        value: f64,
        unit: &str,
        goal: f64,
        more: &str,
    ) {
        let measured = format!("{value:.2}{unit}{more}");
        let goal_text = format!("<= {goal}{unit}");
        self.add(what.into(), measured, goal_text, Some(value <= goal));
    }

    pub fn at_least(
        &mut self,
        what: impl Into<String>,
        value: f64,
        unit: &str,
        goal: f64,
        more: &str,
    ) {
        let measured = format!("{value:.2}{unit}{more}");
        let goal_text = format!(">= {goal}{unit}");
        self.add(what.into(), measured, goal_text, Some(value >= goal));
    }

    /// A figure without a goal.
    pub fn note(&mut self, what: impl Into<String>, measured: String) {
        self.add(what.into(), measured, "reported".into(), None);
    }

    pub fn zero(&mut self, what: impl Into<String>, count: usize, more: &str) {
        self.add(
            what.into(),
            format!("{count}{more}"),
            "0".into(),
            Some(count == 0),
        );
    }

    pub fn failed(&mut self, group: &str, error: &anyhow::Error) {
        self.failures += 1;
        let text = format!("{error:#}");
        let line = text.lines().next().unwrap_or_default();
        let short: String = line.chars().take(100).collect();
        self.add(
            format!("{group}: not measured"),
            short,
            String::new(),
            Some(false),
        );
    }

    pub fn complete(&self) -> bool {
        self.failures == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |of: fn(&Row) -> &str, title: &str| {
            let longest = self.rows.iter().map(|row| of(row).chars().count()).max();
            longest.unwrap_or(0).max(title.len())
        };
        let a = width(|row| &row.what, "what");
        let b = width(|row| &row.measured, "measured");
        let c = width(|row| &row.goal, "goal");
        writeln!(
            f,
            "| {:a$} | {:b$} | {:c$} | met |",
            "what", "measured", "goal"
        )?;
        writeln!(f, "|{:-<a$}--|{:-<b$}--|{:-<c$}--|-----|", "", "", "")?;
        for row in &self.rows {
            let met = match row.met {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "-",
            };
            writeln!(
                f,
                "| {:a$} | {:b$} | {:c$} | {met:3} |",
                row.what, row.measured, row.goal
            )?;
        }
        Ok(())
    }
}

/// The median; of nothing it is not a number, which meets no goal.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

pub fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::max)
}

pub fn smallest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::min)
}

pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// What a piece of work took, in milliseconds.
pub fn timed<E>(work: impl FnOnce() -> Result<(), E>) -> Result<f64, E> {
    let begin = Instant::now();
    work()?;
    Ok(ms(begin.elapsed()))
}

/// Measurements of A and B that were taken in turn.
#[derive(Default)]
pub struct Pairs {
    a: Vec<f64>,
    b: Vec<f64>,
}

impl Pairs {
    pub fn add(&mut self, a: f64, b: f64) {
        self.a.push(a);
        self.b.push(b);
    }

    /// The median of A/B over the pairs.
    pub fn ratio(&self) -> f64 {
        let ratios: Vec<f64> = self.a.iter().zip(&self.b).map(|(a, b)| a / b).collect();
        median(&ratios)
    }

    /// The medians of both, for the reader to judge the ratio by.
    pub fn behind(&self, unit: &str) -> String {
        format!(" ({:.2} / {:.2}{unit})", median(&self.a), median(&self.b))
    }
}

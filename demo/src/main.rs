//! A carrier's flights move to another tablespace and back while clients write to them.
//!
//! `main` only wires: `story` acts it out, `writers` are the clients, `check` compares, `report` prints the
//! closing table, `chart` draws the picture. `replay` is the second act, in the same parts.

mod chart;
mod check;
mod clock;
mod data;
mod interrupt;
mod png;
mod replay;
mod report;
mod server;
mod story;
mod svg;
mod watch;
mod writers;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

const HELP: &str = "\
shadowpart-demo: a real carrier moves to another tablespace and back while clients write; then the year of
flights on a fast clock, and the extension finds out by itself what has to move

  shadowpart-demo             both acts; needs SHADOWPART_PG18, a pg_config where shadowpart is installed
  shadowpart-demo --act N     only the first, or only the second
  shadowpart-demo --weeks N   the second act lays the 52 weeks of the year into N (2 to 8, default 4; a week
                              takes 67 s)
  shadowpart-demo --dry-run   the first act without the extension: its functions are stand-ins that move nothing

The pictures go to ${SHADOWPART_DEMO_OUT:-./demo-output}.";

struct Options {
    first: bool,
    second: bool,
    dry_run: bool,
    weeks: u64,
}

fn options() -> Result<Option<Options>> {
    let mut options = Options {
        first: true,
        second: true,
        dry_run: false,
        weeks: replay::WEEKS,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<u64> {
            let value = arguments
                .next()
                .with_context(|| format!("{argument} needs a number"))?;
            value
                .parse()
                .with_context(|| format!("{value} is no number"))
        };
        match argument.as_str() {
            "--dry-run" => (options.dry_run, options.second) = (true, false),
            "--act" => match number()? {
                1 => options.second = false,
                2 => options.first = false,
                other => bail!("there is no act {other}"),
            },
            "--weeks" => {
                options.weeks = number()?;
                ensure!((2..=8).contains(&options.weeks), "--weeks takes 2 to 8");
            }
            "-h" | "--help" => return Ok(None),
            other => bail!("unknown argument {other}"),
        }
    }
    Ok(Some(options))
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error:#}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\ndemo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every act kept what it promises.
fn run(options: &Options) -> Result<bool> {
    let interrupt = interrupt::Interrupt::install()?;
    let mut is_clean = true;
    if options.first {
        let outcome = story::run(options.dry_run, &interrupt)?;
        report::print(&outcome);
        save("shadowpart-demo", &chart::draw(&outcome))?;
        is_clean &= outcome.is_clean();
    }
    if options.second {
        if options.first {
            println!("\nsecond act\n");
        }
        let outcome = replay::run(options.weeks, &interrupt)?;
        replay::print(&outcome);
        save("shadowpart-demo-forecast", &replay::draw(&outcome))?;
        is_clean &= outcome.broken().is_empty();
    }
    Ok(is_clean)
}

/// A picture, as SVG and as PNG.
fn save(name: &str, picture: &str) -> Result<()> {
    let folder = PathBuf::from(
        std::env::var_os("SHADOWPART_DEMO_OUT").unwrap_or_else(|| "demo-output".into()),
    );
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    for (extension, bytes) in [
        ("svg", picture.as_bytes().to_vec()),
        ("png", png::render(picture)?),
    ] {
        let path = folder.join(name).with_extension(extension);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        println!("picture: {}", path.display());
    }
    Ok(())
}

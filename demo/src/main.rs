//! A carrier's flights move to another tablespace and back while clients write to them.
//!
//! `main` only wires: `story` acts it out, `writers` are the clients, `check` compares, `report` prints the
//! closing table, `chart` draws the picture.

mod chart;
mod check;
mod clock;
mod data;
mod interrupt;
mod png;
mod report;
mod server;
mod story;
mod svg;
mod watch;
mod writers;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

const HELP: &str = "\
shadowpart-demo: a real carrier moves to another tablespace and back while clients write

  shadowpart-demo             needs SHADOWPART_PG18, a pg_config where shadowpart is installed
  shadowpart-demo --dry-run   the same without the extension: its functions are stand-ins that move nothing

The picture goes to ${SHADOWPART_DEMO_OUT:-./demo-output}.";

fn main() -> ExitCode {
    let mut dry_run = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--dry-run" => dry_run = true,
            "-h" | "--help" => {
                println!("{HELP}");
                return ExitCode::SUCCESS;
            }
            other => {
                eprintln!("unknown argument {other}\n\n{HELP}");
                return ExitCode::from(2);
            }
        }
    }
    match run(dry_run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\ndemo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every transaction succeeded and no difference was found.
fn run(dry_run: bool) -> Result<bool> {
    let interrupt = interrupt::Interrupt::install()?;
    let outcome = story::run(dry_run, &interrupt)?;
    report::print(&outcome);

    let folder = PathBuf::from(
        std::env::var_os("SHADOWPART_DEMO_OUT").unwrap_or_else(|| "demo-output".into()),
    );
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let picture = chart::draw(&outcome);
    for (extension, bytes) in [
        ("svg", picture.clone().into_bytes()),
        ("png", png::render(&picture)?),
    ] {
        let path = folder.join("shadowpart-demo").with_extension(extension);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        println!("picture: {}", path.display());
    }
    Ok(outcome.is_clean())
}

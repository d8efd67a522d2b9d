//! initdb once per version, then copies: a cluster takes 2 seconds to make and 0.1 to copy.

use crate::install::Installation;
use crate::process;
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Puts a fresh cluster into `data`, which must not exist.
pub fn copy_to(install: &Installation, data: &Path) -> Result<()> {
    let template = template(install)?;
    copy(&template, data)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    process::run(
        Command::new("cp")
            .args(["-a", "--reflink=auto"])
            .arg(from)
            .arg(to),
    )?;
    Ok(())
}

/// The template of this version, made if there is none. Tests run in several processes: a lock file
/// lets one of them make it, and it appears under its name only when it is whole.
fn template(install: &Installation) -> Result<PathBuf> {
    let user = install
        .run_as
        .as_ref()
        .map_or("self", |user| user.name.as_str());
    let label: String = install
        .version
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    let shelf = cache()?.join("clusters");
    std::fs::create_dir_all(&shelf).with_context(|| format!("mkdir {}", shelf.display()))?;
    let template = shelf.join(format!("{label}-{user}"));

    let lock = File::create(shelf.join(format!("{label}-{user}.lock")))?;
    // SAFETY: the descriptor is open as long as `lock` lives.
    let locked = unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) } == 0;
    ensure!(locked, "cannot lock");
    if !template.exists() {
        let workshop = tempfile::Builder::new()
            .prefix("shadowpart-init")
            .tempdir()?;
        install.hand_over(workshop.path())?;
        let made = workshop.path().join("data");
        process::run(
            install
                .program("initdb", workshop.path())
                .args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=trust"])
                .args(["--username=postgres", "-D"])
                .arg(&made),
        )?;
        let unfinished = template.with_extension("unfinished");
        if unfinished.exists() {
            std::fs::remove_dir_all(&unfinished)?;
        }
        copy(&made, &unfinished)?;
        std::fs::rename(&unfinished, &template)?;
    }
    Ok(template)
}

/// The cache of the project, as scripts/env.sh has it.
fn cache() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(cache) = variable("SHADOWPART_CACHE") {
        return Ok(cache.into());
    }
    if let Some(cache) = variable("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(cache).join("shadowpart"));
    }
    let home = variable("HOME").context("neither SHADOWPART_CACHE nor HOME is set")?;
    Ok(PathBuf::from(home).join(".cache/shadowpart"))
}

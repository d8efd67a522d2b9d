//! Which PostgreSQL is tested, where its programs are, and as whom they run.

use anyhow::{Context, Result, bail, ensure};
use std::ffi::CString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The user the servers run as. PostgreSQL refuses to run as root.
#[derive(Clone, Debug)]
pub struct RunAs {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Clone, Debug)]
pub struct Installation {
    pub bindir: PathBuf,
    pub sharedir: PathBuf,
    /// Major version, such as 15.
    pub major: u32,
    /// The whole version text, such as `PostgreSQL 18.6`.
    pub version: String,
    /// None: as the user who runs the tests.
    pub run_as: Option<RunAs>,
}

impl Installation {
    /// The installation that `SHADOWPART_TEST_PG` asks for.
    pub fn under_test() -> Result<Self> {
        let wanted = std::env::var("SHADOWPART_TEST_PG").unwrap_or_else(|_| "18".into());
        let variable = format!("SHADOWPART_PG{wanted}");
        let pg_config = std::env::var(&variable).with_context(|| {
            format!("set {variable} to the pg_config of the PostgreSQL {wanted} to test")
        })?;
        Self::of(Path::new(&pg_config))
    }

    /// The installation a `pg_config` describes.
    pub fn of(pg_config: &Path) -> Result<Self> {
        let version = ask(pg_config, "--version")?;
        let major = version
            .split_whitespace()
            .nth(1)
            .and_then(|number| number.split(['.', 'b', 'r', 'd']).next())
            .and_then(|major| major.parse().ok())
            .with_context(|| format!("no version in \"{version}\""))?;
        Ok(Self {
            bindir: ask(pg_config, "--bindir")?.into(),
            sharedir: ask(pg_config, "--sharedir")?.into(),
            major,
            version,
            run_as: run_as()?,
        })
    }

    pub fn has_extension(&self, name: &str) -> bool {
        self.sharedir
            .join("extension")
            .join(format!("{name}.control"))
            .exists()
    }

    /// A program of this PostgreSQL, to be run as the user of the servers in `home`.
    pub fn program(&self, name: &str, home: &Path) -> Command {
        let mut command = Command::new(self.bindir.join(name));
        command
            .current_dir(home)
            .env("HOME", home)
            .env("LC_ALL", "C")
            .env("TZ", "UTC");
        // Rust inside the server would put a backtrace into the details of its errors.
        for variable in [
            "RUST_BACKTRACE",
            "RUST_LIB_BACKTRACE",
            "PGHOST",
            "PGPORT",
            "PGDATABASE",
            "PGUSER",
            "PGOPTIONS",
            "PGSERVICE",
        ] {
            command.env_remove(variable);
        }
        if let Some(user) = &self.run_as {
            command.uid(user.uid).gid(user.gid).env("USER", &user.name);
        }
        command
    }

    /// Gives a file or directory to the user of the servers.
    pub fn hand_over(&self, path: &Path) -> Result<()> {
        if let Some(user) = &self.run_as {
            std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
                .with_context(|| format!("chown {} to {}", path.display(), user.name))?;
        }
        Ok(())
    }
}

fn ask(pg_config: &Path, what: &str) -> Result<String> {
    let output = Command::new(pg_config)
        .arg(what)
        .output()
        .with_context(|| format!("cannot run {}", pg_config.display()))?;
    ensure!(
        output.status.success(),
        "{} {what} failed",
        pg_config.display()
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn run_as() -> Result<Option<RunAs>> {
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return Ok(None);
    }
    if let Ok(name) = std::env::var("SHADOWPART_RUNAS") {
        return match look_up(&name)? {
            Some(user) => Ok(Some(user)),
            None => bail!("SHADOWPART_RUNAS names the user \"{name}\", who does not exist"),
        };
    }
    for name in ["postgres", "nobody"] {
        if let Some(user) = look_up(name)? {
            return Ok(Some(user));
        }
    }
    bail!("a server does not run as root: set SHADOWPART_RUNAS to an ordinary user")
}

fn look_up(name: &str) -> Result<Option<RunAs>> {
    let c_name = CString::new(name)?;
    let mut buffer = vec![0 as libc::c_char; 16 * 1024];
    // SAFETY: passwd is plain data, for which all zeros are a value.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: every pointer is to a live object, and the length is that of the buffer.
    let code = unsafe {
        libc::getpwnam_r(
            c_name.as_ptr(),
            &mut entry,
            buffer.as_mut_ptr(),
            buffer.len(),
            &mut found,
        )
    };
    ensure!(code == 0, "looking up the user \"{name}\": error {code}");
    Ok((!found.is_null()).then(|| RunAs {
        name: name.to_owned(),
        uid: entry.pw_uid,
        gid: entry.pw_gid,
    }))
}

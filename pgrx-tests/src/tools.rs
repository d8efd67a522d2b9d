//! PostgreSQL's own programs, run against a server: psql, pg_dump, pg_restore, pg_basebackup.

use crate::server::{Server, Settings};
use crate::{process, wait};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const REPLAY_TIMEOUT: Duration = Duration::from_secs(60);

impl Server {
    /// A program of this server's version that connects to `database`.
    pub fn tool(&self, name: &str, database: &str) -> Command {
        let mut command = self.install.program(name, self.home());
        command.arg("--dbname").arg(self.conninfo(database));
        command
    }

    /// What psql prints: unaligned, rows only.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String> {
        process::run(self.tool("psql", database).args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            sql,
        ]))
    }

    /// Dumps a database in the custom format.
    pub fn dump(&self, database: &str, name: &str, more: &[&str]) -> Result<PathBuf> {
        let path = self.file(name)?;
        process::run(
            self.tool("pg_dump", database)
                .args(["-Fc", "-f"])
                .arg(&path)
                .args(more),
        )?;
        Ok(path)
    }

    /// Makes the database and restores a dump into it; any error of the restore is an error here.
    pub fn restore(&self, dump: &Path, database: &str, more: &[&str]) -> Result<()> {
        self.connect()?
            .run(&format!("CREATE DATABASE {database}"))?;
        process::run(
            self.tool("pg_restore", database)
                .arg("--exit-on-error")
                .args(more)
                .arg(dump),
        )?;
        Ok(())
    }

    /// A streaming standby of this server, made by pg_basebackup, ready to read from.
    pub fn standby(&self, settings: Settings) -> Result<Server> {
        // A tablespace lies at its absolute path: on the same machine the standby needs another.
        let spaces = self.connect()?.rows(
            "SELECT spcname, pg_tablespace_location(oid) FROM pg_tablespace
             WHERE pg_tablespace_location(oid) <> ''",
        )?;
        let standby = Server::create_stopped(self.install.clone(), |standby| {
            let mut backup = self.tool("pg_basebackup", "postgres");
            backup.args([
                "--write-recovery-conf",
                "--wal-method=stream",
                "--checkpoint=fast",
            ]);
            backup.args(["--no-sync", "-D"]).arg(standby.data());
            for space in &spaces {
                let [Some(name), Some(path)] = space.as_slice() else {
                    continue;
                };
                let new = standby.home().join(format!("space_{name}"));
                backup.arg("-T").arg(format!("{path}={}", new.display()));
            }
            // It runs as the servers' user, to whom the standby's directory belongs.
            process::run(&mut backup)?;
            Ok(())
        })?;
        standby.begin(settings.set("hot_standby", "on").without_extension())
    }

    /// Waits until the standby shows all that this server has committed.
    pub fn wait_for_standby(&self, standby: &Server) -> Result<()> {
        let position = self
            .connect()?
            .value("SELECT pg_current_wal_insert_lsn()")?;
        self.connect()?.run("SELECT pg_switch_wal()")?;
        let mut session = standby.connect()?;
        wait::eventually("the standby has replayed", REPLAY_TIMEOUT, || {
            let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn");
            Ok(session.value(&sql)? == "t")
        })
        .context("the standby lags")
    }
}

//! The throw-away PostgreSQL: all that the demo wants from the tests' harness.

use anyhow::{Context, Result, ensure};
use postgres::{Client, Config, NoTls};
use shadowpart_tests::{Installation, Server, Settings};

use crate::clock::Clock;
use crate::interrupt::Interrupt;

/// Stands in for the extension in a dry run.
const STAND_INS: &str = include_str!("stand_ins.sql");
/// Stopped and removed when it goes out of scope.
pub struct Embedded {
    server: Server,
    config: Config,
}

impl Embedded {
    /// `extension`: settings of shadowpart.
    pub fn start(dry_run: bool, extension: &[(&str, &str)]) -> Result<Self> {
        if !dry_run {
            let install = Installation::under_test()?;
            ensure!(
                install.has_extension("shadowpart"),
                "shadowpart is not installed in {}: run make install first",
                install.version
            );
        }
        // As a server of one's own would be: durable, and with autovacuum at its usual pace.
        let settings = Settings::default()
            .set("fsync", "on")
            .set("shared_buffers", "256MB")
            .set("max_wal_size", "2GB")
            .set("checkpoint_timeout", "15min")
            .set("autovacuum_naptime", "1min")
            .without_extension();
        let settings = if dry_run {
            settings.set("shared_preload_libraries", "")
        } else {
            (extension.iter()).fold(settings, |settings, (name, value)| {
                settings.set(name, value)
            })
        };
        let server = Server::create(settings).context("the server does not start")?;
        let config = server.conninfo("postgres").parse()?;
        Ok(Self { server, config })
    }

    pub fn version(&self) -> &str {
        &self.server.install.version
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn tablespace(&self, name: &str) -> Result<()> {
        self.server.tablespace(name)
    }

    pub fn log_end(&self) -> String {
        self.server.log_end(40)
    }

    pub fn log(&self) -> String {
        self.server.log()
    }

    /// A connection that shows the server's notices as they come and is cancelled on Ctrl-C.
    pub fn connect(&self, clock: Clock, interrupt: &Interrupt) -> Result<Client> {
        let mut config = self.config.clone();
        config.application_name("story");
        config.notice_callback(move |notice| {
            clock.say(&format!("  {}: {}", notice.severity(), notice.message()));
        });
        let client = config.connect(NoTls).context("cannot connect")?;
        interrupt.cancels(&client);
        Ok(client)
    }
}

pub fn create_extension(client: &mut Client, dry_run: bool) -> Result<()> {
    let sql = if dry_run {
        STAND_INS
    } else {
        "CREATE EXTENSION shadowpart"
    };
    client
        .batch_execute(sql)
        .context("cannot create the extension")
}

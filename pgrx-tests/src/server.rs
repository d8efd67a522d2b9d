//! A throw-away server: a cluster in a temporary directory that is gone when the test is over.

use crate::install::Installation;
use crate::session::{Session, describe};
use crate::{process, template, wait};
use anyhow::{Context, Result, bail, ensure};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

/// Servers listen on a Unix socket in a directory of their own only, so that the port is free.
const PORT: u16 = 5432;
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const LOG_LINES_SHOWN: usize = 120;

/// fsync is off: the tests kill processes, not the operating system, and what was written stays.
/// Autovacuum comes by often so that it is in the way as it would be over days.
const DEFAULTS: &str = "\
listen_addresses = ''
shared_preload_libraries = 'shadowpart'
max_worker_processes = 24
max_connections = 80
max_prepared_transactions = 32
max_wal_senders = 8
shared_buffers = 64MB
fsync = off
autovacuum_naptime = 2s
timezone = 'UTC'
log_min_messages = notice
log_line_prefix = '%m [%p] %b %e '
log_lock_waits = on
";

/// Settings that differ from the defaults of the tests.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    lines: Vec<(String, String)>,
    without_extension: bool,
}

impl Settings {
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.lines.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Does not create the extension.
    pub fn without_extension(mut self) -> Self {
        self.without_extension = true;
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Rolls back what runs, then ends cleanly.
    Fast,
    /// Ends at once; the next start recovers.
    Immediate,
}

pub struct Server {
    pub install: Installation,
    home: tempfile::TempDir,
    postmaster: Option<Child>,
}

/// Tells a story on a server of its own. Fails the test, and shows the server's log, when the story
/// ends with an error or a panic.
pub fn scenario(settings: Settings, story: impl FnOnce(&mut Server) -> Result<()>) {
    let mut server = match Server::create(settings) {
        Ok(server) => server,
        Err(error) => panic!("the server did not start: {error:?}"),
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| story(&mut server)));
    if !matches!(outcome, Ok(Ok(()))) {
        eprintln!(
            "--- end of the server's log ---\n{}\n---",
            server.log_end(LOG_LINES_SHOWN)
        );
    }
    drop(server);
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{}", tell(&error)),
        Err(panic) => resume_unwind(panic),
    }
}

/// What failed, why, and, when RUST_BACKTRACE is set, where in the story.
fn tell(error: &anyhow::Error) -> String {
    let mut causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    // What the server said comes in one piece, whoever passed it on.
    causes.retain(|cause| cause != "db error");
    let server = error.downcast_ref::<postgres::Error>();
    if let Some((db, text)) = server.and_then(|e| Some((e.as_db_error()?, describe(e)?))) {
        let again = db.to_string();
        causes.retain(|cause| *cause != again && *cause != text);
        causes.push(text);
    }
    let trace = error.backtrace().to_string();
    let places: Vec<&str> = trace
        .lines()
        .map(str::trim)
        .filter(|line| line.contains("/pgrx-tests/tests/"))
        .collect();
    format!("{}\n{}", causes.join("\n  because: "), places.join("\n"))
}

impl Server {
    /// A running server with the extension in the database `postgres`.
    pub fn create(settings: Settings) -> Result<Self> {
        let server = Self::create_stopped(Installation::under_test()?, |server| {
            template::copy_to(&server.install, &server.data())
        })?;
        server.begin(settings)
    }

    /// The directory and nothing running; `fill` makes the data directory.
    pub(crate) fn create_stopped(
        install: Installation,
        fill: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<Self> {
        // A short prefix: the path of a Unix socket holds 107 bytes.
        let home = tempfile::Builder::new().prefix("shp").tempdir()?;
        install.hand_over(home.path())?;
        let server = Self {
            install,
            home,
            postmaster: None,
        };
        fill(&server)?;
        server.append(DEFAULTS)?;
        server.configure(
            "unix_socket_directories",
            &server.home().display().to_string(),
        )?;
        server.configure("port", &PORT.to_string())?;
        Ok(server)
    }

    pub(crate) fn begin(mut self, settings: Settings) -> Result<Self> {
        for (name, value) in &settings.lines {
            self.configure(name, value)?;
        }
        self.start()?;
        if !settings.without_extension {
            self.connect()?.run("CREATE EXTENSION shadowpart")?;
        }
        Ok(self)
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn data(&self) -> PathBuf {
        self.home().join("data")
    }

    fn append(&self, lines: &str) -> Result<()> {
        let mut file = OpenOptions::new()
            .append(true)
            .open(self.data().join("postgresql.conf"))?;
        Ok(file.write_all(lines.as_bytes())?)
    }

    /// Writes a setting into postgresql.conf, running or not; [`Server::reload`] makes it known.
    pub fn configure(&self, name: &str, value: &str) -> Result<()> {
        self.append(&format!("{name} = '{}'\n", value.replace('\'', "''")))
    }

    pub fn reload(&self) -> Result<()> {
        self.connect()?.run("SELECT pg_reload_conf()")
    }

    pub fn start(&mut self) -> Result<()> {
        ensure!(self.postmaster.is_none(), "the server runs already");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let mut command = self.install.program("postgres", self.home());
        command.arg("-D").arg(self.data()).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        // SAFETY: prctl is safe between fork and exec. A test that is killed takes its server along.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGQUIT);
                Ok(())
            });
        }
        self.postmaster = Some(command.spawn().context("cannot run postgres")?);
        self.wait_until_ready()
    }

    /// Waits until the server takes connections, as after a start or a crash of one of its processes.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let mut last_error = None;
        let ready = wait::until("the server is ready", START_TIMEOUT, || {
            if let Some(status) = self.ended()? {
                bail!("the server ended with {status}:\n{}", self.log_end(40));
            }
            match self.connect() {
                Ok(_) => Ok(Some(())),
                Err(error) => {
                    last_error = Some(error);
                    Ok(None)
                }
            }
        });
        match last_error {
            Some(error) => ready.with_context(|| format!("the last error was: {error:#}")),
            None => ready,
        }
    }

    /// The exit status if the postmaster is no more.
    pub fn ended(&mut self) -> Result<Option<std::process::ExitStatus>> {
        let Some(child) = &mut self.postmaster else {
            bail!("the server was not started")
        };
        let status = child.try_wait()?;
        if status.is_some() {
            self.postmaster = None;
        }
        Ok(status)
    }

    pub fn postmaster_pid(&self) -> Result<u32> {
        Ok(self
            .postmaster
            .as_ref()
            .context("the server is not running")?
            .id())
    }

    pub fn stop(&mut self, how: Shutdown) -> Result<()> {
        let signal = match how {
            Shutdown::Fast => libc::SIGINT,
            Shutdown::Immediate => libc::SIGQUIT,
        };
        process::signal(self.postmaster_pid()?, signal)?;
        wait::eventually("the server has stopped", STOP_TIMEOUT, || {
            Ok(self.ended()?.is_some())
        })
    }

    pub fn restart(&mut self, how: Shutdown) -> Result<()> {
        self.stop(how)?;
        self.start()
    }

    /// Kills the postmaster and every process of the server at once, as a power failure would.
    pub fn crash(&mut self) -> Result<()> {
        self.kill_all()?;
        self.after_crash()
    }

    /// The kill alone, for tests that do it while others use the server;
    /// [`Server::after_crash`] must follow.
    pub fn kill_all(&self) -> Result<()> {
        let postmaster = self.postmaster_pid()?;
        // Stopped first: it must not fork another child once they have been listed (one that is left
        // keeps the shared memory, and the next start is refused), nor find out about their end.
        process::signal(postmaster, libc::SIGSTOP)?;
        wait::eventually("the postmaster stands still", STOP_TIMEOUT, || {
            Ok(process::is_stopped(postmaster))
        })?;
        let children = process::children_of(postmaster)?;
        process::signal(postmaster, libc::SIGKILL)?;
        for child in &children {
            process::signal(*child, libc::SIGKILL)?;
        }
        wait::eventually("all processes are gone", STOP_TIMEOUT, || {
            Ok(children.iter().all(|child| !process::runs(*child)))
        })
    }

    pub fn after_crash(&mut self) -> Result<()> {
        wait::eventually("the postmaster is gone", STOP_TIMEOUT, || {
            Ok(self.ended()?.is_some())
        })
    }

    /// Kills one process of the server; the postmaster then restarts all of them, unless
    /// `restart_after_crash` is off.
    pub fn kill_process(&self, pid: u32) -> Result<()> {
        ensure!(
            process::children_of(self.postmaster_pid()?)?.contains(&pid),
            "process {pid} is none of this server"
        );
        process::signal(pid, libc::SIGKILL)
    }

    pub fn connect(&self) -> Result<Session> {
        self.connect_as("postgres")
    }

    pub fn connect_as(&self, role: &str) -> Result<Session> {
        self.connect_with(role, "postgres", "")
    }

    pub fn connect_to(&self, database: &str) -> Result<Session> {
        self.connect_with("postgres", database, "")
    }

    /// A session with settings such as `-c enable_seqscan=off`.
    pub fn connect_with(&self, role: &str, database: &str, options: &str) -> Result<Session> {
        Session::open(&format!(
            "host={} port={PORT} user={role} dbname={database} options='{options}' \
             application_name=test connect_timeout=10",
            self.home().display()
        ))
    }

    /// How another server or a tool reaches this one.
    pub fn conninfo(&self, database: &str) -> String {
        format!(
            "host={} port={PORT} user=postgres dbname={database}",
            self.home().display()
        )
    }

    pub(crate) fn make_directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.home().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        self.install.hand_over(&path)?;
        Ok(path)
    }

    /// Makes a tablespace that everybody may use.
    pub fn tablespace(&self, name: &str) -> Result<()> {
        let path = self.make_directory(&format!("space_{name}"))?;
        let mut session = self.connect()?;
        session.run(&format!(
            "CREATE TABLESPACE {name} LOCATION '{}'",
            path.display()
        ))?;
        session.run(&format!("GRANT CREATE ON TABLESPACE {name} TO PUBLIC"))
    }

    fn log_path(&self) -> PathBuf {
        self.home().join("server.log")
    }

    pub fn log(&self) -> String {
        match std::fs::read(self.log_path()) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("(no log: {error})"),
        }
    }

    pub fn log_end(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// An empty file of the servers' user, for tools that write into it.
    pub fn file(&self, name: &str) -> Result<PathBuf> {
        let path = self.home().join(name);
        File::create(&path)?;
        self.install.hand_over(&path)?;
        Ok(path)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.postmaster.is_some() && self.stop(Shutdown::Immediate).is_err() {
            // A server that does not even stop at once: leave no process behind, whatever it does.
            if let Some(child) = &mut self.postmaster {
                for pid in process::children_of(child.id()).unwrap_or_default() {
                    let _ = process::signal(pid, libc::SIGKILL);
                }
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

//! The harness of shadowpart's multi-session tests: throw-away servers, sessions that say what went
//! wrong, twins to compare with, and the tools of PostgreSQL.
//!
//! A test is a story told with [`scenario`]:
//!
//! ```no_run
//! use shadowpart_tests::*;
//!
//! scenario(Settings::default(), |server| {
//!     let mut session = server.connect()?;
//!     session.run("CREATE TABLE orders (tenant int)")?;
//!     Ok(())
//! });
//! ```
//!
//! `SHADOWPART_TEST_PG` (15 or 18, default 18) chooses the server; `SHADOWPART_PG15` and
//! `SHADOWPART_PG18` name the `pg_config` of each, with the extension installed. As root the servers
//! run as the user `SHADOWPART_RUNAS` (default `postgres`, else `nobody`).

mod catalog;
mod dice;
mod install;
mod jobs;
mod orders;
mod process;
mod server;
mod session;
mod template;
mod tools;
mod twin;
mod wait;

pub use catalog::{Orphans, leaf_of, live_tuples, tablespaces_of};
pub use dice::Dice;
pub use install::Installation;
pub use orders::*;
pub use server::{Server, Settings, Shutdown, scenario};
pub use session::{Failure, Row, Session, sqlstate};
pub use twin::{LEVELS, Twin};
pub use wait::{eventually, until};

pub use anyhow::{Context, Result, anyhow, bail, ensure};

/// The directory of this package, in the checkout that the tests run in. The one that they were built in
/// may be another.
pub fn package() -> std::path::PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .expect("cargo runs the tests")
        .into()
}

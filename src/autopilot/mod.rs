//! Which partition will saturate, which entities should leave it, and doing so in time.
//!
//! `worker` is the process of a database that does it: it holds a `memory` of the recent past, read by
//! `series` from the history of the load, asks the crate `predict` what comes, stores and judges that
//! (`forecasts`), and with what is `seen` of partitions, shadows and the machine asks the crate `autopilot`
//! what to do (`decide`), which `act` carries out as a person would. `policy` is what people set, `show`
//! what they ask. The models and rules are in the crates, which know nothing of PostgreSQL; nothing here
//! touches a pair: shadows are made, resized, swapped and dropped through `job`.

mod act;
mod backtest;
mod decide;
mod forecasts;
mod memory;
mod policy;
pub mod resource;
mod seen;
mod series;
mod show;
mod worker;

use crate::pg::error::Result;
use crate::pg::sql;

/// Whether the extension is there, with the tables of this part.
fn is_installed() -> Result<bool> {
    let there = sql::value::<bool>(
        "SELECT to_regclass('shadowpart.autopilot_state') IS NOT NULL
            AND EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'shadowpart')",
        &[],
    )?;
    Ok(there == Some(true))
}

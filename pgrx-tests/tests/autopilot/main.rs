//! Predict, plan and act: what the worker says of the load, what it decides, and what becomes of it.
//!
//! Days are made of seconds here: the load is recorded every 250 ms, a slot of the forecasts has 500 ms, and
//! 48 of them make a day.

mod acting;
mod looking;
mod policy;
mod writer;

use shadowpart_tests::*;
use std::time::Duration;
use writer::Load;

const SOON: Duration = Duration::from_secs(120);

/// A server on which time flies.
fn quick() -> Settings {
    Settings::default()
        .set("shadowpart.history_interval", "250ms")
        .set("shadowpart.predict_slot", "500ms")
        .set("shadowpart.day_length", "24s")
        .set("shadowpart.predict_interval", "500ms")
        // A third of a day: longer than a move takes.
        .set("shadowpart.predict_horizon", "480min")
        // The machine that runs the tests is busy.
        .set("shadowpart.autopilot_busy", "100")
}

/// Ten tenants in two partitions, managed; a second tablespace.
const TABLE: &str = "
    CREATE TABLE orders (tenant int, id bigint, note text, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
    CREATE TABLE orders_a PARTITION OF orders FOR VALUES IN (1, 2, 3, 4, 5);
    CREATE TABLE orders_b PARTITION OF orders DEFAULT;
    INSERT INTO orders SELECT 1 + g % 10, g, 'filled' FROM generate_series(1, 20000) g;
    ANALYZE orders;
    SELECT shadow_manage('orders', 'tenant');";

fn prepare(server: &Server) -> Result<Session> {
    server.tablespace("fast")?;
    let mut session = server.connect()?;
    session.run(TABLE)?;
    Ok(session)
}

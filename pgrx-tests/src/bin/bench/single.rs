//! Transactions of one row each, committed to disk.

use super::clients::{Client, rate};
use super::report::{Pairs, Report};
use super::tables::{self, MOVED, TABLESPACE};
use shadowpart_tests::{Result, Server};
use std::time::Duration;

const ROUNDS: u64 = 5;
const CLIENTS: u64 = 4;
const LEG: Duration = Duration::from_secs(3);

pub fn measure(server: &mut Server, report: &mut Report, rows: u64) -> Result<()> {
    server.tablespace(TABLESPACE)?;
    let mut session = server.connect()?;
    let size = (rows / 10).max(1000);
    let names = ["shadowed", "plain"];
    for name in names {
        tables::create(&mut session, name)?;
        tables::fill(&mut session, name, MOVED, size)?;
    }
    tables::manage(&mut session, "shadowed")?;
    session.create_shadow("shadowed", &MOVED.to_string(), TABLESPACE)?;
    let mut pairs = Pairs::default();
    for round in 0..ROUNDS {
        tables::settle(&mut session, &names)?;
        let mut rates = [0.0; 2];
        for (index, table) in names.into_iter().enumerate() {
            let client = Client {
                table,
                tenant: MOVED,
                rows: size,
                reads: false,
                seed: 1 + round * CLIENTS,
            };
            rates[index] = rate(server, &client, CLIENTS, LEG)?;
        }
        pairs.add(rates[0], rates[1]);
    }
    report.at_least(
        format!("single-row UPDATEs a second, {CLIENTS} clients, shadowed / without"),
        pairs.ratio(),
        "x",
        0.9,
        &pairs.behind(" tps"),
    );
    Ok(())
}

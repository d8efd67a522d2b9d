//! Copying the rows of an entity and indexing them, against CREATE TABLE AS and the same indexes.

use super::report::{Pairs, Report, timed};
use super::tables::{self, MOVED, OTHER, TABLESPACE};
use shadowpart_tests::{Result, Server};

const ROUNDS: usize = 3;
const INDEXES: [&str; 2] = ["(a)", "(tenant, b)"];

pub fn measure(server: &mut Server, report: &mut Report, rows: u64) -> Result<()> {
    server.tablespace(TABLESPACE)?;
    let mut session = server.connect()?;
    tables::create(&mut session, "t")?;
    for columns in INDEXES {
        session.run(&format!("CREATE INDEX ON t {columns}"))?;
    }
    tables::fill(&mut session, "t", MOVED, rows)?;
    tables::fill(&mut session, "t", OTHER, rows / 10)?;
    tables::settle(&mut session, &["t"])?;
    tables::manage(&mut session, "t")?;
    let mut pairs = Pairs::default();
    for _ in 0..ROUNDS {
        let id = session.create_shadow("t", &MOVED.to_string(), TABLESPACE)?;
        let mut built = 0.0;
        for event in ["copy", "index"] {
            built += tables::events(&mut session, id, event, "took_ms")?
                .iter()
                .sum::<f64>();
        }
        session.drop_shadow(id)?;
        session.run("CHECKPOINT")?;
        let mut sql = format!(
            "CREATE TABLE by_hand TABLESPACE {TABLESPACE} AS SELECT * FROM t WHERE tenant = {MOVED};
             CREATE UNIQUE INDEX ON by_hand (tenant, id) TABLESPACE {TABLESPACE};"
        );
        for columns in INDEXES {
            sql.push_str(&format!(
                "CREATE INDEX ON by_hand {columns} TABLESPACE {TABLESPACE};"
            ));
        }
        let by_hand = timed(|| session.run(&sql))?;
        session.run("DROP TABLE by_hand; CHECKPOINT")?;
        pairs.add(built, by_hand);
    }
    report.at_most(
        format!("copy and index of {rows} rows / CREATE TABLE AS and CREATE INDEX"),
        pairs.ratio(),
        "x",
        1.25,
        &pairs.behind(" ms"),
    );
    Ok(())
}

//! What clients notice of a whole migration: two of the entity that moves, two of another one.

use super::clients::{Client, Diary, Sample, with_clients};
use super::report::{Report, largest, ms};
use super::tables::{self, MOVED, OTHER, TABLESPACE};
use shadowpart_tests::{Context, Result, Server, Session, bail, ensure};
use std::time::{Duration, Instant};

const CALM_MIN: Duration = Duration::from_secs(10);
const CALM_MAX: Duration = Duration::from_secs(120);
const GOAL_EXTRA_MS: f64 = 10.0;

/// Between two looks at the job: seldom enough not to be a fifth client.
const LOOK_EVERY: Duration = Duration::from_millis(200);

struct Phases {
    calm_before: Instant,
    migration: Instant,
    calm_after: Instant,
    end: Instant,
}

/// Waits for a job that may never end under such load: then it is said where it hangs.
fn wait_for(session: &mut Session, id: i64, wanted: &str, timeout: Duration) -> Result<()> {
    let begin = Instant::now();
    loop {
        let state = session.state(id)?;
        if state == wanted {
            return Ok(());
        }
        if ["failed", "cancelled", "dropped"].contains(&state.as_str()) {
            bail!("{state}, not {wanted}: {}", session.last_error(id)?);
        }
        if begin.elapsed() > timeout {
            let phase = session.value(&format!(
                "SELECT phase || ', ' || coalesce(waiting_query, 'for nobody')
                 FROM shadow_progress WHERE id = {id}"
            ))?;
            bail!("not {wanted} after {timeout:?}: in {phase}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Calm, then the whole way with its hidden rows removed, then calm again until the calm phases have
/// lasted as long as the migration: the maximum of a longer time is larger by chance alone.
fn tell(session: &mut Session, rows: u64) -> Result<Phases> {
    let timeout = Duration::from_secs(60 + rows / 2000);
    let calm_before = Instant::now();
    std::thread::sleep(CALM_MIN);
    let migration = Instant::now();
    let id = session.start_migrate("t", &MOVED.to_string(), TABLESPACE)?;
    wait_for(session, id, "migrated", timeout).context("the migration")?;
    session.run(&format!("SELECT shadow_finalize({id}, wait => false)"))?;
    wait_for(session, id, "finalized", timeout).context("removing the hidden rows")?;
    let calm_after = Instant::now();
    let lasted = calm_after - migration;
    std::thread::sleep(lasted.clamp(CALM_MIN, CALM_MAX) - CALM_MIN);
    Ok(Phases {
        calm_before,
        migration,
        calm_after,
        end: Instant::now(),
    })
}

/// The largest latency of a tenant's transactions that touch the time from `begin` to `end`.
fn worst(samples: &[Sample], tenant: i32, begin: Instant, end: Instant) -> f64 {
    let took: Vec<f64> = samples
        .iter()
        .filter(|s| s.tenant == tenant && s.at < end && s.at + s.took > begin)
        .map(|s| ms(s.took))
        .collect();
    largest(&took)
}

pub fn measure(server: &mut Server, report: &mut Report, rows: u64) -> Result<()> {
    server.tablespace(TABLESPACE)?;
    let mut session = server.connect()?;
    tables::create(&mut session, "t")?;
    session.run("CREATE INDEX ON t (a)")?;
    for tenant in [MOVED, OTHER] {
        tables::fill(&mut session, "t", tenant, rows)?;
    }
    tables::settle(&mut session, &["t"])?;
    tables::manage(&mut session, "t")?;
    let clients: Vec<Client> = [MOVED, MOVED, OTHER, OTHER]
        .into_iter()
        .zip(1..)
        .map(|(tenant, seed)| Client {
            table: "t",
            tenant,
            rows,
            reads: true,
            seed,
        })
        .collect();
    let (phases, diary) = with_clients(server, &clients, |_: &Diary| tell(&mut session, rows))?;
    let samples = diary.samples();
    let lasted = (phases.calm_after - phases.migration).as_secs_f64();
    for (label, tenant) in [("moved entity", MOVED), ("other entity", OTHER)] {
        let during = worst(&samples, tenant, phases.migration, phases.calm_after);
        let before = worst(&samples, tenant, phases.calm_before, phases.migration);
        let after = worst(&samples, tenant, phases.calm_after, phases.end);
        let calm = before.max(after);
        // A longest of nothing is not a good one.
        ensure!(
            during.is_finite() && calm.is_finite(),
            "no transactions of the {label}"
        );
        report.at_most(
            format!("largest extra latency, {label}, {lasted:.0} s migration"),
            (during - calm).max(0.0),
            " ms",
            GOAL_EXTRA_MS,
            &format!(" (max {during:.1}, calm {calm:.1})"),
        );
    }
    let failures = diary.failures();
    let first = failures.first().map(|f| format!(": {f}"));
    report.zero(
        format!("failed transactions of {}", samples.len() + failures.len()),
        failures.len(),
        &first.unwrap_or_default(),
    );
    Ok(())
}

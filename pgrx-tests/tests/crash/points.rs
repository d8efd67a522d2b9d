//! The failpoints, one story each: a whole life of shadows, in which the process that comes to the
//! point is killed (and with it the server), fails, or ends.

use shadowpart_tests::*;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// kill -9, after which the whole server is down.
    Kill,
    /// An error at this point.
    Error,
    /// The process ends, as by pg_terminate_backend.
    Exit,
}

impl Fate {
    fn word(self) -> &'static str {
        match self {
            Fate::Kill => "kill",
            Fate::Error => "error",
            Fate::Exit => "exit",
        }
    }
}

/// A step of the story: what to call, in which state it ends, and in which states it has to be
/// called (again). In any other state something went wrong.
pub struct Step {
    pub call: &'static str,
    pub done: &'static str,
    pub again: &'static [&'static str],
    /// The entities that the shadow has then; none are asked for where they cannot differ.
    pub entities: Option<&'static str>,
}

const ROLLED_BACK: &[&str] = &["none", "failed", "cancelled", "dropped"];

const LIFE: [Step; 8] = [
    Step {
        call: "shadow_create('live.orders', 1, tablespace => 'fast')",
        done: "ready",
        again: ROLLED_BACK,
        entities: None,
    },
    Step {
        call: "shadow_swap({id})",
        done: "migrated",
        again: &["ready"],
        entities: None,
    },
    Step {
        call: "shadow_revert({id})",
        done: "ready",
        again: &["migrated"],
        entities: None,
    },
    Step {
        call: "shadow_drop({id})",
        done: "dropped",
        again: &["ready"],
        entities: None,
    },
    Step {
        call: "shadow_migrate('live.orders', ARRAY[1, 2], tablespace => 'fast')",
        done: "migrated",
        again: &["none", "failed", "cancelled", "dropped", "ready"],
        entities: None,
    },
    Step {
        call: "shadow_finalize({id})",
        done: "finalized",
        again: &["migrated"],
        entities: None,
    },
    Step {
        call: "shadow_migrate('{leaf}', \"all\" => true, tablespace => 'fast')",
        done: "migrated",
        again: &[
            "none",
            "failed",
            "cancelled",
            "dropped",
            "ready",
            "finalized",
        ],
        entities: None,
    },
    Step {
        call: "shadow_finalize({id})",
        done: "finalized",
        again: &["migrated"],
        entities: None,
    },
];

struct Story<'a> {
    server: &'a mut Server,
    life: &'a [Step],
    point: &'a str,
    fate: Fate,
    hits: u32,
    round: u32,
    orders: Orders,
    twin: Twin,
}

impl Story<'_> {
    fn hit_line(&self) -> String {
        format!("shadowpart: failpoint {}: ", self.point)
    }

    fn disarm(&mut self) -> Result<()> {
        self.hits += 1;
        self.server.configure("shadowpart.failpoint", "")?;
        match self.fate {
            Fate::Kill => {
                let gone = Duration::from_secs(20);
                eventually("the server is down", gone, || {
                    Ok(self.server.ended()?.is_some())
                })?;
                self.server.start()
            }
            Fate::Error | Fate::Exit => self.server.reload(),
        }
    }

    /// Makes a call while somebody watches for the failpoint. Gives the error if the call failed
    /// because of the failpoint; any other error is one of the test.
    fn call(&mut self, sql: &str) -> Result<()> {
        let mut session = self.server.connect()?;
        let pid = session.pid;
        let sql = sql.to_owned();
        let call = std::thread::spawn(move || session.run(&sql));
        let begin = Instant::now();
        let mut hit = false;
        while !call.is_finished() {
            if !hit && self.hits == 0 && self.server.log().contains(&self.hit_line()) {
                hit = true;
                self.disarm()?;
            }
            if begin.elapsed() > Duration::from_secs(100) {
                let progress = self.server.connect()?.rows(
                    "SELECT s.*, p.* FROM shadow_status s LEFT JOIN shadow_progress p USING (id)",
                )?;
                self.server
                    .connect()?
                    .run(&format!("SELECT pg_terminate_backend({pid})"))?;
                bail!("the call hangs; hit: {hit}; {progress:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if !hit && self.hits == 0 && self.server.log().contains(&self.hit_line()) {
            hit = true;
            self.disarm()?;
        }
        match call.join().expect("the caller does not panic") {
            Ok(()) => Ok(()),
            Err(error) if hit => {
                // Whoever waits for a job that failed is told so, in words of its own.
                println!("the caller was told: {error:#}");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The newest job, and the state in which it rests.
    fn newest(&mut self) -> Result<(i64, String)> {
        let mut session = self.server.connect()?;
        let id = session.number("SELECT coalesce(max(id), 0) FROM shadow_status")?;
        if id == 0 {
            return Ok((0, "none".into()));
        }
        let state = session.wait_until_settled(id)?;
        Ok((id, state))
    }

    /// Whether a step has come to its end.
    fn is_done(&mut self, step: &Step, id: i64, state: &str) -> Result<bool> {
        let Some(entities) = step.entities else {
            return Ok(state == step.done);
        };
        let sql = format!("SELECT entities FROM shadow_status WHERE id = {id}");
        Ok(state == step.done && self.server.connect()?.value(&sql)? == entities)
    }

    fn step(&mut self, number: usize, step: &Step) -> Result<()> {
        let mut last = String::new();
        for attempt in 0..4 {
            let mut session = self.server.connect()?;
            let leaf = leaf_of(&mut session, "live.orders", "tenant = 3")?.remove(0);
            let (id, before) = self.newest()?;
            if attempt > 0 && self.is_done(step, id, &before)? {
                return Ok(());
            }
            let may = attempt == 0 || step.again.contains(&before.as_str());
            ensure!(
                may,
                "after the crash job {id} is {before}, which leads nowhere"
            );
            let call = step
                .call
                .replace("{id}", &id.to_string())
                .replace("{leaf}", &leaf);
            let hits = self.hits;
            self.call(&format!("SELECT {call}"))
                .with_context(|| format!("step {number}: {call}"))?;
            let (id, state) = self.newest()?;
            let mut session = self.server.connect()?;
            self.twin
                .assert_same(&mut session)
                .with_context(|| format!("after {call}"))?;
            if self.hits > hits || attempt > 0 {
                self.round += 1;
                self.orders.write(&self.twin, &mut session, self.round)?;
                self.twin
                    .assert_same(&mut session)
                    .with_context(|| format!("writes, {call}"))?;
            }
            if self.is_done(step, id, &state)? {
                return Ok(());
            }
            last = state;
            ensure!(
                self.hits > hits || attempt > 0,
                "{call}: {last} with nothing in the way"
            );
        }
        bail!(
            "step {number}, {}: still {last} after four attempts",
            step.call
        )
    }

    fn tell(&mut self) -> Result<()> {
        let mut session = self.server.connect()?;
        let before = Orphans::look(&mut session)?;
        session.run("SELECT shadow_manage('live.orders', 'tenant')")?;
        drop(session);
        let armed = format!("{}={}", self.point, self.fate.word());
        self.server.configure("shadowpart.failpoint", &armed)?;
        self.server.reload()?;
        let life = self.life;
        for (number, step) in life.iter().enumerate() {
            self.step(number, step)?;
        }
        let hits = self.hits;
        self.call("SELECT shadow_unmanage('live.orders')")?;
        let mut session = self.server.connect()?;
        if self.hits > hits {
            // The crash may have undone it. If not, the second attempt is refused.
            if let Err(error) = session.run("SELECT shadow_unmanage('live.orders')") {
                ensure!(sqlstate(&error) != Some("XX000"), "{error:#}");
            }
        }
        ensure!(self.hits > 0, "no step came to the point {}", self.point);
        self.orders
            .write(&self.twin, &mut session, self.round + 1)?;
        self.twin.assert_same(&mut session)?;
        ensure!(tablespaces_of(&mut session, "live.orders", "tenant IN (1, 2)")? == ["fast"]);
        // Only what a finished migration leaves: relations that hold rows or are wrappers.
        let now = Orphans::look(&mut session)?;
        now.assert_tidy_since(&before, &mut session, "live.orders")
    }
}

pub fn story(life: &[Step], point: &str, fate: Fate, layout: Layout) -> Result<()> {
    let begin = Instant::now();
    let settings = Settings::default().set("restart_after_crash", "off");
    let outcome = std::panic::catch_unwind(|| {
        scenario(settings, |server| {
            server.tablespace("fast")?;
            let mut session = server.connect()?;
            let orders = Orders::new(layout);
            let twin = orders.create(&mut session)?;
            orders.fill(&twin, &mut session, 500)?;
            drop(session);
            Story {
                server,
                life,
                point,
                fate,
                hits: 0,
                round: 0,
                orders,
                twin,
            }
            .tell()
        });
    });
    println!("{point}={} {:?}", fate.word(), begin.elapsed());
    match outcome {
        Ok(()) => Ok(()),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .unwrap_or_else(|| "panic".into());
            Err(anyhow!("{point}={}: {text}", fate.word()))
        }
    }
}

/// The failpoints this build has, asked of a server.
pub fn points() -> Vec<String> {
    let mut points = Vec::new();
    scenario(Settings::default(), |server| {
        points = server
            .connect()?
            .column("SELECT failpoints FROM shadowpart.failpoints()")
            .context("the tests need an extension built with the feature \"failpoints\"")?;
        Ok(())
    });
    points
}

/// One of `of` parts of all points, so that several cores have work.
fn part(number: usize, of: usize, fate: Fate) {
    let mut points = points();
    points.retain(|point| !crate::resize::is_point(point));
    assert!(points.len() >= 25, "only {} failpoints", points.len());
    let mut failures = Vec::new();
    for (index, point) in points
        .iter()
        .enumerate()
        .filter(|(index, _)| index % of == number)
    {
        // In a table that is partitioned by lists of tenants a leaf needs no wrapper.
        let layout = if point.contains("wrap") {
            [HASH, MONTH][index % 2]
        } else {
            [LIST_WITH_DEFAULT, HASH, LIST, MONTH][(index / of + index) % 4]
        };
        if let Err(error) = story(&LIFE, point, fate, layout) {
            failures.push(error.to_string());
        }
    }
    assert!(
        failures.is_empty(),
        "{} points:\n{}",
        failures.len(),
        failures.join("\n---\n")
    );
}

macro_rules! parts {
    ($($name:ident: $number:literal, $fate:expr;)*) => {
        $(#[test]
        fn $name() {
            part($number, 4, $fate);
        })*
    };
}

mod killed {
    use super::*;
    parts! {
        part_0: 0, Fate::Kill;
        part_1: 1, Fate::Kill;
        part_2: 2, Fate::Kill;
        part_3: 3, Fate::Kill;
    }
}

/// These take minutes: run them with `-- --ignored`.
#[test]
#[ignore = "several minutes"]
fn failed() {
    part(0, 1, Fate::Error);
}

#[test]
#[ignore = "several minutes"]
fn ended() {
    part(0, 1, Fate::Exit);
}

/// One point chosen by SHADOWPART_FAILPOINT, as `name=kill`, in every layout of a few.
#[test]
#[ignore = "for looking into one point"]
fn chosen() {
    let chosen = std::env::var("SHADOWPART_FAILPOINT").expect("set SHADOWPART_FAILPOINT");
    let (point, fate) = chosen
        .split_once('=')
        .expect("name=kill, name=error or name=exit");
    let fate = [Fate::Kill, Fate::Error, Fate::Exit]
        .into_iter()
        .find(|candidate| candidate.word() == fate)
        .expect("kill, error or exit");
    for layout in [LIST_WITH_DEFAULT, HASH, LIST, MONTH] {
        story(&LIFE, point, fate, layout).unwrap();
    }
}

//! The failpoints of a resize: entities come to a standing shadow and leave it, and the process that comes to the
//! point is killed (and with it the server), or fails. What was being added is added after it, or gone.

use crate::points::{Fate, Step, points, story};
use shadowpart_tests::*;
use std::time::Duration;

pub fn is_point(name: &str) -> bool {
    ["add-", "remove-", "call-off"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

const LIFE: [Step; 9] = [
    Step {
        call: "shadow_create('live.orders', ARRAY[1, 2], tablespace => 'fast')",
        done: "ready",
        again: &["none"],
        entities: None,
    },
    // Of the leaf that has a pair, and of another.
    Step {
        call: "shadow_add_entities({id}, ARRAY[3, 5])",
        done: "ready",
        again: &["ready"],
        entities: Some("{1,2,3,5}"),
    },
    Step {
        call: "shadow_remove_entities({id}, ARRAY[2, 3])",
        done: "ready",
        again: &["ready"],
        entities: Some("{1,5}"),
    },
    Step {
        call: "shadow_swap({id})",
        done: "migrated",
        again: &["ready"],
        entities: Some("{1,5}"),
    },
    Step {
        call: "shadow_revert({id})",
        done: "ready",
        again: &["migrated"],
        entities: Some("{1,5}"),
    },
    Step {
        call: "shadow_remove_entities({id}, 5)",
        done: "ready",
        again: &["ready"],
        entities: Some("{1}"),
    },
    Step {
        call: "shadow_add_entities({id}, 2)",
        done: "ready",
        again: &["ready"],
        entities: Some("{1,2}"),
    },
    Step {
        call: "shadow_swap({id})",
        done: "migrated",
        again: &["ready"],
        entities: Some("{1,2}"),
    },
    Step {
        call: "shadow_finalize({id})",
        done: "finalized",
        again: &["migrated"],
        entities: Some("{1,2}"),
    },
];

/// One of three parts of all points.
fn part(number: usize, fate: Fate) {
    let mut failures = Vec::new();
    let points = points().into_iter().filter(|point| is_point(point));
    for (index, point) in points.filter(|point| point != "call-off").enumerate() {
        if index % 3 != number {
            continue;
        }
        let layout = [LIST_WITH_DEFAULT, HASH, LIST, MONTH][index % 4];
        if let Err(error) = story(&LIFE, &point, fate, layout) {
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
            part($number, $fate);
        })*
    };
}

parts! {
    killed_0: 0, Fate::Kill;
    killed_1: 1, Fate::Kill;
    killed_2: 2, Fate::Kill;
    failed_0: 0, Fate::Error;
    failed_1: 1, Fate::Error;
    failed_2: 2, Fate::Error;
}

/// Called off, and the server dies on the way: the shadow stands as it was, nothing of the new ones is left.
#[test]
fn killed_while_called_off() {
    let points = [
        "call-off",
        "remove-before",
        "remove-locked",
        "remove-begun",
        "remove-batch",
        "remove-shrunk",
        "remove-waited",
    ];
    for (index, point) in points.into_iter().enumerate() {
        let layout = [LIST_WITH_DEFAULT, MONTH, HASH][index % 3];
        let settings = Settings::default().set("restart_after_crash", "off");
        scenario(settings, |server| {
            server.tablespace("fast")?;
            let mut session = server.connect()?;
            session.run("CREATE EXTENSION pgstattuple")?;
            let orders = Orders::new(layout);
            let twin = orders.create(&mut session)?;
            orders.fill(&twin, &mut session, 4000)?;
            session.run("SELECT shadow_manage('live.orders', 'tenant')")?;
            let id = session.create_shadow("live.orders", "1", "fast")?;
            let before = Orphans::look(&mut session)?;
            server.configure("shadowpart.copy_rate_limit", "50kB")?;
            server.configure("shadowpart.failpoint", &format!("{point}=kill"))?;
            server.reload()?;
            session.run(&format!(
                "SELECT shadow_add_entities({id}, ARRAY[2, 3], wait => false)"
            ))?;
            until("rows are copied", Duration::from_secs(40), || {
                let done = session.number(&format!(
                    "SELECT coalesce(max(rows_done), 0) FROM shadow_progress WHERE id = {id}"
                ))?;
                Ok((done > 0).then_some(()))
            })?;
            orders.write(&twin, &mut session, 1)?;
            // It may be dead before it has answered.
            let _ = session.run(&format!("SELECT shadow_cancel({id})"));
            eventually("the server is down", Duration::from_secs(20), || {
                Ok(server.ended()?.is_some())
            })?;
            server.configure("shadowpart.failpoint", "")?;
            server.configure("shadowpart.copy_rate_limit", "0")?;
            server.start()?;
            let mut session = server.connect()?;
            twin.assert_same(&mut session).context(point)?;
            orders.write(&twin, &mut session, 2)?;
            let state = session.wait_until_settled(id)?;
            ensure!(state == "ready", "{point}: {state}");
            let sql = format!("SELECT entities FROM shadow_status WHERE id = {id}");
            ensure!(session.value(&sql)? == "{1}", "{point}");
            orders.write(&twin, &mut session, 3)?;
            twin.assert_same(&mut session).context(point)?;
            let different = session.rows(&format!("SELECT * FROM shadow_verify({id})"))?;
            ensure!(different.is_empty(), "{point}: {different:?}");
            let now = Orphans::look(&mut session)?;
            ensure!(now == before, "{point}: {now:?}, not {before:?}");
            let shadows = session.column(&format!(
                "SELECT p ->> 'shadow' FROM shadow_status, jsonb_array_elements(details -> 'pairs') p
                 WHERE id = {id}"
            ))?;
            let mut there = 0;
            for shadow in shadows {
                there += live_tuples(&mut session, &shadow)?;
            }
            let wanted = session.number("SELECT count(*) FROM live.orders WHERE tenant = 1")?;
            ensure!(there == wanted, "{point}: {there} rows, not {wanted}");
            Ok(())
        });
    }
}

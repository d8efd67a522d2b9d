//! The entities of a standing shadow change: some come, some leave, while it goes on mirroring those that
//! stay. After each step a round of every kind of write; the table must equal its twin, both sides must
//! agree, and a swap must move exactly the entities that the shadow has then.

use shadowpart_tests::*;
use std::time::Duration;

fn add(session: &mut Session, id: i64, entities: &str) -> Result<()> {
    session.run(&format!("SELECT shadow_add_entities({id}, {entities})"))
}

fn remove(session: &mut Session, id: i64, entities: &str) -> Result<()> {
    session.run(&format!("SELECT shadow_remove_entities({id}, {entities})"))
}

fn entities(session: &mut Session, id: i64) -> Result<Vec<String>> {
    session.column(&format!(
        "SELECT unnest(entities) FROM shadow_status WHERE id = {id} ORDER BY 1"
    ))
}

fn assert_equal_sides(session: &mut Session, id: i64) -> Result<()> {
    let different = session.rows(&format!("SELECT * FROM shadow_verify({id})"))?;
    ensure!(different.is_empty(), "the sides differ: {different:?}");
    Ok(())
}

/// The tenants in `moved` lie in the tablespace, the others at home.
fn assert_moved(session: &mut Session, orders: &Orders, moved: &[usize]) -> Result<()> {
    for tenant in 0..5 {
        let wanted = if moved.contains(&tenant) {
            "fast"
        } else {
            "pg_default"
        };
        let found = tablespaces_of(session, "live.orders", &orders.is(tenant))?;
        ensure!(found == [wanted], "tenant {tenant} lies in {found:?}");
    }
    Ok(())
}

/// Tuples of all shadows of the job, whoever they belong to.
fn tuples_of_shadows(session: &mut Session, id: i64) -> Result<i64> {
    let shadows = session.column(&format!(
        "SELECT p ->> 'shadow' FROM shadow_status, jsonb_array_elements(details -> 'pairs') p WHERE id = {id}"
    ))?;
    shadows
        .iter()
        .map(|shadow| live_tuples(session, shadow))
        .sum()
}

fn count(session: &mut Session, condition: &str) -> Result<i64> {
    session.number(&format!(
        "SELECT count(*) FROM live.orders WHERE {condition}"
    ))
}

fn prepare(server: &mut Server, orders: &Orders, rows: u32) -> Result<(Session, Twin)> {
    server.tablespace("fast")?;
    let mut session = server.connect()?;
    session.run("CREATE EXTENSION pgstattuple")?;
    let twin = orders.create(&mut session)?;
    orders.fill(&twin, &mut session, rows)?;
    session.run("SELECT shadow_manage('live.orders', 'tenant')")?;
    Ok((session, twin))
}

/// They come one by one and together, to leaves that have a pair and to those that have none; they leave,
/// before a swap and after one that was reverted; what is swapped in the end is what is left.
fn whole_life(server: &mut Server, orders: &Orders) -> Result<()> {
    let (mut session, twin) = prepare(server, orders, 2000)?;
    let before = Orphans::look(&mut session)?;
    let id = session.create_shadow("live.orders", orders.tenant(0), "fast")?;

    add(&mut session, id, &orders.literal(1))?;
    twin.assert_same(&mut session)?;
    assert_equal_sides(&mut session, id)?;
    orders.write(&twin, &mut session, 1)?;
    twin.assert_same(&mut session)?;
    let array = orders.sql("ARRAY[{v2}, {v3}]::{type}[]");
    add(&mut session, id, &array)?;
    ensure!(entities(&mut session, id)?.len() == 4);
    ensure!(session.state(id)? == "ready");
    assert_equal_sides(&mut session, id)?;
    orders.write(&twin, &mut session, 2)?;
    assert_equal_sides(&mut session, id)?;
    twin.assert_same(&mut session)?;
    assert_moved(&mut session, orders, &[])?;

    session.swap(id)?;
    twin.assert_same(&mut session)?;
    assert_moved(&mut session, orders, &[0, 1, 2, 3])?;
    orders.write(&twin, &mut session, 3)?;
    assert_equal_sides(&mut session, id)?;
    twin.assert_same(&mut session)?;
    session.revert(id)?;
    orders.write(&twin, &mut session, 4)?;
    twin.assert_same(&mut session)?;
    assert_moved(&mut session, orders, &[])?;

    let array = orders.sql("ARRAY[{v1}, {v3}]::{type}[]");
    remove(&mut session, id, &array)?;
    ensure!(entities(&mut session, id)?.len() == 2);
    ensure!(session.state(id)? == "ready");
    let kept = orders.sql("tenant IN ({v0}, {v2})");
    let (there, wanted) = (
        tuples_of_shadows(&mut session, id)?,
        count(&mut session, &kept)?,
    );
    ensure!(there == wanted, "{there} rows in the shadow, not {wanted}");
    assert_equal_sides(&mut session, id)?;
    orders.write(&twin, &mut session, 5)?;
    assert_equal_sides(&mut session, id)?;
    twin.assert_same(&mut session)?;

    // One of them comes back, and all of it moves for good.
    add(&mut session, id, &orders.literal(3))?;
    orders.write(&twin, &mut session, 6)?;
    session.swap(id)?;
    twin.assert_same(&mut session)?;
    assert_moved(&mut session, orders, &[0, 2, 3])?;
    orders.write(&twin, &mut session, 7)?;
    twin.assert_same(&mut session)?;
    session.finalize(id)?;
    twin.assert_same(&mut session)?;
    assert_moved(&mut session, orders, &[0, 2, 3])?;
    let leaves =
        session.column("SELECT relid::text FROM pg_partition_tree('live.orders') WHERE isleaf")?;
    let physical: i64 = leaves
        .iter()
        .map(|leaf| live_tuples(&mut session, leaf))
        .sum::<Result<i64>>()?;
    ensure!(
        physical == count(&mut session, "true")?,
        "hidden rows are left"
    );
    orders.write(&twin, &mut session, 8)?;
    twin.assert_same(&mut session)?;
    let now = Orphans::look(&mut session)?;
    now.assert_tidy_since(&before, &mut session, "live.orders")
}

macro_rules! lives {
    ($($name:ident: $orders:expr;)*) => {
        $(#[test]
        fn $name() {
            scenario(Settings::default(), |server| whole_life(server, &$orders));
        })*
    };
}

mod layouts {
    use super::*;
    const WORDS: [&str; 5] = ["", "Ada", "Zoë's", "ada", "zz \"quoted\" \\ {x,y} NULL"];
    lives! {
        list: Orders::new(LIST);
        list_with_default: Orders::new(LIST_WITH_DEFAULT);
        list_with_one_tenant_a_partition: Orders::new(LIST_OF_ONE);
        range: Orders::new(RANGE);
        hash: Orders::new(HASH);
        by_month: Orders::new(MONTH);
        list_then_hash: Orders::new(LEVELS_LIST_HASH);
        by_month_then_list: Orders::new(LEVELS_MONTH_LIST);
        leaves_attached_later: Orders::new(ATTACHED);
        text: Orders::of_type(HASH, "text", &WORDS);
        uuid_by_month: Orders::of_type(MONTH, "uuid", &[
            "00000000-0000-0000-0000-000000000000", "11111111-1111-1111-1111-111111111111",
            "22222222-2222-2222-2222-222222222222", "33333333-3333-3333-3333-333333333333",
            "ffffffff-ffff-ffff-ffff-ffffffffffff"]);
        char_of_fixed_width: Orders::of_type(HASH, "char(3)", &["a", "ab", "abc", "b", "c"]);
    }
}

/// Rows of the coming entities change, move between leaves and between entities while they are copied; the
/// snapshot of whoever looks shows the same as ever; and shadow_verify says that the earlier ones are equal.
#[test]
fn writes_in_the_middle() {
    for layout in [LIST_WITH_DEFAULT, MONTH, HASH] {
        let settings = Settings::default().set("shadowpart.copy_rate_limit", "200kB");
        scenario(settings, |server| {
            let orders = Orders::new(layout);
            let (mut session, twin) = prepare(server, &orders, 8000)?;
            // A trigger that writes again: the rest of the transaction is mirrored by state.
            twin.both(
                &mut session,
                "CREATE FUNCTION {s}.again() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     UPDATE {s}.orders SET note = 'again' WHERE tenant = 1 AND id = NEW.id + 1;
                     RETURN NULL;
                 END $$;
                 CREATE TRIGGER again AFTER UPDATE OF region ON {s}.orders
                     FOR EACH ROW EXECUTE FUNCTION {s}.again()",
            )?;
            server.configure("shadowpart.copy_rate_limit", "0")?;
            server.reload()?;
            let id = session.create_shadow("live.orders", "1", "fast")?;
            server.configure("shadowpart.copy_rate_limit", "200kB")?;
            server.reload()?;
            let mut old = server.connect()?;
            old.run("BEGIN ISOLATION LEVEL REPEATABLE READ")?;
            let seen = old.value("SELECT count(*) || ' ' || sum(id) FROM live.orders")?;
            session.run(&format!(
                "SELECT shadow_add_entities({id}, ARRAY[2, 3], wait => false)"
            ))?;
            let mut rounds = 0;
            while session.state(id)? == "adding" && rounds < 5 {
                rounds += 1;
                orders.write(&twin, &mut session, rounds)?;
                // From a tenant that is there to one that is coming, and back, and onwards.
                for (from, to) in [(1, 2), (2, 1), (3, 4), (4, 2), (5, 3)] {
                    twin.both_alike(
                        &mut session,
                        &format!(
                            "UPDATE {{s}}.orders SET tenant = {to}, id = id + {step}
                             WHERE tenant = {from} AND id % 23 = {}",
                            rounds % 23,
                            step = 1_000_000_000 * (i64::from(rounds) * 10 + from),
                        ),
                    )?;
                }
                twin.both(
                    &mut session,
                    "UPDATE {s}.orders SET region = region + 0 WHERE id % 53 = 3",
                )?;
                twin.assert_same(&mut session)?;
                assert_equal_sides(&mut session, id)?;
            }
            ensure!(rounds > 0, "it was over before it began");
            server.configure("shadowpart.copy_rate_limit", "0")?;
            server.reload()?;
            // A snapshot that cannot see what was copied holds it up.
            std::thread::sleep(Duration::from_millis(500));
            let state = session.state(id)?;
            ensure!(state == "adding", "{state} in spite of an older snapshot");
            let again = old.value("SELECT count(*) || ' ' || sum(id) FROM live.orders")?;
            ensure!(seen == again, "{again}, not {seen}");
            old.run("COMMIT")?;
            session.wait_until_settled(id)?;
            ensure!(entities(&mut session, id)? == ["1", "2", "3"]);
            assert_equal_sides(&mut session, id)?;
            session.swap(id)?;
            twin.assert_same(&mut session)?;
            assert_moved(&mut session, &orders, &[0, 1, 2])?;
            orders.write(&twin, &mut session, 9)?;
            twin.assert_same(&mut session)?;
            assert_equal_sides(&mut session, id)
        });
    }
}

/// Whoever has a snapshot in which the removed rows are still in the shadow must not meet a swapped shadow:
/// they would see those rows twice. And whoever still reads the shadow, from before it was swapped back, goes
/// on seeing what is.
#[test]
fn older_snapshots_and_a_removal() {
    scenario(Settings::default(), |server| {
        let orders = Orders::new(LIST);
        let (mut session, twin) = prepare(server, &orders, 2000)?;
        let id = session
            .number("SELECT shadow_create('live.orders', ARRAY[1, 2, 5], tablespace => 'fast')")?;
        session.swap(id)?;
        let mut reader = server.connect()?;
        reader
            .run("BEGIN; DECLARE c CURSOR FOR SELECT id FROM live.orders WHERE tenant IN (1, 2)")?;
        session.revert(id)?;
        let mut old = server.connect()?;
        old.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM pg_class LIMIT 1")?;
        session.run(&format!(
            "SELECT shadow_remove_entities({id}, 2, wait => false)"
        ))?;
        std::thread::sleep(Duration::from_millis(500));
        ensure!(session.state(id)? == "removing");
        let expected = session.number("SELECT count(*) FROM live.orders WHERE tenant IN (1, 2)")?;
        orders.write(&twin, &mut session, 1)?;
        let fetched = reader.rows("FETCH ALL FROM c")?.len() as i64;
        ensure!(fetched == expected, "{fetched} rows, not {expected}");
        reader.run("COMMIT")?;
        std::thread::sleep(Duration::from_millis(500));
        session.run(&format!("SELECT shadow_swap({id}, wait => false)"))?;
        std::thread::sleep(Duration::from_millis(500));
        let state = session.state(id)?;
        ensure!(state == "removing", "{state} in spite of an older snapshot");
        let seen = old.number("SELECT count(*) FROM live.orders WHERE tenant IN (1, 2)")?;
        ensure!(seen == expected, "{seen} rows, not {expected}");
        old.run("COMMIT")?;
        session.wait_for_state(id, &["migrated"])?;
        assert_moved(&mut session, &orders, &[0, 4])?;
        twin.assert_same(&mut session)?;
        orders.write(&twin, &mut session, 2)?;
        twin.assert_same(&mut session)
    });
}

/// A call that is cancelled, by its waiter, by the end of its session, or by shadow_cancel(), leaves the
/// shadow with the entities that it had, ready, and nothing of the new ones.
#[test]
fn an_addition_is_cancelled() {
    for layout in [LIST, MONTH] {
        let settings = Settings::default();
        scenario(settings, |server| {
            let orders = Orders::new(layout);
            let (mut session, twin) = prepare(server, &orders, 6000)?;
            let id = session.create_shadow("live.orders", "1", "fast")?;
            let before = Orphans::look(&mut session)?;
            server.configure("shadowpart.copy_rate_limit", "50kB")?;
            server.reload()?;
            for (round, how) in ["cancel", "terminate", "shadow_cancel"].iter().enumerate() {
                let mut waiter = server.connect()?;
                let pid = waiter.pid;
                let call = std::thread::spawn(move || {
                    waiter.run(&format!("SELECT shadow_add_entities({id}, ARRAY[2, 3])"))
                });
                until("rows are copied", Duration::from_secs(40), || {
                    let done = session.number(&format!(
                        "SELECT coalesce(max(rows_done), 0) FROM shadow_progress WHERE id = {id}"
                    ))?;
                    Ok((done > 0 && session.state(id)? == "adding").then_some(()))
                })?;
                orders.write(&twin, &mut session, 1 + round as u32)?;
                match *how {
                    "cancel" => session.run(&format!("SELECT pg_cancel_backend({pid})"))?,
                    "terminate" => session.run(&format!("SELECT pg_terminate_backend({pid})"))?,
                    _ => {
                        let answer = session.value(&format!("SELECT shadow_cancel({id})"))?;
                        ensure!(answer == "t", "shadow_cancel said {answer}");
                        ensure!(session.state(id)? == "ready");
                    }
                }
                let error = call
                    .join()
                    .expect("the waiter does not panic")
                    .err()
                    .with_context(|| format!("{how}: the call succeeded"))?;
                let code = sqlstate(&error).unwrap_or("none").to_owned();
                let expected: &[&str] = if *how == "terminate" {
                    &["57P01", "none"]
                } else {
                    &["57014"]
                };
                ensure!(
                    expected.contains(&code.as_str()),
                    "{how}: {code}: {error:#}"
                );
                let state = session.wait_until_settled(id)?;
                ensure!(state == "ready", "{how}: {state}");
                ensure!(entities(&mut session, id)? == ["1"], "{how}");
                twin.assert_same(&mut session)?;
                orders.write(&twin, &mut session, 5 + round as u32)?;
                assert_equal_sides(&mut session, id)?;
                let (there, wanted) = (
                    tuples_of_shadows(&mut session, id)?,
                    count(&mut session, "tenant = 1")?,
                );
                ensure!(there == wanted, "{how}: {there} rows, not {wanted}");
                let now = Orphans::look(&mut session)?;
                now.assert_tidy_since(&before, &mut session, "live.orders")
                    .context(*how)?;
                ensure!(now == before, "{how}: {now:?}, not {before:?}");
            }
            server.configure("shadowpart.copy_rate_limit", "0")?;
            server.reload()?;
            add(&mut session, id, "2")?;
            session.swap(id)?;
            twin.assert_same(&mut session)?;
            assert_moved(&mut session, &orders, &[0, 1])
        });
    }
}

/// Several sessions wait for jobs, each in a statement with a snapshot of its own: for one shadow and another, and two
/// for the same. No job waits for any of them.
#[test]
fn several_sessions_wait() {
    let settings = Settings::default().set("shadowpart.wait_timeout", "20s");
    scenario(settings, |server| {
        let orders = Orders::new(LIST);
        let (mut session, twin) = prepare(server, &orders, 6000)?;
        let id = session.create_shadow("live.orders", "1", "fast")?;
        server.configure("shadowpart.copy_rate_limit", "50kB")?;
        server.reload()?;
        let calls = [
            format!("SELECT shadow_add_entities({id}, 2)"),
            format!("SELECT shadow_swap({id})"),
            "SELECT shadow_create('live.orders', 3, tablespace => 'fast')".to_owned(),
            "SELECT shadow_migrate('live.orders', 4, tablespace => 'fast')".to_owned(),
        ];
        let mut waiters = Vec::new();
        for call in calls {
            let mut waiter = server.connect()?;
            waiters.push(std::thread::spawn(move || waiter.run(&call)));
            std::thread::sleep(Duration::from_millis(300));
        }
        orders.write(&twin, &mut session, 1)?;
        for waiter in waiters {
            waiter.join().expect("waiters do not panic")?;
        }
        assert_moved(&mut session, &orders, &[0, 1, 3])?;
        twin.assert_same(&mut session)
    });
}

/// Adding and dropping, adding and swapping, adding and DROP EXTENSION: what is wanted later wins.
#[test]
fn something_else_in_the_middle() {
    for what in ["drop", "swap", "extension", "terminate"] {
        scenario(Settings::default(), |server| {
            let orders = Orders::new(HASH);
            let (mut session, twin) = prepare(server, &orders, 6000)?;
            let before = Orphans::look(&mut session)?;
            let id = session.create_shadow("live.orders", "1", "fast")?;
            server.configure("shadowpart.copy_rate_limit", "50kB")?;
            server.reload()?;
            session.run(&format!(
                "SELECT shadow_add_entities({id}, ARRAY[2, 3, 4], wait => false)"
            ))?;
            until("rows are copied", Duration::from_secs(40), || {
                let done = session.number(&format!(
                    "SELECT coalesce(max(rows_done), 0) FROM shadow_progress WHERE id = {id}"
                ))?;
                Ok((done > 0).then_some(()))
            })?;
            orders.write(&twin, &mut session, 1)?;
            match what {
                "drop" => {
                    session.drop_shadow(id)?;
                    ensure!(session.state(id)? == "dropped");
                }
                "extension" => session.run("DROP EXTENSION shadowpart CASCADE")?,
                "swap" => {
                    session.run(&format!("SELECT shadow_swap({id}, wait => false)"))?;
                    ensure!(session.state(id)? == "adding");
                    server.configure("shadowpart.copy_rate_limit", "0")?;
                    server.reload()?;
                    session.wait_for_state(id, &["migrated"])?;
                    assert_moved(&mut session, &orders, &[0, 1, 2, 3])?;
                }
                _ => {
                    for _ in 0..3 {
                        session.run(
                            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                             WHERE backend_type ILIKE '%shadowpart%'",
                        )?;
                        std::thread::sleep(Duration::from_millis(700));
                    }
                    server.configure("shadowpart.copy_rate_limit", "0")?;
                    server.reload()?;
                    session.wait_for_state(id, &["ready"])?;
                    ensure!(entities(&mut session, id)? == ["1", "2", "3", "4"]);
                    assert_equal_sides(&mut session, id)?;
                }
            }
            twin.assert_same(&mut session)?;
            orders.write(&twin, &mut session, 2)?;
            twin.assert_same(&mut session)?;
            if what == "drop" {
                let now = Orphans::look(&mut session)?;
                ensure!(now == before, "{now:?}, not {before:?}");
            }
            Ok(())
        });
    }
}

/// An entity without rows, one whose leaf has no pair yet, one that is there already, and spellings that are
/// equal; what the views say.
#[test]
fn what_is_said() {
    scenario(Settings::default(), |server| {
        let orders = Orders::of_type(LIST_WITH_DEFAULT, "numeric", &["1", "2", "3", "4", "5"]);
        let (mut session, twin) = prepare(server, &orders, 1000)?;
        let id = session.create_shadow("live.orders", "1", "fast")?;
        session.notices();
        add(&mut session, id, "'1.00'")?;
        let notices = session.notices().join("\n");
        ensure!(notices.contains("already"), "{notices}");
        ensure!(entities(&mut session, id)? == ["1"]);
        add(&mut session, id, "ARRAY[77, 1]")?;
        let notices = session.notices().join("\n");
        ensure!(
            notices.contains("already") && notices.contains("no rows"),
            "{notices}"
        );
        twin.both_alike(
            &mut session,
            "INSERT INTO {s}.orders SELECT 0, 77, g FROM generate_series(900001, 900010) g",
        )?;
        add(&mut session, id, "3")?;
        let notices = session.notices().join("\n");
        // Who looks now and then may miss a short one.
        let phases = ["capture", "copy", "catch-up", "wait"];
        let seen = phases.iter().filter(|phase| notices.contains(**phase));
        ensure!(seen.count() > 1, "few phases: {notices}");
        remove(&mut session, id, "'1.0'")?;
        ensure!(entities(&mut session, id)? == ["3", "77"]);
        assert_equal_sides(&mut session, id)?;
        let events = session.column(&format!(
            "SELECT event || ' ' || coalesce(details ->> 'entities', '') FROM shadow_history
             WHERE id = {id} AND event IN ('add', 'remove') AND took_ms > 0 ORDER BY at"
        ))?;
        ensure!(events == ["add 1", "add 1", "remove 1"], "{events:?}");
        let status = session.rows(&format!(
            "SELECT state, goal, rows > 0, details -> 'adding', details -> 'removing' FROM shadow_status WHERE id = {id}"
        ))?;
        let texts: Vec<&str> = status[0]
            .iter()
            .map(|v| v.as_deref().unwrap_or("-"))
            .collect();
        ensure!(
            texts == ["ready", "ready", "t", "null", "null"],
            "{texts:?}"
        );
        let route = session.rows(
            "SELECT entity, state FROM shadow_route('live.orders', ARRAY[1, 3, 77]) ORDER BY 1",
        )?;
        let states: Vec<Option<&str>> = route.iter().map(|r| r[1].as_deref()).collect();
        ensure!(states == [None, Some("ready"), Some("ready")], "{route:?}");
        session.swap(id)?;
        twin.assert_same(&mut session)?;
        ensure!(tablespaces_of(&mut session, "live.orders", "tenant IN (3, 77)")? == ["fast"]);
        ensure!(tablespaces_of(&mut session, "live.orders", "tenant = 1")? == ["pg_default"]);
        Ok(())
    });
}

/// TRUNCATE in the middle: of the table, which both sides follow, and of a leaf, after which the shadow is
/// built again before it is swapped.
#[test]
fn truncate_in_the_middle() {
    for what in ["orders", "orders_rest"] {
        scenario(Settings::default(), |server| {
            let orders = Orders::new(LIST_WITH_DEFAULT);
            let (mut session, twin) = prepare(server, &orders, 6000)?;
            let id = session.create_shadow("live.orders", "1", "fast")?;
            server.configure("shadowpart.copy_rate_limit", "50kB")?;
            server.reload()?;
            session.run(&format!(
                "SELECT shadow_add_entities({id}, ARRAY[2, 5], wait => false)"
            ))?;
            until("rows are copied", Duration::from_secs(40), || {
                let done = session.number(&format!(
                    "SELECT coalesce(max(rows_done), 0) FROM shadow_progress WHERE id = {id}"
                ))?;
                Ok((done > 0).then_some(()))
            })?;
            twin.both(&mut session, &format!("TRUNCATE {{s}}.{what}"))?;
            twin.assert_same(&mut session)?;
            orders.write(&twin, &mut session, 1)?;
            server.configure("shadowpart.copy_rate_limit", "0")?;
            server.reload()?;
            session.wait_for_state(id, &["ready"])?;
            twin.assert_same(&mut session)?;
            let stale = session.value(&format!(
                "SELECT coalesce(details ->> 'stale', '') FROM shadow_status WHERE id = {id}"
            ))?;
            ensure!(stale.is_empty() == (what == "orders"), "stale: {stale}");
            if what == "orders_rest" {
                let failure = session.failure(&format!("SELECT shadow_add_entities({id}, 3)"))?;
                ensure!(failure.sqlstate == "55000", "{failure:?}");
            }
            session.swap(id)?;
            ensure!(entities(&mut session, id)? == ["1", "2", "5"]);
            twin.assert_same(&mut session)?;
            orders.write(&twin, &mut session, 2)?;
            twin.assert_same(&mut session)?;
            assert_equal_sides(&mut session, id)
        });
    }
}

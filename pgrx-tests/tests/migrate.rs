//! The whole life of a migration, for each way to partition a table and each type of tenant: manage,
//! a standing shadow, migrate, revert, migrate again, finalize, back home. After each step a round of
//! every kind of write; the table must equal its twin, and the rows must lie where they should.

use shadowpart_tests::*;

/// All live tuples of all leaves, hidden ones too.
fn tuples_of_all_leaves(session: &mut Session, table: &str) -> Result<i64> {
    let leaves = session.column(&format!(
        "SELECT relid::text FROM pg_partition_tree('{table}') WHERE isleaf"
    ))?;
    leaves.iter().map(|leaf| live_tuples(session, leaf)).sum()
}

fn count(session: &mut Session, condition: &str) -> Result<i64> {
    session.number(&format!(
        "SELECT count(*) FROM live.orders WHERE {condition}"
    ))
}

fn whole_life(server: &mut Server, orders: &Orders) -> Result<()> {
    server.tablespace("fast")?;
    let mut session = server.connect()?;
    session.run("CREATE EXTENSION pgstattuple")?;
    let twin = orders.create(&mut session)?;
    orders.fill(&twin, &mut session, 2000)?;
    let mine = orders.is(0);
    let others = format!("NOT ({mine})");
    let at_home = |session: &mut Session| -> Result<()> {
        ensure!(tablespaces_of(session, "live.orders", "true")? == ["pg_default"]);
        Ok(())
    };
    let moved = |session: &mut Session| -> Result<()> {
        ensure!(tablespaces_of(session, "live.orders", &mine)? == ["fast"]);
        ensure!(tablespaces_of(session, "live.orders", &others)? == ["pg_default"]);
        Ok(())
    };
    session.run("SELECT shadow_manage('live.orders', 'tenant')")?;
    twin.assert_same(&mut session)?;

    // A standing shadow sees every write and changes nothing; then it goes.
    let id = session.create_shadow("live.orders", orders.tenant(0), "fast")?;
    ensure!(session.state(id)? == "ready");
    orders.write(&twin, &mut session, 1)?;
    twin.assert_same(&mut session)?;
    at_home(&mut session)?;
    let different = session.rows(&format!("SELECT * FROM shadow_verify({id})"))?;
    ensure!(different.is_empty(), "{different:?}");
    session.drop_shadow(id)?;
    orders.write(&twin, &mut session, 2)?;
    twin.assert_same(&mut session)?;

    // There and back.
    let id = session.migrate("live.orders", orders.tenant(0), "fast")?;
    ensure!(session.state(id)? == "migrated");
    twin.assert_same(&mut session)?;
    orders.write(&twin, &mut session, 3)?;
    twin.assert_same(&mut session)?;
    moved(&mut session)?;
    let hidden = tuples_of_all_leaves(&mut session, "live.orders")? - count(&mut session, "true")?;
    ensure!(
        hidden == count(&mut session, &mine)?,
        "{hidden} hidden rows, not those that moved"
    );
    session.revert(id)?;
    ensure!(session.state(id)? == "ready");
    twin.assert_same(&mut session)?;
    orders.write(&twin, &mut session, 4)?;
    twin.assert_same(&mut session)?;
    at_home(&mut session)?;

    // There again, through the shadow that stands, for good.
    let again = session.migrate("live.orders", orders.tenant(0), "fast")?;
    ensure!(
        again == id,
        "the standing shadow {id} was not used, but {again}"
    );
    orders.write(&twin, &mut session, 5)?;
    session.finalize(id)?;
    ensure!(session.state(id)? == "finalized");
    moved(&mut session)?;
    twin.assert_same(&mut session)?;
    orders.write(&twin, &mut session, 6)?;
    twin.assert_same(&mut session)?;
    let physical = tuples_of_all_leaves(&mut session, "live.orders")?;
    ensure!(
        physical == count(&mut session, "true")?,
        "hidden rows are left"
    );

    // And home again, now out of the tablespace.
    let id = session.migrate("live.orders", orders.tenant(0), "pg_default")?;
    orders.write(&twin, &mut session, 7)?;
    session.finalize(id)?;
    twin.assert_same(&mut session)?;
    at_home(&mut session)?;
    let physical = tuples_of_all_leaves(&mut session, "live.orders")?;
    ensure!(
        physical == count(&mut session, "true")?,
        "hidden rows are left"
    );
    session.run("SELECT shadow_unmanage('live.orders')")?;
    orders.write(&twin, &mut session, 8)?;
    twin.assert_same(&mut session)
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
    lives! {
        list: Orders::new(LIST);
        list_with_default: Orders::new(LIST_WITH_DEFAULT);
        list_with_one_tenant_a_partition: Orders::new(LIST_OF_ONE);
        range: Orders::new(RANGE);
        range_with_default: Orders::new(RANGE_WITH_DEFAULT);
        hash: Orders::new(HASH);
        by_month: Orders::new(MONTH);
        list_then_hash: Orders::new(LEVELS_LIST_HASH);
        by_month_then_list: Orders::new(LEVELS_MONTH_LIST);
        range_of_two_columns: Orders::new(RANGE_OF_TWO);
        leaves_attached_later: Orders::new(ATTACHED);
    }
}

mod types {
    use super::*;
    const WORDS: [&str; 5] = ["", "Ada", "Zoë's", "ada", "zz \"quoted\" \\ {x,y} NULL"];
    lives! {
        int2: Orders::of_type(LIST_WITH_DEFAULT, "int2", &["-32767", "-1", "0", "7", "32767"]);
        int8: Orders::of_type(HASH, "int8", &["-9000000000", "0", "1", "2", "9000000000"]);
        text: Orders::of_type(LIST_WITH_DEFAULT, "text", &WORDS);
        text_by_hash: Orders::of_type(HASH, "text", &WORDS);
        text_with_another_collation:
            Orders::of_type(LIST, "text COLLATE \"POSIX\"", &["A", "B", "C", "a", "ab"]);
        varchar: Orders::of_type(RANGE, "varchar(3)", &["a", "ab", "abc", "b", "zzz"]);
        char_of_fixed_width: Orders::of_type(LIST_WITH_DEFAULT, "char(3)", &["a", "ab", "abc", "b", "c"]);
        uuid: Orders::of_type(HASH, "uuid", &[
            "00000000-0000-0000-0000-000000000000", "11111111-1111-1111-1111-111111111111",
            "22222222-2222-2222-2222-222222222222", "33333333-3333-3333-3333-333333333333",
            "ffffffff-ffff-ffff-ffff-ffffffffffff"]);
        date: Orders::of_type(RANGE, "date",
            &["-infinity", "2024-01-01", "2024-02-29", "2025-01-01", "infinity"]);
        timestamptz: Orders::of_type(RANGE_WITH_DEFAULT, "timestamptz",
            &["2024-01-01 00:00Z", "2024-01-01 00:00:00.000001Z", "2024-01-02Z", "2024-01-03Z", "infinity"]);
        numeric: Orders::of_type(HASH, "numeric", &["-1.50", "0", "1", "1e30", "NaN"]);
        boolean: Orders::of_type(HASH, "boolean", &["false", "true"]);
        boolean_by_month: Orders::of_type(MONTH, "boolean", &["false", "true"]);
        bytea: Orders::of_type(LIST_WITH_DEFAULT, "bytea", &["\\x", "\\x00", "\\x01", "\\x02", "\\xff"]);
        inet: Orders::of_type(HASH, "inet", &["10.0.0.1", "10.0.0.2", "10.1.0.0/16", "::1", "fe80::1"]);
    }
}

/// Types that must be made first.
fn whole_life_of_type(definition: &str, orders: &Orders) {
    scenario(Settings::default(), |server| {
        server.connect()?.run(definition)?;
        whole_life(server, orders)
    });
}

#[test]
fn an_enum() {
    whole_life_of_type(
        "CREATE TYPE carrier AS ENUM ('AA', 'B6', 'DL', 'UA', 'WN')",
        &Orders::of_type(LIST, "carrier", &["AA", "B6", "DL", "UA", "WN"]),
    );
}

#[test]
fn an_enum_with_a_default_partition() {
    whole_life_of_type(
        "CREATE TYPE carrier AS ENUM ('AA', 'B6', 'DL', 'UA', 'WN')",
        &Orders::of_type(
            LIST_WITH_DEFAULT,
            "carrier",
            &["AA", "B6", "DL", "UA", "WN"],
        ),
    );
}

#[test]
fn a_domain_over_int() {
    whole_life_of_type(
        "CREATE DOMAIN customer AS int CHECK (VALUE BETWEEN 1 AND 100)",
        &Orders::of_type(HASH, "customer", &["1", "2", "3", "99", "100"]),
    );
}

#[test]
fn a_domain_over_text() {
    whole_life_of_type(
        "CREATE DOMAIN country AS text CHECK (VALUE ~ '^[A-Z]{2}$')",
        &Orders::of_type(
            LIST_WITH_DEFAULT,
            "country",
            &["AT", "CH", "DE", "FR", "IT"],
        ),
    );
}

/// Collations of ICU: one that orders otherwise than bytes do, and one under which "ada" equals
/// "ADA". Only where the server has ICU.
#[test]
fn text_with_collations_of_icu() {
    for (options, tenants) in [
        ("locale = 'und'", ["a", "A", "b", "B", "c"]),
        (
            "locale = 'und-u-ks-level2', deterministic = false",
            ["ada", "bob", "Cy", "dee", "eve"],
        ),
    ] {
        scenario(Settings::default(), |server| {
            let create = format!("CREATE COLLATION words (provider = icu, {options})");
            let created = server.connect()?.run(&create);
            match created {
                Err(error) if sqlstate(&error) == Some("0A000") => return Ok(()),
                other => other?,
            }
            // A partition key with such a collation: hashed, which works for all of them.
            whole_life(
                server,
                &Orders::of_type(HASH, "text COLLATE words", &tenants),
            )
        });
    }
}

/// Under a collation that is not deterministic an entity has many spellings, and all of them move.
#[test]
fn every_spelling_of_an_entity_moves() {
    scenario(Settings::default(), |server| {
        server.tablespace("fast")?;
        let mut session = server.connect()?;
        let created = session.run(
            "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        );
        match created {
            Err(error) if sqlstate(&error) == Some("0A000") => return Ok(()),
            other => other?,
        }
        let twin = Twin::create(
            &mut session,
            &["t"],
            "CREATE TABLE {s}.t (who text COLLATE ci NOT NULL, id int, PRIMARY KEY (who, id))
                 PARTITION BY LIST (who);
             CREATE TABLE {s}.t_a PARTITION OF {s}.t FOR VALUES IN ('ada', 'bob');
             CREATE TABLE {s}.t_rest PARTITION OF {s}.t DEFAULT;
             INSERT INTO {s}.t SELECT (ARRAY['ada', 'Ada', 'ADA', 'BOB', 'Cy'])[1 + g % 5], g
             FROM generate_series(1, 500) g",
        )?;
        session.run("SELECT shadow_manage('live.t', 'who')")?;
        session.migrate("live.t", "aDa", "fast")?;
        twin.both_alike(
            &mut session,
            "INSERT INTO {s}.t VALUES ('adA', 1000), ('ADa', 1001)",
        )?;
        twin.assert_same(&mut session)?;
        ensure!(tablespaces_of(&mut session, "live.t", "who = 'ada'")? == ["fast"]);
        ensure!(tablespaces_of(&mut session, "live.t", "who <> 'ada'")? == ["pg_default"]);
        Ok(())
    });
}

/// Several entities of several leaves move in one swap; others stay. One of them moves on alone.
#[test]
fn several_entities_at_once() {
    scenario(Settings::default(), |server| {
        server.tablespace("fast")?;
        server.tablespace("faster")?;
        let mut session = server.connect()?;
        let orders = Orders::new(HASH);
        let twin = orders.create(&mut session)?;
        orders.fill(&twin, &mut session, 3000)?;
        session.run("SELECT shadow_manage('live.orders', 'tenant')")?;
        let sql = "SELECT shadow_migrate('live.orders', ARRAY[1, 2, 4], tablespace => 'fast')";
        let id = session.number(sql)?;
        orders.write(&twin, &mut session, 1)?;
        twin.assert_same(&mut session)?;
        ensure!(tablespaces_of(&mut session, "live.orders", "tenant IN (1, 2, 4)")? == ["fast"]);
        ensure!(
            tablespaces_of(&mut session, "live.orders", "tenant NOT IN (1, 2, 4)")?
                == ["pg_default"]
        );
        let entities = session.value(&format!(
            "SELECT entities FROM shadow_status WHERE id = {id}"
        ))?;
        ensure!(entities == "{1,2,4}", "{entities}");
        session.revert(id)?;
        orders.write(&twin, &mut session, 2)?;
        twin.assert_same(&mut session)?;
        ensure!(tablespaces_of(&mut session, "live.orders", "true")? == ["pg_default"]);
        session.number(sql)?;
        session.finalize(id)?;
        twin.assert_same(&mut session)?;

        session.migrate("live.orders", "2", "faster")?;
        orders.write(&twin, &mut session, 3)?;
        twin.assert_same(&mut session)?;
        ensure!(tablespaces_of(&mut session, "live.orders", "tenant = 2")? == ["faster"]);
        ensure!(tablespaces_of(&mut session, "live.orders", "tenant IN (1, 4)")? == ["fast"]);
        Ok(())
    });
}

/// Entities of the same leaf, moved one after the other to different places, then some of them back.
#[test]
fn neighbours_move_one_by_one() {
    scenario(Settings::default(), |server| {
        server.tablespace("fast")?;
        server.tablespace("faster")?;
        let mut session = server.connect()?;
        let orders = Orders::new(LIST);
        let twin = orders.create(&mut session)?;
        orders.fill(&twin, &mut session, 2000)?;
        session.run("SELECT shadow_manage('live.orders', 'tenant')")?;
        let one = session.migrate("live.orders", "1", "fast")?;
        let two = session.migrate("live.orders", "2", "faster")?;
        orders.write(&twin, &mut session, 1)?;
        let five = session.create_shadow("live.orders", "5", "fast")?;
        orders.write(&twin, &mut session, 2)?;
        twin.assert_same(&mut session)?;
        for (tenant, place) in [("1", "fast"), ("2", "faster"), ("5", "pg_default")] {
            let found = tablespaces_of(&mut session, "live.orders", &format!("tenant = {tenant}"))?;
            ensure!(found == [place], "{tenant} is in {found:?}");
        }
        session.revert(one)?;
        session.finalize(two)?;
        session.swap(five)?;
        orders.write(&twin, &mut session, 3)?;
        twin.assert_same(&mut session)?;
        for (tenant, place) in [("1", "pg_default"), ("2", "faster"), ("5", "fast")] {
            let found = tablespaces_of(&mut session, "live.orders", &format!("tenant = {tenant}"))?;
            ensure!(found == [place], "{tenant} is in {found:?}");
        }
        session.drop_shadow(one)?;
        session.finalize(five)?;
        orders.write(&twin, &mut session, 4)?;
        twin.assert_same(&mut session)
    });
}

/// A whole partition moves with the same swap, can come back, and what is not in it stays. Afterwards
/// the old relation is not needed and is gone.
#[test]
fn a_whole_partition() {
    for layout in [LIST_WITH_DEFAULT, HASH, MONTH, RANGE] {
        scenario(Settings::default(), |server| {
            server.tablespace("fast")?;
            let mut session = server.connect()?;
            let orders = Orders::new(layout);
            let twin = orders.create(&mut session)?;
            orders.fill(&twin, &mut session, 2000)?;
            session.run("SELECT shadow_manage('live.orders', 'tenant')")?;
            let leaf = leaf_of(
                &mut session,
                "live.orders",
                "tenant = 3 AND at < '2024-02-01'",
            )?;
            let leaf = leaf.first().context("no leaf")?;
            let rows = format!("SELECT count(*) FROM {leaf}");
            let here = session.number(&rows)?;
            ensure!(here > 0);
            let relations_before =
                session.number("SELECT count(*) FROM pg_class WHERE relkind = 'r'")?;
            let migrate =
                format!("SELECT shadow_migrate('{leaf}', \"all\" => true, tablespace => 'fast')");
            let id = session.number(&migrate)?;
            let (fast, slow) = ("tenant = 3 AND at < '2024-02-01'", "at >= '2024-02-01'");
            ensure!(tablespaces_of(&mut session, "live.orders", fast)? == ["fast"]);
            if layout.name == MONTH.name {
                ensure!(tablespaces_of(&mut session, "live.orders", slow)? == ["pg_default"]);
            }
            orders.write(&twin, &mut session, 1)?;
            twin.assert_same(&mut session)?;
            let whole = format!("SELECT whole_partition FROM shadow_status WHERE id = {id}");
            ensure!(session.value(&whole)? == "t");
            session.revert(id)?;
            orders.write(&twin, &mut session, 2)?;
            twin.assert_same(&mut session)?;
            ensure!(tablespaces_of(&mut session, "live.orders", "true")? == ["pg_default"]);
            session.number(&migrate)?;
            orders.write(&twin, &mut session, 3)?;
            session.finalize(id)?;
            twin.assert_same(&mut session)?;
            ensure!(tablespaces_of(&mut session, "live.orders", fast)? == ["fast"]);
            orders.write(&twin, &mut session, 4)?;
            twin.assert_same(&mut session)?;
            let relations = session.number("SELECT count(*) FROM pg_class WHERE relkind = 'r'")?;
            ensure!(
                relations <= relations_before,
                "the old partition is still there"
            );
            Ok(())
        });
    }
}

/// TRUNCATE of the table, of a leaf, and COPY into both, with shadows about.
#[test]
fn truncate_and_copy() {
    scenario(Settings::default(), |server| {
        server.tablespace("fast")?;
        let mut session = server.connect()?;
        let orders = Orders::new(LIST);
        let twin = orders.create(&mut session)?;
        orders.fill(&twin, &mut session, 1000)?;
        session.run("SELECT shadow_manage('live.orders', 'tenant')")?;
        let id = session.create_shadow("live.orders", "1", "fast")?;
        for step in 0..4 {
            if step == 2 {
                session.swap(id)?;
            }
            if step == 1 || step == 3 {
                twin.both(&mut session, "TRUNCATE {s}.orders")?;
            }
            twin.assert_same(&mut session)?;
            for schema in ["live", "twin"] {
                use std::io::Write;
                let copy = format!("COPY {schema}.orders (region, tenant, id) FROM STDIN");
                let mut writer = session.copy_in(&copy)?;
                for n in 0..500 {
                    writeln!(writer, "0\t{}\t{}", 1 + n % 5, 7_000_000 + 1000 * step + n)?;
                }
                ensure!(writer.finish()? == 500);
            }
            twin.assert_same(&mut session)?;
            session.run("BEGIN; TRUNCATE live.orders; ROLLBACK")?;
            twin.assert_same(&mut session)?;
            let different = session.rows(&format!("SELECT * FROM shadow_verify({id})"))?;
            ensure!(different.is_empty(), "{different:?}");
        }
        session.revert(id)?;
        twin.assert_same(&mut session)?;
        // A leaf alone: its own rows go, also those of the shadow; nobody else's do.
        twin.both(
            &mut session,
            "DELETE FROM {s}.orders WHERE tenant IN (1, 2, 5)",
        )?;
        session.run("TRUNCATE live.orders_a")?;
        twin.assert_same(&mut session)?;
        let different = session.rows(&format!("SELECT * FROM shadow_verify({id})"))?;
        ensure!(different.is_empty(), "{different:?}");
        Ok(())
    });
}

/// An unlogged table has an unlogged shadow.
#[test]
fn an_unlogged_table() {
    scenario(Settings::default(), |server| {
        server.tablespace("fast")?;
        let mut session = server.connect()?;
        session.run(
            "CREATE UNLOGGED TABLE leaf (tenant int, id int, PRIMARY KEY (tenant, id));
             CREATE TABLE t (tenant int, id int, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
             ALTER TABLE t ATTACH PARTITION leaf DEFAULT;
             INSERT INTO t SELECT g % 3, g FROM generate_series(1, 300) g;
             SELECT shadow_manage('t', 'tenant')",
        )?;
        session.migrate("t", "1", "fast")?;
        let sql = "SELECT string_agg(DISTINCT relpersistence::text, ',') FROM pg_class
                   WHERE oid IN (SELECT tableoid FROM t WHERE tenant = 1)";
        ensure!(session.value(sql)? == "u");
        ensure!(session.number("SELECT count(*) FROM t WHERE tenant = 1")? == 100);
        Ok(())
    });
}

/// Entity without rows: allowed for shadow_create, and its first rows then go where they should.
#[test]
fn an_entity_that_comes_later() {
    scenario(Settings::default(), |server| {
        server.tablespace("fast")?;
        let mut session = server.connect()?;
        let orders = Orders::new(LIST_WITH_DEFAULT);
        let twin = orders.create(&mut session)?;
        orders.fill(&twin, &mut session, 500)?;
        session.run("SELECT shadow_manage('live.orders', 'tenant')")?;
        session.notices();
        let id = session.create_shadow("live.orders", "77", "fast")?;
        let notices = session.notices().join("\n");
        ensure!(notices.contains("no rows"), "nothing said: {notices}");
        let insert =
            "INSERT INTO {s}.orders SELECT 0, 77, g FROM generate_series({from}, {from} + 9) g";
        twin.both_alike(&mut session, &insert.replace("{from}", "100000"))?;
        session.swap(id)?;
        twin.both_alike(&mut session, &insert.replace("{from}", "200000"))?;
        twin.assert_same(&mut session)?;
        ensure!(tablespaces_of(&mut session, "live.orders", "tenant = 77")? == ["fast"]);
        ensure!(session.number("SELECT count(*) FROM live.orders WHERE tenant = 77")? == 20);
        Ok(())
    });
}

/// The end of the revert window finalizes without being asked, and 0 means at once.
#[test]
fn the_revert_window_ends_by_itself() {
    scenario(Settings::default(), |server| {
        server.tablespace("fast")?;
        let mut session = server.connect()?;
        let orders = Orders::new(HASH);
        let twin = orders.create(&mut session)?;
        orders.fill(&twin, &mut session, 1000)?;
        session.run("SELECT shadow_manage('live.orders', 'tenant')")?;
        for (tenant, window) in [("1", "2 s"), ("2", "0")] {
            let id = session.number(&format!(
                "SELECT shadow_migrate('live.orders', '{tenant}', tablespace => 'fast',
                                       revert_window => '{window}')"
            ))?;
            orders.write(&twin, &mut session, 1 + tenant.parse::<u32>()?)?;
            session.wait_for_state(id, &["finalized"])?;
            twin.assert_same(&mut session)?;
            let failure = session.failure(&format!("SELECT shadow_revert({id})"))?;
            ensure!(
                failure.sqlstate != "XX000" && failure.hint.is_some(),
                "{failure:?}"
            );
        }
        Ok(())
    });
}

/// shadow_route, shadow_status, shadow_progress and shadow_history say what is.
#[test]
fn the_views_tell() {
    scenario(Settings::default(), |server| {
        server.tablespace("fast")?;
        let mut session = server.connect()?;
        let orders = Orders::new(LIST);
        let twin = orders.create(&mut session)?;
        orders.fill(&twin, &mut session, 1000)?;
        session.run("SELECT shadow_manage('live.orders', 'tenant')")?;
        let mut listener = server.connect()?;
        listener.run("LISTEN shadowpart")?;
        let route = "SELECT partition, tablespace, shadow_tablespace, state
                     FROM shadow_route('live.orders', 1)";
        let before = session.rows(route)?;
        ensure!(
            before.len() == 1 && before[0][0].as_deref() == Some("live.orders_a"),
            "{before:?}"
        );
        ensure!(before[0][2].is_none(), "{before:?}");
        let id = session.migrate("live.orders", "1", "fast")?;
        let notices = session.notices();
        ensure!(
            notices.len() >= 3 && notices.iter().any(|notice| notice.contains("capture")),
            "phases: {notices:?}"
        );
        let after = session.rows(route)?;
        ensure!(
            after.len() == 1 && after[0][1].as_deref() == Some("fast"),
            "{after:?}"
        );
        ensure!(after[0][3].as_deref() == Some("migrated"), "{after:?}");
        let status = session.rows(&format!(
            "SELECT relation, entities, whole_partition, source, target, state, rows, last_error,
                    revert_until BETWEEN now() + '9 min' AND now() + '11 min',
                    details ? 'swap_stall_ms', details ? 'copy_ms'
             FROM shadow_status WHERE id = {id}"
        ))?;
        let texts: Vec<&str> = status[0]
            .iter()
            .map(|v| v.as_deref().unwrap_or("NULL"))
            .collect();
        ensure!(
            texts
                == [
                    "live.orders",
                    "{1}",
                    "f",
                    "pg_default",
                    "fast",
                    "migrated",
                    "200",
                    "NULL",
                    "t",
                    "t",
                    "t"
                ],
            "{texts:?}"
        );
        let swaps = session.number(&format!(
            "SELECT count(*) FROM shadow_history WHERE id = {id} AND event = 'swap'
             AND took_ms BETWEEN 0 AND 1000 AND details ?& ARRAY['lock_wait_ms', 'held_ms', 'attempts']"
        ))?;
        ensure!(swaps == 1, "{swaps} swaps in the history");
        session.revert(id)?;
        listener.run("SELECT 1")?;
        let mut payloads = Vec::new();
        {
            use postgres::fallible_iterator::FallibleIterator;
            let mut notifications = listener.notifications();
            let mut news = notifications.timeout_iter(std::time::Duration::from_secs(2));
            while let Some(notification) = news.next()? {
                payloads.push(notification.payload().to_owned());
            }
        }
        for state in ["building", "ready", "migrated"] {
            let wanted = format!("\"{state}\"");
            ensure!(
                payloads.iter().any(|p| p.contains(&wanted)),
                "no {state} in {payloads:?}"
            );
        }
        ensure!(session.number("SELECT count(*) FROM shadow_progress")? >= 0);
        Ok(())
    });
}

//! Whatever cannot be done is refused before anything changes: with an SQLSTATE of its own (never
//! XX000), a detail and a hint, and with catalogs and jobs as they were.

use shadowpart_tests::*;
use std::time::Duration;

/// Everything a refused call could have changed, in one text.
fn catalogs(session: &mut Session) -> Result<String> {
    let parts = [
        "SELECT oid::regclass, relkind, relfilenode, reltablespace, relhastriggers FROM pg_class
         WHERE relnamespace::regnamespace::text NOT IN ('pg_catalog', 'pg_toast', 'information_schema')
           AND relpersistence <> 't'",
        "SELECT inhrelid::regclass, inhparent::regclass FROM pg_inherits",
        "SELECT oid, tgname FROM pg_trigger",
        "SELECT oid, conname, convalidated FROM pg_constraint",
        "SELECT attrelid::regclass, attname FROM pg_attribute WHERE attrelid >= 16384",
        "SELECT id, state FROM shadow_status",
        "SELECT oid, proname FROM pg_proc WHERE oid >= 16384",
    ];
    let mut all = String::new();
    for part in parts {
        all.push_str(&session.value(&format!(
            "SELECT string_agg(x::text, '; ' ORDER BY x::text) FROM ({part}) x"
        ))?);
        all.push('\n');
    }
    Ok(all)
}

/// Makes the call, which must be refused: with one of these words in the message, a detail, a hint,
/// and without a trace.
fn refused(session: &mut Session, sql: &str, words: &[&str]) -> Result<Failure> {
    let before = catalogs(session)?;
    let failure = session.failure(sql)?;
    assert_polite(sql, &failure, words)?;
    let after = catalogs(session)?;
    ensure!(
        before == after,
        "{sql}\nchanged the catalogs from\n{before}\nto\n{after}"
    );
    Ok(failure)
}

fn assert_polite(sql: &str, failure: &Failure, words: &[&str]) -> Result<()> {
    ensure!(
        failure.sqlstate != "XX000",
        "an internal error from {sql}: {failure:?}"
    );
    ensure!(
        failure.sqlstate != "42883" || !failure.message.starts_with("function"),
        "no such function: {sql}: {failure:?}"
    );
    ensure!(failure.detail.is_some(), "no detail: {sql}: {failure:?}");
    ensure!(failure.hint.is_some(), "no hint: {sql}: {failure:?}");
    let text = format!(
        "{} {} {}",
        failure.message,
        failure.detail.as_deref().unwrap_or_default(),
        failure.hint.as_deref().unwrap_or_default()
    )
    .to_lowercase();
    for word in words {
        ensure!(
            text.contains(word),
            "nothing about \"{word}\": {sql}: {failure:?}"
        );
    }
    let first = failure.message.chars().next().unwrap_or(' ');
    ensure!(
        !failure.message.ends_with('.'),
        "a message ends without full stop: {failure:?}"
    );
    ensure!(
        !first.is_uppercase() || failure.message.starts_with("NULL"),
        "style: {failure:?}"
    );
    Ok(())
}

/// A managed table of two partitions with rows of tenants 1 to 4, and a tablespace.
fn prepare(server: &mut Server) -> Result<Session> {
    server.tablespace("fast")?;
    let mut session = server.connect()?;
    session.run(
        "CREATE TABLE orders (tenant int NOT NULL, id int NOT NULL, v text, PRIMARY KEY (tenant, id))
             PARTITION BY LIST (tenant);
         CREATE TABLE orders_a PARTITION OF orders FOR VALUES IN (1, 2);
         CREATE TABLE orders_rest PARTITION OF orders DEFAULT;
         INSERT INTO orders SELECT 1 + g % 4, g, 'x' FROM generate_series(1, 100) g;
         SELECT shadow_manage('orders', 'tenant')",
    )?;
    Ok(session)
}

/// Things that are no partitioned tables cannot be managed, each for a reason that is told.
#[test]
fn only_partitioned_tables_can_be_managed() {
    scenario(Settings::default(), |server| {
        let mut session = prepare(server)?;
        session.run(
            "CREATE TABLE plain (tenant int, id int, PRIMARY KEY (tenant, id));
             CREATE VIEW looks AS SELECT * FROM orders;
             CREATE MATERIALIZED VIEW stored AS SELECT * FROM orders;
             CREATE SEQUENCE counter;
             CREATE FOREIGN DATA WRAPPER dummy;
             CREATE SERVER away FOREIGN DATA WRAPPER dummy;
             CREATE FOREIGN TABLE remote (tenant int, id int) SERVER away;
             CREATE TEMPORARY TABLE fleeting (tenant int, id int, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
             CREATE TABLE mixed (tenant int NOT NULL, id int) PARTITION BY LIST (tenant);
             CREATE FOREIGN TABLE mixed_away PARTITION OF mixed FOR VALUES IN (1) SERVER away;
             CREATE TABLE parent (tenant int, id int, PRIMARY KEY (tenant, id));
             CREATE TABLE child () INHERITS (parent)",
        )?;
        for (relation, word) in [
            ("plain", "not partitioned"),
            ("looks", "view"),
            ("stored", "view"),
            ("counter", "sequence"),
            ("remote", "foreign"),
            ("fleeting", "temporary"),
            ("orders_pkey", "index"),
            ("orders_a", "partition"),
            ("parent", "not partitioned"),
            ("pg_class", "not partitioned"),
        ] {
            let sql = format!("SELECT shadow_manage('{relation}', 'tenant')");
            refused(&mut session, &sql, &[word])?;
        }
        refused(&mut session, "SELECT shadow_manage('mixed', 'tenant')", &[])?;
        // Once more is no mistake.
        session.run("SELECT shadow_manage('orders', 'tenant')")?;
        let failure = session.failure("SELECT shadow_manage('nothing', 'tenant')")?;
        ensure!(failure.sqlstate == "42P01", "{failure:?}");
        let failure = session.failure("SELECT shadow_manage(12345678::regclass, 'tenant')")?;
        ensure!(failure.sqlstate != "XX000", "{failure:?}");
        refused(&mut session, "SELECT shadow_unmanage('plain')", &["not"])?;
        refused(
            &mut session,
            "SELECT shadow_migrate('plain', 1, tablespace => 'fast')",
            &["manage"],
        )?;
        refused(
            &mut session,
            "SELECT shadow_create('mixed', 1, tablespace => 'fast')",
            &["manage"],
        )?;
        refused(
            &mut session,
            "SELECT shadow_migrate('looks', 1, tablespace => 'fast')",
            &[],
        )?;
        Ok(())
    });
}

/// Columns that are not there or cannot be an entity, and keys by which rows cannot be found again.
#[test]
fn columns_and_keys_must_fit() {
    scenario(Settings::default(), |server| {
        let mut session = prepare(server)?;
        session.run(
            "CREATE TABLE shop (tenant int NOT NULL, id int NOT NULL, pos point, doc json,
                 twice int GENERATED ALWAYS AS (id * 2) STORED, gone int, PRIMARY KEY (tenant, id))
                 PARTITION BY LIST (tenant);
             ALTER TABLE shop DROP COLUMN gone;
             CREATE TABLE shop_rest PARTITION OF shop DEFAULT",
        )?;
        for (column, words) in [
            ("nothing", &["column"][..]),
            ("gone", &["column"]),
            ("ctid", &["column"]),
            ("tableoid", &["column"]),
            ("pos", &["type"]),
            ("doc", &["type"]),
            ("", &["column"]),
        ] {
            refused(
                &mut session,
                &format!("SELECT shadow_manage('shop', '{column}')"),
                words,
            )?;
        }
        session.run(
            "CREATE TABLE no_key (tenant int NOT NULL, id int) PARTITION BY LIST (tenant);
             CREATE TABLE no_key_rest PARTITION OF no_key DEFAULT;
             CREATE TABLE maybe (tenant int, id int, UNIQUE (tenant, id)) PARTITION BY LIST (tenant);
             CREATE TABLE maybe_rest PARTITION OF maybe DEFAULT;
             CREATE TABLE later (tenant int NOT NULL, id int NOT NULL,
                 UNIQUE (tenant, id) DEFERRABLE INITIALLY DEFERRED) PARTITION BY LIST (tenant);
             CREATE TABLE later_rest PARTITION OF later DEFAULT;
             CREATE TABLE halves (tenant int NOT NULL, id int NOT NULL) PARTITION BY LIST (tenant);
             CREATE TABLE halves_rest PARTITION OF halves DEFAULT;
             CREATE UNIQUE INDEX ON halves (tenant, id) WHERE id > 0;
             CREATE TABLE elsewhere (tenant int NOT NULL, id int NOT NULL, at date NOT NULL, PRIMARY KEY (id, at))
                 PARTITION BY RANGE (at);
             CREATE TABLE elsewhere_rest PARTITION OF elsewhere DEFAULT",
        )?;
        for (relation, word) in [
            ("no_key", "key"),
            ("maybe", "null"),
            ("later", "deferrable"),
            ("halves", "key"),
            ("elsewhere", "key"),
        ] {
            refused(
                &mut session,
                &format!("SELECT shadow_manage('{relation}', 'tenant')"),
                &[word],
            )?;
        }
        // What does fit: a unique key without NULLs that is not the primary key.
        session.run(
            "CREATE TABLE fits (tenant int NOT NULL, id int NOT NULL, UNIQUE (id, tenant)) PARTITION BY LIST (tenant);
             CREATE TABLE fits_rest PARTITION OF fits DEFAULT;
             INSERT INTO fits VALUES (1, 1), (2, 2);
             SELECT shadow_manage('fits', 'tenant')",
        )?;
        session.migrate("fits", "1", "fast")?;
        ensure!(tablespaces_of(&mut session, "fits", "tenant = 1")? == ["fast"]);
        Ok(())
    });
}

/// Entities that are none.
#[test]
fn entities_must_be_values_of_the_column() {
    scenario(Settings::default(), |server| {
        let mut session = prepare(server)?;
        for verb in ["shadow_create", "shadow_migrate"] {
            for (entity, word) in [
                ("NULL::text", "null"),
                ("NULL::int", "null"),
                ("ARRAY[1, NULL]", "null"),
                ("'ten'", "integer"),
                ("'1.5'", "integer"),
                ("''", "integer"),
                ("'99999999999'", "range"),
                ("99999999999", "range"),
                ("ARRAY['1', 'x']", "integer"),
                ("ARRAY[]::int[]", "empty"),
            ] {
                let sql = format!("SELECT {verb}('orders', {entity}, tablespace => 'fast')");
                refused(&mut session, &sql, &[word])?;
            }
        }
        let sql = "SELECT shadow_migrate('orders', 99, tablespace => 'fast')";
        refused(&mut session, sql, &["no rows"])?;
        // A whole partition is one leaf, not the table.
        let sql = "SELECT shadow_migrate('orders', \"all\" => true, tablespace => 'fast')";
        refused(&mut session, sql, &["partition"])?;
        Ok(())
    });
}

/// Targets that are none, or where the rows are already.
#[test]
fn targets_must_exist_and_differ() {
    scenario(Settings::default(), |server| {
        let mut session = prepare(server)?;
        for verb in ["shadow_create", "shadow_migrate"] {
            for (target, word) in [
                ("tablespace => 'nowhere'", "tablespace"),
                ("tablespace => 'pg_global'", "pg_global"),
                ("tablespace => 'pg_default'", "already"),
                ("tablespace => NULL", "tablespace"),
                ("server => 'nowhere'", "server"),
                ("tablespace => 'fast', server => 'nowhere'", "server"),
            ] {
                refused(
                    &mut session,
                    &format!("SELECT {verb}('orders', 1, {target})"),
                    &[word],
                )?;
            }
        }
        for stall in ["-1 s", "0"] {
            let sql = format!(
                "SELECT shadow_migrate('orders', 1, tablespace => 'fast', max_stall => '{stall}')"
            );
            refused(&mut session, &sql, &["max_stall"])?;
        }
        let sql =
            "SELECT shadow_migrate('orders', 1, tablespace => 'fast', revert_window => '-5 min')";
        refused(&mut session, sql, &["revert_window"])?;
        // Already where it is asked to go: after a migration as before one.
        let id = session.migrate("orders", "1", "fast")?;
        session.finalize(id)?;
        let sql = "SELECT shadow_migrate('orders', 1, tablespace => 'fast')";
        refused(&mut session, sql, &["already"])?;
        Ok(())
    });
}

/// Ids of no job, and steps that the state of a job does not allow.
#[test]
fn steps_must_fit_the_state() {
    scenario(Settings::default(), |server| {
        let mut session = prepare(server)?;
        for call in [
            "shadow_swap",
            "shadow_revert",
            "shadow_finalize",
            "shadow_drop",
            "shadow_cancel",
        ] {
            for id in ["4711", "0", "-1"] {
                refused(&mut session, &format!("SELECT {call}({id})"), &[id])?;
            }
        }
        refused(&mut session, "SELECT * FROM shadow_verify(4711)", &["4711"])?;
        // What is so already may be asked for again.
        let done = |session: &mut Session, call: &str, id: i64| -> Result<()> {
            let before = catalogs(session)?;
            let answer = session.number(&format!("SELECT {call}({id})"))?;
            ensure!(
                answer == id && before == catalogs(session)?,
                "{call} was not idle"
            );
            Ok(())
        };
        let id = session.create_shadow("orders", "1", "fast")?;
        done(&mut session, "shadow_revert", id)?;
        refused(
            &mut session,
            &format!("SELECT shadow_finalize({id})"),
            &["ready"],
        )?;
        session.swap(id)?;
        done(&mut session, "shadow_swap", id)?;
        refused(
            &mut session,
            &format!("SELECT shadow_drop({id})"),
            &["migrated"],
        )?;
        session.finalize(id)?;
        done(&mut session, "shadow_finalize", id)?;
        for call in ["shadow_swap", "shadow_revert", "shadow_drop"] {
            refused(
                &mut session,
                &format!("SELECT {call}({id})"),
                &["finalized"],
            )?;
        }
        ensure!(session.value(&format!("SELECT shadow_cancel({id})"))? == "f");
        Ok(())
    });
}

/// Entities that cannot come to a shadow, or leave it, and shadows whose entities cannot be changed.
#[test]
fn a_resize_must_fit() {
    scenario(Settings::default(), |server| {
        let mut session = prepare(server)?;
        let id = session.create_shadow("orders", "1", "fast")?;
        let other = session.create_shadow("orders", "3", "fast")?;
        let fails = |session: &mut Session, call: &str, code: &str, words: &[&str]| -> Result<()> {
            // The scheduler may come by, once, and see to the triggers that count on the new partitions.
            let sql = format!("SELECT {call}");
            let failure =
                refused(session, &sql, words).or_else(|_| refused(session, &sql, words))?;
            ensure!(failure.sqlstate == code, "{call}: {failure:?}");
            Ok(())
        };
        for call in ["shadow_add_entities", "shadow_remove_entities"] {
            for nobody in ["4711", "0", "-1"] {
                let call = format!("{call}({nobody}, 2)");
                fails(&mut session, &call, "42704", &[nobody])?;
            }
            fails(
                &mut session,
                &format!("{call}({id}, NULL::int)"),
                "22004",
                &["null"],
            )?;
            fails(
                &mut session,
                &format!("{call}({id}, ARRAY[1, NULL])"),
                "22004",
                &["null"],
            )?;
            fails(
                &mut session,
                &format!("{call}({id}, '{{}}'::int[])"),
                "22023",
                &["empty"],
            )?;
            fails(
                &mut session,
                &format!("{call}({id}, 'abc')"),
                "22P02",
                &["abc"],
            )?;
        }
        // Somebody else has it; it is not there; nobody would be left.
        fails(
            &mut session,
            &format!("shadow_add_entities({id}, 3)"),
            "55006",
            &["already"],
        )?;
        fails(
            &mut session,
            &format!("shadow_add_entities({id}, ARRAY[2, 3])"),
            "55006",
            &["already"],
        )?;
        fails(
            &mut session,
            &format!("shadow_remove_entities({id}, 2)"),
            "42704",
            &["2"],
        )?;
        fails(
            &mut session,
            &format!("shadow_remove_entities({id}, ARRAY[1, 2])"),
            "42704",
            &["2"],
        )?;
        fails(
            &mut session,
            &format!("shadow_remove_entities({id}, 1)"),
            "22023",
            &["shadow_drop"],
        )?;
        // What is there already may be asked for again.
        let before = catalogs(&mut session)?;
        ensure!(session.number(&format!("SELECT shadow_add_entities({id}, 1)"))? == id);
        ensure!(before == catalogs(&mut session)?, "it was not idle");

        // Swapped, ended, of a whole partition, and at work.
        session.swap(id)?;
        for call in ["shadow_add_entities", "shadow_remove_entities"] {
            fails(
                &mut session,
                &format!("{call}({id}, 2)"),
                "55000",
                &["migrated", "revert"],
            )?;
        }
        session.finalize(id)?;
        for call in ["shadow_add_entities", "shadow_remove_entities"] {
            fails(
                &mut session,
                &format!("{call}({id}, 2)"),
                "55000",
                &["finalized"],
            )?;
        }
        session.drop_shadow(other)?;
        let whole = session
            .number("SELECT shadow_create('orders_rest', \"all\" => true, tablespace => 'fast')")?;
        for call in ["shadow_add_entities", "shadow_remove_entities"] {
            fails(
                &mut session,
                &format!("{call}({whole}, 2)"),
                "42809",
                &["whole"],
            )?;
        }
        let id = session.create_shadow("orders", "2", "fast")?;
        // Its leaf is somebody else's as a whole; its rows are there already.
        fails(
            &mut session,
            &format!("shadow_add_entities({id}, 3)"),
            "55006",
            &["already"],
        )?;
        fails(
            &mut session,
            &format!("shadow_add_entities({id}, 1)"),
            "55000",
            &["already"],
        )?;
        session.drop_shadow(whole)?;

        for (begin, word) in [
            ("BEGIN ISOLATION LEVEL REPEATABLE READ", "repeatable read"),
            ("BEGIN ISOLATION LEVEL SERIALIZABLE", "serializable"),
            ("BEGIN; SELECT count(*) FROM orders", "lock"),
            ("BEGIN READ ONLY", "read-only"),
        ] {
            for call in ["shadow_add_entities", "shadow_remove_entities"] {
                session.run(begin)?;
                let sql = format!("SELECT {call}({id}, 3)");
                let failure = session.failure(&sql)?;
                session.run("ROLLBACK")?;
                assert_polite(&format!("{begin}; {sql}"), &failure, &[word])?;
            }
        }
        session.run(
            "INSERT INTO orders SELECT 3, g, repeat('x', 500) FROM generate_series(1000, 9000) g",
        )?;
        server.configure("shadowpart.copy_rate_limit", "50kB")?;
        server.reload()?;
        session.run(&format!(
            "SELECT shadow_add_entities({id}, 3, wait => false)"
        ))?;
        for call in ["shadow_add_entities", "shadow_remove_entities"] {
            let sql = format!("SELECT {call}({id}, 2)");
            let failure = session.failure(&sql)?;
            ensure!(failure.sqlstate == "55006", "{failure:?}");
            assert_polite(&sql, &failure, &["busy", "adding"])?;
        }
        let sql = "SELECT shadow_create('orders', 3, tablespace => 'fast')";
        let failure = session.failure(sql)?;
        ensure!(failure.sqlstate == "55006", "{failure:?}");
        for call in ["shadow_revert", "shadow_finalize"] {
            let failure = session.failure(&format!("SELECT {call}({id})"))?;
            ensure!(failure.sqlstate == "55000", "{call}: {failure:?}");
        }
        session.run(&format!("SELECT shadow_cancel({id})"))
    });
}

/// Overlapping entities: the second is refused and the first goes on.
#[test]
fn two_jobs_for_one_entity() {
    scenario(Settings::default(), |server| {
        server.tablespace("faster")?;
        let mut session = prepare(server)?;
        let id = session.create_shadow("orders", "1", "fast")?;
        for call in [
            "shadow_create('orders', 1, tablespace => 'faster')",
            "shadow_migrate('orders', '1', tablespace => 'faster')",
            "shadow_migrate('orders', ARRAY[2, 1], tablespace => 'fast')",
            "shadow_migrate('orders_a', \"all\" => true, tablespace => 'fast')",
        ] {
            refused(&mut session, &format!("SELECT {call}"), &[&id.to_string()])?;
        }
        session.swap(id)?;
        let sql = "SELECT shadow_migrate('orders', 1, tablespace => 'faster')";
        refused(&mut session, sql, &[&id.to_string()])?;
        refused(
            &mut session,
            "SELECT shadow_unmanage('orders')",
            &["shadow"],
        )?;
        session.finalize(id)?;
        session.migrate("orders", "1", "faster")?;
        ensure!(tablespaces_of(&mut session, "orders", "tenant = 1")? == ["faster"]);
        Ok(())
    });
}

/// Transactions in which a migration could not work or would wait for itself.
#[test]
fn the_transaction_must_be_fit_for_it() {
    scenario(Settings::default(), |server| {
        let mut session = prepare(server)?;
        let call = "SELECT shadow_migrate('orders', 1, tablespace => 'fast')";
        for (begin, word) in [
            ("BEGIN ISOLATION LEVEL REPEATABLE READ", "repeatable read"),
            ("BEGIN ISOLATION LEVEL SERIALIZABLE", "serializable"),
            ("BEGIN; SELECT count(*) FROM orders", "lock"),
            ("BEGIN; INSERT INTO orders VALUES (1, 5000, 'mine')", "lock"),
            ("BEGIN; LOCK TABLE orders_a IN ACCESS SHARE MODE", "lock"),
            ("BEGIN READ ONLY", "read-only"),
        ] {
            for statement in [
                call,
                "SELECT shadow_create('orders', 1, tablespace => 'fast')",
            ] {
                let before = catalogs(&mut session)?;
                session.run(begin)?;
                let failure = session.failure(statement)?;
                session.run("ROLLBACK")?;
                assert_polite(&format!("{begin}; {statement}"), &failure, &[word])?;
                ensure!(
                    before == catalogs(&mut session)?,
                    "{begin} changed something"
                );
            }
        }
        Ok(())
    });
}

/// Rights: only the owner of the table, and only into tablespaces where the owner may create.
#[test]
fn rights_are_checked() {
    scenario(Settings::default(), |server| {
        let mut session = prepare(server)?;
        session.run(
            "CREATE ROLE stranger LOGIN; CREATE ROLE owner LOGIN;
             GRANT ALL ON orders, orders_a, orders_rest TO stranger;
             CREATE TABLE own (tenant int, id int, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
             CREATE TABLE own_rest PARTITION OF own DEFAULT;
             INSERT INTO own VALUES (1, 1), (2, 2);
             ALTER TABLE own OWNER TO owner; ALTER TABLE own_rest OWNER TO owner;
             REVOKE CREATE ON TABLESPACE fast FROM PUBLIC",
        )?;
        let id = session.create_shadow("orders", "1", "fast")?;
        let mut stranger = server.connect_as("stranger")?;
        for call in [
            "shadow_manage('own', 'tenant')",
            "shadow_unmanage('orders')",
            "shadow_create('orders', 2, tablespace => 'fast')",
            "shadow_migrate('orders', 2, tablespace => 'fast')",
            "shadow_migrate('orders_rest', \"all\" => true, tablespace => 'fast')",
            &format!("shadow_swap({id})"),
            &format!("shadow_revert({id})"),
            &format!("shadow_finalize({id})"),
            &format!("shadow_drop({id})"),
            &format!("shadow_cancel({id})"),
            &format!("shadow_add_entities({id}, 2)"),
            &format!("shadow_remove_entities({id}, 1)"),
        ] {
            let failure = stranger.failure(&format!("SELECT {call}"))?;
            ensure!(failure.sqlstate == "42501", "{call}: {failure:?}");
        }
        let failure = stranger.failure(&format!("SELECT * FROM shadow_verify({id})"))?;
        ensure!(failure.sqlstate == "42501", "{failure:?}");
        let mut owner = server.connect_as("owner")?;
        owner.run("SELECT shadow_manage('own', 'tenant')")?;
        let failure = owner.failure("SELECT shadow_migrate('own', 1, tablespace => 'fast')")?;
        ensure!(failure.sqlstate == "42501", "{failure:?}");
        assert_polite("without CREATE", &failure, &["fast"])?;
        session.run("GRANT CREATE ON TABLESPACE fast TO owner")?;
        let id = owner.migrate("own", "1", "fast")?;
        ensure!(tablespaces_of(&mut owner, "own", "tenant = 1")? == ["fast"]);
        owner.revert(id)?;
        owner.swap(id)?;
        owner.finalize(id)?;
        let owners = "SELECT string_agg(DISTINCT relowner::regrole::text, ',') FROM pg_class
                      WHERE oid IN (SELECT relid FROM pg_partition_tree('own'))";
        ensure!(session.value(owners)? == "owner");
        Ok(())
    });
}

/// A table in a publication: its subscribers would see the mirrored rows.
#[test]
fn published_tables_are_refused() {
    scenario(Settings::default().set("wal_level", "logical"), |server| {
        let mut session = prepare(server)?;
        let call = "SELECT shadow_migrate('orders', 1, tablespace => 'fast')";
        for publication in [
            "CREATE PUBLICATION p FOR TABLE orders",
            "CREATE PUBLICATION p FOR TABLE orders_a",
            "CREATE PUBLICATION p FOR TABLE orders WITH (publish_via_partition_root = true)",
            "CREATE PUBLICATION p FOR ALL TABLES",
            "CREATE PUBLICATION p FOR TABLES IN SCHEMA public",
        ] {
            session.run(publication)?;
            refused(&mut session, call, &["publi"]).context(publication)?;
            session.run("DROP PUBLICATION p")?;
        }
        Ok(())
    });
}

/// No worker can be had: PostgreSQL's own and our launcher take the two slots there are.
#[test]
fn too_few_worker_slots() {
    scenario(
        Settings::default().set("max_worker_processes", "2"),
        |server| {
            let mut session = prepare(server)?;
            session.run("SET statement_timeout = '60s'")?;
            let call = "SELECT shadow_migrate('orders', 1, tablespace => 'fast')";
            refused(&mut session, call, &["worker"])?;
            refused(
                &mut session,
                "SELECT shadow_create('orders', 1, tablespace => 'fast')",
                &["worker"],
            )?;
            Ok(())
        },
    );
}

/// On a standby nothing can be started, and it says so.
#[test]
fn a_standby_refuses() {
    scenario(Settings::default(), |server| {
        let mut session = prepare(server)?;
        let id = session.create_shadow("orders", "1", "fast")?;
        let standby = server.standby(Settings::default())?;
        server.wait_for_standby(&standby)?;
        let mut reader = standby.connect()?;
        for call in [
            "shadow_manage('orders', 'tenant')",
            "shadow_create('orders', 2, tablespace => 'fast')",
            "shadow_migrate('orders', 2, tablespace => 'fast')",
            &format!("shadow_swap({id})"),
            &format!("shadow_drop({id})"),
            &format!("shadow_add_entities({id}, 2)"),
            &format!("shadow_remove_entities({id}, 1)"),
        ] {
            let sql = format!("SELECT {call}");
            let failure = reader.failure(&sql)?;
            assert_polite(&sql, &failure, &["recovery"])?;
        }
        ensure!(
            reader.value(&format!("SELECT state FROM shadow_status WHERE id = {id}"))? == "ready"
        );
        ensure!(
            reader
                .rows("SELECT * FROM shadow_route('orders', 1)")?
                .len()
                == 1
        );
        Ok(())
    });
}

/// A wait for another session's transaction is bounded where one asks for that, and is reported.
#[test]
fn waiting_for_others_is_bounded_and_told() {
    let settings = Settings::default().set("shadowpart.wait_timeout", "2s");
    scenario(settings, |server| {
        let mut session = prepare(server)?;
        let mut old = server.connect()?;
        old.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM orders")?;
        let pid = old.pid;
        let id = session.start_migrate("orders", "1", "fast")?;
        until("the wait is told", Duration::from_secs(30), || {
            let sql = format!("SELECT waiting_pid FROM shadow_progress WHERE id = {id}");
            Ok(session
                .column(&sql)?
                .contains(&pid.to_string())
                .then_some(()))
        })?;
        // It gives up and says why; taking the shadow away may have to wait for the reader, too.
        until("it gives up", Duration::from_secs(30), || {
            let error = session.last_error(id)?;
            Ok((error != "NULL").then_some(error))
        })?;
        std::thread::sleep(Duration::from_secs(3));
        let error = session.last_error(id)?;
        ensure!(
            error.contains("older transactions"),
            "the reason is lost: {error}"
        );
        ensure!(old.number("SELECT count(*) FROM orders")? == 100);
        old.run("COMMIT")?;
        ensure!(session.wait_until_settled(id)? == "failed");
        let error = session.last_error(id)?;
        ensure!(
            error.contains("older transactions"),
            "the reason is lost: {error}"
        );
        ensure!(session.number("SELECT count(*) FROM orders")? == 100);
        session.migrate("orders", "1", "fast")?;
        ensure!(session.number("SELECT count(*) FROM orders")? == 100);
        Ok(())
    });
}

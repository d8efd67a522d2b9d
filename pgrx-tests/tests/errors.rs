//! What users' own mistakes tell them stays the same to the letter while the library is loaded and
//! shadows stand: SQLSTATE, message, DETAIL, HINT, the names of constraint, table and column, the
//! place in the statement, and the context. Each mistake is made on the managed table and on its twin.

use shadowpart_tests::*;

const TABLES: &str = "
    CREATE TABLE {s}.kinds (kind int PRIMARY KEY);
    INSERT INTO {s}.kinds VALUES (1), (2), (3);
    CREATE TABLE {s}.orders (
        tenant int NOT NULL, id int, kind int REFERENCES {s}.kinds, price numeric(5,2) CHECK (price > 0),
        needed text NOT NULL DEFAULT 'x', PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
    CREATE TABLE {s}.orders_a PARTITION OF {s}.orders FOR VALUES IN (1, 2, 3);
    CREATE TABLE {s}.orders_b PARTITION OF {s}.orders FOR VALUES IN (4);
    CREATE TABLE {s}.items (tenant int, order_id int, FOREIGN KEY (tenant, order_id) REFERENCES {s}.orders);
    CREATE FUNCTION {s}.raise() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.price = 666 THEN
            RAISE EXCEPTION 'not this price: %', NEW.price
            USING ERRCODE = 'ZZ123', DETAIL = 'The price is bad.', HINT = 'Take another.',
                  COLUMN = 'price', CONSTRAINT = 'my_rule', TABLE = 'my_table', SCHEMA = 'my_schema',
                  DATATYPE = 'my_type';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER raise BEFORE INSERT OR UPDATE ON {s}.orders FOR EACH ROW EXECUTE FUNCTION {s}.raise();
    CREATE FUNCTION {s}.deep(n int) RETURNS int LANGUAGE plpgsql AS $$
    BEGIN
        IF n = 0 THEN
            INSERT INTO {s}.orders VALUES (1, 1, 1, 1);
            RETURN 1;
        END IF;
        RETURN {s}.deep(n - 1);
    END $$;
    INSERT INTO {s}.orders SELECT 1 + g % 4, g, 1 + g % 3, g FROM generate_series(1, 100) g;
    INSERT INTO {s}.orders VALUES (1, 1, 1, 1);
    INSERT INTO {s}.items VALUES (1, 1), (2, 1)";

const MISTAKES: [(&str, &str); 24] = [
    ("unique", "INSERT INTO {s}.orders VALUES (1, 1, 1, 1)"),
    (
        "unique, other tenant",
        "INSERT INTO {s}.orders VALUES (2, 1, 1, 1)",
    ),
    (
        "foreign key, referencing",
        "INSERT INTO {s}.orders VALUES (1, 1000, 99, 1)",
    ),
    (
        "foreign key, referenced",
        "DELETE FROM {s}.orders WHERE tenant = 1",
    ),
    (
        "foreign key, referenced, moved away",
        "UPDATE {s}.orders SET tenant = 4, id = 7777 WHERE tenant = 1 AND id = 1",
    ),
    (
        "foreign key into the table",
        "INSERT INTO {s}.items VALUES (1, 123456)",
    ),
    ("check", "INSERT INTO {s}.orders VALUES (1, 1000, 1, -1)"),
    (
        "not null",
        "INSERT INTO {s}.orders VALUES (1, 1000, 1, 1, NULL)",
    ),
    (
        "no partition",
        "INSERT INTO {s}.orders VALUES (55, 1000, 1, 1)",
    ),
    (
        "numeric overflow",
        "INSERT INTO {s}.orders VALUES (1, 1000, 1, 10000)",
    ),
    (
        "raised in a trigger",
        "INSERT INTO {s}.orders VALUES (1, 1000, 1, 666)",
    ),
    (
        "raised in a trigger, update",
        "UPDATE {s}.orders SET price = 666 WHERE tenant = 1",
    ),
    ("three functions deep", "SELECT {s}.deep(2)"),
    (
        "division in a query",
        "SELECT id / (id - id) FROM {s}.orders WHERE tenant = 1",
    ),
    (
        "cast in a query",
        "SELECT needed::int FROM {s}.orders WHERE tenant = 1 AND id = 1",
    ),
    ("syntax", "SELECT id FROM {s}.orders WHERE tenant == = 1"),
    ("syntax, unfinished", "SELECT id FROM {s}.orders WHERE ("),
    (
        "no such column",
        "SELECT id, nothing FROM {s}.orders WHERE tenant = 1",
    ),
    ("no such table", "SELECT * FROM {s}.order"),
    ("no such function", "SELECT nothing(id) FROM {s}.orders"),
    (
        "type mismatch",
        "UPDATE {s}.orders SET price = DATE '2024-01-01'",
    ),
    (
        "DO block",
        "DO $$ BEGIN PERFORM 1; INSERT INTO {s}.orders VALUES (1, 1, 1, 1); END $$",
    ),
    (
        "ON CONFLICT without an index",
        "INSERT INTO {s}.orders VALUES (1, 1) ON CONFLICT (price) DO NOTHING",
    ),
    (
        "utility command",
        "ALTER TABLE {s}.orders ADD CONSTRAINT c CHECK (nothing > 0)",
    ),
];

/// A foreign key to a partitioned table has one constraint for each leaf, numbered as they come.
fn without_numbers_of_foreign_keys(text: &str) -> String {
    let mut parts = text.split("_fkey");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        result.push_str("_fkey");
        result.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_'));
    }
    result
}

/// A text with the schema and the names of leaves, longest first, made alike.
fn clean(text: &str, leaves: &[&str], schema: &str) -> String {
    let text = text.replace(&format!("{schema}."), "{s}.");
    let mut text = without_numbers_of_foreign_keys(&text);
    for leaf in leaves {
        // An index of a leaf is named after it.
        text = text
            .replace(&format!("\"{leaf}_"), "\"LEAF_")
            .replace(&format!("\"{leaf}\""), "\"LEAF\"");
        if text == *leaf {
            return "LEAF".into();
        }
        if text == format!("{leaf}_pkey") {
            return "LEAF_pkey".into();
        }
    }
    text
}

/// A failure with the names that must differ made alike: the schema, and the leaf a row lies in. The
/// constraint's name must be the same.
fn comparable(mut failure: Failure, leaves: &[String], schema: &str) -> Failure {
    let mut names: Vec<&str> = leaves
        .iter()
        .map(|leaf| leaf.rsplit('.').next().unwrap_or(leaf))
        .collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    failure.message = clean(&failure.message, &names, schema);
    for field in [
        &mut failure.detail,
        &mut failure.hint,
        &mut failure.context,
        &mut failure.table,
        &mut failure.constraint,
    ] {
        *field = field.take().map(|text| clean(&text, &names, schema));
    }
    if failure.schema.as_deref() == Some(schema) {
        failure.schema = Some("{s}".into());
    }
    failure
}

fn make_all_mistakes(session: &mut Session, moment: &str) -> Result<()> {
    let mut leaves = Vec::new();
    for schema in ["live", "twin"] {
        leaves.push(session.column(&format!(
            "SELECT relid::text FROM pg_partition_tree('{schema}.orders') WHERE level > 0"
        ))?);
    }
    for (name, sql) in MISTAKES {
        let live = session.failure(&sql.replace("{s}", "live"))?;
        let twin = session.failure(&sql.replace("{s}", "twin"))?;
        let found = comparable(live.clone(), &leaves[0], "live");
        let expected = comparable(twin, &leaves[1], "twin");
        ensure!(
            found == expected,
            "{moment}, {name}:\nfound    {found:?}\nexpected {expected:?}\nraw      {live:?}"
        );
        // The same by the extended protocol.
        let Err(error) = session.execute(&sql.replace("{s}", "live"), &[]) else {
            bail!("{moment}, {name}: no error when prepared")
        };
        let code = error.code().context("an error of the server")?.code();
        ensure!(
            code == expected.sqlstate,
            "{moment}, {name}, prepared: {error:?}"
        );
    }
    Ok(())
}

#[test]
fn mistakes_are_told_as_ever() {
    scenario(Settings::default(), |server| {
        server.tablespace("fast")?;
        let mut session = server.connect()?;
        let twin = Twin::create(&mut session, &["orders", "items"], TABLES)?;
        make_all_mistakes(&mut session, "with the library loaded")?;
        session.run("SELECT shadow_manage('live.orders', 'tenant')")?;
        make_all_mistakes(&mut session, "managed")?;
        let id = session.create_shadow("live.orders", "1", "fast")?;
        make_all_mistakes(&mut session, "with a standing shadow")?;
        session.swap(id)?;
        make_all_mistakes(&mut session, "migrated")?;
        session.revert(id)?;
        make_all_mistakes(&mut session, "reverted")?;
        session.swap(id)?;
        session.finalize(id)?;
        make_all_mistakes(&mut session, "finalized")?;
        twin.assert_same(&mut session)
    });
}

/// A statement that fails in the mirror's reach leaves no trace in the shadow, and the transaction
/// can go on after a savepoint.
#[test]
fn a_failed_statement_leaves_no_trace() {
    scenario(Settings::default(), |server| {
        server.tablespace("fast")?;
        let mut session = server.connect()?;
        let twin = Twin::create(&mut session, &["orders", "items"], TABLES)?;
        session.run("SELECT shadow_manage('live.orders', 'tenant')")?;
        let id = session.create_shadow("live.orders", "1", "fast")?;
        for round in 0..2 {
            for (name, sql) in MISTAKES {
                for schema in ["live", "twin"] {
                    session.run(&format!(
                        "BEGIN; UPDATE {schema}.orders SET price = price + 1 WHERE tenant = 1; SAVEPOINT a"
                    ))?;
                    session.failure(&sql.replace("{s}", schema)).context(name)?;
                    session.run(&format!(
                        "ROLLBACK TO a; DELETE FROM {schema}.orders
                         WHERE (tenant, id) IN (SELECT tenant, max(id) FROM {schema}.orders GROUP BY 1) AND id > 1; COMMIT"
                    ))?;
                    session.run(&format!(
                        "INSERT INTO {schema}.orders SELECT 1, coalesce(max(id), 0) + 1, 1, 1 FROM {schema}.orders"
                    ))?;
                }
            }
            twin.assert_same(&mut session)?;
            let different = session.rows(&format!("SELECT * FROM shadow_verify({id})"))?;
            ensure!(different.is_empty(), "{different:?}");
            if round == 0 {
                session.swap(id)?;
            }
        }
        session.revert(id)?;
        twin.assert_same(&mut session)
    });
}

//! Entities of every type: one each for values that are equal, shown as their type writes them.

use super::*;

/// Random-looking text of so many characters, never the same for two numbers.
fn long(length: usize, number: u32) -> String {
    let mut text = String::new();
    let mut state = number.wrapping_mul(2_654_435_761).wrapping_add(1);
    while text.len() < length {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.push(char::from(b'a' + (state >> 24) as u8 % 26));
    }
    text
}

#[test]
fn types() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        session.run(
            "CREATE TYPE colour AS ENUM ('red', 'green', 'blue');
             CREATE DOMAIN code AS varchar(20) CHECK (value <> ''); CREATE DOMAIN deep AS code",
        )?;
        let alike = format!("{}{}", long(100, 7), "1");
        let alike_but = format!("{}{}", long(100, 7), "2");
        let (hundred, two_thousand) = (long(100, 3), long(2000, 4));
        // Two values, the first of which may be written in two ways.
        let same = |a: &str, b: &str| (a.to_owned(), a.to_owned(), b.to_owned());
        for (typid, (one, again, two)) in [
            ("smallint", same("-7", "3")),
            ("int", same("1", "2147483647")),
            ("bigint", same("5", "-9000000000000000000")),
            ("oid", same("4000000000", "1")),
            ("text", same("", "Größe ''O''")),
            ("text", same(&long(48, 1), &long(49, 1))),
            ("text", same(&hundred, &two_thousand)),
            ("text", same(&alike, &alike_but)),
            ("varchar", same("abc", "abd")),
            ("varchar(30)", same("x", "y")),
            ("char(10)", ("ab".into(), "ab   ".into(), "b".into())),
            (
                "uuid",
                (
                    "00000000-0000-0000-0000-00000000000a".into(),
                    "00000000-0000-0000-0000-00000000000A".into(),
                    "11111111-0000-0000-0000-000000000001".into(),
                ),
            ),
            ("numeric", ("1".into(), "1.00".into(), "1.5".into())),
            (
                "numeric(40,5)",
                (
                    "100000000000000000000".into(),
                    "100000000000000000000.000".into(),
                    "-0.00001".into(),
                ),
            ),
            ("date", same("2024-02-29", "0044-03-15 BC")),
            (
                "timestamptz",
                (
                    "2024-01-01 00:00:00+00".into(),
                    "2024-01-01 01:00:00+01".into(),
                    "2024-01-01 00:00:00.000001+00".into(),
                ),
            ),
            ("colour", same("green", "red")),
            ("code", same("c1", "c2")),
            ("deep", same("c1", "c2")),
            ("bytea", same("\\x00ff", "\\x")),
        ] {
            session.run(&format!(
                "DROP TABLE IF EXISTS t; CREATE TABLE t (tenant {typid}, id int, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
                 CREATE TABLE t_rest PARTITION OF t DEFAULT; SELECT shadow_manage('t', 'tenant'); SELECT shadow_stats_reset();
                 INSERT INTO t VALUES ('{one}', 1), ('{again}', 2), ('{one}', 3), ('{two}', 4);
                 UPDATE t SET id = id + 10 WHERE tenant = '{again}'; DELETE FROM t WHERE tenant = '{two}';
                 SELECT * FROM t WHERE tenant = '{again}'"
            ))?;
            let found = session.rows(
                "SELECT entity, sum(inserts), sum(updates), sum(deletes), sum(reads), sum(rows_read)
                 FROM shadow_entity_counters WHERE relation = 't'::regclass GROUP BY 1 ORDER BY 2 DESC, entity",
            )?;
            // As the type itself writes them.
            let bare = if typid.starts_with("numeric") {
                "numeric"
            } else {
                typid
            };
            let mut text = |value: &str| -> Result<String> {
                let trim = if bare == "numeric" { "trim_scale" } else { "" };
                let value = session.value(&format!("SELECT {trim}('{value}'::{typid})::text"))?;
                let value = if typid.starts_with("char") {
                    value.trim_end().to_owned()
                } else {
                    value
                };
                Ok(value)
            };
            let (one, two) = (text(&one)?, text(&two)?);
            let row = |entity: Option<String>, numbers: [&str; 5]| {
                let mut row = vec![entity];
                row.extend(numbers.map(|n| Some(n.to_owned())));
                row
            };
            let mut expected = vec![
                row(Some(one), ["3", "3", "0", "1", "3"]),
                row(Some(two), ["1", "0", "1", "0", "0"]),
            ];
            expected.sort_by_key(|row| (std::cmp::Reverse(row[1].clone()), row[0].is_none()));
            let mut found = found;
            for row in &mut found {
                if typid.starts_with("char") {
                    row[0] = row[0].as_deref().map(|text| text.trim_end().to_owned());
                }
            }
            ensure!(found == expected, "{typid}:\n{found:?}, not\n{expected:?}");
        }
        Ok(())
    });
}

/// A type of fixed length that is longer than what a key holds.
#[test]
fn long_values_of_fixed_length() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        session.run(
            "CREATE TABLE t (tenant name, id int, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
             CREATE TABLE t_rest PARTITION OF t DEFAULT; SELECT shadow_manage('t', 'tenant')",
        )?;
        assert_writes(
            &mut session,
            "INSERT INTO t VALUES ('a', 1), ('b', 1), ('a', 2)",
            "a +2, b +1",
        )
    });
}

/// Constants of another type than the column's, as drivers and people write them.
#[test]
fn constants_of_other_types() {
    scenario(Settings::default(), |server| {
        let mut session = server.connect()?;
        let mut wrong = Vec::new();
        for (typid, conditions) in [
            (
                "bigint",
                vec![
                    "tenant = 5",
                    "tenant IN (5)",
                    "tenant = 5::smallint",
                    "tenant = '5'",
                    "tenant = 5::bigint",
                ],
            ),
            (
                "smallint",
                vec!["tenant = 5", "tenant = 5::bigint", "tenant = '5'"],
            ),
            (
                "int",
                vec!["tenant = 5::bigint", "tenant = 5::smallint", "tenant = '5'"],
            ),
            (
                "numeric",
                vec!["tenant = 5", "tenant = 5.0", "tenant = 5.00::numeric"],
            ),
            (
                "varchar(10)",
                vec![
                    "tenant = '5'",
                    "tenant = '5'::text",
                    "tenant = '5'::varchar",
                ],
            ),
            (
                "text",
                vec![
                    "tenant = '5'",
                    "tenant = '5'::varchar",
                    "tenant = ANY (ARRAY['5'::varchar])",
                ],
            ),
        ] {
            session.run(&format!(
                "DROP TABLE IF EXISTS t; CREATE TABLE t (tenant {typid}, id int, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
                 CREATE TABLE t_rest PARTITION OF t DEFAULT; SELECT shadow_manage('t', 'tenant');
                 INSERT INTO t SELECT v, 1 FROM (VALUES ('5'::{typid}), ('6')) v(v)"
            ))?;
            for condition in conditions {
                let found = counted(
                    &mut session,
                    &format!("SELECT * FROM t WHERE {condition}"),
                    reads,
                )?;
                if found != "5 1/1" {
                    wrong.push(format!("{typid}: {condition} counts {found}"));
                }
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    });
}

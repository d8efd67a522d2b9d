//! Tests inside a server, of what SQL alone does not reach. Each runs in a transaction that is rolled back.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use crate::job::accept;
    use crate::pair::{build, members};
    use crate::pg::error::Error;
    use crate::pg::{partition, sql, xact};
    use crate::planner::sight::SeeNothingOf;
    use pgrx::prelude::*;

    fn run(statement: &str) {
        sql::execute(statement, &[]).expect(statement);
    }

    fn oid(relation: &str) -> pg_sys::Oid {
        sql::value::<pg_sys::Oid>("SELECT $1::regclass::oid", &[relation.into()])
            .expect("a look-up")
            .expect("a relation")
    }

    fn count(query: &str) -> i64 {
        Spi::get_one::<i64>(query).expect(query).expect("a number")
    }

    fn column_of_key(relation: &str) -> Option<i16> {
        // SAFETY: opened and closed here.
        unsafe {
            let relation = pg_sys::table_open(oid(relation), pg_sys::AccessShareLock as i32);
            let key = partition::list_key(relation);
            pg_sys::table_close(relation, pg_sys::NoLock as i32);
            key.map(|k| k.attno)
        }
    }

    #[pg_test]
    fn only_lists_of_one_column_are_wrappers() {
        run("CREATE TABLE l (a int, b text) PARTITION BY LIST (b)");
        run("CREATE TABLE e (a int, b text) PARTITION BY LIST (lower(b))");
        run("CREATE TABLE h (a int, b text) PARTITION BY HASH (b)");
        run("CREATE TABLE r (a int, b text) PARTITION BY RANGE (a, b)");
        run("CREATE TABLE p (a int, b text)");
        assert_eq!(column_of_key("l"), Some(2));
        for other in ["e", "h", "r", "p"] {
            assert_eq!(column_of_key(other), None, "{other}");
        }
    }

    #[pg_test]
    fn entities_are_quoted() {
        run(r#"CREATE TABLE t ("Who's ""it""?" text COLLATE "C")"#);
        let values = [
            "",
            "it's",
            r"back\slash",
            "{a,b}",
            "NULL",
            "\"q\"",
            "ü $$ %s",
        ]
        .map(String::from);
        for value in &values {
            sql::execute("INSERT INTO t VALUES ($1)", &[value.as_str().into()]).expect("an insert");
        }
        let column = members::column(oid("t"), "Who's \"it\"?").expect("a column");
        for value in &values {
            let one = column
                .is_member("t", Some(std::slice::from_ref(value)))
                .expect("a test");
            assert_eq!(
                count(&format!("SELECT count(*) FROM t WHERE {one}")),
                1,
                "{value}"
            );
        }
        let all = column.is_member("t", Some(&values)).expect("a test");
        assert_eq!(
            count(&format!("SELECT count(*) FROM t WHERE {all}")),
            values.len() as i64
        );
        let everything = column.is_member("t", None).expect("a test");
        assert_eq!(everything, "true");
    }

    #[pg_test]
    fn rows_are_out_of_sight_only_as_long_as_asked_for() {
        run("CREATE TABLE s (a int) PARTITION BY LIST (a)");
        run("CREATE TABLE s_1 PARTITION OF s FOR VALUES IN (1)");
        run("CREATE TABLE s_2 PARTITION OF s FOR VALUES IN (2)");
        run("INSERT INTO s VALUES (1), (2), (2)");
        {
            let _blind = SeeNothingOf::new(&[oid("s_2")]);
            assert_eq!(count("SELECT count(*) FROM s"), 1);
            assert_eq!(count("SELECT count(*) FROM s_2"), 0);
        }
        assert_eq!(count("SELECT count(*) FROM s -- again"), 3);
        assert_eq!(count("SELECT count(*) FROM s_2 -- again"), 2);
    }

    #[pg_test]
    fn entities_are_looked_for_where_they_can_be() {
        run(
            "CREATE TABLE o (tenant int NOT NULL, at date, PRIMARY KEY (tenant, at)) PARTITION BY RANGE (at)",
        );
        run("CREATE TABLE o_1 PARTITION OF o FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')");
        run(
            "CREATE TABLE o_2 PARTITION OF o FOR VALUES FROM ('2024-02-01') TO ('2024-03-01')
             PARTITION BY LIST (tenant)",
        );
        run("CREATE TABLE o_2_7 PARTITION OF o_2 FOR VALUES IN (7)");
        run("CREATE TABLE o_2_8 PARTITION OF o_2 FOR VALUES IN (8)");
        let leaves = |tenant: &str| {
            accept::routable(oid("o"), "tenant", Some(&[tenant.to_owned()])).expect("a plan")
        };
        assert_eq!(leaves("7"), vec![oid("o_1"), oid("o_2_7")]);
        assert_eq!(leaves("9"), vec![oid("o_1")]);
    }

    #[pg_test]
    fn the_key_is_the_primary_one_or_a_unique_one_without_nulls() {
        run("CREATE TABLE k (a int, b int NOT NULL, c int NOT NULL, d int)");
        let key = || accept::key_columns(oid("k"));
        assert!(key().is_err());
        run("CREATE UNIQUE INDEX ON k (a)");
        run("CREATE UNIQUE INDEX ON k (b) WHERE d > 0");
        run("CREATE UNIQUE INDEX ON k ((b + 1))");
        assert!(key().is_err());
        run("CREATE UNIQUE INDEX ON k (c, b) INCLUDE (d)");
        assert_eq!(key().ok(), Some(vec!["c".to_owned(), "b".to_owned()]));
        run("ALTER TABLE k ADD PRIMARY KEY (b)");
        assert_eq!(key().ok(), Some(vec!["b".to_owned()]));
    }

    #[pg_test]
    fn an_error_is_caught_with_all_it_says() {
        run("CREATE TABLE c (a int PRIMARY KEY)");
        let twice = || -> Result<(), Error> {
            sql::execute("INSERT INTO c VALUES (1)", &[])?;
            sql::execute("INSERT INTO c VALUES (1)", &[])?;
            Ok(())
        };
        let error = xact::attempt(twice).expect_err("a duplicate");
        assert_eq!(error.sqlstate, "23505");
        assert_eq!(count("SELECT count(*) FROM c"), 0);
    }

    #[pg_test]
    fn names_say_what_a_partition_was() {
        run("CREATE TABLE orders_1_s3 ()");
        let name = |suffix: &str| {
            build::name_beside(oid("orders_1_s3"), suffix)
                .expect("a name")
                .1
        };
        assert_eq!(name("_s17"), "orders_1_s17");
        run("CREATE TABLE orders_1_s17 ()");
        assert_eq!(name("_s17"), "orders_1_s17_1");
        assert_eq!(build::cut(&"ü".repeat(40), "_s1").len(), 63);
    }

    #[pg_test(error = "this function belongs to triggers of shadowpart")]
    fn trigger_functions_are_for_triggers() {
        run(
            "CREATE FUNCTION call() RETURNS void LANGUAGE c AS '$libdir/shadowpart', 'shadowpart_mirror'",
        );
        Spi::run("SELECT call()").expect("never comes back");
    }
}

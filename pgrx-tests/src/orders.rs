//! The table most stories are about: orders of tenants, partitioned in any of the ways people
//! partition such a table, with a tenant of any type.

use crate::session::Session;
use crate::twin::Twin;
use anyhow::Result;

/// A way to partition. In the definitions `{s}` is the schema and `{v0}` to `{v4}` are tenants.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub name: &'static str,
    /// The columns of the primary key.
    pub key: &'static str,
    pub partition_by: &'static str,
    pub partitions: &'static str,
}

pub const LIST: Layout = Layout {
    name: "list",
    key: "tenant, id",
    partition_by: "LIST (tenant)",
    partitions:
        "CREATE TABLE {s}.orders_a PARTITION OF {s}.orders FOR VALUES IN ({v0}, {v1}, {v4});
                 CREATE TABLE {s}.orders_b PARTITION OF {s}.orders FOR VALUES IN ({v2}, {v3})",
};

pub const LIST_WITH_DEFAULT: Layout = Layout {
    name: "list with DEFAULT",
    key: "tenant, id",
    partition_by: "LIST (tenant)",
    partitions: "CREATE TABLE {s}.orders_a PARTITION OF {s}.orders FOR VALUES IN ({v2}, {v3});
                 CREATE TABLE {s}.orders_rest PARTITION OF {s}.orders DEFAULT",
};

pub const LIST_OF_ONE: Layout = Layout {
    name: "list, one tenant a partition",
    key: "tenant, id",
    partition_by: "LIST (tenant)",
    partitions: "CREATE TABLE {s}.orders_0 PARTITION OF {s}.orders FOR VALUES IN ({v0});
                 CREATE TABLE {s}.orders_1 PARTITION OF {s}.orders FOR VALUES IN ({v1});
                 CREATE TABLE {s}.orders_rest PARTITION OF {s}.orders DEFAULT",
};

pub const RANGE: Layout = Layout {
    name: "range",
    key: "tenant, id",
    partition_by: "RANGE (tenant)",
    partitions: "CREATE TABLE {s}.orders_a PARTITION OF {s}.orders FOR VALUES FROM (MINVALUE) TO ({v2});
                 CREATE TABLE {s}.orders_b PARTITION OF {s}.orders FOR VALUES FROM ({v2}) TO (MAXVALUE)",
};

pub const RANGE_WITH_DEFAULT: Layout = Layout {
    name: "range with DEFAULT",
    key: "tenant, id",
    partition_by: "RANGE (tenant)",
    partitions:
        "CREATE TABLE {s}.orders_a PARTITION OF {s}.orders FOR VALUES FROM ({v2}) TO ({v4});
                 CREATE TABLE {s}.orders_rest PARTITION OF {s}.orders DEFAULT",
};

pub const HASH: Layout = Layout {
    name: "hash",
    key: "tenant, id",
    partition_by: "HASH (tenant)",
    partitions: "CREATE TABLE {s}.orders_0 PARTITION OF {s}.orders FOR VALUES WITH (MODULUS 2, REMAINDER 0);
                 CREATE TABLE {s}.orders_1 PARTITION OF {s}.orders FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
};

/// Partitioned by something else: every tenant lies in every leaf.
pub const MONTH: Layout = Layout {
    name: "by month",
    key: "tenant, id, at",
    partition_by: "RANGE (at)",
    partitions: "CREATE TABLE {s}.orders_01 PARTITION OF {s}.orders FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
                 CREATE TABLE {s}.orders_02 PARTITION OF {s}.orders FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
                 CREATE TABLE {s}.orders_rest PARTITION OF {s}.orders DEFAULT",
};

pub const LEVELS_LIST_HASH: Layout = Layout {
    name: "list of region, then hash of tenant",
    key: "region, tenant, id",
    partition_by: "LIST (region)",
    partitions: "CREATE TABLE {s}.orders_east PARTITION OF {s}.orders FOR VALUES IN (0, 1) PARTITION BY HASH (tenant);
                 CREATE TABLE {s}.orders_east_0 PARTITION OF {s}.orders_east FOR VALUES WITH (MODULUS 2, REMAINDER 0);
                 CREATE TABLE {s}.orders_east_1 PARTITION OF {s}.orders_east FOR VALUES WITH (MODULUS 2, REMAINDER 1);
                 CREATE TABLE {s}.orders_west PARTITION OF {s}.orders DEFAULT",
};

pub const LEVELS_MONTH_LIST: Layout = Layout {
    name: "by month, then list of tenant",
    key: "tenant, id, at",
    partition_by: "RANGE (at)",
    partitions: "CREATE TABLE {s}.orders_01 PARTITION OF {s}.orders FOR VALUES FROM (MINVALUE) TO ('2024-02-01') PARTITION BY LIST (tenant);
                 CREATE TABLE {s}.orders_01_a PARTITION OF {s}.orders_01 FOR VALUES IN ({v0}, {v1});
                 CREATE TABLE {s}.orders_01_rest PARTITION OF {s}.orders_01 DEFAULT;
                 CREATE TABLE {s}.orders_02 PARTITION OF {s}.orders FOR VALUES FROM ('2024-02-01') TO (MAXVALUE) PARTITION BY LIST (tenant);
                 CREATE TABLE {s}.orders_02_rest PARTITION OF {s}.orders_02 DEFAULT",
};

pub const RANGE_OF_TWO: Layout = Layout {
    name: "range of region and tenant",
    key: "region, tenant, id",
    partition_by: "RANGE (region, tenant)",
    partitions: "CREATE TABLE {s}.orders_a PARTITION OF {s}.orders FOR VALUES FROM (MINVALUE, MINVALUE) TO (1, {v2});
                 CREATE TABLE {s}.orders_b PARTITION OF {s}.orders FOR VALUES FROM (1, {v2}) TO (MAXVALUE, MAXVALUE)",
};

/// Leaves that were tables of their own first: other column order, and a column dropped long ago.
pub const ATTACHED: Layout = Layout {
    name: "leaves attached later",
    key: "tenant, id",
    partition_by: "HASH (tenant)",
    partitions: "CREATE TABLE {s}.orders_0 (gone text, note text, amount numeric(12,2), at date, id bigint NOT NULL,
                     tenant {column} NOT NULL, region int NOT NULL);
                 ALTER TABLE {s}.orders_0 DROP COLUMN gone;
                 ALTER TABLE {s}.orders ATTACH PARTITION {s}.orders_0 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
                 CREATE TABLE {s}.orders_1 PARTITION OF {s}.orders FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
};

pub const LAYOUTS: [Layout; 11] = [
    LIST,
    LIST_WITH_DEFAULT,
    LIST_OF_ONE,
    RANGE,
    RANGE_WITH_DEFAULT,
    HASH,
    MONTH,
    LEVELS_LIST_HASH,
    LEVELS_MONTH_LIST,
    RANGE_OF_TWO,
    ATTACHED,
];

/// How many rounds of writes there are.
pub const ROUNDS_MAX: u32 = 10;

/// The table `orders` of one story, in the schemas `live` and `twin`.
pub struct Orders {
    pub layout: Layout,
    tenant_type: String,
    /// The tenants as SQL, in ascending order.
    tenants: Vec<String>,
}

impl Orders {
    pub fn new(layout: Layout) -> Self {
        Self::of_type(layout, "int", &["1", "2", "3", "4", "5"])
    }

    /// Tenants of another type, ascending, at least two.
    pub fn of_type(layout: Layout, tenant_type: &str, tenants: &[&str]) -> Self {
        assert!(tenants.len() >= 2, "two tenants at least");
        Self {
            layout,
            tenant_type: tenant_type.to_owned(),
            tenants: tenants.iter().map(|tenant| (*tenant).to_owned()).collect(),
        }
    }

    /// The text of a tenant, as a user would type it.
    pub fn tenant(&self, index: usize) -> &str {
        &self.tenants[index]
    }

    /// A tenant as an SQL literal.
    pub fn literal(&self, index: usize) -> String {
        format!("'{}'", self.tenants[index].replace('\'', "''"))
    }

    /// The condition that picks a tenant's rows.
    pub fn is(&self, index: usize) -> String {
        format!("tenant = {}", self.literal(index))
    }

    /// Fills in the tenants and what the layout decides.
    pub fn sql(&self, text: &str) -> String {
        // A collation belongs to the column; a cast to an array of the type does without.
        let bare = self
            .tenant_type
            .split(" COLLATE ")
            .next()
            .unwrap_or_default();
        let mut text = text
            .replace("{column}", &self.tenant_type)
            .replace("{type}", bare)
            .replace("{key}", self.layout.key);
        for index in 0..5 {
            // With fewer tenants the first ones serve twice.
            let literal = self.literal(index % self.tenants.len());
            text = text.replace(&format!("{{v{index}}}"), &literal);
        }
        text
    }

    /// Makes the table in both schemas.
    pub fn create(&self, session: &mut Session) -> Result<Twin> {
        let definition = format!(
            "CREATE TABLE {{s}}.orders (
                 region int NOT NULL, tenant {{column}} NOT NULL, id bigint NOT NULL, at date,
                 amount numeric(12,2), note text, PRIMARY KEY ({{key}})
             ) PARTITION BY {};
             {};
             CREATE INDEX orders_amount ON {{s}}.orders (amount) INCLUDE (id);
             CREATE INDEX orders_noted ON {{s}}.orders (lower(left(note, 20))) WHERE note IS NOT NULL",
            self.layout.partition_by, self.layout.partitions
        );
        Twin::create(session, &["orders"], &self.sql(&definition))
    }

    /// Puts in `rows` rows, as many of each tenant: narrow, wide and TOASTed ones, and NULLs.
    pub fn fill(&self, twin: &Twin, session: &mut Session, rows: u32) -> Result<()> {
        let tenants: Vec<String> = (0..self.tenants.len()).map(|i| self.literal(i)).collect();
        let sql = format!(
            "INSERT INTO {{s}}.orders (region, tenant, id, at, amount, note)
             SELECT g % 3, (ARRAY[{}]::{{type}}[])[1 + g % {}], g, date '2024-01-01' + g % 90, g * 1.25,
                    CASE WHEN g % 50 = 0 THEN (SELECT string_agg(md5((g * 1000 + n)::text), '')
                                               FROM generate_series(1, 150) n)
                         WHEN g % 7 = 0 THEN NULL ELSE md5(g::text) END
             FROM generate_series(1, {rows}) g",
            tenants.join(", "),
            tenants.len(),
        );
        twin.both_alike(session, &self.sql(&sql))?;
        session.run("ANALYZE live.orders; ANALYZE twin.orders")
    }

    /// Every kind of write, to moved and other tenants. Rounds differ from each other.
    pub fn write(&self, twin: &Twin, session: &mut Session, round: u32) -> Result<()> {
        assert!(
            (1..=ROUNDS_MAX).contains(&round),
            "rounds are 1 to {ROUNDS_MAX}"
        );
        let base = 1_000_000 * i64::from(round);
        // Each change of keys adds a bit of its own above all new ids, so that no two rows collide.
        let step = |kind: u32| 1_i64 << (27 + 3 * round + kind);
        let (a, b, c) = (step(0), step(1), step(2));
        let statements = [
            // New rows, many and single ones.
            format!(
                "INSERT INTO {{s}}.orders SELECT 1, {{v0}}, {base} + g, date '2024-02-10', g, repeat('x', g)
                 FROM generate_series(1, 40) g"
            ),
            format!(
                "INSERT INTO {{s}}.orders VALUES (0, {{v1}}, {base} + 50, '2024-01-05', NULL, NULL)"
            ),
            // HOT and not, narrow and TOASTed.
            "UPDATE {s}.orders SET note = note || '.' WHERE id % 5 = 0".into(),
            "UPDATE {s}.orders SET amount = amount + 1 WHERE id % 5 = 1".into(),
            format!(
                "UPDATE {{s}}.orders SET note = (SELECT string_agg(md5(({base} + n)::text), '')
                 FROM generate_series(1, 200) n) WHERE id % 97 = 3"
            ),
            // Keys, other partitions, other tenants: out of and into the one that moves.
            format!("UPDATE {{s}}.orders SET id = id + {a} WHERE id % 31 = 4"),
            "UPDATE {s}.orders SET at = at + 20 WHERE id % 17 = 5 AND id < 1000000".into(),
            format!(
                "UPDATE {{s}}.orders SET tenant = {{v0}}, id = id + {b}
                 WHERE tenant = {{v1}} AND id % 11 = 6"
            ),
            format!(
                "UPDATE {{s}}.orders SET tenant = {{v2}}, id = id + {c}
                 WHERE tenant = {{v0}} AND id % 11 = 7"
            ),
            // Conflicts.
            format!(
                "INSERT INTO {{s}}.orders SELECT 1, {{v0}}, {base} + g, date '2024-02-10', -g, 'again'
                 FROM generate_series(30, 60) g
                 ON CONFLICT ({{key}}) DO UPDATE SET amount = excluded.amount, note = excluded.note"
            ),
            format!(
                "INSERT INTO {{s}}.orders SELECT 1, {{v0}}, {base} + g, date '2024-02-10', 0, 'not'
                 FROM generate_series(1, 70) g ON CONFLICT DO NOTHING"
            ),
            format!(
                "INSERT INTO {{s}}.orders
                 SELECT 1, {{v0}}, {base} + g, date '2024-02-10', 0, NULL FROM generate_series(820, 860) g"
            ),
            format!(
                "MERGE INTO {{s}}.orders o
                 USING (SELECT {{v0}}::{{type}} AS tenant, {base} + g AS id FROM generate_series(840, 880) g) s
                 ON o.tenant = s.tenant AND o.id = s.id AND o.region = 1 AND o.at = date '2024-02-10'
                 WHEN MATCHED AND o.id % 4 = 0 THEN DELETE
                 WHEN MATCHED THEN UPDATE SET note = 'merged'
                 WHEN NOT MATCHED THEN INSERT VALUES (1, s.tenant, s.id, '2024-02-10', 7, 'merged in')"
            ),
            "DELETE FROM {s}.orders WHERE id % 19 = 8".into(),
        ];
        for statement in statements {
            twin.both_alike(session, &self.sql(&statement))?;
        }
        // What is rolled back was never there, whole or in part.
        let rolled_back = format!(
            "BEGIN;
             SAVEPOINT a;
             DELETE FROM {{s}}.orders WHERE tenant = {{v0}};
             INSERT INTO {{s}}.orders VALUES (1, {{v0}}, {base} + 900, '2024-01-07', 1, 'lost');
             ROLLBACK TO a;
             INSERT INTO {{s}}.orders VALUES (1, {{v0}}, {base} + 901, '2024-01-07', 1, 'kept');
             COMMIT;
             BEGIN; UPDATE {{s}}.orders SET note = 'lost'; ROLLBACK"
        );
        twin.both(session, &self.sql(&rolled_back))
    }
}

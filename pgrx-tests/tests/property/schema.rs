//! A random table: layout, type of the tenants, and what else may be on a table.

use shadowpart_tests::*;

const TYPES: [(&str, [&str; 5]); 8] = [
    ("int", ["1", "2", "3", "4", "5"]),
    ("bigint", ["-5000000000", "0", "1", "2", "5000000000"]),
    ("text", ["", "a", "a'b\\c", "b", "zürich"]),
    ("varchar(4)", ["a", "aa", "aaa", "b", "bbbb"]),
    (
        "uuid",
        [
            "00000000-0000-0000-0000-000000000001",
            "11111111-1111-1111-1111-111111111111",
            "22222222-2222-2222-2222-222222222222",
            "33333333-3333-3333-3333-333333333333",
            "44444444-4444-4444-4444-444444444444",
        ],
    ),
    (
        "date",
        [
            "2020-01-01",
            "2021-01-01",
            "2022-01-01",
            "2023-01-01",
            "2024-01-01",
        ],
    ),
    ("numeric(8,2)", ["-1.5", "0", "1", "2.25", "3"]),
    ("carrier", ["AA", "B6", "DL", "UA", "WN"]),
];

/// Statements that add something to the table, each in both schemas.
const DECORATIONS: [&str; 12] = [
    "ALTER TABLE {s}.orders ADD COLUMN doc jsonb DEFAULT '{}'",
    "ALTER TABLE {s}.orders ADD COLUMN twice numeric GENERATED ALWAYS AS (amount * 2) STORED",
    "ALTER TABLE {s}.orders ADD COLUMN gone int; ALTER TABLE {s}.orders DROP COLUMN gone",
    "ALTER TABLE {s}.orders ADD CONSTRAINT positive CHECK (id > 0)",
    "ALTER TABLE {s}.orders ALTER note SET STORAGE EXTERNAL",
    "ALTER TABLE {s}.orders REPLICA IDENTITY FULL",
    "CREATE INDEX ON {s}.orders USING hash (region)",
    "CREATE INDEX ON {s}.orders USING brin (at)",
    "CREATE INDEX ON {s}.orders (tenant, at DESC NULLS LAST) WHERE amount > 10",
    "CREATE TABLE {s}.regions (region int PRIMARY KEY);
     INSERT INTO {s}.regions SELECT generate_series(0, 3);
     ALTER TABLE {s}.orders ADD FOREIGN KEY (region) REFERENCES {s}.regions",
    "CREATE FUNCTION {s}.stamp() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN NEW.note := left(NEW.note, 5000) || '!'; RETURN NEW; END $$;
     CREATE TRIGGER stamp BEFORE UPDATE OF amount ON {s}.orders
         FOR EACH ROW EXECUTE FUNCTION {s}.stamp()",
    // An UPDATE that moves a row to another partition fires the triggers of DELETE and INSERT, and
    // partitions are more after a migration: rows that go and rows that come are counted apart.
    "CREATE TABLE {s}.log (what text);
     CREATE FUNCTION {s}.log() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN
         IF OLD.id IS NOT NULL THEN INSERT INTO {s}.log VALUES ('gone ' || OLD.id); END IF;
         IF NEW.id IS NOT NULL THEN INSERT INTO {s}.log VALUES ('come ' || NEW.id); END IF;
         RETURN NULL;
     END $$;
     CREATE TRIGGER log AFTER INSERT OR UPDATE OR DELETE ON {s}.orders
         FOR EACH ROW EXECUTE FUNCTION {s}.log()",
];

pub fn random_orders(dice: &mut Dice, session: &mut Session) -> Result<Orders> {
    session.run("CREATE TYPE carrier AS ENUM ('AA', 'B6', 'DL', 'UA', 'WN')")?;
    let layout = *dice.pick(&LAYOUTS);
    let (tenant_type, tenants) = dice.pick(&TYPES);
    Ok(Orders::of_type(layout, tenant_type, tenants))
}

pub fn create(orders: &Orders, dice: &mut Dice, session: &mut Session) -> Result<Twin> {
    let twin = orders.create(session)?;
    let mut log = false;
    for decoration in DECORATIONS {
        if dice.one_in(3) {
            twin.both(session, decoration)?;
            log |= decoration.contains("{s}.log");
        }
    }
    Ok(if log { twin.and("log") } else { twin })
}

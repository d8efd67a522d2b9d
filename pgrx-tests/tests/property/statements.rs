//! Random statements. Each touches only rows of one session (by `id % SESSIONS`), so that sessions in
//! step never wait for each other.

use shadowpart_tests::*;

pub const SESSIONS: u64 = 4;

/// A statement with this in it uses keys that are there already, if it finds any rows.
pub const MISTAKE: &str = "'twice'";

pub struct Statements<'a> {
    pub orders: &'a Orders,
    /// New ids are this many times SESSIONS above the first rows, and always new.
    next: u64,
    /// How many times a key was changed: each adds a bit of its own above all new ids.
    key_changes: u32,
}

impl<'a> Statements<'a> {
    pub fn new(orders: &'a Orders) -> Self {
        Self {
            orders,
            next: 1000,
            key_changes: 0,
        }
    }

    pub fn new_id(&mut self, session: u64) -> u64 {
        self.next += 1;
        self.next * SESSIONS + session
    }

    /// What to add to an id so that it is new for certain, and still the session's.
    fn key_step(&mut self) -> u64 {
        self.key_changes += 1;
        1_000_000 * SESSIONS * u64::from(self.key_changes) * 1_000
    }

    fn tenant(&self, dice: &mut Dice) -> String {
        self.orders.literal(dice.below(5) as usize)
    }

    fn note(dice: &mut Dice) -> String {
        match dice.below(5) {
            0 => "NULL".into(),
            1 => format!(
                "(SELECT string_agg(md5((n + {})::text), '') FROM generate_series(1, 160) n)",
                dice.below(99)
            ),
            2 => format!("repeat('y', {})", dice.below(3000)),
            _ => format!("'note {}'", dice.below(1000)),
        }
    }

    fn date(dice: &mut Dice) -> String {
        format!("date '2024-01-01' + {}", dice.below(90))
    }

    /// Rows to touch: few of them, of any tenant or of one.
    fn some(&self, dice: &mut Dice, session: u64) -> String {
        let mut condition = format!(
            "id % {SESSIONS} = {session} AND id % 13 = {}",
            dice.below(13)
        );
        if dice.one_in(2) {
            condition.push_str(&format!(" AND tenant = {}", self.tenant(dice)));
        }
        condition
    }

    fn new_row(&mut self, dice: &mut Dice, session: u64) -> String {
        let id = self.new_id(session);
        format!(
            "({}, {}, {id}, {}, {}, {})",
            dice.below(3),
            self.tenant(dice),
            Self::date(dice),
            if dice.one_in(8) {
                "NULL".into()
            } else {
                format!("{}.25", dice.below(1000))
            },
            Self::note(dice)
        )
    }

    fn new_rows(&mut self, dice: &mut Dice, session: u64) -> String {
        let count = if dice.one_in(3) { 1 } else { 2 + dice.below(8) };
        let rows: Vec<String> = (0..count).map(|_| self.new_row(dice, session)).collect();
        rows.join(", ")
    }

    /// A statement for both schemas.
    pub fn random(&mut self, dice: &mut Dice, session: u64) -> String {
        const INTO: &str = "INSERT INTO {s}.orders (region, tenant, id, at, amount, note)";
        let key = self.orders.layout.key;
        let some = self.some(dice, session);
        let sql = match dice.below(16) {
            0..=2 => format!("{INTO} VALUES {}", self.new_rows(dice, session)),
            3 => format!(
                "UPDATE {{s}}.orders SET note = {} WHERE {some}", Self::note(dice)
            ),
            4 => format!("UPDATE {{s}}.orders SET amount = amount + 1 WHERE {some}"),
            5 => format!("UPDATE {{s}}.orders SET amount = NULL, note = note || '.' WHERE {some}"),
            6 => format!("UPDATE {{s}}.orders SET id = id + {} WHERE {some}", self.key_step()),
            7 => format!(
                "UPDATE {{s}}.orders SET tenant = {}, id = id + {} WHERE {some}",
                self.tenant(dice), self.key_step()
            ),
            8 => format!(
                "UPDATE {{s}}.orders SET at = {}, region = {}, id = id + {} WHERE {some}",
                Self::date(dice), dice.below(3), self.key_step()
            ),
            9 => format!("DELETE FROM {{s}}.orders WHERE {some}"),
            10 => {
                // The second time with the same key, so that it conflicts.
                let row = self.new_row(dice, session);
                let again = row.clone();
                format!(
                    "{INTO} VALUES {row};
                     {INTO} VALUES {again} ON CONFLICT ({key}) DO UPDATE SET amount = -1, note = excluded.note"
                )
            }
            11 => {
                let row = self.new_row(dice, session);
                format!(
                    "{INTO} VALUES {row};
                     {INTO} VALUES {row}, {} ON CONFLICT DO NOTHING", self.new_row(dice, session)
                )
            }
            12 => {
                let (tenant, id, step) = (self.tenant(dice), self.new_id(session), self.key_step());
                format!(
                    "MERGE INTO {{s}}.orders o
                     USING (SELECT tenant, id, at, region, id % 3 AS what FROM {{s}}.orders WHERE {some}
                            UNION ALL SELECT {tenant}, {id}, '2024-01-15', 1, 0) n
                     ON o.tenant = n.tenant AND o.id = n.id AND o.at = n.at AND o.region = n.region
                     WHEN MATCHED AND n.what = 0 THEN DELETE
                     WHEN MATCHED AND n.what = 1 THEN UPDATE SET id = o.id + {step}
                     WHEN MATCHED THEN UPDATE SET note = 'merged'
                     WHEN NOT MATCHED THEN INSERT (region, tenant, id, at) VALUES (n.region, n.tenant, n.id, n.at)"
                )
            }
            13 => format!(
                "WITH gone AS (DELETE FROM {{s}}.orders WHERE {some} RETURNING region, tenant, id, at, amount, note)
                 {INTO} SELECT region, tenant, id + {}, at, amount, 'back' FROM gone", self.key_step()
            ),
            14 => format!("SELECT id FROM {{s}}.orders WHERE {some} FOR UPDATE"),
            _ => format!(
                "{INTO} SELECT region, tenant, id, at, amount, {MISTAKE} FROM {{s}}.orders WHERE {some}"
            ),
        };
        self.orders.sql(&sql)
    }
}

//! From two looks at the counters of all entities to one minute's rows.
//!
//! A table has a row of its own for each minute, without an entity: what was not counted for a listed
//! entity is in it, and it says that the minute is covered. An entity without a row has done nothing in
//! a covered minute. So the size of the history follows what happens, not how many entities there are.

use std::collections::{HashMap, HashSet};

use crate::history::{self, Sample, Step};

/// How many figures are counted for each entity.
pub const MEASURES: usize = 10;
/// The figures that rank entities, by their place: inserts, updates, deletes, and reads.
const RANKING: [usize; 4] = [0, 1, 2, 5];

/// The counters of one entity at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The managed table.
    pub table: u32,
    /// `None`: what was done to many entities at once.
    pub entity: Option<String>,
    /// The partition it was last seen in; zero if not known.
    pub partition: u32,
    /// Since when they count; microseconds of the same clock as [`Look::at_us`].
    pub since_us: i64,
    /// Their values.
    pub totals: [u64; MEASURES],
}

/// What is the same from one look to the next: the table and the entity; what was done to many at once is
/// counted for each partition.
type Key = (u32, Option<String>, u32);

impl Counted {
    fn key(&self) -> Key {
        let partition = match self.entity {
            Some(_) => 0,
            None => self.partition,
        };
        (self.table, self.entity.clone(), partition)
    }
}

/// All counters at one moment.
#[derive(Clone, Debug, Default)]
pub struct Look {
    at_us: i64,
    tables: HashSet<u32>,
    counted: HashMap<Key, Counted>,
}

/// A row of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The managed table.
    pub table: u32,
    /// `None`: all that is not in a row of its own.
    pub entity: Option<String>,
    /// Where it was last seen; zero if not known.
    pub partition: u32,
    /// How much the counters grew.
    pub values: [u64; MEASURES],
    /// Counters began anew or went away meanwhile: values are lower bounds.
    pub reset: bool,
}

impl Look {
    /// `tables` are those that are managed now, counted or not; what is counted of others is left out.
    pub fn new(at_us: i64, tables: impl IntoIterator<Item = u32>, counted: Vec<Counted>) -> Self {
        let tables: HashSet<u32> = tables.into_iter().collect();
        let counted = counted
            .into_iter()
            .filter(|c| tables.contains(&c.table))
            .map(|c| (c.key(), c))
            .collect();
        Self {
            at_us,
            tables,
            counted,
        }
    }

    /// What happened since an earlier look: for each table that both know at most `entities_max` rows of
    /// entities, those with the most statements, and one for the rest.
    pub fn since(&self, before: &Look, entities_max: usize) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut of_table: HashMap<u32, Vec<Row>> = HashMap::new();
        let mut rest: HashMap<u32, Row> = self
            .tables
            .intersection(&before.tables)
            .map(|table| (*table, empty(*table)))
            .collect();
        for ((table, entity, _), now) in &self.counted {
            let Some(rest) = rest.get_mut(table) else {
                continue;
            };
            let row = self.grown(now, before);
            if entity.is_none() {
                rest.add(&row);
            } else if row.values.iter().any(|value| *value > 0) {
                of_table.entry(*table).or_default().push(row);
            } else {
                rest.reset |= row.reset;
            }
        }
        // What a counter that went away had counted last, nobody knows.
        for key in before.counted.keys() {
            if !self.counted.contains_key(key)
                && let Some(rest) = rest.get_mut(&key.0)
            {
                rest.reset = true;
            }
        }
        for (table, mut rest) in rest {
            let mut listed = of_table.remove(&table).unwrap_or_default();
            // By name where they are equal: the same twice in a row gives the same.
            listed.sort_by(|a, b| (b.rank().cmp(&a.rank())).then_with(|| a.entity.cmp(&b.entity)));
            let pooled = listed.split_off(listed.len().min(entities_max));
            for row in &pooled {
                rest.add(row);
            }
            rows.append(&mut listed);
            rows.push(rest);
        }
        rows
    }

    /// How much the counters of one entity grew.
    fn grown(&self, now: &Counted, before: &Look) -> Row {
        let mut row = Row {
            entity: now.entity.clone(),
            partition: now.partition,
            ..empty(now.table)
        };
        let sample = |at_us, of: &Counted| Sample {
            at_us,
            epoch: of.since_us,
            values: of.totals,
        };
        match before.counted.get(&now.key()) {
            Some(then) => {
                let (then, now) = (sample(before.at_us, then), sample(self.at_us, now));
                if let Step::Delta(delta) | Step::Gap(delta) =
                    history::step(Some(&then), &now, i64::MAX)
                {
                    row.values = delta.values;
                    row.reset = delta.reset;
                }
            }
            // Counted from nothing within the stretch: all of it is new.
            None if now.since_us >= before.at_us => row.values = now.totals,
            // It was counted before and nobody saw it: how much of it is new is not known.
            None => row.reset = true,
        }
        row
    }
}

fn empty(table: u32) -> Row {
    Row {
        table,
        entity: None,
        partition: 0,
        values: [0; MEASURES],
        reset: false,
    }
}

impl Row {
    fn rank(&self) -> u64 {
        RANKING
            .iter()
            .filter_map(|place| self.values.get(*place))
            .fold(0, |sum, value| sum.saturating_add(*value))
    }

    fn add(&mut self, other: &Row) {
        for (sum, value) in self.values.iter_mut().zip(&other.values) {
            *sum = sum.saturating_add(*value);
        }
        self.reset |= other.reset;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(entity: Option<&str>, since_us: i64, inserts: u64) -> Counted {
        Counted {
            table: 1,
            entity: entity.map(str::to_owned),
            partition: 7,
            since_us,
            totals: [inserts, 0, 0, 0, 0, inserts / 2, 0, 0, 0, 0],
        }
    }

    fn row<'a>(rows: &'a [Row], entity: Option<&str>) -> Option<&'a Row> {
        rows.iter().find(|row| row.entity.as_deref() == entity)
    }

    #[test]
    fn a_covered_minute_without_load_has_one_row_of_zeros() {
        let rows = Look::new(60, [1], vec![]).since(&Look::new(0, [1], vec![]), 1000);
        assert_eq!(rows, [empty(1)]);
    }

    #[test]
    fn a_table_that_was_not_managed_before_has_none() {
        let now = Look::new(60, [1, 2], vec![counted(Some("a"), 0, 5)]);
        let rows = now.since(&Look::new(0, [2], vec![]), 1000);
        assert_eq!(rows, [empty(2)]);
    }

    #[test]
    fn growth_is_what_came_in_between() {
        let before = Look::new(10, [1], vec![counted(Some("a"), 0, 5), counted(None, 0, 2)]);
        let new = vec![
            counted(Some("a"), 0, 9),
            counted(None, 0, 3),
            counted(Some("new"), 20, 4),
            counted(Some("unseen"), 5, 100),
        ];
        let rows = Look::new(60, [1], new).since(&before, 1000);
        assert_eq!(row(&rows, Some("a")).unwrap().values[0], 4);
        assert_eq!(row(&rows, Some("new")).unwrap().values[0], 4);
        assert!(row(&rows, Some("unseen")).is_none());
        let rest = row(&rows, None).unwrap();
        assert_eq!((rest.values[0], rest.reset), (1, true));
        assert_eq!(rows.len(), 3);
    }

    #[test]
    fn a_reset_is_seen_by_its_epoch_and_gives_a_lower_bound() {
        let before = Look::new(10, [1], vec![counted(Some("a"), 0, 5)]);
        let rows = Look::new(60, [1], vec![counted(Some("a"), 30, 6)]).since(&before, 1000);
        let a = row(&rows, Some("a")).unwrap();
        assert_eq!((a.values[0], a.reset), (6, true));
    }

    #[test]
    fn what_went_away_makes_the_rest_a_lower_bound() {
        let before = Look::new(10, [1], vec![counted(Some("a"), 0, 5)]);
        let rows = Look::new(60, [1], vec![]).since(&before, 1000);
        assert_eq!((rows.len(), rows[0].reset), (1, true));
    }

    #[test]
    fn beyond_the_most_active_they_are_pooled() {
        let before = Look::new(0, [1], vec![]);
        let many = (1..=50)
            .map(|i| counted(Some(&format!("e{i:02}")), 5, i))
            .collect();
        let rows = Look::new(60, [1], many).since(&before, 10);
        assert_eq!(rows.len(), 11);
        assert!(row(&rows, Some("e50")).is_some() && row(&rows, Some("e40")).is_none());
        assert_eq!(row(&rows, None).unwrap().values[0], (1..=40).sum::<u64>());
        let all: u64 = rows.iter().map(|row| row.values[0]).sum();
        assert_eq!(all, (1..=50).sum::<u64>());
    }
}

//! Stories of a shard, and a random one against an exact map.

use super::*;
use crate::rates::{LIFE_MIN_US, Window};
use proptest::prelude::*;
use std::collections::HashMap;

const SEED: Seed = [11, 22];
const SECOND_US: i64 = 1_000_000;

/// A block aligned to eight bytes, as shared memory is, full of rubbish.
struct Block(Vec<u8>);

impl Block {
    fn new(slots: u32) -> Self {
        Block(vec![0xA5; shard_bytes::<2>(slots) + 8])
    }

    fn bytes(&mut self) -> &mut [u8] {
        let offset = self.0.as_ptr().align_offset(8);
        let length = self.0.len() - 8;
        &mut self.0[offset..offset + length]
    }
}

fn key(entity: u32) -> (Key, u64) {
    let key = Key::new(SEED, 1, entity % 3, 23, &entity.to_be_bytes());
    (key, key.hash(SEED))
}

fn add(shard: &mut ShardMut<'_, 2>, entity: u32, weight: u64, now_us: i64) -> Added {
    let (key, hash) = key(entity);
    shard.add(&key, hash, weight, &[weight, 1], 0, now_us)
}

fn get(shard: &ShardMut<'_, 2>, entity: u32, now_us: i64) -> Option<Entry<2>> {
    let (key, hash) = key(entity);
    shard.read().get(&key, hash, now_us)
}

#[test]
fn a_newcomer_takes_the_least_slot_and_counts_from_zero() {
    let mut block = Block::new(2);
    let mut shard = ShardMut::<2>::init(block.bytes(), 2, RANKING_US, 5).expect("fits");
    assert_eq!(add(&mut shard, 1, 10, 5), Added::New);
    assert_eq!(add(&mut shard, 2, 3, 5), Added::New);
    assert_eq!(add(&mut shard, 1, 10, 5), Added::Known);
    assert_eq!(add(&mut shard, 3, 1, 6), Added::Replaced);
    assert_eq!(get(&shard, 2, 6), None);
    let newcomer = get(&shard, 3, 6).expect("held");
    assert_eq!(
        (newcomer.error.round(), newcomer.guaranteed.round()),
        (3.0, 1.0)
    );
    assert_eq!((newcomer.rates.total(0), newcomer.since_us), (1, 6));
    let info = shard.read().info(6);
    assert_eq!((info.evictions, info.used, info.slots), (1, 2, 2));
    assert_eq!(
        (info.first_eviction_us, info.last_eviction_us),
        (Some(6), Some(6))
    );
    assert_eq!(info.tail.totals(), &[3, 1]);
    assert!((info.floor - 3.0).abs() < 1e-6);
}

/// The tag is the last that was given, and goes with its entity wherever its slot goes.
#[test]
fn a_tag_stays_with_its_entity() {
    let mut block = Block::new(2);
    let mut shard = ShardMut::<2>::init(block.bytes(), 2, RANKING_US, 0).expect("fits");
    let add = |shard: &mut ShardMut<'_, 2>, entity, weight, tag| {
        let (key, hash) = key(entity);
        shard.add(&key, hash, weight, &[weight, 1], tag, 0)
    };
    let tag = |shard: &ShardMut<'_, 2>, entity| get(shard, entity, 0).map(|entry| entry.tag);
    add(&mut shard, 2, 9, 0);
    add(&mut shard, 1, 5, 7);
    assert_eq!((tag(&shard, 1), tag(&shard, 2)), (Some(7), Some(0)));
    add(&mut shard, 1, 0, 0);
    assert_eq!(tag(&shard, 1), Some(7));
    add(&mut shard, 1, 0, 8);
    add(&mut shard, 2, 0, u64::MAX);
    assert_eq!((tag(&shard, 1), tag(&shard, 2)), (Some(8), Some(u64::MAX)));
    // A newcomer inherits none, and what has no slot keeps none.
    assert_eq!(add(&mut shard, 3, 1, 0), Added::Replaced);
    assert_eq!((tag(&shard, 1), tag(&shard, 3)), (None, Some(0)));
    assert_eq!(add(&mut shard, 4, 100, 6), Added::Replaced);
    assert_eq!(add(&mut shard, 5, 0, 9), Added::Tail);
    assert_eq!((tag(&shard, 4), tag(&shard, 5)), (Some(6), None));
    // What was in the second slot moves to the first.
    shard.retain(0, |key| key.relation() == 1);
    assert_eq!((tag(&shard, 4), tag(&shard, 2)), (Some(6), None));
    assert_eq!(add(&mut shard, 2, 1, 0), Added::New);
    assert_eq!(tag(&shard, 2), Some(0));
}

/// Entity 5 is evicted, then the table of entities 1 and 4 is dropped and slots are free. Whoever
/// comes may have been evicted before: it gets a free slot, but with the floor as its error.
#[test]
fn a_free_slot_is_no_proof_of_being_new() {
    let mut block = Block::new(3);
    let mut shard = ShardMut::<2>::init(block.bytes(), 3, RANKING_US, 0).expect("fits");
    for (entity, weight) in [(1, 10), (4, 9), (5, 3), (2, 8)] {
        add(&mut shard, entity, weight, 0);
    }
    shard.retain(0, |key| key.relation() != 1);
    assert_eq!(shard.read().info(0).used, 1);
    assert_eq!(get(&shard, 2, 0).map(|entry| entry.guaranteed), Some(8.0));
    assert_eq!(add(&mut shard, 5, 1, 0), Added::New);
    let entry = get(&shard, 5, 0).expect("held");
    assert_eq!(
        (entry.guaranteed, entry.error, entry.rates.total(0)),
        (1.0, 3.0, 1)
    );
    let info = shard.read().info(0);
    assert_eq!((info.floor, info.evictions), (3.0, 1));
    assert_eq!(info.tail.totals(), &[22, 3]);
}

/// A hundred heavy entities fall silent; after some time constants, others have their slots.
#[test]
fn old_hitters_leave() {
    let mut block = Block::new(100);
    let minute_us = 60 * SECOND_US;
    let mut shard = ShardMut::<2>::init(block.bytes(), 100, minute_us, 0).expect("fits");
    for event in 0..10_000 {
        add(&mut shard, event % 100, 100, 0);
    }
    for event in 0..10_000 {
        let now_us = i64::from(event) * 12 * minute_us / 10_000;
        add(&mut shard, 1000 + event % 100, 1, now_us);
    }
    assert!((0..100).all(|entity| get(&shard, entity, 12 * minute_us).is_none()));
    assert_eq!(shard.read().info(0).tail.total(0), 1_000_000);
}

#[test]
fn what_is_no_shard_is_refused() {
    let mut block = Block::new(3);
    let needed_bytes = shard_bytes::<2>(3);
    let foreign = Some(LayoutError::Foreign);
    let too_small = Some(LayoutError::TooSmall { needed_bytes });
    assert_eq!(Shard::<2>::attach(block.bytes()).err(), foreign);
    let short = &mut block.bytes()[..needed_bytes - 1];
    assert_eq!(ShardMut::<2>::init(short, 3, 1, 0).err(), too_small);
    assert!(ShardMut::<2>::init(&mut block.bytes()[1..], 2, 1, 0).is_err());
    ShardMut::<2>::init(block.bytes(), 3, 1, 0).expect("fits");
    assert_eq!(Shard::<1>::attach(block.bytes()).err(), foreign);
    assert_eq!(
        Shard::<2>::attach(&block.bytes()[..needed_bytes / 2]).err(),
        too_small
    );
    assert!(Shard::<2>::attach(&[]).is_err());
    assert!(Shard::<2>::attach(block.bytes()).is_ok());
}

#[test]
fn without_slots_everything_is_tail() {
    let mut block = Block::new(0);
    let mut shard = ShardMut::<2>::init(block.bytes(), 0, RANKING_US, 0).expect("fits");
    assert_eq!(add(&mut shard, 1, 10, 0), Added::Tail);
    let info = shard.read().info(0);
    assert_eq!((info.tail.total(0), info.floor), (10, 10.0));
    let mut top = Vec::new();
    shard.read().top(5, 0, &mut top);
    assert!(top.is_empty());
}

#[test]
fn reset_begins_a_new_life() {
    let mut block = Block::new(2);
    let mut shard = ShardMut::<2>::init(block.bytes(), 2, RANKING_US, 0).expect("fits");
    for entity in 0..10 {
        add(&mut shard, entity, 1, 0);
    }
    shard.reset(77);
    assert!((0..10).all(|entity| get(&shard, entity, 77).is_none()));
    let info = shard.read().info(77);
    assert_eq!((info.evictions, info.used, info.since_us), (0, 0, 77));
    assert_eq!((info.floor, info.tail.total(1)), (0.0, 0));
    assert_eq!(add(&mut shard, 4, 1, 77), Added::New);
}

#[test]
fn shards_are_chosen_evenly() {
    let mut counts = [0; 16];
    for entity in 0..16_000 {
        counts[shard_of(key(entity).1, 16) as usize] += 1;
    }
    assert!(
        counts.iter().all(|count| (850..1150).contains(count)),
        "{counts:?}"
    );
    assert_eq!(shard_of(u64::MAX, 16), 15);
    assert_eq!(shard_of(u64::MAX, 0), 0);
}

/// One step of the random story.
#[derive(Clone, Debug)]
enum Op {
    Add {
        entity: u32,
        weight: u64,
        wait_us: i64,
    },
    DropRelation(u32),
    SetClock(i64),
}

fn op() -> impl Strategy<Value = Op> {
    let wait = prop_oneof![4 => 0i64..100_000, 1 => 0i64..60_000_000, 1 => 0i64..7_200_000_000];
    prop_oneof![
        30 => (0u32..24, 0u64..50, wait)
            .prop_map(|(entity, weight, wait_us)| Op::Add { entity, weight, wait_us }),
        1 => (0u32..3).prop_map(Op::DropRelation),
        1 => (-1_000_000_000_000i64..0).prop_map(Op::SetClock),
    ]
}

/// What is known exactly of an entity: events by time of a clock that never was set back.
#[derive(Default)]
struct Exact(Vec<(i64, u64)>);

impl Exact {
    fn decayed(&self, now_us: i64, length_us: i64) -> f64 {
        let of = |(at_us, weight): &(i64, u64)| {
            *weight as f64 * (-((now_us - at_us) as f64) / length_us as f64).exp()
        };
        self.0.iter().map(of).sum()
    }
}

proptest! {
    /// Everything that the module's documentation promises, for up to eight slots, 24 entities and
    /// a clock that is set back.
    #[test]
    fn like_an_exact_map(slots in 1u32..8, ops in prop::collection::vec(op(), 1..300)) {
        let mut block = Block::new(slots);
        // Short enough that the landmark moves now and then.
        let ranking_us = 60 * SECOND_US;
        ShardMut::<2>::init(block.bytes(), slots, ranking_us, 0).expect("fits");
        let mut model: HashMap<u32, Exact> = HashMap::new();
        let mut gone: Vec<u32> = Vec::new();
        let (mut wall_us, mut elapsed_us) = (0i64, 0i64);
        for op in ops {
            // Each time anew, as another process would.
            let mut shard = ShardMut::<2>::attach(block.bytes()).expect("a shard");
            match op {
                Op::Add { entity, weight, wait_us } => {
                    wall_us += wait_us;
                    elapsed_us += wait_us;
                    add(&mut shard, entity, weight, wall_us);
                    model.entry(entity).or_default().0.push((elapsed_us, weight));
                }
                Op::DropRelation(relation) => {
                    shard.retain(wall_us, |key| key.relation() != relation);
                    gone.extend(model.keys().filter(|entity| **entity % 3 == relation));
                    for entity in &gone {
                        prop_assert!(entity % 3 != relation || get(&shard, *entity, wall_us).is_none());
                    }
                }
                Op::SetClock(step_us) => {
                    // Far enough not to be taken for disorder, and noticed by the next to look.
                    wall_us += step_us - 2 * SECOND_US;
                    shard.retain(wall_us, |_| true);
                }
            }
        }

        let shard = Shard::<2>::attach(block.bytes()).expect("a shard");
        let info = shard.info(wall_us);
        let entries: Vec<_> = shard.iter(wall_us).collect();
        prop_assert_eq!(entries.len(), info.used as usize);
        // Everything that was added is in a slot or in the tail.
        for measure in 0..2 {
            let held: u64 = entries.iter().map(|entry| entry.rates.total(measure)).sum();
            let events = model.values().flat_map(|exact| &exact.0);
            let all: u64 = events.map(|event| if measure == 0 { event.1 } else { 1 }).sum();
            prop_assert_eq!(held + info.tail.total(measure), all);
        }
        let all: f64 = model.values().map(|exact| exact.decayed(elapsed_us, ranking_us)).sum();
        let loose = 1.001;
        prop_assert!(info.floor <= all / f64::from(slots) * loose + 1e-9);
        let mut rates = [0.0; 3];
        for (entity, exact) in &model {
            let truth = exact.decayed(elapsed_us, ranking_us);
            let Some(entry) = get_in(&shard, *entity, wall_us) else {
                prop_assert!(gone.contains(entity) || truth <= info.floor * loose + 1e-9);
                continue;
            };
            prop_assert!(entry.guaranteed <= truth * loose + 1e-9);
            let upper = entry.guaranteed + entry.error;
            prop_assert!(gone.contains(entity) || truth <= upper * loose + 1e-9);
            prop_assert!(entry.error <= info.floor * loose + 1e-9);
            for window in Window::ALL {
                let length_us = window.length_us();
                let life_us = elapsed_us.max(LIFE_MIN_US) as f64;
                let seconds = length_us as f64 / 1e6 * (1.0 - (-life_us / length_us as f64).exp());
                let rate = entry.rates.per_second(0, window, wall_us);
                let exact = exact.decayed(elapsed_us, length_us) / seconds;
                prop_assert!(rate <= exact * (1.0 + 1e-6) + 1e-9, "{rate} above {exact}");
                rates[window as usize] += rate;
            }
        }
        // The same for rates: slots and tail together are everything, but for the steps.
        for window in Window::ALL {
            let length_us = window.length_us();
            let life_us = elapsed_us.max(LIFE_MIN_US) as f64;
            let seconds = length_us as f64 / 1e6 * (1.0 - (-life_us / length_us as f64).exp());
            let exact: f64 = model.values().map(|e| e.decayed(elapsed_us, length_us)).sum();
            let found = rates[window as usize] + info.tail.per_second(0, window, wall_us);
            prop_assert!((found * seconds - exact).abs() <= exact * 0.003 + 1e-9);
        }
    }

    #[test]
    fn nothing_panics(
        events in prop::collection::vec((any::<u32>(), any::<u64>(), any::<i64>()), 0..100),
        slots in 0u32..5, ranking_us: i64, start_us: i64,
    ) {
        let mut block = Block::new(slots);
        let mut shard = ShardMut::<2>::init(block.bytes(), slots, ranking_us, start_us).expect("fits");
        for (entity, weight, now_us) in events {
            add(&mut shard, entity % 10, weight, now_us);
            for entry in shard.read().iter(now_us.wrapping_add(ranking_us)) {
                prop_assert!(entry.guaranteed.is_finite() && entry.error.is_finite());
            }
            prop_assert!(shard.read().info(ranking_us).floor.is_finite());
        }
    }

    /// A block that somebody wrote over: wrong answers, but no panic and no endless loop.
    #[test]
    fn rubbish_is_survived(rubbish in prop::collection::vec(any::<u8>(), 1600), from in 24usize..800) {
        let mut block = Block::new(4);
        ShardMut::<2>::init(block.bytes(), 4, RANKING_US, 0).expect("fits");
        for (to, from) in block.bytes().iter_mut().skip(from).zip(&rubbish) {
            *to = *from;
        }
        let mut shard = ShardMut::<2>::attach(block.bytes()).expect("the header's begin is whole");
        for entity in 0..20 {
            add(&mut shard, entity, 1, i64::from(entity) * 1_000_000_000);
            get(&shard, entity, 0);
        }
        shard.retain(0, |key| key.relation() == 1);
        shard.read().top(3, 0, &mut Vec::new());
    }
}

fn get_in(shard: &Shard<'_, 2>, entity: u32, now_us: i64) -> Option<Entry<2>> {
    let (key, hash) = key(entity);
    shard.get(&key, hash, now_us)
}

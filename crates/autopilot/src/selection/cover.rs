//! Covering a need with the least weight.
//!
//! Items are taken by density, usefulness per weight. An item that would close the cover is not
//! taken but noted as one way to end; the scan goes on behind it for a cheaper one. For a single
//! resource the cheapest ending weighs at most twice the optimum. With few items taken every other
//! one is tried as the end, so that one entity which suffices alone is found. Then every pick that
//! is not needed goes, the heaviest first.

use crate::resource::{Loads, Resource, known};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// With at most so many items taken every other is tried as the last.
const CLOSINGS_MAX: usize = 8;

/// Sums are compared with this much tolerance, for rounding.
const ROUNDING: f64 = 1e-9;

/// Something to cover with.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// The fraction of the need that it meets, of each resource, at most 1; 0 where there is none.
    pub shares: Loads,
    /// What it costs, relative to the others; 0 is for free.
    pub weight: f64,
    /// How many entities it stands for.
    pub entities: usize,
}

/// Whether there is room for an item beside those taken already.
pub(super) trait Room {
    /// Where an item goes.
    type Place: Copy;
    /// Why it goes nowhere.
    type Misfit;
    /// Looks for a place; changes nothing.
    fn find(&self, item: usize) -> Result<Self::Place, Self::Misfit>;
    /// Takes it.
    fn take(&mut self, item: usize, place: Self::Place);
}

/// What was picked.
pub(super) struct Cover<P, M> {
    /// Items by density, with their places.
    pub picked: Vec<(usize, P)>,
    /// They meet the need.
    pub met: bool,
    /// Items that had no place when their turn came.
    pub misfits: Vec<(usize, M)>,
}

/// The fraction of each need that a load meets.
pub(super) fn shares(load: &Loads, need: &Loads) -> Loads {
    Loads::from_fn(|r| {
        let need = known(*need.get(r));
        if need > 0.0 {
            (known(*load.get(r)) / need).min(1.0)
        } else {
            0.0
        }
    })
}

/// How useful shares are: their sum over the resources.
pub(super) fn usefulness(shares: &Loads) -> f64 {
    shares.iter().map(|(_, share)| share).sum()
}

/// The least share over the resources in need; 1 where none is.
pub(super) fn least(shares: &Loads, need: &Loads) -> f64 {
    Resource::ALL
        .iter()
        .filter(|r| known(*need.get(**r)) > 0.0)
        .map(|r| shares.get(*r).min(1.0))
        .fold(1.0, f64::min)
}

fn meets(shares: &Loads, need: &Loads) -> bool {
    least(shares, need) >= 1.0 - ROUNDING
}

/// Covers a need with items that find room, at most so many entities.
pub(super) fn cover<R: Room>(
    need: &Loads,
    items: &[Item],
    entities_max: usize,
    room: &mut R,
) -> Cover<R::Place, R::Misfit> {
    let mut misfits = Vec::new();
    let mut prefix: Vec<(usize, R::Place)> = Vec::new();
    let mut taken = Taken::default();
    // Length of the prefix and the item that closes it: the first such, and the cheapest.
    let mut first: Option<(usize, (usize, R::Place))> = None;
    let mut best = None;
    let order = by_density(items);
    close(
        need,
        items,
        &order,
        entities_max,
        &Taken::default(),
        room,
        &mut best,
    );
    for (at, &index) in order.iter().enumerate() {
        let Some(item) = items.get(index) else {
            continue;
        };
        if best.is_some_and(|(cheapest, ..)| taken.weight >= cheapest) {
            break;
        }
        if taken.entities.saturating_add(item.entities) > entities_max {
            continue;
        }
        let place = match room.find(index) {
            Ok(place) => place,
            Err(misfit) => {
                misfits.push((index, misfit));
                continue;
            }
        };
        let with = taken.with(item);
        if meets(&with.shares, need) {
            let closed = with.weight;
            first.get_or_insert((prefix.len(), (index, place)));
            if best.is_none_or(|(cheapest, ..)| closed < cheapest) {
                best = Some((closed, prefix.len(), (index, place)));
            }
        } else {
            room.take(index, place);
            prefix.push((index, place));
            taken = with;
            if prefix.len() <= CLOSINGS_MAX {
                let rest = order.get(at + 1..).unwrap_or_default();
                close(need, items, rest, entities_max, &taken, room, &mut best);
            }
        }
    }
    let mut endings: Vec<Vec<(usize, R::Place)>> = first
        .into_iter()
        .chain(best.map(|(_, length, closing)| (length, closing)))
        .map(|(length, closing)| {
            let mut picked: Vec<_> = prefix.iter().take(length).copied().collect();
            picked.push(closing);
            thin(&mut picked, need, items);
            picked
        })
        .collect();
    let weigh = |picked: &[(usize, R::Place)]| -> f64 {
        let weights = picked.iter().filter_map(|(i, _)| items.get(*i));
        weights.map(|item| item.weight).sum()
    };
    endings.sort_by(|a, b| weigh(a).total_cmp(&weigh(b)));
    match endings.into_iter().next() {
        Some(picked) => Cover {
            picked,
            met: true,
            misfits,
        },
        None => Cover {
            picked: prefix,
            met: false,
            misfits,
        },
    }
}

/// What a prefix amounts to.
#[derive(Clone, Copy, Default)]
struct Taken {
    shares: Loads,
    weight: f64,
    entities: usize,
    items: usize,
}

impl Taken {
    fn with(&self, item: &Item) -> Taken {
        Taken {
            shares: self.shares.plus(&item.shares),
            weight: self.weight + item.weight,
            entities: self.entities.saturating_add(item.entities),
            items: self.items + 1,
        }
    }
}

/// A way to end: its weight, the length of the prefix, and the item that closes it.
type Ending<P> = (f64, usize, (usize, P));

/// Looks among the rest for the lightest item that closes the cover.
fn close<R: Room>(
    need: &Loads,
    items: &[Item],
    rest: &[usize],
    entities_max: usize,
    taken: &Taken,
    room: &R,
    best: &mut Option<Ending<R::Place>>,
) {
    for &index in rest {
        let Some(item) = items.get(index) else {
            continue;
        };
        let closed = taken.weight + item.weight;
        if best.is_some_and(|(cheapest, ..)| closed >= cheapest) {
            continue;
        }
        let entities = taken.entities.saturating_add(item.entities);
        if entities > entities_max || !meets(&taken.shares.plus(&item.shares), need) {
            continue;
        }
        if let Ok(place) = room.find(index) {
            *best = Some((closed, taken.items, (index, place)));
        }
    }
}

/// The useful items, by usefulness per weight, then by usefulness, then as they came.
fn by_density(items: &[Item]) -> Vec<usize> {
    let mut order: Vec<(f64, f64, usize)> = items
        .iter()
        .enumerate()
        .map(|(index, item)| {
            let useful = usefulness(&item.shares);
            let density = if item.weight > 0.0 {
                useful / item.weight
            } else {
                f64::INFINITY
            };
            (density, useful, index)
        })
        .filter(|(_, useful, _)| *useful > 0.0)
        .collect();
    order.sort_by(|a, b| {
        b.0.total_cmp(&a.0)
            .then(b.1.total_cmp(&a.1))
            .then(a.2.cmp(&b.2))
    });
    order.into_iter().map(|(.., index)| index).collect()
}

/// Drops what is not needed, the heaviest first and among equals the least useful. One pass is
/// enough: what is needed beside more is needed beside less.
fn thin<P>(picked: &mut Vec<(usize, P)>, need: &Loads, items: &[Item]) {
    let mut total = picked
        .iter()
        .filter_map(|(i, _)| items.get(*i))
        .fold(Loads::default(), |sum, item| sum.plus(&item.shares));
    let mut heaviest: Vec<(f64, Reverse<usize>, usize)> = picked
        .iter()
        .enumerate()
        .filter_map(|(at, (i, _))| Some((items.get(*i)?.weight, Reverse(at), *i)))
        .collect();
    // Places in `picked` are by density: among equal weights the last is the least useful.
    heaviest.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut dropped = BTreeSet::new();
    for (_, Reverse(at), index) in heaviest {
        let Some(item) = items.get(index) else {
            continue;
        };
        let without = total.minus(&item.shares);
        if meets(&without, need) {
            total = without;
            dropped.insert(at);
        }
    }
    let mut at = 0;
    picked.retain(|_| {
        at += 1;
        !dropped.contains(&(at - 1))
    });
}

/// Room for everything.
struct Anywhere;

impl Room for Anywhere {
    type Place = ();
    type Misfit = ();
    fn find(&self, _: usize) -> Result<(), ()> {
        Ok(())
    }
    fn take(&mut self, _: usize, (): ()) {}
}

/// [`super::choose`].
pub(super) fn choose(need: f64, scores: &[f64], sizes: &[f64]) -> Vec<usize> {
    // Which resource stands for the one there is does not matter.
    let need = Loads::of(Resource::WriteRows, known(need));
    if need.is_zero() {
        return Vec::new();
    }
    let items: Vec<Item> = scores
        .iter()
        .enumerate()
        .map(|(index, score)| Item {
            shares: shares(&Loads::of(Resource::WriteRows, known(*score)), &need),
            weight: sizes.get(index).map_or(1.0, |size| known(*size)),
            entities: 1,
        })
        .collect();
    let cover = cover(&need, &items, usize::MAX, &mut Anywhere);
    cover.picked.into_iter().map(|(index, ())| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_entity_that_covers_alone_beats_many_that_weigh_more() {
        // By density 0, 1, 2 come first; 3 covers alone and is lighter than the three.
        let scores = [4.0, 4.0, 4.0, 10.0];
        let sizes = [10.0, 10.0, 10.0, 26.0];
        assert_eq!(choose(10.0, &scores, &sizes), vec![3]);
        // Here the many are lighter.
        let sizes = [8.0, 8.0, 8.0, 26.0];
        assert_eq!(choose(10.0, &scores, &sizes), vec![0, 1, 2]);
    }

    #[test]
    fn what_cannot_be_met_takes_all_that_helps() {
        assert_eq!(choose(100.0, &[1.0, 0.0, f64::NAN, 2.0], &[]), vec![3, 0]);
        assert!(choose(0.0, &[1.0], &[]).is_empty());
        assert!(choose(f64::NAN, &[1.0], &[]).is_empty());
    }

    fn optimum(need: f64, scores: &[f64], sizes: &[f64]) -> Option<f64> {
        (0u32..1 << scores.len())
            .map(|set| {
                let inside = |i: &usize| set >> i & 1 == 1;
                let sum = |of: &[f64]| (0..of.len()).filter(inside).map(|i| of[i]).sum::<f64>();
                (sum(scores), sum(sizes))
            })
            .filter(|(score, _)| *score >= need)
            .map(|(_, size)| size)
            .min_by(f64::total_cmp)
    }

    proptest! {
        /// Enough, nothing redundant, and at most twice the least possible size.
        #[test]
        fn a_choice_meets_the_need_without_waste(
            pairs in prop::collection::vec((1u32..100, 1u32..100), 1..11), percent in 1u32..130,
        ) {
            let scores: Vec<f64> = pairs.iter().map(|p| f64::from(p.0)).collect();
            let sizes: Vec<f64> = pairs.iter().map(|p| f64::from(p.1)).collect();
            let total: f64 = scores.iter().sum();
            let need = total * f64::from(percent) / 100.0 + 0.5;
            let picked = choose(need, &scores, &sizes);
            let sum: f64 = picked.iter().map(|i| scores[*i]).sum();
            if let Some(best) = optimum(need, &scores, &sizes) {
                prop_assert!(sum >= need * (1.0 - 2e-9));
                for i in &picked {
                    prop_assert!(sum - scores[*i] < need);
                }
                let size: f64 = picked.iter().map(|i| sizes[*i]).sum();
                prop_assert!(size <= 2.0 * best, "{size} against {best}");
            } else {
                prop_assert_eq!(picked.len(), scores.len());
            }
        }

        #[test]
        fn any_numbers_at_all_are_taken(
            need in any::<f64>(),
            scores in prop::collection::vec(any::<f64>(), 0..30),
            sizes in prop::collection::vec(any::<f64>(), 0..30),
        ) {
            let mut picked = choose(need, &scores, &sizes);
            let length = picked.len();
            picked.sort_unstable();
            picked.dedup();
            prop_assert_eq!(picked.len(), length);
            prop_assert!(picked.iter().all(|i| *i < scores.len() && scores[*i] > 0.0));
        }
    }
}

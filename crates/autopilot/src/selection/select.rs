//! The selection over partitions: the most urgent first, each from what the others have left.

use super::cover::{self, Item};
use super::place::{Bundle, Clock, Left, Misfit, Rooms, span};
use super::{
    Barred, Candidate, Merit, Proposal, REJECTED_MAX, Rejected, Rejection, Request, Selection,
    Target, Trouble,
};
use crate::resource::{Loads, Resource, known};
use std::collections::BTreeMap;

/// Selects for each partition in need what to move, and where.
pub fn select(request: &Request) -> Selection {
    let mut selection = Selection::default();
    let mut left = Left::new(&request.targets, request.budget_bytes, request.moves_max);
    let mut order: Vec<&Trouble> = request.troubles.iter().collect();
    order.sort_by(|a, b| {
        // No lead sorts before any lead.
        a.lead_us
            .cmp(&b.lead_us)
            .then(known(b.confidence).total_cmp(&known(a.confidence)))
            .then(a.unit.cmp(&b.unit))
    });
    for trouble in order {
        left.next_unit();
        One::new(request, trouble).select(&mut left, &mut selection);
    }
    selection
}

/// The selection of one partition.
struct One<'a> {
    trouble: &'a Trouble,
    targets: &'a [Target],
    clock: Clock,
    bundles: Vec<Bundle>,
    /// What each bundle meets of the need.
    items: Vec<Item>,
    refused: Vec<Refused>,
}

/// A bundle, or a single candidate, that is not moved.
struct Refused {
    members: Vec<usize>,
    misfit: Misfit,
}

/// Bundles that go to one target together.
struct Part {
    target: usize,
    dominant: bool,
    picked: Vec<(usize, usize)>,
}

impl<'a> One<'a> {
    fn new(request: &'a Request, trouble: &'a Trouble) -> Self {
        One {
            trouble,
            targets: &request.targets,
            clock: Clock::new(&request.estimator, trouble),
            bundles: Vec::new(),
            items: Vec::new(),
            refused: Vec::new(),
        }
    }

    fn select(mut self, left: &mut Left, selection: &mut Selection) {
        let need = self.trouble.need.known();
        if need.is_zero() {
            self.reject_unit(selection, Rejection::NotNeeded, "it is in no need".into());
            return;
        }
        self.bundle(&need);
        let mut rooms = Rooms {
            trouble: self.trouble,
            targets: self.targets,
            bundles: &self.bundles,
            clock: self.clock,
            left: left.clone(),
            bytes: 0,
        };
        let cover = cover::cover(
            &need,
            &self.items,
            self.trouble.rules.entities_max,
            &mut rooms,
        );
        for (index, misfit) in cover.misfits {
            self.refuse(index, misfit);
        }
        let mut picked = cover.picked;
        let share = self.share(&picked, &need);
        let pays = cover.met || share >= self.trouble.rules.relief_min;
        if !pays {
            let text = format!(
                "all that can be moved would meet {:.0}% of the need, {:.0}% is the least",
                share * 100.0,
                self.trouble.rules.relief_min * 100.0
            );
            for (index, _) in picked.drain(..) {
                self.refuse(
                    index,
                    Misfit::new(Rejection::DoesNotPay, None, text.clone()),
                );
            }
        }
        for (index, target) in &picked {
            if let (Some(bundle), Some(place)) =
                (self.bundles.get(*index), self.targets.get(*target))
            {
                left.take(place, *target, bundle);
            }
        }
        self.propose(&picked, &need, cover.met, selection);
        let unasked = if cover.met {
            Rejection::NotNeeded
        } else {
            Rejection::TooManyEntities
        };
        self.report(&picked, unasked, selection);
    }

    /// Puts groups together and sorts out what cannot move or would not help.
    fn bundle(&mut self, need: &Loads) {
        let candidates = &self.trouble.candidates;
        let size = median_bytes(candidates);
        let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
        let mut members: Vec<Vec<usize>> = Vec::new();
        for (index, candidate) in candidates.iter().enumerate() {
            match candidate.group.as_deref() {
                Some(group) => {
                    let at = *groups.entry(group).or_insert(members.len());
                    match members.get_mut(at) {
                        Some(bundle) => bundle.push(index),
                        None => members.push(vec![index]),
                    }
                }
                None => members.push(vec![index]),
            }
        }
        let whole = self.whole();
        for members in members {
            if self.barred(&members) {
                continue;
            }
            let (bundle, weight) = self.make(members, size, &whole, need);
            let shares = cover::shares(&bundle.relief, need);
            if cover::usefulness(&shares) <= 0.0 {
                self.refused.push(Refused {
                    members: bundle.members,
                    misfit: Misfit::new(
                        Rejection::NoRelief,
                        None,
                        "it has no load of what the partition is short of".into(),
                    ),
                });
                continue;
            }
            if let Some(misfit) = self.unprofitable(&bundle, need) {
                self.refused.push(Refused {
                    members: bundle.members,
                    misfit,
                });
                continue;
            }
            self.items.push(Item {
                shares,
                weight,
                entities: bundle.members.len(),
            });
            self.bundles.push(bundle);
        }
    }

    /// The partition's whole load: what is given, or the sum of the candidates.
    fn whole(&self) -> Loads {
        let candidates = self.trouble.candidates.iter();
        let sum = candidates.fold(Loads::default(), |sum, c| sum.plus(&c.relief()));
        Loads::from_fn(|r| match known(*self.trouble.load.get(r)) {
            0.0 => *sum.get(r),
            given => given,
        })
    }

    /// Refuses a bundle of which a member may not move.
    fn barred(&mut self, members: &[usize]) -> bool {
        let candidates = &self.trouble.candidates;
        let bars = |index: &usize| candidates.get(*index).and_then(|c| c.barred);
        if members.iter().all(|index| bars(index).is_none()) {
            return false;
        }
        for index in members {
            let (reason, text) = match bars(index) {
                Some(Barred::Pinned) => (Rejection::Pinned, "it is pinned to its place"),
                Some(Barred::Cooldown) => (Rejection::EntityCooldown, "it was moved not long ago"),
                Some(Barred::Held) => (
                    Rejection::Held,
                    "a shadow that stays as it is, or a running job, holds it",
                ),
                None => (Rejection::Group, "another entity of its group may not move"),
            };
            self.refused.push(Refused {
                members: vec![*index],
                misfit: Misfit::new(reason, None, text.into()),
            });
        }
        true
    }

    /// A bundle and its weight.
    fn make(
        &self,
        members: Vec<usize>,
        size: Option<u64>,
        whole: &Loads,
        need: &Loads,
    ) -> (Bundle, f64) {
        let of = |index: &usize| self.trouble.candidates.get(*index);
        let standing = members
            .iter()
            .filter_map(of)
            .find_map(|c| c.standing.clone());
        let (mut relief, mut arrival) = (Loads::default(), Loads::default());
        let (mut bytes, mut weight) = (0u64, 0.0);
        for candidate in members.iter().filter_map(of) {
            let its_bytes = candidate.bytes.or(size).unwrap_or(0);
            let mut its = candidate.relief();
            if its.size == 0.0 {
                its.size = its_bytes as f64;
            }
            relief = relief.plus(&its);
            if standing.is_some() && candidate.standing == standing {
                // Writes are mirrored there already; its queries are not.
                arrival.cpu += its.cpu;
            } else {
                arrival = arrival.plus(&its);
                bytes = bytes.saturating_add(its_bytes);
                weight += if size.is_some() {
                    its_bytes.max(1) as f64
                } else {
                    1.0
                };
            }
        }
        let dominant = members.len() == 1
            && Resource::ALL.iter().any(|r| {
                let whole = *whole.get(*r);
                *need.get(*r) > 0.0
                    && whole > 0.0
                    && *relief.get(*r) >= known(self.trouble.rules.dominant_share) * whole
            });
        let bundle = Bundle {
            members,
            relief,
            arrival,
            bytes,
            standing,
            dominant,
        };
        (bundle, weight)
    }

    /// Where written bytes are all that is needed, a move must not copy more than it keeps away.
    fn unprofitable(&self, bundle: &Bundle, need: &Loads) -> Option<Misfit> {
        let only_bytes = need
            .iter()
            .all(|(r, amount)| *amount == 0.0 || r == Resource::WriteBytes);
        let seconds = self.trouble.rules.payback_us.max(0) as f64 / 1e6;
        let kept_away = bundle.relief.write_bytes * seconds;
        (only_bytes && bundle.bytes as f64 > kept_away).then(|| {
            let text = format!(
                "copies {} bytes and keeps {kept_away:.0} away in {}",
                bundle.bytes,
                span(self.trouble.rules.payback_us)
            );
            Misfit::new(Rejection::DoesNotPay, None, text)
        })
    }

    fn refuse(&mut self, index: usize, misfit: Misfit) {
        if let Some(bundle) = self.bundles.get(index) {
            self.refused.push(Refused {
                members: bundle.members.clone(),
                misfit,
            });
        }
    }

    fn shares_of(&self, picked: &[(usize, usize)]) -> Loads {
        let items = picked
            .iter()
            .filter_map(|(index, _)| self.items.get(*index));
        items.fold(Loads::default(), |sum, item| sum.plus(&item.shares))
    }

    fn share(&self, picked: &[(usize, usize)], need: &Loads) -> f64 {
        cover::least(&self.shares_of(picked), need)
    }

    /// One proposal for each target, and one for each dominant entity.
    fn propose(
        &self,
        picked: &[(usize, usize)],
        need: &Loads,
        met: bool,
        selection: &mut Selection,
    ) {
        let mut parts: Vec<Part> = Vec::new();
        for (index, target) in picked {
            let dominant = self.bundles.get(*index).is_some_and(|b| b.dominant);
            let part = parts
                .iter_mut()
                .find(|part| part.target == *target && !part.dominant && !dominant);
            match part {
                Some(part) => part.picked.push((*index, *target)),
                None => parts.push(Part {
                    target: *target,
                    dominant,
                    picked: vec![(*index, *target)],
                }),
            }
        }
        for part in parts {
            if let Some(target) = self.targets.get(part.target) {
                let proposal = self.proposal(target, part.dominant, &part.picked, need, met);
                selection.proposals.push(proposal);
            }
        }
    }

    fn proposal(
        &self,
        target: &Target,
        dominant: bool,
        part: &[(usize, usize)],
        need: &Loads,
        met: bool,
    ) -> Proposal {
        let mut entities = Vec::new();
        let (mut standing, mut bytes) = (0, 0u64);
        let mut relief = Loads::default();
        for bundle in part.iter().filter_map(|(i, _)| self.bundles.get(*i)) {
            relief = relief.plus(&bundle.relief);
            bytes = bytes.saturating_add(bundle.bytes);
            for candidate in bundle.members.iter().filter_map(|m| self.candidate(*m)) {
                entities.push(candidate.entity.clone());
                standing += usize::from(candidate.standing.as_ref() == Some(&target.name));
            }
        }
        let tariff = self.clock.tariff(target.kind);
        let cost = if standing == entities.len() {
            tariff.swap()
        } else {
            tariff.estimate(bytes)
        };
        let share = self.share(part, need);
        let reason = if met {
            Merit::Relieves
        } else {
            Merit::RelievesPart
        };
        let text = format!(
            "{} {} to {}: {:.0}% of the need, {} bytes in {}, stall {:.1} ms{}",
            entities.len(),
            if entities.len() == 1 {
                "entity"
            } else {
                "entities"
            },
            target.name,
            share * 100.0,
            bytes,
            span(cost.duration_us),
            cost.stall_us as f64 / 1e3,
            if dominant {
                "; it has most of the load and stands alone"
            } else {
                ""
            }
        );
        Proposal {
            unit: self.trouble.unit.clone(),
            target: target.name.clone(),
            kind: target.kind,
            entities,
            standing,
            relief,
            share,
            bytes,
            duration_us: cost.duration_us,
            stall_us: cost.stall_us,
            dominant,
            reason,
            text,
        }
    }

    fn candidate(&self, index: usize) -> Option<&Candidate> {
        self.trouble.candidates.get(index)
    }

    /// Names what was not picked, the heaviest first, and counts the rest; with the reason for
    /// those that were not looked at.
    fn report(&mut self, picked: &[(usize, usize)], unasked: Rejection, selection: &mut Selection) {
        let mut done = vec![false; self.trouble.candidates.len()];
        let mut mark = |members: &[usize]| {
            for member in members {
                if let Some(done) = done.get_mut(*member) {
                    *done = true;
                }
            }
        };
        for bundle in picked.iter().filter_map(|(i, _)| self.bundles.get(*i)) {
            mark(&bundle.members);
        }
        // A misfit of an early prefix may have been picked after all; the first reason counts.
        let mut listed: Vec<(usize, usize)> = Vec::new();
        for (at, refused) in self.refused.iter().enumerate() {
            for member in &refused.members {
                listed.push((*member, at));
            }
        }
        listed.retain(|(member, _)| {
            let Some(done) = done.get_mut(*member) else {
                return false;
            };
            !std::mem::replace(done, true)
        });
        let mut rest: Vec<(f64, usize, Option<usize>)> = listed
            .into_iter()
            .map(|(member, at)| (member, Some(at)))
            .chain(
                done.iter()
                    .enumerate()
                    .filter(|(_, done)| !**done)
                    .map(|(member, _)| (member, None)),
            )
            .filter_map(|(member, at)| {
                let shares = cover::shares(&self.candidate(member)?.relief(), &self.trouble.need);
                Some((cover::usefulness(&shares), member, at))
            })
            .collect();
        rest.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        if picked.is_empty() {
            self.report_unit(&rest, selection);
        }
        selection.rejected_more += rest.len().saturating_sub(REJECTED_MAX);
        for (_, member, at) in rest.into_iter().take(REJECTED_MAX) {
            self.report_entity(member, at, unasked, selection);
        }
    }

    /// Nothing is moved: the reason of the heaviest entity is the partition's.
    fn report_unit(&self, rest: &[(f64, usize, Option<usize>)], selection: &mut Selection) {
        let heaviest = rest.iter().find_map(|(useful, _, at)| {
            let refused = self.refused.get((*at)?)?;
            (*useful > 0.0).then_some(refused)
        });
        match heaviest {
            None => self.reject_unit(
                selection,
                Rejection::NoCandidate,
                "it has no entity that would relieve it".into(),
            ),
            Some(refused) => {
                let text = format!("of its heaviest entity: {}", refused.misfit.text);
                self.reject_unit(selection, refused.misfit.reason, text);
            }
        }
    }

    fn report_entity(
        &self,
        member: usize,
        at: Option<usize>,
        unasked: Rejection,
        selection: &mut Selection,
    ) {
        let Some(candidate) = self.candidate(member) else {
            return;
        };
        let refused = at.and_then(|at| self.refused.get(at));
        let (reason, target, text) = match refused {
            Some(refused) => {
                let misfit = &refused.misfit;
                let target = misfit.target.and_then(|t| self.targets.get(t));
                let text = if refused.members.len() > 1 {
                    format!("with its group: {}", misfit.text)
                } else {
                    misfit.text.clone()
                };
                (misfit.reason, target.map(|t| t.name.clone()), text)
            }
            None => (
                unasked,
                None,
                match unasked {
                    Rejection::TooManyEntities => format!(
                        "{} entities are the most that one selection may take",
                        self.trouble.rules.entities_max
                    ),
                    _ => "the need is met without it, or with fewer bytes".into(),
                },
            ),
        };
        selection.rejected.push(Rejected {
            unit: self.trouble.unit.clone(),
            entity: Some(candidate.entity.clone()),
            target,
            reason,
            text,
        });
    }

    fn reject_unit(&self, selection: &mut Selection, reason: Rejection, text: String) {
        selection.rejected.push(Rejected {
            unit: self.trouble.unit.clone(),
            entity: None,
            target: None,
            reason,
            text,
        });
    }
}

/// The median of the sizes that are known.
fn median_bytes(candidates: &[Candidate]) -> Option<u64> {
    let mut sizes: Vec<u64> = candidates.iter().filter_map(|c| c.bytes).collect();
    sizes.sort_unstable();
    sizes.get(sizes.len() / 2).copied()
}

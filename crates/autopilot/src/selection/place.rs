//! Where a bundle of entities goes: the room on the targets, the budget and the time there is.

use super::cover::Room;
use super::{Rejection, Target, Trouble};
use crate::MINUTE_US;
use crate::estimate::{Estimator, TargetKind, Tariff};
use crate::resource::{Loads, Resource, known, usable};

/// Entities that move together.
#[derive(Clone, Debug)]
pub(super) struct Bundle {
    /// Indices of the candidates.
    pub members: Vec<usize>,
    /// What leaves with it.
    pub relief: Loads,
    /// What comes to a target with it.
    pub arrival: Loads,
    /// Bytes to copy; zero where no size is known.
    pub bytes: u64,
    /// The only target it may go to, because a shadow of it stands there.
    pub standing: Option<String>,
    /// It has most of the load.
    pub dominant: bool,
}

/// What targets, budget and moves are left, over all partitions of a request.
#[derive(Clone, Debug)]
pub(super) struct Left {
    targets: Vec<TargetLeft>,
    pub budget_bytes: Option<u64>,
    pub moves: Option<usize>,
}

#[derive(Clone, Debug)]
struct TargetLeft {
    load: Loads,
    free_bytes: Option<u64>,
    /// Proposals of the present partition that copy to it: one shared by bundles, and one for each
    /// that is dominant.
    shared: bool,
}

impl Left {
    pub fn new(targets: &[Target], budget_bytes: Option<u64>, moves: Option<usize>) -> Self {
        let targets = targets.iter().map(|target| TargetLeft {
            load: target.load.known(),
            free_bytes: target.free_bytes,
            shared: false,
        });
        Left {
            targets: targets.collect(),
            budget_bytes,
            moves,
        }
    }

    /// Takes a bundle to a target.
    pub fn take(&mut self, target: &Target, index: usize, bundle: &Bundle) {
        let Some(left) = self.targets.get_mut(index) else {
            return;
        };
        left.load = left.load.plus(&arriving(target, bundle));
        left.free_bytes = left
            .free_bytes
            .map(|free| free.saturating_sub(bundle.bytes));
        if copies(bundle) && (bundle.dominant || !left.shared) {
            self.moves = self.moves.map(|moves| moves.saturating_sub(1));
        }
        left.shared |= copies(bundle) && !bundle.dominant;
        self.budget_bytes = self
            .budget_bytes
            .map(|budget| budget.saturating_sub(bundle.bytes));
    }

    /// The next partition shares no shadow with those before.
    pub fn next_unit(&mut self) {
        for target in &mut self.targets {
            target.shared = false;
        }
    }
}

fn copies(bundle: &Bundle) -> bool {
    bundle.standing.is_none() || bundle.bytes > 0
}

fn arriving(target: &Target, bundle: &Bundle) -> Loads {
    let factor = if target.load_factor > 0.0 {
        target.load_factor
    } else {
        1.0
    };
    let mut arrival = bundle.arrival.times(factor);
    // Bytes stored are the same everywhere.
    arrival.size = known(bundle.arrival.size);
    arrival
}

/// The time that moves to each kind of target have, and what they cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    tablespace: Tariff,
    server: Tariff,
    /// A move must be done within this time, in microseconds.
    pub deadline_us: i64,
    /// And within this, or it does not pay, in microseconds.
    pub payback_us: i64,
}

impl Clock {
    pub fn new(estimator: &Estimator, trouble: &Trouble) -> Self {
        let rules = &trouble.rules;
        let factor = rules.lead_factor.max(1.0);
        let deadline_us = match trouble.lead_us {
            Some(lead_us) => (lead_us.max(0) as f64 / factor) as i64,
            None => rules.late_max_us,
        };
        Clock {
            tablespace: estimator.tariff(TargetKind::Tablespace),
            server: estimator.tariff(TargetKind::Server),
            deadline_us,
            payback_us: rules.payback_us,
        }
    }

    pub fn tariff(&self, kind: TargetKind) -> &Tariff {
        match kind {
            TargetKind::Tablespace => &self.tablespace,
            TargetKind::Server => &self.server,
        }
    }
}

/// The room for the bundles of one partition.
#[derive(Clone)]
pub(super) struct Rooms<'a> {
    pub trouble: &'a Trouble,
    pub targets: &'a [Target],
    pub bundles: &'a [Bundle],
    pub clock: Clock,
    pub left: Left,
    /// Bytes taken so far: copies of one partition are assumed to run one after the other.
    pub bytes: u64,
}

/// Why a bundle has no place, and the target that came closest.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Misfit {
    pub reason: Rejection,
    pub target: Option<usize>,
    pub text: String,
}

impl Misfit {
    pub fn new(reason: Rejection, target: Option<usize>, text: String) -> Self {
        Misfit {
            reason,
            target,
            text,
        }
    }
}

impl Rooms<'_> {
    fn allowed(&self, target: &Target, bundle: &Bundle) -> bool {
        if let Some(standing) = &bundle.standing {
            return *standing == target.name;
        }
        self.trouble.home.as_ref() != Some(&target.name)
            && self
                .trouble
                .targets
                .as_ref()
                .is_none_or(|names| names.contains(&target.name))
    }

    /// How full the target would be (fraction of its limit, 0 to 1), or why it cannot take it. The
    /// rank says how close it came.
    fn fit(&self, index: usize, target: &Target, bundle: &Bundle) -> Result<f64, (u8, Obstacle)> {
        let Some(left) = self.left.targets.get(index) else {
            return Err((0, Obstacle::NoTarget));
        };
        if copies(bundle) {
            let tariff = self.clock.tariff(target.kind);
            let duration_us = tariff
                .estimate(self.bytes.saturating_add(bundle.bytes))
                .duration_us;
            if duration_us > self.clock.deadline_us {
                return Err((1, Obstacle::TooLate(duration_us)));
            }
            if duration_us > self.clock.payback_us {
                return Err((2, Obstacle::TakesTooLong(duration_us)));
            }
            if left.free_bytes.is_some_and(|free| bundle.bytes > free) {
                return Err((3, Obstacle::NoSpace(left.free_bytes.unwrap_or(0))));
            }
        }
        let arrival = arriving(target, bundle);
        let limit = known(target.limit).min(1.0);
        let mut fullest = 0.0f64;
        for resource in Resource::ALL {
            let Some(capacity) = usable(*target.capacity.get(*resource)) else {
                continue;
            };
            let comes = known(*arrival.get(*resource));
            let load = known(*left.load.get(*resource)) + comes;
            let fraction = load / capacity;
            // A target that is overloaded already takes nothing, not even what does not load it.
            if fraction > limit {
                return Err((4, Obstacle::Overloaded(*resource, fraction, limit)));
            }
            fullest = fullest.max(fraction);
        }
        if copies(bundle) && self.left.moves == Some(0) && (bundle.dominant || !left.shared) {
            return Err((5, Obstacle::TooManyMoves));
        }
        Ok(fullest)
    }
}

enum Obstacle {
    NoTarget,
    TooLate(i64),
    TakesTooLong(i64),
    NoSpace(u64),
    Overloaded(Resource, f64, f64),
    TooManyMoves,
}

/// A time in words.
pub(crate) fn span(us: i64) -> String {
    if us >= 2 * MINUTE_US {
        format!("{} min", us / MINUTE_US)
    } else {
        format!("{:.1} s", us as f64 / 1e6)
    }
}

impl Room for Rooms<'_> {
    type Place = usize;
    type Misfit = Misfit;

    fn find(&self, item: usize) -> Result<usize, Misfit> {
        let none = || {
            Misfit::new(
                Rejection::NoTarget,
                None,
                "there is no target that it may go to".into(),
            )
        };
        let Some(bundle) = self.bundles.get(item) else {
            return Err(none());
        };
        if let Some(budget) = self.left.budget_bytes
            && bundle.bytes > budget
        {
            return Err(Misfit::new(
                Rejection::OverBudget,
                None,
                format!("{} bytes, {budget} are left in the budget", bundle.bytes),
            ));
        }
        // The emptiest target for what is dominant; for the rest one that is in use for this
        // partition already, so that there are few shadows, then the emptiest.
        let mut best: Option<(bool, f64, usize)> = None;
        let mut closest: Option<(u8, usize, Obstacle)> = None;
        for (index, target) in self.targets.iter().enumerate() {
            if !self.allowed(target, bundle) {
                continue;
            }
            match self.fit(index, target, bundle) {
                Ok(fullest) => {
                    let shared = self.left.targets.get(index).is_some_and(|t| t.shared);
                    let apart = bundle.dominant || !shared;
                    if best.is_none_or(|(a, f, _)| (apart, fullest) < (a, f)) {
                        best = Some((apart, fullest, index));
                    }
                }
                Err((rank, obstacle)) => {
                    if closest.as_ref().is_none_or(|(most, ..)| rank > *most) {
                        closest = Some((rank, index, obstacle));
                    }
                }
            }
        }
        if let Some((_, _, index)) = best {
            return Ok(index);
        }
        let Some((_, index, obstacle)) = closest else {
            return Err(none());
        };
        let (reason, text) = match obstacle {
            Obstacle::NoTarget => return Err(none()),
            Obstacle::TooLate(us) => (
                Rejection::TooLate,
                format!(
                    "the move takes {}, there is time for {}",
                    span(us),
                    span(self.clock.deadline_us)
                ),
            ),
            Obstacle::TakesTooLong(us) => (
                Rejection::DoesNotPay,
                format!(
                    "the move takes {}, longer than the {} in which it has to pay",
                    span(us),
                    span(self.clock.payback_us)
                ),
            ),
            Obstacle::NoSpace(free) => (
                Rejection::NoSpace,
                format!("{} bytes, {free} are free", bundle.bytes),
            ),
            Obstacle::Overloaded(resource, fraction, limit) => (
                Rejection::TargetOverloaded,
                format!(
                    "{resource} of the target would be at {:.0}% of its capacity, the limit is {:.0}%",
                    fraction * 100.0,
                    limit * 100.0
                ),
            ),
            Obstacle::TooManyMoves => (
                Rejection::TooManyMoves,
                "as many moves are under way as may be".into(),
            ),
        };
        Err(Misfit::new(reason, Some(index), text))
    }

    fn take(&mut self, item: usize, place: usize) {
        if let (Some(bundle), Some(target)) = (self.bundles.get(item), self.targets.get(place)) {
            self.left.take(target, place, bundle);
            self.bytes = self.bytes.saturating_add(bundle.bytes);
        }
    }
}

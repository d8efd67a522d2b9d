//! The life of a shadow, as a pure state machine.
//!
//! A shadow has a *state* (where it is) and a *goal* (where somebody wants it). A job reads both,
//! asks [`next`] what to do, does that one thing in transactions of its own and records the new
//! state in the last of them. Nothing here touches PostgreSQL, so that every combination can be
//! tested, and so that a restart in any state has one answer to "what now?".

use std::fmt;
use std::str::FromStr;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident => $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value, in the order of a life.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word stored in the catalog and shown to users.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.word()) }
        }

        impl FromStr for $name {
            type Err = UnknownWord;
            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word { $($word => Ok($name::$variant),)+ _ => Err(UnknownWord(word.to_owned())) }
            }
        }
    };
}

/// A word that names no state, goal or command: the catalog holds something this version did not write.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownWord(pub String);

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown word \"{}\"", self.0)
    }
}

impl std::error::Error for UnknownWord {}

words! {
    /// Where a shadow is.
    State {
        /// Accepted; nothing has been created yet.
        Queued => "queued",
        /// Being captured, copied, indexed, joined, brought level.
        Building => "building",
        /// Mirrors its primary and is equal to it in every snapshot: a swap may happen at once.
        Ready => "ready",
        /// As `Ready` for the entities that it had; those that come to it are being copied.
        Adding => "adding",
        /// As `Ready` for the entities that stay; the rows of those that leave it are being removed.
        Removing => "removing",
        /// Roles exchanged; the hidden rows are mirrored, so that the way back is open.
        Migrated => "migrated",
        /// The way back is given up; the hidden rows are being removed.
        Finalizing => "finalizing",
        /// The end of a migration: the entities live in what was the shadow.
        Finalized => "finalized",
        /// The shadow is being taken away.
        Dropping => "dropping",
        /// The end of a shadow that somebody dropped.
        Dropped => "dropped",
        /// The end of a shadow that could not be built; nothing of it is left.
        Failed => "failed",
        /// The end of a shadow whose job was cancelled; nothing of it is left.
        Cancelled => "cancelled",
    }
}

words! {
    /// Where somebody wants a shadow to be.
    Goal {
        /// A standing shadow (also: the roles swapped back).
        Ready => "ready",
        /// Roles exchanged.
        Migrated => "migrated",
        /// Roles exchanged for good.
        Finalized => "finalized",
        /// Gone, because somebody dropped it.
        Dropped => "dropped",
        /// Gone, because its job could not go on.
        Failed => "failed",
        /// Gone, because its job was cancelled.
        Cancelled => "cancelled",
    }
}

words! {
    /// One thing that a job does.
    Action {
        /// Leave `Queued`: from here on there may be something to clean up.
        Begin => "begin",
        /// The next piece of building.
        Build => "build",
        /// The next piece of taking in more entities.
        Add => "add",
        /// Turn round: what has been added so far leaves again.
        CallOff => "call-off",
        /// The next piece of letting entities go.
        Remove => "remove",
        /// Exchange the roles.
        Swap => "swap",
        /// Exchange them back.
        Revert => "revert",
        /// Give up the way back: stop the reverse mirror.
        GiveUpWayBack => "finalize",
        /// Remove hidden rows, and what is no longer needed.
        RemoveHidden => "hidden-rows",
        /// Stop mirroring and begin to take the shadow away.
        BeginDrop => "begin-drop",
        /// Take the shadow away.
        Drop => "drop",
        /// Nothing was created yet: record the end.
        End => "end",
    }
}

impl State {
    /// Nothing will ever happen again to a shadow in this state.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            State::Finalized | State::Dropped | State::Failed | State::Cancelled
        )
    }

    /// Objects of a shadow in this state exist and are kept in step with writes.
    pub fn is_live(self) -> bool {
        !self.is_final()
    }
}

impl Goal {
    /// The final state that a shadow taken away for this goal ends in.
    pub fn end(self) -> State {
        match self {
            Goal::Failed => State::Failed,
            Goal::Cancelled => State::Cancelled,
            _ => State::Dropped,
        }
    }

    fn is_gone(self) -> bool {
        matches!(self, Goal::Dropped | Goal::Failed | Goal::Cancelled)
    }
}

/// What a job has to do next, or `None` when the shadow rests.
pub fn next(state: State, goal: Goal) -> Option<Action> {
    use State::*;
    match state {
        Finalized | Dropped | Failed | Cancelled => None,
        Queued if goal.is_gone() => Some(Action::End),
        Queued => Some(Action::Begin),
        Building if goal.is_gone() => Some(Action::BeginDrop),
        Building => Some(Action::Build),
        Ready if goal.is_gone() => Some(Action::BeginDrop),
        Ready if goal == Goal::Ready => None,
        Ready => Some(Action::Swap),
        // A swap that is wanted meanwhile comes when the set of entities is complete.
        Adding | Removing if goal == Goal::Dropped => Some(Action::BeginDrop),
        Adding if goal.is_gone() => Some(Action::CallOff),
        Adding => Some(Action::Add),
        Removing => Some(Action::Remove),
        // What is swapped is never dropped: the entities live there. It is swapped back first.
        Migrated if goal == Goal::Ready || goal.is_gone() => Some(Action::Revert),
        Migrated if goal == Goal::Migrated => None,
        Migrated => Some(Action::GiveUpWayBack),
        Finalizing => Some(Action::RemoveHidden),
        Dropping => Some(Action::Drop),
    }
}

/// The state that an action leads to when it has done all it has to do.
pub fn after(action: Action, goal: Goal) -> State {
    match action {
        Action::Begin => State::Building,
        Action::Build | Action::Revert | Action::Add | Action::Remove => State::Ready,
        Action::CallOff => State::Removing,
        Action::Swap => State::Migrated,
        Action::GiveUpWayBack => State::Finalizing,
        Action::RemoveHidden => State::Finalized,
        Action::BeginDrop => State::Dropping,
        Action::Drop | Action::End => goal.end(),
    }
}

/// The goal that remains when an action has done all it has to do.
///
/// Calling off an addition is over when the new entities are gone again: the shadow stays.
pub fn goal_after(action: Action, goal: Goal) -> Goal {
    match action {
        Action::Remove if goal.is_gone() => Goal::Ready,
        _ => goal,
    }
}

/// Whether the entities of a shadow may be changed: of one that rests, ready and not swapped.
pub fn resize(state: State, goal: Goal) -> Result<(), Refusal> {
    match state {
        State::Ready if goal == Goal::Ready => Ok(()),
        State::Migrated => Err(Refusal::WrongState { needs: "ready" }),
        state if state.is_final() => Err(Refusal::Ended),
        _ => Err(Refusal::Busy),
    }
}

/// Why a command is refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The shadow has ended.
    Ended,
    /// A job is at work on it that cannot be turned round.
    Busy,
    /// The command needs another state.
    WrongState { needs: &'static str },
}

/// What a user's command makes of the goal, given state and present goal.
///
/// `Ok(None)`: already there, nothing to do.
pub fn command(wanted: Goal, state: State, goal: Goal) -> Result<Option<Goal>, Refusal> {
    use State::*;
    if state.is_final() {
        return match (wanted, state) {
            (Goal::Finalized, Finalized)
            | (Goal::Dropped, Dropped)
            | (Goal::Cancelled, Cancelled) => Ok(None),
            _ => Err(Refusal::Ended),
        };
    }
    match wanted {
        Goal::Migrated => match state {
            Migrated => Ok(None),
            Ready | Queued | Building | Adding | Removing if !goal.is_gone() => {
                Ok(Some(Goal::Migrated))
            }
            _ => Err(Refusal::Busy),
        },
        Goal::Ready => match state {
            Migrated => Ok(Some(Goal::Ready)),
            Ready if !goal.is_gone() => Ok(if goal == Goal::Ready {
                None
            } else {
                Some(Goal::Ready)
            }),
            Finalizing => Err(Refusal::WrongState { needs: "migrated" }),
            _ => Err(Refusal::WrongState { needs: "migrated" }),
        },
        Goal::Finalized => match state {
            Migrated => Ok(Some(Goal::Finalized)),
            Finalizing => Ok(Some(Goal::Finalized)),
            _ => Err(Refusal::WrongState { needs: "migrated" }),
        },
        Goal::Dropped => match state {
            Ready | Building | Queued | Adding | Removing => Ok(Some(Goal::Dropped)),
            Dropping => Ok(Some(goal)),
            _ => Err(Refusal::WrongState { needs: "ready" }),
        },
        Goal::Cancelled | Goal::Failed => match state {
            Queued | Building => Ok(Some(wanted)),
            // On its way already.
            Dropping if goal == Goal::Cancelled || goal == Goal::Failed => Ok(None),
            Adding if goal != Goal::Dropped => Ok(Some(wanted)),
            // What was being added is leaving already.
            Removing if goal == Goal::Cancelled || goal == Goal::Failed => Ok(None),
            // Waiting to be swapped: the shadow stays, the swap is called off.
            Ready | Removing if goal == Goal::Migrated || goal == Goal::Finalized => {
                Ok(Some(Goal::Ready))
            }
            _ => Err(Refusal::WrongState {
                needs: "queued, building or adding",
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        for s in State::ALL {
            assert_eq!(s.word().parse::<State>(), Ok(*s));
        }
        for g in Goal::ALL {
            assert_eq!(g.word().parse::<Goal>(), Ok(*g));
        }
        assert!("nonsense".parse::<State>().is_err());
    }

    /// From every state, every goal is reached, or another rest, in a bounded number of actions.
    #[test]
    fn every_walk_ends() {
        for s in State::ALL {
            for g in Goal::ALL {
                let (mut state, mut goal) = (*s, *g);
                let mut steps = 0;
                while let Some(action) = next(state, goal) {
                    (state, goal) = (after(action, goal), goal_after(action, goal));
                    steps += 1;
                    assert!(steps < 10, "{s} -> {g} walks in circles");
                }
                assert!(state.is_final() || state == State::Ready || state == State::Migrated);
            }
        }
    }

    /// A shadow that owns its entities is never dropped without being swapped back first.
    #[test]
    fn what_is_swapped_is_never_dropped() {
        for g in Goal::ALL {
            let action = next(State::Migrated, *g);
            assert!(!matches!(
                action,
                Some(Action::Drop | Action::BeginDrop | Action::End)
            ));
            assert_eq!(next(State::Finalizing, *g), Some(Action::RemoveHidden));
        }
    }

    /// A command is refused or leads to a goal that the walk then reaches.
    #[test]
    fn commands_are_reachable() {
        for s in State::ALL {
            for g in Goal::ALL {
                for wanted in Goal::ALL {
                    if let Ok(Some(new_goal)) = command(*wanted, *s, *g) {
                        assert!(next(*s, new_goal).is_some() || new_goal.word() == s.word());
                    }
                }
            }
        }
    }

    /// An addition that is called off leaves the shadow; only a drop takes it away.
    #[test]
    fn calling_off_an_addition_keeps_the_shadow() {
        for g in [Goal::Cancelled, Goal::Failed] {
            let (mut state, mut goal) = (State::Adding, g);
            let mut walk = Vec::new();
            while let Some(action) = next(state, goal) {
                walk.push(action);
                (state, goal) = (after(action, goal), goal_after(action, goal));
            }
            assert_eq!(walk, [Action::CallOff, Action::Remove]);
            assert_eq!((state, goal), (State::Ready, Goal::Ready));
            // Asked again in the middle of it, nothing changes.
            assert_eq!(command(Goal::Cancelled, State::Removing, g), Ok(None));
        }
        assert_eq!(
            next(State::Adding, Goal::Dropped),
            Some(Action::BeginDrop),
            "a drop is a drop"
        );
    }

    /// The roles are never exchanged while the set of entities is changing: a swap comes after it.
    #[test]
    fn no_swap_in_the_middle_of_a_resize() {
        for s in [State::Adding, State::Removing] {
            for g in Goal::ALL {
                assert_ne!(next(s, *g), Some(Action::Swap), "{s} -> {g}");
            }
            let action = next(s, Goal::Migrated).expect("something to do");
            assert_eq!(after(action, Goal::Migrated), State::Ready);
            assert_eq!(
                command(Goal::Migrated, s, Goal::Ready),
                Ok(Some(Goal::Migrated))
            );
        }
        // Whoever is on the way to a swap, or past it, does not change its entities.
        for s in State::ALL {
            for g in Goal::ALL {
                let rests = *s == State::Ready && *g == Goal::Ready;
                assert_eq!(resize(*s, *g).is_ok(), rests, "{s} -> {g}");
            }
        }
    }

    #[test]
    fn a_finished_migration_cannot_be_reverted() {
        assert_eq!(
            command(Goal::Ready, State::Finalized, Goal::Finalized),
            Err(Refusal::Ended)
        );
        assert_eq!(
            command(Goal::Ready, State::Finalizing, Goal::Finalized),
            Err(Refusal::WrongState { needs: "migrated" })
        );
    }
}

//! Hidden rows stay hidden: every plan that reads a marked leaf gets a filter made from the leaf's
//! bound, and plans over a marked wrapper lose the pruning that would read another bound at run time.
//!
//! Owns `get_relation_info_hook` and `planner_hook`. Reads the relation cache and the plan's own
//! partition descriptor, writes nothing. Called by PostgreSQL; `sight` is also used by `pair`, whose
//! own statements have to see what nobody else may.

mod bounds;
mod hide;
mod older;
mod prune;
pub mod sight;

/// Installs the hooks. Called once, in the postmaster.
pub fn init() {
    hide::install();
    prune::install();
}

/// Forgets what an aborted transaction left behind in the middle of planning.
pub fn at_abort() {
    prune::forget();
    older::end();
    sight::forget();
}

pub use bounds::list_values;
pub use hide::is_marked_relation;

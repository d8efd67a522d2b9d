//! What this backend's own statements see of marked leaves: the background worker compares, copies
//! and removes hidden rows, and runs DDL whose internal checks would scan rows already known to be
//! right.

use pgrx::pg_sys::Oid;
use std::cell::RefCell;

#[derive(Default)]
struct Sight {
    /// Filters are left out: every row that is physically there is seen.
    everything: bool,
    /// Relations of which no row is seen.
    blind_to: Vec<Oid>,
}

thread_local! {
    static SIGHT: RefCell<Sight> = RefCell::new(Sight::default());
}

/// While it lives, statements of this backend see hidden rows too.
pub struct SeeEverything(());

impl SeeEverything {
    pub fn new() -> Self {
        SIGHT.with_borrow_mut(|s| s.everything = true);
        SeeEverything(())
    }
}

impl Drop for SeeEverything {
    fn drop(&mut self) {
        SIGHT.with_borrow_mut(|s| s.everything = false);
    }
}

/// While it lives, statements of this backend see no row of these relations: the scans by which DDL
/// would check what is known already (DETACH of a referenced table, a new foreign key) find
/// nothing at once.
pub struct SeeNothingOf(());

impl SeeNothingOf {
    pub fn new(relations: &[Oid]) -> Self {
        SIGHT.with_borrow_mut(|s| s.blind_to.extend_from_slice(relations));
        SeeNothingOf(())
    }
}

impl Drop for SeeNothingOf {
    fn drop(&mut self) {
        SIGHT.with_borrow_mut(|s| s.blind_to.clear());
    }
}

pub(super) enum View {
    Visible,
    Everything,
    Nothing,
}

pub(super) fn view_of(relation: Oid) -> View {
    SIGHT.with_borrow(|s| {
        if s.blind_to.contains(&relation) {
            View::Nothing
        } else if s.everything {
            View::Everything
        } else {
            View::Visible
        }
    })
}

pub(super) fn forget() {
    SIGHT.with_borrow_mut(|s| {
        s.everything = false;
        s.blind_to.clear();
    });
}

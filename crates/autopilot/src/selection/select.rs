use super::{Request, Selection};

/// Selects for each partition in need what to move, and where.
pub fn select(request: &Request) -> Selection {
    let _ = request;
    Selection::default()
}

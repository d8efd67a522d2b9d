//! The crate as its users see it, on machines made of files and on this one.

mod container;
mod machine;
mod no_panic;
mod support;

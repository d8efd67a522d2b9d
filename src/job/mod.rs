//! Background work: everything longer than a moment, led from state to goal by a worker of its own.
//!
//! `launcher` (one in the cluster) starts a `scheduler` for each database that has unfinished work; the
//! scheduler watches the clock and starts `worker`s; a worker leads one shadow by the `steps` to its
//! goal, each step a transaction. A user's request goes to a worker of its own (`request`), so that it
//! begins at once and too few worker slots are noticed at once. What is running is in `shared` memory;
//! what is to be done is in the catalog: after a crash the one is empty and the other tells how to go on.

pub mod accept;
pub mod aside;
pub mod catalog;
pub mod change;
pub mod launcher;
pub mod request;
mod resize;
pub mod scheduler;
pub mod shared;
pub mod steps;
pub mod worker;

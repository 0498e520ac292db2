//! Several servers in one process, joined by a network in memory: rooms that live on all of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod answers;
mod at_once;
mod forks;
mod hostile;
mod members;
mod policy;
mod world;

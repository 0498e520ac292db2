//! Servers in memory, and what they must not believe of each other.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod answers;
mod forgery;
mod world;

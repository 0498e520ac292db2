//! What tests need: engines that fail on command or count what is read, and the suite that every engine must pass.
//!
//! Public and always compiled, so that the tests of other crates can use it; nothing of the server calls it.

pub mod conformance;
mod counting;
mod faulty;

pub use self::{counting::CountingEngine, faulty::FaultyEngine};

//! What tests need: an engine that fails on command, and the suite that every engine must pass.
//!
//! Public and always compiled, so that the tests of other crates can use it; nothing of the server calls it.

pub mod conformance;
mod faulty;

pub use self::faulty::FaultyEngine;

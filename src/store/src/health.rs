//! How the store is.

use crate::EngineStats;

/// Whether the store can write. Reads are served either way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// `None` while writing works; else why it does not. The store keeps trying to heal itself.
    pub read_only: Option<String>,
    /// How often the engine was reopened after an error in this process.
    pub reopens: u64,
    /// True once [`crate::Store::close`] was called.
    pub closed: bool,
}

impl Health {
    /// True while writes are taken.
    pub fn is_writable(&self) -> bool {
        self.read_only.is_none() && !self.closed
    }
}

/// Figures for metrics, counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Groups committed; with synced durability this many log syncs.
    pub groups: u64,
    /// Batches committed.
    pub batches: u64,
    /// Batches whose assert failed.
    pub assert_failures: u64,
    /// Batches lost to engine errors.
    pub engine_failures: u64,
    /// Batches waiting for the committer now.
    pub queued: u64,
    /// What the engine says.
    pub engine: EngineStats,
}

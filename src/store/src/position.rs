//! Positions in the log, and what a commit tells the rest of the server.

use serde::{Deserialize, Serialize};

/// A place in the one order of everything committed. Zero is before everything.
///
/// Positions grow with every batch; between two runs of the server some numbers are skipped. None is given twice.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// Before everything.
    pub const ZERO: Position = Position(0);
    /// After everything: the upper bound of a scan without one.
    pub const MAX: Position = Position(u64::MAX);

    /// The position right after this one.
    pub fn next(self) -> Position {
        Position(self.0.saturating_add(1))
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a wake-up is about. The store knows only the two numbers; the schema names the kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic {
    /// The kind of thing, such as "room" or "user".
    pub kind: u8,
    /// Which one.
    pub id: u64,
}

/// What one commit group changed. Sent after its rows are visible in [`crate::Store::view`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wake {
    /// Everything up to here is visible.
    pub watermark: Position,
    /// The topics that the group's batches named, in order, possibly repeated.
    pub topics: Vec<Topic>,
}

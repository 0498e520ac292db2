//! What can go wrong, as reasons. No status codes here; the server maps reasons to those.

use std::borrow::Cow;

use crate::EngineError;

/// Stored bytes that are not what their map says they are: damage, or a row of another schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode {what}")]
pub struct DecodeError {
    what: Cow<'static, str>,
}

impl DecodeError {
    /// `what` names the thing that could not be read, such as `event row`.
    pub fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self { what: what.into() }
    }
}

/// Why a read failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The engine could not read.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A row is damaged or of another schema.
    #[error("map {map}: {error}")]
    Decode {
        /// The map's name.
        map: &'static str,
        /// What could not be read.
        error: DecodeError,
    },
    /// Rows contradict each other: one names another that is not there.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// No fresh id is left, because the store has not been able to write for long.
    #[error("no fresh id is left while the store cannot write")]
    OutOfIds,
}

impl StoreError {
    /// Rows that contradict each other.
    pub fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt(what.into())
    }
}

/// Why a batch was not committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// An assert did not hold; nothing of the batch was written.
    #[error("a row is not what the batch asserted")]
    AssertFailed,
    /// The engine failed. It is not known whether the batch was written; callers answer 5xx, and the row that the
    /// batch itself carries (a transaction, say) decides a retry.
    #[error("the store cannot write: {0}")]
    Unavailable(String),
    /// The store was closed before the batch was taken.
    #[error("the store is closed")]
    Closed,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The engine could not read or write.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A row of the store itself, or of a migration, could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store was written by a newer release.
    #[error(
        "the store has schema {stored}, this release knows up to {known}: run a newer release, or restore a backup"
    )]
    NewerSchema {
        /// The stored version.
        stored: u32,
        /// The newest version that this release knows.
        known: u32,
    },
    /// The list of migrations is not 2, 3, 4, ... : a mistake of the release.
    #[error("migration {name} has version {found}, expected {expected}")]
    MigrationOrder {
        /// The migration's name.
        name: &'static str,
        /// Its version.
        found: u32,
        /// The version that should stand there.
        expected: u32,
    },
    /// A migration failed; the store is as the last complete migration left it, and the next start tries again.
    #[error("migration {version} ({name}) failed: {reason}")]
    Migration {
        /// Its version.
        version: u32,
        /// Its name.
        name: &'static str,
        /// Why.
        reason: String,
    },
}

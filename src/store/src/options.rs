//! How a store runs.

use std::{
    hash::{BuildHasher, RandomState},
    path::PathBuf,
    time::Duration,
};

use crate::Durability;

/// How a store runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// When a batch counts as committed.
    pub durability: Durability,
    /// The epoch of a store that has none yet, or of one that `renew_epoch` asks for. Random, so that the tokens of one
    /// store mean nothing to another.
    pub epoch: u64,
    /// Gives the store a new epoch: after a backup was restored, positions from after the backup mean nothing.
    pub renew_epoch: bool,
    /// Where to copy the store before migrations change it. `None`: no copy.
    pub migration_checkpoints: Option<PathBuf>,
    /// How long to wait before the engine is first reopened after an error; doubles up to `reopen_at_most`.
    pub reopen_after: Duration,
    /// The longest wait between two attempts to reopen.
    pub reopen_at_most: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Synced,
            // The standard library's hasher keys are random per process and value. 32 bits keep tokens short.
            epoch: (RandomState::new().hash_one(0) >> 32).max(1),
            renew_epoch: false,
            migration_checkpoints: None,
            reopen_after: Duration::from_millis(100),
            reopen_at_most: Duration::from_secs(5),
        }
    }
}

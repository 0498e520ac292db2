//! The boundary to what keeps the rows.
//!
//! An engine knows three ordered keyspaces of bytes. It is narrow on purpose, so that a distributed engine can be the
//! next one: no iterator lives across an await, ranges come in pages with limits, values are up to 100 kB, batches up
//! to a few MB, and no view is older than some seconds. Only the committer calls [`Engine::commit`], one call at a time.
//!
//! To add an engine: implement the two traits and run `testing::conformance` against it.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Direction, Keyspace};

/// When a commit may be reported as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Once it survives a power cut.
    Synced,
    /// Once it survives the end of the process.
    Relaxed,
}

/// One change, as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Writes a row.
    Put {
        /// Where.
        keyspace: Keyspace,
        /// The stored key.
        key: Vec<u8>,
        /// The stored value.
        value: Vec<u8>,
    },
    /// Deletes a row.
    Delete {
        /// Where.
        keyspace: Keyspace,
        /// The stored key.
        key: Vec<u8>,
    },
    /// Deletes all rows from `start` to before `end`.
    DeleteRange {
        /// Where.
        keyspace: Keyspace,
        /// The first key of the range.
        start: Vec<u8>,
        /// The first key after it.
        end: Vec<u8>,
    },
}

/// Why an engine could not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// Reading or writing failed: no space, no permission, a broken disk.
    #[error("{0}")]
    Io(String),
    /// The data is damaged. The text names the file and what to do.
    #[error("{0}")]
    Damaged(String),
    /// Someone else has the data open.
    #[error("{0}")]
    InUse(String),
    /// The engine cannot do this at all.
    #[error("{0}")]
    Unsupported(String),
    /// The engine is closed.
    #[error("the storage engine is closed")]
    Closed,
}

/// What an engine says of itself, for metrics. Zero where it does not apply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Memory of recent writes, in bytes.
    pub memtable_bytes: u64,
    /// Memory of cached blocks, in bytes (the memtables' charge included).
    pub block_cache_bytes: u64,
    /// All files, in bytes.
    pub disk_bytes: u64,
    /// About how many rows there are.
    pub rows: u64,
}

/// Keeps rows. Cheap to share; all methods may be called from any task.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Its name, for messages: `rocksdb`, `memory`.
    fn name(&self) -> &'static str;

    /// A snapshot of everything committed so far.
    async fn view(&self) -> Result<Arc<dyn EngineView>, EngineError>;

    /// Applies the operations in order, all or none. After an error it is unknown which, until [`Engine::reopen`].
    async fn commit(
        &self,
        operations: Vec<Operation>,
        durability: Durability,
    ) -> Result<(), EngineError>;

    /// Writes a complete copy of the current state into the new folder `dir`, while running.
    async fn checkpoint(&self, dir: &Path) -> Result<(), EngineError>;

    /// After an error: lets go of what can write, and serves new views from what is stored. The committer publishes such
    /// a view before it calls [`Engine::reopen`], so that readers do not hold the failed engine open.
    async fn stand_by(&self) -> Result<(), EngineError> {
        Ok(())
    }

    /// After [`Engine::stand_by`]: opens again for writing. While it fails, views stay readable.
    async fn reopen(&self) -> Result<(), EngineError>;

    /// Makes everything durable and lets go of the data. Views that are still held stay readable.
    async fn close(&self) -> Result<(), EngineError>;

    /// Figures for metrics.
    fn stats(&self) -> EngineStats;
}

/// A snapshot. Nothing that is committed later shows in it.
#[async_trait]
pub trait EngineView: Send + Sync {
    /// One row.
    async fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Many rows, answered in the order of the keys.
    async fn get_many(
        &self,
        keyspace: Keyspace,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Bytes>>, EngineError>;

    /// At most `limit` rows from `start` to before `end`, in the given direction.
    async fn range(
        &self,
        keyspace: Keyspace,
        start: &[u8],
        end: &[u8],
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, EngineError>;
}

/// One thing for each keyspace.
#[derive(Debug, Clone, Default)]
pub struct PerKeyspace<T> {
    /// For [`Keyspace::Index`].
    pub index: T,
    /// For [`Keyspace::Bulk`].
    pub bulk: T,
    /// For [`Keyspace::Stream`].
    pub stream: T,
}

impl<T> PerKeyspace<T> {
    /// The one for `keyspace`.
    pub fn get(&self, keyspace: Keyspace) -> &T {
        match keyspace {
            Keyspace::Index => &self.index,
            Keyspace::Bulk => &self.bulk,
            Keyspace::Stream => &self.stream,
        }
    }

    /// The one for `keyspace`, to change.
    pub fn get_mut(&mut self, keyspace: Keyspace) -> &mut T {
        match keyspace {
            Keyspace::Index => &mut self.index,
            Keyspace::Bulk => &mut self.bulk,
            Keyspace::Stream => &mut self.stream,
        }
    }
}

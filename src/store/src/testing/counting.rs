//! An engine that counts what is read from it and written to it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Direction, Durability, Engine, EngineError, EngineStats, EngineView, Keyspace, Operation,
};

/// Wraps an engine and counts the calls that read (a batch of keys or a page of a range is one; the committer's own, of asserts
/// and counters, are among them) and the rows that are written.
pub struct CountingEngine {
    inner: Arc<dyn Engine>,
    reads: Arc<AtomicU64>,
    writes: AtomicU64,
}

impl CountingEngine {
    /// Around `inner`.
    pub fn new(inner: Arc<dyn Engine>) -> Self {
        Self {
            inner,
            reads: Arc::default(),
            writes: AtomicU64::new(0),
        }
    }

    /// How many reads there were since the last time this was asked.
    pub fn take_reads(&self) -> u64 {
        self.reads.swap(0, Ordering::SeqCst)
    }

    /// How many rows were written since the last time this was asked.
    pub fn take_writes(&self) -> u64 {
        self.writes.swap(0, Ordering::SeqCst)
    }
}

#[async_trait]
impl Engine for CountingEngine {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn view(&self) -> Result<Arc<dyn EngineView>, EngineError> {
        Ok(Arc::new(CountingView {
            inner: self.inner.view().await?,
            reads: Arc::clone(&self.reads),
        }))
    }

    async fn commit(
        &self,
        operations: Vec<Operation>,
        durability: Durability,
    ) -> Result<(), EngineError> {
        let rows = u64::try_from(operations.len()).unwrap_or(u64::MAX);
        self.writes.fetch_add(rows, Ordering::SeqCst);
        self.inner.commit(operations, durability).await
    }

    async fn checkpoint(&self, dir: &Path) -> Result<(), EngineError> {
        self.inner.checkpoint(dir).await
    }

    async fn stand_by(&self) -> Result<(), EngineError> {
        self.inner.stand_by().await
    }

    async fn reopen(&self) -> Result<(), EngineError> {
        self.inner.reopen().await
    }

    async fn close(&self) -> Result<(), EngineError> {
        self.inner.close().await
    }

    fn stats(&self) -> EngineStats {
        self.inner.stats()
    }
}

struct CountingView {
    inner: Arc<dyn EngineView>,
    reads: Arc<AtomicU64>,
}

impl CountingView {
    fn count(&self) {
        self.reads.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl EngineView for CountingView {
    async fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.count();
        self.inner.get(keyspace, key).await
    }

    async fn get_many(
        &self,
        keyspace: Keyspace,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.count();
        self.inner.get_many(keyspace, keys).await
    }

    async fn range(
        &self,
        keyspace: Keyspace,
        start: &[u8],
        end: &[u8],
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        self.count();
        self.inner
            .range(keyspace, start, end, direction, limit)
            .await
    }
}

//! An engine that fails when a test says so.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;

use crate::{Durability, Engine, EngineError, EngineStats, EngineView, Operation};

/// Wraps an engine. Everything passes through, except what a switch makes fail.
pub struct FaultyEngine {
    inner: Arc<dyn Engine>,
    /// Commits fail and write nothing.
    pub fail_commits: AtomicBool,
    /// Commits write and then report failure: the unknown outcome.
    pub fail_after_commit: AtomicBool,
    /// Reopening fails.
    pub fail_reopen: AtomicBool,
    /// Counts commits that reached the engine.
    pub commits: AtomicU64,
    /// Counts the synced ones among them.
    pub syncs: AtomicU64,
    /// Counts calls of `reopen`.
    pub reopens: AtomicU64,
}

impl FaultyEngine {
    /// Around `inner`, with all switches off.
    pub fn new(inner: Arc<dyn Engine>) -> Self {
        Self {
            inner,
            fail_commits: AtomicBool::new(false),
            fail_after_commit: AtomicBool::new(false),
            fail_reopen: AtomicBool::new(false),
            commits: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            reopens: AtomicU64::new(0),
        }
    }
}

fn no_space() -> EngineError {
    EngineError::Io("No space left on device (injected)".to_owned())
}

#[async_trait]
impl Engine for FaultyEngine {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn view(&self) -> Result<Arc<dyn EngineView>, EngineError> {
        self.inner.view().await
    }

    async fn commit(
        &self,
        operations: Vec<Operation>,
        durability: Durability,
    ) -> Result<(), EngineError> {
        if self.fail_commits.load(Ordering::SeqCst) {
            return Err(no_space());
        }
        self.commits.fetch_add(1, Ordering::SeqCst);
        if durability == Durability::Synced {
            self.syncs.fetch_add(1, Ordering::SeqCst);
        }
        self.inner.commit(operations, durability).await?;
        if self.fail_after_commit.load(Ordering::SeqCst) {
            Err(no_space())
        } else {
            Ok(())
        }
    }

    async fn checkpoint(&self, dir: &Path) -> Result<(), EngineError> {
        self.inner.checkpoint(dir).await
    }

    async fn stand_by(&self) -> Result<(), EngineError> {
        self.inner.stand_by().await
    }

    async fn reopen(&self) -> Result<(), EngineError> {
        self.reopens.fetch_add(1, Ordering::SeqCst);
        if self.fail_reopen.load(Ordering::SeqCst) {
            return Err(no_space());
        }
        self.inner.reopen().await
    }

    async fn close(&self) -> Result<(), EngineError> {
        self.inner.close().await
    }

    fn stats(&self) -> EngineStats {
        self.inner.stats()
    }
}

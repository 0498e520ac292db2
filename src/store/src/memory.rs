//! The in-memory engine: what an engine means, in a page. Domain tests run on it; it forgets at exit.
//!
//! Rows have versions. A commit appends versions under a write lock; a view remembers the number of the last commit it
//! may see. Versions that no living view can see are dropped by later commits. A clone shares the rows, so a test can
//! close a store and open it again on the same engine.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Direction, Keyspace,
    engine::{Durability, Engine, EngineError, EngineStats, EngineView, Operation, PerKeyspace},
};

/// What a row was after which commit, oldest first. `None` is deleted.
type Versions = Vec<(u64, Option<Bytes>)>;

#[derive(Default)]
struct Rows {
    keyspaces: PerKeyspace<BTreeMap<Vec<u8>, Versions>>,
    /// The number of the last commit.
    last: u64,
    /// Rows with versions that a commit made obsolete.
    obsolete: VecDeque<(u64, Keyspace, Vec<u8>)>,
}

#[derive(Default)]
struct Shared {
    rows: RwLock<Rows>,
    /// How many views see which commit.
    views: Mutex<BTreeMap<u64, usize>>,
}

/// Keeps rows in memory only.
#[derive(Clone, Default)]
pub struct MemoryEngine {
    shared: Arc<Shared>,
}

impl MemoryEngine {
    /// An engine without rows.
    pub fn new() -> Self {
        Self::default()
    }
}

// The locks guard no user code that could panic, so a poisoned one is as good as any.
impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, Rows> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Rows> {
        self.rows.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn oldest_view(&self) -> Option<u64> {
        self.views
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .first_key_value()
            .map(|(commit, _)| *commit)
    }
}

impl Rows {
    fn set(&mut self, keyspace: Keyspace, key: Vec<u8>, value: Option<Bytes>) {
        let commit = self.last;
        let versions = self
            .keyspaces
            .get_mut(keyspace)
            .entry(key.clone())
            .or_default();
        match versions.last_mut() {
            Some((last, old)) if *last == commit => *old = value,
            _ => versions.push((commit, value)),
        }
        if versions.len() > 1 || matches!(versions.last(), Some((_, None))) {
            self.obsolete.push_back((commit, keyspace, key));
        }
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Put {
                keyspace,
                key,
                value,
            } => self.set(keyspace, key, Some(value.into())),
            Operation::Delete { keyspace, key } => self.set(keyspace, key, None),
            Operation::DeleteRange {
                keyspace,
                start,
                end,
            } => {
                let rows = self.keyspaces.get(keyspace);
                let Some(bounds) = bounds(&start, &end) else {
                    return;
                };
                let keys: Vec<_> = rows
                    .range::<[u8], _>(bounds)
                    .filter(|(_, versions)| matches!(versions.last(), Some((_, Some(_)))))
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in keys {
                    self.set(keyspace, key, None);
                }
            }
        }
    }

    /// Drops what no view at or after `oldest` can see.
    fn prune(&mut self, oldest: u64) {
        while let Some((_, keyspace, key)) =
            self.obsolete.pop_front_if(|(commit, ..)| *commit <= oldest)
        {
            let rows = self.keyspaces.get_mut(keyspace);
            let Some(versions) = rows.get_mut(&key) else {
                continue;
            };
            let hidden = versions
                .iter()
                .rposition(|(commit, _)| *commit <= oldest)
                .unwrap_or(0);
            versions.drain(..hidden);
            if let [(commit, None)] = versions.as_slice()
                && *commit <= oldest
            {
                rows.remove(&key);
            }
        }
    }
}

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The bounds of a range; `None` if it is empty (which `BTreeMap::range` would panic at).
fn bounds<'a>(start: &'a [u8], end: &'a [u8]) -> Option<Bounds<'a>> {
    (start < end).then_some((Bound::Included(start), Bound::Excluded(end)))
}

#[async_trait]
impl Engine for MemoryEngine {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn view(&self) -> Result<Arc<dyn EngineView>, EngineError> {
        let rows = self.shared.read();
        let commit = rows.last;
        let mut views = self
            .shared
            .views
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *views.entry(commit).or_default() += 1;
        Ok(Arc::new(MemoryView {
            shared: self.shared.clone(),
            commit,
        }))
    }

    async fn commit(&self, operations: Vec<Operation>, _: Durability) -> Result<(), EngineError> {
        let mut rows = self.shared.write();
        rows.last += 1;
        for operation in operations {
            rows.apply(operation);
        }
        let oldest = self.shared.oldest_view().unwrap_or(rows.last);
        rows.prune(oldest);
        Ok(())
    }

    async fn checkpoint(&self, _: &Path) -> Result<(), EngineError> {
        Err(EngineError::Unsupported(
            "the in-memory engine cannot be backed up".to_owned(),
        ))
    }

    async fn reopen(&self) -> Result<(), EngineError> {
        Ok(())
    }

    async fn close(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn stats(&self) -> EngineStats {
        let rows = self.shared.read();
        let count: usize = Keyspace::ALL
            .iter()
            .map(|keyspace| rows.keyspaces.get(*keyspace).len())
            .sum();
        EngineStats {
            rows: u64::try_from(count).unwrap_or(u64::MAX),
            ..EngineStats::default()
        }
    }
}

struct MemoryView {
    shared: Arc<Shared>,
    commit: u64,
}

impl MemoryView {
    fn visible(&self, versions: &Versions) -> Option<Bytes> {
        versions
            .iter()
            .rev()
            .find(|(commit, _)| *commit <= self.commit)
            .and_then(|(_, value)| value.clone())
    }
}

impl Drop for MemoryView {
    fn drop(&mut self) {
        let mut views = self
            .shared
            .views
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = views.get_mut(&self.commit) {
            *count -= 1;
            if *count == 0 {
                views.remove(&self.commit);
            }
        }
    }
}

#[async_trait]
impl EngineView for MemoryView {
    async fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let rows = self.shared.read();
        Ok(rows
            .keyspaces
            .get(keyspace)
            .get(key)
            .and_then(|versions| self.visible(versions)))
    }

    async fn get_many(
        &self,
        keyspace: Keyspace,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Bytes>>, EngineError> {
        let rows = self.shared.read();
        let rows = rows.keyspaces.get(keyspace);
        Ok(keys
            .iter()
            .map(|key| rows.get(key).and_then(|versions| self.visible(versions)))
            .collect())
    }

    async fn range(
        &self,
        keyspace: Keyspace,
        start: &[u8],
        end: &[u8],
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        let Some(bounds) = bounds(start, end) else {
            return Ok(Vec::new());
        };
        let rows = self.shared.read();
        let found = rows.keyspaces.get(keyspace).range::<[u8], _>(bounds);
        let row = |(key, versions): (&Vec<u8>, &Versions)| {
            self.visible(versions)
                .map(|value| (Bytes::copy_from_slice(key), value))
        };
        Ok(match direction {
            Direction::Forward => found.filter_map(row).take(limit).collect(),
            Direction::Backward => found.rev().filter_map(row).take(limit).collect(),
        })
    }
}

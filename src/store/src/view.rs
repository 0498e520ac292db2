//! What a read is: a snapshot and the position it belongs to.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Direction, EngineError, Key, Keyspace, Map, Position, Range, StoreError, Value,
    engine::EngineView,
};

/// A view's content, as the committer publishes it.
pub(crate) struct Snapshot {
    engine: Arc<dyn EngineView>,
    watermark: Position,
}

/// Everything committed up to the watermark, and nothing after it. Cheap to clone.
///
/// Take a fresh one for each request ([`crate::Store::view`] costs nothing) and let it go within seconds: a view keeps
/// alive what it can see.
#[derive(Clone)]
pub struct View {
    inner: Arc<Snapshot>,
}

impl View {
    pub(crate) fn new(engine: Arc<dyn EngineView>, watermark: Position) -> Self {
        Self {
            inner: Arc::new(Snapshot { engine, watermark }),
        }
    }

    pub(crate) fn published(inner: Arc<Snapshot>) -> Self {
        Self { inner }
    }

    pub(crate) fn into_inner(self) -> Arc<Snapshot> {
        self.inner
    }

    pub(crate) fn engine(&self) -> &Arc<dyn EngineView> {
        &self.inner.engine
    }

    /// The last position that this view shows.
    pub fn watermark(&self) -> Position {
        self.inner.watermark
    }

    /// One row.
    pub async fn get<K: Key, V: Value>(
        &self,
        map: &Map<K, V>,
        key: &K,
    ) -> Result<Option<V>, StoreError> {
        let key = map.key_bytes(key);
        let found = self.inner.engine.get(map.keyspace(), &key).await?;
        found.map(|bytes| map.decode_value(bytes)).transpose()
    }

    /// Many rows, in the order of the keys. In loops this is the one to use: it costs much less than many [`View::get`].
    pub async fn get_many<K: Key, V: Value>(
        &self,
        map: &Map<K, V>,
        keys: &[K],
    ) -> Result<Vec<Option<V>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<_> = keys.iter().map(|key| map.key_bytes(key)).collect();
        let found = self.inner.engine.get_many(map.keyspace(), &keys).await?;
        found
            .into_iter()
            .map(|row| row.map(|bytes| map.decode_value(bytes)).transpose())
            .collect()
    }

    /// At most `limit` rows of a range, in the given direction. The next page begins [`Range::after`] the last key (or
    /// [`Range::before`] it, reading backward).
    pub async fn range<K: Key, V: Value>(
        &self,
        map: &Map<K, V>,
        range: Range,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(K, V)>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let (start, end) = range.bounds(map.id());
        let rows = self
            .inner
            .engine
            .range(map.keyspace(), &start, &end, direction, limit)
            .await?;
        rows.into_iter()
            .map(|(key, value)| Ok((map.decode_key(&key)?, map.decode_value(value)?)))
            .collect()
    }

    /// The first row of a range in the given direction.
    pub async fn first<K: Key, V: Value>(
        &self,
        map: &Map<K, V>,
        range: Range,
        direction: Direction,
    ) -> Result<Option<(K, V)>, StoreError> {
        Ok(self.range(map, range, direction, 1).await?.pop())
    }

    /// True if the row is there. Its value is not decoded.
    pub async fn contains<K: Key, V: Value>(
        &self,
        map: &Map<K, V>,
        key: &K,
    ) -> Result<bool, StoreError> {
        Ok(self
            .inner
            .engine
            .get(map.keyspace(), &map.key_bytes(key))
            .await?
            .is_some())
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View({})", self.inner.watermark)
    }
}

/// What [`crate::Store::view`] gives after the store was closed: nothing, and nothing kept open.
pub(crate) struct ClosedView;

#[async_trait]
impl EngineView for ClosedView {
    async fn get(&self, _: Keyspace, _: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Err(EngineError::Closed)
    }

    async fn get_many(
        &self,
        _: Keyspace,
        _: &[Vec<u8>],
    ) -> Result<Vec<Option<Bytes>>, EngineError> {
        Err(EngineError::Closed)
    }

    async fn range(
        &self,
        _: Keyspace,
        _: &[u8],
        _: &[u8],
        _: Direction,
        _: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        Err(EngineError::Closed)
    }
}

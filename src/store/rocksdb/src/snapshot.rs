//! A snapshot of a database, and reading it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rocksdb::{
    DB, DBPinnableSlice, Direction as Seek, ErrorKind, IteratorMode, ReadOptions, ReadTier,
    SnapshotWithThreadMode,
};
use self_cell::self_cell;
use vatra_store::{Direction, EngineError, EngineView, Keyspace};

use crate::{database::Database, errors};

type Result<T> = std::result::Result<T, rocksdb::Error>;

/// The snapshot and the options to read it, made once for all reads of the view.
struct Reading<'a> {
    snapshot: SnapshotWithThreadMode<'a, DB>,
    /// Fails rather than touch the disk.
    cached: ReadOptions,
    /// Reads what it must.
    full: ReadOptions,
}

self_cell! {
    struct Cell {
        owner: Arc<Database>,
        #[not_covariant]
        dependent: Reading,
    }
}

/// Where a read may look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// In memory only.
    Cached,
    /// On disk too; may block.
    Disk,
}

/// One range to read.
struct Scan {
    keyspace: Keyspace,
    start: Vec<u8>,
    end: Vec<u8>,
    direction: Direction,
    limit: usize,
}

struct Inner {
    cell: Cell,
}

/// A view of the database.
pub(crate) struct RocksView {
    inner: Arc<Inner>,
}

impl RocksView {
    pub(crate) fn new(database: Arc<Database>) -> Self {
        let cell = Cell::new(database, |database| {
            let snapshot = database.db().snapshot();
            let options = |tier| {
                let mut options = ReadOptions::default();
                options.set_snapshot(&snapshot);
                options.set_read_tier(tier);
                options
            };
            Reading {
                cached: options(ReadTier::BlockCache),
                full: options(ReadTier::All),
                snapshot,
            }
        });
        Self {
            inner: Arc::new(Inner { cell }),
        }
    }

    /// Runs `read` on the blocking pool: for what is not in memory.
    async fn on_disk<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, EngineError> {
        let inner = self.inner.clone();
        let done = tokio::task::spawn_blocking(move || read(&inner)).await;
        // The pool ends only with the runtime.
        done.map_err(|error| EngineError::Io(format!("a read was given up: {error}")))?
            .map_err(errors::running)
    }
}

/// What a read of memory found out; `None` if only the disk knows.
fn settled<T>(read: Result<T>) -> Option<std::result::Result<T, EngineError>> {
    match read {
        Err(error) if error.kind() == ErrorKind::Incomplete => None,
        done => Some(done.map_err(errors::running)),
    }
}

fn copied(value: DBPinnableSlice<'_>) -> Bytes {
    Bytes::copy_from_slice(&value)
}

impl Inner {
    fn get(&self, keyspace: Keyspace, key: &[u8], reach: Reach) -> Result<Option<Bytes>> {
        self.cell.with_dependent(|database, reading| {
            database.with_families(|db, families| {
                let found =
                    db.get_pinned_cf_opt(families.get(keyspace), key, reading.options(reach))?;
                Ok(found.map(copied))
            })
        })
    }

    /// In memory one after the other, which stops at the first that is not there; on disk as one request.
    fn get_many(
        &self,
        keyspace: Keyspace,
        keys: &[Vec<u8>],
        reach: Reach,
    ) -> Result<Vec<Option<Bytes>>> {
        if reach == Reach::Cached {
            return keys
                .iter()
                .map(|key| self.get(keyspace, key, reach))
                .collect();
        }
        self.cell.with_dependent(|database, reading| {
            database.with_families(|db, families| {
                let rows = db.batched_multi_get_cf_opt(
                    families.get(keyspace),
                    keys,
                    false,
                    reading.options(reach),
                );
                rows.into_iter().map(|row| Ok(row?.map(copied))).collect()
            })
        })
    }

    fn range(&self, scan: &Scan, reach: Reach) -> Result<Vec<(Bytes, Bytes)>> {
        self.cell.with_dependent(|database, reading| {
            database.with_families(|db, families| {
                // Bounds are part of the options, so each scan has its own; they also bound what a deleted range costs.
                let mut options = ReadOptions::default();
                options.set_snapshot(&reading.snapshot);
                options.set_read_tier(if reach == Reach::Cached {
                    ReadTier::BlockCache
                } else {
                    ReadTier::All
                });
                options.set_iterate_lower_bound(scan.start.as_slice());
                options.set_iterate_upper_bound(scan.end.as_slice());
                let from = match scan.direction {
                    Direction::Forward => IteratorMode::From(&scan.start, Seek::Forward),
                    Direction::Backward => IteratorMode::End,
                };
                let rows = db.iterator_cf_opt(families.get(scan.keyspace), options, from);
                let rows = rows.take(scan.limit);
                rows.map(|row| row.map(|(key, value)| (Bytes::from(key), Bytes::from(value))))
                    .collect()
            })
        })
    }
}

impl Reading<'_> {
    fn options(&self, reach: Reach) -> &ReadOptions {
        match reach {
            Reach::Cached => &self.cached,
            Reach::Disk => &self.full,
        }
    }
}

#[async_trait]
impl EngineView for RocksView {
    async fn get(
        &self,
        keyspace: Keyspace,
        key: &[u8],
    ) -> std::result::Result<Option<Bytes>, EngineError> {
        if let Some(done) = settled(self.inner.get(keyspace, key, Reach::Cached)) {
            return done;
        }
        let key = key.to_vec();
        self.on_disk(move |inner| inner.get(keyspace, &key, Reach::Disk))
            .await
    }

    async fn get_many(
        &self,
        keyspace: Keyspace,
        keys: &[Vec<u8>],
    ) -> std::result::Result<Vec<Option<Bytes>>, EngineError> {
        if let Some(done) = settled(self.inner.get_many(keyspace, keys, Reach::Cached)) {
            return done;
        }
        let keys = keys.to_vec();
        self.on_disk(move |inner| inner.get_many(keyspace, &keys, Reach::Disk))
            .await
    }

    async fn range(
        &self,
        keyspace: Keyspace,
        start: &[u8],
        end: &[u8],
        direction: Direction,
        limit: usize,
    ) -> std::result::Result<Vec<(Bytes, Bytes)>, EngineError> {
        if start >= end {
            return Ok(Vec::new());
        }
        let scan = Scan {
            keyspace,
            start: start.to_vec(),
            end: end.to_vec(),
            direction,
            limit,
        };
        if let Some(done) = settled(self.inner.range(&scan, Reach::Cached)) {
            return done;
        }
        self.on_disk(move |inner| inner.range(&scan, Reach::Disk))
            .await
    }
}

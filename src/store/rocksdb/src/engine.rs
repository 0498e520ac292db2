//! The engine: which database is open now, and the way out of trouble.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};

use async_trait::async_trait;
use rocksdb::checkpoint::Checkpoint;
use vatra_store::{Durability, Engine, EngineError, EngineStats, EngineView, Keyspace, Operation};

use crate::{
    Settings, commit, database::Database, errors, open, settings::Memory, snapshot::RocksView,
};

/// How long to wait for views of a database that is to be closed. Views live for seconds at most.
const READERS_AT_MOST: Duration = Duration::from_secs(5);
/// The same when the engine is closed: all is durable by then, and an operator waits.
const READERS_AT_CLOSE: Duration = Duration::from_secs(1);
/// How often to look whether they are gone.
const READERS_POLL: Duration = Duration::from_millis(5);

/// A store in a folder.
pub struct RocksEngine {
    path: PathBuf,
    memory: Arc<Memory>,
    /// The database that new views read; `None` once closed.
    current: RwLock<Option<Arc<Database>>>,
    /// The one that failed and was replaced, until its last view is gone: its lock is held until then.
    failed: RwLock<Weak<()>>,
}

impl RocksEngine {
    /// Opens the folder, creating it if it is not there.
    ///
    /// Errors: [`EngineError::InUse`] if another process has it open, [`EngineError::Damaged`] if something is wrong
    /// with the data.
    pub async fn open(path: impl Into<PathBuf>, settings: &Settings) -> Result<Self, EngineError> {
        let path = path.into();
        let memory = Arc::new(Memory::new(settings));
        let database = blocking((path.clone(), memory.clone()), |(path, memory)| {
            open::writable(path, memory)
        })
        .await?;
        let current = RwLock::new(Some(Arc::new(database)));
        Ok(Self {
            path,
            memory,
            current,
            failed: RwLock::default(),
        })
    }

    fn current(&self) -> Result<Arc<Database>, EngineError> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone().ok_or(EngineError::Closed)
    }

    fn replace(&self, database: Option<Database>) -> Option<Arc<Database>> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut current, database.map(Arc::new))
    }
}

/// Runs what blocks on the blocking pool.
async fn blocking<A, T>(
    argument: A,
    f: impl FnOnce(&A) -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError>
where
    A: Send + 'static,
    T: Send + 'static,
{
    let done = tokio::task::spawn_blocking(move || f(&argument)).await;
    done.map_err(|error| EngineError::Io(format!("given up: {error}")))?
}

/// Waits until nobody holds the database and it is closed; false if that takes too long.
async fn released(open: &Weak<()>, at_most: Duration) -> bool {
    let wait = async {
        while open.strong_count() > 0 {
            tokio::time::sleep(READERS_POLL).await;
        }
    };
    tokio::time::timeout(at_most, wait).await.is_ok()
}

#[async_trait]
impl Engine for RocksEngine {
    fn name(&self) -> &'static str {
        "rocksdb"
    }

    async fn view(&self) -> Result<Arc<dyn EngineView>, EngineError> {
        Ok(Arc::new(RocksView::new(self.current()?)))
    }

    async fn commit(
        &self,
        operations: Vec<Operation>,
        durability: Durability,
    ) -> Result<(), EngineError> {
        let database = self.current()?;
        if !database.writable {
            return Err(EngineError::Io(
                "the store is open for reading only".to_owned(),
            ));
        }
        commit::commit(database, operations, durability).await
    }

    async fn checkpoint(&self, dir: &Path) -> Result<(), EngineError> {
        let database = self.current()?;
        blocking((database, dir.to_path_buf()), |(database, dir)| {
            let checkpoint = Checkpoint::new(database.db()).map_err(errors::running)?;
            checkpoint.create_checkpoint(dir).map_err(errors::running)
        })
        .await
    }

    async fn stand_by(&self) -> Result<(), EngineError> {
        if !self.current()?.writable {
            return Ok(());
        }
        let beside = (self.path.clone(), self.memory.clone());
        let reader = blocking(beside, |(path, memory)| open::read_only(path, memory)).await?;
        if let Some(failed) = self.replace(Some(reader)) {
            *self.failed.write().unwrap_or_else(PoisonError::into_inner) = failed.open();
            // Closing it may have to wait for its background work.
            blocking(Some(failed), |_| Ok(())).await?;
        }
        Ok(())
    }

    async fn reopen(&self) -> Result<(), EngineError> {
        let failed = self
            .failed
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if !released(&failed, READERS_AT_MOST).await {
            return Err(EngineError::Io(
                "views of the failed database are still held".to_owned(),
            ));
        }
        let writer = (self.path.clone(), self.memory.clone());
        let database = blocking(writer, |(path, memory)| open::writable(path, memory)).await?;
        drop(self.replace(Some(database)));
        Ok(())
    }

    async fn close(&self) -> Result<(), EngineError> {
        let Some(database) = self.replace(None) else {
            return Ok(());
        };
        let held = database.open();
        let synced = blocking(database, |database| {
            if database.writable {
                database.db().flush_wal(true).map_err(errors::running)
            } else {
                Ok(())
            }
        })
        .await;
        if !released(&held, READERS_AT_CLOSE).await {
            tracing::warn!("views are still held; the database closes with the last of them");
        }
        synced
    }

    fn stats(&self) -> EngineStats {
        let Ok(database) = self.current() else {
            return EngineStats::default();
        };
        let rows = database.with_families(|db, families| {
            let one = |keyspace| {
                let family = families.get(keyspace);
                let rows = db.property_int_value_cf(family, "rocksdb.estimate-num-keys");
                rows.ok().flatten()
            };
            Keyspace::ALL.into_iter().filter_map(one).sum()
        });
        EngineStats {
            memtable_bytes: u64::try_from(self.memory.memtable_bytes()).unwrap_or(u64::MAX),
            block_cache_bytes: u64::try_from(self.memory.cache_bytes()).unwrap_or(u64::MAX),
            disk_bytes: size_of(&self.path),
            rows,
        }
    }
}

/// The bytes of all files in a folder; what is gone meanwhile counts nothing.
fn size_of(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = files.filter_map(|file| Some(file.metadata().ok()?.len()));
    sizes.sum()
}

//! Writing a group.

use std::sync::Arc;

use rocksdb::{ErrorKind, WriteBatch, WriteOptions};
use vatra_store::{Durability, EngineError, Operation};

use crate::{database::Database, errors};

/// RocksDB's form of the operations.
fn batch(database: &Database, operations: &[Operation]) -> WriteBatch {
    let mut batch = WriteBatch::default();
    database.with_families(|_, families| {
        for operation in operations {
            match operation {
                Operation::Put {
                    keyspace,
                    key,
                    value,
                } => batch.put_cf(families.get(*keyspace), key, value),
                Operation::Delete { keyspace, key } => {
                    batch.delete_cf(families.get(*keyspace), key)
                }
                // RocksDB takes a range that ends before it starts for an error.
                Operation::DeleteRange { start, end, .. } if start >= end => {}
                Operation::DeleteRange {
                    keyspace,
                    start,
                    end,
                } => {
                    batch.delete_range_cf(families.get(*keyspace), start, end);
                }
            }
        }
    });
    batch
}

/// Writes the operations. Synced writes wait for the disk on the blocking pool. Relaxed ones are a copy into memory and
/// the page cache, done at once, unless RocksDB wants to slow the writer down.
pub(crate) async fn commit(
    database: Arc<Database>,
    operations: Vec<Operation>,
    durability: Durability,
) -> Result<(), EngineError> {
    let mut options = WriteOptions::default();
    let rows = batch(&database, &operations);
    if durability == Durability::Relaxed {
        options.set_no_slowdown(true);
        match database.db().write_opt(rows, &options) {
            Err(error) if error.kind() == ErrorKind::Incomplete => options.set_no_slowdown(false),
            done => return done.map_err(errors::running),
        }
        let rows = batch(&database, &operations);
        return blocking(database, rows, options).await;
    }
    options.set_sync(true);
    blocking(database, rows, options).await
}

async fn blocking(
    database: Arc<Database>,
    rows: WriteBatch,
    options: WriteOptions,
) -> Result<(), EngineError> {
    let written =
        tokio::task::spawn_blocking(move || database.db().write_opt(rows, &options)).await;
    written
        .map_err(|error| EngineError::Io(format!("a write was given up: {error}")))?
        .map_err(errors::running)
}

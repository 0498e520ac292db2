//! The schema version and the way up to it.
//!
//! A store without migrations has schema 1; the first migration has version 2, and so on without gaps. A new store
//! starts at the newest version and runs none. Each migration may be killed at any point: its version is stored after
//! it, so it runs again from its start and must be idempotent. A release refuses a store with a newer schema.

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
};

use crate::{Batch, EngineError, OpenError, Store, meta};

/// What a migration returns; the error is a sentence for the operator.
pub type MigrationFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// One step of the schema.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// The schema version after it: 2 for the first, each the one before plus one.
    pub version: u32,
    /// What it does, in a few words.
    pub name: &'static str,
    /// Does it, through the store like anyone else. Must be idempotent.
    pub run: fn(Store) -> MigrationFuture,
}

/// The newest version that a list of migrations reaches; refuses a list with gaps.
pub(crate) fn newest(migrations: &[Migration]) -> Result<u32, OpenError> {
    let mut version = 1;
    for migration in migrations {
        let expected = version + 1;
        if migration.version != expected {
            return Err(OpenError::MigrationOrder {
                name: migration.name,
                found: migration.version,
                expected,
            });
        }
        version = expected;
    }
    Ok(version)
}

/// Runs the migrations above `stored`.
pub(crate) async fn run(
    store: &Store,
    stored: u32,
    migrations: &[Migration],
    checkpoints: Option<PathBuf>,
) -> Result<(), OpenError> {
    let mut due = migrations
        .iter()
        .filter(|migration| migration.version > stored)
        .peekable();
    if let (Some(_), Some(dir)) = (due.peek(), checkpoints) {
        let dir = dir.join(format!("schema-{stored}"));
        // An earlier start may have made it and died in a migration: then it holds what was before.
        if !tokio::fs::try_exists(&dir).await.unwrap_or(false) {
            copy(store, &dir).await?;
            tracing::info!(checkpoint = %dir.display(), "copied the store before migrating it");
        }
    }
    for migration in due {
        let failed = |reason| OpenError::Migration {
            version: migration.version,
            name: migration.name,
            reason,
        };
        tracing::info!(
            version = migration.version,
            name = migration.name,
            "migrating the store"
        );
        (migration.run)(store.clone()).await.map_err(failed)?;
        let mut batch = Batch::new();
        batch.put(&meta::SCHEMA, &meta::KEY_SCHEMA, &migration.version);
        store
            .write(batch)
            .await
            .map_err(|error| failed(error.to_string()))?;
    }
    Ok(())
}

/// Copies the store into `dir`, making the folders above it.
async fn copy(store: &Store, dir: &Path) -> Result<(), EngineError> {
    if let Some(parent) = dir.parent() {
        let failed = |error| {
            EngineError::Io(format!(
                "cannot create the folder {}: {error}",
                parent.display()
            ))
        };
        tokio::fs::create_dir_all(parent).await.map_err(failed)?;
    }
    store.checkpoint(dir).await
}

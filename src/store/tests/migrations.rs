//! A store is copied before it is migrated, and the copy is what it was.

#![allow(clippy::unwrap_used)]

use std::{path::Path, sync::Arc};

use vatra_store::{Batch, Keyspace, Map, Migration, OpenError, Options, Store};
use vatra_store_rocksdb::{RocksEngine, Settings};

const ROWS: Map<u64, String> = Map::new(Keyspace::Index, 1, "rows");

async fn open(dir: &Path, copies: &Path, migrations: &[Migration]) -> Result<Store, OpenError> {
    let engine = RocksEngine::open(dir, &Settings::default()).await.unwrap();
    let options = Options {
        migration_checkpoints: Some(copies.to_owned()),
        ..Options::default()
    };
    Store::open(Arc::new(engine), options, migrations).await
}

fn row(text: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put(&ROWS, &1, &text.to_owned());
    batch
}

const RENAME: Migration = Migration {
    version: 2,
    name: "rename the row",
    run: |store| {
        Box::pin(async move {
            store
                .write(row("new"))
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        })
    },
};

#[tokio::test]
async fn a_store_is_copied_before_it_is_migrated() {
    let place = tempfile::tempdir().unwrap();
    let (dir, copies) = (place.path().join("store"), place.path().join("copies"));
    let store = open(&dir, &copies, &[]).await.unwrap();
    store.write(row("old")).await.unwrap();
    store.close().await;
    assert!(!copies.exists(), "nothing to migrate, nothing to copy");

    let store = open(&dir, &copies, &[RENAME]).await.unwrap();
    assert_eq!(
        store.view().get(&ROWS, &1).await.unwrap().as_deref(),
        Some("new")
    );
    store.close().await;

    let copy = open(&copies.join("schema-1"), &copies, &[]).await.unwrap();
    assert_eq!(
        copy.view().get(&ROWS, &1).await.unwrap().as_deref(),
        Some("old")
    );
    copy.close().await;
    let older = open(&dir, &copies, &[]).await;
    assert!(
        matches!(
            older,
            Err(OpenError::NewerSchema {
                stored: 2,
                known: 1
            })
        ),
        "{older:?}"
    );
}

#[tokio::test]
async fn a_new_store_starts_at_the_newest_schema() {
    let place = tempfile::tempdir().unwrap();
    let (dir, copies) = (place.path().join("store"), place.path().join("copies"));
    let store = open(&dir, &copies, &[RENAME]).await.unwrap();
    assert_eq!(
        store.view().get(&ROWS, &1).await.unwrap(),
        None,
        "there was nothing to migrate"
    );
    store.close().await;
    open(&dir, &copies, &[RENAME]).await.unwrap().close().await;
}

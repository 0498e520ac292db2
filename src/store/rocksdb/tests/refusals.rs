//! What the engine refuses, and in which words; and its copies.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use vatra_store::{Direction, Durability, Engine, EngineError, Keyspace, Operation};
use vatra_store_rocksdb::{RocksEngine, Settings};

async fn open(dir: &Path) -> Result<RocksEngine, EngineError> {
    RocksEngine::open(dir, &Settings::default()).await
}

fn put(key: u8, size: usize) -> Operation {
    Operation::Put {
        keyspace: Keyspace::Index,
        key: vec![1, key],
        value: vec![key; size],
    }
}

/// A store with twenty rows in its log.
async fn filled(dir: &Path) {
    let engine = open(dir).await.unwrap();
    for key in 0..20 {
        engine
            .commit(vec![put(key, 1000)], Durability::Synced)
            .await
            .unwrap();
    }
    engine.close().await.unwrap();
}

/// The largest file whose name ends so.
fn file(dir: &Path, end: &str) -> PathBuf {
    let files = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.to_string_lossy().ends_with(end));
    files
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap()
}

fn damage(path: &Path) -> String {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    fs::write(path, bytes).unwrap();
    path.file_name().unwrap().to_string_lossy().into_owned()
}

#[tokio::test]
async fn a_second_server_on_the_same_folder_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let _engine = open(dir.path()).await.unwrap();
    let Err(EngineError::InUse(text)) = open(dir.path()).await else {
        unreachable!("opened twice")
    };
    assert!(text.starts_with("another vatra is using "), "{text}");
}

#[tokio::test]
async fn a_damaged_log_stops_the_start_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let name = damage(&file(dir.path(), ".log"));
    let Err(EngineError::Damaged(text)) = open(dir.path()).await else {
        unreachable!("opened a damaged log")
    };
    assert!(
        text.contains(&name) && text.contains("vatra check"),
        "{text}"
    );
    assert!(
        open(dir.path()).await.is_err(),
        "the first attempt must not have thrown the damage away"
    );
}

#[tokio::test]
async fn an_incomplete_last_record_of_the_log_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let log = file(dir.path(), ".log");
    let bytes = fs::read(&log).unwrap();
    fs::write(&log, &bytes[..bytes.len() - 500]).unwrap();
    let view = open(dir.path()).await.unwrap().view().await.unwrap();
    let rows = view
        .range(Keyspace::Index, &[1], &[2], Direction::Forward, 99)
        .await
        .unwrap();
    assert_eq!(rows.len(), 19);
}

#[tokio::test]
async fn zeros_behind_the_log_are_no_damage_but_zeros_in_its_last_record_are() {
    // A file system may grow a file before it writes the bytes.
    for zeros in [1, 500, 40_000] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path()).await;
        let log = file(dir.path(), ".log");
        let mut bytes = fs::read(&log).unwrap();
        bytes.extend(vec![0; zeros]);
        fs::write(&log, bytes).unwrap();
        let view = open(dir.path()).await.unwrap().view().await.unwrap();
        let rows = view
            .range(Keyspace::Index, &[1], &[2], Direction::Forward, 99)
            .await
            .unwrap();
        assert_eq!(rows.len(), 20);
    }
    // But a whole record with wrong bytes may have been acknowledged, and nobody can tell.
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let log = file(dir.path(), ".log");
    let mut bytes = fs::read(&log).unwrap();
    let from = bytes.len() - 500;
    bytes[from..].fill(0);
    fs::write(&log, bytes).unwrap();
    assert!(matches!(
        open(dir.path()).await,
        Err(EngineError::Damaged(_))
    ));
}

#[tokio::test]
async fn a_damaged_table_fails_the_read_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    // The next start moves the log into a table.
    open(dir.path()).await.unwrap().close().await.unwrap();
    let table = file(dir.path(), ".sst");
    let mut bytes = fs::read(&table).unwrap();
    bytes[20] ^= 0x55;
    fs::write(&table, bytes).unwrap();
    let read = async {
        open(dir.path())
            .await?
            .view()
            .await?
            .get(Keyspace::Index, &[1, 0])
            .await
    };
    let Err(EngineError::Damaged(text)) = read.await else {
        unreachable!("read a damaged table")
    };
    assert!(
        text.contains(&*table.file_name().unwrap().to_string_lossy()),
        "{text}"
    );
}

#[tokio::test]
async fn missing_files_stop_the_start_and_nothing_is_begun_anew() {
    for (end, kind) in [
        ("CURRENT", "CURRENT"),
        (".sst", ".sst"),
        ("MANIFEST", "MANIFEST"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path()).await;
        open(dir.path()).await.unwrap().close().await.unwrap();
        let gone = if end == "MANIFEST" {
            dir.path().join(
                fs::read_to_string(dir.path().join("CURRENT"))
                    .unwrap()
                    .trim(),
            )
        } else {
            file(dir.path(), end)
        };
        fs::remove_file(gone).unwrap();
        let Err(error) = open(dir.path()).await else {
            unreachable!("opened without its {kind}")
        };
        assert!(error.to_string().contains(kind), "{error}");
    }
}

#[tokio::test]
async fn a_checkpoint_is_a_store_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (store, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let engine = open(&store).await.unwrap();
    engine
        .commit(vec![put(1, 10)], Durability::Relaxed)
        .await
        .unwrap();
    engine.checkpoint(&copy).await.unwrap();
    assert!(
        engine.checkpoint(&copy).await.is_err(),
        "a copy is never written over"
    );
    engine
        .commit(vec![put(2, 10)], Durability::Relaxed)
        .await
        .unwrap();
    let copied = open(&copy).await.unwrap();
    let view = copied.view().await.unwrap();
    assert_eq!(
        view.get(Keyspace::Index, &[1, 1]).await.unwrap(),
        Some(Bytes::from(vec![1; 10]))
    );
    assert_eq!(view.get(Keyspace::Index, &[1, 2]).await.unwrap(), None);
    copied
        .commit(vec![put(3, 10)], Durability::Synced)
        .await
        .unwrap();
    assert_eq!(
        engine
            .view()
            .await
            .unwrap()
            .get(Keyspace::Index, &[1, 3])
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn memory_stays_within_the_budget() {
    let dir = tempfile::tempdir().unwrap();
    let budget = 8 << 20;
    let engine = RocksEngine::open(
        dir.path(),
        &Settings {
            memory_budget_bytes: budget,
        },
    )
    .await
    .unwrap();
    assert!(engine.stats().disk_bytes > 0);
    for round in 0..60_u8 {
        let row = |key: u8| Operation::Put {
            keyspace: Keyspace::Bulk,
            key: vec![1, round, key],
            value: vec![key ^ round; 8000],
        };
        engine
            .commit((0..100).map(row).collect(), Durability::Relaxed)
            .await
            .unwrap();
    }
    let view = engine.view().await.unwrap();
    let rows = view
        .range(Keyspace::Bulk, &[1], &[2], Direction::Forward, 10_000)
        .await
        .unwrap();
    assert_eq!(rows.len(), 6000);
    let stats = engine.stats();
    // Memtables are charged in steps, and one may be on its way to the disk.
    assert!(stats.block_cache_bytes <= budget + (2 << 20), "{stats:?}");
    assert!(
        stats.disk_bytes > 0 && stats.memtable_bytes <= budget / 2,
        "{stats:?}"
    );
}

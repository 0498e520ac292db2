//! A full disk: what is concerned fails, reads go on, and the store writes again once there is room, without a restart.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use vatra_store::{Batch, CommitError, Durability, Options, Store};
use vatra_store_rocksdb::{RocksEngine, Settings};

use crate::{
    shim,
    writer::{self, Ack, LOG, ROWS},
};

fn row(key: u64) -> Batch {
    let mut batch = Batch::new();
    batch
        .put(&ROWS, &key, &writer::value(key))
        .put_at_position(&LOG, move |position| (position, key));
    batch
}

#[test]
fn a_full_disk_turns_the_store_read_only_and_room_heals_it() {
    let place = tempfile::tempdir().unwrap();
    let path = fs::canonicalize(place.path()).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "full_disk::scenario", "--ignored", "--nocapture"])
        .stdin(Stdio::null());
    child
        .env("SCENARIO_DIR", &path)
        .env("LD_PRELOAD", shim::compile(&path));
    child
        .env("SHIM_WATCHED", path.join("store"))
        .env("SHIM_FULL", path.join("full"));
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.contains("1 passed"),
        "the scenario did not run: {text}"
    );
}

/// What happens in the child, where the disk can be made full.
#[test]
#[ignore = "runs in a process that another test starts"]
fn scenario() {
    let place = PathBuf::from(std::env::var("SCENARIO_DIR").unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(&place));
}

async fn run(place: &Path) {
    let (dir, full) = (place.join("store"), place.join("full"));
    let engine = RocksEngine::open(&dir, &Settings::default()).await.unwrap();
    let wait = Duration::from_millis(20);
    let options = Options {
        reopen_after: wait,
        reopen_at_most: wait,
        ..Options::default()
    };
    let store = Store::open(Arc::new(engine), options, &[]).await.unwrap();
    let mut acks = Vec::new();
    for key in 0..20 {
        acks.push(Ack {
            key,
            position: store.write(row(key)).await.unwrap(),
        });
    }
    // A view of before the trouble, held for a while: the failed database must not be reopened over it.
    let old = store.view();

    fs::write(&full, "").unwrap();
    let failed = store.write(row(100)).await;
    assert!(
        matches!(&failed, Err(CommitError::Unavailable(reason)) if reason.contains("No space")),
        "{failed:?}"
    );
    assert!(store.health().read_only.is_some());
    for _ in 0..40 {
        assert_eq!(
            writer::missing(&store, &acks).await,
            [],
            "reads are served while the disk is full"
        );
        let refused = tokio::time::timeout(Duration::from_secs(1), store.write(row(101))).await;
        assert!(refused.expect("a batch waits for the disk").is_err());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!store.health().is_writable());
    assert_eq!(old.get(&ROWS, &3).await.unwrap(), Some(writer::value(3)));
    drop(old);

    fs::remove_file(&full).unwrap();
    let mut health = store.subscribe_health();
    let healed = health.wait_for(|health| health.is_writable());
    tokio::time::timeout(Duration::from_secs(20), healed)
        .await
        .expect("the store did not heal")
        .unwrap();
    let last = acks.last().unwrap().position;
    for key in 20..40 {
        let position = store.write(row(key)).await.unwrap();
        assert!(
            position > last.next(),
            "a position of a failed batch came again"
        );
        acks.push(Ack { key, position });
    }
    assert_eq!(writer::missing(&store, &acks).await, []);
    assert!(store.watermark() >= writer::newest(&store).await);
    store.close().await;

    let store = writer::open(&dir, Durability::Synced).await;
    assert_eq!(writer::missing(&store, &acks).await, [], "after a restart");
    store.close().await;
}

//! The first tests of the whole: the suites in `tests/` go deeper and run on every engine.

#![allow(clippy::unwrap_used)]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    Batch, CommitError, Direction, Keyspace, Map, MemoryEngine, Options, Position, Range, Store,
    Topic, testing::FaultyEngine,
};

const ROWS: Map<u64, String> = Map::new(Keyspace::Index, 1, "rows");
const COUNTS: Map<u64, i64> = Map::new(Keyspace::Index, 2, "counts");
const LOG: Map<Position, u64> = Map::new(Keyspace::Stream, 3, "log");

async fn store() -> Store {
    Store::open(Arc::new(MemoryEngine::new()), Options::default(), &[])
        .await
        .unwrap()
}

#[tokio::test]
async fn a_batch_is_visible_once_its_ticket_says_so() {
    let store = store().await;
    let mut wakes = store.wakes();
    let mut batch = Batch::new();
    batch
        .put(&ROWS, &1, &"one".to_owned())
        .put_at_position(&LOG, |position| (position, 1));
    batch
        .add(&COUNTS, &1, 5)
        .add(&COUNTS, &1, -2)
        .wake(Topic { kind: 1, id: 7 });
    let seen = Arc::new(AtomicU64::new(0));
    let inner = seen.clone();
    batch.then(move |position| inner.store(position.0, Ordering::SeqCst));
    let position = store.write(batch).await.unwrap();
    let view = store.view();
    assert_eq!(view.watermark(), position);
    assert_eq!(view.get(&ROWS, &1).await.unwrap().as_deref(), Some("one"));
    assert_eq!(view.get(&COUNTS, &1).await.unwrap(), Some(3));
    assert_eq!(
        view.range(&LOG, Range::all(), Direction::Backward, 9)
            .await
            .unwrap(),
        [(position, 1)]
    );
    assert_eq!(seen.load(Ordering::SeqCst), position.0);
    let wake = wakes.recv().await.unwrap();
    assert_eq!(
        (wake.watermark, wake.topics),
        (position, vec![Topic { kind: 1, id: 7 }])
    );
}

#[tokio::test]
async fn a_failed_assert_fails_its_batch_alone() {
    let store = store().await;
    let claim = |name: &str| {
        let mut batch = Batch::new();
        batch
            .assert_absent(&ROWS, &1)
            .put(&ROWS, &1, &name.to_owned());
        store.submit(batch)
    };
    let (first, second) = (claim("first"), claim("second"));
    let mut third = Batch::new();
    third
        .assert_equals(&ROWS, &1, &"first".to_owned())
        .put(&ROWS, &2, &"third".to_owned());
    let third = store.submit(third);
    let first = first.committed().await.unwrap();
    assert_eq!(second.committed().await, Err(CommitError::AssertFailed));
    assert_eq!(third.committed().await.unwrap(), first.next());
    assert_eq!(
        store.view().get(&ROWS, &1).await.unwrap().as_deref(),
        Some("first")
    );
}

#[tokio::test]
async fn a_batch_without_changes_costs_no_engine_write() {
    let engine = Arc::new(FaultyEngine::new(Arc::new(MemoryEngine::new())));
    let store = Store::open(engine.clone(), Options::default(), &[])
        .await
        .unwrap();
    let before = engine.commits.load(Ordering::SeqCst);
    let first = store.write(Batch::new()).await.unwrap();
    let second = store.write(Batch::new()).await.unwrap();
    assert_eq!(second, first.next());
    assert_eq!(store.watermark(), second);
    assert_eq!(engine.commits.load(Ordering::SeqCst), before);
}

#[tokio::test]
async fn a_restart_gives_no_number_twice() {
    let engine = Arc::new(MemoryEngine::new());
    let store = Store::open(engine.clone(), Options::default(), &[])
        .await
        .unwrap();
    let epoch = store.epoch();
    let (position, id) = (
        store.write(Batch::new()).await.unwrap(),
        store.fresh_id().unwrap(),
    );
    store.close().await;
    assert_eq!(store.write(Batch::new()).await, Err(CommitError::Closed));
    let store = Store::open(engine, Options::default(), &[]).await.unwrap();
    assert!(
        store.watermark() >= position,
        "a token handed out before is not from the future"
    );
    assert!(store.write(Batch::new()).await.unwrap() > position);
    assert!(store.fresh_id().unwrap() > id);
    assert_eq!(store.epoch(), epoch);
}

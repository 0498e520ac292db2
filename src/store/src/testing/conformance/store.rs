//! What a store on the engine does, one caller at a time.

use std::sync::{Arc, Mutex, PoisonError};

use super::{COUNTS, LOG, NAMES, Outcome, PAIRS, Place, opened};
use crate::{
    Batch, CommitError, Direction, Durability, Options, Range, Store, Topic, testing::FaultyEngine,
};

/// A committed batch is visible whole: rows, counters, rows at their position; and wakes its topics once.
pub async fn a_committed_batch_is_visible_whole(place: &dyn Place) -> Outcome {
    let store = opened(place).await?;
    let mut wakes = store.wakes();
    let mut batch = Batch::new();
    batch
        .put(&NAMES, &1, &"one".to_owned())
        .put_at_position(&LOG, |position| (position, 1));
    batch
        .add(&COUNTS, &1, 5)
        .add(&COUNTS, &1, -2)
        .wake(Topic { kind: 1, id: 7 });
    let position = store.write(batch).await?;
    let view = store.view();
    assert_eq!(view.watermark(), position);
    assert_eq!(*store.subscribe_watermark().borrow(), position);
    assert_eq!(view.get(&NAMES, &1).await?.as_deref(), Some("one"));
    assert_eq!(view.get(&COUNTS, &1).await?, Some(3));
    assert_eq!(
        view.range(&LOG, Range::all(), Direction::Forward, 9)
            .await?,
        [(position, 1)]
    );
    let wake = wakes.recv().await.ok_or("no wake")?;
    assert_eq!(
        (wake.watermark, wake.topics),
        (position, vec![Topic { kind: 1, id: 7 }])
    );
    drop(view);
    store.close().await;
    Ok(())
}

/// Asserts are judged against the batches before, also of the same group; a failed one fails its batch alone.
pub async fn a_failed_assert_fails_its_batch_alone(place: &dyn Place) -> Outcome {
    let store = opened(place).await?;
    let failures = Arc::new(Mutex::new(Vec::new()));
    let claim = |name: &'static str| {
        let mut batch = Batch::new();
        let failures = failures.clone();
        batch
            .assert_absent(&NAMES, &1)
            .put(&NAMES, &1, &name.to_owned())
            .add(&COUNTS, &1, 1);
        batch.on_failure(move || {
            failures
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(name)
        });
        store.submit(batch)
    };
    let (first, second) = (claim("first"), claim("second"));
    let mut batch = Batch::new();
    batch
        .assert_equals(&NAMES, &1, &"first".to_owned())
        .delete_range(&NAMES, Range::all())
        .add(&COUNTS, &1, 10);
    let third = store.submit(batch);
    let mut batch = Batch::new();
    batch
        .assert_equals(&NAMES, &1, &"first".to_owned())
        .put(&NAMES, &9, &"never".to_owned());
    let fourth = store.submit(batch);
    let fifth = claim("fifth");
    let first = first.committed().await?;
    assert_eq!(second.committed().await, Err(CommitError::AssertFailed));
    assert_eq!(
        third.committed().await?,
        first.next(),
        "a failed batch takes no position"
    );
    assert_eq!(fourth.committed().await, Err(CommitError::AssertFailed));
    fifth.committed().await?;
    let view = store.view();
    assert_eq!(view.get(&NAMES, &1).await?.as_deref(), Some("fifth"));
    assert_eq!(view.get(&NAMES, &9).await?, None);
    assert_eq!(view.get(&COUNTS, &1).await?, Some(12));
    assert_eq!(
        *failures.lock().unwrap_or_else(PoisonError::into_inner),
        ["second"]
    );
    drop(view);
    store.close().await;
    Ok(())
}

/// Ranges of tuple keys page in both directions.
pub async fn tuple_ranges_page_both_ways(place: &dyn Place) -> Outcome {
    let store = opened(place).await?;
    let mut batch = Batch::new();
    for room in 1..4_u64 {
        for name in ["a", "a\0b", "ab", "b"] {
            batch.put(&PAIRS, &(room, name.to_owned()), &room);
        }
    }
    store.write(batch).await?;
    let view = store.view();
    for direction in [Direction::Forward, Direction::Backward] {
        let mut found = Vec::new();
        let mut range = Range::prefix(&2_u64);
        loop {
            let page = view.range(&PAIRS, range.clone(), direction, 3).await?;
            let Some((last, _)) = page.last().cloned() else {
                break;
            };
            found.extend(page.into_iter().map(|((room, name), _)| (room, name)));
            range = match direction {
                Direction::Forward => range.after(&last),
                Direction::Backward => range.before(&last),
            };
        }
        if direction == Direction::Backward {
            found.reverse();
        }
        let expected: Vec<_> = ["a", "a\0b", "ab", "b"]
            .map(|name| (2, name.to_owned()))
            .into();
        assert_eq!(found, expected);
    }
    let mut batch = Batch::new();
    batch.delete_range(&PAIRS, Range::prefix(&2_u64));
    store.write(batch).await?;
    assert_eq!(
        store
            .view()
            .range(&PAIRS, Range::all(), Direction::Forward, 99)
            .await?
            .len(),
        8
    );
    drop(view);
    store.close().await;
    Ok(())
}

/// A batch without changes takes a position and costs no engine write; rows cost one each, synced as asked.
pub async fn empty_batches_cost_no_engine_write(place: &dyn Place) -> Outcome {
    use std::sync::atomic::Ordering::SeqCst;
    let engine = Arc::new(FaultyEngine::new(place.open().await));
    let options = Options {
        durability: Durability::Relaxed,
        ..Options::default()
    };
    let store = Store::open(engine.clone(), options, &[]).await?;
    let (commits, syncs) = (engine.commits.load(SeqCst), engine.syncs.load(SeqCst));
    let mut wakes = store.wakes();
    let mut batch = Batch::new();
    batch.wake(Topic { kind: 1, id: 1 });
    let position = store.write(batch).await?;
    assert_eq!(store.watermark(), position);
    assert_eq!(
        wakes.recv().await.map(|wake| wake.watermark),
        Some(position)
    );
    assert_eq!(engine.commits.load(SeqCst), commits);
    let mut batch = Batch::new();
    batch.put(&NAMES, &1, &"row".to_owned());
    store.write(batch).await?;
    assert_eq!(
        (engine.commits.load(SeqCst), engine.syncs.load(SeqCst)),
        (commits + 1, syncs)
    );
    store.close().await;
    Ok(())
}

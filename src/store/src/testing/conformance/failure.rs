//! What a store does when its engine fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use super::{LOG, NAMES, Outcome, Place};
use crate::{
    Batch, CommitError, Direction, Options, Position, Range, Store, testing::FaultyEngine,
};

async fn faulty(place: &dyn Place) -> Result<(Arc<FaultyEngine>, Store), crate::OpenError> {
    let engine = Arc::new(FaultyEngine::new(place.open().await));
    let wait = Duration::from_millis(5);
    let options = Options {
        reopen_after: wait,
        reopen_at_most: wait,
        ..Options::default()
    };
    let store = Store::open(engine.clone(), options, &[]).await?;
    Ok((engine, store))
}

fn named(key: u64, name: &str) -> Batch {
    let mut batch = Batch::new();
    batch
        .put(&NAMES, &key, &name.to_owned())
        .put_at_position(&LOG, move |position| (position, key));
    batch
}

async fn healed(store: &Store) -> Outcome {
    let mut health = store.subscribe_health();
    let writable = health.wait_for(|health| health.is_writable() && health.reopens > 0);
    tokio::time::timeout(Duration::from_secs(20), writable).await??;
    Ok(())
}

/// An I/O error or a full disk fails the batches concerned and those after, turns the store read-only while reads are
/// served, and once the engine works again the store does.
pub async fn an_engine_error_turns_the_store_read_only_until_it_heals(
    place: &dyn Place,
) -> Outcome {
    let (engine, store) = faulty(place).await?;
    store.write(named(1, "before")).await?;
    engine.fail_commits.store(true, SeqCst);
    engine.fail_reopen.store(true, SeqCst);
    let told = Arc::new(AtomicBool::new(false));
    let failed = told.clone();
    let mut batch = named(2, "lost");
    batch.on_failure(move || failed.store(true, SeqCst));
    batch.then(|_| unreachable!("a failed batch has no then"));
    let lost = store.write(batch).await;
    assert!(
        matches!(&lost, Err(CommitError::Unavailable(reason)) if reason.contains("No space")),
        "{lost:?}"
    );
    assert!(told.load(SeqCst));
    let health = store.health();
    assert!(
        !health.is_writable()
            && health
                .read_only
                .is_some_and(|reason| reason.contains("No space"))
    );
    let refused = store.write(named(3, "refused")).await;
    assert!(
        matches!(refused, Err(CommitError::Unavailable(_))),
        "{refused:?}"
    );
    for _ in 0..20 {
        assert_eq!(
            store.view().get(&NAMES, &1).await?.as_deref(),
            Some("before"),
            "reads are served"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    engine.fail_reopen.store(false, SeqCst);
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(
        !store.health().is_writable(),
        "reopened is not healed: the disk is still full"
    );
    engine.fail_commits.store(false, SeqCst);
    healed(&store).await?;
    assert!(engine.reopens.load(SeqCst) > 1);
    store.write(named(4, "after")).await?;
    let names = store.view().get_many(&NAMES, &[1, 2, 3, 4]).await?;
    assert_eq!(
        names,
        [
            Some("before".to_owned()),
            None,
            None,
            Some("after".to_owned())
        ]
    );
    store.close().await;
    Ok(())
}

/// A batch reported as failed may have been written: its position is not given again, and no view shows it above its
/// watermark.
pub async fn an_unknown_outcome_repeats_no_position(place: &dyn Place) -> Outcome {
    let (engine, store) = faulty(place).await?;
    let first = store.write(named(1, "first")).await?;
    engine.fail_after_commit.store(true, SeqCst);
    let unknown = store.write(named(2, "unknown")).await;
    assert!(
        matches!(unknown, Err(CommitError::Unavailable(_))),
        "{unknown:?}"
    );
    engine.fail_after_commit.store(false, SeqCst);
    healed(&store).await?;
    let view = store.view();
    let rows = view
        .range(&LOG, Range::all(), Direction::Forward, 9)
        .await?;
    assert_eq!(rows, [(first, 1), (first.next(), 2)]);
    assert!(view.watermark() >= first.next());
    let third = store.write(named(3, "third")).await?;
    assert!(third > first.next());
    drop(view);
    store.close().await;
    Ok(())
}

/// Batches queued behind a failing group are answered, in bounded time, and followers learn of the healing.
pub async fn everyone_waiting_is_answered(place: &dyn Place) -> Outcome {
    let (engine, store) = faulty(place).await?;
    let mut wakes = store.wakes();
    engine.fail_commits.store(true, SeqCst);
    let tickets: Vec<_> = (0..50).map(|key| store.submit(named(key, "x"))).collect();
    for ticket in tickets {
        let outcome = tokio::time::timeout(Duration::from_secs(5), ticket.committed()).await?;
        assert!(
            matches!(outcome, Err(CommitError::Unavailable(_))),
            "{outcome:?}"
        );
    }
    assert!(store.fresh_id()? > 0, "ids come from memory");
    engine.fail_commits.store(false, SeqCst);
    healed(&store).await?;
    let wake = tokio::time::timeout(Duration::from_secs(5), wakes.recv())
        .await?
        .ok_or("no wake")?;
    assert!(wake.topics.is_empty() && wake.watermark == store.watermark());
    assert_ne!(store.watermark(), Position::ZERO);
    store.close().await;
    Ok(())
}

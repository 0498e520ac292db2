//! What a store does with many callers at once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::{COUNTS, LOG, Outcome, Place, opened};
use crate::{Batch, Direction, Position, Range, Store};

/// The positions of the log, oldest first.
async fn logged(store: &Store) -> Result<Vec<(Position, u64)>, crate::StoreError> {
    store
        .view()
        .range(&LOG, Range::all(), Direction::Forward, usize::MAX)
        .await
}

fn log(writer: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put_at_position(&LOG, move |position| (position, writer));
    batch
}

/// Concurrent writers get positions without gaps, and each its own.
pub async fn concurrent_writers_get_a_gap_free_order(place: &dyn Place) -> Outcome {
    let store = opened(place).await?;
    let before = store.watermark();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..16_u64 {
        let store = store.clone();
        writers.spawn(async move {
            let mut last = Position::ZERO;
            for round in 0..50 {
                let bulk = round % 5 == 0;
                let ticket = if bulk {
                    store.submit_bulk(log(writer))
                } else {
                    store.submit(log(writer))
                };
                let position = ticket.committed().await?;
                assert!(position > last, "a writer's own batches keep their order");
                last = position;
            }
            Ok::<_, crate::CommitError>(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    let rows = logged(&store).await?;
    let expected: Vec<_> = (1..=800).map(|step| Position(before.0 + step)).collect();
    assert_eq!(
        rows.iter()
            .map(|(position, _)| *position)
            .collect::<Vec<_>>(),
        expected
    );
    assert_eq!(store.watermark(), Position(before.0 + 800));
    store.close().await;
    Ok(())
}

/// Every view shows exactly the rows up to its watermark: none above it, none missing below.
pub async fn no_view_shows_more_or_less_than_its_watermark(place: &dyn Place) -> Outcome {
    let store = opened(place).await?;
    let start = store.watermark();
    let done = Arc::new(AtomicBool::new(false));
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (store, done) = (store.clone(), done.clone());
        readers.spawn(async move {
            let mut views = 0_u64;
            while !done.load(Ordering::SeqCst) {
                let view = store.view();
                let newest = view.first(&LOG, Range::all(), Direction::Backward).await?;
                let shown = newest.map_or(start, |(position, _)| position);
                assert_eq!(shown, view.watermark());
                let rows = view
                    .range(&LOG, Range::from(&start), Direction::Forward, usize::MAX)
                    .await?;
                assert_eq!(u64::try_from(rows.len()).unwrap_or(0), shown.0 - start.0);
                views += 1;
                tokio::task::yield_now().await;
            }
            Ok::<_, crate::StoreError>(views)
        });
    }
    for round in 0..100 {
        let tickets: Vec<_> = (0..round % 7 + 1)
            .map(|_| store.submit(log(round)))
            .collect();
        for ticket in tickets {
            let position = ticket.committed().await?;
            assert!(store.watermark() >= position, "who is told sees it");
        }
    }
    done.store(true, Ordering::SeqCst);
    let mut views = 0;
    while let Some(reader) = readers.join_next().await {
        views += reader??;
    }
    assert!(views > 0, "no reader ran beside the writers");
    store.close().await;
    Ok(())
}

/// What is submitted without waiting keeps its order, so later batches may assert what earlier ones write.
pub async fn submitted_batches_build_on_each_other(place: &dyn Place) -> Outcome {
    let store = opened(place).await?;
    let mut last = store.watermark();
    let mut tickets = Vec::new();
    for step in 0..200_i64 {
        let mut batch = Batch::new();
        if step == 0 {
            batch.assert_absent(&COUNTS, &1);
        } else {
            batch.assert_equals(&COUNTS, &1, &step);
        }
        batch.add(&COUNTS, &1, 1);
        tickets.push(store.submit(batch));
    }
    for ticket in tickets {
        let position = ticket.committed().await?;
        assert!(position > last);
        last = position;
    }
    assert_eq!(store.view().get(&COUNTS, &1).await?, Some(200));
    store.close().await;
    Ok(())
}

/// `then` runs in position order, after the write and before anyone can see it.
pub async fn then_runs_before_the_watermark_moves(place: &dyn Place) -> Outcome {
    let store = opened(place).await?;
    let latest = Arc::new(AtomicU64::new(store.watermark().0));
    let mut watermark = store.subscribe_watermark();
    let index = latest.clone();
    let follower = tokio::spawn(async move {
        while watermark.changed().await.is_ok() {
            let seen = watermark.borrow_and_update().0;
            assert!(
                index.load(Ordering::SeqCst) >= seen,
                "the index is never behind the watermark"
            );
        }
    });
    let mut tickets = Vec::new();
    for writer in 0..300 {
        let (mut batch, latest) = (log(writer), latest.clone());
        batch.then(move |position| {
            let before = latest.swap(position.0, Ordering::SeqCst);
            assert_eq!(before + 1, position.0);
        });
        tickets.push(store.submit(batch));
        if writer % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for ticket in tickets {
        ticket.committed().await?;
    }
    assert_eq!(latest.load(Ordering::SeqCst), store.watermark().0);
    store.close().await;
    drop(store);
    follower.await?;
    Ok(())
}

/// A bulk import does not hold up what others submit.
pub async fn bulk_batches_yield(place: &dyn Place) -> Outcome {
    let store = opened(place).await?;
    let row = "x".repeat(50_000);
    let bulk: Vec<_> = (0..100)
        .map(|number| {
            let mut batch = Batch::new();
            batch.put(&super::NAMES, &number, &row);
            store.submit_bulk(batch)
        })
        .collect();
    let urgent = store.write(log(1)).await?;
    let mut last = Position::ZERO;
    for ticket in bulk {
        let position = ticket.committed().await?;
        assert!(position > last, "bulk batches keep their order");
        last = position;
    }
    assert!(
        urgent < last,
        "the urgent batch waited for the whole import"
    );
    store.close().await;
    Ok(())
}

/// Fresh ids are unique among all callers, and blocks are topped up in time.
pub async fn fresh_ids_are_unique(place: &dyn Place) -> Outcome {
    let store = opened(place).await?;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = store.clone();
        callers.spawn(async move {
            let mut ids = Vec::new();
            for round in 0..400_000_u32 {
                ids.push(store.fresh_id()?);
                if round % 1000 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            Ok::<_, crate::StoreError>(ids)
        });
    }
    let mut all = Vec::new();
    while let Some(ids) = callers.join_next().await {
        all.extend(ids??);
    }
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
    assert!(all.first().is_some_and(|first| *first > 0));
    store.close().await;
    Ok(())
}

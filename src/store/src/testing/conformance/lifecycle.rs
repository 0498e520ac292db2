//! What outlives closing and opening again: rows, numbers, the schema.

use bytes::Bytes;

use super::{
    COUNTS, LOG, Outcome, Place,
    engine::{get, keys, put},
    opened,
};
use crate::{
    Batch, CommitError, Direction, Durability, Keyspace, Migration, OpenError, Options, Position,
    Range, Store,
};

/// Rows are there after closing and opening again, and a view that is held stays readable.
pub async fn rows_survive_closing(place: &dyn Place) -> Outcome {
    let engine = place.open().await;
    engine
        .commit(vec![put(Keyspace::Index, "a", "1")], Durability::Synced)
        .await?;
    engine
        .commit(vec![put(Keyspace::Stream, "b", "2")], Durability::Relaxed)
        .await?;
    engine.close().await?;
    drop(engine);
    let engine = place.open().await;
    let view = engine.view().await?;
    assert_eq!(get(&*view, "a").await?.as_deref(), Some("1"));
    assert_eq!(
        view.get(Keyspace::Stream, b"b").await?,
        Some(Bytes::from("2"))
    );
    Ok(())
}

/// After standing by and reopening, all rows are there and writing works.
pub async fn a_reopened_engine_has_its_rows(place: &dyn Place) -> Outcome {
    let engine = place.open().await;
    engine
        .commit(vec![put(Keyspace::Index, "a", "1")], Durability::Synced)
        .await?;
    let old = engine.view().await?;
    engine.stand_by().await?;
    assert_eq!(
        get(&*old, "a").await?.as_deref(),
        Some("1"),
        "a view outlives its database's replacement"
    );
    let between = engine.view().await?;
    assert_eq!(get(&*between, "a").await?.as_deref(), Some("1"));
    drop(old);
    engine.reopen().await?;
    engine
        .commit(vec![put(Keyspace::Index, "b", "2")], Durability::Synced)
        .await?;
    let view = engine.view().await?;
    assert_eq!(
        keys(&*view, ("a", "z"), Direction::Forward, 9).await?,
        "a b"
    );
    assert_eq!(get(&*between, "b").await?, None);
    Ok(())
}

/// No position and no fresh id comes twice, the epoch stays, and old positions are not from the future.
pub async fn a_restart_gives_no_number_twice(place: &dyn Place) -> Outcome {
    let (mut position, mut id, mut epoch) = (Position::ZERO, 0, None);
    for _ in 0..3 {
        let store = opened(place).await?;
        assert!(store.watermark() >= position);
        assert_eq!(*epoch.get_or_insert(store.epoch()), store.epoch());
        let mut batch = Batch::new();
        batch.put_at_position(&LOG, |position| (position, 0));
        for next in [store.write(batch).await?, store.write(Batch::new()).await?] {
            assert!(next > position);
            position = next;
        }
        let next = store.fresh_id()?;
        assert!(next > id);
        id = next;
        store.close().await;
        assert_eq!(store.write(Batch::new()).await, Err(CommitError::Closed));
        assert!(
            store.view().get(&COUNTS, &1).await.is_err(),
            "a closed store reads nothing"
        );
    }
    let options = Options {
        renew_epoch: true,
        ..Options::default()
    };
    let store = Store::open(place.open().await, options, &[]).await?;
    assert_ne!(
        epoch,
        Some(store.epoch()),
        "a restored store has an epoch of its own"
    );
    store.close().await;
    Ok(())
}

/// Migrations run once, in order; one that fails runs again; a newer store is refused.
pub async fn migrations_run_once_and_in_order(place: &dyn Place) -> Outcome {
    fn step(number: u64, store: Store) -> crate::MigrationFuture {
        Box::pin(async move {
            let mut batch = Batch::new();
            batch.add(&COUNTS, &number, 1);
            store
                .write(batch)
                .await
                .map_err(|error| error.to_string())?;
            let done = store
                .view()
                .get(&COUNTS, &number)
                .await
                .map_err(|error| error.to_string())?;
            if number == 3 && done == Some(1) {
                Err("not yet".to_owned())
            } else {
                Ok(())
            }
        })
    }
    let two = Migration {
        version: 2,
        name: "two",
        run: |store| step(2, store),
    };
    let three = Migration {
        version: 3,
        name: "three",
        run: |store| step(3, store),
    };
    opened(place).await?.close().await;

    let failed = Store::open(place.open().await, Options::default(), &[two, three]).await;
    assert!(
        matches!(failed, Err(OpenError::Migration { version: 3, .. })),
        "{failed:?}"
    );
    let store = Store::open(place.open().await, Options::default(), &[two, three]).await?;
    let counts = store.view().get_many(&COUNTS, &[2, 3]).await?;
    assert_eq!(
        counts,
        [Some(1), Some(2)],
        "a finished migration is not repeated, a failed one is"
    );
    store.close().await;

    let older = Store::open(place.open().await, Options::default(), &[two]).await;
    assert!(
        matches!(
            older,
            Err(OpenError::NewerSchema {
                stored: 3,
                known: 2
            })
        ),
        "{older:?}"
    );
    let gap = Store::open(place.open().await, Options::default(), &[three]).await;
    assert!(
        matches!(gap, Err(OpenError::MigrationOrder { .. })),
        "{gap:?}"
    );
    Ok(())
}

/// Closing finishes what was submitted and refuses what comes later.
pub async fn closing_finishes_what_was_submitted(place: &dyn Place) -> Outcome {
    let store = opened(place).await?;
    let mut tickets = Vec::new();
    for number in 0..100 {
        let mut batch = Batch::new();
        batch.put(&COUNTS, &number, &1);
        tickets.push(if number % 2 == 0 {
            store.submit(batch)
        } else {
            store.submit_bulk(batch)
        });
    }
    store.close().await;
    for ticket in tickets {
        ticket.committed().await?;
    }
    drop(store);
    let store = opened(place).await?;
    assert_eq!(
        store
            .view()
            .range(&COUNTS, Range::all(), Direction::Forward, 1000)
            .await?
            .len(),
        100
    );
    store.close().await;
    Ok(())
}

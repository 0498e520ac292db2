//! What an engine does with bytes.

use bytes::Bytes;

use super::{Outcome, Place};
use crate::{Direction, Durability, EngineView, Keyspace, Operation};

pub(super) fn put(keyspace: Keyspace, key: &str, value: &str) -> Operation {
    Operation::Put {
        keyspace,
        key: key.into(),
        value: value.into(),
    }
}

fn delete(keyspace: Keyspace, key: &str) -> Operation {
    Operation::Delete {
        keyspace,
        key: key.into(),
    }
}

fn delete_range(keyspace: Keyspace, start: &str, end: &str) -> Operation {
    Operation::DeleteRange {
        keyspace,
        start: start.into(),
        end: end.into(),
    }
}

pub(super) async fn get(
    view: &dyn EngineView,
    key: &str,
) -> Result<Option<String>, crate::EngineError> {
    let found = view.get(Keyspace::Index, key.as_bytes()).await?;
    Ok(found.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// The keys of a range, joined by blanks.
pub(super) async fn keys(
    view: &dyn EngineView,
    (start, end): (&str, &str),
    direction: Direction,
    limit: usize,
) -> Result<String, crate::EngineError> {
    let rows = view
        .range(
            Keyspace::Index,
            start.as_bytes(),
            end.as_bytes(),
            direction,
            limit,
        )
        .await?;
    let keys: Vec<_> = rows
        .iter()
        .map(|(key, _)| String::from_utf8_lossy(key))
        .collect();
    Ok(keys.join(" "))
}

/// Rows are written, replaced and deleted, each in its keyspace; deleting what is not there is no error.
pub async fn rows_are_written_replaced_and_deleted(place: &dyn Place) -> Outcome {
    let engine = place.open().await;
    engine
        .commit(
            vec![
                put(Keyspace::Index, "a", "1"),
                put(Keyspace::Bulk, "a", "bulk"),
            ],
            Durability::Synced,
        )
        .await?;
    engine
        .commit(
            vec![
                put(Keyspace::Index, "a", "2"),
                put(Keyspace::Index, "b", ""),
            ],
            Durability::Relaxed,
        )
        .await?;
    let view = engine.view().await?;
    assert_eq!(get(&*view, "a").await?.as_deref(), Some("2"));
    assert_eq!(
        get(&*view, "b").await?.as_deref(),
        Some(""),
        "an empty value is a value"
    );
    assert_eq!(
        view.get(Keyspace::Bulk, b"a").await?,
        Some(Bytes::from("bulk"))
    );
    assert_eq!(view.get(Keyspace::Stream, b"a").await?, None);
    engine
        .commit(
            vec![
                delete(Keyspace::Index, "a"),
                delete(Keyspace::Index, "never there"),
            ],
            Durability::Synced,
        )
        .await?;
    let view = engine.view().await?;
    assert_eq!(get(&*view, "a").await?, None);
    assert_eq!(
        view.get(Keyspace::Bulk, b"a").await?,
        Some(Bytes::from("bulk"))
    );
    Ok(())
}

/// A view shows what was committed before it, however much is committed later.
pub async fn a_view_is_a_snapshot(place: &dyn Place) -> Outcome {
    let engine = place.open().await;
    let empty = engine.view().await?;
    engine
        .commit(
            vec![
                put(Keyspace::Index, "a", "1"),
                put(Keyspace::Index, "b", "1"),
            ],
            Durability::Relaxed,
        )
        .await?;
    let first = engine.view().await?;
    engine
        .commit(
            vec![put(Keyspace::Index, "a", "2"), delete(Keyspace::Index, "b")],
            Durability::Relaxed,
        )
        .await?;
    let second = engine.view().await?;
    engine
        .commit(
            vec![delete_range(Keyspace::Index, "a", "z")],
            Durability::Relaxed,
        )
        .await?;
    for round in 0..50 {
        engine
            .commit(
                vec![put(Keyspace::Index, "c", &round.to_string())],
                Durability::Relaxed,
            )
            .await?;
    }
    assert_eq!(get(&*empty, "a").await?, None);
    assert_eq!(keys(&*empty, ("a", "z"), Direction::Forward, 9).await?, "");
    assert_eq!(get(&*first, "a").await?.as_deref(), Some("1"));
    assert_eq!(
        keys(&*first, ("a", "z"), Direction::Forward, 9).await?,
        "a b"
    );
    assert_eq!(get(&*second, "a").await?.as_deref(), Some("2"));
    assert_eq!(
        keys(&*second, ("a", "z"), Direction::Backward, 9).await?,
        "a"
    );
    let last = engine.view().await?;
    assert_eq!(keys(&*last, ("a", "z"), Direction::Forward, 9).await?, "c");
    assert_eq!(get(&*last, "c").await?.as_deref(), Some("49"));
    Ok(())
}

/// Many rows are answered in the order of the keys, also missing and repeated ones.
pub async fn many_rows_come_in_the_order_asked(place: &dyn Place) -> Outcome {
    let engine = place.open().await;
    engine
        .commit(
            vec![
                put(Keyspace::Index, "a", "1"),
                put(Keyspace::Index, "b", "2"),
            ],
            Durability::Relaxed,
        )
        .await?;
    let view = engine.view().await?;
    let asked: Vec<Vec<u8>> = ["b", "none", "a", "b"]
        .iter()
        .map(|key| key.as_bytes().to_vec())
        .collect();
    let found = view.get_many(Keyspace::Index, &asked).await?;
    assert_eq!(
        found,
        [
            Some(Bytes::from("2")),
            None,
            Some(Bytes::from("1")),
            Some(Bytes::from("2"))
        ]
    );
    assert!(view.get_many(Keyspace::Index, &[]).await?.is_empty());
    Ok(())
}

/// Ranges include their start and not their end, go both ways, and stop at the limit.
pub async fn ranges_have_bounds_directions_and_limits(place: &dyn Place) -> Outcome {
    let engine = place.open().await;
    let rows = ["a", "b", "ba", "c", "d\u{ff}"]
        .iter()
        .map(|key| put(Keyspace::Index, key, "x"))
        .collect();
    engine.commit(rows, Durability::Relaxed).await?;
    let view = engine.view().await?;
    assert_eq!(
        keys(&*view, ("b", "d"), Direction::Forward, 9).await?,
        "b ba c"
    );
    assert_eq!(
        keys(&*view, ("b", "d"), Direction::Backward, 9).await?,
        "c ba b"
    );
    assert_eq!(
        keys(&*view, ("b", "c"), Direction::Forward, 9).await?,
        "b ba"
    );
    assert_eq!(
        keys(&*view, ("aa", "z"), Direction::Forward, 2).await?,
        "b ba"
    );
    assert_eq!(
        keys(&*view, ("aa", "z"), Direction::Backward, 2).await?,
        "d\u{ff} c"
    );
    assert_eq!(keys(&*view, ("b", "b"), Direction::Forward, 9).await?, "");
    assert_eq!(
        keys(&*view, ("c", "b"), Direction::Backward, 9).await?,
        "",
        "an inverted range is empty"
    );
    Ok(())
}

/// The operations of a commit apply in order.
pub async fn operations_apply_in_order(place: &dyn Place) -> Outcome {
    let engine = place.open().await;
    let index = Keyspace::Index;
    engine
        .commit(
            vec![put(index, "a", "old"), put(index, "m", "old")],
            Durability::Relaxed,
        )
        .await?;
    let operations = vec![
        put(index, "b", "before the range"),
        delete_range(index, "a", "c"),
        put(index, "a", "after the range"),
        put(index, "c", "outside"),
        put(index, "x", "1"),
        delete(index, "x"),
        delete(index, "y"),
        put(index, "y", "2"),
        delete_range(index, "z", "a"),
    ];
    engine.commit(operations, Durability::Relaxed).await?;
    let view = engine.view().await?;
    assert_eq!(
        keys(&*view, ("a", "zz"), Direction::Forward, 9).await?,
        "a c m y"
    );
    assert_eq!(get(&*view, "a").await?.as_deref(), Some("after the range"));
    Ok(())
}

/// Large values and large commits pass whole.
pub async fn large_values_and_commits_pass(place: &dyn Place) -> Outcome {
    let engine = place.open().await;
    let value = vec![7_u8; 100_000];
    let row = |key: u8| Operation::Put {
        keyspace: Keyspace::Bulk,
        key: vec![1, key],
        value: value.clone(),
    };
    engine
        .commit((0..40).map(row).collect(), Durability::Synced)
        .await?;
    let rows = engine
        .view()
        .await?
        .range(Keyspace::Bulk, &[1], &[2], Direction::Forward, 100)
        .await?;
    assert_eq!(rows.len(), 40);
    assert!(rows.iter().all(|(_, found)| found[..] == value[..]));
    Ok(())
}

//! Engines beside a plain sorted map: whatever is done to both, both show the same, in every view ever taken.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, sync::Arc};

use proptest::{collection::vec, prelude::*};
use vatra_store::{Direction, Durability, Engine, EngineView, Keyspace, MemoryEngine, Operation};
use vatra_store_rocksdb::{RocksEngine, Settings};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;
const SPACE: Keyspace = Keyspace::Index;

fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(0..3_u8, 1..4)
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (key(), any::<u8>()).prop_map(|(key, value)| Operation::Put { keyspace: SPACE, key, value: vec![value] }),
        2 => key().prop_map(|key| Operation::Delete { keyspace: SPACE, key }),
        1 => (key(), key()).prop_map(|(start, end)| Operation::DeleteRange { keyspace: SPACE, start, end }),
    ]
}

fn apply(model: &mut Model, operation: &Operation) {
    match operation {
        Operation::Put { key, value, .. } => drop(model.insert(key.clone(), value.clone())),
        Operation::Delete { key, .. } => drop(model.remove(key)),
        Operation::DeleteRange { start, end, .. } => {
            model.retain(|key, _| key < start || key >= end)
        }
    }
}

async fn same(
    view: &dyn EngineView,
    model: &Model,
    (start, end): &(Vec<u8>, Vec<u8>),
    limit: usize,
) {
    let expected: Vec<_> = model
        .iter()
        .filter(|(key, _)| *key >= start && *key < end)
        .collect();
    for direction in [Direction::Forward, Direction::Backward] {
        let found = view
            .range(SPACE, start, end, direction, limit)
            .await
            .unwrap();
        let mut expected = expected.clone();
        if direction == Direction::Backward {
            expected.reverse();
        }
        expected.truncate(limit);
        let found: Vec<_> = found
            .iter()
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect();
        assert_eq!(
            found
                .iter()
                .map(|(key, value)| (key, value))
                .collect::<Vec<_>>(),
            expected
        );
    }
    let keys: Vec<_> = model
        .keys()
        .cloned()
        .chain([start.clone(), end.clone()])
        .collect();
    let found = view.get_many(SPACE, &keys).await.unwrap();
    for (key, found) in keys.iter().zip(found) {
        assert_eq!(found.as_deref(), model.get(key).map(Vec::as_slice));
    }
}

async fn check(
    engine: Arc<dyn Engine>,
    commits: Vec<Vec<Operation>>,
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
    keep: usize,
) {
    let mut model = Model::new();
    let mut views = Vec::new();
    for (number, operations) in commits.into_iter().enumerate() {
        operations
            .iter()
            .for_each(|operation| apply(&mut model, operation));
        engine
            .commit(operations, Durability::Relaxed)
            .await
            .unwrap();
        views.push((engine.view().await.unwrap(), model.clone()));
        if number % 3 == 2 {
            // Some views go early: what they alone could see may be dropped, and nothing else.
            views.remove(keep % views.len());
        }
        for (view, model) in &views {
            for (limit, range) in ranges.iter().enumerate() {
                same(&**view, model, range, limit * 3 + 1).await;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn engines_agree_with_a_sorted_map(
        commits in vec(vec(operation(), 0..6), 1..12),
        ranges in vec((key(), key()), 3),
        keep in 0..100_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            check(Arc::new(MemoryEngine::new()), commits.clone(), ranges.clone(), keep).await;
            let dir = tempfile::tempdir().unwrap();
            let engine = RocksEngine::open(dir.path(), &Settings::default()).await.unwrap();
            check(Arc::new(engine), commits, ranges, keep).await;
        });
    }
}

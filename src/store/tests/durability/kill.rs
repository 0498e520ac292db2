//! kill -9 at any moment loses no acknowledged batch and repeats no position, whether batches are synced or not: what
//! is written outlives the process.

use std::{collections::HashMap, time::Duration};

use vatra_store::{Durability, Position};

use crate::writer::{self, Ack};

const ROUNDS: u64 = 20;

#[test]
fn a_killed_process_loses_no_acknowledged_batch() {
    let place = tempfile::tempdir().unwrap();
    let (dir, notes) = (place.path().join("store"), place.path().join("notes"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut acks: Vec<Ack> = Vec::new();
    let mut given: HashMap<Position, u64> = HashMap::new();
    let mut before = Position::ZERO;
    for round in 0..ROUNDS {
        let durability = if round % 2 == 0 {
            Durability::Synced
        } else {
            Durability::Relaxed
        };
        let mut child = writer::command(&dir, &notes, round << 32, u64::MAX >> 32, durability)
            .spawn()
            .unwrap();
        let seen = acks.len();
        while read(&notes).len() == seen {
            assert!(
                child.try_wait().unwrap().is_none(),
                "the writer ended by itself"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(round * 37 % 90));
        child.kill().unwrap();
        child.wait().unwrap();

        acks = read(&notes);
        for ack in &acks[seen..] {
            assert!(
                ack.position > before,
                "position {} was given before",
                ack.position
            );
            assert_eq!(
                given.insert(ack.position, ack.key),
                None,
                "position {} came twice",
                ack.position
            );
        }
        let newest = runtime.block_on(async {
            let store = writer::open(&dir, Durability::Synced).await;
            assert_eq!(writer::missing(&store, &acks).await, [], "in round {round}");
            let newest = writer::newest(&store).await;
            assert!(
                store.watermark() >= newest,
                "a view shows a row above its watermark"
            );
            store.close().await;
            newest
        });
        before = before.max(newest);
    }
    assert!(acks.len() > 100, "only {} rows were written", acks.len());
}

fn read(notes: &std::path::Path) -> Vec<Ack> {
    std::fs::read_to_string(notes)
        .unwrap_or_default()
        .lines()
        .filter_map(Ack::parse)
        .collect()
}

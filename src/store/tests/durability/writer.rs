//! The child that writes, and how to look at what it left.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use vatra_store::{Batch, Direction, Durability, Keyspace, Map, Options, Position, Range, Store};
use vatra_store_rocksdb::{RocksEngine, Settings};

pub(crate) const ROWS: Map<u64, String> = Map::new(Keyspace::Bulk, 1, "rows");
pub(crate) const LOG: Map<Position, u64> = Map::new(Keyspace::Stream, 2, "log");

/// How many tasks write.
const WRITERS: u64 = 8;
/// Small, so that memtables are flushed and logs switched within a test.
const SETTINGS: Settings = Settings {
    memory_budget_bytes: 8 << 20,
};

/// An acknowledged row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) key: u64,
    pub(crate) position: Position,
}

impl Ack {
    /// Reads a line that the child wrote; `None` for other lines, also one that a kill tore.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("ack ")?.strip_suffix('.')?.split(' ');
        let mut number = || words.next()?.parse().ok();
        Some(Ack {
            key: number()?,
            position: Position(number()?),
        })
    }
}

/// What the row of a key holds; incompressible enough to fill files.
pub(crate) fn value(key: u64) -> String {
    let mut state = key;
    let mut words = Vec::new();
    for _ in 0..150 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        words.push(format!("{state:016x}"));
    }
    words.concat()
}

pub(crate) async fn open(dir: &Path, durability: Durability) -> Store {
    let engine = RocksEngine::open(dir, &SETTINGS).await.unwrap();
    let options = Options {
        durability,
        ..Options::default()
    };
    Store::open(Arc::new(engine), options, &[]).await.unwrap()
}

/// Every acknowledged row is there, and so is its place in the log; returns the last position of the log.
pub(crate) async fn missing(store: &Store, acks: &[Ack]) -> Vec<Ack> {
    let view = store.view();
    let keys: Vec<_> = acks.iter().map(|ack| ack.key).collect();
    let positions: Vec<_> = acks.iter().map(|ack| ack.position).collect();
    let rows = view.get_many(&ROWS, &keys).await.unwrap();
    let log = view.get_many(&LOG, &positions).await.unwrap();
    let whole = |(ack, (row, logged)): &(&Ack, (Option<String>, Option<u64>))| {
        row.as_ref() == Some(&value(ack.key)) && *logged == Some(ack.key)
    };
    acks.iter()
        .zip(rows.into_iter().zip(log))
        .filter(|row| !whole(row))
        .map(|(ack, _)| *ack)
        .collect()
}

/// The newest row of the log.
pub(crate) async fn newest(store: &Store) -> Position {
    let newest = store
        .view()
        .first(&LOG, Range::all(), Direction::Backward)
        .await
        .unwrap();
    newest.map_or(Position::ZERO, |(position, _)| position)
}

/// A command that runs [`child`] on `dir` from key `first`, noting acknowledgements in `notes`, ending after `rows` rows.
pub(crate) fn command(
    dir: &Path,
    notes: &Path,
    first: u64,
    rows: u64,
    durability: Durability,
) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "writer::child", "--ignored", "--nocapture"]);
    command.env("WRITER_DIR", dir).env("WRITER_NOTES", notes);
    command
        .env("WRITER_FIRST", first.to_string())
        .env("WRITER_ROWS", rows.to_string());
    command.env(
        "WRITER_RELAXED",
        if durability == Durability::Relaxed {
            "1"
        } else {
            ""
        },
    );
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

#[test]
#[ignore = "the process that the other tests start and end"]
fn child() {
    let setting = |name| std::env::var(name).unwrap();
    let (dir, first) = (
        PathBuf::from(setting("WRITER_DIR")),
        setting("WRITER_FIRST").parse::<u64>().unwrap(),
    );
    let last = first + setting("WRITER_ROWS").parse::<u64>().unwrap();
    let durability = if setting("WRITER_RELAXED").is_empty() {
        Durability::Synced
    } else {
        Durability::Relaxed
    };
    let notes = OpenOptions::new()
        .append(true)
        .create(true)
        .open(setting("WRITER_NOTES"))
        .unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = open(&dir, durability).await;
        let (notes, next) = (Arc::new(notes), Arc::new(AtomicU64::new(first)));
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..WRITERS {
            writers.spawn(write(store.clone(), notes.clone(), next.clone(), last));
        }
        while let Some(done) = writers.join_next().await {
            done.unwrap();
        }
    });
}

async fn write(store: Store, notes: Arc<File>, next: Arc<AtomicU64>, last: u64) {
    loop {
        let key = next.fetch_add(1, Ordering::SeqCst);
        if key >= last {
            return;
        }
        let mut batch = Batch::new();
        batch
            .put(&ROWS, &key, &value(key))
            .put_at_position(&LOG, move |position| (position, key));
        let position = store.write(batch).await.unwrap();
        // One write, so that a line is whole or not there.
        (&*notes)
            .write_all(format!("ack {key} {position}.\n").as_bytes())
            .unwrap();
    }
}

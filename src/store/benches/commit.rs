//! Committed batches a second, beside RocksDB itself writing the same rows in the same run.
//!
//! A batch is what a message costs at the least: a row of half a kilobyte, a row of the log, a row of an index. The store
//! is measured with 1, 8 and 64 tasks that each wait for their batch before the next; RocksDB with a bare loop (relaxed) and
//! with as many threads (synced). Aims: relaxed at least half of the bare loop; 64 synced writers at least four fifths of
//! RocksDB's 64 synced threads.

#![allow(missing_docs, clippy::unwrap_used, clippy::as_conversions)]

use std::{
    path::Path,
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rocksdb::{ColumnFamilyDescriptor, DB, DBCompressionType, WriteBatch, WriteOptions};
use tokio::runtime::Runtime;
use vatra_store::{Batch, Durability, Keyspace, Map, Options, Position, Store};
use vatra_store_rocksdb::{RocksEngine, Settings};

const EVENTS: Map<u64, String> = Map::new(Keyspace::Bulk, 1, "events");
const LOG: Map<Position, u64> = Map::new(Keyspace::Stream, 2, "log");
const INDEX: Map<(u64, String), u64> = Map::new(Keyspace::Index, 3, "index");
const WRITERS: [u64; 3] = [1, 8, 64];

fn batch(number: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(&EVENTS, &number, &value(number));
    batch.put_at_position(&LOG, move |position| (position, number));
    batch.put(&INDEX, &(number % 100, name(number)), &number);
    batch
}

fn value(number: u64) -> String {
    format!("{number:0500}")
}

fn name(number: u64) -> String {
    format!("$event{number}:example.org")
}

fn open(runtime: &Runtime, dir: &Path, durability: Durability) -> Store {
    runtime.block_on(async {
        let engine = RocksEngine::open(dir, &Settings::default()).await.unwrap();
        Store::open(
            Arc::new(engine),
            Options {
                durability,
                ..Options::default()
            },
            &[],
        )
        .await
        .unwrap()
    })
}

/// How long `writers` tasks take for `count` batches in all.
async fn through_the_store(store: Store, writers: u64, count: u64) -> Duration {
    let each = count.div_ceil(writers);
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let store = store.clone();
        tasks.spawn(async move {
            for step in 0..each {
                store.write(batch(writer << 32 | step)).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    scaled(start.elapsed(), count, each * writers)
}

/// The writers share the count evenly, so a few more may have been written than were asked for.
fn scaled(elapsed: Duration, asked: u64, done: u64) -> Duration {
    elapsed.mul_f64(asked as f64 / done as f64)
}

fn bare(dir: &Path) -> DB {
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let families = [
        ("index", DBCompressionType::Lz4),
        ("bulk", DBCompressionType::Zstd),
        ("stream", DBCompressionType::Lz4),
    ];
    let families = families.map(|(name, compression)| {
        let mut options = rocksdb::Options::default();
        options.set_compression_type(compression);
        options.set_write_buffer_size(16 << 20);
        ColumnFamilyDescriptor::new(name, options)
    });
    DB::open_cf_descriptors(&options, dir, families).unwrap()
}

/// The same rows as [`batch`], with the position that the store would give.
fn bare_write(db: &DB, number: u64, position: u64, sync: bool) {
    let family = |name| db.cf_handle(name).unwrap();
    let key = |map: u8, parts: &[&[u8]]| [&[map], parts.concat().as_slice()].concat();
    let mut rows = WriteBatch::default();
    rows.put_cf(
        &family("bulk"),
        key(1, &[&number.to_be_bytes()]),
        value(number),
    );
    rows.put_cf(
        &family("stream"),
        key(2, &[&position.to_be_bytes()]),
        number.to_le_bytes(),
    );
    let index = key(
        3,
        &[
            &(number % 100).to_be_bytes(),
            name(number).as_bytes(),
            &[0, 0],
        ],
    );
    rows.put_cf(&family("index"), index, number.to_le_bytes());
    let mut options = WriteOptions::default();
    options.set_sync(sync);
    db.write_opt(rows, &options).unwrap();
}

fn through_threads(db: &DB, threads: u64, count: u64, first: u64, sync: bool) -> Duration {
    let each = count.div_ceil(threads);
    let ready = Barrier::new(usize::try_from(threads).unwrap() + 1);
    let start = std::thread::scope(|scope| {
        for thread in 0..threads {
            let ready = &ready;
            scope.spawn(move || {
                ready.wait();
                for step in 0..each {
                    bare_write(
                        db,
                        thread << 32 | step,
                        first + step * threads + thread,
                        sync,
                    );
                }
            });
        }
        ready.wait();
        Instant::now()
    });
    scaled(start.elapsed(), count, each * threads)
}

fn measure(criterion: &mut Criterion, name: &str, durability: Durability, bare_threads: &[u64]) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(1)).sample_size(10);
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    for threads in bare_threads {
        let dir = tempfile::tempdir().unwrap();
        let (db, sync) = (bare(dir.path()), durability == Durability::Synced);
        let mut first = 0;
        group.bench_function(BenchmarkId::new("rocksdb", threads), |bencher| {
            bencher.iter_custom(|count| {
                first += count * 2;
                through_threads(&db, *threads, count, first, sync)
            });
        });
    }
    for writers in WRITERS {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&runtime, dir.path(), durability);
        group.bench_function(BenchmarkId::new("store", writers), |bencher| {
            // On a worker of the runtime, as in a server.
            bencher.iter_custom(|count| {
                runtime.block_on(async {
                    tokio::spawn(through_the_store(store.clone(), writers, count))
                        .await
                        .unwrap()
                })
            });
        });
        runtime.block_on(store.close());
    }
    group.finish();
}

fn relaxed(criterion: &mut Criterion) {
    measure(criterion, "relaxed", Durability::Relaxed, &[1]);
}

fn synced(criterion: &mut Criterion) {
    measure(criterion, "synced", Durability::Synced, &WRITERS);
}

criterion_group!(benches, relaxed, synced);
criterion_main!(benches);

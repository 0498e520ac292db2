//! The RocksDB engine of vatra-store: the default, embedded one.
//!
//! The server's wiring opens it; nobody else names RocksDB. One database, one column family per keyspace, one memory
//! budget for block cache and memtables. Reads are tried inline against what is in memory and move to the blocking
//! pool only if the disk is needed. Synced commits run on the blocking pool, relaxed ones inline.
//!
//! # Invariants
//!
//! - A damaged log or table stops the start with a message that names it; nothing is rolled back silently. Only an
//!   incomplete last record of the log, what a power cut leaves of a write that nobody was told of, is dropped.
//! - No code here is `unsafe`: handles and snapshots that borrow the database live beside it in `self_cell`s.
//! - A database is closed when its last view is gone, so a view can never dangle.

mod commit;
mod database;
mod engine;
mod errors;
mod open;
mod settings;
mod snapshot;

pub use self::{engine::RocksEngine, settings::Settings};

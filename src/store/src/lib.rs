//! An ordered, typed, watchable key-value store. It knows bytes and numbers, not Matrix events.
//!
//! The domain crate is the caller. It declares typed [`Map`]s, reads them through a [`View`] (a snapshot with the
//! position it belongs to), and changes them by handing [`Batch`]es to the one committer behind [`Store`].
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use vatra_store::{Batch, Keyspace, Map, MemoryEngine, Options, Store};
//!
//! const NAMES: Map<u64, String> = Map::new(Keyspace::Index, 1, "names");
//!
//! let store = Store::open(Arc::new(MemoryEngine::new()), Options::default(), &[]).await?;
//! let mut batch = Batch::new();
//! batch.put(&NAMES, &7, &"vatra".to_owned());
//! let position = store.write(batch).await?;
//! assert!(store.view().watermark() >= position);
//! assert_eq!(store.view().get(&NAMES, &7).await?.as_deref(), Some("vatra"));
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//!
//! - The committer is the only writer. Position order is commit order is visibility order, without gaps while the
//!   process lives; no position is ever given twice, not even after a crash.
//! - A view never shows a row newer than its watermark: both are taken together, after each group.
//! - A ticket that says "committed" means that the rows are in a synced log (unless durability is relaxed).
//! - Only this crate and its engines know how rows are stored.
//!
//! # Map of the crate
//!
//! `keys` and `values` are the codecs, `map` and `range` the typed names of rows, `batch` what a write is, `view` what
//! a read is, `engine` the boundary to RocksDB and others (`memory` is the executable description), `committer` the
//! writer, `store` the handle, `meta` the store's own rows, `migrations` the schema version, and `testing` the suite
//! that every engine must pass.

mod batch;
mod changes;
mod committer;
mod engine;
mod error;
mod health;
mod keys;
mod map;
mod memory;
mod meta;
mod migrations;
mod options;
mod position;
mod range;
mod reservation;
mod store;
pub mod testing;
mod ticket;
mod values;
mod view;

pub use self::{
    batch::Batch,
    engine::{Durability, Engine, EngineError, EngineStats, EngineView, Operation, PerKeyspace},
    error::{CommitError, DecodeError, OpenError, StoreError},
    health::{Health, Stats},
    keys::Key,
    map::{Keyspace, Map},
    memory::MemoryEngine,
    migrations::{Migration, MigrationFuture},
    options::Options,
    position::{Position, Topic, Wake},
    range::{Direction, Range},
    store::Store,
    ticket::Ticket,
    values::Value,
    view::View,
};

/// What the macros of this crate expand to; not for direct use.
#[doc(hidden)]
pub mod private {
    pub use bytes::Bytes;

    pub use crate::values::{from_postcard, to_postcard};
}

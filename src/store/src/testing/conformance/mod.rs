//! The suite that every engine must pass, alone and under a store.
//!
//! An engine's tests implement [`Place`] and call each function here from a test of the same name; see
//! `tests/conformance.rs`. Each function wants a fresh place. They panic or return an error when the engine is wrong.

mod concurrency;
mod engine;
mod failure;
mod lifecycle;
mod store;

use std::sync::Arc;

use async_trait::async_trait;

pub use self::{concurrency::*, engine::*, failure::*, lifecycle::*, store::*};
use crate::{Engine, Keyspace, Map, OpenError, Options, Position, Store};

/// Somewhere an engine keeps rows.
#[async_trait]
pub trait Place: Send + Sync {
    /// Opens the engine on the same rows each time; the one opened before has been closed.
    async fn open(&self) -> Arc<dyn Engine>;
}

/// How a check ends.
pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

const NAMES: Map<u64, String> = Map::new(Keyspace::Index, 1, "names");
const COUNTS: Map<u64, i64> = Map::new(Keyspace::Index, 2, "counts");
const LOG: Map<Position, u64> = Map::new(Keyspace::Stream, 3, "log");
const PAIRS: Map<(u64, String), u64> = Map::new(Keyspace::Bulk, 4, "pairs");

async fn opened(place: &dyn Place) -> Result<Store, OpenError> {
    Store::open(place.open().await, Options::default(), &[]).await
}

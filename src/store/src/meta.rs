//! The store's own rows, in map 0 of the index keyspace.

use crate::{Keyspace, Map, Operation, Value};

/// The number of the store's own map.
const ID: u8 = 0;

/// The schema version of the rows above the store.
pub(crate) const SCHEMA: Map<u8, u32> = Map::own(Keyspace::Index, ID, "store_schema");
/// Numbers of the store: see the `KEY_` constants.
pub(crate) const NUMBERS: Map<u8, u64> = Map::own(Keyspace::Index, ID, "store_numbers");

/// In [`SCHEMA`]: the version.
pub(crate) const KEY_SCHEMA: u8 = 0;
/// In [`NUMBERS`]: the epoch that tokens carry.
pub(crate) const KEY_EPOCH: u8 = 1;
/// In [`NUMBERS`]: the last position that may have been given out.
pub(crate) const KEY_POSITIONS: u8 = 2;
/// In [`NUMBERS`]: the last fresh id that may have been given out.
pub(crate) const KEY_IDS: u8 = 3;

/// The store's own row as an engine operation.
pub(crate) fn row<V: Value>(map: &Map<u8, V>, key: u8, value: &V) -> Operation {
    Operation::Put {
        keyspace: map.keyspace(),
        key: map.key_bytes(&key),
        value: value.to_bytes(),
    }
}

//! Typed names of rows.

use std::{fmt, marker::PhantomData};

use bytes::Bytes;

use crate::{Key, StoreError, Value};

/// Where a map's rows live. Engines tune each keyspace for its purpose. The list is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keyspace {
    /// Small rows, read at random by their exact key.
    Index,
    /// Large values that compress well.
    Bulk,
    /// Rows appended in key order and read in ranges.
    Stream,
}

impl Keyspace {
    /// All of them.
    pub const ALL: [Keyspace; 3] = [Self::Index, Self::Bulk, Self::Stream];

    /// The stable name that engines store under.
    pub fn name(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Bulk => "bulk",
            Self::Stream => "stream",
        }
    }
}

/// A typed map: a keyspace, the number that is the first byte of all its keys, and the types of key and value.
pub struct Map<K, V> {
    keyspace: Keyspace,
    id: u8,
    name: &'static str,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Map<K, V> {
    /// Declares a map. `id` is unique in the whole store and never reused. It is 1 to 254: zero is the store's own, and
    /// another id does not compile in a constant.
    pub const fn new(keyspace: Keyspace, id: u8, name: &'static str) -> Self {
        assert!(id != 0 && id != u8::MAX, "a map's id is 1 to 254");
        Self::own(keyspace, id, name)
    }

    /// A map of the store itself, or one declared before.
    pub(crate) const fn own(keyspace: Keyspace, id: u8, name: &'static str) -> Self {
        Self {
            keyspace,
            id,
            name,
            types: PhantomData,
        }
    }

    /// Where its rows live.
    pub fn keyspace(&self) -> Keyspace {
        self.keyspace
    }

    /// The first byte of its keys.
    pub fn id(&self) -> u8 {
        self.id
    }

    /// Its name, for messages.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl<K: Key, V: Value> Map<K, V> {
    /// The stored form of a key: the map's number, then the key.
    pub(crate) fn key_bytes(&self, key: &K) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        out.push(self.id);
        key.encode(&mut out);
        out
    }

    pub(crate) fn decode_key(&self, bytes: &[u8]) -> Result<K, StoreError> {
        let mut input = bytes.get(1..).unwrap_or_default();
        let key = K::decode(&mut input).map_err(|error| StoreError::Decode {
            map: self.name,
            error,
        })?;
        if input.is_empty() {
            Ok(key)
        } else {
            Err(StoreError::Decode {
                map: self.name,
                error: crate::DecodeError::new("a key with bytes left over"),
            })
        }
    }

    pub(crate) fn decode_value(&self, bytes: Bytes) -> Result<V, StoreError> {
        V::from_bytes(bytes).map_err(|error| StoreError::Decode {
            map: self.name,
            error,
        })
    }
}

impl<K, V> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Map({} {}/{})", self.name, self.keyspace.name(), self.id)
    }
}

//! What a write is: a closed list of operations, applied atomically.

use crate::{Key, Keyspace, Map, Position, Range, Topic, Value};

/// Makes a row (stored key and value) once its position is known.
pub(crate) type MakeRow = Box<dyn FnOnce(Position) -> (Vec<u8>, Vec<u8>) + Send>;
/// Runs on the committer once the batch is written.
pub(crate) type Then = Box<dyn FnOnce(Position) + Send>;
/// Runs on the committer once the batch has failed.
pub(crate) type OnFailure = Box<dyn FnOnce() + Send>;

/// One change of a batch.
pub(crate) enum Change {
    Put {
        keyspace: Keyspace,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        keyspace: Keyspace,
        key: Vec<u8>,
    },
    DeleteRange {
        keyspace: Keyspace,
        start: Vec<u8>,
        end: Vec<u8>,
    },
    Add {
        keyspace: Keyspace,
        key: Vec<u8>,
        delta: i64,
    },
    PutAtPosition {
        keyspace: Keyspace,
        make: MakeRow,
    },
}

/// One condition of a batch.
pub(crate) struct Assert {
    pub(crate) keyspace: Keyspace,
    pub(crate) key: Vec<u8>,
    /// `None`: the row must be absent.
    pub(crate) expected: Option<Vec<u8>>,
}

/// A list of changes that happen together or not at all.
///
/// Changes apply in the order they were added. Asserts are judged first, all against the state before the batch, which
/// includes every batch submitted earlier. A batch without changes still gets a position, and costs no engine write.
#[derive(Default)]
pub struct Batch {
    pub(crate) changes: Vec<Change>,
    pub(crate) asserts: Vec<Assert>,
    pub(crate) topics: Vec<Topic>,
    pub(crate) then: Vec<Then>,
    pub(crate) on_failure: Vec<OnFailure>,
    /// Bytes of keys and values, for the size of groups.
    pub(crate) bytes: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a row, replacing the one that is there.
    pub fn put<K: Key, V: Value>(&mut self, map: &Map<K, V>, key: &K, value: &V) -> &mut Self {
        let (key, value) = (map.key_bytes(key), value.to_bytes());
        self.bytes += key.len() + value.len();
        self.changes.push(Change::Put {
            keyspace: map.keyspace(),
            key,
            value,
        });
        self
    }

    /// Deletes a row; a row that is not there is no error.
    pub fn delete<K: Key, V: Value>(&mut self, map: &Map<K, V>, key: &K) -> &mut Self {
        let key = map.key_bytes(key);
        self.bytes += key.len();
        self.changes.push(Change::Delete {
            keyspace: map.keyspace(),
            key,
        });
        self
    }

    /// Deletes all rows in a range.
    pub fn delete_range<K: Key, V: Value>(&mut self, map: &Map<K, V>, range: Range) -> &mut Self {
        let (start, end) = range.bounds(map.id());
        self.changes.push(Change::DeleteRange {
            keyspace: map.keyspace(),
            start,
            end,
        });
        self
    }

    /// Adds to a counter; an absent row counts as zero. The row stays when it reaches zero.
    pub fn add<K: Key>(&mut self, map: &Map<K, i64>, key: &K, delta: i64) -> &mut Self {
        let key = map.key_bytes(key);
        self.bytes += key.len() + 8;
        self.changes.push(Change::Add {
            keyspace: map.keyspace(),
            key,
            delta,
        });
        self
    }

    /// The batch fails with [`crate::CommitError::AssertFailed`] unless the row has this value.
    pub fn assert_equals<K: Key, V: Value>(
        &mut self,
        map: &Map<K, V>,
        key: &K,
        value: &V,
    ) -> &mut Self {
        self.asserts.push(Assert {
            keyspace: map.keyspace(),
            key: map.key_bytes(key),
            expected: Some(value.to_bytes()),
        });
        self
    }

    /// The batch fails with [`crate::CommitError::AssertFailed`] if the row is there.
    pub fn assert_absent<K: Key, V: Value>(&mut self, map: &Map<K, V>, key: &K) -> &mut Self {
        self.asserts.push(Assert {
            keyspace: map.keyspace(),
            key: map.key_bytes(key),
            expected: None,
        });
        self
    }

    /// Writes a row whose key or value holds the position that the batch will get. `make` runs on the committer.
    pub fn put_at_position<K: Key + 'static, V: Value + 'static>(
        &mut self,
        map: &Map<K, V>,
        make: impl FnOnce(Position) -> (K, V) + Send + 'static,
    ) -> &mut Self {
        let map = Map::<K, V>::own(map.keyspace(), map.id(), map.name());
        let keyspace = map.keyspace();
        self.bytes += 64;
        let make = Box::new(move |position| {
            let (key, value) = make(position);
            (map.key_bytes(&key), value.to_bytes())
        });
        self.changes.push(Change::PutAtPosition { keyspace, make });
        self
    }

    /// Names a topic for the [`crate::Wake`] of the batch's group.
    pub fn wake(&mut self, topic: Topic) -> &mut Self {
        self.topics.push(topic);
        self
    }

    /// Runs `f` on the committer after the write succeeded and before anyone can see it: the place to bring an
    /// in-memory index up to date. It must not block. Several run in the order they were added.
    pub fn then(&mut self, f: impl FnOnce(Position) + Send + 'static) -> &mut Self {
        self.then.push(Box::new(f));
        self
    }

    /// Runs `f` instead of [`Batch::then`]'s when the batch fails, for whatever reason; also when the store is closed.
    pub fn on_failure(&mut self, f: impl FnOnce() + Send + 'static) -> &mut Self {
        self.on_failure.push(Box::new(f));
        self
    }

    /// True if the batch changes no row.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Batch({} changes, {} asserts, {} bytes)",
            self.changes.len(),
            self.asserts.len(),
            self.bytes
        )
    }
}

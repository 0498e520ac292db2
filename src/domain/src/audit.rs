//! What the parts of `vatra check` share: reading whole maps a page at a time, saying what does not agree, and writing
//! derived rows anew.
//!
//! A row is *primary* if nothing else says what it says, and *derived* if it can be made again from primary rows. Damage to
//! primary rows is reported and left alone: a backup mends it. A derived row is written anew only if it still is what the
//! check has read, so that a server that runs meanwhile loses nothing.
//!
//! Called by `rooms::check`, `users::check` and `e2ee::check`. To check a new index: say with [`Audit::rows_are`] what it should hold,
//! then read it in [`Pages`] and say with [`Audit::row_is`] what should not be there.

use std::fmt::Debug;

use bytes::Bytes;
use vatra_store::{
    Batch, CommitError, DecodeError, Direction, Key, Map, Position, Range, Store, StoreError,
    Ticket, Value, View,
};

/// How many small rows are read at once.
pub const PAGE: usize = 1000;

/// Something that does not agree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A primary row is damaged. Restore a backup.
    #[error("{map} {row}: {what}")]
    Damaged {
        /// The row's map.
        map: &'static str,
        /// The row's key.
        row: String,
        /// What is wrong with it.
        what: String,
    },
    /// A derived row is not there. `--repair` writes it.
    #[error("{map} {row}: the row is missing (derived)")]
    Missing {
        /// The row's map.
        map: &'static str,
        /// The row's key.
        row: String,
    },
    /// A derived row says something else than the rows it is made from. `--repair` writes it anew.
    #[error("{map} {row}: the row is wrong (derived)")]
    Wrong {
        /// The row's map.
        map: &'static str,
        /// The row's key.
        row: String,
    },
    /// A derived row that nothing calls for. `--repair` removes it.
    #[error("{map} {row}: nothing calls for the row (derived)")]
    Stray {
        /// The row's map.
        map: &'static str,
        /// The row's key.
        row: String,
    },
    /// A derived row that changed while it was to be mended. Check again.
    #[error("a row changed while it was to be mended: check again")]
    Moved,
}

impl Problem {
    /// Whether `--repair` mends it.
    pub fn is_derived(&self) -> bool {
        matches!(
            self,
            Self::Missing { .. } | Self::Wrong { .. } | Self::Stray { .. }
        )
    }

    /// The map of the row it is about.
    pub fn map(&self) -> Option<&'static str> {
        match self {
            Self::Damaged { map, .. }
            | Self::Missing { map, .. }
            | Self::Wrong { map, .. }
            | Self::Stray { map, .. } => Some(map),
            Self::Moved => None,
        }
    }
}

/// Why a check ended early.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A repair was not taken.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// A check under way.
pub struct Audit<'a> {
    store: Store,
    repair: bool,
    report: &'a mut (dyn FnMut(Problem) + Send),
    problems: u64,
    mends: Vec<Ticket>,
}

impl<'a> Audit<'a> {
    /// A check of `store` that tells `report` of every problem, and mends derived rows if `repair`.
    pub fn new(store: Store, repair: bool, report: &'a mut (dyn FnMut(Problem) + Send)) -> Self {
        Self {
            store,
            repair,
            report,
            problems: 0,
            mends: Vec::new(),
        }
    }

    /// The newest view. Each step of a check takes one of its own, and so sees what the steps before it have mended.
    pub fn view(&self) -> View {
        self.store.view()
    }

    /// How many problems there were.
    pub fn problems(&self) -> u64 {
        self.problems
    }

    /// A primary row is damaged.
    pub fn damaged<K: Key + Debug, V: Value>(
        &mut self,
        map: &Map<K, V>,
        key: &K,
        what: impl Into<String>,
    ) {
        self.tell(Problem::Damaged {
            map: map.name(),
            row: format!("{key:?}"),
            what: what.into(),
        });
    }

    /// A derived row that is `found` should be `wanted`.
    pub fn row_is<K, V>(&mut self, map: &Map<K, V>, key: &K, found: Option<&V>, wanted: Option<&V>)
    where
        K: Key + Debug,
        V: Value + PartialEq,
    {
        if found == wanted {
            return;
        }
        self.differs(map, key, found.is_some(), wanted);
        if !self.repair {
            return;
        }
        let mut mend = Batch::new();
        match found {
            Some(found) => mend.assert_equals(map, key, found),
            None => mend.assert_absent(map, key),
        };
        self.mend(mend, map, key, wanted);
    }

    /// Derived rows of one map should be these. One batched read.
    pub async fn rows_are<K, V>(
        &mut self,
        view: &View,
        map: &Map<K, V>,
        wanted: Vec<(K, V)>,
    ) -> Result<(), AuditError>
    where
        K: Key + Clone + Debug,
        V: Value + PartialEq,
    {
        let keys: Vec<K> = wanted.iter().map(|(key, _)| key.clone()).collect();
        match view.get_many(map, &keys).await {
            Ok(found) => {
                for ((key, wanted), found) in wanted.iter().zip(&found) {
                    self.row_is(map, key, found.as_ref(), Some(wanted));
                }
            }
            Err(StoreError::Decode { .. }) => {
                for (key, wanted) in &wanted {
                    match view.get(map, key).await {
                        Ok(found) => self.row_is(map, key, found.as_ref(), Some(wanted)),
                        Err(StoreError::Decode { .. }) => {
                            self.differs(map, key, true, Some(wanted));
                            if self.repair {
                                // Nobody writes rows that cannot be read, so there is nothing to lose.
                                self.mend(Batch::new(), map, key, Some(wanted));
                            }
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            Err(error) => return Err(error.into()),
        }
        self.settle().await
    }

    /// A list should name something and does not. It is named by a row at the position of the batch that mends it, where who reads the list
    /// from where they last were comes by.
    pub fn list_lacks<K, V>(
        &mut self,
        map: &Map<K, V>,
        what: &impl Debug,
        row: impl FnOnce(Position) -> (K, V) + Send + 'static,
    ) where
        K: Key + 'static,
        V: Value + 'static,
    {
        self.tell(Problem::Missing {
            map: map.name(),
            row: format!("{what:?}"),
        });
        if self.repair {
            let mut mend = Batch::new();
            mend.put_at_position(map, row);
            self.mends.push(self.store.submit(mend));
        }
    }

    /// Reads rows that may be damaged: those that cannot be decoded count as absent here; who reads their map reports them.
    pub async fn read_many<K: Key, V: Value>(
        view: &View,
        map: &Map<K, V>,
        keys: &[K],
    ) -> Result<Vec<Option<V>>, StoreError> {
        match view.get_many(map, keys).await {
            Err(StoreError::Decode { .. }) => {}
            other => return other,
        }
        let mut rows = Vec::with_capacity(keys.len());
        for key in keys {
            rows.push(Self::read(view, map, key).await?);
        }
        Ok(rows)
    }

    /// The same for one row.
    pub async fn read<K: Key, V: Value>(
        view: &View,
        map: &Map<K, V>,
        key: &K,
    ) -> Result<Option<V>, StoreError> {
        match view.get(map, key).await {
            Err(StoreError::Decode { .. }) => Ok(None),
            other => other,
        }
    }

    /// Waits until what was mended so far is written.
    pub async fn settle(&mut self) -> Result<(), AuditError> {
        for ticket in std::mem::take(&mut self.mends) {
            match ticket.committed().await {
                Ok(_) => {}
                Err(CommitError::AssertFailed) => self.tell(Problem::Moved),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn differs<K: Key + Debug, V: Value>(
        &mut self,
        map: &Map<K, V>,
        key: &K,
        found: bool,
        wanted: Option<&V>,
    ) {
        let (map, row) = (map.name(), format!("{key:?}"));
        self.tell(match (found, wanted) {
            (false, _) => Problem::Missing { map, row },
            (true, Some(_)) => Problem::Wrong { map, row },
            (true, None) => Problem::Stray { map, row },
        });
    }

    fn mend<K: Key, V: Value>(
        &mut self,
        mut mend: Batch,
        map: &Map<K, V>,
        key: &K,
        wanted: Option<&V>,
    ) {
        match wanted {
            Some(wanted) => mend.put(map, key, wanted),
            None => mend.delete(map, key),
        };
        self.mends.push(self.store.submit(mend));
    }

    fn tell(&mut self, problem: Problem) {
        self.problems += 1;
        (self.report)(problem);
    }
}

/// Reads a whole map, a page at a time.
pub struct Pages<'a, K, V> {
    map: &'a Map<K, V>,
    size: usize,
    /// What is left; `None` at the end.
    rest: Option<Range>,
}

impl<'a, K: Key + Debug, V: Value> Pages<'a, K, V> {
    /// All rows of a map, `size` at a time.
    pub fn new(map: &'a Map<K, V>, size: usize) -> Self {
        Self {
            map,
            size: size.max(1),
            rest: Some(Range::all()),
        }
    }

    /// Those of its rows that are in a range.
    pub fn within(map: &'a Map<K, V>, range: Range, size: usize) -> Self {
        Self {
            rest: Some(range),
            ..Self::new(map, size)
        }
    }

    /// The next page; `None` at the end. Rows that cannot be decoded are reported and left out.
    ///
    /// # Errors
    /// Those of the store, and a key that cannot be decoded.
    pub async fn next(
        &mut self,
        view: &View,
        audit: &mut Audit<'_>,
    ) -> Result<Option<Vec<(K, V)>>, AuditError> {
        audit.settle().await?;
        let Some(range) = self.rest.take() else {
            return Ok(None);
        };
        let stored = Map::<K, Stored>::new(self.map.keyspace(), self.map.id(), self.map.name());
        let rows = view
            .range(&stored, range.clone(), Direction::Forward, self.size)
            .await?;
        if rows.len() == self.size {
            self.rest = rows.last().map(|(key, _)| range.after(key));
        }
        let mut page = Vec::with_capacity(rows.len());
        for (key, Stored(bytes)) in rows {
            match V::from_bytes(bytes) {
                Ok(value) => page.push((key, value)),
                Err(error) => audit.damaged(self.map, &key, error.to_string()),
            }
        }
        Ok(Some(page))
    }
}

/// A value as it is stored.
struct Stored(Bytes);

impl Value for Stored {
    fn to_bytes(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        Ok(Self(bytes))
    }
}

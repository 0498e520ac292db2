//! Full-text search: of messages, and of the names and topics of rooms.
//!
//! - [`texts`]: what can be found of which events, and by which words. Everything it says follows from the store as it is now.
//! - [`Search::find`] (`find`): asks the index, judges each match as every read of events does, and gives a page of them.
//! - [`token`]: where the next page begins.
//!
//! The index (crate `vatra-search`) is kept by the follower `search_indexer`, which alone writes to it and hands it over here. Nobody calls the
//! follower: who searches says how far the index should be ([`Search::reaches`]) and waits a little for that. What the index says is a
//! hint: rooms, visibility, redactions and erasures are judged by the store at the moment of asking.
//!
//! Encrypted rooms are not searched: from the event on that makes a room encrypted, nothing of it is put into the index.
//! <https://spec.matrix.org/v1.19/client-server-api/#server-side-search>

mod find;
pub mod texts;
pub mod token;

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, Semaphore, watch};
pub use vatra_search::Order;
use vatra_search::{Index, IndexError, TooLong};
use vatra_store::{Position, StoreError};

pub use self::find::{Asked, Found, Match};
use crate::rooms::{RoomError, Rooms};

/// How long who searches waits for what happened just before to be in the index.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many search at once; the others wait.
const AT_ONCE: usize = 4;

/// Why something could not be searched for.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The words are too many.
    #[error("search_term: {0}")]
    TooLong(#[from] TooLong),
    /// There are too many entries in a list of the filter.
    #[error("filter: at most 1000 entries in {0}")]
    TooMany(&'static str),
    /// That is no token of this server, or one of another search.
    #[error("next_batch is no token of this search")]
    BadToken,
    /// The index is being opened, or made anew.
    #[error("search is not ready yet; try again later")]
    NotReady,
    /// The index could not be read.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Something about a room.
    #[error(transparent)]
    Room(#[from] RoomError),
}

impl From<StoreError> for SearchError {
    fn from(error: StoreError) -> Self {
        Self::Room(error.into())
    }
}

/// What can be searched. Cheap to clone.
#[derive(Clone)]
pub struct Search {
    inner: Arc<Inner>,
}

struct Inner {
    rooms: Rooms,
    /// The index, once it is open.
    index: RwLock<Option<Arc<Index>>>,
    damaged: AtomicBool,
    /// Everything up to here can be found.
    reaches: watch::Sender<Option<Position>>,
    /// Someone wants to find everything up to here.
    wanted: AtomicU64,
    news: Notify,
    turns: Semaphore,
}

impl Search {
    /// Nothing can be found yet: start `search_indexer`.
    pub fn new(rooms: Rooms) -> Self {
        Self {
            inner: Arc::new(Inner {
                rooms,
                index: RwLock::new(None),
                damaged: AtomicBool::new(false),
                reaches: watch::Sender::new(None),
                wanted: AtomicU64::new(0),
                news: Notify::new(),
                turns: Semaphore::new(AT_ONCE),
            }),
        }
    }

    // ------------------------------------------------------------ what the follower says and asks

    /// The index is open, or is no more.
    pub fn hand_over(&self, index: Option<Arc<Index>>) {
        if index.is_none() {
            self.inner.reaches.send_replace(None);
        }
        let place = &self.inner.index;
        *place.write().unwrap_or_else(PoisonError::into_inner) = index;
        self.inner.damaged.store(false, Ordering::Release);
    }

    /// Everything up to a position can be found.
    pub fn announce(&self, position: Position) {
        self.inner.reaches.send_replace(Some(position));
    }

    /// Whether everything up to a position can be found.
    pub fn is_there(&self, position: Position) -> bool {
        self.inner.reaches.borrow().is_some_and(|at| at >= position)
    }

    /// How far someone wants the index to be.
    pub fn wanted(&self) -> Position {
        Position(self.inner.wanted.load(Ordering::Acquire))
    }

    /// Someone has searched: there may be news in [`Search::wanted`] and [`Search::is_damaged`].
    pub async fn asked(&self) {
        self.inner.news.notified().await;
    }

    /// Whether the index could not be read: then it must be made anew.
    pub fn is_damaged(&self) -> bool {
        self.inner.damaged.load(Ordering::Acquire)
    }

    // ------------------------------------------------------------ for those who search

    /// Waits, but not for long, until everything up to a position can be found. Says whether it can.
    pub async fn reaches(&self, position: Position) -> bool {
        if self.is_there(position) {
            return true;
        }
        let mut reaches = self.inner.reaches.subscribe();
        let there = |at: &Option<Position>| at.is_some_and(|at| at >= position);
        self.inner.wanted.fetch_max(position.0, Ordering::AcqRel);
        self.inner.news.notify_one();
        let waiting = reaches.wait_for(there);
        matches!(tokio::time::timeout(PATIENCE, waiting).await, Ok(Ok(_)))
    }

    fn index(&self) -> Option<Arc<Index>> {
        let index = self.inner.index.read();
        index.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the index on a thread of its own. What panics there has met damage.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Index) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, SearchError> {
        let index = self.index().ok_or(SearchError::NotReady)?;
        let turn = self.inner.turns.acquire().await;
        let done = tokio::task::spawn_blocking(move || work(&index)).await;
        drop(turn);
        let done = done.unwrap_or_else(|error| Err(IndexError::Damaged(error.to_string())));
        if let Err(IndexError::Damaged(_)) = &done {
            self.inner.damaged.store(true, Ordering::Release);
            self.inner.news.notify_one();
        }
        Ok(done?)
    }
}

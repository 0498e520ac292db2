//! Followers: tasks that read the log in order and deliver what it says elsewhere. Nobody calls one, so nobody depends on one.
//!
//! A follower has a name and a cursor in the store. [`run`] waits for the watermark to move, hands it page after page of the log, and
//! moves the cursor in the same batch as what the follower writes. Whatever is killed when, nothing is missed; an item may be seen twice.
//! A page that fails is tried again, then item by item; an item that keeps failing is set aside in
//! [`schema::SET_ASIDE`], where an operator sees it, and does not hold up its neighbours.
//!
//! - [`appservice_sender`]: events, to application services, each of which reads the log at its own pace
//! - [`federation_sender`]: events and what passes, to other servers
//! - [`guests`]: who has no account of their own leaves rooms that let no guests in any more
//! - [`key_news`]: changed keys, to other servers; and whose keys are not known any more
//! - [`media_shown`]: which events show which media, so that what nobody shows any more can go
//! - [`notices`]: who is to be notified of what; [`push_sender`] tells their push gateways, [`mail_sender`] writes to those who are away
//! - [`retention`]: empties messages that are too old, in rounds of its own
//! - [`search_indexer`]: texts, to the index of full-text search, in which it keeps its cursor
//!
//! To add one: implement [`Follower`], give it a name that was never used, and start [`run`] in the server's wiring.

pub mod appservice_sender;
pub mod federation_sender;
pub mod guests;
pub mod key_news;
pub mod mail_sender;
pub mod media_shown;
pub mod notices;
pub mod push_sender;
pub mod retention;
pub mod search_indexer;

use std::{
    ops::Bound,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use vatra_store::{Batch, CommitError, Direction, Position, Range, Store, StoreError, Topic};

use crate::{
    rooms::RoomError,
    schema::{self, FollowerRow, LogRow},
    users::UsersError,
};

/// How many rows of the log are handed over at a time.
const PAGE: usize = 200;
/// How often an item is tried before it is set aside.
const TRIES: u32 = 3;
/// The wait after a failure, doubled up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The wait after a failure of [`whenever`].
const WAIT: Duration = Duration::from_secs(5);

/// Why a follower could not deal with something.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// Something about a room.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// Something about an account.
    #[error(transparent)]
    User(UsersError),
    /// The store did not take what it wrote.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<StoreError> for FollowError {
    fn from(error: StoreError) -> Self {
        Self::Room(error.into())
    }
}

impl FollowError {
    /// Whether it is the store that fails, and not the item.
    fn passes(&self) -> bool {
        let store = match self {
            Self::Commit(_) | Self::Room(RoomError::Commit(_)) => return true,
            Self::Room(RoomError::Store(store)) => store,
            Self::Room(_) | Self::User(_) => return false,
        };
        matches!(store, StoreError::Engine(_) | StoreError::OutOfIds)
    }
}

/// What reads the log.
#[async_trait]
pub trait Follower: Send + Sync + 'static {
    /// Its name, under which its cursor is stored.
    fn name(&self) -> &'static str;

    /// Deals with a page of the log: what must be stored goes into `batch`, which is written together with the cursor.
    async fn follow(
        &self,
        page: &[(Position, LogRow)],
        batch: &mut Batch,
    ) -> Result<(), FollowError>;

    /// The batch of a page is visible: who waits for its rows may be woken.
    async fn stored(&self, page: &[(Position, LogRow)]);
}

/// How a follower is doing, for operators and metrics.
#[derive(Debug)]
pub struct Status {
    /// Its name.
    pub name: String,
    cursor: AtomicU64,
    set_aside: AtomicU64,
    error: Mutex<Option<String>>,
}

impl Status {
    /// A follower that has not begun.
    pub fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            cursor: AtomicU64::new(0),
            set_aside: AtomicU64::new(0),
            error: Mutex::default(),
        })
    }

    /// The last position that it has dealt with.
    pub fn cursor(&self) -> Position {
        Position(self.cursor.load(Ordering::Acquire))
    }

    /// How many positions it is behind.
    pub fn lag(&self, watermark: Position) -> u64 {
        watermark.0.saturating_sub(self.cursor().0)
    }

    /// How many items it has set aside.
    pub fn set_aside(&self) -> u64 {
        self.set_aside.load(Ordering::Acquire)
    }

    /// What went wrong last, while it does.
    pub fn error(&self) -> Option<String> {
        self.error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn note(&self, error: Option<String>) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    fn caught_up(&self, watermark: Position) {
        self.cursor.store(watermark.0, Ordering::Release);
    }

    fn moved(&self, row: &FollowerRow) {
        self.cursor.store(row.cursor.0, Ordering::Release);
        self.set_aside.store(row.set_aside, Ordering::Release);
    }
}

/// Runs a follower until `shutdown`.
pub async fn run(
    follower: Arc<dyn Follower>,
    store: Store,
    status: Arc<Status>,
    shutdown: CancellationToken,
) {
    let running = Running {
        name: follower.name().to_owned(),
        follower,
        store,
        status,
    };
    let mut watermark = running.store.subscribe_watermark();
    let mut wait = FIRST_WAIT;
    let mut tries = 0;
    loop {
        // Seen before the log is read: what comes later wakes.
        watermark.borrow_and_update();
        let failed = match running.step(tries >= TRIES).await {
            Ok(true) => {
                (wait, tries) = (FIRST_WAIT, 0);
                running.status.note(None);
                if shutdown.is_cancelled() {
                    return;
                }
                continue;
            }
            Ok(false) => false,
            Err(error) => {
                warn!(follower = running.name, %error, "a follower has failed and tries again");
                running.status.note(Some(error.to_string()));
                tries += 1;
                true
            }
        };
        let pause = async {
            if failed {
                tokio::time::sleep(wait).await;
            } else {
                // An error means that the store is gone: then the shutdown comes.
                let _ = watermark.changed().await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = pause => {}
        }
        if failed {
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}

/// Deals with rows that others leave: once, and then whenever one of the topics has changed, until `shutdown`. What fails is done
/// again after a while; `what` then does not happen, as the log says.
async fn whenever<F: Future<Output = Result<(), FollowError>>>(
    store: &Store,
    topics: &[Topic],
    what: &str,
    shutdown: &CancellationToken,
    catch_up: impl Fn() -> F,
) {
    let mut watermark = store.subscribe_watermark();
    let mut done = Position::ZERO;
    loop {
        // Seen before the rows are read: what comes later wakes.
        let now = *watermark.borrow_and_update();
        let changed = |topic: &Topic| store.changed_since(*topic, done);
        let new = done == Position::ZERO || topics.iter().any(changed);
        if new && let Err(error) = catch_up().await {
            warn!(what, %error, "rows that were left are not dealt with");
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(WAIT) => continue,
            }
        }
        done = now;
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = watermark.changed() => if changed.is_err() { return },
        }
    }
}

struct Running {
    name: String,
    follower: Arc<dyn Follower>,
    store: Store,
    status: Arc<Status>,
}

impl Running {
    /// Deals with the next page; says whether there was one. With `singly`, the page is one item, which is set aside if it fails.
    async fn step(&self, singly: bool) -> Result<bool, FollowError> {
        let view = self.store.view();
        let row = view
            .get(&schema::FOLLOWERS, &self.name)
            .await?
            .unwrap_or_default();
        self.status.moved(&row);
        let range = Range::between(
            Bound::Excluded(&row.cursor),
            Bound::Included(&view.watermark()),
        );
        let limit = if singly { 1 } else { PAGE };
        let page = view
            .range(&schema::LOG, range, Direction::Forward, limit)
            .await?;
        let Some((last, _)) = page.last() else {
            // What lies between holds nothing for a follower.
            self.status.caught_up(view.watermark());
            return Ok(false);
        };
        let mut moved = FollowerRow {
            cursor: *last,
            ..row
        };
        let mut batch = Batch::new();
        if let Err(error) = self.follower.follow(&page, &mut batch).await {
            if !singly || error.passes() {
                return Err(error);
            }
            error!(follower = self.name, position = last.0, %error, "an item of the log is set aside");
            moved.set_aside = moved.set_aside.saturating_add(1);
            batch = Batch::new();
            batch.put(
                &schema::SET_ASIDE,
                &(self.name.clone(), *last),
                &error.to_string(),
            );
        }
        batch.put(&schema::FOLLOWERS, &self.name, &moved);
        self.store.write(batch).await?;
        self.status.moved(&moved);
        self.follower.stored(&page).await;
        Ok(true)
    }
}

//! Keeps the index of full-text search: what happened is put into it, what was redacted is taken out.
//!
//! What an event changes is worked out from the store as it is now ([`crate::search::texts`]), so dealing with an event twice does no harm. The cursor
//! stands in the index itself (`cursor`) and is committed with it: after a crash the index is as old as its cursor, and what came after is
//! dealt with again. It is read from the log, and from the list of what the log does not tell ([`schema::PAST`]).
//!
//! The index is committed when someone who searches waits for it, else some seconds after something was put into it, or when what waits
//! becomes too much for its memory. An index that is missing, damaged, of another kind or of another store is made anew from the beginning, while
//! the server runs; until it has caught up, less is found.

mod cursor;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use vatra_search::{Change, Index, IndexError};
use vatra_store::{Batch, Position};

use self::cursor::Cursor;
use super::{FIRST_WAIT, FollowError, LONGEST_WAIT, PAGE, Status, TRIES};
use crate::{
    clock::SharedClock,
    rooms::{Event, Reader, Rooms},
    schema::{self, EventSid, FollowerRow},
    search::{Search, texts::Texts},
};

/// Its name among the followers.
pub const NAME: &str = "search_indexer";
/// How long something may wait to be committed when nobody searches.
const COMMIT_AFTER: Duration = Duration::from_secs(5);
/// How long it gathers what happens when nobody searches: many events at once cost less than one at a time.
const GATHER: Duration = Duration::from_millis(500);
/// How far the cursor may move without a commit when nothing is put into the index.
const UNCOMMITTED: u64 = 10_000;

/// What the indexer is built from.
#[derive(Clone)]
pub struct Parts {
    /// Where it reads.
    pub rooms: Rooms,
    /// Where the index is handed over.
    pub search: Search,
    /// The time.
    pub clock: SharedClock,
    /// The folder of the index. Whatever else lies there is deleted.
    pub folder: PathBuf,
    /// How much memory what is not committed may take, in bytes.
    pub memory_bytes: usize,
}

/// Why it does not get on.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// An event, or the store.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Keeps the index until the shutdown, and closes it.
pub async fn run(parts: Parts, status: Arc<Status>, shutdown: CancellationToken) {
    let mut indexing = Indexing::new(parts, status);
    let mut watermark = indexing.parts.rooms.store().subscribe_watermark();
    let mut wait = FIRST_WAIT;
    let mut tries = 0;
    while !shutdown.is_cancelled() {
        // Seen before the log is read: what comes later wakes.
        watermark.borrow_and_update();
        let turn = indexing.turn(tries >= TRIES).await;
        let pause = async {
            match &turn {
                Ok(Turn::More) => {}
                Ok(Turn::Idle(until)) => {
                    let due = async {
                        match until {
                            Some(until) => tokio::time::sleep_until(*until).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        // An error means that the store is gone: then the shutdown comes.
                        _ = watermark.changed() => indexing.gather().await,
                        () = indexing.parts.search.asked() => {}
                        () = due => {}
                    }
                }
                Err(_) => tokio::time::sleep(wait).await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = pause => {}
        }
        match turn {
            Ok(_) => {
                indexing.status.note(None);
                (wait, tries) = (FIRST_WAIT, 0);
            }
            Err(error) => {
                warn!(follower = NAME, %error, "the search index does not get on, and tries again");
                indexing.status.note(Some(error.to_string()));
                tries += 1;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }
    indexing.close().await;
}

/// What comes after a turn.
enum Turn {
    /// There may be more to do at once.
    More,
    /// Nothing until something happens, or until something waiting is to be committed.
    Idle(Option<Instant>),
}

struct Indexing {
    parts: Parts,
    status: Arc<Status>,
    index: Option<Arc<Index>>,
    /// Its files were compared with their sums since the start.
    verified: bool,
    /// Up to here everything was dealt with.
    cursor: Cursor,
    /// Up to here it is committed.
    committed: Cursor,
    /// Since when something waits to be committed.
    waiting: Option<Instant>,
    /// Of what is not committed: which event is found by the text of which other.
    replaced: HashMap<EventSid, EventSid>,
}

impl Indexing {
    fn new(parts: Parts, status: Arc<Status>) -> Self {
        Self {
            parts,
            status,
            index: None,
            verified: false,
            cursor: Cursor::START,
            committed: Cursor::START,
            waiting: None,
            replaced: HashMap::new(),
        }
    }

    /// Lets some more happen, unless someone searches.
    async fn gather(&self) {
        tokio::select! {
            () = self.parts.search.asked() => {}
            () = tokio::time::sleep(GATHER) => {}
        }
    }

    /// Deals with a page, or commits what waits for it. After a failure of the index the next turn opens it anew.
    async fn turn(&mut self, singly: bool) -> Result<Turn, Trouble> {
        let turn = self.try_turn(singly).await;
        if let Err(Trouble::Index(_)) = &turn {
            self.close_index();
        }
        turn
    }

    async fn try_turn(&mut self, singly: bool) -> Result<Turn, Trouble> {
        if self.parts.search.is_damaged() {
            return Err(self.start_anew("it could not be read").await.into());
        }
        let index = match &self.index {
            Some(index) => Arc::clone(index),
            None => self.open().await?,
        };
        let more = self.step(&index, singly).await?;
        let now = Instant::now();
        let wanted = self.parts.search.wanted();
        let asked = !self.parts.search.is_there(wanted) && wanted <= self.cursor.log;
        let due = self.waiting.map(|since| since + COMMIT_AFTER);
        // An index takes about as much memory as twice its texts.
        let bound = u64::try_from(self.parts.memory_bytes / 2).unwrap_or(u64::MAX);
        let moved = self.cursor.log.0.saturating_sub(self.committed.log.0);
        if due.is_some_and(|due| asked || due <= now || index.pending_bytes() > bound)
            || moved > UNCOMMITTED
        {
            self.commit(&index).await?;
        } else if self.waiting.is_none() {
            self.parts.search.announce(self.cursor.log);
        }
        Ok(if more {
            Turn::More
        } else {
            Turn::Idle(self.waiting.map(|since| since + COMMIT_AFTER))
        })
    }

    /// Opens the index, and hands it over. What cannot be used is made anew.
    async fn open(&mut self) -> Result<Arc<Index>, IndexError> {
        let (folder, memory) = (self.parts.folder.clone(), self.parts.memory_bytes);
        let epoch = self.parts.rooms.store().epoch();
        let opened = blocking(move || open_or_make(&folder, memory, epoch)).await?;
        let (index, cursor) = opened;
        let index = Arc::new(index);
        (self.cursor, self.committed) = (cursor, cursor);
        self.waiting = None;
        self.replaced.clear();
        self.parts.search.hand_over(Some(Arc::clone(&index)));
        self.index = Some(Arc::clone(&index));
        if !self.verified {
            let files = Arc::clone(&index);
            if let Err(IndexError::Damaged(what)) = blocking(move || files.verify()).await {
                return Err(self.start_anew(&what).await);
            }
            self.verified = true;
        }
        Ok(index)
    }

    /// Deletes the index: the next turn makes another.
    async fn start_anew(&mut self, why: &str) -> IndexError {
        self.close_index();
        let folder = self.parts.folder.clone();
        if let Err(error) = blocking(move || Index::clear(&folder)).await {
            return error;
        }
        IndexError::Damaged(format!("{why}; it is made anew"))
    }

    fn close_index(&mut self) {
        self.parts.search.hand_over(None);
        if let Some(index) = self.index.take() {
            index.close();
        }
    }

    /// Deals with the next page; says whether there was one. With `singly` it is one event, which is set aside if it fails.
    async fn step(&mut self, index: &Arc<Index>, singly: bool) -> Result<bool, Trouble> {
        let reader = self.parts.rooms.reader();
        let limit = if singly { 1 } else { PAGE };
        let mut next = self.cursor;
        let events = next
            .advance(&reader, limit)
            .await
            .map_err(FollowError::from)?;
        if events.is_empty() {
            // What lies between holds nothing for a follower.
            self.cursor.log = reader.watermark();
            self.status.caught_up(self.cursor.log);
            return Ok(false);
        }
        match self.changes(&reader, index, &events).await {
            Ok(changes) => self.put(index, changes).await?,
            Err(Trouble::Follow(error)) if singly && !error.passes() => {
                self.set_aside(next.log, &error).await?;
            }
            Err(error) => return Err(error),
        }
        self.cursor = next;
        let set_aside = self.status.set_aside();
        let cursor = self.cursor.log;
        self.status.moved(&FollowerRow { cursor, set_aside });
        Ok(true)
    }

    /// What some events change of the index.
    async fn changes(
        &mut self,
        reader: &Reader,
        index: &Arc<Index>,
        events: &[EventSid],
    ) -> Result<Vec<Change>, Trouble> {
        let texts = Texts::new(reader, self.parts.clock.now());
        let events = reader.events(events).await.map_err(FollowError::from)?;
        let mut touched: Vec<Arc<Event>> = Vec::new();
        for event in events.into_iter().flatten() {
            let target = texts.touched(&event).await.map_err(FollowError::from)?;
            let Some(target) = target else { continue };
            if target.is_empty() {
                let found = self.found_by(index, target.sid).await?;
                let found = reader.events(&found).await.map_err(FollowError::from)?;
                touched.extend(found.into_iter().flatten());
            }
            touched.push(target);
        }
        let mut changes = Vec::with_capacity(touched.len());
        for event in touched {
            let document = texts.document(&event).await.map_err(FollowError::from)?;
            changes.push(match document {
                Some(document) => {
                    if document.source != document.item {
                        self.replaced.insert(EventSid(document.source), event.sid);
                    }
                    Change::Put(document)
                }
                None => Change::Remove(event.sid.0),
            });
        }
        Ok(changes)
    }

    /// The messages that are found by the text of an edit.
    async fn found_by(
        &self,
        index: &Arc<Index>,
        edit: EventSid,
    ) -> Result<Vec<EventSid>, IndexError> {
        let index = Arc::clone(index);
        let found = blocking(move || index.replaced_by(edit.0)).await?;
        let found = found.into_iter().map(EventSid);
        let waiting = self.replaced.get(&edit).copied();
        Ok(found.chain(waiting).filter(|it| *it != edit).collect())
    }

    async fn put(&mut self, index: &Arc<Index>, changes: Vec<Change>) -> Result<(), IndexError> {
        if changes.is_empty() {
            return Ok(());
        }
        let index = Arc::clone(index);
        self.waiting.get_or_insert_with(Instant::now);
        blocking(move || index.change(&changes)).await
    }

    async fn set_aside(&self, at: Position, error: &FollowError) -> Result<(), FollowError> {
        error!(follower = NAME, position = at.0, %error, "an item of the log is set aside");
        let row = FollowerRow {
            cursor: at,
            set_aside: self.status.set_aside().saturating_add(1),
        };
        let mut batch = Batch::new();
        batch.put(
            &schema::SET_ASIDE,
            &(NAME.to_owned(), at),
            &error.to_string(),
        );
        // Its cursor is in the index; this row is for who looks after followers.
        batch.put(&schema::FOLLOWERS, &NAME.to_owned(), &row);
        self.parts.rooms.store().write(batch).await?;
        self.status.moved(&row);
        Ok(())
    }

    async fn commit(&mut self, index: &Arc<Index>) -> Result<(), IndexError> {
        let note = self.cursor.note(self.parts.rooms.store().epoch());
        let index = Arc::clone(index);
        blocking(move || index.commit(&note)).await?;
        self.committed = self.cursor;
        self.waiting = None;
        self.replaced.clear();
        self.parts.search.announce(self.cursor.log);
        Ok(())
    }

    /// The server stops.
    async fn close(&mut self) {
        if let Some(index) = self.index.clone()
            && self.waiting.is_some()
            && let Err(error) = self.commit(&index).await
        {
            warn!(%error, "the search index is not committed; the next start does it again");
        }
        self.close_index();
    }
}

fn open_or_make(
    folder: &std::path::Path,
    memory: usize,
    epoch: u64,
) -> Result<(Index, Cursor), IndexError> {
    let why = match Index::open(folder, memory) {
        Ok(index) => match index.note() {
            None => return Ok((index, Cursor::START)),
            Some(note) => match Cursor::read(note, epoch) {
                Some(cursor) => return Ok((index, cursor)),
                None => {
                    index.close();
                    "it is of another store, or of another moment of it".to_owned()
                }
            },
        },
        Err(IndexError::Damaged(why)) => why,
        Err(error) => return Err(error),
    };
    info!(why, "the search index is made anew");
    Index::clear(folder)?;
    Ok((Index::open(folder, memory)?, Cursor::START))
}

/// Works on a thread where waiting is no harm. What panics there has met damage.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, IndexError> + Send + 'static,
) -> Result<T, IndexError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(IndexError::Damaged(error.to_string())))
}

//! Rooms: the event DAG, its state, and the one way by which an event becomes visible.
//!
//! - [`Rooms::lock`] hands out a room's [`RoomGuard`] (`head`): writing functions take it by `&mut`, so that holding the
//!   room is in the type. No network is touched while a guard lives.
//! - [`Rooms::send`] builds an event of a local user, authorises it against the current state and appends it (`send`).
//! - `append` is the only code that makes an event visible: one event, one batch, one position. It has no loop over members.
//! - [`Reader`] answers every question about rooms from one view of the store (`reader`).
//! - [`StateTrees`] keeps every state that ever was (`state`).
//!
//! Called by `sync`, `flows` and the HTTP handlers. To write something new together with an event, extend
//! `append`; to tell others of it later, write a follower.

mod append;
pub mod at_time;
mod chains;
pub mod check;
pub mod ephemeral;
mod erased;
mod error;
mod event;
mod head;
pub mod judging;
mod member_changes;
pub mod mutual;
pub mod outside;
mod policy;
pub mod power;
mod purge;
mod reader;
pub mod receive;
mod resolve;
pub mod restricted;
mod send;
pub mod serve;
mod servers;
mod state;
#[cfg(test)]
mod tests;
pub mod threads;
pub mod unread;
pub mod visible;

use std::sync::Arc;

use dashmap::DashMap;
use ruma::{
    OwnedRoomId, OwnedServerName, RoomId, RoomVersionId, room_version_rules::RoomVersionRules,
};
use vatra_store::{Store, View};

pub use self::{
    append::membership_of,
    error::RoomError,
    event::{Event, Events},
    head::{Head, RoomGuard},
    member_changes::MemberChange,
    reader::{Reader, Recent},
    send::{Sent, TxnKey},
    state::{StateTrees, TreeUpdate},
};
use crate::{
    clock::SharedClock,
    event::signer::Signer,
    ids::Ids,
    schema::{self, RoomSid, UserSid},
};

/// A room this server knows.
#[derive(Debug, Clone)]
pub struct Room {
    /// Its number.
    pub sid: RoomSid,
    /// Its id.
    pub id: OwnedRoomId,
    /// Its version.
    pub version: RoomVersionId,
    /// What its version means.
    pub rules: Arc<RoomVersionRules>,
}

/// All rooms of this server. Cheap to clone.
#[derive(Clone)]
pub struct Rooms {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    ids: Ids,
    clock: SharedClock,
    signer: Arc<Signer>,
    trees: StateTrees,
    events: Events,
    heads: head::Heads,
    recents: reader::Recents,
    erased: erased::Erased,
    rooms: DashMap<OwnedRoomId, Arc<Room>>,
    /// Memberships of batches that are on their way.
    memberships: DashMap<(UserSid, RoomSid), append::PendingMembership>,
}

/// How much memory the caches of [`Rooms`] may use, or do use, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct CacheSizes {
    /// Parsed events.
    pub events: u64,
    /// Nodes of state trees.
    pub state: u64,
    /// Rooms whose heads are kept in memory (a number, not bytes).
    pub heads: usize,
}

impl Default for CacheSizes {
    fn default() -> Self {
        Self {
            events: 32 << 20,
            state: 16 << 20,
            heads: 10_000,
        }
    }
}

impl Rooms {
    /// The rooms in `store`; `signer` signs what local users send.
    pub fn new(
        store: Store,
        ids: Ids,
        clock: SharedClock,
        signer: Arc<Signer>,
        sizes: CacheSizes,
    ) -> Self {
        let inner = Inner {
            trees: StateTrees::new(store.clone(), sizes.state),
            // What waiting users share is an eighth of what the events themselves may take.
            events: Events::new(store.clone(), sizes.events - sizes.events / 8),
            recents: reader::Recents::new(sizes.events / 8),
            heads: head::Heads::new(sizes.heads),
            erased: erased::Erased::default(),
            rooms: DashMap::new(),
            memberships: DashMap::new(),
            store,
            ids,
            clock,
            signer,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// What the caches hold.
    pub fn cached(&self) -> CacheSizes {
        CacheSizes {
            events: self.inner.events.cached_bytes(),
            state: self.inner.trees.cached_bytes(),
            heads: self.inner.heads.len(),
        }
    }

    /// Forgets what was read of derived rows: they were mended. Waits for those who hold a room.
    pub async fn forget(&self) {
        let inner = &self.inner;
        inner.store.forget_changes();
        inner.ids.forget();
        inner.recents.forget();
        inner.rooms.clear();
        inner.heads.forget().await;
    }

    /// A reader over the newest view. Take a new one for each request: a view is a moment.
    pub fn reader(&self) -> Reader {
        self.reader_at(self.inner.store.view())
    }

    /// A reader over a view taken before (a /sync answers everything from one).
    pub fn reader_at(&self, view: View) -> Reader {
        Reader::new(Arc::clone(&self.inner), view)
    }

    /// This server's name.
    pub fn server_name(&self) -> OwnedServerName {
        self.inner.signer.server_name().to_owned()
    }

    /// The names and numbers of users, rooms and state keys.
    pub fn ids(&self) -> &Ids {
        &self.inner.ids
    }

    /// The store beneath.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }
}

impl Inner {
    async fn room(&self, view: &View, id: &RoomId) -> Result<Option<Arc<Room>>, RoomError> {
        if let Some(room) = self.rooms.get(id) {
            return Ok(Some(Arc::clone(&room)));
        }
        let Some(sid) = view
            .get(&schema::ROOM_SIDS, &id.as_str().to_owned())
            .await?
        else {
            return Ok(None);
        };
        let Some(row) = view.get(&schema::ROOMS, &sid).await? else {
            return Ok(None);
        };
        let room = Arc::new(Room::new(sid, id.to_owned(), &row.version)?);
        self.remember(&room);
        Ok(Some(room))
    }

    /// A bounded memory: when it is full it starts afresh, since reading a room costs two small rows.
    fn remember(&self, room: &Arc<Room>) {
        if self.rooms.len() >= 50_000 {
            self.rooms.clear();
        }
        self.rooms.insert(room.id.clone(), Arc::clone(room));
    }
}

impl Room {
    /// A room of a version this server knows.
    pub fn new(sid: RoomSid, id: OwnedRoomId, version: &str) -> Result<Self, RoomError> {
        let version =
            RoomVersionId::try_from(version).map_err(|_| RoomError::UnsupportedVersion)?;
        let rules = Arc::new(version.rules().ok_or(RoomError::UnsupportedVersion)?);
        Ok(Self {
            sid,
            id,
            version,
            rules,
        })
    }
}

//! What passes: typing, receipts, presence.
//!
//! Typing and presence live in memory and take positions without rows: an empty batch whose position is written down before
//! the watermark shows it. Receipts are rows, one for each user, type and thread of a room.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dashmap::DashMap;
use ruma::{
    EventId, OwnedUserId, api::client::filter::Filter, events::receipt::ReceiptThread,
    presence::PresenceState,
};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use tokio_util::sync::CancellationToken;
use vatra_store::{Batch, Direction, Position, Range, Store};

use super::{Reader, Room, RoomError, visible::Viewer};
use crate::{
    clock::SharedClock,
    event::filter,
    schema::{self, Membership, MembershipRow, ReceiptKey, ReceiptRow, RoomSid, UserSid, topic},
};

/// Typing, receipts and presence. Cheap to clone.
#[derive(Clone)]
pub struct Ephemeral {
    /// Who types where.
    pub typing: Typing,
    /// Who has read what.
    pub receipts: Receipts,
    /// Who is there.
    pub presence: Presences,
}

impl Ephemeral {
    /// Of the rooms in `store`; presence only if it is `enabled`.
    pub fn new(store: Store, clock: SharedClock, presence: bool) -> Self {
        Self {
            typing: Typing {
                store: store.clone(),
                clock: clock.clone(),
                rooms: Arc::default(),
            },
            receipts: Receipts {
                store: store.clone(),
                clock: clock.clone(),
            },
            presence: Presences {
                store,
                clock,
                enabled: presence,
                users: Arc::default(),
            },
        }
    }
}

/// Who types where.
#[derive(Clone)]
pub struct Typing {
    store: Store,
    clock: SharedClock,
    rooms: Arc<DashMap<RoomSid, TypingRoom>>,
}

#[derive(Default)]
struct TypingRoom {
    /// Until when, in milliseconds since the Unix epoch.
    users: BTreeMap<OwnedUserId, u64>,
    changed: Position,
}

impl Typing {
    /// A user types, for at most so many milliseconds, or has stopped (`None`).
    pub async fn set(
        &self,
        room: RoomSid,
        user: OwnedUserId,
        for_ms: Option<u64>,
    ) -> Result<(), RoomError> {
        let now = self.clock.now();
        let was = {
            let mut entry = self.rooms.entry(room).or_default();
            match for_ms {
                Some(for_ms) => entry.users.insert(user.clone(), now.saturating_add(for_ms)),
                None => entry.users.remove(&user),
            }
        };
        let changed = was.is_some() != for_ms.is_some();
        if changed {
            self.publish(room).await?;
        }
        if let Some(for_ms) = for_ms {
            let typing = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(for_ms)).await;
                typing.expire(room).await;
            });
        }
        Ok(())
    }

    /// Removes those whose time is up.
    async fn expire(&self, room: RoomSid) {
        let now = self.clock.now();
        let gone = match self.rooms.get_mut(&room) {
            Some(mut entry) => {
                let before = entry.users.len();
                entry.users.retain(|_, until| *until > now);
                entry.users.len() != before
            }
            None => false,
        };
        if gone && let Err(error) = self.publish(room).await {
            tracing::debug!(%error, "the end of typing could not be told");
        }
    }

    async fn publish(&self, room: RoomSid) -> Result<(), RoomError> {
        let mut batch = Batch::new();
        batch.wake(topic::room(room));
        let rooms = Arc::clone(&self.rooms);
        batch.then(move |position| {
            if let Some(mut entry) = rooms.get_mut(&room) {
                entry.changed = position;
            }
        });
        self.store.write(batch).await?;
        Ok(())
    }

    /// The typing event of a room, if it changed after `since` (for a first look: if anyone types).
    pub fn event(&self, room: RoomSid, since: Option<Position>) -> Option<Box<RawValue>> {
        let entry = self.rooms.get(&room)?;
        let new = match since {
            Some(since) => entry.changed > since,
            None => !entry.users.is_empty(),
        };
        let users: Vec<&OwnedUserId> = entry.users.keys().collect();
        new.then(|| {
            to_raw_value(&json!({ "type": "m.typing", "content": { "user_ids": users } })).ok()
        })
        .flatten()
    }
}

/// Who has read what.
#[derive(Clone)]
pub struct Receipts {
    store: Store,
    clock: SharedClock,
}

impl Receipts {
    /// Sets a user's receipt. One that would go back behind the present one of its type and thread is ignored.
    pub async fn set(
        &self,
        reader: &Reader,
        room: RoomSid,
        user: UserSid,
        kind: &str,
        thread: &ReceiptThread,
        event: &EventId,
    ) -> Result<(), RoomError> {
        let order = reader.event(room, event).await?.map(|event| event.order);
        let key: ReceiptKey = (
            room,
            user,
            kind.to_owned(),
            thread.as_str().unwrap_or_default().to_owned(),
        );
        let old = self.store.view().get(&schema::RECEIPTS, &key).await?;
        // An event this server does not have (yet) cannot be compared; it is believed.
        let order = order.unwrap_or_else(|| {
            old.as_ref()
                .map_or(crate::schema::RoomOrder(0), |old| old.order)
        });
        if old.as_ref().is_some_and(|old| {
            old.order > order || (old.order == order && old.event_id == event.as_str())
        }) {
            return Ok(());
        }
        let mut batch = Batch::new();
        if let Some(old) = old {
            batch.delete(&schema::RECEIPT_LOG, &(room, old.position, user));
        }
        let (ts, event_id, logged) = (self.clock.now(), event.to_string(), key.clone());
        batch.put_at_position(&schema::RECEIPTS, move |position| {
            (
                key,
                ReceiptRow {
                    event_id,
                    order,
                    ts,
                    position,
                },
            )
        });
        batch.put_at_position(&schema::RECEIPT_LOG, move |position| {
            ((room, position, user), logged)
        });
        batch.wake(topic::room(room));
        self.store.write(batch).await?;
        Ok(())
    }

    /// The receipt event of a room: what changed after `since`, or all of it. Private receipts are shown to their owner only.
    pub async fn event(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        room: RoomSid,
        since: Option<Position>,
    ) -> Result<Option<Box<RawValue>>, RoomError> {
        let view = reader.view();
        let rows: Vec<(ReceiptKey, ReceiptRow)> = match since {
            None => {
                view.range(
                    &schema::RECEIPTS,
                    Range::prefix(&(room,)),
                    Direction::Forward,
                    usize::MAX,
                )
                .await?
            }
            Some(since) => {
                let range = Range::prefix(&(room,)).after(&(room, since));
                let log = view
                    .range(&schema::RECEIPT_LOG, range, Direction::Forward, usize::MAX)
                    .await?;
                let keys: Vec<ReceiptKey> = log
                    .into_iter()
                    .map(|(_, key)| key)
                    .collect::<HashSet<_>>()
                    .into_iter()
                    .collect();
                let rows = view.get_many(&schema::RECEIPTS, &keys).await?;
                keys.into_iter()
                    .zip(rows)
                    .filter_map(|(key, row)| Some((key, row?)))
                    .collect()
            }
        };
        // By event, then type, then user.
        let mut content: BTreeMap<String, BTreeMap<String, BTreeMap<OwnedUserId, Value>>> =
            BTreeMap::new();
        for ((_, user, kind, thread), row) in rows {
            if kind == "m.read.private" && user != viewer.sid {
                continue;
            }
            let Some(user) = reader.user_id(user).await? else {
                continue;
            };
            let receipt = if thread.is_empty() {
                json!({ "ts": row.ts })
            } else {
                json!({ "ts": row.ts, "thread_id": thread })
            };
            content
                .entry(row.event_id)
                .or_default()
                .entry(kind)
                .or_default()
                .insert(user, receipt);
        }
        if content.is_empty() {
            return Ok(None);
        }
        Ok(to_raw_value(&json!({ "type": "m.receipt", "content": content })).ok())
    }

    /// How far a user has read a room (a thread of it, the main timeline, or unthreaded): the furthest of their public and
    /// private receipts.
    pub async fn read_up_to(
        &self,
        reader: &Reader,
        room: &Room,
        user: UserSid,
        thread: &ReceiptThread,
    ) -> Result<Option<crate::schema::RoomOrder>, RoomError> {
        let thread = thread.as_str().unwrap_or_default();
        let key = |kind: &str| (room.sid, user, kind.to_owned(), thread.to_owned());
        let rows = reader
            .view()
            .get_many(&schema::RECEIPTS, &[key("m.read"), key("m.read.private")])
            .await?;
        Ok(rows.into_iter().flatten().map(|row| row.order).max())
    }
}

/// Who has not been heard of for so long is offline. A poll may wait two minutes.
const SILENT_MS: u64 = 150_000;

/// Who is there.
#[derive(Clone)]
pub struct Presences {
    store: Store,
    clock: SharedClock,
    enabled: bool,
    users: Arc<Mutex<BTreeMap<UserSid, Presence>>>,
}

/// One user's presence.
#[derive(Debug, Clone)]
pub struct Presence {
    /// Online, away or offline.
    pub state: PresenceState,
    /// What they say about it.
    pub status: Option<String>,
    /// When they were last active, in milliseconds since the Unix epoch.
    pub active: u64,
    changed: Position,
}

impl Presences {
    /// Whether this server shows presence.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// A user's presence; offline if nothing is known.
    pub fn get(&self, user: UserSid) -> Option<Presence> {
        self.users().get(&user).cloned()
    }

    /// Sets a user's presence, and tells those who share a room with them if it changed. `status` stays as it is if `None`.
    pub async fn set(
        &self,
        reader: &Reader,
        user: UserSid,
        state: PresenceState,
        status: Option<Option<String>>,
    ) -> Result<(), RoomError> {
        self.change(reader, user, state, status, true).await
    }

    /// `heard`: the user has just been heard of.
    async fn change(
        &self,
        reader: &Reader,
        user: UserSid,
        state: PresenceState,
        status: Option<Option<String>>,
        heard: bool,
    ) -> Result<(), RoomError> {
        if !self.enabled {
            return Ok(());
        }
        let active = self.clock.now();
        let changed = {
            let mut users = self.users();
            let entry = users.entry(user).or_insert(Presence {
                state: PresenceState::Offline,
                status: None,
                active,
                changed: Position(0),
            });
            if heard {
                entry.active = active;
            }
            let status = status.unwrap_or_else(|| entry.status.clone());
            let changed = entry.state != state || entry.status != status;
            entry.state = state;
            entry.status = status;
            changed
        };
        if !changed {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.wake(topic::user(user));
        for (room, row) in reader.rooms_of(user).await? {
            if row.membership == Membership::Join {
                batch.wake(topic::presence(room));
            }
        }
        let users = Arc::clone(&self.users);
        batch.then(move |position| {
            if let Some(entry) = users
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_mut(&user)
            {
                entry.changed = position;
            }
        });
        self.store.write(batch).await?;
        Ok(())
    }

    /// Turns those offline who have not been heard of for a while, until `shutdown`.
    pub async fn run(self, rooms: super::Rooms, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(Duration::from_secs(20));
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = self.clock.now();
            let gone: Vec<UserSid> = {
                let users = self.users();
                let silent = users.iter().filter(|(_, presence)| {
                    presence.state != PresenceState::Offline
                        && now.saturating_sub(presence.active) > SILENT_MS
                });
                silent.map(|(user, _)| *user).collect()
            };
            for user in gone {
                let reader = rooms.reader();
                if let Err(error) = self
                    .change(&reader, user, PresenceState::Offline, None, false)
                    .await
                {
                    tracing::debug!(%error, "someone could not be turned offline");
                }
            }
        }
    }

    /// Presence events, for one viewer, of those who share a room with them, that changed after `since`.
    pub async fn events(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        wanted: &Filter,
        since: Option<Position>,
        rooms: &[(RoomSid, MembershipRow)],
    ) -> Result<Vec<Box<RawValue>>, RoomError> {
        if !self.enabled {
            return Ok(Vec::new());
        }
        let new: Vec<(UserSid, Presence)> = {
            let users = self.users();
            let changed = users
                .iter()
                .filter(|(_, presence)| since.is_none_or(|since| presence.changed > since));
            changed
                .map(|(user, presence)| (*user, presence.clone()))
                .collect()
        };
        let mut events = Vec::new();
        for (user, presence) in new {
            let Some(user_id) = reader.user_id(user).await? else {
                continue;
            };
            if !filter::event_matches(wanted, "m.presence", &user_id)
                || !self.shares(reader, viewer, user, rooms).await?
            {
                continue;
            }
            let event = json!({ "type": "m.presence", "sender": user_id, "content": self.content(&presence) });
            events.extend(to_raw_value(&event).ok());
        }
        Ok(events)
    }

    /// The content of a presence event.
    pub fn content(&self, presence: &Presence) -> Value {
        let ago = self.clock.now().saturating_sub(presence.active);
        let mut content = serde_json::Map::new();
        let mut put = |name: &str, value: Value| content.insert(name.to_owned(), value);
        put("presence", json!(presence.state));
        put("last_active_ago", json!(ago));
        put(
            "currently_active",
            json!(presence.state == PresenceState::Online && ago < 60_000),
        );
        if let Some(status) = &presence.status {
            put("status_msg", json!(status));
        }
        Value::Object(content)
    }

    async fn shares(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        user: UserSid,
        rooms: &[(RoomSid, MembershipRow)],
    ) -> Result<bool, RoomError> {
        if user == viewer.sid {
            return Ok(true);
        }
        for (room, row) in rooms {
            if row.membership == Membership::Join && reader.is_joined(user, *room).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn users(&self) -> MutexGuard<'_, BTreeMap<UserSid, Presence>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

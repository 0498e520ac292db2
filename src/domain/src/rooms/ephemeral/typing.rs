//! Who types where, until when. In memory only.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dashmap::DashMap;
use ruma::OwnedUserId;
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};
use vatra_store::{Batch, Position, Store};

use super::super::RoomError;
use crate::{
    clock::SharedClock,
    schema::{RoomSid, topic},
};

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
    /// Nobody types yet.
    pub(super) fn new(store: Store, clock: SharedClock) -> Self {
        Self {
            store,
            clock,
            rooms: Arc::default(),
        }
    }

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

    /// Who types in a room now.
    pub fn users(&self, room: RoomSid) -> Vec<OwnedUserId> {
        let entry = self.rooms.get(&room);
        entry.map_or_else(Vec::new, |entry| entry.users.keys().cloned().collect())
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

//! What passes, as other servers tell it: typing, receipts, presence. A server speaks for its own users only, and only where they
//! are. <https://spec.matrix.org/v1.19/server-server-api/#edus>

use std::sync::Arc;

use async_trait::async_trait;
use ruma::{
    RoomId, ServerName, UserId,
    api::federation::transactions::edu::{
        Edu, PresenceContent, PresenceUpdate, ReceiptContent, TypingContent,
    },
    events::receipt::ReceiptThread,
    serde::Raw,
};
use tracing::debug;

use super::acl;
use crate::{
    rooms::{Reader, RoomError, Rooms, ephemeral::Ephemeral},
    schema::{RoomSid, UserSid},
};

/// How long a user of another server types unless it says otherwise, in milliseconds.
const TYPING_MS: u64 = 120_000;
/// The most receipts, and the most updates of presence, in one unit.
const MAX_RECEIPTS: usize = 1000;
const MAX_UPDATES: usize = 500;

/// Takes the kinds of units that are not this module's: device lists, to-device messages, signing keys.
#[async_trait]
pub trait TakeEdu: Send + Sync + 'static {
    /// Takes one; says whether it was one of its kinds.
    async fn take(&self, origin: &ServerName, edu: &Edu) -> bool;
}

/// Takes what passes. Cheap to clone.
#[derive(Clone)]
pub struct Edus {
    rooms: Rooms,
    ephemeral: Ephemeral,
    others: Vec<Arc<dyn TakeEdu>>,
}

impl Edus {
    /// With others for what is not typing, receipts or presence.
    pub fn new(rooms: Rooms, ephemeral: Ephemeral, others: Vec<Arc<dyn TakeEdu>>) -> Self {
        Self {
            rooms,
            ephemeral,
            others,
        }
    }

    /// Takes units in their order. What cannot be read or believed is dropped: no sender would do better the second time.
    pub async fn take(&self, origin: &ServerName, edus: &[Raw<Edu>]) {
        for edu in edus {
            let taken = match edu.deserialize() {
                Ok(Edu::Typing(content)) => self.typing(origin, content).await,
                Ok(Edu::Receipt(content)) => self.receipts(origin, content).await,
                Ok(Edu::Presence(content)) => self.presence(origin, content).await,
                Ok(other) => {
                    for taker in &self.others {
                        if taker.take(origin, &other).await {
                            break;
                        }
                    }
                    Ok(())
                }
                Err(error) => {
                    debug!(%origin, %error, "a unit that cannot be read is dropped");
                    Ok(())
                }
            };
            if let Err(error) = taken {
                debug!(%origin, %error, "a unit was not taken");
            }
        }
    }

    async fn typing(&self, origin: &ServerName, content: TypingContent) -> Result<(), RoomError> {
        let reader = self.rooms.reader();
        let place = Place {
            reader: &reader,
            origin,
        };
        if let Some((room, _)) = place.of(&content.room_id, &content.user_id).await? {
            let for_ms = content.typing.then_some(TYPING_MS);
            self.ephemeral
                .typing
                .set(room, content.user_id, for_ms)
                .await?;
        }
        Ok(())
    }

    async fn receipts(
        &self,
        origin: &ServerName,
        content: ReceiptContent,
    ) -> Result<(), RoomError> {
        let reader = self.rooms.reader();
        let place = Place {
            reader: &reader,
            origin,
        };
        let receipts = content.receipts.into_iter().flat_map(|(room, map)| {
            let read = map.read.into_iter();
            read.map(move |(user, data)| (room.clone(), user, data))
        });
        for (room, user, receipt) in receipts.take(MAX_RECEIPTS) {
            let Some((room, user)) = place.of(&room, &user).await? else {
                continue;
            };
            // The newest is the last; there is one.
            let Some(event) = receipt.event_ids.last() else {
                continue;
            };
            let thread: &ReceiptThread = &receipt.data.thread;
            let outcome = self
                .ephemeral
                .receipts
                .set(&reader, room, user, "m.read", thread, event)
                .await;
            match outcome {
                // An event of another room, say.
                Err(RoomError::UnknownEvent) => {}
                other => other?,
            }
        }
        Ok(())
    }

    async fn presence(
        &self,
        origin: &ServerName,
        content: PresenceContent,
    ) -> Result<(), RoomError> {
        let reader = self.rooms.reader();
        for update in content.push.into_iter().take(MAX_UPDATES) {
            let PresenceUpdate {
                user_id,
                presence,
                status_msg,
                last_active_ago,
                ..
            } = update;
            if user_id.server_name() != origin {
                continue;
            }
            // Somebody whom nobody here has met is nobody's business.
            let Some(user) = reader.user_sid(&user_id).await? else {
                continue;
            };
            let ago = u64::from(last_active_ago);
            self.ephemeral
                .presence
                .told(&reader, user, presence, status_msg, ago)
                .await?;
        }
        Ok(())
    }
}

/// Where a server may speak for a user.
struct Place<'a> {
    reader: &'a Reader,
    origin: &'a ServerName,
}

impl Place<'_> {
    /// The numbers of a room and a user, if the user is the server's, joined, and the room lets the server in.
    async fn of(
        &self,
        room: &RoomId,
        user: &UserId,
    ) -> Result<Option<(RoomSid, UserSid)>, RoomError> {
        if user.server_name() != self.origin {
            return Ok(None);
        }
        let Some(room) = self.reader.room(room).await? else {
            return Ok(None);
        };
        let Some(user) = self.reader.user_sid(user).await? else {
            return Ok(None);
        };
        let joined = self.reader.is_joined(user, room.sid).await?;
        let there = joined && acl::allows(self.reader, room.sid, self.origin).await?;
        Ok(there.then_some((room.sid, user)))
    }
}

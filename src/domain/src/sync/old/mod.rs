//! What clients of before /sync ask: everything at once, and then the stream of what happens.
//!
//! - here: `GET /initialSync`, the answer of a first /sync in the shape of before.
//! - `stream`: `GET /events`: it waits as /sync does, and gives every event of the user's rooms in order.
//!
//! Their tokens are those of /sync. What a device is sent is acknowledged by neither.
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3initialsync>

mod stream;

use ruma::{OwnedRoomId, RoomId, UInt, api::client::filter::FilterDefinition};
use serde::Serialize;
use serde_json::value::RawValue;
use vatra_store::Position;

pub use self::stream::EventStream;
use super::{
    StateField, SyncError, SyncRequest, SyncResponse, Syncs,
    response::{Events, State, Timeline},
    token::SyncToken,
};
use crate::{
    event::client::client_json,
    rooms::{Reader, visible::Viewer},
    schema::{self, Membership, MembershipRow},
};

/// The answer of `/initialSync`.
#[derive(Debug, Serialize)]
pub struct InitialSync {
    /// From where `/events` goes on.
    pub end: String,
    /// Presence of people this user shares a room with.
    pub presence: Vec<Box<RawValue>>,
    /// The user's global account data.
    pub account_data: Vec<Box<RawValue>>,
    /// The user's rooms.
    pub rooms: Vec<RoomInfo>,
}

/// A room as it was shown before /sync.
#[derive(Debug, Serialize)]
pub struct RoomInfo {
    /// Its id.
    pub room_id: OwnedRoomId,
    /// What the user is to it, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub membership: Option<&'static str>,
    /// The invite, if that is what there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invite: Option<Box<RawValue>>,
    /// The newest events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<Messages>,
    /// The state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Vec<Box<RawValue>>>,
    /// Whether the room is in the list of public rooms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visibility: Option<&'static str>,
    /// The user's account data of the room.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub account_data: Vec<Box<RawValue>>,
}

/// A piece of a room's timeline.
#[derive(Debug, Serialize)]
pub struct Messages {
    /// Where to read on backwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Where to read on forwards.
    pub end: String,
    /// The events, oldest first.
    pub chunk: Vec<Box<RawValue>>,
}

/// Whether the room is in the list of public rooms, in the words of the API.
///
/// # Errors
/// The store's.
pub async fn visibility(reader: &Reader, room: schema::RoomSid) -> Result<&'static str, SyncError> {
    let listed = reader.view().contains(&schema::PUBLIC_ROOMS, &room).await?;
    Ok(if listed { "public" } else { "private" })
}

impl Syncs {
    /// Everything of a user's: their rooms with the newest `limit` events of each, with `archived` also those they have left.
    ///
    /// # Errors
    /// As [`Syncs::sync`].
    pub async fn initial(
        &self,
        viewer: &Viewer,
        limit: usize,
        archived: bool,
    ) -> Result<InitialSync, SyncError> {
        let mut filter = FilterDefinition::default();
        filter.room.timeline.limit = UInt::try_from(limit).ok();
        filter.room.include_leave = archived;
        let request = SyncRequest {
            filter,
            state: StateField::After,
            room_ids: true,
            ..SyncRequest::default()
        };
        let answer = self.sync(viewer, &request).await?;
        let end = self.nothing_acknowledged(&answer);
        let reader = self.inner.rooms.reader();
        let shown = Shown {
            reader: &reader,
            viewer,
            end: &end,
        };
        let mut rooms = Vec::new();
        for (id, room) in answer.rooms.join {
            let data = room.account_data;
            rooms.extend(shown.room(id, room.timeline, room.state, data).await?);
        }
        for (id, room) in answer.rooms.leave {
            let data = Events::default();
            rooms.extend(shown.room(id, room.timeline, room.state, data).await?);
        }
        let outside = answer.rooms.invite.into_keys();
        for id in outside.chain(answer.rooms.knock.into_keys()) {
            rooms.extend(shown.outside(id).await?);
        }
        Ok(InitialSync {
            presence: answer.presence.events,
            account_data: answer.account_data.events,
            rooms,
            end,
        })
    }

    /// The token after an answer, for a client that was not given the messages to its device.
    fn nothing_acknowledged(&self, answer: &SyncResponse) -> String {
        match answer.next_batch.parse::<SyncToken>() {
            Ok(token) => SyncToken {
                to_device: Position(0),
                ..token
            }
            .to_string(),
            Err(_) => answer.next_batch.clone(),
        }
    }
}

/// For whom rooms are shown.
struct Shown<'a> {
    reader: &'a Reader,
    viewer: &'a Viewer,
    end: &'a str,
}

impl Shown<'_> {
    async fn row(
        &self,
        id: &RoomId,
    ) -> Result<Option<(schema::RoomSid, MembershipRow)>, SyncError> {
        let Some(room) = self.reader.room(id).await? else {
            return Ok(None);
        };
        let row = self.reader.membership(self.viewer.sid, room.sid).await?;
        Ok(row.map(|row| (room.sid, row)))
    }

    async fn room(
        &self,
        room_id: OwnedRoomId,
        timeline: Timeline,
        state: State,
        account_data: Events,
    ) -> Result<Option<RoomInfo>, SyncError> {
        let Some((sid, row)) = self.row(&room_id).await? else {
            return Ok(None);
        };
        let (State::Before(state) | State::After(state) | State::AfterUnstable(state)) = state;
        Ok(Some(RoomInfo {
            room_id,
            membership: Some(row.membership.name()),
            invite: None,
            messages: Some(Messages {
                start: timeline.prev_batch,
                end: self.end.to_owned(),
                chunk: timeline.events,
            }),
            state: Some(state.events),
            visibility: Some(visibility(self.reader, sid).await?),
            account_data: account_data.events,
        }))
    }

    async fn outside(&self, room_id: OwnedRoomId) -> Result<Option<RoomInfo>, SyncError> {
        let Some((_, row)) = self.row(&room_id).await? else {
            return Ok(None);
        };
        let invite = match row.membership {
            Membership::Invite => self.reader.event_by_sid(row.event).await?,
            _ => None,
        };
        Ok(Some(RoomInfo {
            room_id,
            membership: Some(row.membership.name()),
            invite: invite.map(|event| client_json(&event.pdu, true, None)),
            messages: None,
            state: None,
            visibility: None,
            account_data: Vec::new(),
        }))
    }
}

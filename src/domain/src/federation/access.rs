//! Which rooms a server may ask about, and which of their events it may see whole.

use std::{collections::HashMap, sync::Arc};

use ruma::{
    OwnedUserId, RoomId, ServerName,
    events::{
        StateEventType, TimelineEventType,
        room::{history_visibility::HistoryVisibility, member::MembershipState},
    },
};
use serde::Deserialize;
use serde_json::value::RawValue as RawJsonValue;

use super::{Federation, FederationError, acl};
use crate::{
    event::redact,
    rooms::{Event, Reader, Room, RoomError},
    schema::{Membership, StateRoot, Status},
};

impl Federation {
    /// A room that this server is in and that lets the other one in.
    ///
    /// # Errors
    /// [`FederationError::Unknown`], [`FederationError::Forbidden`].
    pub(super) async fn admitted(
        &self,
        origin: &ServerName,
        room: &RoomId,
    ) -> Result<Arc<Room>, FederationError> {
        let room = self.receiver.joined_room(room).await?;
        let reader = self.receiver.rooms().reader();
        if !acl::allows(&reader, room.sid, origin).await? {
            return Err(FederationError::Forbidden(
                "the room does not let that server in".to_owned(),
            ));
        }
        Ok(room)
    }

    /// A room that both servers are in.
    ///
    /// # Errors
    /// As [`Federation::admitted`].
    pub(super) async fn shared(
        &self,
        origin: &ServerName,
        room: &RoomId,
    ) -> Result<(Reader, Arc<Room>), FederationError> {
        let room = self.admitted(origin, room).await?;
        let reader = self.receiver.rooms().reader();
        if !reader.server_is_in(room.sid, Some(origin)).await? {
            return Err(FederationError::Forbidden(
                "that server is not in the room".to_owned(),
            ));
        }
        Ok((reader, room))
    }
}

#[derive(Deserialize)]
struct Visibility {
    history_visibility: HistoryVisibility,
}

/// What one server may see of one room.
pub(super) struct Sight<'a> {
    pub(super) reader: &'a Reader,
    pub(super) room: &'a Room,
    pub(super) origin: &'a ServerName,
    /// The server's users that have or had to do with the room, once they are needed.
    users: Option<Vec<OwnedUserId>>,
    known: HashMap<StateRoot, bool>,
}

impl<'a> Sight<'a> {
    pub(super) fn new(reader: &'a Reader, room: &'a Room, origin: &'a ServerName) -> Self {
        Self {
            reader,
            room,
            origin,
            users: None,
            known: HashMap::new(),
        }
    }

    /// An event as the server may have it: whole, or emptied. State events are whole, since they are needed to judge others.
    pub(super) async fn show(&mut self, event: &Event) -> Result<Box<RawJsonValue>, RoomError> {
        if self.is_whole(event).await? {
            return Ok(raw(event));
        }
        let emptied = redact::redact(&event.pdu, &self.room.rules)?;
        Ok(raw_bytes(emptied.bytes()))
    }

    /// Whether the server may have an event whole.
    pub(super) async fn is_whole(&mut self, event: &Event) -> Result<bool, RoomError> {
        Ok(event.pdu.state_key.is_some()
            || event.pdu.kind == TimelineEventType::RoomRedaction
            || event.pdu.sender.server_name() == self.origin
            || (self.sees(event).await? && !self.is_erased_for(event).await?))
    }

    /// Whether what an event says was erased before a user of the server came to the room.
    async fn is_erased_for(&mut self, event: &Event) -> Result<bool, RoomError> {
        let Some(at) = self.reader.erased_at(event).await? else {
            return Ok(false);
        };
        let then = self.reader.root_at(self.room.sid, at).await?;
        let joined = [MembershipState::Join];
        Ok(!self.had(then, &joined).await? && !self.had(event.root_before, &joined).await?)
    }

    async fn sees(&mut self, event: &Event) -> Result<bool, RoomError> {
        if event.status == Status::Outlier {
            return Ok(false);
        }
        let root = event.root_before;
        if let Some(known) = self.known.get(&root) {
            return Ok(*known);
        }
        let visibility = self
            .reader
            .state_at_key(root, &StateEventType::RoomHistoryVisibility, "")
            .await?;
        let visibility = visibility.and_then(|event| event.pdu.content_as::<Visibility>().ok());
        let sees = match visibility.map(|content| content.history_visibility) {
            Some(HistoryVisibility::Joined) => self.had(root, &[MembershipState::Join]).await?,
            Some(HistoryVisibility::Invited) => {
                let either = [MembershipState::Join, MembershipState::Invite];
                self.had(root, &either).await?
            }
            _ => true,
        };
        self.known.insert(root, sees);
        Ok(sees)
    }

    /// Whether a user of the server had one of these memberships in a state.
    async fn had(
        &mut self,
        root: StateRoot,
        memberships: &[MembershipState],
    ) -> Result<bool, RoomError> {
        if self.users.is_none() {
            self.users = Some(users_of(self.reader, self.room, self.origin).await?);
        }
        for user in self.users.iter().flatten() {
            let member = self
                .reader
                .state_at_key(root, &StateEventType::RoomMember, user.as_str())
                .await?;
            let membership = member.as_ref().and_then(|event| event.pdu.member());
            let membership = membership.and_then(|member| member.membership.as_ref());
            if membership.is_some_and(|it| memberships.contains(it)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

async fn users_of(
    reader: &Reader,
    room: &Room,
    server: &ServerName,
) -> Result<Vec<OwnedUserId>, RoomError> {
    let mut users = Vec::new();
    for membership in Membership::ALL {
        for (user, _) in reader.members(room.sid, membership, usize::MAX).await? {
            if let Some(user) = reader.user_id(user).await?
                && user.server_name() == server
            {
                users.push(user);
            }
        }
    }
    Ok(users)
}

/// An event as it travels.
pub(super) fn raw(event: &Event) -> Box<RawJsonValue> {
    raw_bytes(event.pdu.bytes())
}

fn raw_bytes(bytes: &[u8]) -> Box<RawJsonValue> {
    // Events are kept as the JSON they were read from.
    serde_json::from_slice(bytes).unwrap_or_else(|_| RawJsonValue::NULL.to_owned())
}

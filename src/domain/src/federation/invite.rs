//! A user of this server is invited by one of another: <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>

use ruma::{
    EventId, RoomId, RoomVersionId, ServerName, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde_json::value::RawValue as RawJsonValue;

use super::{Federation, FederationError, acl, membership::raw_pdu};
use crate::{
    event::{build::Countersigned, check, client},
    rooms::outside::Outside,
    users::UsersError,
};

/// The most events, and the most bytes, of what an invited user is told of a room.
const MAX_STATE: usize = 100;
const MAX_STATE_BYTES: usize = 256 << 10;

/// An invite as it comes.
pub struct Invite<'a> {
    /// The room of the request's path.
    pub room: &'a RoomId,
    /// The event of the request's path.
    pub id: &'a EventId,
    /// The room's version, as the other server has it.
    pub version: RoomVersionId,
    /// The event.
    pub event: &'a RawJsonValue,
    /// What the invited user may know of the room: events of the room, or only what of them is shown.
    pub state: Vec<Box<RawJsonValue>>,
}

impl Federation {
    /// Takes an invite, and signs it: the user is told. If this server is in the room already, the event itself comes with the
    /// room's other events, and it is signed only.
    ///
    /// # Errors
    /// [`FederationError::InvalidParam`] for what is no invite of a user here by a user there; [`FederationError::InviteBlocked`].
    pub async fn invite(
        &self,
        origin: &ServerName,
        invite: Invite<'_>,
    ) -> Result<Box<RawJsonValue>, FederationError> {
        let invalid = |reason: &str| Err(FederationError::invalid(reason));
        let rooms = self.receiver.rooms();
        let known = (1..=12).any(|known: u8| invite.version.as_str() == known.to_string());
        let rules = invite.version.rules().filter(|_| known);
        let rules = rules.ok_or(FederationError::UnsupportedVersion)?;
        let (_, pdu) =
            check::read(invite.event.get().as_bytes(), &rules).map_err(FederationError::invalid)?;
        if pdu.room_id != invite.room {
            return invalid("the event is of another room");
        }
        if pdu.event_id != invite.id {
            return invalid("the event has another id");
        }
        let membership = pdu.member().and_then(|member| member.membership.clone());
        if pdu.kind != TimelineEventType::RoomMember || membership != Some(MembershipState::Invite)
        {
            return invalid("the event is no invite");
        }
        if pdu.sender.server_name() != origin {
            return invalid("the event's sender is of another server");
        }
        let user = UserId::parse(pdu.state_key.clone().unwrap_or_default())
            .map_err(FederationError::invalid)?;
        if user.server_name() != rooms.server_name() {
            return invalid("the user is of another server");
        }
        let account = self.users.find(user.as_str()).await.ok().flatten();
        let Some((_, sid)) = account else {
            return invalid("there is no such user");
        };
        let blocks = self.users.blocks_invites(sid).await;
        let blocks = blocks.map_err(|error| match error {
            UsersError::Store(error) => error.into(),
            other => FederationError::Forbidden(other.to_string()),
        });
        if blocks? {
            return Err(FederationError::InviteBlocked);
        }
        let reader = rooms.reader();
        if let Some(room) = reader.room(invite.room).await?
            && reader.server_is_in(room.sid, None).await?
            && !acl::allows(&reader, room.sid, origin).await?
        {
            return Err(FederationError::Forbidden(
                "the room does not let that server in".to_owned(),
            ));
        }
        let room = rooms.heard_of(invite.room, &invite.version).await?;
        let checked = self.receiver.check(&room, invite.event).await?;
        let signed = rooms.countersign(&room, &checked, Countersigned::Invite)?;
        let answer = raw_pdu(&signed)?;
        if !reader.server_is_in(room.sid, None).await? {
            let mut state = shown(invite.state, &rules)?;
            state.push(client::stripped_json(&signed));
            let outside = Outside {
                state,
                servers: vec![origin.to_owned()],
            };
            rooms
                .set_outside(&room, &user, signed, Some(outside))
                .await?;
        }
        Ok(answer)
    }
}

/// What of a room's state is shown: only the fields of stripped state, of entries that have them.
pub fn shown(
    state: Vec<Box<RawJsonValue>>,
    rules: &ruma::room_version_rules::RoomVersionRules,
) -> Result<Vec<Box<RawJsonValue>>, FederationError> {
    let bytes: usize = state.iter().map(|event| event.get().len()).sum();
    if state.len() > MAX_STATE || bytes > MAX_STATE_BYTES {
        return Err(FederationError::invalid(
            "the invited user is told too much of the room",
        ));
    }
    let shown = state
        .iter()
        .filter_map(|event| match check::read(event.get().as_bytes(), rules) {
            Ok((_, pdu)) if pdu.state_key.is_some() => Some(client::stripped_json(&pdu)),
            _ => client::stripped_again(event),
        });
    Ok(shown.collect())
}

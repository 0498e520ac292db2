//! Inviting someone, of this server or another. The other server is told first, and only what it has signed becomes part of the room.
//! <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt, stream};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedUserId, RoomId, UserId,
    api::federation::membership::{RawStrippedState, create_invite::v2 as send_invite},
    canonical_json,
    events::{StateEventType, TimelineEventType},
};
use serde_json::{json, value::RawValue as RawJsonValue};

use super::{FlowError, content, membership::Change};
use crate::{
    event::{build::Draft, pdu::Pdu},
    remote::{Bounds, RemoteError},
    rooms::{
        Room, RoomError,
        receive::{Manner, Receiver},
    },
    users::{Requester, Users},
};

/// How many users of other servers are invited at once, and how long the creator waits for all of them.
const SIDE_BY_SIDE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(60);

/// Whom to invite, where, and how.
pub struct Invite<'a> {
    /// Who invites.
    pub by: &'a Requester,
    /// Whom.
    pub of: &'a UserId,
    /// To which room.
    pub room: &'a RoomId,
    /// Why.
    pub reason: Option<&'a str>,
    /// The room is one of two.
    pub is_direct: bool,
}

impl Invite<'_> {
    /// Invites.
    ///
    /// # Errors
    /// What the auth rules say; what the user's server says ([`FlowError::Remote`]).
    pub async fn send(&self, users: &Users, receiver: &Receiver) -> Result<(), FlowError> {
        let rooms = receiver.rooms();
        if self.of.server_name() == rooms.server_name() {
            must_take_invites(users, self.of).await?;
            let change = Change {
                by: self.by,
                of: self.of,
                room: self.room,
                reason: self.reason,
            };
            return change.to(users, receiver, "invite").await;
        }
        let mut member = content(json!({ "membership": "invite" }))?;
        if let Some(reason) = self.reason {
            let reason = CanonicalJsonValue::String(reason.to_owned());
            member.insert("reason".to_owned(), reason);
        }
        if self.is_direct {
            member.insert("is_direct".to_owned(), CanonicalJsonValue::Bool(true));
        }
        let draft = Draft {
            sender: self.by.user.clone(),
            kind: TimelineEventType::RoomMember,
            state_key: Some(self.of.to_string()),
            content: member,
            redacts: None,
        };
        let pdu = rooms.build_only(self.room, draft).await?;
        let room = rooms.reader().room(self.room).await?;
        let room = room.ok_or(RoomError::UnknownRoom)?;
        // Nobody hears of an invite that the room does not let pass.
        let pdu = receiver.recommended(&room, pdu).await?;
        let signed = self.deliver(receiver, &room, &pdu).await?;
        let manner = Manner {
            all_or_nothing: true,
            ..Manner::default()
        };
        receiver
            .take(&rooms.server_name(), &room, signed, manner)
            .await?;
        Ok(())
    }

    /// Tells the user's server, which signs the event.
    async fn deliver(&self, receiver: &Receiver, room: &Room, pdu: &Pdu) -> Result<Pdu, FlowError> {
        let reader = receiver.rooms().reader();
        let mut state = reader.stripped_state(room.sid).await?;
        state.extend(
            reader
                .state_event(room.sid, &StateEventType::RoomMember, self.by.user.as_str())
                .await?,
        );
        let raw = |bytes: &[u8]| -> Result<Box<RawJsonValue>, FlowError> {
            serde_json::from_slice(bytes).map_err(|error| FlowError::BadRequest(error.to_string()))
        };
        let mut told = Vec::with_capacity(state.len());
        for event in state {
            told.push(RawStrippedState::Pdu(raw(event.pdu.bytes())?));
        }
        let request = send_invite::Request::new(
            room.id.clone(),
            pdu.event_id.clone(),
            room.version.clone(),
            raw(pdu.bytes())?,
            told,
        );
        let server = self.of.server_name();
        let bounds = Bounds {
            limit_bytes: 512 << 10,
            ..Bounds::urgent()
        };
        let remote = receiver.remote();
        let answer = remote.call_within(server, request, bounds).await?;
        let unreadable = |reason: String| FlowError::from(RemoteError::Unreadable(reason));
        let said: CanonicalJsonObject = serde_json::from_str(answer.event.get())
            .map_err(|error| unreadable(error.to_string()))?;
        let signature = said
            .get("signatures")
            .and_then(CanonicalJsonValue::as_object)
            .and_then(|all| all.get(server.as_str()))
            .cloned();
        let signature =
            signature.ok_or_else(|| unreadable("the invite is not signed".to_owned()))?;
        // The event stays as it was built: of the answer it takes the signature alone.
        let mut object = pdu.to_canonical().map_err(RoomError::from)?;
        if let Some(CanonicalJsonValue::Object(all)) = object.get_mut("signatures") {
            all.insert(server.to_string(), signature);
        }
        let emptied = canonical_json::redact(object.clone(), &room.rules.redaction, None)
            .map_err(|error| unreadable(error.to_string()))?;
        receiver
            .keys()
            .verify_json(server, &emptied, pdu.origin_server_ts)
            .await
            .map_err(|error| unreadable(error.to_string()))?;
        let bytes = serde_json::to_vec(&object)
            .map_err(|error| FlowError::BadRequest(error.to_string()))?;
        let signed = Pdu::parse(bytes.into(), &room.rules, Some(pdu.event_id.clone()));
        Ok(signed.map_err(RoomError::from)?)
    }
}

/// For whoever would invite a local user.
///
/// # Errors
/// [`FlowError::InviteBlocked`] if the user wants no invites.
pub(super) async fn must_take_invites(users: &Users, of: &UserId) -> Result<(), FlowError> {
    if of.server_name() == users.server_name()
        && let Some((_, sid)) = users.find(of.as_str()).await?
        && users.blocks_invites(sid).await?
    {
        return Err(FlowError::InviteBlocked);
    }
    Ok(())
}

/// Invites users of other servers to a new room, side by side. Who cannot be invited is not, and the room's state does not say otherwise.
pub(super) async fn invite_all(
    users: &Users,
    receiver: &Receiver,
    by: &Requester,
    others: BTreeSet<OwnedUserId>,
    room: &RoomId,
    is_direct: bool,
) {
    let inviting = others.iter().map(|of| async move {
        let invite = Invite {
            by,
            of,
            room,
            reason: None,
            is_direct,
        };
        if let Err(error) = invite.send(users, receiver).await {
            tracing::info!(%room, %of, %error, "someone could not be invited to a new room");
        }
    });
    let inviting: Vec<_> = inviting.collect();
    let all = stream::iter(inviting)
        .buffer_unordered(SIDE_BY_SIDE)
        .collect::<()>();
    if tokio::time::timeout(PATIENCE, all).await.is_err() {
        tracing::info!(%room, "not everyone could be invited to a new room in time");
    }
}

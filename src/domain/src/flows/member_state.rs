//! A member event that a client sends as the state event that it is: some memberships need more than an event.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId,
    UserId,
    events::{StateEventType, TimelineEventType},
};

use super::{
    FlowError, guests,
    invite::{Invite, must_take_invites},
    join::Join,
    membership::is_join,
    server_notices::may_refuse,
};
use crate::{
    event::build::Draft,
    rooms::{RoomError, receive::Receiver, restricted::Vouching},
    users::{Requester, Users},
};

/// Sets the membership of `of`. Users of other servers are invited there, and who needs someone to vouch for them joins with that; all else
/// is an event like others, and may be dated (`sent`). What clients cannot know is left out of the content.
///
/// # Errors
/// What the auth rules say; what other servers say.
pub async fn set(
    users: &Users,
    receiver: &Receiver,
    by: &Requester,
    room: &RoomId,
    of: &str,
    mut content: CanonicalJsonObject,
    sent: Option<MilliSecondsSinceUnixEpoch>,
) -> Result<OwnedEventId, FlowError> {
    let rooms = receiver.rooms();
    content.remove("join_authorised_via_users_server");
    let text = |name: &str| {
        content
            .get(name)
            .and_then(CanonicalJsonValue::as_str)
            .map(str::to_owned)
    };
    let (membership, reason) = (text("membership").unwrap_or_default(), text("reason"));
    let user = UserId::parse(of).ok();
    let remote = user
        .as_ref()
        .filter(|user| user.server_name() != rooms.server_name());
    if by.guest && membership == "knock" {
        return Err(FlowError::NoGuests);
    }
    let dated = || match sent {
        // Another server has its part in the event, or its own idea of the time.
        Some(_) => Err(FlowError::InvalidParam(
            "ts: this membership needs more than one event, which cannot be dated".to_owned(),
        )),
        None => Ok(()),
    };
    if let Some(of) = remote.filter(|_| membership == "invite") {
        dated()?;
        let is_direct = content.get("is_direct") == Some(&CanonicalJsonValue::Bool(true));
        let invite = Invite {
            by,
            of,
            room,
            reason: reason.as_deref(),
            is_direct,
        };
        invite.send(users, receiver).await?;
    } else if membership == "join" && of == by.user && must_be_vouched(receiver, by, room).await? {
        dated()?;
        let join = Join {
            users,
            receiver,
            by,
            reason: reason.as_deref(),
            more: content,
        };
        join.join(room, Vec::new()).await?;
    } else {
        if membership == "invite"
            && let Some(of) = &user
        {
            must_take_invites(users, of).await?;
        }
        let reader = rooms.reader();
        if membership == "leave"
            && of == by.user
            && let Some(known) = reader.room(room).await?
        {
            may_refuse(&reader, by.sid, known.sid).await?;
        }
        let draft = Draft {
            sender: by.user.clone(),
            kind: TimelineEventType::RoomMember,
            state_key: Some(of.to_owned()),
            content,
            redacts: None,
        };
        if by.guest && of == by.user && is_join(&draft.content) {
            return guests::join(receiver, room, draft).await;
        }
        return Ok(receiver.send_one_at(room, draft, None, sent).await?);
    }
    let reader = rooms.reader();
    let known = reader.room(room).await?.ok_or(RoomError::UnknownRoom)?;
    let event = reader
        .state_event(known.sid, &StateEventType::RoomMember, of)
        .await?;
    Ok(event.ok_or(RoomError::UnknownEvent)?.pdu.event_id.clone())
}

async fn must_be_vouched(
    receiver: &Receiver,
    by: &Requester,
    room: &RoomId,
) -> Result<bool, FlowError> {
    let reader = receiver.rooms().reader();
    let known = reader.room(room).await?.ok_or(RoomError::UnknownRoom)?;
    if reader.is_joined(by.sid, known.sid).await? {
        return Ok(false);
    }
    let vouching = reader.vouching(&known, &by.user).await?;
    Ok(vouching != Vouching::NotNeeded)
}

//! Guests in rooms: they join those that let guests in, and leave when that ends.
//!
//! Both are judged under the room's guard, so that nobody comes while the room closes. Only rooms that this server is in: what a room that it is
//! not in thinks of guests is known only once one of them is in it.
//! <https://spec.matrix.org/v1.19/client-server-api/#guest-access>

use ruma::{
    OwnedEventId, RoomId, UserId,
    events::{StateEventType, TimelineEventType, room::guest_access::GuestAccess},
};
use serde::Deserialize;
use serde_json::json;

use super::{FlowError, content};
use crate::{
    event::build::Draft,
    rooms::{RoomError, RoomGuard, Rooms, receive::Receiver},
    schema::Membership,
};

/// Sends a guest's join.
///
/// # Errors
/// [`FlowError::NoGuests`], and what the auth rules say.
pub(super) async fn join(
    receiver: &Receiver,
    room: &RoomId,
    draft: Draft,
) -> Result<OwnedEventId, FlowError> {
    let rooms = receiver.rooms();
    match join_once(rooms, room, draft.clone()).await {
        Err(FlowError::Room(RoomError::Raced)) => join_once(rooms, room, draft).await,
        // If the room closes while its policy server is asked, the guest is taken out like who was there before.
        Err(FlowError::Room(RoomError::Unasked)) => {
            Ok(receiver.send_one(room, draft, None).await?)
        }
        other => other,
    }
}

async fn join_once(rooms: &Rooms, room: &RoomId, draft: Draft) -> Result<OwnedEventId, FlowError> {
    let sent = {
        let mut guard = rooms.lock(room).await?;
        if !takes_guests(&mut guard).await? {
            return Err(FlowError::NoGuests);
        }
        rooms.send_unasked(&mut guard, draft).await?
    };
    Ok(sent.durable().await?)
}

/// Takes a guest out of a room that lets no guests in. One that does lets them stay.
///
/// # Errors
/// The store's.
pub async fn leave(rooms: &Rooms, room: &RoomId, guest: &UserId) -> Result<(), FlowError> {
    let sent = {
        let mut guard = rooms.lock(room).await?;
        if takes_guests(&mut guard).await? || !is_joined(rooms, room, guest).await? {
            return Ok(());
        }
        let draft = Draft {
            sender: guest.to_owned(),
            kind: TimelineEventType::RoomMember,
            state_key: Some(guest.to_string()),
            content: content(json!({ "membership": "leave" }))?,
            redacts: None,
        };
        rooms.send(&mut guard, draft, None).await?
    };
    sent.durable().await?;
    Ok(())
}

async fn is_joined(rooms: &Rooms, room: &RoomId, user: &UserId) -> Result<bool, FlowError> {
    let reader = rooms.reader();
    let (Some(room), Some(user)) = (reader.room(room).await?, reader.user_sid(user).await?) else {
        return Ok(false);
    };
    let row = reader.membership(user, room.sid).await?;
    Ok(row.is_some_and(|row| row.membership == Membership::Join))
}

/// Whether a room lets guests in now.
async fn takes_guests(guard: &mut RoomGuard) -> Result<bool, RoomError> {
    #[derive(Deserialize)]
    struct Content {
        guest_access: GuestAccess,
    }
    let kind = StateEventType::RoomGuestAccess;
    let event = guard.state_event(&kind, "").await?;
    let content: Option<Content> = event.and_then(|event| event.pdu.content_as().ok());
    Ok(content.is_some_and(|content| content.guest_access == GuestAccess::CanJoin))
}

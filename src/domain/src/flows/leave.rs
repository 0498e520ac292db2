//! Leaving a room, refusing an invite, withdrawing a knock: here, or, if this server is not in the room, through one that is.

use std::sync::Arc;

use ruma::{
    OwnedServerName, RoomId, ServerName, UserId,
    api::federation::membership::{
        create_leave_event::v2 as send_leave, prepare_leave_event::v1 as make_leave,
    },
};
use serde_json::json;

use super::{
    FlowError, content,
    membership::Change,
    server_notices::may_refuse,
    template::{Template, candidates},
};
use crate::{
    event::pdu::Pdu,
    remote::Bounds,
    rooms::{Room, RoomError, receive::Receiver},
    schema::Membership,
    users::{Requester, Users},
};

/// Leaves, refusing an invite or withdrawing a knock if that is what there is. Leaving twice is no error. When no server of the room
/// can be reached, the user is rid of it all the same.
///
/// # Errors
/// [`RoomError::Forbidden`] for who has nothing to do with the room; [`FlowError::ServerNotices`].
pub async fn leave(
    users: &Users,
    receiver: &Receiver,
    user: &Requester,
    room: &RoomId,
    reason: Option<&str>,
) -> Result<(), FlowError> {
    let reader = receiver.rooms().reader();
    let known = reader.room(room).await?.ok_or(RoomError::UnknownRoom)?;
    may_refuse(&reader, user.sid, known.sid).await?;
    leave_anyway(users, receiver, user, room, reason).await
}

/// The same also where one must not: for an account that ends.
async fn leave_anyway(
    users: &Users,
    receiver: &Receiver,
    user: &Requester,
    room: &RoomId,
    reason: Option<&str>,
) -> Result<(), FlowError> {
    let rooms = receiver.rooms();
    let reader = rooms.reader();
    let known = reader.room(room).await?.ok_or(RoomError::UnknownRoom)?;
    let row = reader.membership(user.sid, known.sid).await?;
    let Some(row) = row else {
        return Err(RoomError::Forbidden("you are not in that room".to_owned()).into());
    };
    if row.membership == Membership::Leave {
        return Ok(());
    }
    if reader.server_is_in(known.sid, None).await? {
        let change = Change {
            by: user,
            of: &user.user,
            room,
            reason,
        };
        return change.to(users, receiver, "leave").await;
    }
    let event = reader.event_by_sid(row.event).await?;
    let event = event.ok_or(RoomError::UnknownEvent)?;
    let outside = reader.outside(user.sid, known.sid).await?;
    let told = outside.map(|outside| outside.servers).unwrap_or_default();
    let mut named: Vec<OwnedServerName> = vec![event.pdu.sender.server_name().to_owned()];
    named.extend(told);
    for server in candidates(rooms, room, named) {
        match leave_through(receiver, &server, &known, &user.user, reason).await {
            Ok(pdu) => {
                rooms.set_outside(&known, &user.user, pdu, None).await?;
                return Ok(());
            }
            Err(error) => {
                tracing::info!(%server, %room, %error, "a room cannot be left through a server");
            }
        }
    }
    let alone = Template::after(event.pdu.event_id.clone());
    let pdu = alone.member(rooms, &known, &user.user, left(reason)?)?;
    rooms.set_outside(&known, &user.user, pdu, None).await?;
    Ok(())
}

fn left(reason: Option<&str>) -> Result<ruma::CanonicalJsonObject, FlowError> {
    match reason {
        Some(reason) => content(json!({ "membership": "leave", "reason": reason })),
        None => content(json!({ "membership": "leave" })),
    }
}

/// Asks a server to let a local user leave; gives the event.
pub(super) async fn leave_through(
    receiver: &Receiver,
    server: &ServerName,
    room: &Arc<Room>,
    user: &UserId,
    reason: Option<&str>,
) -> Result<Pdu, FlowError> {
    let remote = receiver.remote();
    let request = make_leave::Request::new(room.id.clone(), user.to_owned());
    let answer = remote
        .call_within(server, request, Bounds::urgent())
        .await?;
    let template = Template::read(&answer.event)?;
    let pdu = template.member(receiver.rooms(), room, user, left(reason)?)?;
    let raw = serde_json::from_slice(pdu.bytes())
        .map_err(|error| FlowError::BadRequest(error.to_string()))?;
    let request = send_leave::Request::new(room.id.clone(), pdu.event_id.clone(), raw);
    remote
        .call_within(server, request, Bounds::urgent())
        .await?;
    Ok(pdu)
}

/// Leaves every room: for an account that ends.
///
/// # Errors
/// The store's.
pub async fn leave_all(
    users: &Users,
    receiver: &Receiver,
    user: &Requester,
) -> Result<(), FlowError> {
    let reader = receiver.rooms().reader();
    for (sid, row) in reader.rooms_of(user.sid).await? {
        if matches!(row.membership, Membership::Leave | Membership::Ban) {
            continue;
        }
        if let Some(room) = reader.room_by_sid(sid).await? {
            leave_anyway(users, receiver, user, &room.id, None).await?;
        }
    }
    Ok(())
}

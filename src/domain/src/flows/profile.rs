//! A changed name or picture, shown in the rooms its user is in.

use super::{FlowError, membership::Change};
use crate::{
    rooms::{RoomError, receive::Receiver},
    schema::Membership,
    users::{Requester, Users},
};

/// Sends a new member event to every joined room. The profile itself is stored before; a room that refuses (its rules may)
/// keeps the old name.
pub async fn changed(
    users: &Users,
    receiver: &Receiver,
    user: &Requester,
    field: &str,
) -> Result<(), FlowError> {
    if field != "displayname" && field != "avatar_url" {
        return Ok(());
    }
    let reader = receiver.rooms().reader();
    for (sid, row) in reader.rooms_of(user.sid).await? {
        if row.membership != Membership::Join {
            continue;
        }
        let Some(room) = reader.room_by_sid(sid).await? else {
            continue;
        };
        let change = Change {
            by: user,
            of: &user.user,
            room: &room.id,
            reason: None,
        };
        match change.to(users, receiver, "join").await {
            Ok(())
            | Err(
                FlowError::Room(RoomError::Forbidden(_))
                | FlowError::NoGuests
                | FlowError::Remote(_),
            ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

//! What a suspended user may still send: what takes back their own words, and what takes them out of a room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#account-suspension>

use ruma::{CanonicalJsonObject, CanonicalJsonValue, EventId, RoomId, UserId};

use super::FlowError;
use crate::{
    rooms::Rooms,
    users::{Requester, UsersError},
};

/// An event that is not state: only redactions of one's own.
///
/// # Errors
/// [`UsersError::Suspended`].
pub async fn may_send(
    rooms: &Rooms,
    by: &Requester,
    room: &RoomId,
    redacts: Option<&EventId>,
) -> Result<(), FlowError> {
    if !by.suspended {
        return Ok(());
    }
    let reader = rooms.reader();
    if let (Some(target), Some(room)) = (redacts, reader.room(room).await?)
        && let Some(event) = reader.event(room.sid, target).await?
        && event.pdu.sender == by.user
    {
        return Ok(());
    }
    Err(UsersError::Suspended.into())
}

/// A state event: only that one leaves.
///
/// # Errors
/// [`UsersError::Suspended`].
pub fn may_set_state(
    by: &Requester,
    kind: &str,
    key: &str,
    content: &CanonicalJsonObject,
) -> Result<(), UsersError> {
    let membership = content
        .get("membership")
        .and_then(CanonicalJsonValue::as_str);
    let own = <&UserId>::try_from(key).is_ok_and(|user| user == by.user);
    if kind == "m.room.member" && own && membership == Some("leave") {
        return Ok(());
    }
    by.must_be_free()
}

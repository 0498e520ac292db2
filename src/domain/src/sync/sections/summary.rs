//! Who is in a room, for clients that make its name of them.

use ruma::{OwnedUserId, events::StateEventType};

use super::super::{SyncError, response::Summary};
use crate::{
    rooms::{Event, Reader, Room, visible::Viewer},
    schema::Membership,
};

/// Heroes (only for a room without a name or alias) and counts.
pub(super) async fn summary(
    reader: &Reader,
    viewer: &Viewer,
    room: &Room,
) -> Result<Summary, SyncError> {
    let joined = reader.member_count(room.sid, Membership::Join).await?;
    let invited = reader.member_count(room.sid, Membership::Invite).await?;
    let named = reader
        .state_event(room.sid, &StateEventType::RoomName, "")
        .await?
        .is_some_and(|event| says(&event, "name"))
        || reader
            .state_event(room.sid, &StateEventType::RoomCanonicalAlias, "")
            .await?
            .is_some_and(|event| says(&event, "alias"));
    let mut heroes: Vec<OwnedUserId> = Vec::new();
    if !named {
        for membership in [
            Membership::Join,
            Membership::Invite,
            Membership::Leave,
            Membership::Ban,
        ] {
            if membership == Membership::Leave && !heroes.is_empty() {
                break;
            }
            for (user, _) in reader.members(room.sid, membership, 6).await? {
                if user != viewer.sid
                    && heroes.len() < 5
                    && let Some(user) = reader.user_id(user).await?
                {
                    heroes.push(user);
                }
            }
        }
        heroes.sort();
    }
    Ok(Summary {
        heroes: (!named).then_some(heroes),
        joined: Some(joined),
        invited: Some(invited),
    })
}

/// Whether a state event's content has a string of some length at `field`.
fn says(event: &Event, field: &str) -> bool {
    let content: Option<serde_json::Map<String, serde_json::Value>> = event.pdu.content_as().ok();
    content.is_some_and(|content| {
        content
            .get(field)
            .and_then(|value| value.as_str())
            .is_some_and(|text| !text.is_empty())
    })
}

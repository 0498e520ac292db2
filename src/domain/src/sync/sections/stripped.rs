//! What an invited or knocking user may know of a room.

use ruma::events::StateEventType;
use serde_json::value::RawValue;

use super::{
    super::{SyncError, response::Events},
    Providers,
};
use crate::{
    event::client,
    rooms::{Reader, Room, outside::STRIPPED, visible::Viewer},
    schema::MembershipRow,
};

impl Providers {
    /// What an invited or knocking user may know of a room, and their own member event.
    pub(super) async fn stripped(
        &self,
        reader: &Reader,
        room: &Room,
        viewer: &Viewer,
        row: &MembershipRow,
    ) -> Result<Events, SyncError> {
        if let Some(outside) = reader.outside(viewer.sid, room.sid).await? {
            return Ok(Events {
                events: outside.state,
            });
        }
        let root = reader.root_at(room.sid, row.position).await?;
        let mut events: Vec<Box<RawValue>> = Vec::new();
        for kind in STRIPPED {
            if let Some(event) = reader
                .state_at_key(root, &StateEventType::from(kind), "")
                .await?
            {
                events.push(client::stripped_json(&event.pdu));
            }
        }
        if let Some(member) = reader.event_by_sid(row.event).await? {
            let inviter = member.pdu.sender.clone();
            if inviter != viewer.user
                && let Some(event) = reader
                    .state_at_key(root, &StateEventType::RoomMember, inviter.as_str())
                    .await?
            {
                events.push(client::stripped_json(&event.pdu));
            }
            events.push(client::stripped_json(&member.pdu));
        }
        Ok(Events { events })
    }
}

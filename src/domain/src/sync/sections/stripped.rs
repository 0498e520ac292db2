//! What an invited or knocking user may know of a room.

use ruma::events::StateEventType;
use serde_json::value::RawValue;

use super::{
    super::{SyncError, response::Events},
    Providers,
};
use crate::{
    event::client,
    rooms::{Reader, Room, visible::Viewer},
    schema::MembershipRow,
};

/// State that says what a room is, for those outside. <https://spec.matrix.org/v1.19/client-server-api/#stripped-state>
const STRIPPED: [&str; 9] = [
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
    "m.room.history_visibility",
    "m.room.tombstone",
];

impl Providers {
    /// What an invited or knocking user may know of a room, and their own member event.
    pub(super) async fn stripped(
        &self,
        reader: &Reader,
        room: &Room,
        viewer: &Viewer,
        row: &MembershipRow,
    ) -> Result<Events, SyncError> {
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

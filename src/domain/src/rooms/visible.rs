//! Which events of a room a user may see: history visibility, judged at each event.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>. Every read that serves events to a client
//! goes through [`Viewer::visible`]; it reads the state once per run of events that share it, so a quiet page costs two
//! look-ups.

use std::sync::Arc;

use ruma::{
    OwnedDeviceId, OwnedUserId,
    events::{
        StateEventType, TimelineEventType,
        room::{history_visibility::HistoryVisibility, member::MembershipState},
    },
};
use serde::Deserialize;
use vatra_store::Position;

use super::{Event, Reader, Room, RoomError};
use crate::schema::{MembershipRow, StateRoot, Status, UserSid};

/// Someone who reads.
#[derive(Debug, Clone)]
pub struct Viewer {
    /// Who.
    pub user: OwnedUserId,
    /// Their number.
    pub sid: UserSid,
    /// Their device, which alone is shown the transaction ids of what it sent.
    pub device: Option<OwnedDeviceId>,
}

/// What the rules need to know of the room's state around an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Around {
    visibility: Visibility,
    membership: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visibility {
    WorldReadable,
    Shared,
    Invited,
    Joined,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Joined,
    Invited,
    Other,
}

#[derive(Deserialize)]
struct VisibilityContent {
    history_visibility: HistoryVisibility,
}

#[derive(Deserialize)]
struct MemberContent {
    membership: MembershipState,
}

impl Viewer {
    /// For each event, whether this viewer may see it. The events are of one room, in any order.
    pub async fn visible(
        &self,
        reader: &Reader,
        room: &Room,
        events: &[Arc<Event>],
    ) -> Result<Vec<bool>, RoomError> {
        let row = reader.membership(self.sid, room.sid).await?;
        let mut known: Option<(StateRoot, Around)> = None;
        let mut answers = Vec::with_capacity(events.len());
        for event in events {
            if event.status != Status::Visible {
                answers.push(false);
                continue;
            }
            let around = match known {
                Some((root, around)) if root == event.root_before => around,
                _ => {
                    let around = self.around(reader, event.root_before).await?;
                    known = Some((event.root_before, around));
                    around
                }
            };
            let mut visible = allows(around, row.as_ref(), event.position);
            if !visible && self.changes_the_rules(event) {
                // These two are visible when the state on either side of them allows it.
                let after = self.around(reader, reader.root_after(event).await?).await?;
                visible = allows(after, row.as_ref(), event.position);
            }
            answers.push(visible);
        }
        Ok(answers)
    }

    /// One event.
    pub async fn may_see(
        &self,
        reader: &Reader,
        room: &Room,
        event: &Arc<Event>,
    ) -> Result<bool, RoomError> {
        Ok(self
            .visible(reader, room, std::slice::from_ref(event))
            .await?
            .first()
            .copied()
            .unwrap_or(false))
    }

    fn changes_the_rules(&self, event: &Event) -> bool {
        match event.pdu.kind {
            TimelineEventType::RoomHistoryVisibility => event.pdu.state_key.is_some(),
            TimelineEventType::RoomMember => {
                event.pdu.state_key.as_deref() == Some(self.user.as_str())
            }
            _ => false,
        }
    }

    async fn around(&self, reader: &Reader, root: StateRoot) -> Result<Around, RoomError> {
        let visibility = reader
            .state_at_key(root, &StateEventType::RoomHistoryVisibility, "")
            .await?;
        let visibility =
            visibility.and_then(|event| event.pdu.content_as::<VisibilityContent>().ok());
        let member = reader
            .state_at_key(root, &StateEventType::RoomMember, self.user.as_str())
            .await?;
        let member = member.and_then(|event| event.pdu.content_as::<MemberContent>().ok());
        Ok(Around {
            visibility: match visibility.map(|content| content.history_visibility) {
                Some(HistoryVisibility::WorldReadable) => Visibility::WorldReadable,
                Some(HistoryVisibility::Invited) => Visibility::Invited,
                Some(HistoryVisibility::Joined) => Visibility::Joined,
                // Absent or unknown: the spec's default.
                _ => Visibility::Shared,
            },
            membership: match member.map(|content| content.membership) {
                Some(MembershipState::Join) => Standing::Joined,
                Some(MembershipState::Invite) => Standing::Invited,
                _ => Standing::Other,
            },
        })
    }
}

/// The rules, in the spec's order. `row` is what the viewer has to do with the room now.
fn allows(around: Around, row: Option<&MembershipRow>, at: Position) -> bool {
    if around.visibility == Visibility::WorldReadable || around.membership == Standing::Joined {
        return true;
    }
    let joined_after = row.is_some_and(|row| row.joined_until > at);
    match around.visibility {
        Visibility::Shared => joined_after,
        Visibility::Invited => around.membership == Standing::Invited && joined_after,
        Visibility::Joined | Visibility::WorldReadable => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{EventSid, Membership};

    #[test]
    fn the_rules_of_the_spec() {
        use Standing::{Invited as WasInvited, Joined as WasJoined, Other};
        use Visibility::{Invited, Joined, Shared, WorldReadable};
        let row = |until| MembershipRow {
            membership: Membership::Leave,
            event: EventSid(1),
            position: Position(50),
            forgotten: false,
            joined_until: Position(until),
        };
        let cases = [
            (WorldReadable, Other, None, true),
            (Shared, Other, None, false),
            (Shared, Other, Some(row(0)), false),
            (Shared, Other, Some(row(9)), false),
            (Shared, Other, Some(row(11)), true),
            (Shared, WasJoined, Some(row(11)), true),
            (Invited, WasInvited, Some(row(u64::MAX)), true),
            (Invited, Other, Some(row(u64::MAX)), false),
            (Joined, WasInvited, Some(row(u64::MAX)), false),
            (Joined, WasJoined, Some(row(11)), true),
        ];
        for (visibility, membership, row, expected) in cases {
            let around = Around {
                visibility,
                membership,
            };
            assert_eq!(
                allows(around, row.as_ref(), Position(10)),
                expected,
                "{around:?} {row:?}"
            );
        }
    }
}

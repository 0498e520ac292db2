//! Which events of a room a user may see: history visibility, judged at each event.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>. Every read that serves events to a client
//! goes through [`Viewer::visible`]; it looks at the state once for each run of events that share it, in batches.

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
use crate::schema::{EventSid, MembershipRow, StateRoot, Status, UserSid};

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

impl Viewer {
    /// For each event, whether this viewer may see it. The events are of one room, in any order.
    pub async fn visible(
        &self,
        reader: &Reader,
        room: &Room,
        events: &[Arc<Event>],
    ) -> Result<Vec<bool>, RoomError> {
        let roots: Vec<StateRoot> = events.iter().map(|event| event.root_before).collect();
        let around = self.around(reader, &roots).await?;
        let mut now = Now::default();
        let mut answers = Vec::with_capacity(events.len());
        for (event, around) in events.iter().zip(around) {
            if event.status != Status::Visible {
                answers.push(false);
                continue;
            }
            let mut visible = around.allows_anyway()
                || allows(
                    around,
                    now.row(reader, self.sid, room).await?,
                    event.position,
                );
            if !visible && self.changes_the_rules(event) {
                // These two are visible when the state on either side of them allows it.
                let root = reader.root_after(event).await?;
                let after = self.around(reader, &[root]).await?;
                let row = now.row(reader, self.sid, room).await?;
                visible = after
                    .into_iter()
                    .any(|after| allows(after, row, event.position));
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

    /// What the rules need to know of each of some states.
    async fn around(&self, reader: &Reader, roots: &[StateRoot]) -> Result<Vec<Around>, RoomError> {
        let visibility = reader
            .state_at_each(roots, &StateEventType::RoomHistoryVisibility, "")
            .await?;
        let members = reader
            .state_at_each(roots, &StateEventType::RoomMember, self.user.as_str())
            .await?;
        let mut known: Option<(EventSid, Visibility)> = None;
        let mut around = Vec::with_capacity(roots.len());
        for (event, member) in visibility.iter().zip(&members) {
            let visibility = match (event, known) {
                (Some(event), Some((sid, visibility))) if sid == event.sid => visibility,
                (Some(event), _) => {
                    let read = visibility_of(event);
                    known = Some((event.sid, read));
                    read
                }
                // The spec's default.
                (None, _) => Visibility::Shared,
            };
            let member = member.as_ref().and_then(|event| event.pdu.member());
            let membership = match member.and_then(|member| member.membership.as_ref()) {
                Some(MembershipState::Join) => Standing::Joined,
                Some(MembershipState::Invite) => Standing::Invited,
                _ => Standing::Other,
            };
            around.push(Around {
                visibility,
                membership,
            });
        }
        Ok(around)
    }
}

fn visibility_of(event: &Event) -> Visibility {
    let content: Option<VisibilityContent> = event.pdu.content_as().ok();
    match content.map(|content| content.history_visibility) {
        Some(HistoryVisibility::WorldReadable) => Visibility::WorldReadable,
        Some(HistoryVisibility::Invited) => Visibility::Invited,
        Some(HistoryVisibility::Joined) => Visibility::Joined,
        // Unknown: the spec's default.
        _ => Visibility::Shared,
    }
}

impl Around {
    /// Whether an event is visible whatever the viewer has to do with the room now.
    fn allows_anyway(self) -> bool {
        self.visibility == Visibility::WorldReadable || self.membership == Standing::Joined
    }
}

/// What the viewer has to do with the room now, read when it is first asked for: most pages never ask.
#[derive(Default)]
struct Now {
    read: Option<Option<MembershipRow>>,
}

impl Now {
    async fn row(
        &mut self,
        reader: &Reader,
        user: UserSid,
        room: &Room,
    ) -> Result<Option<&MembershipRow>, RoomError> {
        if self.read.is_none() {
            self.read = Some(reader.membership(user, room.sid).await?);
        }
        Ok(self.read.as_ref().and_then(Option::as_ref))
    }
}

/// The rules, in the spec's order. `row` is what the viewer has to do with the room now.
fn allows(around: Around, row: Option<&MembershipRow>, at: Position) -> bool {
    if around.allows_anyway() {
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
    use crate::schema::Membership;

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

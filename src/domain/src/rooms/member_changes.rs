//! Whose member events changed: at a position, or between two.

use std::sync::Arc;

use ruma::{OwnedUserId, UserId, events::StateEventType};
use vatra_store::Position;

use super::{Event, Reader, RoomError, append::membership_of};
use crate::schema::{EventSid, Membership, RoomSid, StateChange};

/// A user who was joined at one end only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberChange {
    /// Who.
    pub user: OwnedUserId,
    /// Joined at the end; else at the start.
    pub joined: bool,
}

/// A member event that took another's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberTurn {
    /// Whose.
    pub user: OwnedUserId,
    /// The one before.
    pub old: Option<EventSid>,
    /// The one after.
    pub new: Option<EventSid>,
}

impl Reader {
    /// Whose member events a position changed in a room's current state. Very many are not listed: then there are none.
    pub async fn member_turns(
        &self,
        room: RoomSid,
        at: Position,
    ) -> Result<Vec<MemberTurn>, RoomError> {
        let changes = self.state_changes(room, at).await?;
        self.turns_of(changes.unwrap_or_default()).await
    }

    async fn turns_of(&self, changes: Vec<StateChange>) -> Result<Vec<MemberTurn>, RoomError> {
        let mut turns = Vec::new();
        for StateChange { key, old, new } in changes {
            let Some(name) = self.state_key_name(key).await? else {
                continue;
            };
            if name.0 == "m.room.member"
                && let Ok(user) = UserId::parse(name.1.as_str())
            {
                turns.push(MemberTurn { user, old, new });
            }
        }
        Ok(turns)
    }

    /// Whether a user was joined to a room after everything up to and including a position.
    pub async fn was_joined(
        &self,
        room: RoomSid,
        user: &UserId,
        at: Position,
    ) -> Result<bool, RoomError> {
        let root = self.root_at(room, at).await?;
        let member = self
            .state_at_key(root, &StateEventType::RoomMember, user.as_str())
            .await?;
        Ok(is_join(member.as_ref()))
    }

    /// Who is joined at one of two positions but not at the other. Costs in proportion to what changed in the room's state.
    pub async fn member_changes(
        &self,
        room: RoomSid,
        since: Position,
        upto: Position,
    ) -> Result<Vec<MemberChange>, RoomError> {
        let (old, new) = (
            self.root_at(room, since).await?,
            self.root_at(room, upto).await?,
        );
        if old == new {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for turn in self.turns_of(self.diff(old, new).await?).await? {
            let (was, is) = (
                self.is_join_event(turn.old).await?,
                self.is_join_event(turn.new).await?,
            );
            if was != is {
                let user = turn.user;
                found.push(MemberChange { user, joined: is });
            }
        }
        Ok(found)
    }

    /// Whether there is an event and it is a join.
    pub async fn is_join_event(&self, event: Option<EventSid>) -> Result<bool, RoomError> {
        match event {
            Some(event) => Ok(is_join(self.event_by_sid(event).await?.as_ref())),
            None => Ok(false),
        }
    }
}

fn is_join(member: Option<&Arc<Event>>) -> bool {
    member.is_some_and(|event| membership_of(&event.pdu) == Some(Membership::Join))
}

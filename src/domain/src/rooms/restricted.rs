//! Restricted rooms: who may join because they are in another room, and who vouches for that.
//! <https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms>

use ruma::{OwnedRoomId, OwnedUserId, UserId, events::StateEventType};
use serde::Deserialize;

use super::{Reader, Room, RoomError};
use crate::schema::Membership;

/// The most allowed rooms that are looked at.
const MAX_ALLOWED: usize = 100;

/// What a restricted room says to someone who wants to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vouching {
    /// Nobody need vouch: the room is not restricted, or they were invited.
    NotNeeded,
    /// This user of this server vouches.
    By(OwnedUserId),
    /// They are in none of the allowed rooms.
    Refused,
    /// This server is not in the allowed rooms, and cannot tell.
    CannotTell,
    /// They may join, but nobody of this server has the power to let them in.
    NobodyCan,
}

#[derive(Deserialize)]
struct Rules {
    join_rule: String,
    #[serde(default)]
    allow: serde_json::Value,
}

#[derive(Deserialize)]
struct Allow {
    #[serde(rename = "type")]
    kind: String,
    room_id: Option<OwnedRoomId>,
}

impl Reader {
    /// Whether someone may join, and who of this server vouches for it.
    pub async fn vouching(&self, room: &Room, user: &UserId) -> Result<Vouching, RoomError> {
        let event = self
            .state_event(room.sid, &StateEventType::RoomJoinRules, "")
            .await?;
        let Some(Ok(rules)) = event.map(|event| event.pdu.content_as::<Rules>()) else {
            return Ok(Vouching::NotNeeded);
        };
        let knows = &room.rules.authorization;
        let restricted = match rules.join_rule.as_str() {
            "restricted" => knows.restricted_join_rule,
            "knock_restricted" => knows.knock_restricted_join_rule,
            _ => false,
        };
        if !restricted || self.invited_or_in(room, user).await? {
            return Ok(Vouching::NotNeeded);
        }
        let mut cannot_tell = false;
        let allow = rules.allow.as_array().cloned().unwrap_or_default();
        for entry in allow.into_iter().take(MAX_ALLOWED) {
            let Ok(entry) = serde_json::from_value::<Allow>(entry) else {
                continue;
            };
            let (true, Some(id)) = (entry.kind == "m.room_membership", entry.room_id) else {
                continue;
            };
            let Some(allowed) = self.room(&id).await? else {
                cannot_tell = true;
                continue;
            };
            if !self.server_is_in(allowed.sid, None).await? {
                cannot_tell = true;
                continue;
            }
            if let Some(user) = self.user_sid(user).await?
                && self.is_joined(user, allowed.sid).await?
            {
                return Ok(match self.local_inviter(room).await? {
                    Some(by) => Vouching::By(by),
                    None => Vouching::NobodyCan,
                });
            }
        }
        Ok(if cannot_tell {
            Vouching::CannotTell
        } else {
            Vouching::Refused
        })
    }

    async fn invited_or_in(&self, room: &Room, user: &UserId) -> Result<bool, RoomError> {
        let Some(user) = self.user_sid(user).await? else {
            return Ok(false);
        };
        let row = self.membership(user, room.sid).await?;
        Ok(row.is_some_and(|row| matches!(row.membership, Membership::Invite | Membership::Join)))
    }

    /// A user of this server in the room who may invite.
    async fn local_inviter(&self, room: &Room) -> Result<Option<OwnedUserId>, RoomError> {
        let power = self.power_levels(room).await?;
        let members = self.members(room.sid, Membership::Join, usize::MAX).await?;
        for (member, _) in members {
            if let Some(member) = self.user_id(member).await?
                && member.server_name() == self.server_name()
                && power.user_can_invite(&member)
            {
                return Ok(Some(member));
            }
        }
        Ok(None)
    }
}

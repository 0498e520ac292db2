//! What a room looks like from outside, and who may know it.

use std::sync::Arc;

use ruma::{
    OwnedRoomId, RoomId, ServerName,
    events::StateEventType,
    room::{JoinRuleSummary, RoomSummary},
};
use serde_json::{Map, Value, json};

use super::super::{FlowError, public_rooms::describe};
use crate::{
    rooms::{Reader, Room},
    schema::{Membership, UserSid},
};

/// How many rooms a restricted room may name, as far as anyone looks.
const ALLOWED: usize = 100;
/// How many invited users are looked at for one of a server.
const INVITED: usize = 1_000;

/// Who wants to know of a room.
#[derive(Debug, Clone, Copy)]
pub enum Viewer<'a> {
    /// Anyone at all.
    Anyone,
    /// A local user.
    User(UserSid),
    /// A server, for some user of its.
    Server(&'a ServerName),
}

/// What anyone who may know of a room is shown: for the tree and `room_summary`.
pub async fn summary(reader: &Reader, room: &Arc<Room>) -> Result<Map<String, Value>, FlowError> {
    let mut summary = match serde_json::to_value(describe(reader, room).await?) {
        Ok(Value::Object(summary)) => summary,
        _ => Map::new(),
    };
    summary.insert("room_version".to_owned(), json!(room.version));
    if let Some(content) = content(reader, room, &StateEventType::RoomEncryption).await?
        && let Some(algorithm) = content.get("algorithm").filter(|it| it.is_string())
    {
        summary.insert("encryption".to_owned(), algorithm.clone());
    }
    let rules = JoinRules::of(reader, room).await?;
    if rules.is_restricted() {
        summary.insert("allowed_room_ids".to_owned(), json!(rules.allowed));
    }
    Ok(summary)
}

/// Whether someone may know what a room looks like: who is in it or invited, who could join or knock, and everyone if its
/// history is open to the world.
pub async fn may_know(reader: &Reader, viewer: Viewer<'_>, room: &Room) -> Result<bool, FlowError> {
    match viewer {
        Viewer::Anyone => {}
        Viewer::User(user) => {
            let row = reader.membership(user, room.sid).await?;
            match row.map(|row| row.membership) {
                Some(Membership::Join | Membership::Invite) => return Ok(true),
                Some(Membership::Ban) => return Ok(false),
                _ => {}
            }
        }
        Viewer::Server(server) => {
            if reader.server_is_in(room.sid, Some(server)).await?
                || invites_one_of(reader, room, server).await?
            {
                return Ok(true);
            }
        }
    }
    let rules = JoinRules::of(reader, room).await?;
    if ["public", "knock", "knock_restricted"].contains(&rules.rule.as_str()) {
        return Ok(true);
    }
    let visibility = content(reader, room, &StateEventType::RoomHistoryVisibility).await?;
    if visibility.is_some_and(|it| it.get("history_visibility") == Some(&json!("world_readable"))) {
        return Ok(true);
    }
    Ok(rules.is_restricted() && is_in_one_of(reader, viewer, &rules.allowed).await?)
}

/// Whether a local user may know of a room of which another server has told.
pub(super) async fn may_know_told(
    reader: &Reader,
    user: UserSid,
    told: &RoomSummary,
) -> Result<bool, FlowError> {
    if let Some(room) = reader.room(&told.room_id).await? {
        let row = reader.membership(user, room.sid).await?;
        match row.map(|row| row.membership) {
            Some(Membership::Join | Membership::Invite) => return Ok(true),
            Some(Membership::Ban) => return Ok(false),
            _ => {}
        }
    }
    Ok(match &told.join_rule {
        _ if told.world_readable => true,
        JoinRuleSummary::Public | JoinRuleSummary::Knock | JoinRuleSummary::KnockRestricted(_) => {
            true
        }
        JoinRuleSummary::Restricted(rule) => {
            let allowed = rule.allowed_room_ids.get(..ALLOWED);
            let allowed = allowed.unwrap_or(&rule.allowed_room_ids);
            is_in_one_of(reader, Viewer::User(user), allowed).await?
        }
        _ => false,
    })
}

async fn is_in_one_of(
    reader: &Reader,
    viewer: Viewer<'_>,
    rooms: &[OwnedRoomId],
) -> Result<bool, FlowError> {
    for room in rooms {
        let Some(room) = reader.room(room).await? else {
            continue;
        };
        let is_in = match viewer {
            Viewer::Anyone => false,
            Viewer::User(user) => reader.is_joined(user, room.sid).await?,
            Viewer::Server(server) => reader.server_is_in(room.sid, Some(server)).await?,
        };
        if is_in {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn invites_one_of(
    reader: &Reader,
    room: &Room,
    server: &ServerName,
) -> Result<bool, FlowError> {
    let invited = reader
        .members(room.sid, Membership::Invite, INVITED)
        .await?;
    for (user, _) in invited {
        let user = reader.user_id(user).await?;
        if user.is_some_and(|user| user.server_name() == server) {
            return Ok(true);
        }
    }
    Ok(false)
}

struct JoinRules {
    rule: String,
    allowed: Vec<OwnedRoomId>,
}

impl JoinRules {
    async fn of(reader: &Reader, room: &Room) -> Result<Self, FlowError> {
        let content = content(reader, room, &StateEventType::RoomJoinRules).await?;
        let content = content.unwrap_or_default();
        let rule = content.get("join_rule").and_then(Value::as_str);
        let allow = content.get("allow").and_then(Value::as_array);
        let allowed = allow.into_iter().flatten().take(ALLOWED).filter_map(|it| {
            let is_room = it.get("type") == Some(&json!("m.room_membership"));
            let id = it.get("room_id").filter(|_| is_room)?.as_str()?;
            RoomId::parse(id).ok()
        });
        Ok(Self {
            rule: rule.unwrap_or("invite").to_owned(),
            allowed: allowed.collect(),
        })
    }

    fn is_restricted(&self) -> bool {
        self.rule == "restricted" || self.rule == "knock_restricted"
    }
}

async fn content(
    reader: &Reader,
    room: &Room,
    kind: &StateEventType,
) -> Result<Option<Map<String, Value>>, FlowError> {
    let event = reader.state_event(room.sid, kind, "").await?;
    Ok(event.and_then(|event| event.pdu.content_as().ok()))
}

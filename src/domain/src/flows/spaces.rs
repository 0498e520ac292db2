//! What a room looks like from outside, and the tree of rooms under a space.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#spaces>. The tree is walked depth-first, without recursion, each room
//! once; a page costs the walk up to its end, some ten small reads a room, and the walk is bounded.

use std::{collections::HashSet, sync::Arc};

use ruma::{OwnedRoomId, RoomId, events::StateEventType};
use serde_json::{Map, Value, json};

use super::{FlowError, public_rooms::describe};
use crate::{
    rooms::{Event, Reader, Room, RoomError},
    schema::{Membership, UserSid},
};

/// How many rooms a page has when the client does not say, and at most.
const DEFAULT: usize = 50;
const MOST: usize = 200;
/// How many rooms a walk visits in all.
const WALKED: usize = 5_000;
/// How many rooms wait for their visit at once.
const WAITING: usize = 50_000;
/// How many children of one space are looked at.
const CHILDREN: usize = 1_000;
/// How many rooms a restricted room may name, as far as anyone looks.
const ALLOWED: usize = 100;

/// What is asked of a tree.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// How many rooms.
    pub limit: Option<usize>,
    /// How far below the first room; as far as it goes if absent.
    pub max_depth: Option<u64>,
    /// Only children that their space suggests.
    pub suggested_only: bool,
}

/// A page of the tree under a room, and the token of the next one.
///
/// # Errors
/// [`RoomError::Forbidden`] for a room that the viewer may know nothing of; [`FlowError::InvalidParam`] for a token that
/// is none, or of a walk with other parameters.
pub async fn hierarchy(
    reader: &Reader,
    viewer: UserSid,
    root: &RoomId,
    asked: Asked,
    from: Option<&str>,
) -> Result<(Vec<Value>, Option<String>), FlowError> {
    let hidden = || RoomError::Forbidden("you may not see that room".to_owned());
    let root = reader.room(root).await?.ok_or_else(hidden)?;
    if !may_know(reader, Some(viewer), &root).await? {
        return Err(hidden().into());
    }
    let skip = match from {
        Some(token) => asked
            .offset(token)
            .ok_or_else(|| FlowError::InvalidParam("from is no token of this walk".to_owned()))?,
        None => 0,
    };
    let limit = asked.limit.unwrap_or(DEFAULT).clamp(1, MOST);
    let mut walk = Walk {
        reader,
        viewer,
        asked,
        seen: HashSet::new(),
        stack: vec![(root, 0)],
    };
    let mut page = Vec::new();
    let mut visited = 0_usize;
    while visited < WALKED
        && let Some((room, children)) = walk.next().await?
    {
        visited += 1;
        if visited <= skip {
            continue;
        }
        if page.len() == limit {
            return Ok((page, Some(asked.token(visited - 1))));
        }
        let mut summary = summary(reader, &room).await?;
        let children: Vec<Value> = children.iter().map(|child| child.json()).collect();
        summary.insert("children_state".to_owned(), Value::Array(children));
        page.push(Value::Object(summary));
    }
    Ok((page, None))
}

impl Asked {
    /// Walks with other parameters come past other rooms: the token names them.
    fn token(&self, offset: usize) -> String {
        let depth = self
            .max_depth
            .map_or("all".to_owned(), |depth| depth.to_string());
        let which = if self.suggested_only {
            "suggested"
        } else {
            "every"
        };
        format!("{offset}_{depth}_{which}")
    }

    fn offset(&self, token: &str) -> Option<usize> {
        let offset = token.split_once('_')?.0.parse::<usize>().ok()?;
        (self.token(offset) == token && offset <= WALKED).then_some(offset)
    }
}

/// A walk under way: the rooms that are still to be visited, the next one last.
struct Walk<'a> {
    reader: &'a Reader,
    viewer: UserSid,
    asked: Asked,
    seen: HashSet<OwnedRoomId>,
    stack: Vec<(Arc<Room>, u64)>,
}

impl Walk<'_> {
    /// The next room and its children.
    async fn next(&mut self) -> Result<Option<(Arc<Room>, Vec<Child>)>, FlowError> {
        let (room, depth) = loop {
            let Some((room, depth)) = self.stack.pop() else {
                return Ok(None);
            };
            if self.seen.insert(room.id.clone()) {
                break (room, depth);
            }
        };
        let children = self.children(&room).await?;
        if self.asked.max_depth.is_none_or(|most| depth < most) {
            // The first child is visited first, thus comes last.
            for child in children.iter().rev() {
                if self.stack.len() < WAITING
                    && !self.seen.contains(&child.id)
                    && let Some(known) = self.reader.room(&child.id).await?
                    && may_know(self.reader, Some(self.viewer), &known).await?
                {
                    self.stack.push((known, depth + 1));
                }
            }
        }
        Ok(Some((room, children)))
    }

    /// The children of a space, in the order of the spec. Other rooms have none.
    async fn children(&self, room: &Room) -> Result<Vec<Child>, FlowError> {
        let create = self
            .reader
            .state_event(room.sid, &StateEventType::RoomCreate, "")
            .await?;
        let create: Option<Map<String, Value>> =
            create.and_then(|event| event.pdu.content_as().ok());
        if create.and_then(|mut create| create.remove("type")) != Some(json!("m.space")) {
            return Ok(Vec::new());
        }
        let events = self
            .reader
            .current_of_type(room.sid, &StateEventType::SpaceChild)
            .await?;
        let mut children: Vec<Child> = events.into_iter().filter_map(Child::of).collect();
        children.retain(|child| child.suggested || !self.asked.suggested_only);
        children.sort_by(|one, other| one.rank().cmp(&other.rank()));
        children.truncate(CHILDREN);
        Ok(children)
    }
}

/// A child of a space.
struct Child {
    id: OwnedRoomId,
    order: Option<String>,
    suggested: bool,
    event: Arc<Event>,
}

impl Child {
    /// `None` for a link that was taken away or is malformed.
    fn of(event: Arc<Event>) -> Option<Self> {
        let id = RoomId::parse(event.pdu.state_key.as_deref()?).ok()?;
        let content: Map<String, Value> = event.pdu.content_as().ok()?;
        content.get("via")?.as_array()?;
        let order = content.get("order").and_then(Value::as_str);
        let order = order.filter(|order| {
            order.len() <= 50 && order.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
        });
        Some(Self {
            id,
            order: order.map(str::to_owned),
            suggested: content.get("suggested") == Some(&json!(true)),
            event,
        })
    }

    /// Those with an `order` come first, then the older links.
    fn rank(&self) -> (bool, Option<&str>, u64, &RoomId) {
        let sent = self.event.pdu.origin_server_ts.0.into();
        (self.order.is_none(), self.order.as_deref(), sent, &self.id)
    }

    fn json(&self) -> Value {
        let pdu = &self.event.pdu;
        json!({
            "type": pdu.kind.to_string(),
            "state_key": pdu.state_key,
            "sender": pdu.sender,
            "origin_server_ts": pdu.origin_server_ts,
            "content": pdu.content(),
        })
    }
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

/// Whether someone (`None`: anyone at all) may know what a room looks like: who is in it or invited, who could join or knock,
/// and everyone if its history is open to the world.
pub async fn may_know(
    reader: &Reader,
    viewer: Option<UserSid>,
    room: &Room,
) -> Result<bool, FlowError> {
    if let Some(viewer) = viewer {
        let row = reader.membership(viewer, room.sid).await?;
        match row.map(|row| row.membership) {
            Some(Membership::Join | Membership::Invite) => return Ok(true),
            Some(Membership::Ban) => return Ok(false),
            _ => {}
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
    if let Some(viewer) = viewer.filter(|_| rules.is_restricted()) {
        for allowed in &rules.allowed {
            if let Some(allowed) = reader.room(allowed).await?
                && reader.is_joined(viewer, allowed.sid).await?
            {
                return Ok(true);
            }
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

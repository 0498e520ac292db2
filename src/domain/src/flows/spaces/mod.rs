//! What a room looks like from outside, and the tree of rooms under a space.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#spaces>. The tree is walked depth-first, without recursion, each room
//! once; a page costs the walk up to its end, some ten small reads a room, and the walk is bounded. Rooms that this server is not in
//! are asked for ([`elsewhere`]); what it tells other servers is `served`.

mod elsewhere;
mod known;
mod served;

use std::{collections::HashSet, sync::Arc};

use ruma::{OwnedRoomId, OwnedServerName, RoomId, events::StateEventType};
use serde_json::{Map, Value, json};

use self::elsewhere::Elsewhere;
pub use self::{
    known::{Viewer, may_know, summary},
    served::for_server,
};
use super::FlowError;
use crate::{
    rooms::{Event, Reader, Room, RoomError, receive::Receiver},
    schema::UserSid,
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
/// How many servers a child is said to be known by, as far as anyone looks.
const VIA: usize = 10;

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
    receiver: &Receiver,
    viewer: UserSid,
    root: &RoomId,
    asked: Asked,
    from: Option<&str>,
) -> Result<(Vec<Value>, Option<String>), FlowError> {
    let reader = &receiver.rooms().reader();
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
        elsewhere: Elsewhere::new(receiver),
        seen: HashSet::new(),
        stack: vec![(root.to_owned(), Vec::new(), 0)],
    };
    let mut page = Vec::new();
    let mut visited = 0_usize;
    while visited < WALKED
        && let Some(found) = walk.next().await?
    {
        visited += 1;
        if visited <= skip {
            continue;
        }
        if page.len() == limit {
            return Ok((page, Some(asked.token(visited - 1))));
        }
        let mut summary = match found.looks {
            Looks::Here(room) => summary(reader, &room).await?,
            Looks::Told(summary) => summary,
        };
        let children: Vec<Value> = found.children.into_iter().map(|it| it.stripped).collect();
        summary.insert("children_state".to_owned(), Value::Array(children));
        page.push(Value::Object(summary));
    }
    if visited == 0 {
        return Err(RoomError::Forbidden("you may not see that room".to_owned()).into());
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

/// A room that a walk has come to.
struct Found {
    looks: Looks,
    children: Vec<Child>,
}

/// Where it is known what it looks like.
enum Looks {
    Here(Arc<Room>),
    Told(Map<String, Value>),
}

/// A walk under way: the rooms that are still to be visited and servers that may know them, the next one last.
struct Walk<'a> {
    reader: &'a Reader,
    viewer: UserSid,
    asked: Asked,
    elsewhere: Elsewhere<'a>,
    seen: HashSet<OwnedRoomId>,
    stack: Vec<(OwnedRoomId, Vec<OwnedServerName>, u64)>,
}

impl Walk<'_> {
    /// The next room of which the viewer may know, and its children.
    async fn next(&mut self) -> Result<Option<Found>, FlowError> {
        let (found, depth) = loop {
            let Some((id, via, depth)) = self.stack.pop() else {
                return Ok(None);
            };
            if !self.seen.insert(id.clone()) {
                continue;
            }
            if let Some(found) = self.visit(&id, via).await? {
                break (found, depth);
            }
        };
        if self.asked.max_depth.is_none_or(|most| depth < most) {
            // The first child is visited first, thus comes last.
            for child in found.children.iter().rev() {
                if self.stack.len() < WAITING && !self.seen.contains(&child.id) {
                    let (id, via) = (child.id.clone(), child.via.clone());
                    self.stack.push((id, via, depth + 1));
                }
            }
        }
        Ok(Some(found))
    }

    async fn visit(
        &mut self,
        id: &RoomId,
        via: Vec<OwnedServerName>,
    ) -> Result<Option<Found>, FlowError> {
        if let Some(room) = self.reader.room(id).await?
            && self.reader.server_is_in(room.sid, None).await?
        {
            if !may_know(self.reader, Viewer::User(self.viewer), &room).await? {
                return Ok(None);
            }
            let children = children(self.reader, &room, self.asked.suggested_only).await?;
            let looks = Looks::Here(room);
            return Ok(Some(Found { looks, children }));
        }
        let only_suggested = self.asked.suggested_only;
        let found = self
            .elsewhere
            .visit(self.reader, self.viewer, id, via, only_suggested)
            .await?;
        Ok(found.map(|(looks, children)| Found {
            looks: Looks::Told(looks),
            children,
        }))
    }
}

/// The children of a space that this server is in, in the order of the spec. Other rooms have none.
async fn children(
    reader: &Reader,
    room: &Room,
    suggested_only: bool,
) -> Result<Vec<Child>, FlowError> {
    let create = reader
        .state_event(room.sid, &StateEventType::RoomCreate, "")
        .await?;
    let create: Option<Map<String, Value>> = create.and_then(|event| event.pdu.content_as().ok());
    if create.and_then(|mut create| create.remove("type")) != Some(json!("m.space")) {
        return Ok(Vec::new());
    }
    let events = reader
        .current_of_type(room.sid, &StateEventType::SpaceChild)
        .await?;
    let children = events.iter().filter_map(|event| Child::of(event)).collect();
    Ok(in_order(children, suggested_only))
}

fn in_order(mut children: Vec<Child>, suggested_only: bool) -> Vec<Child> {
    children.retain(|child| child.suggested || !suggested_only);
    children.sort_by(|one, other| one.rank().cmp(&other.rank()));
    children.truncate(CHILDREN);
    children
}

/// A child of a space.
struct Child {
    id: OwnedRoomId,
    via: Vec<OwnedServerName>,
    order: Option<String>,
    suggested: bool,
    sent: u64,
    /// The link, as clients and other servers are shown it.
    stripped: Value,
}

impl Child {
    fn of(event: &Event) -> Option<Self> {
        let pdu = &event.pdu;
        let content: Map<String, Value> = pdu.content_as().ok()?;
        let sent = pdu.origin_server_ts.0.into();
        Self::read(
            pdu.state_key.as_deref()?,
            pdu.sender.as_str(),
            sent,
            content,
        )
    }

    /// `None` for a link that was taken away or is malformed.
    fn read(key: &str, sender: &str, sent: u64, content: Map<String, Value>) -> Option<Self> {
        let id = RoomId::parse(key).ok()?;
        let via = content.get("via")?.as_array()?.iter().take(VIA);
        let via = via
            .filter_map(|server| OwnedServerName::try_from(server.as_str()?).ok())
            .collect();
        let order = content.get("order").and_then(Value::as_str);
        let order = order.filter(|order| {
            order.len() <= 50 && order.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
        });
        Some(Self {
            via,
            order: order.map(str::to_owned),
            suggested: content.get("suggested") == Some(&json!(true)),
            sent,
            stripped: json!({
                "type": "m.space.child",
                "state_key": id,
                "sender": sender,
                "origin_server_ts": sent,
                "content": content,
            }),
            id,
        })
    }

    /// Those with an `order` come first, then the older links.
    fn rank(&self) -> (bool, Option<&str>, u64, &RoomId) {
        (
            self.order.is_none(),
            self.order.as_deref(),
            self.sent,
            &self.id,
        )
    }
}

//! The list of rooms that this server publishes.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#published-room-directory>. A listed room is a row; what is shown of it is
//! read from its current state, some ten small reads a room. The largest rooms come first.

use std::{collections::BTreeSet, sync::Arc};

use ruma::{
    UInt,
    directory::{Filter, PublicRoomsChunk, PublicRoomsChunkInit, RoomNetwork, RoomTypeFilter},
    events::StateEventType,
    room::{JoinRuleKind, RoomType},
};
use serde_json::{Map, Value};
use vatra_store::{Batch, Direction, Range};

use super::{FlowError, directory::may_set_canonical};
use crate::{
    rooms::{Reader, Room, RoomError, Rooms},
    schema::{self, Membership, RoomSid},
    users::Requester,
};

/// How many rooms a page has when the client does not say, and at most.
const DEFAULT: usize = 100;
const MOST: usize = 500;

/// A page of the list.
#[derive(Debug)]
pub struct Page {
    /// The rooms.
    pub chunk: Vec<PublicRoomsChunk>,
    /// The token of the next page, if there is one.
    pub next: Option<String>,
    /// The token of the page before.
    pub previous: Option<String>,
    /// How many rooms the filter lets through.
    pub total: usize,
}

/// Whether the list has a room. `None` for a room this server does not know.
pub async fn is_listed(reader: &Reader, room: &Room) -> Result<bool, FlowError> {
    let row = reader.view().get(&schema::PUBLIC_ROOMS, &room.sid).await?;
    Ok(row.is_some())
}

/// Puts a room on the list or takes it off: who may set its canonical alias may, and an admin.
pub async fn set_listed(
    rooms: &Rooms,
    requester: &Requester,
    room: &Room,
    listed: bool,
) -> Result<(), FlowError> {
    let reader = rooms.reader();
    let may = requester.admin
        || (reader.is_joined(requester.sid, room.sid).await?
            && may_set_canonical(&reader, room, &requester.user).await?);
    if !may {
        let message = "you may not change whether the room is listed".to_owned();
        return Err(RoomError::Forbidden(message).into());
    }
    let mut batch = Batch::new();
    if listed {
        batch.put(&schema::PUBLIC_ROOMS, &room.sid, &());
    } else {
        batch.delete(&schema::PUBLIC_ROOMS, &room.sid);
    }
    rooms.store().write(batch).await?;
    Ok(())
}

/// A page of the list, or of those that application services have for their networks, the largest rooms first.
///
/// # Errors
/// [`FlowError::InvalidParam`] for a `since` that is no token of this list.
pub async fn page(
    reader: &Reader,
    network: &RoomNetwork,
    filter: &Filter,
    limit: Option<UInt>,
    since: Option<&str>,
) -> Result<Page, FlowError> {
    let start = match since {
        Some(token) => token
            .strip_prefix('p')
            .and_then(|offset| offset.parse::<usize>().ok())
            .ok_or_else(|| FlowError::InvalidParam("since is no token of this list".to_owned()))?,
        None => 0,
    };
    let limit = limit.map_or(DEFAULT, |limit| usize::try_from(limit).unwrap_or(MOST));
    let limit = limit.min(MOST);
    let mut chunks = Vec::new();
    for sid in listed(reader, network).await? {
        let Some(room) = reader.room_by_sid(sid).await? else {
            continue;
        };
        let chunk = describe(reader, &room).await?;
        if passes(filter, &chunk) {
            chunks.push(chunk);
        }
    }
    chunks.sort_by(|a, b| {
        (b.num_joined_members, &a.room_id).cmp(&(a.num_joined_members, &b.room_id))
    });
    let total = chunks.len();
    let chunk: Vec<PublicRoomsChunk> = chunks.into_iter().skip(start).take(limit).collect();
    let end = start.saturating_add(chunk.len());
    Ok(Page {
        next: (end < total && !chunk.is_empty()).then(|| format!("p{end}")),
        previous: (start > 0).then(|| format!("p{}", start.saturating_sub(limit))),
        chunk,
        total,
    })
}

/// The rooms of this server's own list, of a service's list of one network, or of all lists.
async fn listed(reader: &Reader, network: &RoomNetwork) -> Result<BTreeSet<RoomSid>, FlowError> {
    let (view, mut rooms) = (reader.view(), BTreeSet::new());
    if matches!(network, RoomNetwork::Matrix | RoomNetwork::All) {
        let own = view
            .range(
                &schema::PUBLIC_ROOMS,
                Range::all(),
                Direction::Forward,
                usize::MAX,
            )
            .await?;
        rooms.extend(own.into_iter().map(|(room, ())| room));
    }
    let range = match network {
        RoomNetwork::All => Range::all(),
        // As the networks' descriptions name it: the service, and its name for the network.
        RoomNetwork::ThirdParty(instance) => match instance.split_once('|') {
            Some((service, network)) => Range::prefix(&(service.to_owned(), network.to_owned())),
            None => return Ok(rooms),
        },
        _ => return Ok(rooms),
    };
    let more = view
        .range(
            &schema::NETWORK_ROOMS,
            range,
            Direction::Forward,
            usize::MAX,
        )
        .await?;
    rooms.extend(more.into_iter().map(|((_, _, room), ())| room));
    Ok(rooms)
}

fn passes(filter: &Filter, chunk: &PublicRoomsChunk) -> bool {
    let kind = match &chunk.room_type {
        Some(kind) => RoomTypeFilter::from(Some(kind.to_string())),
        None => RoomTypeFilter::Default,
    };
    if !filter.room_types.is_empty() && !filter.room_types.contains(&kind) {
        return false;
    }
    let Some(term) = filter
        .generic_search_term
        .as_ref()
        .map(|term| term.to_lowercase())
    else {
        return true;
    };
    let alias = chunk.canonical_alias.as_ref().map(|alias| alias.as_str());
    [chunk.name.as_deref(), chunk.topic.as_deref(), alias]
        .into_iter()
        .flatten()
        .any(|text| text.to_lowercase().contains(&term))
}

/// What the list shows of a room, from some ten small reads.
pub(super) async fn describe(
    reader: &Reader,
    room: &Arc<Room>,
) -> Result<PublicRoomsChunk, FlowError> {
    let state = Described { reader, room };
    let join_rule = state
        .text(&StateEventType::RoomJoinRules, "join_rule")
        .await?;
    let history = state
        .text(&StateEventType::RoomHistoryVisibility, "history_visibility")
        .await?;
    let guests = state
        .text(&StateEventType::RoomGuestAccess, "guest_access")
        .await?;
    let members = reader.member_count(room.sid, Membership::Join).await?;
    let mut chunk = PublicRoomsChunk::from(PublicRoomsChunkInit {
        num_joined_members: UInt::new_saturating(members),
        room_id: room.id.clone(),
        world_readable: history.as_deref() == Some("world_readable"),
        guest_can_join: guests.as_deref() == Some("can_join"),
    });
    let alias = state
        .text(&StateEventType::RoomCanonicalAlias, "alias")
        .await?;
    chunk.canonical_alias = alias.and_then(|alias| alias.try_into().ok());
    chunk.name = state.text(&StateEventType::RoomName, "name").await?;
    chunk.topic = state.text(&StateEventType::RoomTopic, "topic").await?;
    let avatar = state.text(&StateEventType::RoomAvatar, "url").await?;
    chunk.avatar_url = avatar.map(Into::into);
    chunk.join_rule = JoinRuleKind::from(join_rule.as_deref().unwrap_or("invite"));
    let kind = state.text(&StateEventType::RoomCreate, "type").await?;
    chunk.room_type = kind.map(RoomType::from);
    Ok(chunk)
}

struct Described<'a> {
    reader: &'a Reader,
    room: &'a Room,
}

impl Described<'_> {
    /// A string of a state event's content, unless it is missing or empty.
    async fn text(&self, kind: &StateEventType, field: &str) -> Result<Option<String>, FlowError> {
        let event = self.reader.state_event(self.room.sid, kind, "").await?;
        let content: Option<Map<String, Value>> =
            event.and_then(|event| event.pdu.content_as().ok());
        let text = content.and_then(|content| Some(content.get(field)?.as_str()?.to_owned()));
        Ok(text.filter(|text| !text.is_empty()))
    }
}

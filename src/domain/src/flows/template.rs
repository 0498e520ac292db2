//! Asking other servers to let a local user do something with a room: of the template that comes back only the place of the event is
//! used. The event itself is this server's own, and nothing of a remote's making is ever signed.

use std::collections::BTreeSet;

use ruma::{
    CanonicalJsonObject, OwnedEventId, OwnedServerName, OwnedUserId, RoomId, RoomVersionId, UserId,
    events::TimelineEventType,
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue as RawJsonValue;

use super::FlowError;
use crate::{
    event::{
        build::{Draft, MAX_DEPTH, Placement},
        check::{MAX_AUTH_EVENTS, MAX_PREV_EVENTS},
        pdu::Pdu,
    },
    remote::RemoteError,
    rooms::{Room, Rooms},
};

/// The most servers that are asked for one thing.
pub(super) const MAX_SERVERS: usize = 12;

/// What is used of a template.
#[derive(Debug)]
pub(super) struct Template {
    prev_events: Vec<OwnedEventId>,
    auth_events: Vec<OwnedEventId>,
    depth: u64,
    /// Who vouches for a join to a restricted room.
    pub(super) voucher: Option<OwnedUserId>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Reference {
    Id(OwnedEventId),
    WithHashes(OwnedEventId, IgnoredAny),
}

impl Reference {
    fn id(self) -> OwnedEventId {
        match self {
            Self::Id(id) | Self::WithHashes(id, _) => id,
        }
    }
}

#[derive(Deserialize)]
struct Said {
    prev_events: Vec<Reference>,
    auth_events: Vec<Reference>,
    depth: u64,
    #[serde(default)]
    content: Content,
}

#[derive(Deserialize, Default)]
struct Content {
    #[serde(default, rename = "join_authorised_via_users_server")]
    voucher: Option<OwnedUserId>,
}

impl Template {
    /// Reads what another server has answered.
    ///
    /// # Errors
    /// [`FlowError::Remote`] if it names no place for an event.
    pub(super) fn read(raw: &RawJsonValue) -> Result<Self, FlowError> {
        let unreadable = |reason: &str| RemoteError::Unreadable(reason.to_owned());
        let said: Said =
            serde_json::from_str(raw.get()).map_err(|error| unreadable(&error.to_string()))?;
        if said.prev_events.len() > MAX_PREV_EVENTS || said.auth_events.len() > MAX_AUTH_EVENTS {
            return Err(unreadable("the template follows too many events").into());
        }
        let ids = |references: Vec<Reference>| references.into_iter().map(Reference::id).collect();
        Ok(Self {
            prev_events: ids(said.prev_events),
            auth_events: ids(said.auth_events),
            depth: said.depth.min(MAX_DEPTH),
            voucher: said.content.voucher,
        })
    }

    /// The place of an event that is known nowhere else: after an event of which only the id is known.
    pub(super) fn after(event: OwnedEventId) -> Self {
        Self {
            prev_events: Vec::new(),
            auth_events: vec![event],
            depth: 1,
            voucher: None,
        }
    }

    /// This server's own member event at that place.
    ///
    /// # Errors
    /// When it cannot be built.
    pub(super) fn member(
        &self,
        rooms: &Rooms,
        room: &Room,
        user: &UserId,
        content: CanonicalJsonObject,
    ) -> Result<Pdu, FlowError> {
        let draft = Draft {
            sender: user.to_owned(),
            kind: TimelineEventType::RoomMember,
            state_key: Some(user.to_string()),
            content,
            redacts: None,
        };
        let placement = Placement {
            room_id: Some(room.id.clone()),
            rules: room.rules.clone(),
            prev_events: self.prev_events.clone(),
            auth_events: self.auth_events.clone(),
            depth: self.depth,
            origin_server_ts: rooms.now(),
        };
        Ok(rooms.build_at(draft, &placement)?)
    }
}

/// The room versions that this server knows.
pub(super) fn versions() -> Vec<RoomVersionId> {
    (1..=12)
        .filter_map(|version: u8| RoomVersionId::try_from(version.to_string()).ok())
        .collect()
}

/// The version that another server says a room has, if this one knows it.
pub(super) fn version(said: Option<RoomVersionId>) -> Result<RoomVersionId, FlowError> {
    let version = said.unwrap_or(RoomVersionId::V1);
    if versions().contains(&version) {
        Ok(version)
    } else {
        Err(crate::rooms::RoomError::UnsupportedVersion.into())
    }
}

/// Servers that may be in a room, best first: each once, without this one. If nobody has named any, the one that an old room id is made of
/// is as good a guess as there is.
pub(super) fn candidates(
    rooms: &Rooms,
    room: &RoomId,
    named: impl IntoIterator<Item = OwnedServerName>,
) -> Vec<OwnedServerName> {
    let own = rooms.server_name();
    let mut seen = BTreeSet::new();
    let named = named.into_iter();
    let mut servers: Vec<OwnedServerName> = named
        .filter(|server| *server != own && seen.insert(server.clone()))
        .take(MAX_SERVERS)
        .collect();
    if servers.is_empty() {
        let guess = room.server_name().filter(|server| *server != own);
        servers.extend(guess.map(ToOwned::to_owned));
    }
    servers
}

/// Of two reasons why it did not work, the one that tells more: a server's no more than its silence.
pub(super) fn worse(one: Option<FlowError>, other: FlowError) -> FlowError {
    let told = |error: &FlowError| match error {
        FlowError::Remote(error) => error
            .refusal()
            .is_some_and(|refusal| refusal.code != ruma::api::error::ErrorCode::Unknown),
        _ => true,
    };
    match one {
        Some(one) if told(&one) || !told(&other) => one,
        _ => other,
    }
}

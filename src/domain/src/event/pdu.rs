//! An event as it travels between servers and lies in the store: the bytes that were signed, and its header, read once.
//!
//! The content is not copied: it stays where it lies in the bytes, and what clients are shown is copied from there.
//!
//! Room versions differ in form: versions 1 and 2 carry an `event_id` and refer to events as pairs of id and hashes; from version 3 on
//! the id is the reference hash; the create event of version 12 has no `room_id`, since it is the room's id; from version 11 on
//! `redacts` is in the content.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use ruma::{
    CanonicalJsonObject, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId,
    OwnedUserId, RoomId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
    room_version_rules::{EventIdFormatVersion, RoomVersionRules},
    signatures::reference_hash,
};
use self_cell::self_cell;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::value::RawValue as RawJsonValue;
use sha2::{Digest, Sha256};

/// Why bytes are no event.
#[derive(Debug, thiserror::Error)]
pub enum PduError {
    /// Not JSON, or not of an event's shape.
    #[error("the event is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It cannot be written down.
    #[error("the event cannot be written: {0}")]
    Unwritable(#[from] std::io::Error),
    /// The reference hash cannot be computed.
    #[error("the event cannot be hashed: {0}")]
    Unhashable(String),
    /// A field is missing that this room version requires.
    #[error("the event has no {0}")]
    Missing(&'static str),
    /// An id in it is none.
    #[error("the event has an invalid id: {0}")]
    BadId(#[from] ruma::IdParseError),
}

/// An event.
#[derive(Debug, Clone)]
pub struct Pdu {
    /// Its id.
    pub event_id: OwnedEventId,
    /// Its room; for the create event of room version 12, derived from its id.
    pub room_id: OwnedRoomId,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// Its type.
    pub kind: TimelineEventType,
    /// Its state key, if it is a state event.
    pub state_key: Option<String>,
    /// When its server says it was sent.
    pub origin_server_ts: MilliSecondsSinceUnixEpoch,
    /// One more than the deepest event it follows.
    pub depth: u64,
    /// The events it follows.
    pub prev_events: Vec<OwnedEventId>,
    /// The events that allow it.
    pub auth_events: Vec<OwnedEventId>,
    /// The event it redacts, wherever its room version puts that.
    pub redacts: Option<OwnedEventId>,
    /// Whether the room id is derived and not part of the event.
    pub room_id_derived: bool,
    /// Whether this server has rejected it: then it allows nothing.
    pub rejected: bool,
    signed: Arc<Signed>,
    member: OnceLock<Option<Member>>,
}

/// What a member event says.
#[derive(Debug, Clone, Deserialize)]
pub struct Member {
    /// The membership, if it is a string.
    #[serde(default, deserialize_with = "lenient")]
    pub membership: Option<MembershipState>,
    /// The name, if it is a string.
    #[serde(default, deserialize_with = "lenient", rename = "displayname")]
    pub display_name: Option<String>,
}

/// A field of another kind than it should be is absent.
fn lenient<'de, T: DeserializeOwned, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    let raw = <&RawJsonValue>::deserialize(from)?;
    Ok(serde_json::from_str(raw.get()).ok())
}

type Content<'a> = &'a RawJsonValue;

self_cell! {
    /// The bytes that were signed, and the content where it lies in them.
    struct Signed {
        owner: Bytes,
        #[covariant]
        dependent: Content,
    }

    impl {Debug}
}

/// The fields of an event as sent.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(default)]
    event_id: Option<OwnedEventId>,
    #[serde(default)]
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    #[serde(rename = "type")]
    kind: TimelineEventType,
    #[serde(default)]
    state_key: Option<String>,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    depth: u64,
    prev_events: Vec<Reference>,
    auth_events: Vec<Reference>,
    #[serde(default)]
    redacts: Option<OwnedEventId>,
    #[serde(borrow)]
    content: &'a RawJsonValue,
}

/// The fields of an event but its content.
struct Header {
    event_id: Option<OwnedEventId>,
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    kind: TimelineEventType,
    state_key: Option<String>,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    depth: u64,
    prev_events: Vec<OwnedEventId>,
    auth_events: Vec<OwnedEventId>,
    redacts: Option<OwnedEventId>,
}

impl<'a> Wire<'a> {
    fn read(json: &'a [u8]) -> Result<(Header, Content<'a>), PduError> {
        let wire: Self = serde_json::from_slice(json)?;
        let ids = |references: Vec<Reference>| references.into_iter().map(Reference::id).collect();
        let header = Header {
            event_id: wire.event_id,
            room_id: wire.room_id,
            sender: wire.sender,
            kind: wire.kind,
            state_key: wire.state_key,
            origin_server_ts: wire.origin_server_ts,
            depth: wire.depth,
            prev_events: ids(wire.prev_events),
            auth_events: ids(wire.auth_events),
            redacts: wire.redacts,
        };
        Ok((header, wire.content))
    }
}

/// An event mentioned by another.
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
struct RedactsContent {
    redacts: Option<OwnedEventId>,
}

impl Pdu {
    /// Reads an event. A known id (from the store) is believed; otherwise it is computed, or read in versions 1 and 2.
    pub fn parse(
        json: Bytes,
        rules: &RoomVersionRules,
        event_id: Option<OwnedEventId>,
    ) -> Result<Self, PduError> {
        let mut header = None;
        let signed = Signed::try_new(json, |json| {
            let (read, content) = Wire::read(json)?;
            header = Some(read);
            Ok::<_, PduError>(content)
        })?;
        // The closure has run, or the line above has returned.
        let header = header.ok_or(PduError::Missing("content"))?;
        let json = signed.borrow_owner();
        let event_id = match (event_id, &rules.event_id_format) {
            (Some(id), _) => id,
            (None, EventIdFormatVersion::V1) => {
                header.event_id.ok_or(PduError::Missing("event_id"))?
            }
            (None, _) => {
                let object: CanonicalJsonObject = serde_json::from_slice(json)?;
                id_of(&object, rules)?
            }
        };
        let room_id_derived = header.room_id.is_none();
        let room_id = match header.room_id {
            Some(room_id) => room_id,
            None if header.kind == TimelineEventType::RoomCreate
                && !rules.event_format.require_room_create_room_id =>
            {
                room_of_create(&event_id)?
            }
            None => return Err(PduError::Missing("room_id")),
        };
        let redacts = if header.kind != TimelineEventType::RoomRedaction {
            None
        } else if rules.redaction.content_field_redacts {
            serde_json::from_str::<RedactsContent>(signed.borrow_dependent().get())
                .ok()
                .and_then(|content| content.redacts)
        } else {
            header.redacts
        };
        Ok(Self {
            event_id,
            room_id,
            sender: header.sender,
            kind: header.kind,
            state_key: header.state_key,
            origin_server_ts: header.origin_server_ts,
            depth: header.depth,
            prev_events: header.prev_events,
            auth_events: header.auth_events,
            redacts,
            room_id_derived,
            rejected: false,
            signed: Arc::new(signed),
            member: OnceLock::new(),
        })
    }

    /// An event of our own making.
    pub(super) fn from_parts(parts: PduParts) -> Result<Self, PduError> {
        let room_id_derived = parts.room_id.is_none();
        let room_id = match parts.room_id {
            Some(room_id) => room_id,
            None => room_of_create(&parts.event_id)?,
        };
        let content = parts.content;
        let signed = Signed::try_new(parts.bytes, |bytes| {
            let content = bytes.get(content).unwrap_or_default();
            serde_json::from_slice(content).map_err(PduError::from)
        })?;
        Ok(Self {
            event_id: parts.event_id,
            room_id,
            sender: parts.sender,
            redacts: parts
                .redacts
                .filter(|_| parts.kind == TimelineEventType::RoomRedaction),
            kind: parts.kind,
            state_key: parts.state_key,
            origin_server_ts: parts.origin_server_ts,
            depth: parts.depth,
            prev_events: parts.prev_events,
            auth_events: parts.auth_events,
            room_id_derived,
            rejected: false,
            signed: Arc::new(signed),
            member: OnceLock::new(),
        })
    }

    /// The bytes that were signed.
    pub fn bytes(&self) -> &Bytes {
        self.signed.borrow_owner()
    }

    /// The content.
    pub fn content(&self) -> &RawJsonValue {
        self.signed.borrow_dependent()
    }

    /// What it says if it is a member event, read once.
    pub fn member(&self) -> Option<&Member> {
        self.member
            .get_or_init(|| {
                (self.kind == TimelineEventType::RoomMember)
                    .then(|| self.content_as().ok())
                    .flatten()
            })
            .as_ref()
    }

    /// The content, read as a type.
    pub fn content_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.content().get())
    }

    /// The whole event as canonical JSON values.
    pub fn to_canonical(&self) -> Result<CanonicalJsonObject, PduError> {
        Ok(serde_json::from_slice(self.bytes())?)
    }

    /// Whether this is the state event of a type (with an empty state key).
    pub fn is_state(&self, kind: &TimelineEventType) -> bool {
        self.kind == *kind && self.state_key.is_some()
    }
}

/// What a builder knows of the event it has made: it need not be read again.
pub(super) struct PduParts {
    pub(super) event_id: OwnedEventId,
    /// `None` for a create event that names its room by its own id.
    pub(super) room_id: Option<OwnedRoomId>,
    pub(super) sender: OwnedUserId,
    pub(super) kind: TimelineEventType,
    pub(super) state_key: Option<String>,
    pub(super) origin_server_ts: MilliSecondsSinceUnixEpoch,
    pub(super) depth: u64,
    pub(super) prev_events: Vec<OwnedEventId>,
    pub(super) auth_events: Vec<OwnedEventId>,
    pub(super) redacts: Option<OwnedEventId>,
    /// Where the content lies in `bytes`.
    pub(super) content: Range<usize>,
    pub(super) bytes: Bytes,
}

/// The id of an event whose signed form this is: the form that the reference hash is of.
pub(super) fn id_of_signed(
    signed: &[u8],
    rules: &RoomVersionRules,
) -> Result<OwnedEventId, PduError> {
    let hash = Sha256::digest(signed);
    let hash = match rules.event_id_format {
        EventIdFormatVersion::V1 | EventIdFormatVersion::V2 => STANDARD_NO_PAD.encode(hash),
        _ => URL_SAFE_NO_PAD.encode(hash),
    };
    Ok(EventId::parse(format!("${hash}"))?)
}

/// The id that an event has by its content.
fn id_of(object: &CanonicalJsonObject, rules: &RoomVersionRules) -> Result<OwnedEventId, PduError> {
    let hash =
        reference_hash(object, rules).map_err(|error| PduError::Unhashable(error.to_string()))?;
    Ok(EventId::parse(format!("${hash}"))?)
}

/// The id of the room that a version 12 create event makes: its own id with another sigil.
fn room_of_create(event_id: &EventId) -> Result<OwnedRoomId, PduError> {
    let hash = event_id.as_str().strip_prefix('$').unwrap_or_default();
    Ok(RoomId::parse(format!("!{hash}"))?)
}

impl ruma::state_res::Event for Pdu {
    type Id = OwnedEventId;

    fn event_id(&self) -> &Self::Id {
        &self.event_id
    }

    fn room_id(&self) -> Option<&RoomId> {
        (!self.room_id_derived).then_some(&*self.room_id)
    }

    fn sender(&self) -> &UserId {
        &self.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.origin_server_ts
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.kind
    }

    fn content(&self) -> &RawJsonValue {
        self.content()
    }

    fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Box::new(self.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Box::new(self.auth_events.iter())
    }

    fn redacts(&self) -> Option<&Self::Id> {
        self.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        self.rejected
    }
}

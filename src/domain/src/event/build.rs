//! From a draft to a hashed and signed event.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId,
    OwnedRoomId, OwnedUserId,
    events::TimelineEventType,
    room_version_rules::{EventIdFormatVersion, EventsReferenceFormatVersion, RoomVersionRules},
};

use super::{
    pdu::{Pdu, PduError, id_of},
    signer::Signer,
};

/// The largest event, in bytes of canonical JSON. <https://spec.matrix.org/v1.19/client-server-api/#size-limits>
pub const MAX_EVENT_BYTES: usize = 65_536;
/// The longest type, state key, sender and room id, in bytes.
pub const MAX_FIELD_BYTES: usize = 255;

/// Why a draft cannot become an event.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The event would be larger than 65,536 bytes.
    #[error("the event is larger than {MAX_EVENT_BYTES} bytes")]
    TooLarge,
    /// A field is longer than 255 bytes.
    #[error("the {0} is longer than {MAX_FIELD_BYTES} bytes")]
    FieldTooLong(&'static str),
    /// The event cannot be signed.
    #[error("the event cannot be signed: {0}")]
    Unsignable(String),
    /// The result is no event.
    #[error(transparent)]
    Pdu(#[from] PduError),
}

/// What a user wants to say.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Who.
    pub sender: OwnedUserId,
    /// The event's type.
    pub kind: TimelineEventType,
    /// Its state key, for state events.
    pub state_key: Option<String>,
    /// Its content.
    pub content: CanonicalJsonObject,
    /// The event it redacts, for redactions; put where the room version wants it.
    pub redacts: Option<OwnedEventId>,
}

/// Where the event will stand.
#[derive(Debug, Clone)]
pub struct Placement {
    /// Its room; `None` only for the create event of a room version whose room id is that event's.
    pub room_id: Option<OwnedRoomId>,
    /// What its room's version means.
    pub rules: Arc<RoomVersionRules>,
    /// The events it follows.
    pub prev_events: Vec<OwnedEventId>,
    /// The events that allow it.
    pub auth_events: Vec<OwnedEventId>,
    /// One more than the deepest event it follows.
    pub depth: u64,
    /// The time now.
    pub origin_server_ts: MilliSecondsSinceUnixEpoch,
}

/// Builds, hashes and signs an event.
pub fn build(draft: Draft, at: &Placement, signer: &Signer) -> Result<Pdu, BuildError> {
    check_lengths(&draft, at)?;
    let rules = &at.rules;
    let mut object = CanonicalJsonObject::new();
    let mut put = |name: &str, value: CanonicalJsonValue| {
        object.insert(name.to_owned(), value);
    };
    put("type", text(&draft.kind.to_string()));
    put("sender", text(draft.sender.as_str()));
    if let Some(key) = &draft.state_key {
        put("state_key", text(key));
    }
    if let Some(room_id) = &at.room_id {
        put("room_id", text(room_id.as_str()));
    }
    put(
        "origin_server_ts",
        CanonicalJsonValue::Integer(at.origin_server_ts.0.into()),
    );
    put("depth", CanonicalJsonValue::Integer(depth(at.depth)));
    put("prev_events", references(&at.prev_events, rules));
    put("auth_events", references(&at.auth_events, rules));
    let mut content = draft.content;
    if let Some(redacts) = &draft.redacts {
        if rules.redaction.content_field_redacts {
            content.insert("redacts".to_owned(), text(redacts.as_str()));
        } else {
            put("redacts", text(redacts.as_str()));
        }
    }
    put("content", CanonicalJsonValue::Object(content));
    let known_id = match rules.event_id_format {
        EventIdFormatVersion::V1 => {
            let id = EventId::new_v1(signer.server_name());
            put("event_id", text(id.as_str()));
            Some(id)
        }
        _ => None,
    };

    signer
        .sign_event(&mut object, &rules.redaction)
        .map_err(unsignable)?;
    let event_id = match known_id {
        Some(id) => id,
        None => id_of(&object, rules)?,
    };
    let bytes = serde_json::to_vec(&object).map_err(PduError::from)?;
    if bytes.len() > MAX_EVENT_BYTES {
        return Err(BuildError::TooLarge);
    }
    Ok(Pdu::parse(Bytes::from(bytes), rules, Some(event_id))?)
}

fn check_lengths(draft: &Draft, at: &Placement) -> Result<(), BuildError> {
    let fields = [
        ("type", draft.kind.to_string().len()),
        (
            "state key",
            draft.state_key.as_deref().unwrap_or_default().len(),
        ),
        ("sender", draft.sender.as_str().len()),
        (
            "room id",
            at.room_id.as_ref().map_or(0, |id| id.as_str().len()),
        ),
    ];
    match fields
        .into_iter()
        .find(|(_, length)| *length > MAX_FIELD_BYTES)
    {
        Some((name, _)) => Err(BuildError::FieldTooLong(name)),
        None => Ok(()),
    }
}

/// ruma says so only when the hashed form is too large.
fn unsignable(error: String) -> BuildError {
    if error.contains("larger than") {
        BuildError::TooLarge
    } else {
        BuildError::Unsignable(error)
    }
}

fn text(text: &str) -> CanonicalJsonValue {
    CanonicalJsonValue::String(text.to_owned())
}

/// Depths are capped at what canonical JSON can say (2^53 - 1), as the spec wants.
fn depth(depth: u64) -> ruma::Int {
    i64::try_from(depth)
        .ok()
        .and_then(|depth| ruma::Int::try_from(depth).ok())
        .unwrap_or(ruma::Int::MAX)
}

/// How a room version writes a list of events.
fn references(ids: &[OwnedEventId], rules: &RoomVersionRules) -> CanonicalJsonValue {
    let one = |id: &OwnedEventId| match rules.events_reference_format {
        // The hashes of the pair are looked at by nobody; the form wants an object.
        EventsReferenceFormatVersion::V1 => CanonicalJsonValue::Array(vec![
            text(id.as_str()),
            CanonicalJsonValue::Object(BTreeMap::new()),
        ]),
        _ => text(id.as_str()),
    };
    CanonicalJsonValue::Array(ids.iter().map(one).collect())
}

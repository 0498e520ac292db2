//! An event as clients see it: copied field by field by an allow-list. A remote's `unsigned` is never served.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-event-format>

use std::collections::BTreeMap;

use ruma::{EventId, UserId, events::TimelineEventType};
use serde::Serialize;
use serde_json::value::{RawValue as RawJsonValue, to_raw_value};

use super::pdu::Pdu;

/// What this server adds to an event for one viewer.
#[derive(Debug, Default, Serialize)]
pub struct Unsigned<'a> {
    /// How long ago it was sent, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<i64>,
    /// The transaction id, for the device that sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction_id: Option<&'a str>,
    /// The content of the state event it replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_content: Option<&'a RawJsonValue>,
    /// The state event it replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces_state: Option<&'a EventId>,
    /// Who sent the state event it replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_sender: Option<&'a UserId>,
    /// The redaction that emptied it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redacted_because: Option<Box<RawJsonValue>>,
    /// The viewer's membership at the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub membership: Option<&'static str>,
    /// Aggregated relations.
    #[serde(rename = "m.relations", skip_serializing_if = "Option::is_none")]
    pub relations: Option<Box<RawJsonValue>>,
}

#[derive(Serialize)]
struct ClientEvent<'a> {
    content: &'a RawJsonValue,
    event_id: &'a str,
    origin_server_ts: ruma::MilliSecondsSinceUnixEpoch,
    #[serde(skip_serializing_if = "Option::is_none")]
    redacts: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_id: Option<&'a str>,
    sender: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_key: Option<&'a str>,
    #[serde(rename = "type")]
    kind: &'a TimelineEventType,
    #[serde(skip_serializing_if = "Option::is_none")]
    unsigned: Option<&'a Unsigned<'a>>,
}

#[derive(Serialize)]
struct StrippedEvent<'a> {
    content: &'a RawJsonValue,
    /// Of the create event only.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin_server_ts: Option<ruma::MilliSecondsSinceUnixEpoch>,
    sender: &'a str,
    state_key: &'a str,
    #[serde(rename = "type")]
    kind: &'a TimelineEventType,
}

/// The client form; `room_id` is left out in /sync.
pub fn client_json(pdu: &Pdu, room_id: bool, unsigned: Option<&Unsigned<'_>>) -> Box<RawJsonValue> {
    let content = content_with_redacts(pdu);
    raw(&ClientEvent {
        content: content.as_deref().unwrap_or_else(|| pdu.content()),
        event_id: pdu.event_id.as_str(),
        origin_server_ts: pdu.origin_server_ts,
        redacts: pdu.redacts.as_deref().map(ruma::EventId::as_str),
        room_id: room_id.then_some(pdu.room_id.as_str()),
        sender: pdu.sender.as_str(),
        state_key: pdu.state_key.as_deref(),
        kind: &pdu.kind,
        unsigned,
    })
}

/// Redactions name their target at the top in old room versions and in the content from 11 on; clients of either age find it,
/// since both are served in every version.
fn content_with_redacts(pdu: &Pdu) -> Option<Box<RawJsonValue>> {
    let redacts = pdu.redacts.as_ref()?;
    let mut content: BTreeMap<&str, &RawJsonValue> =
        serde_json::from_str(pdu.content().get()).ok()?;
    let redacts = to_raw_value(redacts).ok()?;
    content.insert("redacts", &redacts);
    to_raw_value(&content).ok()
}

/// The stripped form of a state event: what someone outside may know.
pub fn stripped_json(pdu: &Pdu) -> Box<RawJsonValue> {
    let creates = pdu.kind == ruma::events::TimelineEventType::RoomCreate;
    raw(&StrippedEvent {
        content: pdu.content(),
        origin_server_ts: creates.then_some(pdu.origin_server_ts),
        sender: pdu.sender.as_str(),
        state_key: pdu.state_key.as_deref().unwrap_or_default(),
        kind: &pdu.kind,
    })
}

/// The stripped form of what is said to be a stripped state event; `None` if it is none. Nothing else of it is kept.
pub fn stripped_again(event: &RawJsonValue) -> Option<Box<RawJsonValue>> {
    #[derive(serde::Deserialize)]
    struct Said<'a> {
        #[serde(borrow)]
        content: &'a RawJsonValue,
        sender: ruma::OwnedUserId,
        state_key: String,
        #[serde(rename = "type")]
        kind: String,
    }
    let said: Said<'_> = serde_json::from_str(event.get()).ok()?;
    if !said.content.get().starts_with('{') {
        return None;
    }
    let kind = ruma::events::TimelineEventType::from(said.kind);
    Some(raw(&StrippedEvent {
        content: said.content,
        origin_server_ts: None,
        sender: said.sender.as_str(),
        state_key: &said.state_key,
        kind: &kind,
    }))
}

/// Strings, numbers and raw JSON: serialising them cannot fail.
fn raw(event: &impl Serialize) -> Box<RawJsonValue> {
    to_raw_value(event).unwrap_or_else(|_| RawJsonValue::NULL.to_owned())
}

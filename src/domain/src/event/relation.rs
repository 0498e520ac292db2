//! What an event relates to: `m.relates_to`. <https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events>

use ruma::{CanonicalJsonObject, OwnedEventId};
use serde::Deserialize;

use super::pdu::Pdu;

/// The `rel_type` of a reply in a thread.
pub const THREAD: &str = "m.thread";

/// A relation with a `rel_type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Such as `m.annotation`, `m.replace`, `m.thread`, `m.reference`.
    pub rel_type: String,
    /// The event related to.
    pub event_id: OwnedEventId,
    /// The key of an annotation.
    pub key: Option<String>,
    /// Whether the reply inside a thread is only there for clients that know no threads.
    pub is_falling_back: bool,
}

#[derive(Deserialize)]
struct Content {
    #[serde(rename = "m.relates_to")]
    relates_to: RelatesTo,
}

#[derive(Deserialize)]
struct RelatesTo {
    rel_type: String,
    event_id: OwnedEventId,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    is_falling_back: Option<bool>,
}

#[derive(Deserialize)]
struct ReplyContent {
    #[serde(rename = "m.relates_to")]
    relates_to: ReplyRelatesTo,
}

#[derive(Deserialize)]
struct ReplyRelatesTo {
    #[serde(rename = "m.in_reply_to")]
    in_reply_to: InReplyTo,
}

#[derive(Deserialize)]
struct InReplyTo {
    event_id: OwnedEventId,
}

/// The event that an event replies to, with or without a relation. State events cannot reply.
pub fn in_reply_to(pdu: &Pdu) -> Option<OwnedEventId> {
    if pdu.state_key.is_some() || !pdu.content().get().contains("m.in_reply_to") {
        return None;
    }
    Some(
        pdu.content_as::<ReplyContent>()
            .ok()?
            .relates_to
            .in_reply_to
            .event_id,
    )
}

impl Relation {
    /// The relation in a content that is not an event yet.
    pub fn in_content(content: &CanonicalJsonObject) -> Option<Self> {
        let relates_to = content.get("m.relates_to")?.as_object()?;
        let text = |name: &str| relates_to.get(name).and_then(|value| value.as_str());
        let event_id = OwnedEventId::try_from(text("event_id")?).ok()?;
        let falls_back = relates_to.get("is_falling_back");
        Some(Self {
            rel_type: text("rel_type")?.to_owned(),
            event_id,
            key: text("key").map(str::to_owned),
            is_falling_back: falls_back.and_then(|value| value.as_bool()) == Some(true),
        })
    }

    /// The relation of an event; `None` if it has none or a malformed one. State events cannot relate.
    pub fn of(pdu: &Pdu) -> Option<Self> {
        // Most events have no relation: a search is cheaper than reading the content.
        if pdu.state_key.is_some() || !pdu.content().get().contains("rel_type") {
            return None;
        }
        let Content { relates_to } = pdu.content_as().ok()?;
        Some(Self {
            rel_type: relates_to.rel_type,
            event_id: relates_to.event_id,
            key: relates_to.key,
            is_falling_back: relates_to.is_falling_back == Some(true),
        })
    }
}

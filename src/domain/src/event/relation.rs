//! What an event relates to: `m.relates_to`. <https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events>

use ruma::{CanonicalJsonObject, OwnedEventId};
use serde::Deserialize;

use super::pdu::Pdu;

/// A relation with a `rel_type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Such as `m.annotation`, `m.replace`, `m.thread`, `m.reference`.
    pub rel_type: String,
    /// The event related to.
    pub event_id: OwnedEventId,
    /// The key of an annotation.
    pub key: Option<String>,
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
}

impl Relation {
    /// The relation in a content that is not an event yet.
    pub fn in_content(content: &CanonicalJsonObject) -> Option<Self> {
        let relates_to = content.get("m.relates_to")?.as_object()?;
        let text = |name: &str| relates_to.get(name).and_then(|value| value.as_str());
        let event_id = OwnedEventId::try_from(text("event_id")?).ok()?;
        Some(Self {
            rel_type: text("rel_type")?.to_owned(),
            event_id,
            key: text("key").map(str::to_owned),
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
        })
    }
}

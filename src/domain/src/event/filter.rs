//! Whether an event passes a client's filter. <https://spec.matrix.org/v1.19/client-server-api/#filtering>

use ruma::{
    RoomId, UserId,
    api::client::filter::{Filter, RoomEventFilter, UrlFilter},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{pdu::Pdu, relation::Relation};

/// Which kinds of relations pass, by the name that this has until it is in the specification (MSC3874).
#[derive(Debug, Default, Deserialize)]
pub struct Relations {
    #[serde(rename = "org.matrix.msc3874.rel_types")]
    types: Option<Vec<String>>,
    #[serde(default, rename = "org.matrix.msc3874.not_rel_types")]
    not_types: Vec<String>,
}

impl Relations {
    /// Whether an event passes. One without a relation passes unless some kind is wanted.
    pub fn pass(&self, pdu: &Pdu) -> bool {
        if self.types.is_none() && self.not_types.is_empty() {
            return true;
        }
        let kind = Relation::of(pdu).map(|relation| relation.rel_type);
        let is_in = |kinds: &[String]| kind.as_ref().is_some_and(|kind| kinds.contains(kind));
        self.types.as_deref().is_none_or(is_in) && !is_in(&self.not_types)
    }
}

/// Whether an event of a room passes.
pub fn room_event_matches(filter: &RoomEventFilter, room: &RoomId, pdu: &Pdu) -> bool {
    room_matches(filter, room)
        && (all_types(filter)
            || types_match(
                filter.types.as_deref(),
                &filter.not_types,
                &pdu.kind.to_string(),
            ))
        && sender_matches(filter.senders.as_deref(), &filter.not_senders, &pdu.sender)
        && match filter.url_filter {
            Some(UrlFilter::EventsWithUrl) => has_url(pdu),
            Some(UrlFilter::EventsWithoutUrl) => !has_url(pdu),
            None => true,
        }
}

/// Whether events of a type pass, whoever sent them and wherever.
pub fn room_event_type_matches(filter: &RoomEventFilter, kind: &str) -> bool {
    types_match(filter.types.as_deref(), &filter.not_types, kind)
}

/// Whether events of a type of a room pass, whoever sent them.
pub fn room_type_matches(filter: &RoomEventFilter, room: &RoomId, kind: &str) -> bool {
    room_matches(filter, room) && types_match(filter.types.as_deref(), &filter.not_types, kind)
}

fn room_matches(filter: &RoomEventFilter, room: &RoomId) -> bool {
    filter
        .rooms
        .as_ref()
        .is_none_or(|rooms| rooms.iter().any(|listed| listed == room))
        && !filter.not_rooms.iter().any(|listed| listed == room)
}

/// Whether the filter leaves out no type: most do not, and then no event's type is looked at.
fn all_types(filter: &RoomEventFilter) -> bool {
    filter.types.is_none() && filter.not_types.is_empty()
}

/// Whether events of a type outside of rooms pass (account data).
pub fn type_matches(filter: &Filter, kind: &str) -> bool {
    types_match(filter.types.as_deref(), &filter.not_types, kind)
}

/// Whether an event outside of rooms passes (presence).
pub fn event_matches(filter: &Filter, kind: &str, sender: &UserId) -> bool {
    type_matches(filter, kind)
        && sender_matches(filter.senders.as_deref(), &filter.not_senders, sender)
}

fn types_match(types: Option<&[String]>, not_types: &[String], kind: &str) -> bool {
    types.is_none_or(|types| types.iter().any(|pattern| glob(pattern, kind)))
        && !not_types.iter().any(|pattern| glob(pattern, kind))
}

fn sender_matches(
    senders: Option<&[ruma::OwnedUserId]>,
    not_senders: &[ruma::OwnedUserId],
    sender: &UserId,
) -> bool {
    senders.is_none_or(|senders| senders.iter().any(|listed| listed == sender))
        && !not_senders.iter().any(|listed| listed == sender)
}

fn has_url(pdu: &Pdu) -> bool {
    #[derive(Deserialize)]
    struct Content {
        url: Option<Box<RawValue>>,
    }
    pdu.content_as::<Content>()
        .is_ok_and(|content| content.url.is_some())
}

/// `*` stands for any number of characters. Linear in the text for each star: no backtracking over more than one star.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(first) = parts.next() else {
        return false;
    };
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        if let Some(middle) = last.replace(part) {
            match rest.find(middle) {
                Some(at) => rest = rest.get(at + middle.len()..).unwrap_or_default(),
                None => return false,
            }
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn a_star_stands_for_any_characters() {
        let cases = [
            ("m.room.message", "m.room.message", true),
            ("m.room.message", "m.room.messages", false),
            ("m.room.*", "m.room.name", true),
            ("m.room.*", "m.call.name", false),
            ("*", "", true),
            ("*", "anything", true),
            ("m.*.name", "m.room.name", true),
            ("m.*.name", "m.room.topic", false),
            ("a*a", "a", false),
            ("*a*b*", "xxaxxbxx", true),
            ("", "", true),
            ("", "x", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}

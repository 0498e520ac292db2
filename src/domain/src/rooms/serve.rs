//! Events as one viewer sees them, a page at a time: the form for clients with everything that this server adds.
//!
//! Called by /sync and by every handler that shows events. Previous contents, redactions and memberships are read in
//! batches, and so is the question which of the events anything relates to; bundled aggregations cost one range read
//! for each of those.
//! <https://spec.matrix.org/v1.19/client-server-api/#room-event-format>

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{
    api::client::filter::{EventFormat, FilterDefinition},
    events::{StateEventType, TimelineEventType},
};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};
use vatra_store::Direction;

use super::{
    Event, Reader, Room, RoomError,
    append::membership_of,
    erased::{as_seen, one_as_seen},
    visible::Viewer,
};
use crate::{
    clock::SharedClock,
    event::{
        client::{Unsigned, client_json},
        relation::{Relation, THREAD},
    },
    schema::{EventSid, Membership, RelationRow, RoomOrder, StateRoot},
};

/// How many related events are looked at for one event's aggregation.
const RELATED: usize = 1_000;

/// In which form events are shown.
#[derive(Clone)]
pub struct Form {
    /// With the room's id (everywhere but in /sync).
    pub room_id: bool,
    /// With aggregated relations.
    pub relations: bool,
    /// As other servers see them.
    pub federation: bool,
    /// Only these fields, as paths of names; all if absent.
    pub fields: Option<Vec<Vec<String>>>,
    /// The time, for `age`.
    pub clock: SharedClock,
}

impl Form {
    /// The form of the timeline of /sync, as a filter wants it.
    pub fn for_filter(filter: &FilterDefinition, clock: SharedClock) -> Self {
        Self {
            room_id: false,
            relations: true,
            federation: filter.event_format == EventFormat::Federation,
            fields: filter
                .event_fields
                .as_ref()
                .map(|fields| fields.iter().map(|field| path(field)).collect()),
            clock,
        }
    }

    /// The form of single events and pages.
    pub fn full(clock: SharedClock) -> Self {
        Self {
            room_id: true,
            relations: true,
            federation: false,
            fields: None,
            clock,
        }
    }
}

/// Shows events of one room, in order. What may be seen is the caller's affair.
pub async fn events(
    reader: &Reader,
    viewer: &Viewer,
    room: &Arc<Room>,
    events: &[Arc<Event>],
    form: &Form,
) -> Result<Vec<Box<RawValue>>, RoomError> {
    let events = &*as_seen(reader, viewer, room, events).await?;
    if form.federation {
        let raw = events
            .iter()
            .map(|event| String::from_utf8_lossy(event.pdu.bytes()).into_owned());
        return Ok(raw
            .filter_map(|json| RawValue::from_string(json).ok())
            .collect());
    }
    let others: Vec<EventSid> = events
        .iter()
        .flat_map(|event| [event.replaces, event.redacted_by])
        .flatten()
        .collect();
    let others: Vec<Arc<Event>> = reader
        .events(&others)
        .await?
        .into_iter()
        .flatten()
        .collect();
    let others = as_seen(reader, viewer, room, &others).await?;
    let others: HashMap<EventSid, &Arc<Event>> =
        others.iter().map(|event| (event.sid, event)).collect();
    let memberships = memberships(reader, viewer, events).await?;
    let related = if form.relations {
        reader.related(room.sid, events).await?
    } else {
        HashSet::new()
    };
    let now = form.clock.now();
    let mut shown = Vec::with_capacity(events.len());
    for (event, membership) in events.iter().zip(memberships) {
        let replaced = event.replaces.and_then(|sid| others.get(&sid));
        let sent: u64 = event.pdu.origin_server_ts.0.into();
        let own = event.transaction.as_ref().filter(|(user, device, _)| {
            *user == viewer.sid
                && viewer
                    .device
                    .as_ref()
                    .is_some_and(|own| own.as_str() == device)
        });
        let unsigned = Unsigned {
            age: i64::try_from(now)
                .ok()
                .zip(i64::try_from(sent).ok())
                .map(|(now, sent)| now - sent),
            transaction_id: own.map(|(_, _, id)| id.as_str()),
            prev_content: replaced.map(|event| event.pdu.content()),
            replaces_state: replaced.map(|event| &*event.pdu.event_id),
            prev_sender: replaced.map(|event| &*event.pdu.sender),
            redacted_because: event
                .redacted_by
                .and_then(|sid| others.get(&sid))
                .map(|because| client_json(&because.pdu, form.room_id, None)),
            membership: Some(membership),
            relations: if related.contains(&event.sid) {
                aggregate(reader, viewer, room, event, form).await?
            } else {
                None
            },
        };
        let json = client_json(&event.pdu, form.room_id, Some(&unsigned));
        shown.push(match &form.fields {
            Some(fields) => only(&json, fields),
            None => json,
        });
    }
    Ok(shown)
}

/// Which events of a room a viewer hears: may see, with what they say. They are not emptied, for anyone or for who came later.
pub async fn heard(
    reader: &Reader,
    viewer: &Viewer,
    room: &Room,
    events: &[Arc<Event>],
) -> Result<Vec<bool>, RoomError> {
    let visible = viewer.visible(reader, room, events).await?;
    let seen = as_seen(reader, viewer, room, events).await?;
    let whole = events.iter().zip(&*seen);
    let whole = whole.map(|(event, seen)| Arc::ptr_eq(event, seen) && !event.is_empty());
    Ok(visible
        .into_iter()
        .zip(whole)
        .map(|(one, two)| one && two)
        .collect())
}

/// The viewer's membership at each event.
async fn memberships(
    reader: &Reader,
    viewer: &Viewer,
    events: &[Arc<Event>],
) -> Result<Vec<&'static str>, RoomError> {
    let roots: Vec<StateRoot> = events.iter().map(|event| event.root_before).collect();
    let members = reader
        .state_at_each(&roots, &StateEventType::RoomMember, viewer.user.as_str())
        .await?;
    let memberships = events.iter().zip(&members).map(|(event, member)| {
        // The viewer's own member event shows what it makes of them.
        let own = event.pdu.kind == TimelineEventType::RoomMember
            && event.pdu.state_key.as_deref() == Some(viewer.user.as_str());
        let member = if own { Some(event) } else { member.as_ref() };
        member
            .and_then(|member| membership_of(&member.pdu))
            .map_or("leave", Membership::name)
    });
    Ok(memberships.collect())
}

/// What relates to an event, bundled: the newest edit, the thread, references.
/// <https://spec.matrix.org/v1.19/client-server-api/#aggregations-of-child-events>
async fn aggregate(
    reader: &Reader,
    viewer: &Viewer,
    room: &Arc<Room>,
    event: &Arc<Event>,
    form: &Form,
) -> Result<Option<Box<RawValue>>, RoomError> {
    if event.is_empty() || event.pdu.state_key.is_some() {
        return Ok(None);
    }
    let related = reader
        .relations(room.sid, &event.pdu.event_id, Direction::Backward, RELATED)
        .await?;
    if related.is_empty() {
        return Ok(None);
    }
    let mut bundle = serde_json::Map::new();
    if let Some(edit) = newest_edit(reader, viewer, room, event, &related).await? {
        let edit = client_json(&edit.pdu, form.room_id, Some(&age(&edit, form)));
        bundle.insert(
            "m.replace".to_owned(),
            serde_json::to_value(edit).unwrap_or_default(),
        );
    }
    let references: Vec<_> = related
        .iter()
        .rev()
        .filter(|(_, row)| row.rel_type == "m.reference")
        .collect();
    if !references.is_empty() {
        let sids: Vec<EventSid> = references.iter().map(|(_, row)| row.event).collect();
        let events: Vec<Arc<Event>> = reader.events(&sids).await?.into_iter().flatten().collect();
        let visible = viewer.visible(reader, room, &events).await?;
        let chunk: Vec<_> = events
            .iter()
            .zip(visible)
            .filter(|(_, visible)| *visible)
            .map(|(event, _)| serde_json::json!({ "event_id": event.pdu.event_id }))
            .collect();
        if !chunk.is_empty() {
            bundle.insert(
                "m.reference".to_owned(),
                serde_json::json!({ "chunk": chunk }),
            );
        }
    }
    let mut thread: Vec<_> = related
        .iter()
        .filter(|(_, row)| row.rel_type == THREAD)
        .collect();
    if let Some(latest) = newest_visible(reader, viewer, room, &thread).await? {
        // What is older than a visible reply counts; what came after the viewer had left does not.
        thread.retain(|(order, _)| *order <= latest.order);
        let edits = reader
            .relations(room.sid, &latest.pdu.event_id, Direction::Backward, RELATED)
            .await?;
        let mut unsigned = age(&latest, form);
        if let Some(edit) = newest_edit(reader, viewer, room, &latest, &edits).await? {
            let edit = client_json(&edit.pdu, form.room_id, Some(&age(&edit, form)));
            unsigned.relations = to_raw_value(&serde_json::json!({ "m.replace": edit })).ok();
        }
        let took_part = event.pdu.sender == viewer.user
            || thread.iter().any(|(_, row)| row.sender == viewer.sid);
        bundle.insert(
            "m.thread".to_owned(),
            serde_json::json!({
                "latest_event": client_json(&latest.pdu, form.room_id, Some(&unsigned)),
                "count": thread.len(),
                "current_user_participated": took_part,
            }),
        );
    }
    Ok(if bundle.is_empty() {
        None
    } else {
        to_raw_value(&bundle).ok()
    })
}

/// The newest of some related events, newest first, that the viewer may see.
async fn newest_visible(
    reader: &Reader,
    viewer: &Viewer,
    room: &Arc<Room>,
    rows: &[&(RoomOrder, RelationRow)],
) -> Result<Option<Arc<Event>>, RoomError> {
    for (_, row) in rows {
        if let Some(event) = reader.event_by_sid(row.event).await?
            && viewer.may_see(reader, room, &event).await?
        {
            let (event, _) = one_as_seen(reader, viewer, room, event).await?;
            return Ok(Some(event));
        }
    }
    Ok(None)
}

/// The newest edit by the event's own sender, of the same type. What is an edit itself, or state, has none.
///
/// Only one that the viewer may see: who has left must not learn what was changed since.
async fn newest_edit(
    reader: &Reader,
    viewer: &Viewer,
    room: &Arc<Room>,
    event: &Event,
    related: &[(RoomOrder, RelationRow)],
) -> Result<Option<Arc<Event>>, RoomError> {
    let replaces = Relation::of(&event.pdu).is_some_and(|it| it.rel_type == "m.replace");
    if replaces || event.pdu.state_key.is_some() {
        return Ok(None);
    }
    let kind = event.pdu.kind.to_string();
    for (_, row) in related
        .iter()
        .filter(|(_, row)| row.rel_type == "m.replace" && row.kind == kind)
    {
        if let Some(edit) = reader.event_by_sid(row.event).await?
            && edit.pdu.sender == event.pdu.sender
            && viewer.may_see(reader, room, &edit).await?
        {
            let (edit, emptied) = one_as_seen(reader, viewer, room, edit).await?;
            return Ok((!emptied).then_some(edit));
        }
    }
    Ok(None)
}

fn age(event: &Event, form: &Form) -> Unsigned<'static> {
    let sent: u64 = event.pdu.origin_server_ts.0.into();
    let age = i64::try_from(form.clock.now())
        .ok()
        .zip(i64::try_from(sent).ok())
        .map(|(now, sent)| now - sent);
    Unsigned {
        age,
        ..Unsigned::default()
    }
}

/// `content.body` as `[content, body]`; a backslash makes a dot part of a name.
fn path(field: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut characters = field.chars();
    while let Some(character) = characters.next() {
        let character = match character {
            '.' => {
                names.push(String::new());
                continue;
            }
            '\\' => characters.next().unwrap_or('\\'),
            other => other,
        };
        if let Some(name) = names.last_mut() {
            name.push(character);
        }
    }
    names
}

/// What of an event the filter asks for.
fn only(event: &RawValue, fields: &[Vec<String>]) -> Box<RawValue> {
    let Ok(whole) = serde_json::from_str::<Value>(event.get()) else {
        return event.to_owned();
    };
    let mut kept = Value::Object(serde_json::Map::new());
    for field in fields {
        copy(&whole, &mut kept, field);
    }
    to_raw_value(&kept).unwrap_or_else(|_| event.to_owned())
}

fn copy(from: &Value, to: &mut Value, path: &[String]) {
    let Some((name, rest)) = path.split_first() else {
        return;
    };
    let (Some(value), Some(object)) = (from.get(name), to.as_object_mut()) else {
        return;
    };
    if rest.is_empty() {
        object.insert(name.clone(), value.clone());
    } else if value.is_object() {
        let inner = object
            .entry(name.clone())
            .or_insert_with(|| Value::Object(serde_json::Map::new()));
        copy(value, inner, rest);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_filter_of_fields_keeps_what_it_names() {
        let event = RawValue::from_string(
            r#"{"content":{"body":"b","m.x":1,"other":2},"sender":"@a:b","type":"t"}"#.to_owned(),
        )
        .unwrap();
        let fields = ["content.body", r"content.m\.x", "sender", "not.there"].map(path);
        let kept: Value = serde_json::from_str(only(&event, &fields).get()).unwrap();
        assert_eq!(
            kept,
            serde_json::json!({"content": {"body": "b", "m.x": 1}, "sender": "@a:b"})
        );
    }
}

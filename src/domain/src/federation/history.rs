//! What another server asks of a room that both are in: events, states, what allows them, what came before.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use ruma::{EventId, OwnedEventId, RoomId, ServerName};
use serde_json::value::RawValue as RawJsonValue;

use super::{
    Federation, FederationError,
    access::{Sight, raw},
};
use crate::{
    rooms::{Event, Reader, Room},
    schema::Status,
};

/// The most events of one answer.
const MAX_EVENTS: usize = 100;
/// The most events that are named in a question.
const MAX_NAMED: usize = 100;

/// A state and what allows it, as events or as their ids.
pub struct State<T> {
    /// The state.
    pub state: Vec<T>,
    /// The events in its auth chain that are not in it.
    pub auth_chain: Vec<T>,
}

impl Federation {
    /// One event. <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1eventeventid>
    ///
    /// # Errors
    /// [`FederationError::Unknown`], also if the server is not in its room.
    pub async fn event(
        &self,
        origin: &ServerName,
        id: &EventId,
    ) -> Result<Box<RawJsonValue>, FederationError> {
        let reader = self.receiver.rooms().reader();
        let event = reader.events_by_id(&[id.to_owned()]).await?;
        let event = event.into_iter().flatten().next();
        let event = event.ok_or(FederationError::Unknown("event"))?;
        let room = reader.room_by_sid(event.room).await?;
        let room = room.ok_or(FederationError::Unknown("event"))?;
        let (reader, room) = self.shared(origin, &room.id).await?;
        if event.status == Status::Rejected {
            return Err(FederationError::Unknown("event"));
        }
        Ok(Sight::new(&reader, &room, origin).show(&event).await?)
    }

    /// What allows an event. <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1event_authroomideventid>
    ///
    /// # Errors
    /// As [`Federation::event`].
    pub async fn event_auth(
        &self,
        origin: &ServerName,
        room: &RoomId,
        id: &EventId,
    ) -> Result<Vec<Box<RawJsonValue>>, FederationError> {
        let (reader, room) = self.shared(origin, room).await?;
        let event = known(&reader, &room, id).await?;
        let chain = reader.auth_chain(room.sid, &[event]).await?;
        Ok(chain.iter().map(|event| raw(event)).collect())
    }

    /// The state before an event. <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1stateroomid>
    ///
    /// # Errors
    /// As [`Federation::event`].
    pub async fn state(
        &self,
        origin: &ServerName,
        room: &RoomId,
        at: &EventId,
    ) -> Result<State<Box<RawJsonValue>>, FederationError> {
        let state = self.state_events(origin, room, at).await?;
        Ok(State {
            state: state.state.iter().map(|event| raw(event)).collect(),
            auth_chain: state.auth_chain.iter().map(|event| raw(event)).collect(),
        })
    }

    /// The same by ids.
    ///
    /// # Errors
    /// As [`Federation::event`].
    pub async fn state_ids(
        &self,
        origin: &ServerName,
        room: &RoomId,
        at: &EventId,
    ) -> Result<State<OwnedEventId>, FederationError> {
        let state = self.state_events(origin, room, at).await?;
        let ids = |events: &[Arc<Event>]| {
            let ids = events.iter().map(|event| event.pdu.event_id.clone());
            ids.collect()
        };
        Ok(State {
            state: ids(&state.state),
            auth_chain: ids(&state.auth_chain),
        })
    }

    async fn state_events(
        &self,
        origin: &ServerName,
        room: &RoomId,
        at: &EventId,
    ) -> Result<State<Arc<Event>>, FederationError> {
        let (reader, room) = self.shared(origin, room).await?;
        let event = known(&reader, &room, at).await?;
        if !event.has_state() {
            return Err(FederationError::Unknown("event"));
        }
        let state = reader.state_events_at(event.root_before).await?;
        let auth_chain = reader.auth_chain(room.sid, &state).await?;
        Ok(State { state, auth_chain })
    }

    /// Events and those before them, newest first.
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1backfillroomid>
    ///
    /// # Errors
    /// As [`Federation::event`].
    pub async fn backfill(
        &self,
        origin: &ServerName,
        room: &RoomId,
        from: &[OwnedEventId],
        limit: usize,
    ) -> Result<Vec<Box<RawJsonValue>>, FederationError> {
        let (reader, room) = self.shared(origin, room).await?;
        let start: Vec<OwnedEventId> = from.iter().take(MAX_NAMED).cloned().collect();
        let events = walk_back(&reader, &room, start, &HashSet::new(), 0, limit).await?;
        let mut sight = Sight::new(&reader, &room, origin);
        let mut shown = Vec::with_capacity(events.len());
        for event in events {
            shown.push(sight.show(&event).await?);
        }
        Ok(shown)
    }

    /// Events between some and others, oldest first.
    /// <https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid>
    ///
    /// # Errors
    /// As [`Federation::event`].
    pub async fn missing_events(
        &self,
        origin: &ServerName,
        room: &RoomId,
        earliest: &[OwnedEventId],
        latest: &[OwnedEventId],
        min_depth: u64,
        limit: usize,
    ) -> Result<Vec<Box<RawJsonValue>>, FederationError> {
        let (reader, room) = self.shared(origin, room).await?;
        let latest: Vec<OwnedEventId> = latest.iter().take(MAX_NAMED).cloned().collect();
        let known: HashSet<OwnedEventId> = earliest.iter().chain(&latest).cloned().collect();
        let mut before = Vec::new();
        for event in reader.events_by_id(&latest).await?.into_iter().flatten() {
            if event.room == room.sid {
                before.extend(event.pdu.prev_events.iter().cloned());
            }
        }
        let events = walk_back(&reader, &room, before, &known, min_depth, limit).await?;
        let mut sight = Sight::new(&reader, &room, origin);
        let mut shown = Vec::with_capacity(events.len());
        for event in events.iter().rev() {
            shown.push(sight.show(event).await?);
        }
        Ok(shown)
    }
}

async fn known(reader: &Reader, room: &Room, id: &EventId) -> Result<Arc<Event>, FederationError> {
    let event = reader.event(room.sid, id).await?;
    event.ok_or(FederationError::Unknown("event"))
}

/// Events and what they follow, the deepest first, without what the other server has.
async fn walk_back(
    reader: &Reader,
    room: &Room,
    start: Vec<OwnedEventId>,
    without: &HashSet<OwnedEventId>,
    min_depth: u64,
    limit: usize,
) -> Result<Vec<Arc<Event>>, FederationError> {
    let limit = limit.min(MAX_EVENTS);
    let mut seen: HashSet<OwnedEventId> = start.iter().cloned().collect();
    let mut waiting: BTreeSet<(u64, OwnedEventId)> = BTreeSet::new();
    let mut found: Vec<Arc<Event>> = Vec::new();
    let mut wanted: Vec<OwnedEventId> = start;
    loop {
        wanted.retain(|id| !without.contains(id));
        for event in reader.events_by_id(&wanted).await?.into_iter().flatten() {
            if event.room == room.sid && event.has_state() && event.pdu.depth >= min_depth {
                waiting.insert((event.pdu.depth, event.pdu.event_id.clone()));
            }
        }
        if found.len() >= limit {
            return Ok(found);
        }
        let Some((_, id)) = waiting.pop_last() else {
            return Ok(found);
        };
        let event = known(reader, room, &id).await?;
        wanted = event
            .pdu
            .prev_events
            .iter()
            .filter(|id| seen.insert((*id).clone()))
            .cloned()
            .collect();
        if event.status != Status::Rejected {
            found.push(event);
        }
    }
}

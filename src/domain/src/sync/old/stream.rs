//! `GET /events`: what happens from a token on, as one list.
//!
//! The waiting, presence and typing are /sync's. The events of rooms are read from the log in order, since this stream
//! leaves nothing out: when there are too many for one answer, its token stands after the last of them.
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3events>

use std::{sync::Arc, time::Duration};

use ruma::{RoomId, UInt, api::client::filter::FilterDefinition};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::Instant;
use vatra_store::{Direction, Position};

use super::super::{MAX_TIMEOUT, SyncError, SyncRequest, SyncResponse, Syncs, token::SyncToken};
use crate::{
    rooms::{
        Event, Reader, Room,
        serve::{self, Form},
        visible::Viewer,
    },
    schema::{EventSid, Membership, topic},
    users::Ignored,
};

/// The most events of rooms in one answer.
const MOST: usize = 100;
/// How often someone who is not in a room looks whether something happened there: a comparison of integers.
const LOOKS: Duration = Duration::from_millis(500);

/// The answer of `/events`.
#[derive(Debug, Serialize)]
pub struct EventStream {
    /// Where it begins.
    pub start: String,
    /// Where it goes on.
    pub end: String,
    /// What happened.
    pub chunk: Vec<Box<RawValue>>,
}

/// Events of rooms, each after the one before it in the log.
struct Gathered {
    events: Vec<(Position, Box<RawValue>)>,
    /// Nothing is left out up to here.
    upto: Position,
}

/// For whom, and how.
struct Seeing<'a> {
    viewer: &'a Viewer,
    form: Form,
    ignored: Arc<Ignored>,
}

impl Syncs {
    /// What happens in the user's rooms after `from`, or from now on, waiting for it if nothing has.
    ///
    /// # Errors
    /// As [`Syncs::sync`].
    pub async fn events(
        &self,
        viewer: &Viewer,
        from: Option<SyncToken>,
        timeout: Duration,
    ) -> Result<EventStream, SyncError> {
        let start = self.start(from);
        let deadline = Instant::now() + timeout.min(MAX_TIMEOUT);
        let mut filter = FilterDefinition::default();
        filter.room.timeline.limit = UInt::try_from(1_u64).ok();
        let mut at = start;
        loop {
            let request = SyncRequest {
                since: Some(at),
                timeout: deadline.saturating_duration_since(Instant::now()),
                filter: filter.clone(),
                ..SyncRequest::default()
            };
            let answer = self.sync(viewer, &request).await?;
            let next = answer.next_batch.parse().unwrap_or(at);
            let gathered = self.gather(viewer, &answer, at.position, next.position);
            let gathered = gathered.await?;
            let mut chunk = beside(answer);
            chunk.extend(gathered.events.into_iter().map(|(_, event)| event));
            if !chunk.is_empty() || self.is_over(deadline) {
                return Ok(answer_of(start, gathered.upto, chunk));
            }
            // So many may be hidden that more are left, of which some are not.
            at = SyncToken {
                position: gathered.upto,
                ..next
            };
        }
    }

    /// What happens in one room, for someone who may read it without being in it.
    ///
    /// # Errors
    /// The store's.
    pub async fn room_events(
        &self,
        viewer: &Viewer,
        room: &Arc<Room>,
        from: Option<SyncToken>,
        timeout: Duration,
    ) -> Result<EventStream, SyncError> {
        let inner = &self.inner;
        let start = self.start(from);
        let deadline = Instant::now() + timeout.min(MAX_TIMEOUT);
        let mut at = start.position;
        loop {
            let reader = inner.rooms.reader();
            let upto = reader.watermark();
            let mut gathered = Gathered::new(upto);
            if inner.store.changed_since(topic::room(room.sid), at) {
                let seeing = self.seeing(viewer).await?;
                gathered.add(&reader, &seeing, room, (at, upto)).await?;
                gathered.cut();
            }
            let chunk: Vec<_> = gathered.events.into_iter().map(|(_, it)| it).collect();
            if !chunk.is_empty() || self.is_over(deadline) {
                return Ok(answer_of(start, gathered.upto, chunk));
            }
            at = gathered.upto;
            drop(reader);
            tokio::select! {
                () = tokio::time::sleep_until(deadline.min(Instant::now() + LOOKS)) => {}
                () = inner.shutdown.cancelled() => {}
            }
        }
    }

    /// A token of another store says nothing of this one: the stream begins now.
    fn start(&self, from: Option<SyncToken>) -> SyncToken {
        let inner = &self.inner;
        let now = inner.store.watermark();
        from.filter(|token| inner.is_ours(*token, now))
            .unwrap_or(SyncToken {
                epoch: inner.store.epoch(),
                position: now,
                to_device: Position(0),
            })
    }

    async fn seeing<'a>(&self, viewer: &'a Viewer) -> Result<Seeing<'a>, SyncError> {
        let users = &self.inner.providers.users;
        Ok(Seeing {
            viewer,
            form: Form::full(users.clock().clone()),
            ignored: users.ignored(viewer.sid).await?,
        })
    }

    fn is_over(&self, deadline: Instant) -> bool {
        Instant::now() >= deadline || self.inner.shutdown.is_cancelled()
    }

    /// The events of those rooms that have something new.
    async fn gather(
        &self,
        viewer: &Viewer,
        answer: &SyncResponse,
        after: Position,
        upto: Position,
    ) -> Result<Gathered, SyncError> {
        let inner = &self.inner;
        let reader = inner.rooms.reader();
        let seeing = self.seeing(viewer).await?;
        let mut gathered = Gathered::new(upto);
        let rooms = &answer.rooms;
        let others = rooms.invite.keys().chain(rooms.knock.keys());
        for id in rooms.join.keys().chain(rooms.leave.keys()).chain(others) {
            let Some(room) = reader.room(id).await? else {
                continue;
            };
            let Some(row) = reader.membership(viewer.sid, room.sid).await? else {
                continue;
            };
            let was_in = row.membership == Membership::Join || row.joined_until > after;
            if !was_in {
                // An invite, its end, a knock: all that is known of the room.
                gathered.add_own(&reader, &seeing, &room, row.event).await?;
                continue;
            }
            // Who comes anew is told of nothing before that.
            let from = match row.membership {
                Membership::Join if row.position > after => {
                    Position(row.position.0.saturating_sub(1))
                }
                _ => after,
            };
            let until = match row.membership {
                Membership::Join => upto,
                _ => row.position.min(upto),
            };
            gathered.add(&reader, &seeing, &room, (from, until)).await?;
        }
        gathered.cut();
        Ok(gathered)
    }
}

impl Gathered {
    fn new(upto: Position) -> Self {
        Self {
            events: Vec::new(),
            upto,
        }
    }

    /// The events of a room between two positions, as many as fit into one answer.
    async fn add(
        &mut self,
        reader: &Reader,
        seeing: &Seeing<'_>,
        room: &Arc<Room>,
        (after, upto): (Position, Position),
    ) -> Result<(), SyncError> {
        let rows = reader
            .log(room.sid, after, upto, Direction::Forward, MOST)
            .await?;
        if let (MOST.., Some((last, _))) = (rows.len(), rows.last()) {
            self.upto = self.upto.min(*last);
        }
        let sids: Vec<EventSid> = rows.iter().map(|(_, row)| row.event).collect();
        let events: Vec<Arc<Event>> = reader.events(&sids).await?.into_iter().flatten().collect();
        let visible = seeing.viewer.visible(reader, room, &events).await?;
        let seen = events.into_iter().zip(visible).filter(|(event, visible)| {
            let hushed =
                event.pdu.state_key.is_none() && seeing.ignored.contains(&event.pdu.sender);
            *visible && !hushed
        });
        let seen: Vec<_> = seen.map(|(event, _)| event).collect();
        let shown = serve::events(reader, seeing.viewer, room, &seen, &seeing.form).await?;
        let positions = seen.iter().map(|event| event.position);
        self.events.extend(positions.zip(shown));
        Ok(())
    }

    /// The user's own member event.
    async fn add_own(
        &mut self,
        reader: &Reader,
        seeing: &Seeing<'_>,
        room: &Arc<Room>,
        event: EventSid,
    ) -> Result<(), SyncError> {
        let own: Vec<_> = reader.event_by_sid(event).await?.into_iter().collect();
        let shown = serve::events(reader, seeing.viewer, room, &own, &seeing.form).await?;
        self.events
            .extend(shown.into_iter().map(|event| (Position(0), event)));
        Ok(())
    }

    /// Puts all of it in order, and takes away what comes after the end.
    fn cut(&mut self) {
        self.events.sort_by_key(|(position, _)| *position);
        if let Some((position, _)) = self.events.get(MOST - 1)
            && self.events.len() > MOST
        {
            self.upto = self.upto.min(*position);
        }
        self.events.retain(|(position, _)| *position <= self.upto);
    }
}

/// What is new beside the events of rooms: presence, and what names its room here: typing and receipts.
fn beside(answer: SyncResponse) -> Vec<Box<RawValue>> {
    let mut chunk = answer.presence.events;
    for (id, room) in answer.rooms.join {
        let events = room.ephemeral.events;
        chunk.extend(events.iter().filter_map(|event| of_room(event, &id)));
    }
    chunk
}

fn of_room(event: &RawValue, room: &RoomId) -> Option<Box<RawValue>> {
    let mut event: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(event.get()).ok()?;
    event.insert("room_id".to_owned(), room.as_str().into());
    to_raw_value(&event).ok()
}

fn answer_of(start: SyncToken, upto: Position, chunk: Vec<Box<RawValue>>) -> EventStream {
    let end = SyncToken {
        position: upto,
        to_device: start.to_device.min(upto),
        ..start
    };
    EventStream {
        start: start.to_string(),
        end: end.to_string(),
        chunk,
    }
}

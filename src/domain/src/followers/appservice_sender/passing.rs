//! What passes, for services that want to hear of it: typing, receipts and presence. In memory only.
//!
//! The newest of a kind replaces the older ones, and nothing is kept for a service that does not answer.
//! <https://spec.matrix.org/v1.19/application-service-api/#pushing-ephemeral-data>

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::sync::Notify;
use tracing::debug;
use vatra_store::Position;

use super::{
    super::{FollowError, Status},
    Parts,
    interest::Interest,
    members::Book,
};
use crate::{
    appservice::Service,
    rooms::Reader,
    schema::{Membership, RoomSid, UserSid, topic},
};

/// How often presence is told.
const PRESENCE: Duration = Duration::from_secs(1);
/// The most units that wait for a service.
const MAX_WAITING: usize = 1_000;
/// The most units of a transaction, and about the most bytes of them.
const MAX_UNITS: usize = 100;
const MAX_BYTES: usize = 60 << 10;

/// What a unit is about: a newer one replaces it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    /// Who types in a room.
    Typing(RoomSid),
    /// What someone has read in a room: the receipt's type and thread.
    Receipt(RoomSid, UserSid, String, String),
    /// Whether someone is there.
    Presence(UserSid),
}

/// What waits for one service.
#[derive(Debug, Default)]
pub(super) struct Passing {
    units: Mutex<BTreeMap<About, Value>>,
    /// Something new waits.
    pub(super) news: Notify,
}

impl Passing {
    /// Units for a transaction, as JSON; what finds no room waits on.
    pub(super) fn take(&self) -> Vec<String> {
        let (mut units, mut taken, mut bytes) = (self.units(), Vec::new(), 0);
        while taken.len() < MAX_UNITS
            && bytes < MAX_BYTES
            && let Some((_, unit)) = units.pop_first()
        {
            let unit = unit.to_string();
            bytes += unit.len();
            taken.push(unit);
        }
        taken
    }

    /// Nothing waits any more.
    pub(super) fn forget(&self) {
        self.units().clear();
    }

    fn put(&self, about: About, unit: Value) {
        let mut units = self.units();
        if units.len() < MAX_WAITING || units.contains_key(&about) {
            units.insert(about, unit);
        }
        drop(units);
        self.news.notify_one();
    }

    fn units(&self) -> MutexGuard<'_, BTreeMap<About, Value>> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gathers what passes until the store is closed.
pub(super) async fn gather(parts: &Parts, service: &Service, status: &Status, passing: &Passing) {
    let store = parts.rooms.store();
    let mut wakes = store.wakes();
    let mut gatherer = Gatherer {
        parts,
        service,
        status,
        passing,
        undecided: BTreeMap::new(),
        since: store.watermark(),
        presence_since: store.watermark(),
    };
    let mut ticks = tokio::time::interval(PRESENCE);
    loop {
        let outcome = tokio::select! {
            _ = ticks.tick() => match gatherer.decide().await {
                Ok(()) => gatherer.presence().await,
                failed => failed,
            },
            wake = wakes.recv() => {
                let Some(wake) = wake else { return };
                let (mut topics, mut upto) = (wake.topics, wake.watermark);
                while let Ok(wake) = wakes.try_recv() {
                    topics.extend(wake.topics);
                    upto = wake.watermark;
                }
                let rooms = topics.iter().filter(|topic| topic.kind == topic::ROOM);
                gatherer.rooms(rooms.map(|topic| RoomSid(topic.id)).collect(), upto).await
            }
        };
        if let Err(error) = outcome {
            debug!(service = service.id, %error, "what passes could not be read: it is not told");
        }
    }
}

struct Gatherer<'a> {
    parts: &'a Parts,
    service: &'a Service,
    status: &'a Status,
    passing: &'a Passing,
    /// Rooms in which something passed after a position and up to another, which may turn out to be of interest.
    undecided: BTreeMap<RoomSid, (Position, Position)>,
    since: Position,
    presence_since: Position,
}

impl Gatherer<'_> {
    async fn rooms(&mut self, rooms: BTreeSet<RoomSid>, upto: Position) -> Result<(), FollowError> {
        let since = std::mem::replace(&mut self.since, upto);
        for room in rooms {
            self.undecided.entry(room).or_insert((since, upto)).1 = upto;
        }
        self.decide().await
    }

    /// Takes what passed in rooms of interest. That one of the service's users is in a room is known once its log has been read so far:
    /// until then the room is not given up.
    async fn decide(&mut self) -> Result<(), FollowError> {
        if self.undecided.is_empty() {
            return Ok(());
        }
        let read = self.status.cursor();
        let rooms = std::mem::take(&mut self.undecided);
        let reader = self.parts.rooms.reader();
        let mut interest = self.interest(&reader);
        let mut later = BTreeMap::new();
        for (room, (since, upto)) in rooms {
            if !interest.concerns(room).await? {
                if upto > read && later.len() < MAX_WAITING {
                    later.insert(room, (since, upto));
                }
            } else if let Some(known) = reader.room_by_sid(room).await? {
                self.typing(room, known.id.as_str(), since);
                self.receipts(&reader, room, known.id.as_str(), since)
                    .await?;
            }
        }
        self.undecided = later;
        Ok(())
    }

    fn interest<'b>(&'b self, reader: &'b Reader) -> Interest<'b> {
        Interest::new(self.service, reader, Book::open(self.service, reader))
    }

    fn typing(&self, room: RoomSid, id: &str, since: Position) {
        let event = self.parts.ephemeral.typing.event(room, Some(since));
        let unit = event.and_then(|event| serde_json::from_str(event.get()).ok());
        if let Some(Value::Object(mut unit)) = unit {
            unit.insert("room_id".to_owned(), json!(id));
            self.passing.put(About::Typing(room), Value::Object(unit));
        }
    }

    async fn receipts(
        &self,
        reader: &Reader,
        room: RoomSid,
        id: &str,
        since: Position,
    ) -> Result<(), FollowError> {
        let receipts = &self.parts.ephemeral.receipts;
        for ((_, sid, kind, thread), row) in receipts.changed(reader, room, since).await? {
            let Some(user) = reader.user_id(sid).await? else {
                continue;
            };
            // A private one is its reader's business, and their service's.
            if kind == "m.read.private" && !self.service.has_user(&user) {
                continue;
            }
            let mut data = json!({ "ts": row.ts });
            if let (false, Some(data)) = (thread.is_empty(), data.as_object_mut()) {
                data.insert("thread_id".to_owned(), json!(thread));
            }
            let content = json!({ &row.event_id: { &kind: { user.as_str(): data } } });
            let unit = json!({ "type": "m.receipt", "room_id": id, "content": content });
            self.passing
                .put(About::Receipt(room, sid, kind, thread), unit);
        }
        Ok(())
    }

    async fn presence(&mut self) -> Result<(), FollowError> {
        let presences = &self.parts.ephemeral.presence;
        let changed = presences.changed_after(self.presence_since);
        if changed.is_empty() {
            return Ok(());
        }
        let reader = self.parts.rooms.reader();
        let mut newest = self.presence_since;
        let mut interest = self.interest(&reader);
        for (sid, presence) in changed {
            newest = newest.max(presence.changed());
            let Some(user) = reader.user_id(sid).await? else {
                continue;
            };
            if self.service.has_user(&user) || shares_room(&reader, &mut interest, sid).await? {
                let content = presences.content(&presence);
                let unit = json!({ "type": "m.presence", "sender": user, "content": content });
                self.passing.put(About::Presence(sid), unit);
            }
        }
        self.presence_since = newest;
        Ok(())
    }
}

/// Whether a user is in a room that is of interest.
async fn shares_room(
    reader: &Reader,
    interest: &mut Interest<'_>,
    user: UserSid,
) -> Result<bool, FollowError> {
    for (room, row) in reader.rooms_of(user).await? {
        if row.membership == Membership::Join && interest.concerns(room).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

//! Empties messages that are older than their room, or the server, keeps them: `m.room.retention` (MSC1763).
//!
//! From time to time every room with a policy is gone through by the times at which its events were sent, from where the last round has stopped
//! ([`schema::RETAINED`]), some at a time, under the room's guard (`rooms/purge`). What comes later and is older than that place, from a
//! server that was away or by reading far back, is found in the log and in [`schema::PAST`]: before each round the places of their rooms
//! are moved back. One task does both, one after the other, so nothing falls between them.
//!
//! What emptying means, and what it does not: `docs/decisions/0007-emptied-not-deleted.md`.

mod policy;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ruma::events::StateEventType;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use vatra_store::{Batch, Direction, Position, Range};

pub use self::policy::Policy;
use super::FollowError;
use crate::{
    clock::{Millis, SharedClock},
    rooms::{Event, Reader, Room, Rooms},
    schema::{self, EventSid, FollowerRow, RetainedRow, RoomOrder, RoomSid},
};

/// The names under which it keeps how far it has read the log, and the list beside it.
const LOG: &str = "retention";
const PAST: &str = "retention:past";
/// How many rows are read at once.
const PAGE: usize = 200;
/// How many events are emptied at once: an event has 65 kB at most, and a batch a few MB.
const AT_ONCE: usize = 50;

/// What it is built from.
#[derive(Clone)]
pub struct Parts {
    /// The rooms.
    pub rooms: Rooms,
    /// The time.
    pub clock: SharedClock,
    /// The server's policy.
    pub policy: Policy,
    /// How long it waits between two rounds.
    pub interval: Duration,
}

/// Empties what is too old. Cheap to clone.
#[derive(Clone)]
pub struct Retention {
    parts: Parts,
    emptied: Arc<AtomicU64>,
}

impl Retention {
    /// Start it with [`Retention::run`].
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            emptied: Arc::default(),
        }
    }

    /// How many events were emptied since the start.
    pub fn emptied(&self) -> u64 {
        self.emptied.load(Ordering::Relaxed)
    }

    /// Round after round, until the shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            let before = self.emptied();
            match self.round(&shutdown).await {
                Ok(()) if self.emptied() > before => {
                    info!(
                        events = self.emptied() - before,
                        "old messages were emptied"
                    );
                }
                Ok(()) => {}
                Err(error) => {
                    warn!(%error, "old messages are not emptied; the next round tries again")
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.parts.interval) => {}
            }
        }
    }

    /// One round through all rooms. A room that fails does not hold up the others; the error is the last one.
    async fn round(&self, shutdown: &CancellationToken) -> Result<(), FollowError> {
        self.go_back_for_latecomers().await?;
        let mut range = Range::all();
        let mut failed = None;
        loop {
            let view = self.parts.rooms.store().view();
            let rows = view
                .range(&schema::ROOMS, range, Direction::Forward, PAGE)
                .await?;
            drop(view);
            let Some((last, _)) = rows.last() else { break };
            range = Range::all().after(last);
            for (room, _) in rows {
                if shutdown.is_cancelled() {
                    return Ok(());
                }
                if let Err(error) = self.room(room).await {
                    warn!(room = room.0, %error, "the old messages of a room are not emptied");
                    failed = Some(error);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn room(&self, sid: RoomSid) -> Result<(), FollowError> {
        let reader = self.parts.rooms.reader();
        let kind = StateEventType::from("m.room.retention");
        let said = reader.state_event(sid, &kind, "").await?;
        let said = said.and_then(|event| event.pdu.content_as().ok());
        let Some(lifetime) = self.parts.policy.lifetime(said) else {
            return Ok(());
        };
        let Some(cutoff) = self.parts.clock.now().checked_sub(lifetime) else {
            return Ok(());
        };
        let Some(room) = reader.room_by_sid(sid).await? else {
            return Ok(());
        };
        while self.some(&room, cutoff).await? {}
        Ok(())
    }

    /// Empties some events of a room that were sent before a moment; says whether there may be more.
    async fn some(&self, room: &Room, cutoff: Millis) -> Result<bool, FollowError> {
        let reader = self.parts.rooms.reader();
        let view = reader.view();
        let place = view.get(&schema::RETAINED, &room.sid).await?;
        let after = place.clone().unwrap_or(RetainedRow::START);
        let (from, to) = (
            (room.sid, after.ts, after.order),
            (room.sid, cutoff, RoomOrder(0)),
        );
        if from >= to {
            return Ok(false);
        }
        let range = Range::between(Bound::Excluded(&from), Bound::Excluded(&to));
        let rows = view
            .range(&schema::EVENT_TIMES, range, Direction::Forward, AT_ONCE)
            .await?;
        // The newest stays, until another is newer: the round ends there.
        let newest = reader.order_at(room.sid, view.watermark()).await?;
        let before_newest = rows
            .iter()
            .take_while(|((_, _, order), _)| Some(*order) != newest);
        let rows: Vec<_> = before_newest.cloned().collect();
        let Some(((_, ts, order), _)) = rows.last() else {
            return Ok(false);
        };
        let next = RetainedRow {
            ts: *ts,
            order: *order,
        };
        let mut batch = Batch::new();
        batch.put(&schema::RETAINED, &room.sid, &next);
        let sids: Vec<EventSid> = rows.iter().map(|(_, sid)| *sid).collect();
        let emptied = self.parts.rooms.empty_expired(&room.id, &sids, batch);
        let emptied = u64::try_from(emptied.await?).unwrap_or(u64::MAX);
        self.emptied.fetch_add(emptied, Ordering::Relaxed);
        Ok(true)
    }

    /// Moves the places of rooms back before what has come since the last round and is older than they are.
    async fn go_back_for_latecomers(&self) -> Result<(), FollowError> {
        let upto = self.parts.rooms.store().watermark();
        while self.read_on(LOG, upto).await? {}
        while self.read_on(PAST, upto).await? {}
        Ok(())
    }

    /// Reads some of the log, or of the list beside it; says whether there may be more.
    async fn read_on(&self, name: &str, upto: Position) -> Result<bool, FollowError> {
        let reader = self.parts.rooms.reader();
        let view = reader.view();
        let name = name.to_owned();
        // When it begins, no room has a place yet that something could be older than.
        let row = view.get(&schema::FOLLOWERS, &name).await?;
        let row = row.unwrap_or(FollowerRow {
            cursor: upto,
            set_aside: 0,
        });
        let (sids, last) = if name == LOG {
            let range = Range::between(Bound::Excluded(&row.cursor), Bound::Included(&upto));
            let rows = view
                .range(&schema::LOG, range, Direction::Forward, PAGE)
                .await?;
            let last = rows.last().map(|(at, _)| *at);
            (
                rows.iter().map(|(_, row)| row.event).collect::<Vec<_>>(),
                last,
            )
        } else {
            let ends = [(row.cursor, EventSid(u64::MAX)), (upto, EventSid(u64::MAX))];
            let [from, to] = &ends;
            let range = Range::between(Bound::Excluded(from), Bound::Included(to));
            let rows = view
                .range(&schema::PAST, range, Direction::Forward, PAGE)
                .await?;
            // All of a position, of which more may follow.
            let last = rows.last().map(|((at, _), ())| *at);
            (rows.iter().map(|((_, sid), ())| *sid).collect(), last)
        };
        let mut batch = Batch::new();
        self.go_back(&reader, &sids, &mut batch).await?;
        let cursor = last.unwrap_or(upto);
        batch.put(&schema::FOLLOWERS, &name, &FollowerRow { cursor, ..row });
        self.parts.rooms.store().write(batch).await?;
        Ok(last.is_some())
    }

    async fn go_back(
        &self,
        reader: &Reader,
        sids: &[EventSid],
        batch: &mut Batch,
    ) -> Result<(), FollowError> {
        let mut places: HashMap<RoomSid, Option<RetainedRow>> = HashMap::new();
        for event in reader.events(sids).await?.into_iter().flatten() {
            let place = match places.get(&event.room) {
                Some(place) => place.clone(),
                None => reader.view().get(&schema::RETAINED, &event.room).await?,
            };
            let before = just_before(&event);
            let moved = match place {
                Some(place) if before < place && !event.is_empty() => {
                    batch.put(&schema::RETAINED, &event.room, &before);
                    Some(before)
                }
                place => place,
            };
            places.insert(event.room, moved);
        }
        Ok(())
    }
}

/// The place before an event in the order of times.
fn just_before(event: &Event) -> RetainedRow {
    RetainedRow {
        ts: event.pdu.origin_server_ts.0.into(),
        order: RoomOrder(event.order.0.saturating_sub(1)),
    }
}

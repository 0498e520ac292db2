//! What a transaction is made of: events from the outboxes of rooms, and units that must arrive.

use std::{collections::BTreeSet, ops::Bound};

use ruma::ServerName;
use vatra_store::{Direction, Position, Range, View};

use super::{
    super::FollowError,
    destinations::Pending,
    transaction::{LONG_AWAY_MS, MAX_EDU_BYTES, MAX_EDUS, MAX_EVENTS},
};
use crate::{
    clock::Millis,
    rooms::Reader,
    schema::{self, DestinationRow, EventSid, RoomSid},
};

/// Events for a transaction, and what is done when they are sent.
#[derive(Default)]
pub(super) struct Chosen {
    pub(super) events: Vec<EventSid>,
    pub(super) sent: Position,
    pub(super) catch_up: Option<(Position, RoomSid)>,
    /// Rooms of which nothing is left.
    pub(super) done: Vec<RoomSid>,
    pub(super) reload: bool,
}

/// What a server is told next: the oldest events that it has not been told; or, after a long outage, the newest of each room.
pub(super) async fn choose(
    now: Millis,
    reader: &Reader,
    server: &ServerName,
    row: &DestinationRow,
    pending: &mut Pending,
) -> Result<Chosen, FollowError> {
    let view = reader.view();
    if let Some((upto, next)) = row.catch_up {
        pending.load(view, server).await?;
        return newest_of_each(view, server, row, &pending.rooms, (upto, next)).await;
    }
    let upto = pending.upto;
    let mut found = Vec::new();
    let mut unread = BTreeSet::new();
    for room in &pending.rooms {
        let asked = Asked {
            from: row.sent,
            upto,
            room: *room,
        };
        let events = asked
            .outbox(view, server, Direction::Forward, MAX_EVENTS + 1)
            .await?;
        if events.len() > MAX_EVENTS {
            unread.insert(*room);
        }
        found.extend(events.into_iter().map(|(at, event)| (at, *room, event)));
    }
    found.sort_unstable();
    let long_away = row.success > 0
        && now.saturating_sub(row.success) > LONG_AWAY_MS
        && found.len() > MAX_EVENTS;
    if long_away {
        pending.load(view, server).await?;
        let begin = (pending.upto, RoomSid(0));
        return newest_of_each(view, server, row, &pending.rooms, begin).await;
    }
    let rest = found.split_off(found.len().min(MAX_EVENTS));
    unread.extend(rest.iter().map(|(_, room, _)| *room));
    Ok(Chosen {
        sent: found.last().map_or(row.sent, |(at, _, _)| *at),
        events: of_others(reader, server, found).await?,
        catch_up: None,
        done: pending.rooms.difference(&unread).copied().collect(),
        reload: false,
    })
}

/// Without what the server itself has made and this one let in for it: it would find its own past where it has gone on since.
async fn of_others(
    reader: &Reader,
    server: &ServerName,
    found: Vec<(Position, RoomSid, EventSid)>,
) -> Result<Vec<EventSid>, FollowError> {
    let mut events = Vec::with_capacity(found.len());
    for (_, _, sid) in found {
        let event = reader.event_by_sid(sid).await?;
        if event.is_none_or(|event| event.pdu.sender.server_name() != server) {
            events.push(sid);
        }
    }
    Ok(events)
}

/// Units that must arrive, with their keys: they move from their outbox into the transaction.
pub(super) async fn kept_units(
    view: &View,
    server: &str,
) -> Result<(Vec<(String, Position, u64)>, Vec<String>), FollowError> {
    let range = Range::prefix(&(server.to_owned(),));
    let rows = view
        .range(&schema::EDU_OUTBOX, range, Direction::Forward, MAX_EDUS)
        .await?;
    let (mut keys, mut units, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (key, unit) in rows {
        bytes += unit.len();
        if bytes > MAX_EDU_BYTES && !units.is_empty() {
            break;
        }
        keys.push(key);
        units.push(unit);
    }
    Ok((keys, units))
}

/// The newest event of each of some rooms: of those from `next` on, up to a position.
async fn newest_of_each(
    view: &View,
    server: &ServerName,
    row: &DestinationRow,
    pending: &BTreeSet<RoomSid>,
    (upto, next): (Position, RoomSid),
) -> Result<Chosen, FollowError> {
    let mut chosen = Chosen {
        sent: row.sent,
        ..Chosen::default()
    };
    for room in pending.range(next..) {
        if chosen.events.len() == MAX_EVENTS {
            chosen.catch_up = Some((upto, *room));
            return Ok(chosen);
        }
        let asked = Asked {
            from: row.sent,
            upto,
            room: *room,
        };
        let newest = asked.outbox(view, server, Direction::Backward, 1).await?;
        chosen
            .events
            .extend(newest.into_iter().map(|(_, event)| event));
    }
    chosen.sent = upto;
    chosen.reload = true;
    chosen.done = pending.iter().copied().collect();
    Ok(chosen)
}

/// What is asked of a room's outbox: after a position, up to another.
struct Asked {
    from: Position,
    upto: Position,
    room: RoomSid,
}

impl Asked {
    /// What a server has not been told of the room, while it was there.
    async fn outbox(
        &self,
        view: &View,
        server: &ServerName,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Position, EventSid)>, FollowError> {
        let key = (self.room, server.to_string());
        let Some(row) = view.get(&schema::ROOM_SERVERS, &key).await? else {
            return Ok(Vec::new());
        };
        let from = self.from.next().max(row.since);
        let until = row.until.unwrap_or(Position::MAX).min(self.upto);
        if from > until {
            return Ok(Vec::new());
        }
        let range = Range::between(
            Bound::Included(&(self.room, from)),
            Bound::Included(&(self.room, until)),
        );
        let rows = view.range(&schema::OUTBOX, range, direction, limit).await?;
        Ok(rows
            .into_iter()
            .map(|((_, at), event)| (at, event))
            .collect())
    }
}

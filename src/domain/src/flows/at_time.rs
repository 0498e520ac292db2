//! The event nearest to a moment, also where events are missing here: then other servers of the room are asked, and what lies between
//! is filled in.
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event>

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, ServerName, UInt,
    api::{
        Direction as Side, federation::event::get_event_by_timestamp::v1 as get_event_by_timestamp,
    },
};
use tokio::time::Instant;
use vatra_store::{Direction, Range};

use super::FlowError;
use crate::{
    remote::Bounds,
    rooms::{Event, Reader, Room, RoomError, at_time, receive::Receiver, visible::Viewer},
    schema::{self, RoomOrder},
};

/// How many servers are asked, all at once.
const SERVERS: usize = 3;
/// How often a gap is filled a bit more until the event is here.
const ROUNDS: usize = 10;
/// How long someone waits for other servers.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is asked for: the first event from `ts` on, or the last up to it.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Milliseconds since the Unix epoch.
    pub ts: u64,
    /// To which side of it.
    pub direction: Direction,
}

/// The event nearest to a moment that the viewer may see; see [`at_time::at_time`]. `newest` is the first place of the room
/// that is not for the viewer any more. Asks nobody in a room in which nothing is missing.
///
/// # Errors
/// The store's.
pub async fn nearest(
    receiver: &Receiver,
    viewer: &Viewer,
    room: &Arc<Room>,
    newest: RoomOrder,
    moment: Moment,
) -> Result<Option<Arc<Event>>, FlowError> {
    let Moment { ts, direction } = moment;
    let reader = receiver.rooms().reader();
    let here = at_time::at_time(&reader, viewer, room, newest, ts, direction).await?;
    let exact = here
        .as_ref()
        .is_some_and(|event| sent(event.pdu.origin_server_ts) == ts);
    if exact
        || newest_gap(&reader, room, None).await?.is_none()
        || !reader.server_is_in(room.sid, None).await?
    {
        return Ok(here);
    }
    let deadline = Instant::now() + PATIENCE;
    let there = moment.elsewhere(receiver, &reader, room, deadline).await?;
    let Some((id, there)) = there else {
        return Ok(here);
    };
    let nearer = here
        .as_ref()
        .is_none_or(|event| moment.is_nearer(there, sent(event.pdu.origin_server_ts)));
    if !nearer || !fill_until(receiver, room, &id, deadline).await? {
        return Ok(here);
    }
    let reader = receiver.rooms().reader();
    Ok(at_time::at_time(&reader, viewer, room, newest, ts, direction).await?)
}

fn sent(ts: MilliSecondsSinceUnixEpoch) -> u64 {
    ts.0.into()
}

impl Moment {
    fn is_nearer(self, one: u64, than: u64) -> bool {
        match self.direction {
            Direction::Forward => (self.ts..than).contains(&one),
            Direction::Backward => one <= self.ts && one > than,
        }
    }

    /// The nearest event that other servers know of.
    async fn elsewhere(
        self,
        receiver: &Receiver,
        reader: &Reader,
        room: &Room,
        deadline: Instant,
    ) -> Result<Option<(OwnedEventId, u64)>, RoomError> {
        let servers = reader.other_servers(room.sid, SERVERS).await?;
        let asking = servers
            .into_iter()
            .map(|server| async move { self.ask(receiver, &server, room, deadline).await });
        let told: Vec<_> = stream::iter(asking)
            .buffer_unordered(SERVERS)
            .collect()
            .await;
        let side = self.direction;
        let told = told.into_iter().flatten().filter(|(_, at)| match side {
            Direction::Forward => *at >= self.ts,
            Direction::Backward => *at <= self.ts,
        });
        Ok(told.min_by_key(|(_, at)| at.abs_diff(self.ts)))
    }

    async fn ask(
        self,
        receiver: &Receiver,
        server: &ServerName,
        room: &Room,
        deadline: Instant,
    ) -> Option<(OwnedEventId, u64)> {
        let side = match self.direction {
            Direction::Forward => Side::Forward,
            Direction::Backward => Side::Backward,
        };
        let ts = MilliSecondsSinceUnixEpoch(UInt::new_saturating(self.ts));
        let request = get_event_by_timestamp::Request::new(room.id.clone(), ts, side);
        let asked = receiver
            .remote()
            .call_within(server, request, Bounds::urgent());
        match tokio::time::timeout_at(deadline, asked).await {
            Ok(Ok(answer)) => Some((answer.event_id, sent(answer.origin_server_ts))),
            Ok(Err(error)) => {
                tracing::debug!(%server, room = %room.id, %error, "a moment cannot be asked for");
                None
            }
            Err(_) => None,
        }
    }
}

/// Fills the room's gaps, the newest first, until an event has its place; whether it has.
async fn fill_until(
    receiver: &Receiver,
    room: &Arc<Room>,
    id: &OwnedEventId,
    deadline: Instant,
) -> Result<bool, FlowError> {
    let mut below = None;
    for _ in 0..ROUNDS {
        let reader = receiver.rooms().reader();
        let event = reader.event(room.sid, id).await?;
        if event.is_some_and(|event| event.has_state()) {
            return Ok(true);
        }
        let Some(gap) = newest_gap(&reader, room, below).await? else {
            return Ok(false);
        };
        match tokio::time::timeout_at(deadline, receiver.backfill(room, gap)).await {
            Ok(Ok(0)) => below = Some(gap),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::info!(room = %room.id, %error, "a gap cannot be filled");
                below = Some(gap);
            }
            Err(_) => return Ok(false),
        }
    }
    let event = receiver.rooms().reader().event(room.sid, id).await?;
    Ok(event.is_some_and(|event| event.has_state()))
}

async fn newest_gap(
    reader: &Reader,
    room: &Room,
    below: Option<RoomOrder>,
) -> Result<Option<RoomOrder>, RoomError> {
    let range = Range::prefix(&(room.sid,));
    let bound = below.map(|below| (room.sid, below));
    let range = match &bound {
        Some(bound) => range.before(bound),
        None => range,
    };
    let gap = reader
        .view()
        .first(&schema::GAPS, range, Direction::Backward)
        .await?;
    Ok(gap.map(|((_, order), _)| order))
}

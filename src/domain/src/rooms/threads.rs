//! The threads of a room, the one with the newest reply first.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#querying-threads-in-a-room>. A thread stands where its newest reply does. A
//! page reads the room's threaded replies backwards and costs one range read for each thread it meets; older replies of
//! threads that were met are passed over, so that a page never writes and a token is only a place in the room.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use ruma::EventId;
use vatra_store::Direction;

use super::{Event, Reader, Room, RoomError, visible::Viewer};
use crate::{
    event::relation::{Relation, THREAD},
    schema::{RoomOrder, RoomSid},
};

/// How many replies a page passes at most; a thread's replies that are looked at are as many.
const SCANNED: usize = 10_000;
/// How many replies are read at once.
const READ: usize = 200;

/// Which threads.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Only what stands before this place of the room.
    pub before: RoomOrder,
    /// Only threads that the viewer has begun or replied to.
    pub participated: bool,
    /// How many.
    pub limit: usize,
}

/// A page of thread roots that the viewer may see, and where the next one begins. `newest` is the first place of the room
/// that is not for the viewer any more.
pub async fn threads(
    reader: &Reader,
    viewer: &Viewer,
    room: &Arc<Room>,
    newest: RoomOrder,
    asked: Asked,
) -> Result<(Vec<Arc<Event>>, Option<RoomOrder>), RoomError> {
    let mut before = asked.before.min(newest);
    let mut met: HashMap<String, Option<RoomOrder>> = HashMap::new();
    let mut page = Vec::new();
    let mut scanned = 0;
    while scanned < SCANNED {
        let replies = reader.thread_replies(room.sid, before, READ).await?;
        let done = replies.len() < READ;
        scanned += replies.len();
        for (order, root) in replies {
            before = order;
            let look = Look {
                reader,
                viewer,
                room,
                newest,
            };
            let (place, event) = match met.entry(root.clone()) {
                Entry::Occupied(known) => (*known.get(), None),
                Entry::Vacant(free) => {
                    let found = look.thread(&root, asked.participated).await?;
                    let place = found.as_ref().map(|(place, _)| *place);
                    free.insert(place);
                    (place, found.map(|(_, event)| event))
                }
            };
            if place != Some(order) {
                continue;
            }
            // Its newest reply was redacted, and the thread was met there.
            let event = match event {
                Some(event) => Some(event),
                None => look.root(&root).await?,
            };
            page.extend(event);
            if page.len() == asked.limit {
                return Ok((page, Some(before)));
            }
        }
        if done {
            return Ok((page, None));
        }
    }
    Ok((page, Some(before)))
}

struct Look<'a> {
    reader: &'a Reader,
    viewer: &'a Viewer,
    room: &'a Arc<Room>,
    newest: RoomOrder,
}

impl Look<'_> {
    /// Where a thread's newest visible reply stands, and its root; `None` if it is not to be listed.
    async fn thread(
        &self,
        root: &str,
        participated: bool,
    ) -> Result<Option<(RoomOrder, Arc<Event>)>, RoomError> {
        let Some(event) = self.root(root).await? else {
            return Ok(None);
        };
        let related = self
            .reader
            .relations(
                self.room.sid,
                &event.pdu.event_id,
                Direction::Backward,
                SCANNED,
            )
            .await?;
        let replies: Vec<_> = related
            .iter()
            .filter(|(order, row)| *order < self.newest && row.rel_type == THREAD)
            .collect();
        let took_part = event.pdu.sender == self.viewer.user
            || replies.iter().any(|(_, row)| row.sender == self.viewer.sid);
        if participated && !took_part {
            return Ok(None);
        }
        for (order, row) in replies {
            if let Some(reply) = self.reader.event_by_sid(row.event).await?
                && self.viewer.may_see(self.reader, self.room, &reply).await?
            {
                return Ok(Some((*order, event)));
            }
        }
        Ok(None)
    }

    async fn root(&self, id: &str) -> Result<Option<Arc<Event>>, RoomError> {
        let Ok(id) = EventId::parse(id) else {
            return Ok(None);
        };
        let Some(event) = self.reader.event(self.room.sid, &id).await? else {
            return Ok(None);
        };
        let visible = self.viewer.may_see(self.reader, self.room, &event).await?;
        Ok(visible.then_some(event))
    }
}

/// How far relations are followed: an edit of an answer to a reply is a few steps away from the thread.
const STEPS: usize = 5;

impl Reader {
    /// Whether a receipt for an event may name a thread, by its root; `None` is the main timeline.
    ///
    /// What relates to a reply is read with the thread, also over some steps, and the root in both. What relates to the root in another
    /// way stands in the main timeline, yet clients that show it beside the thread read it there: it may be named in both.
    /// <https://spec.matrix.org/v1.19/client-server-api/#threaded-read-receipts>
    pub async fn is_in_thread(
        &self,
        room: RoomSid,
        event: &EventId,
        root: Option<&EventId>,
    ) -> Result<bool, RoomError> {
        let Some(mut event) = self.event(room, event).await? else {
            return Ok(false);
        };
        for _ in 0..STEPS {
            if root == Some(&event.pdu.event_id) {
                return Ok(true);
            }
            let Some(relation) = Relation::of(&event.pdu) else {
                break;
            };
            if relation.rel_type == THREAD {
                return Ok(root == Some(&relation.event_id));
            }
            match self.event(room, &relation.event_id).await? {
                Some(target) => event = target,
                None => break,
            }
        }
        Ok(root.is_none())
    }
}

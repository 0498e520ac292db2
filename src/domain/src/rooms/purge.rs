//! Emptying events whose time is over: what they said is gone for good, what they are in the room stays.
//!
//! An event that is emptied keeps its place in both orders and in the graph, its id and its signatures: what is left of it is what a redaction would
//! leave, without a redaction. It is emptied on this server only. State is never emptied, nor redactions, which keep others empty, nor
//! the newest event of a room.

use std::sync::Arc;

use ruma::{RoomId, events::TimelineEventType};
use vatra_store::Batch;

use super::{Event, RoomError, Rooms, append::drop_relations};
use crate::{
    event::redact,
    schema::{self, EventSid, EventTail, HeadRow, Status},
};

impl Rooms {
    /// Empties events of a room, as far as they may be, in one batch with what the caller puts into it. Gives how many there were. Few
    /// events at a time: nobody else writes to the room meanwhile.
    ///
    /// # Errors
    /// [`RoomError::Raced`] if one of them was changed meanwhile: nothing is done then.
    pub async fn empty_expired(
        &self,
        room: &RoomId,
        events: &[EventSid],
        mut batch: Batch,
    ) -> Result<usize, RoomError> {
        let guard = self.lock(room).await?;
        let inner = &self.inner;
        let head = &guard.head()?.row;
        let events = inner.events.get_many(&inner.store.view(), events).await?;
        let mut emptied = Vec::new();
        for event in events.into_iter().flatten() {
            if event.room != guard.room.sid || !may_be_emptied(&event, head) {
                continue;
            }
            let mut pdu = redact::redact(&event.pdu, &guard.room.rules)?;
            pdu.rejected = event.pdu.rejected;
            let empty = Event {
                pdu: Arc::new(pdu),
                tail: EventTail {
                    expired: true,
                    ..event.tail
                },
                ..(*event).clone()
            };
            batch.assert_equals(&schema::EVENTS, &event.sid, &event.row());
            batch.put(&schema::EVENTS, &event.sid, &empty.row());
            drop_relations(&mut batch, &event);
            let sid = event.sid;
            // So that the search index looks at it again.
            batch.put_at_position(&schema::PAST, move |position| ((position, sid), ()));
            emptied.push(Arc::new(empty));
        }
        let count = emptied.len();
        let settled = Arc::clone(inner);
        batch.then(move |_| {
            for event in emptied {
                settled.events.visible(event);
            }
        });
        let ticket = inner.store.submit(batch);
        drop(guard);
        ticket.committed().await?;
        Ok(count)
    }
}

/// Whether an event of the room may be emptied at all.
fn may_be_emptied(event: &Event, head: &HeadRow) -> bool {
    event.status == Status::Visible
        && event.pdu.state_key.is_none()
        && event.pdu.kind != TimelineEventType::RoomRedaction
        && !event.is_empty()
        && event.order != head.order
        && !head.extremities.iter().any(|(sid, _, _)| *sid == event.sid)
}

//! The one way by which an event becomes visible.
//!
//! [`RoomGuard::append`] turns an authorised event into one batch: the event, its place in both orders, the log row
//! that followers read, the room's head, and, if the current state changes, the new tree nodes, the delta, the flat index
//! and the memberships. The batch asserts the head it was built on. There is no loop over members, servers or pushers.
//!
//! - `changes`: what becomes of the current state and the memberships.
//! - `redaction`: what an event does to others: redactions and relations.
//! - `settle`: what happens in memory when the batch is visible, or has failed.
//!
//! What the event's own place and the new head are, `send`, `receive` and `import` have worked out before.

mod changes;
mod redaction;
mod settle;

use std::{collections::HashMap, sync::Arc};

use ruma::{OwnedEventId, events::StateEventType};
use vatra_store::{Batch, Ticket};

pub use self::changes::membership_of;
pub(super) use self::{
    changes::PendingMembership,
    redaction::{drop_relations, held_key},
};
use self::{changes::StateOf, settle::Settle};
use super::{Event, Head, RoomError, RoomGuard, TxnKey, event::Unrelated, state::Grown};
use crate::{
    event::pdu::Pdu,
    schema::{
        self, EventRow, EventSid, EventTail, GapRow, HeadRow, LogRow, RoomOrder, StateChange,
        StateRoot, Status, TxnRow, topic,
    },
};

/// Where an event goes: what `send`, `receive` and `import` have worked out before they append it.
pub(super) struct Placed {
    /// The event, authorised.
    pub(super) pdu: Pdu,
    /// Its number: a new one, or that of the outlier it was.
    pub(super) sid: EventSid,
    /// The state before it.
    pub(super) root_before: StateRoot,
    /// The state after it; needed of state events.
    pub(super) root_after: Option<StateRoot>,
    /// The state event before it that it replaces.
    pub(super) replaces: Option<EventSid>,
    /// What the next event builds on.
    pub(super) next: NextHead,
    /// What becomes of the current state: from the old head's root to the new one's.
    pub(super) changes: Vec<StateChange>,
    /// The changes are not all there are: the rest was written before (an import).
    pub(super) partly: bool,
    /// The nodes of all these states that are not stored yet.
    pub(super) nodes: Grown,
    /// The client transaction that made it.
    pub(super) txn: Option<TxnKey>,
    /// An event of another server's user that this server lets in and tells the others of.
    pub(super) relayed: bool,
    /// An event of a local user that another server has let in and tells the others of.
    pub(super) told: bool,
    /// Events before it that are not here.
    pub(super) missing: Vec<OwnedEventId>,
}

/// What the next event builds on.
pub(super) struct NextHead {
    /// The forward extremities: short id, event id, depth.
    pub(super) extremities: Vec<(EventSid, String, u64)>,
    /// The states after them, as far as known.
    pub(super) after: HashMap<EventSid, StateRoot>,
    /// The current state.
    pub(super) root: StateRoot,
}

impl RoomGuard {
    /// Appends an event and advances the head. Returns as soon as the batch is submitted; the ticket tells when it is
    /// durable and visible. Costs the same in a room of two and of a hundred thousand.
    pub(super) async fn append(
        &mut self,
        mut placed: Placed,
    ) -> Result<(Arc<Event>, Ticket), RoomError> {
        let old_row = self.head()?.row.clone();
        let changes = self
            .describe(
                &placed.changes,
                StateOf {
                    sid: placed.sid,
                    pdu: &placed.pdu,
                },
            )
            .await?;
        let held = self.held_redaction(&placed).await?;
        let event = Arc::new(self.event_of(&placed, &old_row, held.as_deref())?);
        let new_row = HeadRow {
            generation: old_row.generation + 1,
            extremities: placed.next.extremities,
            root: placed.next.root,
            order: event.order,
        };

        let mut batch = Batch::new();
        if old_row.extremities.is_empty() {
            batch.assert_absent(&schema::ROOM_HEADS, &self.room.sid);
        } else {
            batch.assert_equals(&schema::ROOM_HEADS, &self.room.sid, &old_row);
        }
        batch.put(&schema::ROOM_HEADS, &self.room.sid, &new_row);
        self.put_event(&mut batch, &event);
        self.put_gap(&mut batch, &event, &placed.missing);
        let nodes = placed.nodes.take();
        for (id, node) in &nodes {
            batch.put(&schema::STATE_NODES, id, node);
        }
        let facts = (!placed.partly).then_some(placed.changes);
        self.put_state(&mut batch, new_row.root, facts, &changes, event.sid);
        self.put_relation(&mut batch, &event).await?;
        let redacted = self.put_redaction(&mut batch, &event).await?;
        if let Some(txn) = &placed.txn {
            let key = txn.row_key();
            let event_id = event.pdu.event_id.to_string();
            batch.assert_absent(&schema::TRANSACTIONS, &key);
            batch.put(&schema::TRANSACTIONS, &key, &TxnRow { event_id });
        }
        if placed.relayed {
            batch.put(&schema::RELAYED, &event.sid, &());
        }
        if placed.told {
            batch.put(&schema::TOLD_ELSEWHERE, &event.sid, &());
        }
        batch.wake(topic::room(self.room.sid));
        if !changes.is_empty() {
            batch.wake(topic::state(self.room.sid));
        }
        for member in changes.iter().filter_map(|change| change.member.as_ref()) {
            batch.wake(topic::membership(member.user));
            batch.wake(topic::members(self.room.sid));
        }

        let inner = Arc::clone(&self.inner);
        inner.events.submitted(&event);
        let settle = Settle {
            event: Arc::clone(&event),
            redacted,
            nodes: nodes.iter().map(|(id, _)| *id).collect(),
            members: self.pending_members(&changes),
            poison: self.head()?.poison(),
            inner,
        };
        settle.attach(&mut batch);
        let ticket = self.inner.store.submit(batch);

        let head: &mut Head = self.head_mut()?;
        head.row = new_row;
        head.after = placed.next.after;
        for change in changes {
            if change.new == Some(event.sid) {
                head.state_changed(change.kind, change.key, Some(Arc::clone(&event)));
            } else {
                head.forget(&change.kind, &change.key);
            }
        }
        Ok((event, ticket))
    }

    fn event_of(
        &self,
        placed: &Placed,
        old: &HeadRow,
        held: Option<&Event>,
    ) -> Result<Event, RoomError> {
        let order = if old.extremities.is_empty() {
            RoomOrder::FIRST
        } else {
            old.order.next()
        };
        let mut pdu = placed.pdu.clone();
        if held.is_some() {
            pdu = crate::event::redact::redact(&pdu, &self.room.rules)?;
        }
        pdu.rejected = false;
        let transaction = placed.txn.as_ref();
        Ok(Event {
            sid: placed.sid,
            room: self.room.sid,
            version: self.room.version.clone(),
            pdu: Arc::new(pdu),
            status: Status::Visible,
            position: vatra_store::Position(0),
            order,
            root_before: placed.root_before,
            replaces: placed.replaces,
            redacted_by: held.map(|redaction| redaction.sid),
            transaction: transaction.map(|txn| (txn.user, txn.device.clone(), txn.id.clone())),
            tail: EventTail {
                root_after: placed.root_after,
                gapped: !placed.missing.is_empty(),
                expired: false,
            },
            unrelated: Unrelated::default(),
        })
    }

    /// The event itself, its place in both orders, and the log.
    fn put_event(&self, batch: &mut Batch, event: &Event) {
        let (room, sid, order) = (event.room, event.sid, event.order);
        batch.put(&schema::EVENT_SIDS, &event.pdu.event_id.to_string(), &sid);
        put_place(batch, event);
        let row = event.row();
        batch.put_at_position(&schema::EVENTS, move |position| {
            let EventRow { mut head, pdu } = row;
            head.position = position;
            (sid, EventRow { head, pdu })
        });
        let log = LogRow {
            room,
            event: sid,
            order,
        };
        batch.put_at_position(&schema::ROOM_LOG, move |position| ((room, position), log));
        batch.put_at_position(&schema::LOG, move |position| (position, log));
    }

    /// Writes down that events are missing before this one.
    fn put_gap(&self, batch: &mut Batch, event: &Event, missing: &[OwnedEventId]) {
        put_gap(batch, event, missing);
    }
}

/// Writes down where a visible event stands in its room: all there is to an event of the past, of which the log does not tell.
pub(super) fn put_place(batch: &mut Batch, event: &Event) {
    let (room, order) = (event.room, event.order);
    batch.put(&schema::TIMELINE, &(room, order), &event.sid);
    let sent: u64 = event.pdu.origin_server_ts.0.into();
    batch.put(&schema::EVENT_TIMES, &(room, sent, order), &event.sid);
}

/// Writes down which events are missing before one.
pub(super) fn put_gap(batch: &mut Batch, event: &Event, missing: &[OwnedEventId]) {
    if missing.is_empty() {
        return;
    }
    let row = GapRow {
        event: event.sid,
        missing: missing.iter().map(ToString::to_string).collect(),
    };
    for id in &row.missing {
        batch.put(&schema::MISSING, &(event.room, id.clone()), &event.order);
    }
    batch.put(&schema::GAPS, &(event.room, event.order), &row);
}

/// One key of the current state, ready for the batch.
pub(super) struct Change {
    kind: StateEventType,
    key: String,
    new: Option<EventSid>,
    member: Option<changes::MemberChange>,
}

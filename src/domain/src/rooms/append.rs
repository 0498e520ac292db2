//! The one way by which an event becomes visible.
//!
//! [`RoomGuard::append`] turns an authorised event into one batch: the event, its place in both orders, the log row
//! that followers read, the room's head, and, if the current state changes, the new tree nodes, the delta, the flat index
//! and the memberships. The batch asserts the head it was built on. There is no loop over members, servers or pushers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use ruma::events::{StateEventType, TimelineEventType, room::member::MembershipState};
use serde::Deserialize;
use vatra_store::{Batch, Position, Ticket};

use super::{Event, Head, Inner, RoomError, RoomGuard, TreeUpdate, TxnKey};
use crate::{
    event::{
        pdu::Pdu,
        redact,
        relation::{Relation, THREAD},
    },
    schema::{
        self, DeltaRow, EventRow, EventSid, HeadRow, LogRow, Membership, MembershipRow, NodeId,
        RelationRow, RoomOrder, RoomSid, StateChange, StateKeySid, StateRoot, Status, TxnRow,
        UserSid, topic,
    },
};

/// Where an event goes: what `send` and `receive` have worked out before they append it.
#[derive(Debug)]
pub struct Placed {
    /// The event, authorised.
    pub pdu: Pdu,
    /// The state before it.
    pub root_before: StateRoot,
    /// What becomes of the current state (for an event of our own: at most its own key).
    pub changes: Vec<StateChange>,
    /// The client transaction that made it.
    pub txn: Option<TxnKey>,
}

/// One key of the current state, ready for the batch.
struct Change {
    kind: StateEventType,
    key: String,
    old: Option<EventSid>,
    new: Option<EventSid>,
    member: Option<MemberChange>,
}

struct MemberChange {
    user: UserSid,
    old: Option<PendingMembership>,
    new: PendingMembership,
}

/// A membership row, maybe of a batch that is still on its way: its position is filled in when the batch gets one.
#[derive(Debug, Clone)]
pub(super) struct PendingMembership {
    membership: Membership,
    position: Arc<AtomicU64>,
    joined_until: Arc<AtomicU64>,
}

impl PendingMembership {
    /// The row, now that its batch has a position (and the batches before it have theirs).
    fn row(&self, before: Option<&Self>, event: EventSid, position: Position) -> MembershipRow {
        let same = before.filter(|before| before.membership == self.membership);
        let since = same.map_or(position, |before| {
            Position(before.position.load(Ordering::Acquire))
        });
        let joined_until = if self.membership == Membership::Join {
            MembershipRow::STILL
        } else {
            match before {
                Some(before) if before.membership == Membership::Join => position,
                Some(before) => Position(before.joined_until.load(Ordering::Acquire)),
                None => Position(0),
            }
        };
        self.position.store(since.0, Ordering::Release);
        self.joined_until.store(joined_until.0, Ordering::Release);
        MembershipRow {
            membership: self.membership,
            event,
            position: since,
            forgotten: false,
            joined_until,
        }
    }
}

#[derive(Deserialize)]
struct MemberContent {
    membership: MembershipState,
}

impl RoomGuard {
    /// Appends an event and advances the head. Returns as soon as the batch is submitted; the ticket tells when it is
    /// durable and visible. Costs the same in a room of two and of a hundred thousand.
    pub(super) async fn append(
        &mut self,
        sid: EventSid,
        placed: Placed,
    ) -> Result<(Arc<Event>, Ticket), RoomError> {
        let inner = Arc::clone(&self.inner);
        let view = inner.store.view();
        let head = self.head()?;
        let old_row = head.row.clone();
        let poison = head.poison();
        let own = StateOf {
            sid,
            pdu: &placed.pdu,
        };
        let sets: Vec<(StateKeySid, Option<EventSid>)> = placed
            .changes
            .iter()
            .map(|change| (change.key, change.new))
            .collect();
        let update = if sets.is_empty() {
            TreeUpdate {
                root: old_row.root,
                nodes: Vec::new(),
            }
        } else {
            inner.trees.update(&view, old_row.root, &sets).await?
        };
        let changes = self.describe(&placed.changes, own).await?;
        let replaces = placed.pdu.state_key.as_ref().and_then(|key| {
            let own_change = changes
                .iter()
                .find(|change| change.new == Some(sid) && change.key == *key);
            own_change.and_then(|change| change.old)
        });

        let order = if old_row.extremities.is_empty() {
            RoomOrder::FIRST
        } else {
            old_row.order.next()
        };
        let event = Event {
            sid,
            room: self.room.sid,
            version: self.room.version.clone(),
            pdu: Arc::new(placed.pdu),
            status: Status::Visible,
            position: Position(0),
            order,
            root_before: placed.root_before,
            replaces,
            redacted_by: None,
            transaction: placed
                .txn
                .as_ref()
                .map(|txn| (txn.user, txn.device.clone(), txn.id.clone())),
        };
        let new_row = next_row(&old_row, &event, update.root);

        let mut batch = Batch::new();
        let creates = old_row.extremities.is_empty();
        if creates {
            batch.assert_absent(&schema::ROOM_HEADS, &self.room.sid);
        } else {
            batch.assert_equals(&schema::ROOM_HEADS, &self.room.sid, &old_row);
        }
        batch.put(&schema::ROOM_HEADS, &self.room.sid, &new_row);
        self.put_event(&mut batch, &event);
        self.put_state(&mut batch, &update, &placed.changes, &changes, sid);
        self.put_relation(&mut batch, &event).await?;
        let redacted = self.put_redaction(&mut batch, &event).await?;
        if let Some(txn) = &placed.txn {
            let key = txn.row_key();
            batch.assert_absent(&schema::TRANSACTIONS, &key);
            batch.put(
                &schema::TRANSACTIONS,
                &key,
                &TxnRow {
                    event_id: event.pdu.event_id.to_string(),
                },
            );
        }
        batch.wake(topic::room(self.room.sid));
        for member in changes.iter().filter_map(|change| change.member.as_ref()) {
            batch.wake(topic::membership(member.user));
        }

        let event = Arc::new(event);
        inner.trees.submitted(&update);
        inner.events.submitted(&event);
        let members = changes.iter().filter_map(|change| change.member.as_ref());
        let members: Vec<_> = members
            .map(|member| ((member.user, self.room.sid), member.new.clone()))
            .collect();
        for (key, new) in &members {
            inner.memberships.insert(*key, new.clone());
        }
        Settle {
            inner,
            event: Arc::clone(&event),
            redacted,
            nodes: update.node_ids(),
            members,
            poison,
        }
        .attach(&mut batch);
        let ticket = self.inner.store.submit(batch);
        self.advance(new_row, changes, &event)?;
        Ok((event, ticket))
    }

    /// The event itself, its place in both orders, and the log.
    fn put_event(&self, batch: &mut Batch, event: &Event) {
        let (room, sid, order) = (event.room, event.sid, event.order);
        batch.put(&schema::EVENT_SIDS, &event.pdu.event_id.to_string(), &sid);
        batch.put(&schema::TIMELINE, &(room, order), &sid);
        let sent: u64 = event.pdu.origin_server_ts.0.into();
        batch.put(&schema::EVENT_TIMES, &(room, sent, order), &sid);
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

    fn put_state(
        &self,
        batch: &mut Batch,
        update: &TreeUpdate,
        facts: &[StateChange],
        changes: &[Change],
        sid: EventSid,
    ) {
        if changes.is_empty() {
            return;
        }
        let room = self.room.sid;
        for (id, node) in &update.nodes {
            batch.put(&schema::STATE_NODES, id, node);
        }
        let delta = DeltaRow {
            root: update.root,
            changes: facts.to_vec(),
        };
        batch.put_at_position(&schema::STATE_DELTAS, move |position| {
            ((room, position), delta)
        });
        for change in changes {
            let key = (room, change.kind.to_string(), change.key.clone());
            match change.new {
                Some(event) => batch.put(&schema::CURRENT_STATE, &key, &event),
                None => batch.delete(&schema::CURRENT_STATE, &key),
            };
            if let Some(member) = &change.member {
                self.put_membership(batch, member, change.new.unwrap_or(sid));
            }
        }
    }

    fn put_membership(&self, batch: &mut Batch, member: &MemberChange, event: EventSid) {
        let (room, user, new) = (self.room.sid, member.user, member.new.clone());
        let old = member.old.as_ref().map(|row| row.membership);
        let membership = new.membership;
        if old != Some(membership) {
            if let Some(old) = old {
                batch.delete(&schema::ROOM_MEMBERS, &(room, old, user));
                batch.add(&schema::MEMBER_COUNTS, &(room, old), -1);
            }
            batch.add(&schema::MEMBER_COUNTS, &(room, membership), 1);
        }
        batch.put(&schema::ROOM_MEMBERS, &(room, membership, user), &event);
        let before = member.old.clone();
        batch.put_at_position(&schema::MEMBERSHIPS, move |position| {
            let row = new.row(before.as_ref(), event, position);
            ((user, room), row)
        });
    }

    async fn put_relation(&self, batch: &mut Batch, event: &Event) -> Result<(), RoomError> {
        let Some(Relation {
            rel_type,
            event_id,
            key,
            ..
        }) = Relation::of(&event.pdu)
        else {
            return Ok(());
        };
        if rel_type == THREAD {
            let place = (event.room, event.order);
            batch.put(&schema::THREAD_REPLIES, &place, &event_id.to_string());
        }
        let sender = self.inner.ids.intern_user(&event.pdu.sender).await?;
        let row = RelationRow {
            event: event.sid,
            rel_type,
            kind: event.pdu.kind.to_string(),
            sender,
            key,
        };
        batch.put(
            &schema::RELATIONS,
            &(event.room, event_id.to_string(), event.order),
            &row,
        );
        Ok(())
    }

    /// A redaction empties its target in the same batch. Returns the emptied event.
    async fn put_redaction(
        &self,
        batch: &mut Batch,
        event: &Event,
    ) -> Result<Option<Arc<Event>>, RoomError> {
        if event.pdu.kind != TimelineEventType::RoomRedaction {
            return Ok(None);
        }
        let Some(target) = event.pdu.redacts.as_ref() else {
            return Ok(None);
        };
        let view = self.inner.store.view();
        let Some(sid) = view.get(&schema::EVENT_SIDS, &target.to_string()).await? else {
            batch.put(
                &schema::HELD_REDACTIONS,
                &(event.room, target.to_string()),
                &event.sid,
            );
            return Ok(None);
        };
        let Some(target) = self.inner.events.get(&view, sid).await? else {
            return Ok(None);
        };
        if target.room != event.room || target.redacted_by.is_some() {
            return Ok(None);
        }
        let pdu = redact::redact(&target.pdu, &self.room.rules)?;
        let emptied = Event {
            sid,
            room: target.room,
            version: target.version.clone(),
            pdu: Arc::new(pdu),
            status: target.status,
            position: target.position,
            order: target.order,
            root_before: target.root_before,
            replaces: target.replaces,
            redacted_by: Some(event.sid),
            transaction: target.transaction.clone(),
        };
        batch.put(&schema::EVENTS, &sid, &emptied.row());
        if let Some(relation) = Relation::of(&target.pdu) {
            batch.delete(&schema::THREAD_REPLIES, &(target.room, target.order));
            batch.delete(
                &schema::RELATIONS,
                &(target.room, relation.event_id.to_string(), target.order),
            );
        }
        Ok(Some(Arc::new(emptied)))
    }

    /// Names the keys that change and works out what that means for memberships.
    async fn describe(
        &mut self,
        changes: &[StateChange],
        own: StateOf<'_>,
    ) -> Result<Vec<Change>, RoomError> {
        let mut described = Vec::with_capacity(changes.len());
        for change in changes {
            let name = self
                .inner
                .ids
                .state_key_name(change.key)
                .await?
                .ok_or(RoomError::UnknownEvent)?;
            let kind = StateEventType::from(name.0.as_str());
            let member = if kind == StateEventType::RoomMember {
                self.member_change(&name.1, change.new, &own).await?
            } else {
                None
            };
            described.push(Change {
                kind,
                key: name.1.clone(),
                old: change.old,
                new: change.new,
                member,
            });
        }
        Ok(described)
    }

    async fn member_change(
        &self,
        user: &str,
        new: Option<EventSid>,
        own: &StateOf<'_>,
    ) -> Result<Option<MemberChange>, RoomError> {
        let Ok(user) = ruma::UserId::parse(user) else {
            return Ok(None);
        };
        let user = self.inner.ids.intern_user(&user).await?;
        let view = self.inner.store.view();
        let new = match new {
            Some(sid) if sid == own.sid => membership_of(own.pdu),
            Some(sid) => self
                .inner
                .events
                .get(&view, sid)
                .await?
                .and_then(|event| membership_of(&event.pdu)),
            None => None,
        };
        let new = new.unwrap_or(Membership::Leave);
        let old = self.membership_before(user).await?;
        let new = PendingMembership {
            membership: new,
            position: Arc::default(),
            joined_until: Arc::default(),
        };
        Ok(Some(MemberChange { user, old, new }))
    }

    /// The membership row as of everything submitted under the room's lock.
    async fn membership_before(
        &self,
        user: UserSid,
    ) -> Result<Option<PendingMembership>, RoomError> {
        let key = (user, self.room.sid);
        if let Some(row) = self.inner.memberships.get(&key) {
            return Ok(Some(row.clone()));
        }
        let row = self
            .inner
            .store
            .view()
            .get(&schema::MEMBERSHIPS, &key)
            .await?;
        Ok(row.map(|row| PendingMembership {
            membership: row.membership,
            position: Arc::new(AtomicU64::new(row.position.0)),
            joined_until: Arc::new(AtomicU64::new(row.joined_until.0)),
        }))
    }

    fn advance(
        &mut self,
        row: HeadRow,
        changes: Vec<Change>,
        event: &Arc<Event>,
    ) -> Result<(), RoomError> {
        let head: &mut Head = self.head_mut()?;
        head.row = row;
        for change in changes {
            if change.new == Some(event.sid) {
                head.state_changed(change.kind, change.key, Some(Arc::clone(event)));
            } else {
                head.forget(&change.kind, &change.key);
            }
        }
        Ok(())
    }
}

/// What a member event says; `None` for other events and for what the spec does not know.
pub(super) fn membership_of(pdu: &Pdu) -> Option<Membership> {
    let content: MemberContent = pdu.content_as().ok()?;
    Membership::from_state(&content.membership)
}

/// The event being appended, whose content is not in the store yet.
struct StateOf<'a> {
    sid: EventSid,
    pdu: &'a Pdu,
}

fn next_row(old: &HeadRow, event: &Event, root: StateRoot) -> HeadRow {
    let prev = &event.pdu.prev_events;
    let mut extremities = old.extremities.clone();
    extremities.retain(|(_, id, _)| !prev.iter().any(|prev| prev == id.as_str()));
    extremities.push((event.sid, event.pdu.event_id.to_string(), event.pdu.depth));
    HeadRow {
        generation: old.generation + 1,
        extremities,
        root,
        order: event.order,
    }
}

/// What happens in memory when the batch is visible, or has failed.
struct Settle {
    inner: Arc<Inner>,
    event: Arc<Event>,
    redacted: Option<Arc<Event>>,
    nodes: Vec<NodeId>,
    members: Vec<((UserSid, RoomSid), PendingMembership)>,
    poison: Arc<AtomicBool>,
}

impl Settle {
    fn attach(self, batch: &mut Batch) {
        let done = Arc::new(self);
        let failed = Arc::clone(&done);
        batch.then(move |position| {
            done.settled();
            done.inner.events.visible(Arc::new(done.event.at(position)));
            if let Some(redacted) = &done.redacted {
                done.inner.events.visible(Arc::clone(redacted));
            }
        });
        batch.on_failure(move || {
            failed.poison.store(true, Ordering::Release);
            failed.settled();
            failed.inner.events.failed(failed.event.sid);
        });
    }

    fn settled(&self) {
        self.inner.trees.settled(&self.nodes);
        for (key, row) in &self.members {
            self.inner.memberships.remove_if(key, |_, newest| {
                Arc::ptr_eq(&newest.position, &row.position)
            });
        }
    }
}

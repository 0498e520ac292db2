//! What an appended event does to other events: a redaction empties its target, and a relation is listed.
//!
//! Redactions and their targets arrive in any order. One whose target is not here yet is written down in `HELD_REDACTIONS`; the
//! target is emptied when it arrives. From room version 3 on the auth rules let every redaction pass, and each server decides
//! whether to apply it: <https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions>

use std::sync::Arc;

use ruma::{
    EventId, ServerName,
    events::{StateEventType, TimelineEventType},
};
use vatra_store::Batch;

use super::{
    super::{Event, Inner, Room, RoomError, RoomGuard, power::power_levels},
    Placed,
};
use crate::{
    event::{
        pdu::Pdu,
        redact,
        relation::{Relation, THREAD},
    },
    schema::{self, RelationRow, StateRoot},
};

/// Under which key a redaction waits: one that has the power stands for the target itself, one that is good only if its sender's
/// server sent the target waits beside it.
pub(in super::super) fn held_key(target: &EventId, only_of: Option<&ServerName>) -> String {
    match only_of {
        Some(server) => format!("{target} {server}"),
        None => target.to_string(),
    }
}

impl Inner {
    /// Whether a state gives the power to redact the events of others.
    pub(in super::super) async fn may_redact_others(
        &self,
        room: &Room,
        root: StateRoot,
        redaction: &Pdu,
    ) -> Result<bool, RoomError> {
        let view = self.store.view();
        let create = self
            .state_at(&view, root, &StateEventType::RoomCreate, "")
            .await?;
        let Some(create) = create else {
            return Ok(false);
        };
        let levels = self
            .state_at(&view, root, &StateEventType::RoomPowerLevels, "")
            .await?;
        let levels = levels.as_ref().map(|event| &*event.pdu);
        let power = power_levels(&create.pdu, levels, &room.rules.authorization);
        Ok(power.is_ok_and(|power| power.user_can_redact_event_of_other(&redaction.sender)))
    }
}

impl RoomGuard {
    /// A redaction that was here before the event that it redacts.
    pub(super) async fn held_redaction(
        &self,
        placed: &Placed,
    ) -> Result<Option<Arc<Event>>, RoomError> {
        self.inner.held_redaction(self.room.sid, &placed.pdu).await
    }

    /// A redaction empties its target in the same batch. Returns the emptied event.
    pub(super) async fn put_redaction(
        &self,
        batch: &mut Batch,
        event: &Event,
    ) -> Result<Option<Arc<Event>>, RoomError> {
        self.inner.put_redaction(batch, &self.room, event).await
    }

    pub(super) async fn put_relation(
        &self,
        batch: &mut Batch,
        event: &Event,
    ) -> Result<(), RoomError> {
        self.inner.put_relation(batch, event).await
    }
}

impl Inner {
    /// What a redaction does to its target, in the batch that stores it. Returns the emptied event.
    pub(in super::super) async fn put_redaction(
        &self,
        batch: &mut Batch,
        room: &Room,
        event: &Event,
    ) -> Result<Option<Arc<Event>>, RoomError> {
        if event.redacted_by.is_some() {
            drop_held(batch, event);
        }
        if event.pdu.kind != TimelineEventType::RoomRedaction {
            return Ok(None);
        }
        let Some(target) = event.pdu.redacts.as_ref() else {
            return Ok(None);
        };
        let view = self.store.view();
        let found = self
            .events
            .by_ids(&view, std::slice::from_ref(target))
            .await?;
        let Some(target) = found.into_iter().next().flatten() else {
            // Of the past, one can be shown before its target is here; what it may do to it does not grow by that.
            let powerful = self
                .may_redact_others(room, event.root_before, &event.pdu)
                .await?;
            let server = event.pdu.sender.server_name();
            let key = (event.room, held_key(target, (!powerful).then_some(server)));
            batch.put(&schema::HELD_REDACTIONS, &key, &event.sid);
            return Ok(None);
        };
        let own = target.pdu.sender.server_name() == event.pdu.sender.server_name();
        if target.room != event.room || target.redacted_by.is_some() || target.sid == event.sid {
            return Ok(None);
        }
        let root = event.root_before;
        if !own && !self.may_redact_others(room, root, &event.pdu).await? {
            return Ok(None);
        }
        let mut pdu = redact::redact(&target.pdu, &room.rules)?;
        pdu.rejected = target.pdu.rejected;
        let emptied = Event {
            pdu: Arc::new(pdu),
            redacted_by: Some(event.sid),
            ..(*target).clone()
        };
        batch.put(&schema::EVENTS, &target.sid, &emptied.row());
        drop_relations(batch, &target);
        Ok(Some(Arc::new(emptied)))
    }
}

impl Inner {
    pub(in super::super) async fn held_redaction(
        &self,
        room: schema::RoomSid,
        pdu: &Pdu,
    ) -> Result<Option<Arc<Event>>, RoomError> {
        let view = self.store.view();
        let keys = [
            (room, held_key(&pdu.event_id, None)),
            (
                room,
                held_key(&pdu.event_id, Some(pdu.sender.server_name())),
            ),
        ];
        let held = view.get_many(&schema::HELD_REDACTIONS, &keys).await?;
        match held.into_iter().flatten().next() {
            Some(sid) => self.events.get(&view, sid).await,
            None => Ok(None),
        }
    }

    /// Lists what an event relates to.
    pub(in super::super) async fn put_relation(
        &self,
        batch: &mut Batch,
        event: &Event,
    ) -> Result<(), RoomError> {
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
        let sender = self.ids.intern_user(&event.pdu.sender).await?;
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
        batch.put(&schema::RELATED, &(event.room, event_id.to_string()), &());
        batch.wake(crate::schema::topic::relations(event.room));
        Ok(())
    }
}

/// What was emptied relates to nothing any more.
pub(in super::super) fn drop_relations(batch: &mut Batch, event: &Event) {
    if let Some(relation) = Relation::of(&event.pdu) {
        batch.delete(&schema::THREAD_REPLIES, &(event.room, event.order));
        let listed = (event.room, relation.event_id.to_string(), event.order);
        batch.delete(&schema::RELATIONS, &listed);
    }
}

/// The redaction has found its target.
fn drop_held(batch: &mut Batch, event: &Event) {
    let id = &event.pdu.event_id;
    for server in [None, Some(event.pdu.sender.server_name())] {
        let key = (event.room, held_key(id, server));
        batch.delete(&schema::HELD_REDACTIONS, &key);
    }
}

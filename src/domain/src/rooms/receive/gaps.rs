//! Gaps of the room order: where they are, what they wait for, and whether an event is of their past.

use std::{collections::BTreeSet, sync::Arc};

use ruma::{OwnedEventId, events::StateEventType};
use vatra_store::{Batch, Direction, Range};

use super::{
    super::{Room, RoomError},
    Gathered, ReceiveError, Receiver, Verdict,
};
use crate::{
    event::pdu::Pdu,
    schema::{self, GapRow, RoomOrder, Status},
};

impl Receiver {
    pub(super) async fn gap(
        &self,
        room: &Room,
        at: RoomOrder,
    ) -> Result<Option<GapRow>, ReceiveError> {
        let view = self.inner().store.view();
        Ok(view.get(&schema::GAPS, &(room.sid, at)).await?)
    }

    /// Whether an event is one that a gap waits for: then before which place it belongs.
    pub(super) async fn missing_place(
        &self,
        room: &Room,
        pdu: &Pdu,
    ) -> Result<Option<RoomOrder>, ReceiveError> {
        let view = self.inner().store.view();
        let key = (room.sid, pdu.event_id.to_string());
        Ok(view.get(&schema::MISSING, &key).await?)
    }

    /// An event arrives late that a gap waits for, with those before it, oldest first.
    pub(super) async fn fill_in(
        &self,
        room: &Arc<Room>,
        pdu: Pdu,
        between: Vec<Pdu>,
        gathered: &Gathered,
        before: RoomOrder,
    ) -> Result<Verdict, ReceiveError> {
        let id = pdu.event_id.clone();
        let events = between.into_iter().chain([pdu]).collect();
        self.fill(room, events, gathered, before).await?;
        let event = self.rooms.reader().event(room.sid, &id).await?;
        Ok(match event.map(|event| event.status) {
            Some(Status::Visible) => Verdict::Visible,
            Some(Status::Rejected) => Verdict::Rejected("it is forbidden where it stands".into()),
            Some(Status::SoftFailed) => Verdict::SoftFailed,
            Some(Status::Held) => Verdict::Held,
            Some(Status::Outlier) | None => return Err(ReceiveError::MissingAuth),
        })
    }

    /// Whether an event that this server knows for its content only is one of the past, which is not for the timeline's end: it is part
    /// of the current state, or comes before a gap, as far as one can tell.
    pub(super) async fn is_past(&self, room: &Room, pdu: &Pdu) -> Result<bool, ReceiveError> {
        let reader = self.rooms.reader();
        let Some(event) = reader.event(room.sid, &pdu.event_id).await? else {
            return Ok(false);
        };
        let Some(key) = event.pdu.state_key.as_deref() else {
            return Ok(false);
        };
        if event.status != Status::Outlier || self.missing_place(room, pdu).await?.is_some() {
            return Ok(false);
        }
        let kind = StateEventType::from(event.pdu.kind.to_string());
        let current = reader.state_event(room.sid, &kind, key).await?;
        if current.is_some_and(|current| current.sid == event.sid) {
            return Ok(true);
        }
        let gap = reader
            .view()
            .first(
                &schema::GAPS,
                Range::prefix(&(room.sid,)),
                Direction::Backward,
            )
            .await?;
        let Some((_, gap)) = gap else {
            return Ok(false);
        };
        let after = reader.event_by_sid(gap.event).await?;
        Ok(after.is_some_and(|after| event.pdu.depth < after.pdu.depth))
    }

    /// What a gap still waits for; if it is nothing, there is no gap any more.
    pub(super) async fn shrink_gap(&self, room: &Room, at: RoomOrder) -> Result<(), ReceiveError> {
        let inner = self.inner();
        let Some(gap) = self.gap(room, at).await? else {
            return Ok(());
        };
        let ids: Vec<OwnedEventId> = gap
            .missing
            .iter()
            .filter_map(|id| OwnedEventId::try_from(id.as_str()).ok())
            .collect();
        let open: BTreeSet<String> = self
            .unplaced(room, &ids)
            .await?
            .into_iter()
            .map(|id| id.to_string())
            .collect();
        let mut batch = Batch::new();
        for id in gap.missing.iter().filter(|id| !open.contains(*id)) {
            batch.delete(&schema::MISSING, &(room.sid, id.clone()));
        }
        if open.is_empty() {
            batch.delete(&schema::GAPS, &(room.sid, at));
        } else {
            let row = GapRow {
                event: gap.event,
                missing: open.into_iter().collect(),
            };
            batch.put(&schema::GAPS, &(room.sid, at), &row);
        }
        inner.store.write(batch).await.map_err(RoomError::from)?;
        Ok(())
    }
}

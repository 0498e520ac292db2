//! Questions about many events at once: one batched read for what is not in memory, and no future for each event.

use std::{collections::HashSet, sync::Arc};

use ruma::events::StateEventType;
use vatra_store::Position;

use super::{
    super::{Event, RoomError},
    Reader,
};
use crate::schema::{self, EventSid, RoomSid, StateRoot, topic};

impl Reader {
    /// One event of each of many states, in their order: one batched read, and none for what is in memory.
    pub async fn state_at_each(
        &self,
        roots: &[StateRoot],
        kind: &StateEventType,
        key: &str,
    ) -> Result<Vec<Option<Arc<Event>>>, RoomError> {
        // Neighbours in a room mostly share their state.
        let mut distinct: Vec<StateRoot> = roots.to_vec();
        distinct.dedup();
        let found = match self.inner.ids.state_key(&kind.to_string(), key).await? {
            Some(key) => {
                self.inner
                    .trees
                    .get_each(&self.view, &distinct, key)
                    .await?
            }
            None => vec![None; distinct.len()],
        };
        let mut sids: Vec<EventSid> = found.iter().flatten().copied().collect();
        sids.sort_unstable();
        sids.dedup();
        let events = self.events(&sids).await?;
        let event = |sid: EventSid| {
            let place = sids.binary_search(&sid).ok()?;
            events.get(place)?.clone()
        };
        let mut answers = Vec::with_capacity(roots.len());
        let mut states = distinct.into_iter().zip(found).peekable();
        for root in roots {
            while states.next_if(|(state, _)| state != root).is_some() {}
            answers.push(states.peek().and_then(|(_, sid)| event((*sid)?)));
        }
        Ok(answers)
    }

    /// Which of some events of a room others relate to (or did, before that was redacted). One batched read for those that
    /// nobody has asked about since something in the room was last related to.
    pub(in super::super) async fn related(
        &self,
        room: RoomSid,
        events: &[Arc<Event>],
    ) -> Result<HashSet<EventSid>, RoomError> {
        let topic = topic::relations(room);
        let server = self.inner.signer.server_name();
        let unknown: Vec<&Arc<Event>> = events
            .iter()
            .filter(|event| {
                // Nobody can relate to an event of this server before it is there; others may come in any order.
                let own = || event.pdu.sender.server_name() == server;
                let before = || Position(event.position.0.saturating_sub(1));
                let alone_at = event.unrelated.at().or_else(|| own().then(before));
                event.pdu.state_key.is_none()
                    && alone_at.is_none_or(|at| self.changed_since(topic, at))
            })
            .collect();
        let keys: Vec<(RoomSid, String)> = unknown
            .iter()
            .map(|event| (room, event.pdu.event_id.to_string()))
            .collect();
        let listed = self.view.get_many(&schema::RELATED, &keys).await?;
        let mut related = HashSet::new();
        for (event, listed) in unknown.into_iter().zip(listed) {
            match listed {
                Some(()) => {
                    related.insert(event.sid);
                }
                None => event.unrelated.note(self.watermark()),
            }
        }
        Ok(related)
    }
}

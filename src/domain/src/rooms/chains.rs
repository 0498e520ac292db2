//! Auth chains: the events that allow some events, and those that allow them, and so on. For other servers that ask.

use std::{collections::HashSet, sync::Arc};

use ruma::OwnedEventId;

use super::{Event, Reader, RoomError};
use crate::schema::RoomSid;

/// The most events of a chain.
const MOST: usize = 400_000;

impl Reader {
    /// The auth chain of some events, without these unless one allows another; one batched read for each generation.
    pub async fn auth_chain(
        &self,
        room: RoomSid,
        events: &[Arc<Event>],
    ) -> Result<Vec<Arc<Event>>, RoomError> {
        let mut seen: HashSet<OwnedEventId> = HashSet::new();
        let mut chain: Vec<Arc<Event>> = Vec::new();
        let mut generation: Vec<Arc<Event>> = events.to_vec();
        while !generation.is_empty() && chain.len() < MOST {
            let mut wanted = Vec::new();
            for event in &generation {
                for id in &event.pdu.auth_events {
                    if seen.insert(id.clone()) {
                        wanted.push(id.clone());
                    }
                }
            }
            generation = self
                .events_by_id(&wanted)
                .await?
                .into_iter()
                .flatten()
                .filter(|event| event.room == room)
                .collect();
            chain.extend(generation.iter().cloned());
        }
        Ok(chain)
    }

    /// Events by their ids, in the same order; one batched read.
    pub async fn events_by_id(
        &self,
        ids: &[OwnedEventId],
    ) -> Result<Vec<Option<Arc<Event>>>, RoomError> {
        self.inner.events.by_ids(&self.view, ids).await
    }
}

//! What becomes of events while this server shares no room with others: each is refused by its id, so that who sends them
//! learns that they were not taken.

use async_trait::async_trait;
use ruma::{RoomId, ServerName};
use serde_json::value::RawValue as RawJsonValue;

use super::transaction::{Receive, Received};
use crate::{event::check, rooms::Rooms};

/// Refuses events. In the rooms that are here no other server is; of rooms that are not here nothing can be said, since an
/// event's id cannot be made out without the room's version.
pub struct Unshared(pub Rooms);

#[async_trait]
impl Receive for Unshared {
    async fn receive(
        &self,
        _: &ServerName,
        room: &RoomId,
        events: Vec<Box<RawJsonValue>>,
    ) -> Vec<Received> {
        let Ok(Some(room)) = self.0.reader().room(room).await else {
            return Vec::new();
        };
        let read = |event: Box<RawJsonValue>| check::read(event.get().as_bytes(), &room.rules);
        let read = events.into_iter().filter_map(|event| read(event).ok());
        read.map(|(_, pdu)| {
            let refusal = "no other server is in that room".to_owned();
            (Some(pdu.event_id), Err(refusal))
        })
        .collect()
    }
}

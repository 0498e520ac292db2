//! What follows when another server's events have become part of a room here: a room that was replaced takes its members' settings along,
//! also of those who came to the new room before the old one's end was told.

use async_trait::async_trait;
use ruma::{RoomId, ServerName};
use serde_json::value::RawValue as RawJsonValue;

use super::settings;
use crate::{
    federation::{
        Federation,
        transaction::{Receive, Received},
    },
    rooms::Rooms,
    users::Users,
};

/// Takes events as [`Federation`] does, and does what follows.
pub struct Receiving {
    /// Takes the events.
    pub federation: Federation,
    /// Rooms.
    pub rooms: Rooms,
    /// Whose settings go over.
    pub users: Users,
}

#[async_trait]
impl Receive for Receiving {
    async fn receive(
        &self,
        origin: &ServerName,
        room: &RoomId,
        events: Vec<Box<RawJsonValue>>,
    ) -> Vec<Received> {
        let ends = events
            .iter()
            .any(|event| event.get().contains("m.room.tombstone"));
        let received = self.federation.receive(origin, room, events).await;
        if ends && let Err(error) = settings::replaced(&self.users, &self.rooms, room).await {
            tracing::warn!(%room, %error, "settings do not go over to a room's replacement");
        }
        received
    }
}

//! Takes guests out of rooms that let no guests in any more.
//!
//! Where there are no guests at all, an event costs one small read a page; where there are, one a row, and the room's members are read only when
//! its `m.room.guest_access` changes. <https://spec.matrix.org/v1.19/client-server-api/#guest-access>

use async_trait::async_trait;
use ruma::events::StateEventType;
use vatra_store::{Batch, Direction, Position, Range};

use super::{FollowError, Follower};
use crate::{
    flows::{FlowError, guests},
    rooms::{Reader, RoomError, Rooms},
    schema::{self, LogRow, Membership, RoomSid},
};

/// Its name among the followers.
const NAME: &str = "guests";
/// How many members of a room are looked up at a time.
const PAGE: usize = 1_000;

/// The follower.
pub struct Guests {
    rooms: Rooms,
}

impl Guests {
    /// One that has not begun: start it with [`super::run`].
    pub fn new(rooms: Rooms) -> Self {
        Self { rooms }
    }

    /// Takes the guests out of a room, if it lets none in.
    async fn leave(&self, reader: &Reader, room: RoomSid) -> Result<(), FollowError> {
        let Some(known) = reader.room_by_sid(room).await? else {
            return Ok(());
        };
        let members = reader.members(room, Membership::Join, usize::MAX).await?;
        for page in members.chunks(PAGE) {
            let users: Vec<_> = page.iter().map(|(user, _)| *user).collect();
            let guests = reader.view().get_many(&schema::GUESTS, &users).await?;
            for (user, guest) in users.into_iter().zip(guests) {
                let Some(user) = reader.user_id(user).await?.filter(|_| guest.is_some()) else {
                    continue;
                };
                match guests::leave(&self.rooms, &known.id, &user).await {
                    // Who is banned meanwhile is out already.
                    Ok(()) | Err(FlowError::Room(RoomError::Forbidden(_))) => {}
                    Err(FlowError::Room(error)) => return Err(error.into()),
                    Err(error) => {
                        tracing::warn!(%error, room = %known.id, %user, "a guest stays in a room");
                    }
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Follower for Guests {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn follow(&self, page: &[(Position, LogRow)], _: &mut Batch) -> Result<(), FollowError> {
        let reader = self.rooms.reader();
        let first = reader
            .view()
            .first(&schema::GUESTS, Range::all(), Direction::Forward);
        if first.await?.is_none() {
            return Ok(());
        }
        let access = StateEventType::RoomGuestAccess.to_string();
        for (position, row) in page {
            let changes = reader.state_changes(row.room, *position).await?;
            for change in changes.unwrap_or_default() {
                let name = reader.state_key_name(change.key).await?;
                if name.is_some_and(|name| name.0 == access && name.1.is_empty()) {
                    self.leave(&reader, row.room).await?;
                }
            }
        }
        Ok(())
    }

    async fn stored(&self, _: &[(Position, LogRow)]) {}
}

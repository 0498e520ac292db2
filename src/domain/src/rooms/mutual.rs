//! The rooms that two users share.

use std::collections::BTreeSet;

use ruma::OwnedRoomId;

use super::{Reader, RoomError};
use crate::schema::{Membership, RoomSid, UserSid};

/// A page of rooms that two users share.
#[derive(Debug)]
pub struct MutualRooms {
    /// All of them together.
    pub count: usize,
    /// The rooms of this page.
    pub rooms: Vec<OwnedRoomId>,
    /// The last of the page, if there are more.
    pub next: Option<RoomSid>,
}

impl Reader {
    /// The rooms in which two users are joined, after one of them, at most `limit`. Reads the memberships of both.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn mutual_rooms(
        &self,
        (one, other): (UserSid, UserSid),
        after: Option<RoomSid>,
        limit: usize,
    ) -> Result<MutualRooms, RoomError> {
        let theirs = self.joined_rooms(other).await?;
        let own = self.joined_rooms(one).await?;
        let shared: Vec<RoomSid> = own.intersection(&theirs).copied().collect();
        let from = shared.partition_point(|room| after.is_some_and(|after| *room <= after));
        let page: Vec<_> = shared.iter().skip(from).take(limit).copied().collect();
        let more = shared.len().saturating_sub(from) > page.len();
        let mut rooms = Vec::with_capacity(page.len());
        for room in &page {
            rooms.extend(self.room_by_sid(*room).await?.map(|room| room.id.clone()));
        }
        Ok(MutualRooms {
            count: shared.len(),
            rooms,
            next: page.last().copied().filter(|_| more),
        })
    }

    async fn joined_rooms(&self, user: UserSid) -> Result<BTreeSet<RoomSid>, RoomError> {
        let rooms = self.rooms_of(user).await?.into_iter();
        let joined = rooms.filter(|(_, row)| row.membership == Membership::Join);
        Ok(joined.map(|(room, _)| room).collect())
    }
}

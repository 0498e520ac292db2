//! Which servers are in a room. The counters follow the memberships, in the same batch.

use ruma::{OwnedEventId, OwnedServerName, RoomId, ServerName};
use vatra_store::{Direction, Range};

use super::{Reader, RoomError, Rooms};
use crate::schema::{self, Membership, RoomSid};

impl Reader {
    /// Whether a server has a joined user in a room; `None` asks for this server. Two reads at most.
    pub async fn server_is_in(
        &self,
        room: RoomSid,
        server: Option<&ServerName>,
    ) -> Result<bool, RoomError> {
        let own = self.server_name();
        let other = server.filter(|server| *server != own);
        let name = other.map(ToString::to_string).unwrap_or_default();
        let count = self
            .view()
            .get(&schema::JOINED_SERVERS, &(room, name))
            .await?;
        let count = count.unwrap_or(0);
        if other.is_some() {
            return Ok(count > 0);
        }
        // Users of this server are those who are not counted as others.
        let everyone = self.member_count(room, Membership::Join).await?;
        Ok(i64::try_from(everyone).unwrap_or(i64::MAX) > count)
    }

    /// Other servers in a room, in the order of their names.
    pub async fn other_servers(
        &self,
        room: RoomSid,
        limit: usize,
    ) -> Result<Vec<OwnedServerName>, RoomError> {
        let range = Range::prefix(&(room,));
        let view = self.view();
        let rows = view
            .range(
                &schema::JOINED_SERVERS,
                range,
                Direction::Forward,
                usize::MAX,
            )
            .await?;
        let there = rows.into_iter().filter(|(_, count)| *count > 0);
        Ok(there
            .filter_map(|((_, server), _)| ServerName::parse(server).ok())
            .take(limit)
            .collect())
    }
}

impl Rooms {
    /// The room's forward extremities, as of everything submitted.
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`] when this server has no such room.
    pub async fn extremities(&self, room: &RoomId) -> Result<Vec<OwnedEventId>, RoomError> {
        Ok(self.lock(room).await?.head()?.prev_events())
    }
}

//! Which event stands nearest to a moment, for a server that asks on behalf of its users.
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1timestamp_to_eventroomid>

use ruma::{MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, ServerName};
use vatra_store::Direction;

use super::{Federation, FederationError, access::Sight};

/// How many events that the server may not see are passed at most.
const PASSED: usize = 1_000;
/// How many are read at once.
const READ: usize = 50;

impl Federation {
    /// The first event at or after a moment (`Forward`), or the last at or before it (`Backward`), of those that the server may
    /// see, and when it was sent. `ts` is in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`FederationError::Unknown`] if there is none; as [`Federation::event`].
    pub async fn event_at(
        &self,
        origin: &ServerName,
        room: &RoomId,
        ts: u64,
        direction: Direction,
    ) -> Result<(OwnedEventId, MilliSecondsSinceUnixEpoch), FederationError> {
        let (reader, room) = self.shared(origin, room).await?;
        let mut sight = Sight::new(&reader, &room, origin);
        let (mut after, mut passed) = (None, 0);
        while passed < PASSED {
            let rows = reader.times(room.sid, ts, after, direction, READ).await?;
            let done = rows.len() < READ;
            passed += rows.len();
            after = rows.last().map(|(place, _)| *place);
            let sids: Vec<_> = rows.into_iter().map(|(_, sid)| sid).collect();
            for event in reader.events(&sids).await?.into_iter().flatten() {
                if sight.is_whole(&event).await? {
                    return Ok((event.pdu.event_id.clone(), event.pdu.origin_server_ts));
                }
            }
            if done {
                break;
            }
        }
        Err(FederationError::Unknown("event"))
    }
}

//! The event of a room that stands nearest to a moment.
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event>

use std::sync::Arc;

use vatra_store::Direction;

use super::{Event, Reader, Room, RoomError, visible::Viewer};
use crate::schema::RoomOrder;

/// How many events that the viewer may not see are passed at most.
const PASSED: usize = 2_000;
/// How many are read at once.
const READ: usize = 50;

/// The first event at or after a moment (`Forward`), or the last at or before it (`Backward`), that the viewer may see. Of
/// events of one millisecond, the one that stands first or last in the room. `ts` is in milliseconds since the Unix epoch;
/// `newest` is the first place of the room that is not for the viewer any more.
pub async fn at_time(
    reader: &Reader,
    viewer: &Viewer,
    room: &Arc<Room>,
    newest: RoomOrder,
    ts: u64,
    direction: Direction,
) -> Result<Option<Arc<Event>>, RoomError> {
    let mut after = None;
    let mut passed = 0;
    while passed < PASSED {
        let rows = reader.times(room.sid, ts, after, direction, READ).await?;
        let done = rows.len() < READ;
        passed += rows.len();
        after = rows.last().map(|(place, _)| *place);
        let sids: Vec<_> = rows
            .into_iter()
            .filter(|((_, order), _)| *order < newest)
            .map(|(_, sid)| sid)
            .collect();
        let events: Vec<_> = reader.events(&sids).await?.into_iter().flatten().collect();
        let visible = viewer.visible(reader, room, &events).await?;
        let found = events
            .into_iter()
            .zip(visible)
            .find(|(_, visible)| *visible);
        if let Some((event, _)) = found {
            return Ok(Some(event));
        }
        if done {
            return Ok(None);
        }
    }
    Ok(None)
}

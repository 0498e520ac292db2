//! Reading back over a gap: other servers are asked for what is missing before a page is read.

use std::{ops::Bound, sync::Arc, time::Duration};

use vatra_store::{Direction, Range};

use super::FlowError;
use crate::{
    rooms::{Room, RoomError, receive::Receiver},
    schema::{self, RoomOrder},
};

/// How often a gap is filled a bit more for one page.
const ROUNDS: usize = 4;
/// How long someone waits for that.
const PATIENCE: Duration = Duration::from_secs(20);

/// Fills what is missing among the `limit` events before a place of the room order, as far as other servers tell in time.
/// Costs two reads when nothing is missing there.
///
/// # Errors
/// The store's.
pub async fn before(
    receiver: &Receiver,
    room: &Arc<Room>,
    from: RoomOrder,
    limit: usize,
) -> Result<(), FlowError> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    for _ in 0..ROUNDS {
        let reader = receiver.rooms().reader();
        let low = (room.sid, RoomOrder(0));
        let range = Range::between(Bound::Included(&low), Bound::Included(&(room.sid, from)));
        let gap = reader
            .view()
            .first(&schema::GAPS, range, Direction::Backward)
            .await?;
        let Some(((_, gap), _)) = gap else {
            return Ok(());
        };
        let (lower, upper) = (Bound::Included(gap), Bound::Excluded(from));
        let between = reader
            .timeline(room.sid, lower, upper, Direction::Backward, limit)
            .await?;
        if between.len() >= limit {
            return Ok(());
        }
        if !reader.server_is_in(room.sid, None).await? {
            return Ok(());
        }
        let filled = tokio::time::timeout_at(deadline, receiver.backfill(room, gap)).await;
        match filled {
            Ok(Ok(0)) | Err(_) => return Ok(()),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                let error: FlowError = error.into();
                if matches!(error, FlowError::Room(RoomError::Store(_))) {
                    return Err(error);
                }
                tracing::info!(room = %room.id, %error, "a gap cannot be filled");
                return Ok(());
            }
        }
    }
    Ok(())
}

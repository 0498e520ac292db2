//! What people report to the server's admins: events, rooms and users.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#reporting-content>. A report is a row; how many a person has and how long
//! its reason is are bounded.

use ruma::{EventId, RoomId, UserId};
use vatra_store::{Batch, Direction, Range};

use super::FlowError;
use crate::{
    rooms::{Room, RoomError, Rooms},
    schema::{self, ReportRow, Reported},
    users::{Requester, Users},
};

/// How long a reason may be, in bytes.
const REASON: usize = 16_384;
/// How many reports of one person are kept.
const MANY: usize = 1_000;

/// Keeps a report of an event that the reporter may see; whether they may is the caller's affair.
pub async fn event(
    users: &Users,
    rooms: &Rooms,
    by: &Requester,
    (room, event): (&Room, &EventId),
    reason: Option<String>,
) -> Result<(), FlowError> {
    let about = Reported::Event {
        room: room.id.to_string(),
        event: event.to_string(),
    };
    keep(users, rooms, by, about, reason).await
}

/// Keeps a report of a room.
///
/// # Errors
/// [`RoomError::UnknownEvent`] for a room that this server does not have.
pub async fn room(
    users: &Users,
    rooms: &Rooms,
    by: &Requester,
    room: &RoomId,
    reason: Option<String>,
) -> Result<(), FlowError> {
    if rooms.reader().room(room).await?.is_none() {
        return Err(RoomError::UnknownEvent.into());
    }
    let about = Reported::Room(room.to_string());
    keep(users, rooms, by, about, reason).await
}

/// Keeps a report of a user. One that this server does not have is not kept, and the reporter does not learn of it.
pub async fn user(
    users: &Users,
    rooms: &Rooms,
    by: &Requester,
    user: &UserId,
    reason: Option<String>,
) -> Result<(), FlowError> {
    if users.find(user.as_str()).await?.is_none() {
        return Ok(());
    }
    let about = Reported::User(user.to_string());
    keep(users, rooms, by, about, reason).await
}

async fn keep(
    users: &Users,
    rooms: &Rooms,
    by: &Requester,
    about: Reported,
    reason: Option<String>,
) -> Result<(), FlowError> {
    let reason = reason.unwrap_or_default();
    if reason.len() > REASON {
        return Err(FlowError::InvalidParam(format!(
            "the reason has more than {REASON} bytes"
        )));
    }
    let store = rooms.store();
    let own = Range::prefix(&(by.sid,));
    let view = store.view();
    let old = view.range(&schema::REPORTS, own, Direction::Forward, MANY);
    let old = old.await?;
    let mut batch = Batch::new();
    // The oldest gives way.
    if let Some((oldest, _)) = old.first().filter(|_| old.len() >= MANY) {
        batch.delete(&schema::REPORTS, oldest);
    }
    let row = ReportRow {
        about,
        reason,
        ts: users.clock().now(),
    };
    let key = (by.sid, store.fresh_id()?);
    batch.put(&schema::REPORTS, &key, &row);
    store.write(batch).await?;
    Ok(())
}

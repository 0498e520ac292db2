//! Which users of a service are in which room: rows that follow the changes of the rooms' state, as the service's cursor passes them.
//!
//! Whether an event is for a service is then one small read, however many users it has and however large the room is.

use std::collections::BTreeMap;

use vatra_store::{Batch, Direction, Position, Range};

use super::super::FollowError;
use crate::{
    appservice::Service,
    rooms::{Reader, Rooms},
    schema::{self, Membership, RoomSid, UserSid},
};

/// How many accounts are read at a time.
const ACCOUNTS: usize = 200;
/// How many rows are written with one batch.
const ROWS: usize = 1_000;

/// Writes the rows of a service anew, from the memberships of all local users. Costs a small read for each account.
pub(super) async fn write_all(rooms: &Rooms, service: &Service) -> Result<(), FollowError> {
    let store = rooms.store();
    let mut batch = Batch::new();
    let old = Range::prefix(&(service.id.clone(),));
    batch.delete_range(&schema::SERVICE_MEMBERS, old);
    let (mut rows, mut range) = (0, Range::all());
    loop {
        let reader = rooms.reader();
        let accounts = reader
            .view()
            .range(&schema::ACCOUNTS, range, Direction::Forward, ACCOUNTS)
            .await?;
        let Some((last, _)) = accounts.last() else {
            break;
        };
        range = Range::all().after(last);
        for (sid, _) in accounts {
            let user = reader.user_id(sid).await?;
            if user.is_none_or(|user| !service.has_user(&user)) {
                continue;
            }
            for (room, row) in reader.rooms_of(sid).await? {
                if row.membership == Membership::Join {
                    let key = (service.id.clone(), room, sid);
                    batch.put(&schema::SERVICE_MEMBERS, &key, &());
                    rows += 1;
                }
            }
        }
        if rows >= ROWS {
            store.write(std::mem::take(&mut batch)).await?;
            rows = 0;
        }
    }
    store.write(batch).await?;
    Ok(())
}

/// The rows while a page of the log is entered.
pub(super) struct Book<'a> {
    service: &'a Service,
    reader: &'a Reader,
    /// Who came (or went) within the page.
    changed: BTreeMap<(RoomSid, UserSid), bool>,
}

impl<'a> Book<'a> {
    pub(super) fn open(service: &'a Service, reader: &'a Reader) -> Self {
        Self {
            service,
            reader,
            changed: BTreeMap::new(),
        }
    }

    /// Enters what a position changed in a room.
    pub(super) async fn turn(&mut self, room: RoomSid, at: Position) -> Result<(), FollowError> {
        for turn in self.reader.member_turns(room, at).await? {
            if self.service.has_user(&turn.user)
                && let Some(sid) = self.reader.user_sid(&turn.user).await?
            {
                let joined = self.reader.is_join_event(turn.new).await?;
                self.changed.insert((room, sid), joined);
            }
        }
        Ok(())
    }

    /// Whether one of the service's users is in a room.
    pub(super) async fn is_in(&self, room: RoomSid) -> Result<bool, FollowError> {
        let of_room = (room, UserSid(0))..=(room, UserSid(u64::MAX));
        let changed: Vec<_> = self.changed.range(of_room).collect();
        if changed.iter().any(|(_, joined)| **joined) {
            return Ok(true);
        }
        // One more than have gone: if so many are written, one of them is still there.
        let range = Range::prefix(&(self.service.id.clone(), room));
        let rows = self
            .reader
            .view()
            .range(
                &schema::SERVICE_MEMBERS,
                range,
                Direction::Forward,
                changed.len() + 1,
            )
            .await?;
        let mut rows = rows.into_iter().map(|((_, _, user), ())| user);
        Ok(rows.any(|user| !self.changed.contains_key(&(room, user))))
    }

    /// Writes down what has changed.
    pub(super) fn close(self, batch: &mut Batch) {
        for ((room, user), joined) in self.changed {
            let key = (self.service.id.clone(), room, user);
            if joined {
                batch.put(&schema::SERVICE_MEMBERS, &key, &());
            } else {
                batch.delete(&schema::SERVICE_MEMBERS, &key);
            }
        }
    }
}

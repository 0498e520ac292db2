//! Which users with pushers are in which room: [`schema::SUBSCRIBED`].
//!
//! The follower enters joins and leaves position by position; the rooms in which a user is already when they set their first pusher
//! are entered once, from a view that is newer than the pusher, so that the follower, which reads the log no earlier than it is written,
//! misses none between. A row too many (the user has left just then, or has no pusher any more) does no harm: it is
//! found when the room is next looked at, and goes.

use std::collections::{BTreeMap, BTreeSet};

use vatra_store::{Batch, CommitError, Direction, Range};

use super::super::FollowError;
use crate::{
    rooms::{Reader, Rooms},
    schema::{self, Membership, RoomSid, UserSid},
};

/// How many new subscribers are entered at a time.
const PAGE: usize = 20;

/// The book while a page of the log is entered.
pub(super) struct Book<'a> {
    reader: &'a Reader,
    rooms: BTreeMap<RoomSid, BTreeSet<UserSid>>,
    changed: BTreeMap<(RoomSid, UserSid), bool>,
}

impl<'a> Book<'a> {
    pub(super) fn open(reader: &'a Reader) -> Self {
        Self {
            reader,
            rooms: BTreeMap::new(),
            changed: BTreeMap::new(),
        }
    }

    /// The users with pushers in a room. One read, the first time.
    pub(super) async fn room(&mut self, room: RoomSid) -> Result<&BTreeSet<UserSid>, FollowError> {
        Ok(self.page(room).await?)
    }

    /// Someone has come or gone.
    pub(super) async fn enter(
        &mut self,
        room: RoomSid,
        user: UserSid,
        there: bool,
    ) -> Result<(), FollowError> {
        let page = self.page(room).await?;
        let changed = if there {
            page.insert(user)
        } else {
            page.remove(&user)
        };
        if changed {
            self.changed.insert((room, user), there);
        }
        Ok(())
    }

    /// Writes down what has changed.
    pub(super) fn close(self, batch: &mut Batch) {
        for (key, there) in self.changed {
            if there {
                batch.put(&schema::SUBSCRIBED, &key, &());
            } else {
                batch.delete(&schema::SUBSCRIBED, &key);
            }
        }
    }

    async fn page(&mut self, room: RoomSid) -> Result<&mut BTreeSet<UserSid>, FollowError> {
        use std::collections::btree_map::Entry;
        match self.rooms.entry(room) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let range = Range::prefix(&(room,));
                let view = self.reader.view();
                let rows = view
                    .range(&schema::SUBSCRIBED, range, Direction::Forward, usize::MAX)
                    .await?;
                let users = rows.into_iter().map(|((_, user), ())| user).collect();
                Ok(unknown.insert(users))
            }
        }
    }
}

/// Enters the rooms of some new subscribers; says whether there may be more.
pub(super) async fn enter_new(rooms: &Rooms) -> Result<bool, FollowError> {
    let reader = rooms.reader();
    let view = reader.view();
    let range = Range::prefix(&(RoomSid(0),));
    let rows = view
        .range(&schema::SUBSCRIBED, range, Direction::Forward, PAGE)
        .await?;
    for (key, ()) in &rows {
        let user = key.1;
        let mut batch = Batch::new();
        for (room, row) in reader.rooms_of(user).await? {
            if row.membership == Membership::Join {
                batch.put(&schema::SUBSCRIBED, &(room, user), &());
            }
        }
        batch.assert_equals(&schema::SUBSCRIBED, key, &());
        batch.delete(&schema::SUBSCRIBED, key);
        match rooms.store().write(batch).await {
            // The pushers are gone again.
            Ok(_) | Err(CommitError::AssertFailed) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(rows.len() == PAGE)
}

//! Memberships without a room: a local user is invited to a room that this server is not in, knocks there, or is done with that.
//!
//! The member event is stored for its content only; what the user may know of the room is kept beside the membership until they
//! join, or are told of another.

use std::sync::Arc;

use ruma::{OwnedServerName, RoomId, RoomVersionId, UserId, events::StateEventType};
use serde_json::value::RawValue as RawJsonValue;
use vatra_store::{Batch, CommitError};

use super::{
    Event, Reader, Room, RoomError, Rooms,
    append::{PendingMembership, membership_of},
    receive::outliers::outlier,
};
use crate::{
    event::pdu::Pdu,
    schema::{
        self, EventSid, Membership, OutsideLogRow, OutsideRow, RoomRow, RoomSid, UserSid, topic,
    },
};

/// State that says what a room is, for those outside. <https://spec.matrix.org/v1.19/client-server-api/#stripped-state>
pub const STRIPPED: [&str; 9] = [
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
    "m.room.history_visibility",
    "m.room.tombstone",
];

/// What is known of a room from outside.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    /// Stripped state events.
    pub state: Vec<Box<RawJsonValue>>,
    /// Servers that are in the room.
    pub servers: Vec<OwnedServerName>,
}

impl Rooms {
    /// A room that this server has heard of: it gets a number, and nothing else.
    ///
    /// # Errors
    /// [`RoomError::UnsupportedVersion`], also if it is known to be of another version.
    pub async fn heard_of(
        &self,
        id: &RoomId,
        version: &RoomVersionId,
    ) -> Result<Arc<Room>, RoomError> {
        loop {
            let view = self.inner.store.view();
            if let Some(room) = self.inner.room(&view, id).await? {
                if room.version != *version {
                    return Err(RoomError::UnsupportedVersion);
                }
                return Ok(room);
            }
            let sid = RoomSid(self.inner.store.fresh_id()?);
            let room = Arc::new(Room::new(sid, id.to_owned(), version.as_str())?);
            let row = RoomRow {
                room_id: id.to_string(),
                version: version.to_string(),
            };
            let mut batch = Batch::new();
            batch.assert_absent(&schema::ROOM_SIDS, &row.room_id);
            batch.put(&schema::ROOM_SIDS, &row.room_id, &sid);
            batch.put(&schema::ROOMS, &sid, &row);
            match self.inner.store.write(batch).await {
                Ok(_) => {
                    self.inner.remember(&room);
                    return Ok(room);
                }
                Err(CommitError::AssertFailed) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sets the membership of a local user of a room that this server is not in. The event was checked, or is this server's own.
    ///
    /// # Errors
    /// [`RoomError::Raced`] if this server is in the room by now: then the room decides.
    pub async fn set_outside(
        &self,
        room: &Arc<Room>,
        user: &UserId,
        pdu: Pdu,
        outside: Option<Outside>,
    ) -> Result<(), RoomError> {
        let inner = &self.inner;
        let membership = membership_of(&pdu).unwrap_or(Membership::Leave);
        let user = inner.ids.intern_user(user).await?;
        // Memberships change under the room's lock, whether or not it has a head.
        let guard = self.claim(Arc::clone(room)).await;
        if self.reader().server_is_in(room.sid, None).await? {
            return Err(RoomError::Raced);
        }
        let view = inner.store.view();
        let ids = std::slice::from_ref(&pdu.event_id);
        let known = inner.events.by_ids(&view, ids).await?;
        let mut batch = Batch::new();
        let sid = match known.into_iter().flatten().next() {
            Some(event) if event.room != room.sid => return Err(RoomError::UnknownEvent),
            Some(event) => event.sid,
            None => {
                let sid = EventSid(inner.store.fresh_id()?);
                let event = outlier(room, sid, pdu);
                let id = event.pdu.event_id.to_string();
                batch.put(&schema::EVENT_SIDS, &id, &sid);
                batch.put(&schema::EVENTS, &sid, &event.row());
                sid
            }
        };
        let before = guard.membership_before(user).await?;
        let new = PendingMembership::new(membership);
        let old = before.as_ref().map(PendingMembership::membership);
        if old != Some(membership) {
            if let Some(old) = old {
                batch.delete(&schema::ROOM_MEMBERS, &(room.sid, old, user));
                batch.add(&schema::MEMBER_COUNTS, &(room.sid, old), -1);
            }
            batch.add(&schema::MEMBER_COUNTS, &(room.sid, membership), 1);
        }
        batch.put(&schema::ROOM_MEMBERS, &(room.sid, membership, user), &sid);
        let key = (user, room.sid);
        match outside {
            Some(outside) => batch.put(&schema::OUTSIDE, &key, &row_of(outside)),
            None => batch.delete(&schema::OUTSIDE, &key),
        };
        batch.put_at_position(&schema::MEMBERSHIPS, move |position| {
            // Told again is told anew: the position moves, though the membership is the same.
            let mut row = new.row(before.as_ref(), sid, position);
            row.position = position;
            (key, row)
        });
        if membership == Membership::Invite {
            // It stands in no log: who notifies finds it here.
            let room = room.sid;
            batch.put_at_position(&schema::OUTSIDE_INVITES, move |position| {
                ((position, user), room)
            });
            batch.wake(topic::outside_invites());
        }
        let log = OutsideLogRow {
            user,
            room: room.sid,
            event: sid,
        };
        batch.put_at_position(&schema::OUTSIDE_LOG, move |position| (position, log));
        batch.wake(topic::membership(user));
        batch.wake(topic::room(room.sid));
        let ticket = inner.store.submit(batch);
        let committed = ticket.committed().await;
        drop(guard);
        committed?;
        Ok(())
    }
}

fn row_of(outside: Outside) -> OutsideRow {
    OutsideRow {
        state: outside
            .state
            .iter()
            .map(|raw| raw.get().to_owned())
            .collect(),
        servers: outside.servers.iter().map(ToString::to_string).collect(),
    }
}

impl Reader {
    /// The events of the current state that someone outside may know.
    pub async fn stripped_state(&self, room: RoomSid) -> Result<Vec<Arc<Event>>, RoomError> {
        let mut state = Vec::new();
        for kind in STRIPPED {
            state.extend(
                self.state_event(room, &StateEventType::from(kind), "")
                    .await?,
            );
        }
        Ok(state)
    }

    /// What a local user was told of a room that this server is not in.
    pub async fn outside(
        &self,
        user: UserSid,
        room: RoomSid,
    ) -> Result<Option<Outside>, RoomError> {
        let row = self.view().get(&schema::OUTSIDE, &(user, room)).await?;
        Ok(row.map(|row| Outside {
            state: row
                .state
                .into_iter()
                .filter_map(|json| RawJsonValue::from_string(json).ok())
                .collect(),
            servers: row
                .servers
                .into_iter()
                .filter_map(|server| OwnedServerName::try_from(server).ok())
                .collect(),
        }))
    }
}

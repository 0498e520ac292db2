//! Whose keys a client must fetch anew, and of whom it will hear nothing more.
//!
//! That a user's keys changed is a fact with a position ([`crate::e2ee`]); who must hear of it follows from the rooms that two
//! users share, before and after. Everything is worked out from one view and from the rooms' states at both ends, so that it is the
//! same whenever it is asked, also after a restart. <https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user>

use std::collections::BTreeSet;

use ruma::OwnedUserId;
use vatra_store::Position;

use super::{
    super::{SyncError, response::DeviceLists},
    Providers,
};
use crate::{
    rooms::{Reader, RoomError, visible::Viewer},
    schema::{self, Membership, MembershipRow, RoomSid, UserSid, topic},
};

type Memberships = [(RoomSid, MembershipRow)];

/// Users by what became of the rooms shared with them.
#[derive(Default)]
struct Met {
    /// They share a room that was not shared before.
    newly: BTreeSet<UserSid>,
    /// A room is not shared with them any more; another may be.
    parted: BTreeSet<UserSid>,
}

impl Providers {
    /// What changed after `since`, up to the reader's position. When nothing did this costs a comparison of integers a room.
    pub(in crate::sync) async fn device_lists(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        since: Position,
        memberships: &Memberships,
    ) -> Result<DeviceLists, SyncError> {
        let upto = reader.watermark();
        let view = reader.view();
        let keys_changed = self.e2ee.changed_between(view, since, upto).await?;
        let signed = self
            .e2ee
            .signed_between(view, viewer.sid, since, upto)
            .await?;
        let moved = self.anyone_moved(since, memberships);
        if keys_changed.is_empty() && signed.is_empty() && !moved {
            return Ok(DeviceLists::default());
        }
        // Those at hand may be newer than the reader.
        let rooms = reader.rooms_of(viewer.sid).await?;
        let met = if moved {
            met(reader, viewer, since, &rooms).await?
        } else {
            Met::default()
        };
        let mut changed: BTreeSet<UserSid> = met.newly;
        for user in keys_changed.into_iter().chain(signed) {
            if user == viewer.sid || shares(reader, user, &rooms).await? {
                changed.insert(user);
            }
        }
        let mut left = met.parted;
        left.remove(&viewer.sid);
        keep_unshared(reader, &mut left, &rooms).await?;
        Ok(DeviceLists {
            changed: names(reader, &changed).await?,
            left: names(reader, &left).await?,
        })
    }

    /// Everyone whose devices a client may be tracking: for a token that says nothing about this store.
    pub(in crate::sync) async fn all_device_lists(
        &self,
        reader: &Reader,
        viewer: &Viewer,
    ) -> Result<DeviceLists, SyncError> {
        let mut changed = BTreeSet::from([viewer.sid]);
        for (room, row) in reader.rooms_of(viewer.sid).await? {
            if row.membership == Membership::Join {
                changed.extend(joined(reader, room).await?);
            }
        }
        Ok(DeviceLists {
            changed: names(reader, &changed).await?,
            left: Vec::new(),
        })
    }

    /// Whether the viewer or someone in their rooms may have come or gone.
    fn anyone_moved(&self, since: Position, memberships: &Memberships) -> bool {
        memberships.iter().any(|(room, row)| {
            let joined = row.membership == Membership::Join;
            let store = self.rooms.store();
            row.position > since || (joined && store.changed_since(topic::members(*room), since))
        })
    }
}

/// Compares who was in the viewer's rooms at `since` with who is in them now.
async fn met(
    reader: &Reader,
    viewer: &Viewer,
    since: Position,
    rooms: &Memberships,
) -> Result<Met, RoomError> {
    let mut met = Met::default();
    for (room, row) in rooms {
        let is = row.membership == Membership::Join;
        let was = if is && row.position <= since {
            true
        } else if row.joined_until <= since {
            false
        } else {
            reader.was_joined(*room, &viewer.user, since).await?
        };
        if !is && !was {
            continue;
        }
        if !was {
            // The viewer among them: their other devices may be new to whoever is in the room.
            met.newly.extend(joined(reader, *room).await?);
            continue;
        }
        let mut still: BTreeSet<UserSid> = if is {
            BTreeSet::new()
        } else {
            joined(reader, *room).await?.into_iter().collect()
        };
        let changes = reader
            .member_changes(*room, since, reader.watermark())
            .await?;
        for change in changes {
            let Some(user) = reader.user_sid(&change.user).await? else {
                continue;
            };
            match (change.joined, is) {
                (false, _) => {
                    met.parted.insert(user);
                }
                (true, true) => {
                    met.newly.insert(user);
                }
                // Came into a room that the viewer has left: was never met there.
                (true, false) => {
                    still.remove(&user);
                }
            }
        }
        met.parted.extend(still);
    }
    Ok(met)
}

async fn joined(reader: &Reader, room: RoomSid) -> Result<Vec<UserSid>, RoomError> {
    let members = reader.members(room, Membership::Join, usize::MAX).await?;
    Ok(members.into_iter().map(|(user, _)| user).collect())
}

/// Whether a user is in one of the viewer's rooms.
async fn shares(reader: &Reader, user: UserSid, rooms: &Memberships) -> Result<bool, RoomError> {
    let theirs = reader.rooms_of(user).await?;
    let theirs: BTreeSet<RoomSid> = theirs
        .into_iter()
        .filter(|(_, row)| row.membership == Membership::Join)
        .map(|(room, _)| room)
        .collect();
    let mut mine = rooms
        .iter()
        .filter(|(_, row)| row.membership == Membership::Join);
    Ok(mine.any(|(room, _)| theirs.contains(room)))
}

/// Removes the users who are in one of the viewer's rooms. Costs as much a room as the smaller of both sides is large.
async fn keep_unshared(
    reader: &Reader,
    users: &mut BTreeSet<UserSid>,
    rooms: &Memberships,
) -> Result<(), RoomError> {
    for (room, row) in rooms {
        if users.is_empty() {
            return Ok(());
        }
        if row.membership != Membership::Join {
            continue;
        }
        let size = reader.member_count(*room, Membership::Join).await?;
        if size <= u64::try_from(users.len()).unwrap_or(u64::MAX) {
            for user in joined(reader, *room).await? {
                users.remove(&user);
            }
            continue;
        }
        let keys: Vec<_> = users
            .iter()
            .map(|user| (*room, Membership::Join, *user))
            .collect();
        let found = reader.view().get_many(&schema::ROOM_MEMBERS, &keys).await?;
        for ((_, _, user), found) in keys.into_iter().zip(found) {
            if found.is_some() {
                users.remove(&user);
            }
        }
    }
    Ok(())
}

async fn names(reader: &Reader, users: &BTreeSet<UserSid>) -> Result<Vec<OwnedUserId>, RoomError> {
    let mut names = Vec::with_capacity(users.len());
    for user in users {
        names.extend(reader.user_id(*user).await?);
    }
    Ok(names)
}

//! The providers: what is new for one user between two positions, by section of the answer.
//!
//! - here: which rooms have anything to say.
//! - `joined`: a joined or left room. `summary`: who is in it. `stripped`: what an invited or knocking user may know.
//! - `user`: what is of no room: account data and presence. `to_device`: what is a device's own.
//! - `device_lists`: whose keys changed, of those one shares a room with.

mod device_lists;
mod joined;
mod stripped;
mod summary;
mod to_device;
mod user;

use std::sync::Arc;

use vatra_store::Position;

pub(in crate::sync) use self::to_device::MESSAGES;
use super::{
    SyncError,
    lazy::Round,
    request::SyncRequest,
    response::{InvitedRoom, KnockedRoom, RoomsSection},
};
use crate::{
    e2ee::E2ee,
    rooms::{Reader, Room, Rooms, ephemeral::Ephemeral, unread::Unreads, visible::Viewer},
    schema::{Membership, MembershipRow, RoomSid, topic},
    users::Users,
};

/// Between what the client knows and what it will know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span<'a> {
    /// `None`: the client knows nothing.
    pub(super) since: Option<Position>,
    pub(super) upto: Position,
    pub(super) full_state: bool,
    /// Which members the client has been sent.
    pub(super) round: &'a Round,
}

impl Span<'_> {
    fn is_new(&self, position: Position) -> bool {
        self.since.is_none_or(|since| position > since)
    }
}

/// The parts that the sections are read from.
pub struct Providers {
    /// Rooms.
    pub rooms: Rooms,
    /// Account data and profiles.
    pub users: Users,
    /// Keys and messages to devices.
    pub e2ee: E2ee,
    /// Typing, receipts and presence.
    pub ephemeral: Ephemeral,
    /// Unread counts.
    pub unreads: Unreads,
}

impl Providers {
    pub(super) async fn rooms(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        request: &SyncRequest,
        span: Span<'_>,
        memberships: &[(RoomSid, MembershipRow)],
    ) -> Result<RoomsSection, SyncError> {
        let mut section = RoomsSection::default();
        for (sid, row) in memberships {
            // A membership of after the view belongs to the next answer.
            if row.position > span.upto {
                continue;
            }
            match row.membership {
                Membership::Join => {
                    if !self.joined_changed(*sid, row, span) {
                        continue;
                    }
                    let Some(room) = self.wanted(reader, *sid, request).await? else {
                        continue;
                    };
                    if let Some(joined) = self
                        .joined(reader, viewer, request, span, &room, row)
                        .await?
                    {
                        section.join.insert(room.id.clone(), joined);
                    }
                }
                Membership::Invite if span.is_new(row.position) => {
                    if self.is_unwelcome(reader, viewer, row).await? {
                        continue;
                    }
                    let Some(room) = self.wanted(reader, *sid, request).await? else {
                        continue;
                    };
                    let invite_state = self.stripped(reader, &room, viewer, row).await?;
                    section
                        .invite
                        .insert(room.id.clone(), InvitedRoom { invite_state });
                }
                Membership::Knock if span.is_new(row.position) => {
                    let Some(room) = self.wanted(reader, *sid, request).await? else {
                        continue;
                    };
                    let knock_state = self.stripped(reader, &room, viewer, row).await?;
                    section
                        .knock
                        .insert(room.id.clone(), KnockedRoom { knock_state });
                }
                Membership::Leave | Membership::Ban => {
                    let asked = match span.since {
                        Some(since) => {
                            row.position > since
                                || (span.full_state && request.filter.room.include_leave)
                        }
                        None => request.filter.room.include_leave,
                    };
                    // The other devices of one who forgets a room at once still learn that it was left.
                    let news = span.since.is_some_and(|since| row.position > since);
                    if !asked || row.forgotten && !news {
                        continue;
                    }
                    let Some(room) = self.wanted(reader, *sid, request).await? else {
                        continue;
                    };
                    let left = self.left(reader, viewer, request, span, &room, row).await?;
                    section.leave.insert(room.id.clone(), left);
                }
                Membership::Invite | Membership::Knock => {}
            }
        }
        Ok(section)
    }

    /// Whether an invite comes from someone whom the user ignores, or the user wants none at all.
    async fn is_unwelcome(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        row: &MembershipRow,
    ) -> Result<bool, SyncError> {
        if self.users.blocks_invites(viewer.sid).await? {
            return Ok(true);
        }
        let ignored = self.users.ignored(viewer.sid).await?;
        if ignored.is_empty() {
            return Ok(false);
        }
        let invite = reader.event_by_sid(row.event).await?;
        Ok(invite.is_some_and(|invite| ignored.contains(&invite.pdu.sender)))
    }

    /// Whether anything at all may be new in a joined room: a comparison of integers.
    fn joined_changed(&self, room: RoomSid, row: &MembershipRow, span: Span<'_>) -> bool {
        let Some(since) = span.since else { return true };
        span.full_state
            || row.position > since
            || self.rooms.store().changed_since(topic::room(room), since)
    }

    /// The room, unless the filter leaves it out.
    async fn wanted(
        &self,
        reader: &Reader,
        sid: RoomSid,
        request: &SyncRequest,
    ) -> Result<Option<Arc<Room>>, SyncError> {
        let Some(room) = reader.room_by_sid(sid).await? else {
            return Ok(None);
        };
        let filter = &request.filter.room;
        let listed = filter
            .rooms
            .as_ref()
            .is_none_or(|rooms| rooms.contains(&room.id));
        Ok((listed && !filter.not_rooms.contains(&room.id)).then_some(room))
    }
}

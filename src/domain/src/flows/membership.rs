//! Coming and going: each is one member event; what is allowed, the auth rules say.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-membership>

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, RoomAliasId, RoomId, UserId,
    events::TimelineEventType,
};
use serde_json::json;
use vatra_store::{Batch, CommitError};

use super::{FlowError, content, guests, server_notices::may_refuse};
use crate::{
    event::build::Draft,
    rooms::{RoomError, Rooms, receive::Receiver, restricted::Vouching},
    schema::{self, Membership, UserSid, topic},
    users::{Requester, Users},
};

/// What a member event says: the membership, the name and picture of the user, and why.
pub async fn member_content(
    users: &Users,
    user: UserSid,
    membership: &str,
    reason: Option<&str>,
) -> Result<CanonicalJsonObject, FlowError> {
    let mut member = content(json!({ "membership": membership }))?;
    let profile = users.profile(user).await?;
    for field in ["displayname", "avatar_url"] {
        if let Some(value) = profile.get(field).and_then(|value| value.as_str()) {
            member.insert(
                field.to_owned(),
                CanonicalJsonValue::String(value.to_owned()),
            );
        }
    }
    if let Some(reason) = reason {
        member.insert(
            "reason".to_owned(),
            CanonicalJsonValue::String(reason.to_owned()),
        );
    }
    Ok(member)
}

/// Whether the content of a member event says that its user is in the room.
pub(super) fn is_join(member: &CanonicalJsonObject) -> bool {
    let membership = member.get("membership");
    membership.and_then(CanonicalJsonValue::as_str) == Some("join")
}

/// Adds what a client says with its member event, which replaces nothing that this server or the auth rules say there.
pub(super) fn add_to(member: &mut CanonicalJsonObject, more: CanonicalJsonObject) {
    let reserved = [
        "join_authorised_via_users_server",
        "third_party_invite",
        "third_party_signed",
    ];
    for (field, value) in more {
        if !reserved.contains(&field.as_str()) {
            member.entry(field).or_insert(value);
        }
    }
}

/// A membership of someone, set by someone.
pub struct Change<'a> {
    /// Who sets it.
    pub by: &'a Requester,
    /// Whose it is.
    pub of: &'a UserId,
    /// In which room.
    pub room: &'a RoomId,
    /// Why.
    pub reason: Option<&'a str>,
}

impl Change<'_> {
    /// Sends the member event.
    pub async fn to(
        &self,
        users: &Users,
        receiver: &Receiver,
        membership: &str,
    ) -> Result<(), FlowError> {
        self.to_with(users, receiver, membership, CanonicalJsonObject::new())
            .await
    }

    /// The same with what the client adds to the member event; see [`add_to`].
    pub(super) async fn to_with(
        &self,
        users: &Users,
        receiver: &Receiver,
        membership: &str,
        more: CanonicalJsonObject,
    ) -> Result<(), FlowError> {
        let known = if membership == "join" || membership == "invite" || membership == "knock" {
            users.find(self.of.as_str()).await?
        } else {
            None
        };
        let mut member = match known {
            Some((_, sid)) => member_content(users, sid, membership, self.reason).await?,
            None => content(json!({ "membership": membership }))?,
        };
        if let Some(reason) = self.reason {
            member.insert(
                "reason".to_owned(),
                CanonicalJsonValue::String(reason.to_owned()),
            );
        }
        if membership == "join"
            && let Some(voucher) = voucher(receiver.rooms(), self.room, self.of).await?
        {
            let key = "join_authorised_via_users_server".to_owned();
            member.insert(key, CanonicalJsonValue::String(voucher));
        }
        add_to(&mut member, more);
        self.send(receiver, member).await
    }

    /// Lifts a ban.
    pub async fn unban(&self, users: &Users, receiver: &Receiver) -> Result<(), FlowError> {
        if self.current(receiver.rooms()).await? != Some(Membership::Ban) {
            return Err(FlowError::BadState(format!("{} is not banned", self.of)));
        }
        self.to(users, receiver, "leave").await
    }

    /// Throws someone out who is in, invited or knocking.
    pub async fn kick(&self, users: &Users, receiver: &Receiver) -> Result<(), FlowError> {
        match self.current(receiver.rooms()).await? {
            Some(Membership::Join | Membership::Invite | Membership::Knock) => {
                if self.of == self.by.user {
                    let reader = receiver.rooms().reader();
                    let room = reader.room(self.room).await?;
                    let room = room.ok_or(RoomError::UnknownRoom)?;
                    may_refuse(&reader, self.by.sid, room.sid).await?;
                }
                self.to(users, receiver, "leave").await
            }
            _ => Err(RoomError::Forbidden(format!("{} is not in the room", self.of)).into()),
        }
    }

    async fn current(&self, rooms: &Rooms) -> Result<Option<Membership>, FlowError> {
        let reader = rooms.reader();
        let room = reader
            .room(self.room)
            .await?
            .ok_or(RoomError::UnknownRoom)?;
        let Some(sid) = reader.user_sid(self.of).await? else {
            return Ok(None);
        };
        Ok(reader
            .membership(sid, room.sid)
            .await?
            .map(|row| row.membership))
    }

    async fn send(
        &self,
        receiver: &Receiver,
        content: CanonicalJsonObject,
    ) -> Result<(), FlowError> {
        let draft = Draft {
            sender: self.by.user.clone(),
            kind: TimelineEventType::RoomMember,
            state_key: Some(self.of.to_string()),
            content,
            redacts: None,
        };
        if self.by.guest && self.of == self.by.user && is_join(&draft.content) {
            guests::join(receiver, self.room, draft).await?;
        } else {
            receiver.send_one(self.room, draft, None).await?;
        }
        Ok(())
    }
}

/// Where a local alias points.
pub async fn alias_target(
    rooms: &Rooms,
    alias: &RoomAliasId,
) -> Result<Option<OwnedRoomId>, FlowError> {
    let row = rooms
        .store()
        .view()
        .get(&schema::ALIASES, &alias.to_string())
        .await?;
    Ok(row.and_then(|row| RoomId::parse(row.room).ok()))
}

/// For restricted rooms: a user of this server who vouches that someone may join.
async fn voucher(rooms: &Rooms, room: &RoomId, user: &UserId) -> Result<Option<String>, FlowError> {
    let reader = rooms.reader();
    let room = reader.room(room).await?.ok_or(RoomError::UnknownRoom)?;
    Ok(match reader.vouching(&room, user).await? {
        Vouching::By(by) => Some(by.to_string()),
        _ => None,
    })
}

/// Forgets a room that was left.
pub async fn forget(rooms: &Rooms, user: UserSid, room: &RoomId) -> Result<(), FlowError> {
    let reader = rooms.reader();
    let room = reader.room(room).await?.ok_or(RoomError::UnknownRoom)?;
    loop {
        let old = rooms
            .store()
            .view()
            .get(&schema::MEMBERSHIPS, &(user, room.sid))
            .await?;
        let Some(old) = old.filter(|row| !row.forgotten) else {
            return Ok(());
        };
        if !matches!(old.membership, Membership::Leave | Membership::Ban) {
            return Err(FlowError::StillThere);
        }
        let mut new = old;
        new.forgotten = true;
        let mut batch = Batch::new();
        batch.assert_equals(&schema::MEMBERSHIPS, &(user, room.sid), &old);
        batch.put(&schema::MEMBERSHIPS, &(user, room.sid), &new);
        batch.wake(topic::membership(user));
        match rooms.store().write(batch).await {
            Err(CommitError::AssertFailed) => {}
            other => return other.map(|_| ()).map_err(Into::into),
        }
    }
}

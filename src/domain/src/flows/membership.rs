//! Coming and going: each is one member event; what is allowed, the auth rules say.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-membership>

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, RoomAliasId, RoomId, RoomOrAliasId,
    UserId,
    events::{StateEventType, TimelineEventType},
};
use serde::Deserialize;
use serde_json::json;
use vatra_store::{Batch, CommitError};

use super::{FlowError, content, settings};
use crate::{
    event::build::Draft,
    rooms::{Reader, Room, RoomError, Rooms},
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
        rooms: &Rooms,
        membership: &str,
    ) -> Result<(), FlowError> {
        self.to_with(users, rooms, membership, CanonicalJsonObject::new())
            .await
    }

    async fn to_with(
        &self,
        users: &Users,
        rooms: &Rooms,
        membership: &str,
        mut more: CanonicalJsonObject,
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
            && let Some(authoriser) = authoriser(rooms, self.room, self.by).await?
        {
            let key = "join_authorised_via_users_server".to_owned();
            member.insert(key, CanonicalJsonValue::String(authoriser));
        }
        for reserved in [
            "join_authorised_via_users_server",
            "third_party_invite",
            "third_party_signed",
        ] {
            more.remove(reserved);
        }
        more.append(&mut member);
        self.send(rooms, more).await
    }

    /// Joins, unless the user is in the room already. `more` is what the client adds to the member event; it replaces
    /// nothing that this server or the auth rules say there.
    pub async fn join(
        &self,
        users: &Users,
        rooms: &Rooms,
        more: CanonicalJsonObject,
    ) -> Result<(), FlowError> {
        let reader = rooms.reader();
        let room = reader
            .room(self.room)
            .await?
            .ok_or(RoomError::UnknownRoom)?;
        if reader.is_joined(self.by.sid, room.sid).await? {
            return Ok(());
        }
        self.to_with(users, rooms, "join", more).await?;
        settings::joined(users, rooms, self.by.sid, &room).await
    }

    /// Lifts a ban.
    pub async fn unban(&self, users: &Users, rooms: &Rooms) -> Result<(), FlowError> {
        if self.current(rooms).await? != Some(Membership::Ban) {
            return Err(FlowError::BadState(format!("{} is not banned", self.of)));
        }
        self.to(users, rooms, "leave").await
    }

    /// Throws someone out who is in, invited or knocking.
    pub async fn kick(&self, users: &Users, rooms: &Rooms) -> Result<(), FlowError> {
        match self.current(rooms).await? {
            Some(Membership::Join | Membership::Invite | Membership::Knock) => {
                self.to(users, rooms, "leave").await
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

    async fn send(&self, rooms: &Rooms, content: CanonicalJsonObject) -> Result<(), FlowError> {
        let draft = Draft {
            sender: self.by.user.clone(),
            kind: TimelineEventType::RoomMember,
            state_key: Some(self.of.to_string()),
            content,
            redacts: None,
        };
        rooms.send_one(self.room, draft, None).await?;
        Ok(())
    }
}

/// For restricted rooms: a member who may invite and vouches that the user is in one of the allowed rooms.
/// <https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms>
async fn authoriser(
    rooms: &Rooms,
    room: &RoomId,
    user: &Requester,
) -> Result<Option<String>, FlowError> {
    #[derive(Deserialize)]
    struct Rules {
        join_rule: String,
        #[serde(default)]
        allow: Vec<Allow>,
    }
    #[derive(Deserialize)]
    struct Allow {
        room_id: Option<OwnedRoomId>,
    }
    let reader = rooms.reader();
    let room = reader.room(room).await?.ok_or(RoomError::UnknownRoom)?;
    let Some(event) = reader
        .state_event(room.sid, &StateEventType::RoomJoinRules, "")
        .await?
    else {
        return Ok(None);
    };
    let Ok(rules) = event.pdu.content_as::<Rules>() else {
        return Ok(None);
    };
    let restricted = rules.join_rule == "restricted" || rules.join_rule == "knock_restricted";
    let invited = reader.membership(user.sid, room.sid).await?;
    if !restricted
        || invited
            .is_some_and(|row| matches!(row.membership, Membership::Invite | Membership::Join))
    {
        return Ok(None);
    }
    for allowed in rules.allow.into_iter().filter_map(|allow| allow.room_id) {
        if let Some(allowed) = reader.room(&allowed).await?
            && reader.is_joined(user.sid, allowed.sid).await?
        {
            return who_may_invite(&reader, &room).await;
        }
    }
    Ok(None)
}

async fn who_may_invite(reader: &Reader, room: &Room) -> Result<Option<String>, FlowError> {
    let power = reader.power_levels(room).await?;
    for (member, _) in reader.members(room.sid, Membership::Join, 10_000).await? {
        if let Some(member) = reader.user_id(member).await?
            && power.user_can_invite(&member)
        {
            return Ok(Some(member.to_string()));
        }
    }
    Ok(None)
}

/// The room that an alias or id of this server means.
pub async fn resolve(rooms: &Rooms, name: &RoomOrAliasId) -> Result<OwnedRoomId, FlowError> {
    match RoomId::parse(name.as_str()) {
        Ok(room) => Ok(room),
        Err(_) => {
            let alias = RoomAliasId::parse(name.as_str())
                .map_err(|error| FlowError::BadRequest(error.to_string()))?;
            alias_target(rooms, &alias)
                .await?
                .ok_or(FlowError::UnknownAlias)
        }
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

/// Leaves, refusing an invite or withdrawing a knock if that is what there is. Leaving twice is no error.
pub async fn leave(
    users: &Users,
    rooms: &Rooms,
    user: &Requester,
    room: &RoomId,
    reason: Option<&str>,
) -> Result<(), FlowError> {
    let reader = rooms.reader();
    let known = reader.room(room).await?.ok_or(RoomError::UnknownRoom)?;
    match reader
        .membership(user.sid, known.sid)
        .await?
        .map(|row| row.membership)
    {
        Some(Membership::Leave) => Ok(()),
        Some(_) => {
            Change {
                by: user,
                of: &user.user,
                room,
                reason,
            }
            .to(users, rooms, "leave")
            .await
        }
        None => Err(RoomError::Forbidden("you are not in that room".to_owned()).into()),
    }
}

/// Leaves every room: for an account that ends.
pub async fn leave_all(users: &Users, rooms: &Rooms, user: &Requester) -> Result<(), FlowError> {
    let reader = rooms.reader();
    for (sid, row) in reader.rooms_of(user.sid).await? {
        if matches!(row.membership, Membership::Leave | Membership::Ban) {
            continue;
        }
        if let Some(room) = reader.room_by_sid(sid).await? {
            leave(users, rooms, user, &room.id, None).await?;
        }
    }
    Ok(())
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

//! Coming and going, and who is there. <https://spec.matrix.org/v1.19/client-server-api/#room-membership>

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use ruma::{
    CanonicalJsonObject, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, RoomOrAliasId, UserId,
    api::client::membership::{
        ban_user::v3 as ban_user, forget_room::v3 as forget_room, joined_rooms::v3 as joined_rooms,
        kick_user::v3 as kick_user, leave_room::v3 as leave_room, unban_user::v3 as unban_user,
    },
    events::{TimelineEventType, room::member::MembershipState},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use vatra_domain::{
    flows::{
        appservices::{look_for_alias, look_for_user},
        invite::Invite,
        join::{Join, target},
        knock::knock as knock_on,
        leave::leave as leave_it,
        membership::{self as flow, Change},
    },
    schema::Membership,
    sync::token::{BatchToken, OrderToken, SyncToken},
    users::Requester,
};

use super::{
    super::{
        endpoint::{Input, Unsuspended},
        error::Error,
    },
    rooms::Seen,
};
use crate::wiring::App;

#[derive(Deserialize)]
struct Reason {
    reason: Option<String>,
    third_party_signed: Option<Value>,
    /// What else a client wants to say with its member event.
    #[serde(flatten)]
    more: CanonicalJsonObject,
}

/// `POST /join/{room or alias}` and `POST /rooms/{room}/join`.
pub(super) async fn join(
    app: App,
    Unsuspended(caller): Unsuspended,
    input: Input,
) -> Result<Response, Error> {
    app.rates.join(&caller)?;
    let (room, via, body) = named(&app, &input).await?;
    if body.third_party_signed.is_some() {
        return Err(Error::invalid_param(
            "this server knows no third-party invites",
        ));
    }
    let join = Join {
        users: &app.users,
        receiver: &app.receiver,
        by: &caller,
        reason: body.reason.as_deref(),
        more: body.more,
    };
    join.join(&room, via).await?;
    Ok(Json(json!({ "room_id": room })).into_response())
}

pub(super) async fn knock(
    app: App,
    Unsuspended(caller): Unsuspended,
    input: Input,
) -> Result<Response, Error> {
    app.rates.join(&caller)?;
    let (room, via, body) = named(&app, &input).await?;
    let reason = body.reason.as_deref();
    knock_on(&app.users, &app.receiver, &caller, &room, via, reason).await?;
    Ok(Json(json!({ "room_id": room })).into_response())
}

/// The room that the path names, and servers that may be in it.
async fn named(
    app: &App,
    input: &Input,
) -> Result<(OwnedRoomId, Vec<OwnedServerName>, Reason), Error> {
    let name = RoomOrAliasId::parse(input.arg(0))
        .map_err(|error| Error::invalid_param(&error.to_string()))?;
    let body: Reason = input.read()?;
    let mut via = Vec::new();
    for server in input.params("via").chain(input.params("server_name")) {
        let server = OwnedServerName::try_from(server)
            .map_err(|error| Error::invalid_param(&error.to_string()))?;
        via.push(server);
    }
    if let Ok(alias) = <&RoomAliasId>::try_from(name.as_str()) {
        look_for_alias(&app.rooms, &app.users, &app.asking, alias).await?;
    }
    let (room, via) = target(&app.receiver, &name, via).await?;
    Ok((room, via, body))
}

/// Read by hand: an invite names a user or, which is not there yet, an e-mail address.
pub(super) async fn invite(
    app: App,
    Unsuspended(caller): Unsuspended,
    input: Input,
) -> Result<Response, Error> {
    #[derive(Deserialize)]
    struct Body {
        user_id: Option<ruma::OwnedUserId>,
        reason: Option<String>,
    }
    app.rates.invite(&caller)?;
    let body: Body = input.read()?;
    let room: &RoomId = input.id(0)?;
    let of = body
        .user_id
        .ok_or_else(|| Error::bad_json("user_id is needed; invites by e-mail are not there yet"))?;
    look_for_user(&app.users, &app.asking, &of).await?;
    if of.server_name() == app.server_name && app.users.find(of.as_str()).await?.is_none() {
        return Err(Error::not_found("no such user"));
    }
    let invite = Invite {
        by: &caller,
        of: &of,
        room,
        reason: body.reason.as_deref(),
        is_direct: false,
    };
    invite.send(&app.users, &app.receiver).await?;
    Ok(Json(json!({})).into_response())
}

pub(super) async fn leave(
    app: App,
    caller: Requester,
    request: leave_room::Request,
) -> Result<leave_room::Response, Error> {
    leave_it(
        &app.users,
        &app.receiver,
        &caller,
        &request.room_id,
        request.reason.as_deref(),
    )
    .await?;
    Ok(leave_room::Response {})
}

pub(super) async fn forget(
    app: App,
    caller: Requester,
    request: forget_room::Request,
) -> Result<forget_room::Response, Error> {
    flow::forget(&app.rooms, caller.sid, &request.room_id).await?;
    Ok(forget_room::Response {})
}

pub(super) async fn kick(
    app: App,
    Unsuspended(caller): Unsuspended,
    request: kick_user::Request,
) -> Result<kick_user::Response, Error> {
    let reason = request.reason.as_deref();
    let change = Change {
        by: &caller,
        of: &request.user_id,
        room: &request.room_id,
        reason,
    };
    change.kick(&app.users, &app.receiver).await?;
    Ok(kick_user::Response {})
}

pub(super) async fn ban(
    app: App,
    Unsuspended(caller): Unsuspended,
    request: ban_user::Request,
) -> Result<ban_user::Response, Error> {
    let reason = request.reason.as_deref();
    let change = Change {
        by: &caller,
        of: &request.user_id,
        room: &request.room_id,
        reason,
    };
    change.to(&app.users, &app.receiver, "ban").await?;
    Ok(ban_user::Response {})
}

pub(super) async fn unban(
    app: App,
    Unsuspended(caller): Unsuspended,
    request: unban_user::Request,
) -> Result<unban_user::Response, Error> {
    let reason = request.reason.as_deref();
    let change = Change {
        by: &caller,
        of: &request.user_id,
        room: &request.room_id,
        reason,
    };
    change.unban(&app.users, &app.receiver).await?;
    Ok(unban_user::Response {})
}

pub(super) async fn joined(
    app: App,
    caller: Requester,
    _: joined_rooms::Request,
) -> Result<joined_rooms::Response, Error> {
    let reader = app.rooms.reader();
    let mut joined = Vec::new();
    for (sid, row) in reader.rooms_of(caller.sid).await? {
        if row.membership == Membership::Join
            && let Some(room) = reader.room_by_sid(sid).await?
        {
            joined.push(room.id.clone());
        }
    }
    Ok(joined_rooms::Response {
        joined_rooms: joined,
    })
}

/// `GET /rooms/{room}/members`, now or `at` a token, with or without a membership.
pub(super) async fn members(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    let seen = Seen::new(&app, &caller, input.id(0)?).await?;
    let root = match input.param("at") {
        None => seen.root().await?,
        Some(at) => {
            let position = match (at.parse(), at.parse(), at.parse()) {
                (Ok(SyncToken { position, .. }), ..) => position,
                // A prev_batch of /sync means the moment that /sync spoke of.
                (_, Ok(BatchToken { position, .. }), _) => position,
                (.., Ok(OrderToken(order))) => {
                    let before = std::ops::Bound::Excluded(order);
                    let direction = vatra_store::Direction::Backward;
                    let unbounded = std::ops::Bound::Unbounded;
                    let newest = seen
                        .reader
                        .timeline(seen.room.sid, unbounded, before, direction, 1)
                        .await?;
                    newest
                        .first()
                        .map_or(vatra_store::Position(0), |event| event.position)
                }
                _ => return Err(Error::invalid_param("at is no token of this server")),
            };
            seen.reader
                .root_at(seen.room.sid, position.min(seen.until()))
                .await?
        }
    };
    let (wanted, unwanted) = (
        a_membership(&input, "membership")?,
        a_membership(&input, "not_membership")?,
    );
    let mut events = seen.reader.state_events_at(root).await?;
    events.retain(|event| {
        let member = event.pdu.member();
        let membership = member.and_then(|member| member.membership.as_ref());
        let membership = membership.map_or("", MembershipState::as_str);
        event.pdu.kind == TimelineEventType::RoomMember
            && wanted.is_none_or(|wanted| wanted == membership)
            && unwanted != Some(membership)
    });
    events.sort_by_key(|event| event.order);
    let chunk = seen.show(&app, &events).await?;
    Ok(Json(Members { chunk }).into_response())
}

/// A parameter that names a membership.
fn a_membership(input: &Input, name: &str) -> Result<Option<&'static str>, Error> {
    const ALL: [&str; 5] = ["join", "invite", "knock", "leave", "ban"];
    let Some(asked) = input.param(name) else {
        return Ok(None);
    };
    let known = ALL.into_iter().find(|known| *known == asked);
    let unknown = || Error::invalid_param("a membership is join, invite, knock, leave or ban");
    known.map(Some).ok_or_else(unknown)
}

/// The answer of `/members`; its events are written as they are.
#[derive(Serialize)]
struct Members {
    chunk: Vec<Box<RawValue>>,
}

/// `GET /rooms/{room}/joined_members`: names and pictures, for those who are in the room themselves.
pub(super) async fn joined_members(
    app: App,
    caller: Requester,
    input: Input,
) -> Result<Response, Error> {
    let seen = Seen::new(&app, &caller, input.id(0)?).await?;
    if seen
        .membership
        .is_none_or(|row| row.membership != Membership::Join)
    {
        return Err(Error::forbidden("you are not in that room"));
    }
    let members = seen
        .reader
        .members(seen.room.sid, Membership::Join, usize::MAX)
        .await?;
    let sids: Vec<_> = members.into_iter().map(|(_, event)| event).collect();
    let mut joined = serde_json::Map::new();
    for event in seen.reader.events(&sids).await?.into_iter().flatten() {
        let content: Value = event.pdu.content_as().unwrap_or_default();
        // Clients expect both keys; null where there is no such thing.
        let text = |field: &str| content.get(field).and_then(Value::as_str);
        joined.insert(
            event.pdu.state_key.clone().unwrap_or_default(),
            json!({ "display_name": text("displayname"), "avatar_url": text("avatar_url") }),
        );
    }
    Ok(Json(json!({ "joined": joined })).into_response())
}

/// The member event of a user, for handlers that need to know that someone is in a room.
pub(super) async fn require_joined(
    app: &App,
    caller: &Requester,
    room: &RoomId,
) -> Result<Seen, Error> {
    let seen = Seen::new(app, caller, room).await?;
    match seen.membership {
        Some(row) if row.membership == Membership::Join => Ok(seen),
        _ => Err(Error::forbidden("you are not in that room")),
    }
}

/// Whether two users share a room.
pub(super) async fn share_a_room(
    app: &App,
    one: &Requester,
    other: &UserId,
) -> Result<bool, Error> {
    let reader = app.rooms.reader();
    let Some(other) = reader.user_sid(other).await? else {
        return Ok(false);
    };
    for (room, row) in reader.rooms_of(one.sid).await? {
        if row.membership == Membership::Join && reader.is_joined(other, room).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

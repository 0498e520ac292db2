//! Knocking on a room, here or elsewhere. <https://spec.matrix.org/v1.19/server-server-api/#knocking-upon-a-room>

use ruma::{
    OwnedServerName, RoomId, ServerName,
    api::federation::membership::{
        RawStrippedState, create_knock_event::v1 as send_knock,
        prepare_knock_event::v1 as make_knock,
    },
};
use serde_json::value::RawValue as RawJsonValue;

use super::{
    FlowError,
    membership::{Change, member_content},
    template::{Template, candidates, version, versions, worse},
};
use crate::{
    event::client,
    federation::invite::shown,
    remote::Bounds,
    rooms::{outside::Outside, receive::Receiver},
    users::{Requester, Users},
};

/// Knocks.
///
/// # Errors
/// What the auth rules say, here or there; [`FlowError::NoServers`] if nobody can be asked.
pub async fn knock(
    users: &Users,
    receiver: &Receiver,
    user: &Requester,
    room: &RoomId,
    via: Vec<OwnedServerName>,
    reason: Option<&str>,
) -> Result<(), FlowError> {
    let rooms = receiver.rooms();
    let reader = rooms.reader();
    let mut named = via;
    if let Some(known) = reader.room(room).await? {
        let others = reader.other_servers(known.sid, 20).await?;
        if reader.server_is_in(known.sid, None).await? || (named.is_empty() && others.is_empty()) {
            let change = Change {
                by: user,
                of: &user.user,
                room,
                reason,
            };
            return change.to(users, receiver, "knock").await;
        }
        named.extend(others);
    }
    let mut failed = None;
    for server in candidates(rooms, room, named) {
        match knock_through(users, receiver, &server, user, room, reason).await {
            Ok(()) => return Ok(()),
            Err(error) => failed = Some(worse(failed, error)),
        }
    }
    Err(failed.unwrap_or(FlowError::NoServers))
}

async fn knock_through(
    users: &Users,
    receiver: &Receiver,
    server: &ServerName,
    user: &Requester,
    id: &RoomId,
    reason: Option<&str>,
) -> Result<(), FlowError> {
    let (rooms, remote) = (receiver.rooms(), receiver.remote());
    let mut request = make_knock::Request::new(id.to_owned(), user.user.clone());
    request.ver = versions();
    let answer = remote
        .call_within(server, request, Bounds::urgent())
        .await?;
    let version = version(Some(answer.room_version))?;
    let template = Template::read(&answer.event)?;
    let room = rooms.heard_of(id, &version).await?;
    let content = member_content(users, user.sid, "knock", reason).await?;
    let pdu = template.member(rooms, &room, &user.user, content)?;
    let raw = serde_json::from_slice(pdu.bytes())
        .map_err(|error| FlowError::BadRequest(error.to_string()))?;
    let request = send_knock::Request::new(id.to_owned(), pdu.event_id.clone(), raw);
    let answer = remote
        .call_within(server, request, Bounds::urgent())
        .await?;
    let told: Vec<Box<RawJsonValue>> = answer.knock_room_state.into_iter().map(raw_of).collect();
    let mut state = shown(told, &room.rules).unwrap_or_default();
    state.push(client::stripped_json(&pdu));
    let outside = Outside {
        state,
        servers: vec![server.to_owned()],
    };
    rooms
        .set_outside(&room, &user.user, pdu, Some(outside))
        .await?;
    Ok(())
}

#[expect(deprecated, reason = "older servers send stripped events")]
fn raw_of(state: RawStrippedState) -> Box<RawJsonValue> {
    match state {
        RawStrippedState::Stripped(raw) => raw.into_json(),
        RawStrippedState::Pdu(raw) => raw,
    }
}

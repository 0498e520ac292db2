//! Users of other servers come and go, and invite. <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>
//!
//! Each kind is asked for in two steps, a template and the event; the old forms of the second step answer with a pair.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::Method;
use ruma::{
    OwnedUserId, RoomVersionId,
    api::federation::membership::{
        RawStrippedState, create_invite::v2 as invite_request,
        create_join_event::v2 as send_join_request, create_knock_event::v1 as send_knock_request,
        create_leave_event::v2 as send_leave_request, prepare_join_event::v1 as make_join_request,
        prepare_knock_event::v1 as make_knock_request,
        prepare_leave_event::v1 as make_leave_request,
    },
};
use serde::Deserialize;
use serde_json::{json, value::RawValue as RawJsonValue};
use vatra_domain::{
    federation::{
        invite::Invite,
        membership::{Joined, Kind},
    },
    flows::appservices::look_for_user,
};

use super::{
    super::{
        endpoint::{Input, Routes},
        error::Error,
    },
    Origin,
};
use crate::wiring::App;

pub(super) async fn make_join(
    app: App,
    origin: Origin,
    request: make_join_request::Request,
) -> Result<make_join_request::Response, Error> {
    let (room, user) = (&request.room_id, &request.user_id);
    let (event, version) = app
        .federation
        .make(origin.name(), Kind::Join, room, user, Some(&request.ver))
        .await?;
    let mut response = make_join_request::Response::new(event);
    response.room_version = Some(version);
    Ok(response)
}

pub(super) async fn send_join(
    app: App,
    origin: Origin,
    request: send_join_request::Request,
) -> Result<send_join_request::Response, Error> {
    let joined = app
        .federation
        .send_join(
            origin.name(),
            &request.room_id,
            &request.event_id,
            &request.pdu,
            request.omit_members,
        )
        .await?;
    Ok(send_join_request::Response::new(room_state(joined)))
}

/// The old forms of three requests: servers that are older still send them. Their answers are pairs, of a status once more and of
/// what there is to say.
pub(super) fn old(routes: Routes) -> Routes {
    let at = |name: &str| format!("/_matrix/federation/v1/{name}/{{room_id}}/{{event_id}}");
    routes
        .signed_json(&Method::PUT, &at("send_join"), send_join_v1)
        .signed_json(&Method::PUT, &at("send_leave"), send_leave_v1)
        .signed_json(&Method::PUT, &at("invite"), invite_v1)
}

async fn send_join_v1(app: App, origin: Origin, input: Input) -> Result<Response, Error> {
    let event: Box<RawJsonValue> = input.read()?;
    let joined = app
        .federation
        .send_join(origin.name(), input.id(0)?, input.id(1)?, &event, false)
        .await?;
    Ok(Json((200, room_state(joined))).into_response())
}

fn room_state(joined: Joined) -> send_join_request::RoomState {
    let mut state = send_join_request::RoomState::new();
    state.event = Some(joined.event);
    state.state = joined.state;
    state.auth_chain = joined.auth_chain;
    state.members_omitted = joined.members_omitted;
    let servers = joined.servers;
    state.servers_in_room =
        servers.map(|servers| servers.iter().map(ToString::to_string).collect());
    state
}

pub(super) async fn make_leave(
    app: App,
    origin: Origin,
    request: make_leave_request::Request,
) -> Result<make_leave_request::Response, Error> {
    let (room, user) = (&request.room_id, &request.user_id);
    let (event, version) = app
        .federation
        .make(origin.name(), Kind::Leave, room, user, None)
        .await?;
    Ok(make_leave_request::Response::new(Some(version), event))
}

pub(super) async fn send_leave(
    app: App,
    origin: Origin,
    request: send_leave_request::Request,
) -> Result<send_leave_request::Response, Error> {
    let (room, event) = (&request.room_id, &request.event_id);
    app.federation
        .send_leave(origin.name(), room, event, &request.pdu)
        .await?;
    Ok(send_leave_request::Response::new())
}

async fn send_leave_v1(app: App, origin: Origin, input: Input) -> Result<Response, Error> {
    let event: Box<RawJsonValue> = input.read()?;
    app.federation
        .send_leave(origin.name(), input.id(0)?, input.id(1)?, &event)
        .await?;
    Ok(Json((200, json!({}))).into_response())
}

pub(super) async fn make_knock(
    app: App,
    origin: Origin,
    request: make_knock_request::Request,
) -> Result<make_knock_request::Response, Error> {
    let (room, user) = (&request.room_id, &request.user_id);
    let (event, version) = app
        .federation
        .make(origin.name(), Kind::Knock, room, user, Some(&request.ver))
        .await?;
    Ok(make_knock_request::Response::new(version, event))
}

pub(super) async fn send_knock(
    app: App,
    origin: Origin,
    request: send_knock_request::Request,
) -> Result<send_knock_request::Response, Error> {
    let (room, event) = (&request.room_id, &request.event_id);
    let state = app
        .federation
        .send_knock(origin.name(), room, event, &request.pdu)
        .await?;
    let state = state.into_iter().map(RawStrippedState::Pdu).collect();
    Ok(send_knock_request::Response::new(state))
}

pub(super) async fn invite(
    app: App,
    origin: Origin,
    request: invite_request::Request,
) -> Result<invite_request::Response, Error> {
    let invite = Invite {
        room: &request.room_id,
        id: &request.event_id,
        version: request.room_version,
        event: &request.event,
        state: request.invite_room_state.into_iter().map(raw_of).collect(),
    };
    look_for_invited(&app, &request.event).await?;
    let event = app.federation.invite(origin.name(), invite).await?;
    Ok(invite_request::Response::new(event))
}

/// Whoever is invited may be somebody whom an application service makes if it is asked. Whether the invite is one is judged after.
async fn look_for_invited(app: &App, event: &RawJsonValue) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct About {
        state_key: OwnedUserId,
    }
    if let Ok(about) = serde_json::from_str::<About>(event.get()) {
        look_for_user(&app.users, &app.asking, &about.state_key).await?;
    }
    Ok(())
}

#[expect(deprecated, reason = "older servers send stripped events")]
fn raw_of(state: RawStrippedState) -> Box<RawJsonValue> {
    match state {
        RawStrippedState::Stripped(raw) => raw.into_json(),
        RawStrippedState::Pdu(raw) => raw,
    }
}

/// The old form says no room version: it is of the two that there were.
async fn invite_v1(app: App, origin: Origin, input: Input) -> Result<Response, Error> {
    #[derive(Deserialize, Default)]
    struct Body {
        #[serde(default)]
        unsigned: Unsigned,
    }
    #[derive(Deserialize, Default)]
    struct Unsigned {
        #[serde(default)]
        invite_room_state: Vec<Box<RawJsonValue>>,
    }
    let event: Box<RawJsonValue> = input.read()?;
    let body: Body = serde_json::from_str(event.get()).unwrap_or_default();
    let invite = Invite {
        room: input.id(0)?,
        id: input.id(1)?,
        version: RoomVersionId::V1,
        event: &event,
        state: body.unsigned.invite_room_state,
    };
    look_for_invited(&app, &event).await?;
    let event = app.federation.invite(origin.name(), invite).await?;
    Ok(Json((200, json!({ "event": event }))).into_response())
}

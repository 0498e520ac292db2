//! What clients of before /sync ask. <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3events>

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use ruma::{
    EventId, RoomId,
    api::{auth_scheme::AccessToken, client::peeking::listen_to_new_events::v3 as listen},
    presence::PresenceState,
};
use vatra_domain::{
    rooms::RoomError,
    sync::{
        MAX_TIMEOUT,
        old::{Messages, RoomInfo, visibility},
        token::SyncToken,
    },
    users::Requester,
};

use super::{
    super::{
        endpoint::{Input, Routes},
        error::Error,
    },
    messages::{newest, read_limit},
    rooms::{Seen, viewer},
};
use crate::wiring::App;

/// `GET /initialSync`, which is not ruma's.
struct Initial;
ruma::metadata! {
    @for Initial,
    method: GET,
    rate_limited: false,
    authentication: AccessToken,
    path: "/_matrix/client/v3/initialSync",
}

/// `GET /rooms/{room}/initialSync`.
struct RoomInitial;
ruma::metadata! {
    @for RoomInitial,
    method: GET,
    rate_limited: false,
    authentication: AccessToken,
    path: "/_matrix/client/v3/rooms/{room_id}/initialSync",
}

/// `GET /events/{event}`.
struct OneEvent;
ruma::metadata! {
    @for OneEvent,
    method: GET,
    rate_limited: false,
    authentication: AccessToken,
    path: "/_matrix/client/v3/events/{event_id}",
}

/// All of them.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .json::<Initial, _, _, _>(initial)
        .json::<RoomInitial, _, _, _>(room_initial)
        .json::<listen::Request, _, _, _>(events)
        .json::<OneEvent, _, _, _>(event)
}

async fn initial(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    let archived = match input.param("archived").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Error::invalid_param("archived is true or false")),
    };
    let limit = read_limit(&input, None)?;
    is_here(&app, &caller).await;
    let answer = app.syncs.initial(&viewer(&caller), limit, archived).await?;
    Ok(Json(answer).into_response())
}

async fn room_initial(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    let seen = Seen::new(&app, &caller, input.id(0)?).await?;
    let (mut chunk, start) = newest(&app, &caller, &seen, read_limit(&input, None)?).await?;
    chunk.reverse();
    let end = SyncToken {
        epoch: app.store.epoch(),
        position: seen.until(),
        to_device: vatra_store::Position(0),
    };
    let messages = Messages {
        start: start.map(|start| start.to_string()),
        end: end.to_string(),
        chunk: seen.show(&app, &chunk).await?,
    };
    let mut state = seen.reader.state_events_at(seen.root().await?).await?;
    state.sort_by_key(|event| event.order);
    let (view, room) = (seen.reader.view(), seen.room.sid);
    let data = app
        .users
        .room_account_data_since(view, caller.sid, room, None);
    let answer = RoomInfo {
        room_id: seen.room.id.clone(),
        membership: seen.membership.map(|row| row.membership.name()),
        invite: None,
        messages: Some(messages),
        state: Some(seen.show(&app, &state).await?),
        visibility: Some(visibility(&seen.reader, room).await?),
        account_data: data.await?.into_iter().map(|(_, event)| event).collect(),
    };
    Ok(Json(answer).into_response())
}

/// With a room it is that room's stream, for those who may read it.
async fn events(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    let from = match input.param("from") {
        Some(token) => Some(
            token
                .parse()
                .map_err(|_| Error::invalid_param("from is no token of this server"))?,
        ),
        None => None,
    };
    let timeout = match input.param("timeout") {
        Some(millis) => millis
            .parse()
            .map(Duration::from_millis)
            .map_err(|_| Error::invalid_param("timeout is a number of milliseconds"))?,
        None => Duration::ZERO,
    };
    let timeout = timeout.min(MAX_TIMEOUT);
    is_here(&app, &caller).await;
    let viewer = viewer(&caller);
    let answer = match input.param("room_id") {
        None => app.syncs.events(&viewer, from, timeout).await?,
        Some(id) => {
            let id = <&RoomId>::try_from(&*id)
                .map_err(|error| Error::invalid_param(&error.to_string()))?;
            let seen = Seen::current(&app, &caller, id).await?;
            app.syncs
                .room_events(&viewer, &seen.room, from, timeout)
                .await?
        }
    };
    Ok(Json(answer).into_response())
}

/// An event of whatever room, for those who may see it there.
async fn event(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    let id: &EventId = input.id(0)?;
    let unknown = || Error::from(RoomError::UnknownEvent);
    let reader = app.rooms.reader();
    let event = reader.event_anywhere(id).await?.ok_or_else(unknown)?;
    let room = reader.room_by_sid(event.room).await?.ok_or_else(unknown)?;
    let seen = Seen::new(&app, &caller, &room.id).await;
    let seen = seen.map_err(|error| error.hiding(unknown()))?;
    let event = seen.event(id).await?;
    let shown = seen.show(&app, &[event]).await?;
    Ok(Json(shown.into_iter().next().ok_or_else(unknown)?).into_response())
}

/// Who listens is online.
async fn is_here(app: &App, caller: &Requester) {
    let reader = app.rooms.reader();
    let presence = &app.ephemeral.presence;
    presence
        .polled(&reader, caller.sid, PresenceState::Online)
        .await;
}

//! `GET /sync`. <https://spec.matrix.org/v1.19/client-server-api/#syncing>

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use ruma::{api::client::filter::FilterDefinition, presence::PresenceState};
use vatra_domain::{
    sync::{StateField, SyncRequest},
    users::Requester,
};

use super::{
    super::{endpoint::Input, error::Error},
    account_data::stored_filter,
    rooms::viewer,
};
use crate::wiring::App;

/// Read by hand: `use_state_after` has two names, and each has its own answer.
pub(super) async fn sync(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    let request = read(&app, &caller, &input).await?;
    let presence = match input.param("set_presence").as_deref() {
        None | Some("online") => Some(PresenceState::Online),
        Some("unavailable") => Some(PresenceState::Unavailable),
        Some("offline") => None,
        Some(_) => {
            return Err(Error::invalid_param(
                "set_presence is online, unavailable or offline",
            ));
        }
    };
    if let Some(presence) = presence {
        app.ephemeral
            .presence
            .polled(&app.rooms.reader(), caller.sid, presence)
            .await;
    }
    if let Some(since) = request.since {
        app.syncs.acknowledge(&viewer(&caller), since).await?;
    }
    let response = app.syncs.sync(&viewer(&caller), &request).await?;
    Ok(Json(response).into_response())
}

async fn read(app: &App, caller: &Requester, input: &Input) -> Result<SyncRequest, Error> {
    let since = match input.param("since") {
        Some(token) => Some(
            token
                .parse()
                .map_err(|_| Error::invalid_param("since is no token of this server"))?,
        ),
        None => None,
    };
    let timeout = match input.param("timeout") {
        Some(millis) => millis
            .parse()
            .map_err(|_| Error::invalid_param("timeout is a number of milliseconds"))?,
        None => 0,
    };
    let filter: FilterDefinition = match input.param("filter") {
        None => FilterDefinition::default(),
        Some(json) if json.trim_start().starts_with('{') => serde_json::from_str(&json)
            .map_err(|error| Error::invalid_param(&format!("filter: {error}")))?,
        Some(id) => {
            let stored = stored_filter(app, caller, &id).await?;
            stored.ok_or_else(|| Error::invalid_param("no such filter"))?
        }
    };
    let on = |name: &str| match input.param(name).as_deref() {
        Some("true") => Ok(true),
        None | Some("false") => Ok(false),
        Some(_) => Err(Error::invalid_param(&format!("{name} is true or false"))),
    };
    let state = if on("use_state_after")? {
        StateField::After
    } else if on("org.matrix.msc4222.use_state_after")? {
        StateField::AfterUnstable
    } else {
        StateField::Before
    };
    Ok(SyncRequest {
        since,
        timeout: Duration::from_millis(timeout),
        full_state: on("full_state")?,
        filter,
        state,
        room_ids: false,
    })
}

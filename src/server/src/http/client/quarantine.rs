//! Media that admins keep from everyone, by the paths that other servers have for it.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use ruma::{OwnedServerName, api::auth_scheme::AccessToken};
use serde_json::json;
use vatra_domain::users::Requester;

use super::super::{
    endpoint::{Input, Routes},
    error::Error,
};
use crate::wiring::App;

struct Quarantine;
ruma::metadata! {
    @for Quarantine,
    method: POST,
    rate_limited: false,
    authentication: AccessToken,
    path: "/_synapse/admin/v1/media/quarantine/{server_name}/{media_id}",
}

struct Unquarantine;
ruma::metadata! {
    @for Unquarantine,
    method: POST,
    rate_limited: false,
    authentication: AccessToken,
    path: "/_synapse/admin/v1/media/unquarantine/{server_name}/{media_id}",
}

/// Both.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .json::<Quarantine, _, _, _>(quarantine)
        .json::<Unquarantine, _, _, _>(unquarantine)
}

async fn quarantine(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    caller.must_be_admin()?;
    let server: OwnedServerName = input.id(0)?;
    app.media
        .quarantine(&server, input.arg(1), &caller.user)
        .await?;
    Ok(Json(json!({})).into_response())
}

async fn unquarantine(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    caller.must_be_admin()?;
    let server: OwnedServerName = input.id(0)?;
    app.media.unquarantine(&server, input.arg(1)).await?;
    Ok(Json(json!({})).into_response())
}

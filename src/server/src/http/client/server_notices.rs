//! Notices of the server to its users, sent by admins as other servers have it.
//! <https://spec.matrix.org/v1.19/client-server-api/#server-notices>

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use ruma::{
    CanonicalJsonObject, OwnedUserId, api::auth_scheme::AccessToken, events::TimelineEventType,
};
use serde::Deserialize;
use serde_json::json;
use vatra_domain::{flows::server_notices::Notice, users::Requester};

use super::super::{
    endpoint::{Input, Routes},
    error::Error,
};
use crate::wiring::App;

struct Send;
ruma::metadata! {
    @for Send,
    method: POST,
    rate_limited: false,
    authentication: AccessToken,
    path: "/_synapse/admin/v1/send_server_notice",
}

struct SendOnce;
ruma::metadata! {
    @for SendOnce,
    method: PUT,
    rate_limited: false,
    authentication: AccessToken,
    path: "/_synapse/admin/v1/send_server_notice/{txn_id}",
}

/// Both.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .json::<Send, _, _, _>(send)
        .json::<SendOnce, _, _, _>(send)
}

#[derive(Deserialize)]
struct Body {
    user_id: OwnedUserId,
    content: CanonicalJsonObject,
    #[serde(rename = "type")]
    kind: Option<String>,
    state_key: Option<String>,
}

async fn send(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    // Who may not learns nothing, not even what is wrong with the request.
    caller.must_be_admin()?;
    let notices = app.server_notices.as_ref();
    let notices = notices.ok_or_else(|| Error::unrecognized(StatusCode::NOT_FOUND))?;
    let body: Body = input.read()?;
    let kind = body.kind.as_deref().unwrap_or("m.room.message");
    let notice = Notice {
        to: &body.user_id,
        kind: TimelineEventType::from(kind),
        state_key: body.state_key,
        content: body.content,
    };
    let txn = input.args.first().cloned();
    let id = notices.send(&caller, notice, txn).await?;
    Ok(Json(json!({ "event_id": id })).into_response())
}

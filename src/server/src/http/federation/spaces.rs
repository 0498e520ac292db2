//! Spaces, for other servers. <https://spec.matrix.org/v1.19/server-server-api/#spaces>

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use ruma::api::federation::space::get_hierarchy::v1 as get_hierarchy;
use vatra_domain::flows::spaces::for_server;

use super::{super::error::Error, Origin};
use crate::wiring::App;

pub(super) async fn hierarchy(
    app: App,
    origin: Origin,
    request: get_hierarchy::Request,
) -> Result<Response, Error> {
    let reader = app.rooms.reader();
    let (room, suggested_only) = (&request.room_id, request.suggested_only);
    let answer = for_server(&reader, origin.name(), room, suggested_only).await?;
    Ok(Json(answer).into_response())
}

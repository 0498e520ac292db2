//! What rooms look like from outside. <https://spec.matrix.org/v1.19/client-server-api/#spaces>

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use ruma::RoomOrAliasId;
use serde_json::json;
use vatra_domain::{
    flows::{
        FlowError,
        join::target,
        spaces::{self, Asked, Viewer},
    },
    schema::Membership,
    users::Requester,
};

use super::super::{endpoint::Input, error::Error};
use crate::wiring::App;

/// `GET /rooms/{room}/hierarchy`.
pub(super) async fn hierarchy(
    app: App,
    caller: Requester,
    input: Input,
) -> Result<Response, Error> {
    let number = |name: &str| match input.param(name).map(|text| text.parse::<u32>()) {
        None => Ok(None),
        Some(Ok(number)) => Ok(Some(number)),
        Some(Err(_)) => Err(Error::invalid_param(&format!("{name} is a number"))),
    };
    let limit = match number("limit")? {
        Some(0) => return Err(Error::invalid_param("limit is a positive number")),
        limit => limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
    };
    let suggested_only = match input.param("suggested_only").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Error::invalid_param("suggested_only is true or false")),
    };
    let asked = Asked {
        limit,
        max_depth: number("max_depth")?.map(u64::from),
        suggested_only,
    };
    let from = input.param("from");
    let (rooms, next) = spaces::hierarchy(
        &app.receiver,
        caller.sid,
        input.id(0)?,
        asked,
        from.as_deref(),
    )
    .await?;
    let mut answer = serde_json::Map::new();
    answer.insert("rooms".to_owned(), json!(rooms));
    answer.extend(next.map(|next| ("next_batch".to_owned(), json!(next))));
    Ok(Json(answer).into_response())
}

/// `GET /room_summary/{room or alias}`.
pub(super) async fn summary(
    app: App,
    caller: Option<Requester>,
    input: Input,
) -> Result<Response, Error> {
    let name = RoomOrAliasId::parse(input.arg(0))
        .map_err(|error| Error::invalid_param(&error.to_string()))?;
    let hidden = || Error::not_found("no such room, or none that you may know of");
    let id = match target(&app.receiver, &name, Vec::new()).await {
        Err(FlowError::UnknownAlias) => return Err(hidden()),
        other => other?.0,
    };
    let reader = app.rooms.reader();
    let room = reader.room(&id).await?.ok_or_else(hidden)?;
    let viewer = caller.as_ref().map(|caller| caller.sid);
    let who = viewer.map_or(Viewer::Anyone, Viewer::User);
    if !spaces::may_know(&reader, who, &room).await? {
        return Err(hidden());
    }
    let mut summary = spaces::summary(&reader, &room).await?;
    if let Some(viewer) = viewer {
        let row = reader.membership(viewer, room.sid).await?;
        let membership = match row.map(|row| row.membership) {
            Some(Membership::Join) => "join",
            Some(Membership::Invite) => "invite",
            Some(Membership::Knock) => "knock",
            Some(Membership::Ban) => "ban",
            Some(Membership::Leave) | None => "leave",
        };
        summary.insert("membership".to_owned(), json!(membership));
    }
    Ok(Json(summary).into_response())
}

//! Profiles. <https://spec.matrix.org/v1.19/client-server-api/#profiles>

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use ruma::UserId;
use serde_json::{Value, json};
use vatra_domain::{
    flows,
    users::{Requester, profile::Profile},
};

use super::super::{
    endpoint::{Input, Unsuspended},
    error::Error,
};
use crate::wiring::App;

pub(super) async fn get(app: App, (): (), input: Input) -> Result<Response, Error> {
    Ok(Json(known(&app, &input, None).await?).into_response())
}

pub(super) async fn get_field(app: App, (): (), input: Input) -> Result<Response, Error> {
    let name = input.arg(1);
    match known(&app, &input, Some(name)).await?.remove(name) {
        Some(value) => {
            let answer = serde_json::Map::from_iter([(name.to_owned(), value)]);
            Ok(Json(answer).into_response())
        }
        // A known user without a name or picture is no error.
        None if name == "displayname" || name == "avatar_url" => {
            Ok(Json(json!({})).into_response())
        }
        None => Err(Error::not_found("the profile has no such field")),
    }
}

pub(super) async fn set_field(
    app: App,
    Unsuspended(caller): Unsuspended,
    input: Input,
) -> Result<Response, Error> {
    let mut body: serde_json::Map<String, Value> = input.read()?;
    let name = input.arg(1).to_owned();
    let value = body
        .remove(&name)
        .ok_or_else(|| Error::bad_json(&format!("the body has no {name}")))?;
    set(&app, &caller, &input, &name, Some(value)).await
}

pub(super) async fn delete_field(
    app: App,
    Unsuspended(caller): Unsuspended,
    input: Input,
) -> Result<Response, Error> {
    set(&app, &caller, &input, input.arg(1), None).await
}

async fn set(
    app: &App,
    caller: &Requester,
    input: &Input,
    name: &str,
    value: Option<Value>,
) -> Result<Response, Error> {
    let user: &UserId = input.id(0)?;
    if user != caller.user {
        return Err(Error::forbidden("the profile of another user"));
    }
    if app.users.set_profile_field(caller.sid, name, value).await? {
        flows::profile::changed(&app.users, &app.receiver, caller, name).await?;
    }
    Ok(Json(json!({})).into_response())
}

/// The profile of a user, as far as it is needed; that of another server's user is asked for there.
async fn known(app: &App, input: &Input, field: Option<&str>) -> Result<Profile, Error> {
    let user: &UserId = input.id(0)?;
    if user.server_name() != app.server_name {
        return Ok(flows::elsewhere::profile(&app.remote, user, field).await?);
    }
    let found = app.users.find(user.as_str()).await?;
    let (_, sid) = found.ok_or_else(|| Error::not_found("no such user"))?;
    Ok(app.users.profile(sid).await?)
}

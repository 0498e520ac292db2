//! Account data, tags and filters. <https://spec.matrix.org/v1.19/client-server-api/#client-config>

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use ruma::{
    UserId,
    api::{
        auth_scheme::AccessToken,
        client::{
            config::{
                get_global_account_data::v3 as get_global_data,
                get_room_account_data::v3 as get_room_data,
                set_global_account_data::v3 as set_global_data,
                set_room_account_data::v3 as set_room_data,
            },
            filter::{FilterDefinition, create_filter::v3 as create, get_filter::v3 as get},
            tag::{
                create_tag::v3 as create_tag, delete_tag::v3 as delete_tag,
                get_tags::v3 as get_tags,
            },
        },
        error::ErrorCode,
    },
    events::tag::{TagEventContent, Tags},
    serde::Raw,
};
use serde_json::json;
use vatra_domain::{
    rooms::RoomError,
    schema::{GLOBAL, RoomSid},
    users::Requester,
};

use super::super::{
    endpoint::{Input, Routes},
    error::Error,
};
use crate::wiring::App;

/// Types that have endpoints of their own.
const MANAGED: [&str; 2] = ["m.fully_read", "m.push_rules"];

pub(super) async fn get_global(
    app: App,
    caller: Requester,
    request: get_global_data::Request,
) -> Result<get_global_data::Response, Error> {
    own(&caller, &request.user_id)?;
    let data = app
        .users
        .account_data(caller.sid, GLOBAL, &request.event_type.to_string())
        .await?;
    let account_data = Raw::from_json(data.ok_or_else(unset)?);
    Ok(get_global_data::Response { account_data })
}

pub(super) async fn set_global(
    app: App,
    caller: Requester,
    request: set_global_data::Request,
) -> Result<set_global_data::Response, Error> {
    own(&caller, &request.user_id)?;
    set(
        &app,
        &caller,
        GLOBAL,
        &request.event_type.to_string(),
        request.data.json().get(),
    )
    .await?;
    Ok(set_global_data::Response {})
}

pub(super) async fn get_room(
    app: App,
    caller: Requester,
    request: get_room_data::Request,
) -> Result<get_room_data::Response, Error> {
    own(&caller, &request.user_id)?;
    let room = room(&app, &request.room_id).await?;
    let data = app
        .users
        .account_data(caller.sid, room, &request.event_type.to_string())
        .await?;
    Ok(get_room_data::Response {
        account_data: Raw::from_json(data.ok_or_else(unset)?),
    })
}

pub(super) async fn set_room(
    app: App,
    caller: Requester,
    request: set_room_data::Request,
) -> Result<set_room_data::Response, Error> {
    own(&caller, &request.user_id)?;
    let room = room(&app, &request.room_id).await?;
    set(
        &app,
        &caller,
        room,
        &request.event_type.to_string(),
        request.data.json().get(),
    )
    .await?;
    Ok(set_room_data::Response {})
}

/// `DELETE` of a user's account data (MSC3391), which is not ruma's.
struct DeleteGlobal;
ruma::metadata! {
    @for DeleteGlobal,
    method: DELETE,
    rate_limited: false,
    authentication: AccessToken,
    path: "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/account_data/{event_type}",
}

/// The same of a room.
struct DeleteRoom;
ruma::metadata! {
    @for DeleteRoom,
    method: DELETE,
    rate_limited: false,
    authentication: AccessToken,
    path: "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/rooms/{room_id}/account_data/{event_type}",
}

/// What is not in the specification yet.
pub(super) fn unstable_routes(routes: Routes) -> Routes {
    routes
        .json::<DeleteGlobal, _, _, _>(delete_global)
        .json::<DeleteRoom, _, _, _>(delete_room)
}

async fn delete_global(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    own(&caller, input.id(0)?)?;
    set(&app, &caller, GLOBAL, input.arg(1), "{}").await?;
    Ok(Json(json!({})).into_response())
}

async fn delete_room(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    own(&caller, input.id(0)?)?;
    let room = room(&app, input.id(1)?).await?;
    set(&app, &caller, room, input.arg(2), "{}").await?;
    Ok(Json(json!({})).into_response())
}

async fn set(
    app: &App,
    caller: &Requester,
    room: RoomSid,
    kind: &str,
    content: &str,
) -> Result<(), Error> {
    if MANAGED.contains(&kind) {
        let message = format!("{kind} has an endpoint of its own");
        return Err(Error::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::BadJson,
            message,
        ));
    }
    if !content.trim_start().starts_with('{') {
        return Err(Error::bad_json("account data is an object"));
    }
    Ok(app
        .users
        .set_account_data(caller.sid, room, kind, content.to_owned())
        .await?)
}

pub(super) async fn create_filter(
    app: App,
    caller: Requester,
    request: create::Request,
) -> Result<create::Response, Error> {
    own(&caller, &request.user_id)?;
    let json = serde_json::to_string(&request.filter).map_err(|error| Error::internal(&error))?;
    let id = app.users.create_filter(caller.sid, json).await?;
    Ok(create::Response {
        filter_id: id.to_string(),
    })
}

pub(super) async fn get_filter(
    app: App,
    caller: Requester,
    request: get::Request,
) -> Result<get::Response, Error> {
    own(&caller, &request.user_id)?;
    let filter = stored_filter(&app, &caller, &request.filter_id).await?;
    Ok(get::Response {
        filter: filter.ok_or_else(|| Error::not_found("no such filter"))?,
    })
}

/// A filter that the user stored.
pub(super) async fn stored_filter(
    app: &App,
    caller: &Requester,
    id: &str,
) -> Result<Option<FilterDefinition>, Error> {
    let json = app.users.filter(caller.sid, id).await?;
    Ok(json.and_then(|json| serde_json::from_str(&json).ok()))
}

pub(super) async fn tags(
    app: App,
    caller: Requester,
    request: get_tags::Request,
) -> Result<get_tags::Response, Error> {
    own(&caller, &request.user_id)?;
    let room = room(&app, &request.room_id).await?;
    Ok(get_tags::Response {
        tags: read_tags(&app, &caller, room).await?,
    })
}

pub(super) async fn set_tag(
    app: App,
    caller: Requester,
    request: create_tag::Request,
) -> Result<create_tag::Response, Error> {
    own(&caller, &request.user_id)?;
    let room = room(&app, &request.room_id).await?;
    let set = |tags: &mut Tags| {
        tags.insert(request.tag.clone().into(), request.tag_info.clone());
    };
    change_tags(&app, &caller, room, set).await?;
    Ok(create_tag::Response {})
}

pub(super) async fn delete_tag(
    app: App,
    caller: Requester,
    request: delete_tag::Request,
) -> Result<delete_tag::Response, Error> {
    own(&caller, &request.user_id)?;
    let room = room(&app, &request.room_id).await?;
    let name = ruma::events::tag::TagName::from(request.tag);
    let remove = |tags: &mut Tags| {
        tags.remove(&name);
    };
    change_tags(&app, &caller, room, remove).await?;
    Ok(delete_tag::Response {})
}

async fn read_tags(app: &App, caller: &Requester, room: RoomSid) -> Result<Tags, Error> {
    let data = app.users.account_data(caller.sid, room, "m.tag").await?;
    Ok(tags_in(data.as_ref().map(|json| json.get())))
}

fn tags_in(content: Option<&str>) -> Tags {
    let content = content.and_then(|json| serde_json::from_str::<TagEventContent>(json).ok());
    content.map(|content| content.tags).unwrap_or_default()
}

/// Two devices may tag a room at once.
async fn change_tags(
    app: &App,
    caller: &Requester,
    room: RoomSid,
    change: impl Fn(&mut Tags),
) -> Result<(), Error> {
    let changed = |content: Option<&str>| {
        let mut tags = tags_in(content);
        change(&mut tags);
        serde_json::to_string(&TagEventContent { tags }).map_err(|error| Error::internal(&error))
    };
    app.users
        .change_account_data(caller.sid, room, "m.tag", changed)
        .await?
}

/// A room of any kind: account data may be set before a join and after a leave.
async fn room(app: &App, id: &ruma::RoomId) -> Result<RoomSid, Error> {
    let room = app.rooms.reader().room(id).await?;
    Ok(room.ok_or(RoomError::UnknownRoom)?.sid)
}

fn own(caller: &Requester, user: &UserId) -> Result<(), Error> {
    if caller.user == user {
        Ok(())
    } else {
        Err(Error::forbidden("the data of another user"))
    }
}

fn unset() -> Error {
    Error::not_found("no such account data")
}

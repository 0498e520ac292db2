//! What other servers ask about this one, its users, its aliases and its list of rooms.
//! <https://spec.matrix.org/v1.19/server-server-api/#querying-for-information>,
//! <https://spec.matrix.org/v1.19/server-server-api/#published-room-directory>

use ruma::{
    UInt,
    api::federation::{
        directory::{
            get_public_rooms::v1 as get_public_rooms,
            get_public_rooms_filtered::v1 as get_public_rooms_filtered,
        },
        discovery::get_server_version::v1 as get_server_version,
        query::{
            get_profile_information::v1 as get_profile, get_room_information::v1 as get_directory,
        },
    },
    directory::{Filter, RoomNetwork},
};
use vatra_domain::flows::{appservices::look_for_alias, elsewhere, public_rooms as list};

use super::{super::error::Error, Origin};
use crate::wiring::App;

pub(super) async fn version(
    _: App,
    (): (),
    _: get_server_version::Request,
) -> Result<get_server_version::Response, Error> {
    let mut response = get_server_version::Response::new();
    response.server = Some(get_server_version::Server {
        name: Some("vatra".to_owned()),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
    });
    Ok(response)
}

pub(super) async fn profile(
    app: App,
    _: Origin,
    request: get_profile::Request,
) -> Result<get_profile::Response, Error> {
    if request.user_id.server_name() != app.server_name {
        return Err(Error::invalid_param("the user is not one of this server"));
    }
    let found = app.users.find(request.user_id.as_str()).await?;
    let (_, sid) = found.ok_or_else(|| Error::not_found("no such user"))?;
    let mut profile = app.users.profile(sid).await?;
    if let Some(field) = &request.field {
        profile.retain(|name, _| name == field.as_str());
    }
    Ok(profile.into_iter().collect())
}

pub(super) async fn directory(
    app: App,
    _: Origin,
    request: get_directory::Request,
) -> Result<get_directory::Response, Error> {
    if request.room_alias.server_name() != app.server_name {
        return Err(Error::invalid_param("the alias is not one of this server"));
    }
    let alias = &request.room_alias;
    look_for_alias(&app.rooms, &app.users, &app.asking, alias).await?;
    let found = elsewhere::alias(&app.rooms, &app.remote, alias);
    let (room, servers) = found.await?;
    Ok(get_directory::Response::new(room, servers))
}

pub(super) async fn public_rooms(
    app: App,
    _: Origin,
    request: get_public_rooms::Request,
) -> Result<get_public_rooms::Response, Error> {
    let mut response = get_public_rooms::Response::new();
    if let RoomNetwork::ThirdParty(_) = request.room_network {
        return Ok(response);
    }
    let reader = app.rooms.reader();
    let since = request.since.as_deref();
    let page = list::page(
        &reader,
        &RoomNetwork::Matrix,
        &Filter::new(),
        request.limit,
        since,
    )
    .await?;
    response.chunk = page.chunk;
    response.next_batch = page.next;
    response.prev_batch = page.previous;
    response.total_room_count_estimate = UInt::try_from(page.total).ok();
    Ok(response)
}

pub(super) async fn search_public_rooms(
    app: App,
    _: Origin,
    request: get_public_rooms_filtered::Request,
) -> Result<get_public_rooms_filtered::Response, Error> {
    let mut response = get_public_rooms_filtered::Response::new();
    if let RoomNetwork::ThirdParty(_) = request.room_network {
        return Ok(response);
    }
    let reader = app.rooms.reader();
    let since = request.since.as_deref();
    let page = list::page(
        &reader,
        &RoomNetwork::Matrix,
        &request.filter,
        request.limit,
        since,
    )
    .await?;
    response.chunk = page.chunk;
    response.next_batch = page.next;
    response.prev_batch = page.previous;
    response.total_room_count_estimate = UInt::try_from(page.total).ok();
    Ok(response)
}

//! Aliases and the list of public rooms.
//! <https://spec.matrix.org/v1.19/client-server-api/#room-aliases>,
//! <https://spec.matrix.org/v1.19/client-server-api/#published-room-directory>

use std::sync::Arc;

use http::StatusCode;
use ruma::{
    OwnedServerName, RoomId, UInt,
    api::{
        client::{
            alias::{
                create_alias::v3 as create_alias, delete_alias::v3 as delete_alias,
                get_alias::v3 as get_alias,
            },
            directory::{
                get_public_rooms::v3 as get_public_rooms,
                get_public_rooms_filtered::v3 as get_public_rooms_filtered,
                get_room_visibility::v3 as get_room_visibility,
                set_room_visibility::v3 as set_room_visibility,
            },
            room::{Visibility, aliases::v3 as aliases},
        },
        error::ErrorCode,
    },
    directory::{Filter, RoomNetwork},
};
use vatra_domain::{
    flows::{FlowError, directory, elsewhere, public_rooms},
    rooms::Room,
    users::Requester,
};

use super::{super::error::Error, rooms::Seen};
use crate::wiring::App;

pub(super) async fn create(
    app: App,
    caller: Requester,
    request: create_alias::Request,
) -> Result<create_alias::Response, Error> {
    match directory::create_alias(&app.rooms, &caller, &request.room_alias, &request.room_id).await
    {
        Ok(()) => Ok(create_alias::Response::new()),
        // The spec has another answer here than in createRoom.
        Err(error @ FlowError::AliasTaken) => {
            Err(Error::new(StatusCode::CONFLICT, ErrorCode::Unknown, error))
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn get(
    app: App,
    (): (),
    request: get_alias::Request,
) -> Result<get_alias::Response, Error> {
    let found = elsewhere::alias(&app.rooms, &app.remote, &request.room_alias).await?;
    let (room, servers) = found;
    Ok(get_alias::Response::new(room, servers))
}

pub(super) async fn delete(
    app: App,
    caller: Requester,
    request: delete_alias::Request,
) -> Result<delete_alias::Response, Error> {
    directory::remove_alias(&app.rooms, &caller, &request.room_alias).await?;
    Ok(delete_alias::Response::new())
}

/// `GET /rooms/{room}/aliases`: for members, and for all if the room is world readable.
pub(super) async fn of_room(
    app: App,
    caller: Requester,
    request: aliases::Request,
) -> Result<aliases::Response, Error> {
    let seen = Seen::current(&app, &caller, &request.room_id).await?;
    let aliases = directory::aliases_of(&seen.reader, &seen.room).await?;
    Ok(aliases::Response::new(aliases))
}

pub(super) async fn visibility(
    app: App,
    (): (),
    request: get_room_visibility::Request,
) -> Result<get_room_visibility::Response, Error> {
    let room = known(&app, &request.room_id).await?;
    let listed = public_rooms::is_listed(&app.rooms.reader(), &room).await?;
    let visibility = if listed {
        Visibility::Public
    } else {
        Visibility::Private
    };
    Ok(get_room_visibility::Response::new(visibility))
}

pub(super) async fn set_visibility(
    app: App,
    caller: Requester,
    request: set_room_visibility::Request,
) -> Result<set_room_visibility::Response, Error> {
    let room = known(&app, &request.room_id).await?;
    let listed = match request.visibility {
        Visibility::Public => true,
        Visibility::Private => false,
        _ => return Err(Error::invalid_param("visibility is public or private")),
    };
    public_rooms::set_listed(&app.rooms, &caller, &room, listed).await?;
    Ok(set_room_visibility::Response::new())
}

pub(super) async fn list(
    app: App,
    (): (),
    request: get_public_rooms::Request,
) -> Result<get_public_rooms::Response, Error> {
    let page = Asked {
        server: request.server,
        filter: Filter::new(),
        limit: request.limit,
        since: request.since,
    }
    .page(&app)
    .await?;
    let mut response = get_public_rooms::Response::new(page.chunk);
    response.next_batch = page.next;
    response.prev_batch = page.previous;
    response.total_room_count_estimate = UInt::try_from(page.total).ok();
    Ok(response)
}

pub(super) async fn search(
    app: App,
    _: Requester,
    request: get_public_rooms_filtered::Request,
) -> Result<get_public_rooms_filtered::Response, Error> {
    let mut response = get_public_rooms_filtered::Response::new();
    if let RoomNetwork::ThirdParty(_) = request.room_network {
        // No network is bridged by this server itself.
        response.total_room_count_estimate = Some(UInt::MIN);
        return Ok(response);
    }
    let page = Asked {
        server: request.server,
        filter: request.filter,
        limit: request.limit,
        since: request.since,
    }
    .page(&app)
    .await?;
    response.chunk = page.chunk;
    response.next_batch = page.next;
    response.prev_batch = page.previous;
    response.total_room_count_estimate = UInt::try_from(page.total).ok();
    Ok(response)
}

struct Asked {
    server: Option<OwnedServerName>,
    filter: Filter,
    limit: Option<UInt>,
    since: Option<String>,
}

impl Asked {
    async fn page(self, app: &App) -> Result<public_rooms::Page, Error> {
        if let Some(server) = self.server.filter(|server| *server != app.server_name) {
            let (filter, limit, since) = (self.filter, self.limit, self.since);
            let page = elsewhere::public_rooms(&app.remote, &server, filter, limit, since);
            return Ok(page.await?);
        }
        let reader = app.rooms.reader();
        let since = self.since.as_deref();
        Ok(public_rooms::page(&reader, &self.filter, self.limit, since).await?)
    }
}

async fn known(app: &App, room: &RoomId) -> Result<Arc<Room>, Error> {
    let room = app.rooms.reader().room(room).await?;
    room.ok_or_else(|| Error::not_found("no such room"))
}

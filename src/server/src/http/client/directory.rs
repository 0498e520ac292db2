//! Aliases and the list of public rooms.
//! <https://spec.matrix.org/v1.19/client-server-api/#room-aliases>,
//! <https://spec.matrix.org/v1.19/client-server-api/#published-room-directory>

use std::sync::Arc;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
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
                get_room_visibility::v3 as get_room_visibility,
                set_room_visibility::v3 as set_room_visibility,
            },
            room::{Visibility, aliases::v3 as aliases},
        },
        error::ErrorCode,
    },
    directory::{Filter, RoomNetwork},
};
use serde::Deserialize;
use serde_json::json;
use vatra_domain::{
    flows::{FlowError, appservices::look_for_alias, directory, elsewhere, public_rooms},
    rooms::Room,
    users::Requester,
};

use super::{
    super::{
        endpoint::{Input, Unsuspended},
        error::Error,
    },
    rooms::Seen,
};
use crate::wiring::App;

pub(super) async fn create(
    app: App,
    Unsuspended(caller): Unsuspended,
    request: create_alias::Request,
) -> Result<create_alias::Response, Error> {
    let services = app.users.services();
    let (alias, room) = (&request.room_alias, &request.room_id);
    match directory::create_alias(&app.rooms, services, &caller, alias, room).await {
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
    let alias = &request.room_alias;
    look_for_alias(&app.rooms, &app.users, &app.asking, alias).await?;
    let found = elsewhere::alias(&app.rooms, &app.remote, alias).await?;
    let (room, servers) = found;
    Ok(get_alias::Response::new(room, servers))
}

pub(super) async fn delete(
    app: App,
    Unsuspended(caller): Unsuspended,
    request: delete_alias::Request,
) -> Result<delete_alias::Response, Error> {
    directory::remove_alias(
        &app.receiver,
        app.users.services(),
        &caller,
        &request.room_alias,
    )
    .await?;
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
    Unsuspended(caller): Unsuspended,
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

/// `GET /publicRooms`.
pub(super) async fn list(app: App, (): (), input: Input) -> Result<Response, Error> {
    let limit = input.param("limit").map(|limit| limit.parse::<UInt>());
    let limit = limit.transpose();
    let asked = Asked {
        server: read_server(&input)?,
        filter: Filter::new(),
        limit: limit.map_err(|_| Error::invalid_param("limit is a number"))?,
        since: input.param("since"),
        network: RoomNetwork::Matrix,
    };
    shown(asked.page(&app).await?)
}

/// `POST /publicRooms`.
pub(super) async fn search(app: App, _: Requester, input: Input) -> Result<Response, Error> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        filter: Filter,
        limit: Option<UInt>,
        since: Option<String>,
        #[serde(flatten)]
        room_network: RoomNetwork,
    }
    let body: Body = input.read()?;
    let asked = Asked {
        server: read_server(&input)?,
        filter: body.filter,
        limit: body.limit,
        since: body.since,
        network: body.room_network,
    };
    shown(asked.page(&app).await?)
}

fn read_server(input: &Input) -> Result<Option<OwnedServerName>, Error> {
    let server = input.param("server").map(OwnedServerName::try_from);
    server
        .transpose()
        .map_err(|error| Error::invalid_param(&error.to_string()))
}

/// A page with every join rule written down, also the one that goes without saying: clients ask for it.
fn shown(page: public_rooms::Page) -> Result<Response, Error> {
    let mut chunk = Vec::with_capacity(page.chunk.len());
    for room in page.chunk {
        let mut looks = serde_json::to_value(&room).map_err(|error| Error::internal(&error))?;
        if let Some(looks) = looks.as_object_mut() {
            looks.insert("join_rule".to_owned(), json!(room.join_rule.as_str()));
        }
        chunk.push(looks);
    }
    let mut answer = json!({ "chunk": chunk, "total_room_count_estimate": page.total });
    if let Some(answer) = answer.as_object_mut() {
        let tokens = [("next_batch", page.next), ("prev_batch", page.previous)];
        answer.extend(
            tokens
                .into_iter()
                .filter_map(|(name, token)| Some((name.to_owned(), json!(token?)))),
        );
    }
    Ok(Json(answer).into_response())
}

struct Asked {
    server: Option<OwnedServerName>,
    filter: Filter,
    limit: Option<UInt>,
    since: Option<String>,
    network: RoomNetwork,
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
        Ok(public_rooms::page(&reader, &self.network, &self.filter, self.limit, since).await?)
    }
}

async fn known(app: &App, room: &RoomId) -> Result<Arc<Room>, Error> {
    let room = app.rooms.reader().room(room).await?;
    room.ok_or_else(|| Error::not_found("no such room"))
}

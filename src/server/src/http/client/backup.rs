//! Key backups. <https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups>
//!
//! Read and answered by hand: what is encrypted is copied as it came, also of algorithms that ruma does not know.

use std::collections::BTreeMap;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use ruma::{OwnedRoomId, RoomId, api::error::ErrorCode};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use vatra_domain::{
    e2ee::{BackupInfo, NewBackup, RoomSessions, SessionData},
    users::Requester,
};

use super::super::{endpoint::Input, error::Error};
use crate::wiring::App;

pub(super) async fn create(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    let new: NewBackup = input.read()?;
    let version = app.e2ee.create_backup(caller.sid, &new).await?;
    Ok(Json(json!({ "version": version.to_string() })).into_response())
}

#[derive(Serialize)]
struct Info {
    algorithm: String,
    auth_data: Box<RawValue>,
    count: u64,
    etag: String,
    version: String,
}

pub(super) async fn latest(app: App, caller: Requester, _: Input) -> Result<Response, Error> {
    let backup = app.e2ee.backup(caller.sid, None).await?;
    show(backup.ok_or_else(|| Error::not_found("there is no backup"))?)
}

pub(super) async fn get(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    let backup = app.e2ee.backup(caller.sid, Some(input.arg(0))).await?;
    show(backup.ok_or_else(|| Error::not_found("no such backup"))?)
}

fn show(backup: BackupInfo) -> Result<Response, Error> {
    let auth_data =
        RawValue::from_string(backup.row.auth_data).map_err(|error| Error::internal(&error))?;
    let info = Info {
        algorithm: backup.row.algorithm,
        auth_data,
        count: backup.row.count,
        etag: backup.row.etag.to_string(),
        version: backup.version.to_string(),
    };
    Ok(Json(info).into_response())
}

pub(super) async fn update(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    let new: NewBackup = input.read()?;
    app.e2ee
        .update_backup(caller.sid, input.arg(0), &new)
        .await?;
    Ok(Json(json!({})).into_response())
}

pub(super) async fn delete(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    app.e2ee.delete_backup(caller.sid, input.arg(0)).await?;
    Ok(Json(json!({})).into_response())
}

#[derive(Deserialize)]
struct AllKeys {
    rooms: BTreeMap<OwnedRoomId, RoomSessions>,
}

pub(super) async fn put_all(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    let body: AllKeys = input.read()?;
    put(&app, &caller, &input, body.rooms).await
}

pub(super) async fn put_room(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    let (room, sessions): (&RoomId, RoomSessions) = (input.id(0)?, input.read()?);
    let rooms = BTreeMap::from([(room.to_owned(), sessions)]);
    put(&app, &caller, &input, rooms).await
}

pub(super) async fn put_session(
    app: App,
    caller: Requester,
    input: Input,
) -> Result<Response, Error> {
    let (room, data): (&RoomId, SessionData) = (input.id(0)?, input.read()?);
    let sessions = BTreeMap::from([(input.arg(1).to_owned(), data)]);
    let rooms = BTreeMap::from([(room.to_owned(), RoomSessions { sessions })]);
    put(&app, &caller, &input, rooms).await
}

async fn put(
    app: &App,
    caller: &Requester,
    input: &Input,
    rooms: BTreeMap<OwnedRoomId, RoomSessions>,
) -> Result<Response, Error> {
    let change = app
        .e2ee
        .put_backup_keys(caller.sid, &version(input)?, &rooms)
        .await?;
    Ok(Json(change).into_response())
}

pub(super) async fn get_all(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    let version = version(&input)?;
    let rooms = app.e2ee.backup_keys(caller.sid, &version, None).await?;
    Ok(Json(BTreeMap::from([("rooms", rooms)])).into_response())
}

pub(super) async fn get_room(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    let (version, room): (String, &RoomId) = (version(&input)?, input.id(0)?);
    let mut rooms = app
        .e2ee
        .backup_keys(caller.sid, &version, Some(room))
        .await?;
    Ok(Json(rooms.remove(room).unwrap_or_default()).into_response())
}

pub(super) async fn get_session(
    app: App,
    caller: Requester,
    input: Input,
) -> Result<Response, Error> {
    let (version, room): (String, &RoomId) = (version(&input)?, input.id(0)?);
    let key = app
        .e2ee
        .backup_key(caller.sid, &version, room, input.arg(1))
        .await?;
    Ok(Json(key).into_response())
}

pub(super) async fn delete_all(
    app: App,
    caller: Requester,
    input: Input,
) -> Result<Response, Error> {
    remove(&app, &caller, &input, None, None).await
}

pub(super) async fn delete_room(
    app: App,
    caller: Requester,
    input: Input,
) -> Result<Response, Error> {
    remove(&app, &caller, &input, Some(input.id(0)?), None).await
}

pub(super) async fn delete_session(
    app: App,
    caller: Requester,
    input: Input,
) -> Result<Response, Error> {
    let session = Some(input.arg(1));
    remove(&app, &caller, &input, Some(input.id(0)?), session).await
}

async fn remove(
    app: &App,
    caller: &Requester,
    input: &Input,
    room: Option<&RoomId>,
    session: Option<&str>,
) -> Result<Response, Error> {
    let change = app
        .e2ee
        .delete_backup_keys(caller.sid, &version(input)?, room, session)
        .await?;
    Ok(Json(change).into_response())
}

fn version(input: &Input) -> Result<String, Error> {
    input.param("version").ok_or_else(|| {
        Error::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::MissingParam,
            "version says which backup is meant",
        )
    })
}

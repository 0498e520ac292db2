//! Dehydrated devices (MSC3814).

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use ruma::{
    api::client::dehydrated_device::{
        delete_dehydrated_device::unstable as delete_dehydrated,
        get_dehydrated_device::unstable as get_dehydrated, get_events::unstable as get_events,
    },
    serde::Raw,
};
use serde_json::{json, value::RawValue};
use vatra_domain::{e2ee::NewDehydrated, users::Requester};
use vatra_store::Position;

use super::super::{endpoint::Input, error::Error};
use crate::wiring::App;

/// Read by hand: the domain says what is wrong with a key.
pub(super) async fn put(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    let new: NewDehydrated = input.read()?;
    let device_id = new.device_id.clone();
    app.e2ee
        .put_dehydrated(&caller.user, caller.sid, new)
        .await?;
    Ok(Json(json!({ "device_id": device_id })).into_response())
}

pub(super) async fn get(
    app: App,
    caller: Requester,
    _: get_dehydrated::Request,
) -> Result<get_dehydrated::Response, Error> {
    let row = app.e2ee.dehydrated(caller.sid).await?;
    let data = RawValue::from_string(row.data).map_err(|error| Error::internal(&error))?;
    Ok(get_dehydrated::Response {
        device_id: row.device.into(),
        device_data: Raw::from_json(data),
    })
}

pub(super) async fn delete(
    app: App,
    caller: Requester,
    _: delete_dehydrated::Request,
) -> Result<delete_dehydrated::Response, Error> {
    let device = app.e2ee.delete_dehydrated(caller.sid).await?;
    Ok(delete_dehydrated::Response {
        device_id: device.into(),
    })
}

pub(super) async fn messages(
    app: App,
    caller: Requester,
    request: get_events::Request,
) -> Result<get_events::Response, Error> {
    let after = match request.next_batch {
        Some(place) => place
            .parse()
            .map_err(|_| Error::invalid_param("next_batch is none of this server"))?,
        None => 0,
    };
    let waiting = app
        .e2ee
        .dehydrated_messages(caller.sid, request.device_id.as_str(), Position(after))
        .await?;
    Ok(get_events::Response {
        next_batch: Some(waiting.upto.0.to_string()),
        events: waiting.events.into_iter().map(Raw::from_json).collect(),
    })
}

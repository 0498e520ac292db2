//! Devices. <https://spec.matrix.org/v1.19/client-server-api/#device-management>

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use ruma::{
    OwnedDeviceId,
    api::client::device::{
        self, delete_device::v3 as delete_device, delete_devices::v3 as delete_devices,
        get_device::v3 as get_device, get_devices::v3 as get_devices,
    },
};
use serde::Deserialize;
use serde_json::json;
use vatra_domain::{
    clock,
    users::{Device, Requester},
};

use super::super::{endpoint::Input, error::Error, uiaa::Operation};
use crate::wiring::App;

pub(super) async fn list(
    app: App,
    caller: Requester,
    _: get_devices::Request,
) -> Result<get_devices::Response, Error> {
    let devices = app.users.devices(caller.sid).await?;
    Ok(get_devices::Response {
        devices: devices.into_iter().map(show).collect(),
    })
}

pub(super) async fn get(
    app: App,
    caller: Requester,
    request: get_device::Request,
) -> Result<get_device::Response, Error> {
    let device = app
        .users
        .device(caller.sid, request.device_id.as_str())
        .await?;
    Ok(get_device::Response {
        device: show(device.ok_or_else(unknown)?),
    })
}

/// `PUT /devices/{device}`: a name for a device; for application services also a new one.
pub(super) async fn rename(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    #[derive(Deserialize)]
    struct Body {
        display_name: Option<String>,
    }
    let Body { display_name } = input.read()?;
    let device = input.arg(0);
    if caller.service.is_some() {
        let new = app.users.put_device(caller.sid, device, display_name);
        let status = if new.await? {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        return Ok((status, Json(json!({}))).into_response());
    }
    if let Some(name) = display_name {
        app.users
            .rename_device(caller.sid, device, Some(name))
            .await?;
    } else if app.users.device(caller.sid, device).await?.is_none() {
        return Err(unknown());
    }
    Ok(Json(json!({})).into_response())
}

pub(super) async fn delete(
    app: App,
    caller: Requester,
    request: delete_device::Request,
) -> Result<delete_device::Response, Error> {
    let operation = Operation::by_password("delete device", &request.device_id, &caller);
    operation.check(&app, request.auth.as_ref()).await?;
    app.users
        .logout(caller.sid, request.device_id.as_str())
        .await?;
    Ok(delete_device::Response {})
}

pub(super) async fn delete_many(
    app: App,
    caller: Requester,
    request: delete_devices::Request,
) -> Result<delete_devices::Response, Error> {
    let operation = Operation::by_password("delete devices", &request.devices, &caller);
    operation.check(&app, request.auth.as_ref()).await?;
    for device in &request.devices {
        app.users.logout(caller.sid, device.as_str()).await?;
    }
    Ok(delete_devices::Response {})
}

fn unknown() -> Error {
    Error::not_found("no such device")
}

fn show(device: Device) -> device::Device {
    device::Device {
        device_id: OwnedDeviceId::from(device.id),
        display_name: device.row.display_name,
        last_seen_ip: device.row.last_seen_ip,
        last_seen_ts: device.row.last_seen.map(clock::to_ruma),
    }
}

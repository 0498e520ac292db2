//! Keys of this server's users, for other servers.
//! <https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption>,
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid>

use std::collections::BTreeMap;

use ruma::{
    OwnedUserId, UInt,
    api::federation::{
        device::get_devices::v1 as get_devices,
        keys::{claim_keys::v1 as claim_keys, get_keys::v1 as get_keys},
    },
    serde::Raw,
};
use serde_json::value::RawValue;
use vatra_domain::{
    e2ee::{E2eeError, MAX_ASKED},
    followers::key_news::Shown,
};

use super::{
    super::{claims, error::Error},
    Origin,
};
use crate::wiring::App;

pub(super) async fn devices(
    app: App,
    _: Origin,
    request: get_devices::Request,
) -> Result<get_devices::Response, Error> {
    let user = request.user_id;
    if user.server_name() != app.server_name {
        return Err(Error::invalid_param("the user is not one of this server"));
    }
    let list = app.e2ee.list_of(&user).await?;
    let (stream, keys) = list.ok_or_else(|| Error::not_found("no such user"))?;
    let stream = UInt::try_from(stream.0).map_err(|error| Error::internal(&error))?;
    let mut response = get_devices::Response::new(user, stream);
    for (device, keys) in keys.devices {
        let shown = Shown::new(&keys, app.config.federation.share_device_names);
        let mut device = get_devices::UserDevice::new(device.into(), Raw::from_json(shown.keys));
        device.device_display_name = shown.name;
        response.devices.push(device);
    }
    response.master_key = keys.master.map(Raw::from_json);
    response.self_signing_key = keys.self_signing.map(Raw::from_json);
    Ok(response)
}

/// Users of other servers are passed over, like those who do not exist.
pub(super) async fn query(
    app: App,
    _: Origin,
    request: get_keys::Request,
) -> Result<get_keys::Response, Error> {
    let asked = request.device_keys;
    let devices = asked.values().map(|devices| devices.len().max(1));
    if devices.sum::<usize>() > MAX_ASKED {
        let message = format!("more than {MAX_ASKED} users or devices in one request");
        return Err(E2eeError::TooLarge(message).into());
    }
    let mut response = get_keys::Response::new(BTreeMap::new());
    for (user, devices) in asked {
        if user.server_name() != app.server_name {
            continue;
        }
        let devices: Vec<_> = devices.iter().map(ToString::to_string).collect();
        let Some(keys) = app.e2ee.keys_of(None, &user, &devices).await? else {
            continue;
        };
        let shown = keys.devices.into_iter().map(|(device, keys)| {
            let keys = if app.config.federation.share_device_names {
                keys
            } else {
                Shown::new(&keys, false).keys
            };
            (device.into(), Raw::from_json(keys))
        });
        response.device_keys.insert(user.clone(), shown.collect());
        let insert = |map: &mut BTreeMap<OwnedUserId, _>, key: Option<Box<RawValue>>| {
            map.extend(key.map(|key| (user.clone(), Raw::from_json(key))));
        };
        insert(&mut response.master_keys, keys.master);
        insert(&mut response.self_signing_keys, keys.self_signing);
    }
    Ok(response)
}

pub(super) async fn claim(
    app: App,
    _: Origin,
    request: claim_keys::Request,
) -> Result<claim_keys::Response, Error> {
    let asked = request.one_time_keys.into_iter();
    let own = asked.filter(|(user, _)| user.server_name() == app.server_name);
    let found = app.e2ee.claim(&claims::asked(own)).await?;
    Ok(claim_keys::Response::new(claims::shown(found)?))
}

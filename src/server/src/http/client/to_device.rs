//! Messages to devices. <https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging>

use ruma::{
    api::client::to_device::send_event_to_device::v3 as send, to_device::DeviceIdOrAllDevices,
};
use vatra_domain::{
    e2ee::{Messages, Recipient},
    flows,
    users::Requester,
};

use super::super::error::Error;
use crate::wiring::App;

pub(super) async fn send(
    app: App,
    caller: Requester,
    request: send::Request,
) -> Result<send::Response, Error> {
    let messages: Messages = request
        .messages
        .into_iter()
        .map(|(user, devices)| {
            let devices = devices.into_iter().map(|(device, content)| {
                let recipient = match device {
                    DeviceIdOrAllDevices::AllDevices => Recipient::All,
                    DeviceIdOrAllDevices::DeviceId(device) => Recipient::Device(device.to_string()),
                };
                (recipient, content.into_json())
            });
            (user, devices.collect())
        })
        .collect();
    let kind = request.event_type.to_string();
    let transaction = (kind.as_str(), request.txn_id.as_str());
    flows::keys::send_to_devices(&app.e2ee, &app.server_name, &caller, transaction, messages)
        .await?;
    Ok(send::Response {})
}

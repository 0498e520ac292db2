//! What other servers tell of their users' devices, and their messages to devices of this server. A server speaks for its own users only.
//! <https://spec.matrix.org/v1.19/server-server-api/#device-management>,
//! <https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging>

use async_trait::async_trait;
use ruma::{
    ServerName, UserId,
    api::federation::transactions::edu::{
        DeviceListUpdateContent, DirectDeviceContent, Edu, SigningKeyUpdateContent,
    },
    serde::Raw,
    to_device::DeviceIdOrAllDevices,
};
use tracing::debug;

use super::edus::TakeEdu;
use crate::{
    e2ee::{E2ee, E2eeError, Messages, Recipient, RemoteChange, SenderTxn},
    rooms::{RoomError, Rooms},
    schema::UserSid,
};

/// Takes units about devices.
pub struct Devices {
    e2ee: E2ee,
    rooms: Rooms,
}

/// Why a unit was not taken.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error(transparent)]
    E2ee(#[from] E2eeError),
    #[error(transparent)]
    Room(#[from] RoomError),
}

impl Devices {
    /// With these keys and rooms.
    pub fn new(e2ee: E2ee, rooms: Rooms) -> Self {
        Self { e2ee, rooms }
    }

    async fn device(
        &self,
        origin: &ServerName,
        content: &DeviceListUpdateContent,
    ) -> Result<(), NotTaken> {
        let user = &content.user_id;
        let Some(sid) = self.met(origin, user).await? else {
            return Ok(());
        };
        let gone = content.deleted == Some(true);
        let keys = content.keys.clone().filter(|_| !gone);
        let change = RemoteChange {
            id: content.device_id.to_string(),
            keys: keys.map(Raw::into_json),
            name: content.device_display_name.clone(),
            stream: content.stream_id.into(),
            previous: content.prev_id.iter().map(|id| (*id).into()).collect(),
        };
        Ok(self
            .e2ee
            .remote_device_changed((user, sid), &change)
            .await?)
    }

    async fn signing_keys(
        &self,
        origin: &ServerName,
        content: &SigningKeyUpdateContent,
    ) -> Result<(), NotTaken> {
        let user = &content.user_id;
        let Some(sid) = self.met(origin, user).await? else {
            return Ok(());
        };
        let master = content.master_key.as_ref().map(Raw::json);
        let self_signing = content.self_signing_key.as_ref().map(Raw::json);
        let changed = self
            .e2ee
            .remote_signing_keys_changed((user, sid), master, self_signing);
        Ok(changed.await?)
    }

    async fn message(
        &self,
        origin: &ServerName,
        content: &DirectDeviceContent,
    ) -> Result<(), NotTaken> {
        if content.sender.server_name() != origin {
            return Ok(());
        }
        let own = self.rooms.server_name();
        let users = content.messages.iter();
        let users = users.filter(|(user, _)| user.server_name() == own);
        let messages: Messages = users
            .map(|(user, devices)| {
                let devices = devices.iter().map(|(device, content)| {
                    let recipient = match device {
                        DeviceIdOrAllDevices::AllDevices => Recipient::All,
                        DeviceIdOrAllDevices::DeviceId(id) => Recipient::Device(id.to_string()),
                    };
                    (recipient, content.json().to_owned())
                });
                (user.clone(), devices.collect())
            })
            .collect();
        if messages.is_empty() {
            return Ok(());
        }
        let sid = self.e2ee.number_of(&content.sender).await?;
        // A message that comes again, in another transaction, is known by its id.
        let txn = SenderTxn {
            sid,
            device: "",
            id: content.message_id.as_str(),
        };
        let kind = content.ev_type.to_string();
        let sent = self
            .e2ee
            .send(&content.sender, Some(txn), &kind, &messages)
            .await;
        Ok(sent?)
    }

    /// The number of a user of that server whom somebody here shares a room with: of others there is nothing to remember.
    async fn met(&self, origin: &ServerName, user: &UserId) -> Result<Option<UserSid>, RoomError> {
        if user.server_name() != origin {
            return Ok(None);
        }
        let reader = self.rooms.reader();
        let Some(sid) = reader.user_sid(user).await? else {
            return Ok(None);
        };
        Ok(reader.shares_a_room(sid).await?.then_some(sid))
    }
}

#[async_trait]
impl TakeEdu for Devices {
    async fn take(&self, origin: &ServerName, edu: &Edu) -> bool {
        let taken = match edu {
            Edu::DeviceListUpdate(content) => self.device(origin, content).await,
            Edu::SigningKeyUpdate(content) => self.signing_keys(origin, content).await,
            Edu::DirectToDevice(content) => self.message(origin, content).await,
            _ => return false,
        };
        if let Err(error) = taken {
            debug!(%origin, %error, "a unit about devices was not taken");
        }
        true
    }
}

//! A dehydrated device: a device whose private keys its user has encrypted and left here, so that it receives room keys
//! while the user is logged in nowhere (MSC3814).
//!
//! It is a device like others: it is listed, has keys, is sent messages. A user has at most one.

use std::collections::BTreeMap;

use ruma::UserId;
use serde::Deserialize;
use serde_json::value::RawValue;
use vatra_store::{Batch, CommitError, Position, View};

use super::{
    E2ee, E2eeError, KeysUpload,
    cross_signing::is_signing_key,
    device_keys::{Owner, assert_row, put_upload},
    forget::forget_device,
    inbox::Waiting,
    parse::short,
};
use crate::schema::{self, DehydratedRow, DeviceRow, UserSid};

/// The largest encrypted device, in bytes.
const MAX_DATA: usize = 64 << 10;
/// How many messages an answer has at most.
const MESSAGES: usize = 100;

/// A device to keep, as it came.
#[derive(Debug, Deserialize)]
pub struct NewDehydrated {
    /// Its id.
    pub device_id: String,
    /// What it is called.
    pub initial_device_display_name: Option<String>,
    /// Its private keys, encrypted.
    pub device_data: Box<RawValue>,
    /// Its identity keys.
    pub device_keys: Box<RawValue>,
    /// One-time keys.
    #[serde(default)]
    pub one_time_keys: BTreeMap<String, Box<RawValue>>,
    /// Fallback keys.
    #[serde(default)]
    pub fallback_keys: BTreeMap<String, Box<RawValue>>,
}

#[derive(Deserialize)]
struct Algorithm {
    #[serde(rename = "algorithm")]
    _algorithm: String,
}

const NONE: E2eeError = E2eeError::NotFound("there is no dehydrated device");

impl E2ee {
    /// Keeps a dehydrated device in place of the one before.
    ///
    /// # Errors
    /// Those of [`E2ee::upload_keys`]; [`E2eeError::IdInUse`] for the id of a device that someone is logged in with.
    pub async fn put_dehydrated(
        &self,
        user: &UserId,
        sid: UserSid,
        new: NewDehydrated,
    ) -> Result<(), E2eeError> {
        short("a device id", &new.device_id)?;
        if let Some(name) = &new.initial_device_display_name {
            short("the name of a device", name)?;
        }
        if new.device_data.get().len() > MAX_DATA {
            let message = format!("device_data is larger than {MAX_DATA} bytes");
            return Err(E2eeError::TooLarge(message));
        }
        if serde_json::from_str::<Algorithm>(new.device_data.get()).is_err() {
            let message = "device_data is an object with an algorithm";
            return Err(E2eeError::BadJson(message.to_owned()));
        }
        let owner = Owner {
            user,
            sid,
            device: &new.device_id,
        };
        let upload = KeysUpload {
            device_keys: Some(new.device_keys),
            one_time_keys: new.one_time_keys,
            fallback_keys: new.fallback_keys,
        };
        let parsed = upload.parse(owner)?;
        let data = DehydratedRow {
            device: new.device_id.clone(),
            data: new.device_data.get().to_owned(),
        };
        let row = DeviceRow {
            display_name: new.initial_device_display_name,
            last_seen: None,
            last_seen_ip: None,
        };
        loop {
            let view = self.store().view();
            let mut batch = Batch::new();
            let before = view.get(&schema::DEHYDRATED, &sid).await?;
            assert_row(&mut batch, &schema::DEHYDRATED, &sid, before.as_ref());
            let same = before.as_ref().is_some_and(|it| it.device == data.device);
            if let Some(before) = before.filter(|_| !same) {
                forget_device(&view, &mut batch, sid, &before.device).await?;
                batch.delete(&schema::DEVICES, &(sid, before.device));
            }
            if !same {
                let taken = view.contains(&schema::DEVICES, &owner.key()).await?
                    || is_signing_key(&view, sid, &data.device).await?;
                if taken {
                    return Err(E2eeError::IdInUse);
                }
                batch.assert_absent(&schema::DEVICES, &owner.key());
            }
            batch.put(&schema::DEVICES, &owner.key(), &row);
            batch.put(&schema::DEHYDRATED, &sid, &data);
            put_upload(&view, &mut batch, owner, &parsed).await?;
            match self.store().write(batch).await {
                Err(CommitError::AssertFailed) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// The user's dehydrated device.
    ///
    /// # Errors
    /// [`E2eeError::NotFound`].
    pub async fn dehydrated(&self, user: UserSid) -> Result<DehydratedRow, E2eeError> {
        of(&self.store().view(), user).await
    }

    /// Removes the user's dehydrated device; gives its id.
    ///
    /// # Errors
    /// [`E2eeError::NotFound`].
    pub async fn delete_dehydrated(&self, user: UserSid) -> Result<String, E2eeError> {
        loop {
            let view = self.store().view();
            let row = of(&view, user).await?;
            let mut batch = Batch::new();
            batch.assert_equals(&schema::DEHYDRATED, &user, &row);
            forget_device(&view, &mut batch, user, &row.device).await?;
            batch.delete(&schema::DEVICES, &(user, row.device.clone()));
            match self.store().write(batch).await {
                Err(CommitError::AssertFailed) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(row.device),
            }
        }
    }

    /// A page of the messages that wait for the dehydrated device, after the place where the last page ended. They stay until
    /// the device is removed.
    ///
    /// # Errors
    /// [`E2eeError::NotFound`] if that is not the user's dehydrated device.
    pub async fn dehydrated_messages(
        &self,
        user: UserSid,
        device: &str,
        after: Position,
    ) -> Result<Waiting, E2eeError> {
        let view = self.store().view();
        if of(&view, user).await?.device != device {
            return Err(NONE);
        }
        let span = (after, view.watermark());
        Ok(self.waiting(&view, user, device, span, MESSAGES).await?)
    }
}

async fn of(view: &View, user: UserSid) -> Result<DehydratedRow, E2eeError> {
    view.get(&schema::DEHYDRATED, &user).await?.ok_or(NONE)
}

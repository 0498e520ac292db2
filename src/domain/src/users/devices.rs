//! Devices. Logging in makes one, logging out removes it.

use vatra_store::{Batch, CommitError, Direction, Range, View};

use super::{Requester, Users, UsersError};
use crate::{
    e2ee,
    schema::{self, DeviceRow, UserSid, topic},
};

/// How often a device is written as seen, in milliseconds.
const SEEN_EVERY_MS: u64 = 5 * 60 * 1000;

/// Of how many users is known that they are there.
const MAX_ACTIVE: usize = 200_000;

/// The most devices that a user has at once. Each of them is sent every room key.
const MAX_DEVICES: usize = 1_000;
/// The longest id and the longest name of a device, in bytes.
const MAX_NAME: usize = 255;

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its id.
    pub id: String,
    /// What is known of it.
    pub row: DeviceRow,
}

impl Users {
    /// A user's devices.
    pub async fn devices(&self, user: UserSid) -> Result<Vec<Device>, UsersError> {
        let view = self.inner.store.view();
        let rows = view
            .range(
                &schema::DEVICES,
                Range::prefix(&(user,)),
                Direction::Forward,
                usize::MAX,
            )
            .await?;
        Ok(rows
            .into_iter()
            .map(|((_, id), row)| Device { id, row })
            .collect())
    }

    /// One device.
    pub async fn device(&self, user: UserSid, id: &str) -> Result<Option<Device>, UsersError> {
        let row = self
            .inner
            .store
            .view()
            .get(&schema::DEVICES, &(user, id.to_owned()))
            .await?;
        Ok(row.map(|row| Device {
            id: id.to_owned(),
            row,
        }))
    }

    /// Names a device.
    pub async fn rename_device(
        &self,
        user: UserSid,
        id: &str,
        name: Option<String>,
    ) -> Result<(), UsersError> {
        check_name(name.as_deref())?;
        self.change_device(user, id, |row| row.display_name.clone_from(&name))
            .await
    }

    /// Whether a user may have another device, of this id.
    pub(super) async fn check_new_device(
        &self,
        view: &View,
        user: UserSid,
        id: &str,
    ) -> Result<(), UsersError> {
        if e2ee::is_signing_key(view, user, id).await? {
            return Err(UsersError::BadDeviceId);
        }
        let range = Range::prefix(&(user,));
        let devices = view
            .range(&schema::DEVICES, range, Direction::Forward, MAX_DEVICES)
            .await?;
        if devices.len() >= MAX_DEVICES {
            return Err(UsersError::TooManyDevices);
        }
        Ok(())
    }

    /// A device is there: written at most once in five minutes, and not waited for.
    pub fn seen(&self, requester: &Requester, ip: &str) {
        let Some(device) = &requester.device else {
            return;
        };
        let (now, key) = (self.now(), (requester.sid, device.to_string()));
        let due = self
            .inner
            .seen
            .get(&key)
            .is_none_or(|last| now.saturating_sub(*last) >= SEEN_EVERY_MS);
        if !due {
            return;
        }
        if self.inner.seen.len() > 100_000 {
            self.inner.seen.clear();
        }
        self.inner.seen.insert(key, now);
        let (users, user, device, ip) = (
            self.clone(),
            requester.sid,
            device.to_string(),
            ip.to_owned(),
        );
        tokio::spawn(async move {
            let seen = users
                .change_device(user, &device, |row| {
                    row.last_seen = Some(now);
                    row.last_seen_ip = Some(ip.clone());
                })
                .await;
            if let Err(error) = seen {
                tracing::debug!(%error, "a device could not be written as seen");
            }
        });
    }

    /// A user is there, with some device: in memory only.
    pub fn is_there(&self, user: UserSid) {
        let (active, now) = (&self.inner.active, self.now());
        if let Some(mut at) = active.get_mut(&user) {
            *at = now;
            return;
        }
        if active.len() > MAX_ACTIVE {
            active.clear();
        }
        active.insert(user, now);
    }

    /// When a user was last there, as far as is known: of what was before the start, devices' rows know.
    ///
    /// # Errors
    /// The store's.
    pub async fn last_there(&self, user: UserSid) -> Result<Option<u64>, UsersError> {
        if let Some(at) = self.inner.active.get(&user) {
            return Ok(Some(*at));
        }
        let devices = self.devices(user).await?.into_iter();
        let seen = devices.filter_map(|device| device.row.last_seen);
        // Programs that wait in the background are written as seen as well, and count for nothing.
        Ok(seen.filter(|at| *at < self.inner.started).max())
    }

    async fn change_device(
        &self,
        user: UserSid,
        id: &str,
        change: impl Fn(&mut DeviceRow),
    ) -> Result<(), UsersError> {
        loop {
            let key = (user, id.to_owned());
            let old = self
                .inner
                .store
                .view()
                .get(&schema::DEVICES, &key)
                .await?
                .ok_or(UsersError::NotFound)?;
            let mut new = old.clone();
            change(&mut new);
            let mut batch = Batch::new();
            batch.assert_equals(&schema::DEVICES, &key, &old);
            batch.put(&schema::DEVICES, &key, &new);
            if new.display_name != old.display_name {
                batch.wake(topic::user(user));
                let view = self.inner.store.view();
                // Others see the name beside the device's keys.
                if view.contains(&schema::DEVICE_KEYS, &key).await? {
                    e2ee::device_list_changed(&view, &mut batch, user, e2ee::Changed::Device(id))
                        .await?;
                }
            }
            match self.inner.store.write(batch).await {
                Err(CommitError::AssertFailed) => {}
                other => return other.map(|_| ()).map_err(Into::into),
            }
        }
    }
}

/// Checks the id that a client gives a device.
pub(super) fn check_id(id: &str) -> Result<(), UsersError> {
    if id.is_empty() || id.len() > MAX_NAME || id.contains(char::is_control) {
        return Err(UsersError::BadDeviceId);
    }
    Ok(())
}

/// Checks what a device is to be called.
pub(super) fn check_name(name: Option<&str>) -> Result<(), UsersError> {
    if name.is_some_and(|name| name.len() > MAX_NAME) {
        return Err(UsersError::DeviceNameTooLong);
    }
    Ok(())
}

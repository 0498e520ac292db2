//! The devices of users of other servers, as their servers tell.
//!
//! A list is asked for whole, and then kept current by the changes that its server sends, each of which names the one before it.
//! When one is missing, or when no room is shared any more and nothing will be sent, the list is not current: it is not handed out before
//! the server was asked again. Signatures of others' keys are the business of the clients, who do not trust servers; the shape of what
//! is kept is checked as if a local device had uploaded it.
//! <https://spec.matrix.org/v1.19/server-server-api/#device-management>

use ruma::{OwnedUserId, UserId};
use serde_json::value::RawValue;
use vatra_store::{Batch, CommitError, Range, View};

use super::{
    E2ee, E2eeError, KeysOf, MAX_ID,
    changes::record,
    device_keys::assert_row,
    parse::{self, whole},
};
use crate::schema::{self, KeyUsage, RemoteListRow, SignedRow, UserSid};

/// The most devices that are kept of a user of another server.
const MAX_DEVICES: usize = 1_000;
/// The longest name of a device that is kept, in bytes.
const MAX_NAME: usize = 100;

/// A device of a user of another server.
#[derive(Debug)]
pub struct RemoteDevice {
    /// Its id.
    pub id: String,
    /// Its identity keys.
    pub keys: Box<RawValue>,
    /// Its name, if the server tells.
    pub name: Option<String>,
}

/// All that a server says of one of its users.
#[derive(Debug, Default)]
pub struct RemoteList {
    /// The number of this state.
    pub stream: u64,
    /// The devices.
    pub devices: Vec<RemoteDevice>,
    /// The master key.
    pub master: Option<Box<RawValue>>,
    /// The key that signs the user's devices.
    pub self_signing: Option<Box<RawValue>>,
}

/// A change of one device.
#[derive(Debug)]
pub struct RemoteChange {
    /// The device.
    pub id: String,
    /// Its keys; `None` if it is gone or has none any more.
    pub keys: Option<Box<RawValue>>,
    /// Its name.
    pub name: Option<String>,
    /// The number of the state after this.
    pub stream: u64,
    /// Those of the states before it.
    pub previous: Vec<u64>,
}

impl E2ee {
    /// The keys of a user of another server, if what is stored of them is current.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn known_keys(
        &self,
        viewer: (&UserId, UserSid),
        user: &UserId,
        devices: &[String],
    ) -> Result<Option<KeysOf>, E2eeError> {
        let Some(sid) = self.inner.ids.user(user).await? else {
            return Ok(None);
        };
        let view = self.store().view();
        let row = view.get(&schema::REMOTE_LISTS, &sid).await?;
        let Some(row) = row.filter(|row| row.current) else {
            return Ok(None);
        };
        let mut keys = self
            .stored_keys(&view, Some(viewer), (user, sid), devices)
            .await?;
        for (device, name) in row.names {
            if let Some(json) = keys.devices.get_mut(&device) {
                *json = named(json, &name)?;
            }
        }
        Ok(Some(keys))
    }

    /// The number of a user of any server, given now if there was none.
    ///
    /// # Errors
    /// The store could not be read or written.
    pub async fn number_of(&self, user: &UserId) -> Result<UserSid, E2eeError> {
        Ok(self.inner.ids.intern_user(user).await?)
    }

    /// Stores a whole list: it is current from now on. What cannot be a key is left out.
    ///
    /// # Errors
    /// The store could not be read or written.
    pub async fn store_remote_list(
        &self,
        user: &UserId,
        list: &RemoteList,
    ) -> Result<(), E2eeError> {
        let sid = self.inner.ids.intern_user(user).await?;
        let devices: Vec<_> = list
            .devices
            .iter()
            .take(MAX_DEVICES)
            .filter_map(|device| Some((&device.id, device_row(user, &device.id, &device.keys)?)))
            .collect();
        let names = list.devices.iter().take(MAX_DEVICES).filter_map(|device| {
            let name = device.name.as_ref().filter(|name| name.len() <= MAX_NAME)?;
            Some((device.id.clone(), name.clone()))
        });
        let names: Vec<_> = names.collect();
        loop {
            let view = self.store().view();
            let old = view.get(&schema::REMOTE_LISTS, &sid).await?;
            let mut batch = Batch::new();
            batch.delete_range(&schema::DEVICE_KEYS, Range::prefix(&(sid,)));
            batch.delete_range(&schema::CROSS_SIGNING_KEYS, Range::prefix(&(sid,)));
            for (device, row) in &devices {
                batch.put(&schema::DEVICE_KEYS, &(sid, (*device).clone()), row);
            }
            let signing = [
                (KeyUsage::Master, &list.master),
                (KeyUsage::SelfSigning, &list.self_signing),
            ];
            for (usage, json) in signing {
                if let Some(row) = json
                    .as_ref()
                    .and_then(|json| signing_row(user, usage, json))
                {
                    batch.put(&schema::CROSS_SIGNING_KEYS, &(sid, usage), &row);
                }
            }
            let new = RemoteListRow {
                stream: list.stream,
                current: true,
                changes: 0,
                names: names.clone(),
            };
            if self.replace(batch, sid, old, new).await? {
                return Ok(());
            }
        }
    }

    /// Somebody has asked for the keys of a user with whom a room is shared, and they were not stored: changes matter from now on.
    ///
    /// # Errors
    /// The store could not be read or written.
    pub async fn asked_for(&self, user: &UserId) -> Result<(), E2eeError> {
        let sid = self.inner.ids.intern_user(user).await?;
        let view = self.store().view();
        if !view.contains(&schema::REMOTE_LISTS, &sid).await? {
            let row = RemoteListRow::default();
            self.replace(Batch::new(), sid, None, row).await?;
        }
        Ok(())
    }

    /// A device of a user of another server changed. Those who share a room with the user will ask for the keys; if the change does not
    /// follow on what is stored, the server will be asked for all of them.
    ///
    /// # Errors
    /// The store could not be read or written.
    pub async fn remote_device_changed(
        &self,
        (user, sid): (&UserId, UserSid),
        change: &RemoteChange,
    ) -> Result<(), E2eeError> {
        loop {
            let view = self.store().view();
            let mut batch = Batch::new();
            let old = view.get(&schema::REMOTE_LISTS, &sid).await?;
            if old.is_none() && change.keys.is_none() {
                // Nobody has asked for this user's keys, and this brings none.
                return Ok(());
            }
            record(&view, &mut batch, sid).await?;
            let Some(old) = old else {
                self.store().write(batch).await?;
                return Ok(());
            };
            let known = change.stream <= old.stream;
            // Numbers grow: a list that is newer than the change before this one has it.
            let follows = !change.previous.is_empty()
                && change.previous.iter().all(|stream| *stream <= old.stream);
            let mut new = old.clone();
            new.current &= known || follows;
            if new.current && !known {
                new.stream = change.stream;
                apply(&mut batch, (user, sid), change, &mut new);
            }
            if self.replace(batch, sid, Some(old), new).await? {
                return Ok(());
            }
        }
    }

    /// The cross-signing keys of a user of another server changed.
    ///
    /// # Errors
    /// The store could not be read or written.
    pub async fn remote_signing_keys_changed(
        &self,
        (user, sid): (&UserId, UserSid),
        master: Option<&RawValue>,
        self_signing: Option<&RawValue>,
    ) -> Result<(), E2eeError> {
        loop {
            let view = self.store().view();
            let mut batch = Batch::new();
            record(&view, &mut batch, sid).await?;
            let Some(old) = view.get(&schema::REMOTE_LISTS, &sid).await? else {
                self.store().write(batch).await?;
                return Ok(());
            };
            let keys = [
                (KeyUsage::Master, master),
                (KeyUsage::SelfSigning, self_signing),
            ];
            for (usage, json) in keys {
                if let Some(row) = json.and_then(|json| signing_row(user, usage, json)) {
                    batch.put(&schema::CROSS_SIGNING_KEYS, &(sid, usage), &row);
                }
            }
            let new = old.clone();
            if self.replace(batch, sid, Some(old), new).await? {
                return Ok(());
            }
        }
    }

    /// Nothing more will be told of these users: what is stored of them is not current any more.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn outdate(
        &self,
        view: &View,
        batch: &mut Batch,
        users: &[UserSid],
    ) -> Result<(), E2eeError> {
        let rows = view.get_many(&schema::REMOTE_LISTS, users).await?;
        for (user, row) in users.iter().zip(rows) {
            if let Some(row) = row.filter(|row| row.current) {
                let new = RemoteListRow {
                    current: false,
                    changes: row.changes.wrapping_add(1),
                    ..row
                };
                batch.put(&schema::REMOTE_LISTS, user, &new);
            }
        }
        Ok(())
    }

    /// A user of another server is in a room here again: if something may have been missed since their keys were known, those who
    /// share rooms with them are to ask anew.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn met_again(
        &self,
        view: &View,
        batch: &mut Batch,
        user: UserSid,
        missed: bool,
    ) -> Result<(), E2eeError> {
        let row = view.get(&schema::REMOTE_LISTS, &user).await?;
        if row.is_some_and(|row| missed || !row.current) {
            record(view, batch, user).await?;
        }
        Ok(())
    }

    /// Writes the batch with the row in place of the old one; false if somebody came in between.
    async fn replace(
        &self,
        mut batch: Batch,
        user: UserSid,
        old: Option<RemoteListRow>,
        mut new: RemoteListRow,
    ) -> Result<bool, E2eeError> {
        new.changes = old.as_ref().map_or(0, |row| row.changes.wrapping_add(1));
        assert_row(&mut batch, &schema::REMOTE_LISTS, &user, old.as_ref());
        batch.put(&schema::REMOTE_LISTS, &user, &new);
        match self.store().write(batch).await {
            Err(CommitError::AssertFailed) => Ok(false),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(true),
        }
    }
}

/// What another server says of its users' keys in answer to a question, with everything left out that cannot be a key of theirs.
pub fn checked_keys(
    user: &OwnedUserId,
    devices: impl IntoIterator<Item = RemoteDevice>,
    master: Option<&RawValue>,
    self_signing: Option<&RawValue>,
) -> KeysOf {
    let shown = |row: &SignedRow, name: Option<&str>| {
        let signatures = row.signatures.iter();
        let signatures: Vec<_> = signatures
            .map(|(id, signature)| (user.as_str(), id.as_str(), signature.as_str()))
            .collect();
        RawValue::from_string(whole(row, user, &signatures, name)).ok()
    };
    let devices = devices.into_iter().take(MAX_DEVICES).filter_map(|device| {
        let row = device_row(user, &device.id, &device.keys)?;
        let name = device.name.filter(|name| name.len() <= MAX_NAME);
        Some((device.id, shown(&row, name.as_deref())?))
    });
    let key = |usage, json: Option<&RawValue>| shown(&signing_row(user, usage, json?)?, None);
    KeysOf {
        devices: devices.collect(),
        master: key(KeyUsage::Master, master),
        self_signing: key(KeyUsage::SelfSigning, self_signing),
        user_signing: None,
    }
}

/// Brings a change of a device into a batch and the row.
fn apply(
    batch: &mut Batch,
    (user, sid): (&UserId, UserSid),
    change: &RemoteChange,
    row: &mut RemoteListRow,
) {
    let keys = change.keys.as_ref();
    let keys = keys.and_then(|keys| device_row(user, &change.id, keys));
    let place = (sid, change.id.clone());
    row.names.retain(|(device, _)| *device != change.id);
    match keys {
        Some(keys) => {
            batch.put(&schema::DEVICE_KEYS, &place, &keys);
            let name = change.name.as_ref();
            if let Some(name) = name.filter(|name| name.len() <= MAX_NAME)
                && row.names.len() < MAX_DEVICES
            {
                row.names.push((change.id.clone(), name.clone()));
            }
        }
        None => {
            batch.delete(&schema::DEVICE_KEYS, &place);
        }
    }
}

fn device_row(user: &UserId, device: &str, json: &RawValue) -> Option<SignedRow> {
    if device.is_empty() || device.len() > MAX_ID {
        return None;
    }
    let (signed, public) = parse::device_keys(json, user, device).ok()?;
    Some(SignedRow {
        public,
        signatures: signed.by(user),
        body: signed.body,
    })
}

fn signing_row(user: &UserId, usage: KeyUsage, json: &RawValue) -> Option<SignedRow> {
    let (signed, public) = parse::cross_signing_key(json, user, usage).ok()?;
    Some(SignedRow {
        public: Some(public),
        signatures: signed.by(user),
        body: signed.body,
    })
}

/// The same keys with the device's name beside them.
fn named(json: &RawValue, name: &str) -> Result<Box<RawValue>, E2eeError> {
    let open = json.get().strip_suffix('}').unwrap_or_default();
    let name = serde_json::Value::from(name);
    let text = format!("{open},\"unsigned\":{{\"device_display_name\":{name}}}}}");
    RawValue::from_string(text)
        .map_err(|_| vatra_store::StoreError::corrupt("a stored key is no JSON").into())
}

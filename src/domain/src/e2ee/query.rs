//! A user's keys as another may see them.
//!
//! Nobody sees who has verified whom: of others' keys one sees the signatures by their own user and one's own, nothing
//! else. <https://spec.matrix.org/v1.19/client-server-api/#key-and-signature-security>

use std::collections::BTreeMap;

use ruma::UserId;
use serde_json::value::RawValue;
use vatra_store::{Direction, Range, StoreError, View};

use super::{
    E2ee, E2eeError,
    cross_signing::signing_keys,
    parse::{key_id, whole},
};
use crate::schema::{self, DeviceRow, SignedRow, UserSid};

/// A user's keys.
#[derive(Debug, Default)]
pub struct KeysOf {
    /// Identity keys by device.
    pub devices: BTreeMap<String, Box<RawValue>>,
    /// The master key.
    pub master: Option<Box<RawValue>>,
    /// The self-signing key.
    pub self_signing: Option<Box<RawValue>>,
    /// The user-signing key: only for its own user.
    pub user_signing: Option<Box<RawValue>>,
}

impl E2ee {
    /// The keys of a user of this server: of all devices, or of those listed. `viewer` is the local user who asks; another
    /// server's question has none. `None` for a user without an account.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn keys_of(
        &self,
        viewer: Option<(&UserId, UserSid)>,
        user: &UserId,
        devices: &[String],
    ) -> Result<Option<KeysOf>, E2eeError> {
        let Some(sid) = self.inner.ids.user(user).await? else {
            return Ok(None);
        };
        let view = self.store().view();
        if !view.contains(&schema::ACCOUNTS, &sid).await? {
            return Ok(None);
        }
        let signing = signing_keys(&view, sid).await?;
        let [master, self_signing, user_signing] = signing.as_slice() else {
            return Err(StoreError::corrupt("not three cross-signing keys").into());
        };
        let mut keys = KeysOf::default();
        let signer = self_signing.as_ref().and_then(|row| row.public.as_deref());
        for (device, row, shown) in self.devices(&view, sid, devices).await? {
            let allowed = [Some(key_id(&device)), signer.map(key_id)];
            let signatures = row
                .signatures
                .iter()
                .filter(|(id, _)| allowed.iter().flatten().any(|it| it == id))
                .map(|(id, signature)| (user.as_str(), id.as_str(), signature.as_str()));
            let name = shown.and_then(|row| row.display_name);
            let json = whole(&row, user, &signatures.collect::<Vec<_>>(), name.as_deref());
            keys.devices.insert(device, raw(json)?);
        }
        let own = viewer.is_some_and(|(viewer, _)| viewer == user);
        if let Some(master) = master {
            keys.master = Some(self.master(&view, viewer, (user, sid), master).await?);
        }
        if let Some(row) = self_signing {
            keys.self_signing = Some(raw(whole(row, user, &signed_by_user(row, user), None))?);
        }
        if let Some(row) = user_signing.as_ref().filter(|_| own) {
            keys.user_signing = Some(raw(whole(row, user, &signed_by_user(row, user), None))?);
        }
        Ok(Some(keys))
    }

    /// The devices that have keys: id, keys, and what else is known of the device.
    async fn devices(
        &self,
        view: &View,
        user: UserSid,
        wanted: &[String],
    ) -> Result<Vec<(String, SignedRow, Option<DeviceRow>)>, E2eeError> {
        let rows: Vec<_> = if wanted.is_empty() {
            let range = Range::prefix(&(user,));
            view.range(&schema::DEVICE_KEYS, range, Direction::Forward, usize::MAX)
                .await?
        } else {
            let keys: Vec<_> = wanted.iter().map(|device| (user, device.clone())).collect();
            let rows = view.get_many(&schema::DEVICE_KEYS, &keys).await?;
            let rows = keys.into_iter().zip(rows);
            rows.filter_map(|(key, row)| Some((key, row?))).collect()
        };
        let keys: Vec<_> = rows.iter().map(|(key, _)| key.clone()).collect();
        let shown = view.get_many(&schema::DEVICES, &keys).await?;
        let rows = rows.into_iter().zip(shown);
        Ok(rows
            .map(|(((_, device), row), shown)| (device, row, shown))
            .collect())
    }

    /// The master key, with the signature that the viewer made of it.
    async fn master(
        &self,
        view: &View,
        viewer: Option<(&UserId, UserSid)>,
        (user, sid): (&UserId, UserSid),
        row: &SignedRow,
    ) -> Result<Box<RawValue>, E2eeError> {
        let mut signatures = signed_by_user(row, user);
        let mine = match (viewer, &row.public) {
            (Some((_, viewer)), Some(public)) => {
                let key = (viewer, sid, public.clone());
                view.get(&schema::USER_SIGNATURES, &key).await?
            }
            _ => None,
        };
        if let (Some((viewer, _)), Some(mine)) = (viewer, &mine) {
            signatures.push((viewer.as_str(), &mine.key_id, &mine.signature));
        }
        raw(whole(row, user, &signatures, None))
    }
}

fn signed_by_user<'a>(row: &'a SignedRow, user: &'a UserId) -> Vec<(&'a str, &'a str, &'a str)> {
    let signatures = row.signatures.iter();
    signatures
        .map(|(id, signature)| (user.as_str(), id.as_str(), signature.as_str()))
        .collect()
}

fn raw(json: String) -> Result<Box<RawValue>, E2eeError> {
    RawValue::from_string(json).map_err(|_| StoreError::corrupt("a stored key is no JSON").into())
}

//! What a device uploads: its identity keys, one-time keys and fallback keys, in one batch.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#uploading-keys>

use std::collections::BTreeMap;

use ruma::UserId;
use serde_json::value::RawValue;
use vatra_store::{Batch, CommitError, Key, Map, Value, View};

use super::{
    E2ee, E2eeError,
    changes::device_list_changed,
    forget::forget_one_time_keys,
    one_time::{self, OneTimeKeys},
    parse::{self, Signed, key_id},
    verify,
};
use crate::schema::{self, KeyUsage, SignedRow, UserSid};

/// An upload, as it came.
#[derive(Debug, Default)]
pub struct KeysUpload {
    /// Identity keys, if they are new.
    pub device_keys: Option<Box<RawValue>>,
    /// One-time keys by id.
    pub one_time_keys: BTreeMap<String, Box<RawValue>>,
    /// Fallback keys by id, at most one an algorithm.
    pub fallback_keys: BTreeMap<String, Box<RawValue>>,
}

/// Whose keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) user: &'a UserId,
    pub(super) sid: UserSid,
    pub(super) device: &'a str,
}

impl Owner<'_> {
    pub(super) fn key(&self) -> (UserSid, String) {
        (self.sid, self.device.to_owned())
    }
}

/// An upload of the right shape; its signatures are not checked yet.
pub(super) struct ParsedUpload {
    device_keys: Option<(Signed, Option<String>)>,
    keys: OneTimeKeys,
}

impl KeysUpload {
    pub(super) fn parse(&self, owner: Owner<'_>) -> Result<ParsedUpload, E2eeError> {
        let device_keys = match &self.device_keys {
            Some(json) => Some(parse::device_keys(json, owner.user, owner.device)?),
            None => None,
        };
        let keys = OneTimeKeys::parse(&self.one_time_keys, &self.fallback_keys)?;
        Ok(ParsedUpload { device_keys, keys })
    }
}

impl E2ee {
    /// Stores what a device uploads, all of it or nothing, and gives how many one-time keys the device has left, by
    /// algorithm. Keys that are there already are no error, and a one-time key that was handed out does not come back.
    ///
    /// # Errors
    /// [`E2eeError::BadJson`], [`E2eeError::InvalidParam`], [`E2eeError::InvalidSignature`], [`E2eeError::TooLarge`] for what
    /// cannot be such keys; [`E2eeError::DeviceGone`].
    pub async fn upload_keys(
        &self,
        user: &UserId,
        sid: UserSid,
        device: &str,
        upload: &KeysUpload,
    ) -> Result<Vec<(String, u64)>, E2eeError> {
        let owner = Owner { user, sid, device };
        let parsed = upload.parse(owner)?;
        loop {
            let view = self.store().view();
            let row = view.get(&schema::DEVICES, &owner.key()).await?;
            let row = row.ok_or(E2eeError::DeviceGone)?;
            let mut batch = Batch::new();
            batch.assert_equals(&schema::DEVICES, &owner.key(), &row);
            let counts = put_upload(&view, &mut batch, owner, &parsed).await?;
            if batch.is_empty() {
                return Ok(counts);
            }
            match self.store().write(batch).await {
                Err(CommitError::AssertFailed) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(counts),
            }
        }
    }
}

/// Adds an upload to a batch that asserts all it was judged by. Gives the counts after it.
pub(super) async fn put_upload(
    view: &View,
    batch: &mut Batch,
    owner: Owner<'_>,
    upload: &ParsedUpload,
) -> Result<Vec<(String, u64)>, E2eeError> {
    let stored = view.get(&schema::DEVICE_KEYS, &owner.key()).await?;
    let mut public = stored.as_ref().and_then(|row| row.public.clone());
    let mut renewed = false;
    assert_row(batch, &schema::DEVICE_KEYS, &owner.key(), stored.as_ref());
    if let Some((signed, key)) = &upload.device_keys {
        // With another identity the old one-time keys are worth nothing: their signatures do not match any more.
        renewed = stored.is_some() && public != *key;
        public.clone_from(key);
        let row = SignedRow {
            body: signed.body.clone(),
            public: key.clone(),
            signatures: signatures(view, owner, signed, key.as_deref(), stored.as_ref()).await?,
        };
        if stored.as_ref() != Some(&row) {
            batch.put(&schema::DEVICE_KEYS, &owner.key(), &row);
            device_list_changed(view, batch, owner.sid).await?;
        }
    }
    for key in upload.keys.all() {
        verify::one_time_key(key, public.as_deref(), owner.user, owner.device)?;
    }
    if renewed {
        forget_one_time_keys(batch, owner.sid, owner.device);
    }
    one_time::put(view, batch, owner, &upload.keys, renewed).await
}

/// The signatures to keep with a device's keys: its own, and that of the user's self-signing key.
async fn signatures(
    view: &View,
    owner: Owner<'_>,
    signed: &Signed,
    public: Option<&str>,
    stored: Option<&SignedRow>,
) -> Result<Vec<(String, String)>, E2eeError> {
    let own = verify::self_signature(signed, public, owner.user, owner.device)?;
    let mut kept: Vec<_> = own.into_iter().collect();
    let signer = view
        .get(
            &schema::CROSS_SIGNING_KEYS,
            &(owner.sid, KeyUsage::SelfSigning),
        )
        .await?
        .and_then(|row| row.public);
    let Some(signer) = signer else {
        return Ok(kept);
    };
    let id = key_id(&signer);
    let known = stored
        .filter(|row| row.body == signed.body)
        .and_then(|row| row.signatures.iter().find(|(known, _)| *known == id));
    match (signed.by_key(owner.user, &id), known) {
        (Some(signature), _) if verify::matches(&signed.body, &signer, &signature) => {
            kept.push((id, signature));
        }
        (Some(_), _) => {
            return Err(verify::wrong(
                "the self-signing key's signature of the device does not match",
            ));
        }
        (None, Some(known)) => kept.push(known.clone()),
        (None, None) => {}
    }
    Ok(kept)
}

/// The batch fails unless the row is what was read, or absent like it.
pub(super) fn assert_row<K: Key, V: Value>(
    batch: &mut Batch,
    map: &Map<K, V>,
    key: &K,
    row: Option<&V>,
) {
    match row {
        Some(row) => batch.assert_equals(map, key, row),
        None => batch.assert_absent(map, key),
    };
}

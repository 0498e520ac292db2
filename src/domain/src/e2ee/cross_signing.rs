//! A user's three cross-signing keys. <https://spec.matrix.org/v1.19/client-server-api/#cross-signing>

use ruma::UserId;
use serde_json::value::RawValue;
use vatra_store::{Batch, CommitError, Range, StoreError, View};

use super::{
    E2ee, E2eeError,
    changes::device_list_changed,
    device_keys::assert_row,
    parse::{self, Signed, key_id},
    verify,
};
use crate::schema::{self, KeyUsage, SignedRow, UserSid};

/// An upload, as it came.
#[derive(Debug, Default)]
pub struct SigningKeys {
    /// The master key.
    pub master: Option<Box<RawValue>>,
    /// The key that signs the user's devices.
    pub self_signing: Option<Box<RawValue>>,
    /// The key that signs other users.
    pub user_signing: Option<Box<RawValue>>,
}

/// What became of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploaded {
    /// The keys are there.
    Done,
    /// The upload would change keys that are there: the user must show who they are first.
    NeedsAuthentication,
}

struct NewKey {
    usage: KeyUsage,
    signed: Signed,
    public: String,
}

impl SigningKeys {
    fn parse(&self, user: &UserId) -> Result<Vec<NewKey>, E2eeError> {
        let keys = [
            (KeyUsage::Master, &self.master),
            (KeyUsage::SelfSigning, &self.self_signing),
            (KeyUsage::UserSigning, &self.user_signing),
        ];
        let keys = keys
            .into_iter()
            .filter_map(|(usage, json)| Some((usage, json.as_ref()?)));
        keys.map(|(usage, json)| {
            let (signed, public) = parse::cross_signing_key(json, user, usage)?;
            Ok(NewKey {
                usage,
                signed,
                public,
            })
        })
        .collect()
    }
}

/// Whether a user's cross-signing key has this name: then no device may.
///
/// # Errors
/// The store could not be read.
pub async fn is_signing_key(view: &View, user: UserSid, name: &str) -> Result<bool, StoreError> {
    let rows = signing_keys(view, user).await?;
    let mut publics = rows
        .iter()
        .flatten()
        .filter_map(|row| row.public.as_deref());
    Ok(publics.any(|public| public == name))
}

/// A user's keys, by [`KeyUsage::ALL`].
pub(super) async fn signing_keys(
    view: &View,
    user: UserSid,
) -> Result<Vec<Option<SignedRow>>, StoreError> {
    let keys = KeyUsage::ALL.map(|usage| (user, usage));
    view.get_many(&schema::CROSS_SIGNING_KEYS, &keys).await
}

fn of(rows: &[Option<SignedRow>], usage: KeyUsage) -> Option<&SignedRow> {
    let place = KeyUsage::ALL.iter().position(|it| *it == usage)?;
    rows.get(place)?.as_ref()
}

impl E2ee {
    /// Stores cross-signing keys. The first ones are taken as they come, and so is a repetition of what is there; anything else
    /// wants `authenticated`. A new master key ends the keys that the old one had signed.
    ///
    /// # Errors
    /// [`E2eeError::BadJson`], [`E2eeError::InvalidParam`], [`E2eeError::InvalidSignature`] for what cannot be such keys;
    /// [`E2eeError::NoMasterKey`]; [`E2eeError::IdInUse`] if a device has a key's name.
    pub async fn upload_signing_keys(
        &self,
        user: &UserId,
        sid: UserSid,
        keys: &SigningKeys,
        authenticated: bool,
    ) -> Result<Uploaded, E2eeError> {
        let new = keys.parse(user)?;
        loop {
            let view = self.store().view();
            let stored = signing_keys(&view, sid).await?;
            let mut batch = Batch::new();
            let changes = plan(&view, &mut batch, (user, sid), &new, &stored).await?;
            if !changes {
                return Ok(Uploaded::Done);
            }
            if of(&stored, KeyUsage::Master).is_some() && !authenticated {
                return Ok(Uploaded::NeedsAuthentication);
            }
            match self.store().write(batch).await {
                Err(CommitError::AssertFailed) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(Uploaded::Done),
            }
        }
    }
}

/// Checks the new keys against those that are there and adds them to the batch; false if they are the same.
async fn plan(
    view: &View,
    batch: &mut Batch,
    (user, sid): (&UserId, UserSid),
    new: &[NewKey],
    stored: &[Option<SignedRow>],
) -> Result<bool, E2eeError> {
    let old_master = of(stored, KeyUsage::Master);
    let new_master = new.iter().find(|key| key.usage == KeyUsage::Master);
    let master = match (new_master, old_master) {
        (Some(key), _) => &key.public,
        (None, Some(row)) => row.public.as_ref().ok_or(E2eeError::NoMasterKey)?,
        (None, None) => return Err(E2eeError::NoMasterKey),
    };
    let mut rows = Vec::new();
    for key in new {
        let signatures = match key.usage {
            KeyUsage::Master => master_signatures(view, (user, sid), key).await?,
            _ => vec![verify::by_master(&key.signed, master, user)?],
        };
        let row = SignedRow {
            body: key.signed.body.clone(),
            public: Some(key.public.clone()),
            signatures,
        };
        rows.push((key.usage, row));
    }
    let same = |usage, row: &SignedRow| of(stored, usage).is_some_and(|old| old.body == row.body);
    if rows.iter().all(|(usage, row)| same(*usage, row)) {
        return Ok(false);
    }
    for key in new {
        let device = (sid, key.public.clone());
        if view.contains(&schema::DEVICES, &device).await? {
            return Err(E2eeError::IdInUse);
        }
        batch.assert_absent(&schema::DEVICES, &device);
    }
    for (usage, row) in KeyUsage::ALL.iter().zip(stored) {
        assert_row(
            batch,
            &schema::CROSS_SIGNING_KEYS,
            &(sid, *usage),
            row.as_ref(),
        );
    }
    let replaced = new_master
        .is_some_and(|key| old_master.is_none_or(|old| old.public.as_ref() != Some(&key.public)));
    if replaced {
        let range = Range::prefix(&(sid,));
        batch.delete_range(&schema::CROSS_SIGNING_KEYS, range);
    }
    for (usage, row) in &rows {
        // What is there may have gathered signatures since.
        if replaced || !same(*usage, row) {
            batch.put(&schema::CROSS_SIGNING_KEYS, &(sid, *usage), row);
        }
    }
    let user_signing = rows.iter().find(|(it, _)| *it == KeyUsage::UserSigning);
    if replaced || user_signing.is_some_and(|(usage, row)| !same(*usage, row)) {
        batch.delete_range(&schema::USER_SIGNATURES, Range::prefix(&(sid,)));
        batch.delete_range(&schema::USER_SIGNATURE_LOG, Range::prefix(&(sid,)));
    }
    device_list_changed(view, batch, sid).await?;
    Ok(true)
}

/// The signatures that come with a master key: by itself and by the user's own devices. Others are not kept.
async fn master_signatures(
    view: &View,
    (user, sid): (&UserId, UserSid),
    key: &NewKey,
) -> Result<Vec<(String, String)>, E2eeError> {
    let mut kept = Vec::new();
    for (id, signature) in key.signed.by(user) {
        let Some(name) = id.strip_prefix("ed25519:") else {
            continue;
        };
        let public = if id == key_id(&key.public) {
            Some(key.public.clone())
        } else {
            let row = view
                .get(&schema::DEVICE_KEYS, &(sid, name.to_owned()))
                .await?;
            row.and_then(|row| row.public)
        };
        match public {
            Some(public) if verify::matches(&key.signed.body, &public, &signature) => {
                kept.push((id, signature));
            }
            Some(_) => {
                return Err(verify::wrong(
                    "a signature of the master key does not match",
                ));
            }
            None => {}
        }
    }
    Ok(kept)
}

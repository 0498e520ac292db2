//! Signatures that users add to keys that are there: of their own devices and master key, and of others' master keys.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload>

use std::collections::BTreeMap;

use ruma::{OwnedUserId, UserId};
use serde_json::value::RawValue;
use vatra_store::{Batch, CommitError, View};

use super::{
    E2ee, E2eeError, Failure,
    changes::device_list_changed,
    parse::{Signed, key_id},
    verify,
};
use crate::schema::{self, KeyUsage, SignedRow, UserSid, UserSignatureRow, topic};

/// Signed objects by user and key: a device's id, or a public key.
pub type SignedObjects = BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>;
/// The signatures that were not taken.
pub type Failures = BTreeMap<OwnedUserId, BTreeMap<String, Failure>>;

/// The most objects of one request.
const MAX_OBJECTS: usize = 1_000;
/// The most signatures that a key gathers from its own user.
const MAX_SIGNATURES: usize = 1_000;

/// Why one object was not taken.
enum Refusal {
    Failure(Failure),
    Error(E2eeError),
}

impl<E: Into<E2eeError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        match error.into() {
            E2eeError::BadJson(message)
            | E2eeError::InvalidParam(message)
            | E2eeError::TooLarge(message) => Self::Failure(Failure::BadJson(message)),
            error => Self::Error(error),
        }
    }
}

impl E2ee {
    /// Adds signatures, each object for itself; gives those that were not taken, and why.
    ///
    /// # Errors
    /// [`E2eeError::TooLarge`] for more than a thousand objects.
    pub async fn upload_signatures(
        &self,
        user: &UserId,
        sid: UserSid,
        objects: &SignedObjects,
    ) -> Result<Failures, E2eeError> {
        if objects.values().map(BTreeMap::len).sum::<usize>() > MAX_OBJECTS {
            let message = format!("more than {MAX_OBJECTS} objects in one request");
            return Err(E2eeError::TooLarge(message));
        }
        let mut failures = Failures::new();
        for (target, keys) in objects {
            for (name, object) in keys {
                match self.sign((user, sid), target, name, object).await {
                    Ok(()) => {}
                    Err(Refusal::Error(error)) => return Err(error),
                    Err(Refusal::Failure(failure)) => {
                        let of_user = failures.entry(target.clone()).or_default();
                        of_user.insert(name.clone(), failure);
                    }
                }
            }
        }
        Ok(failures)
    }

    async fn sign(
        &self,
        signer: (&UserId, UserSid),
        target: &UserId,
        name: &str,
        object: &RawValue,
    ) -> Result<(), Refusal> {
        let signed = Signed::read(object)?;
        loop {
            let view = self.store().view();
            let mut batch = Batch::new();
            if target == signer.0 {
                sign_own(&view, &mut batch, signer, name, &signed).await?;
            } else {
                let target = self.inner.ids.user(target).await?;
                let target = target.ok_or(Refusal::Failure(Failure::NotFound))?;
                sign_other(&view, &mut batch, signer, target, name, &signed).await?;
            }
            if batch.is_empty() {
                return Ok(());
            }
            match self.store().write(batch).await {
                Err(CommitError::AssertFailed) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }
}

/// A device signed by the self-signing key, or the master key signed by a device.
async fn sign_own(
    view: &View,
    batch: &mut Batch,
    (user, sid): (&UserId, UserSid),
    name: &str,
    signed: &Signed,
) -> Result<(), Refusal> {
    let device = (sid, name.to_owned());
    if let Some(row) = view.get(&schema::DEVICE_KEYS, &device).await? {
        let signer = public_of(view, sid, KeyUsage::SelfSigning).await?;
        let mut known = row.public.iter().map(|key| (key_id(name), key.clone()));
        let mut known: Vec<_> = known.by_ref().collect();
        known.extend(signer.map(|key| (key_id(&key), key)));
        if let Some(new) = with_signatures(&row, signed, user, &known)? {
            batch.assert_equals(&schema::DEVICE_KEYS, &device, &row);
            batch.put(&schema::DEVICE_KEYS, &device, &new);
            device_list_changed(view, batch, sid).await?;
        }
        return Ok(());
    }
    let place = (sid, KeyUsage::Master);
    let row = view.get(&schema::CROSS_SIGNING_KEYS, &place).await?;
    let row = row
        .filter(|row| row.public.as_deref() == Some(name))
        .ok_or(Refusal::Failure(Failure::NotFound))?;
    let mut known = Vec::new();
    for (id, _) in signed.by(user) {
        let Some(device) = id.strip_prefix("ed25519:") else {
            continue;
        };
        let place = (sid, device.to_owned());
        let keys = view.get(&schema::DEVICE_KEYS, &place).await?;
        known.extend(keys.and_then(|keys| keys.public).map(|key| (id, key)));
    }
    if let Some(new) = with_signatures(&row, signed, user, &known)? {
        batch.assert_equals(&schema::CROSS_SIGNING_KEYS, &place, &row);
        batch.put(&schema::CROSS_SIGNING_KEYS, &place, &new);
        device_list_changed(view, batch, sid).await?;
    }
    Ok(())
}

/// Another user's master key, signed by the user-signing key. Nobody but the signer will see it.
async fn sign_other(
    view: &View,
    batch: &mut Batch,
    (user, sid): (&UserId, UserSid),
    target: UserSid,
    name: &str,
    signed: &Signed,
) -> Result<(), Refusal> {
    let place = (target, KeyUsage::Master);
    let row = view.get(&schema::CROSS_SIGNING_KEYS, &place).await?;
    let row = row
        .filter(|row| row.public.as_deref() == Some(name))
        .ok_or(Refusal::Failure(Failure::NotFound))?;
    must_be(&row, signed)?;
    let key = public_of(view, sid, KeyUsage::UserSigning).await?;
    let key = key.ok_or(invalid("there is no user-signing key"))?;
    let key_id = key_id(&key);
    let signature = signed
        .by_key(user, &key_id)
        .filter(|signature| verify::matches(&signed.body, &key, signature))
        .ok_or(invalid("the user-signing key did not sign it"))?;
    let place = (sid, target, name.to_owned());
    let new = UserSignatureRow { key_id, signature };
    if view.get(&schema::USER_SIGNATURES, &place).await?.as_ref() == Some(&new) {
        return Ok(());
    }
    let own = (sid, KeyUsage::UserSigning);
    if let Some(row) = view.get(&schema::CROSS_SIGNING_KEYS, &own).await? {
        batch.assert_equals(&schema::CROSS_SIGNING_KEYS, &own, &row);
    }
    batch.put(&schema::USER_SIGNATURES, &place, &new);
    batch.put_at_position(&schema::USER_SIGNATURE_LOG, move |position| {
        ((sid, position, target), ())
    });
    batch.wake(topic::devices(sid));
    Ok(())
}

/// The row with the signatures of known keys that it does not have yet; `None` if it has them all.
fn with_signatures(
    row: &SignedRow,
    signed: &Signed,
    user: &UserId,
    known: &[(String, String)],
) -> Result<Option<SignedRow>, Refusal> {
    must_be(row, signed)?;
    let (mut new, mut seen) = (row.clone(), false);
    for (id, signature) in signed.by(user) {
        if row.signatures.contains(&(id.clone(), signature.clone())) {
            seen = true;
            continue;
        }
        let Some((_, public)) = known.iter().find(|(it, _)| *it == id) else {
            continue;
        };
        if !verify::matches(&signed.body, public, &signature) {
            return Err(invalid("the signature does not match"));
        }
        new.signatures.retain(|(it, _)| *it != id);
        new.signatures.push((id, signature));
        seen = true;
    }
    if !seen {
        return Err(invalid("it is signed by no key that may sign it"));
    }
    if new.signatures.len() > MAX_SIGNATURES {
        return Err(invalid("it has too many signatures"));
    }
    Ok((new != *row).then_some(new))
}

fn must_be(row: &SignedRow, signed: &Signed) -> Result<(), Refusal> {
    if row.body == signed.body {
        Ok(())
    } else {
        Err(invalid("the object is not the key that is known"))
    }
}

async fn public_of(
    view: &View,
    user: UserSid,
    usage: KeyUsage,
) -> Result<Option<String>, E2eeError> {
    let row = view
        .get(&schema::CROSS_SIGNING_KEYS, &(user, usage))
        .await?;
    Ok(row.and_then(|row| row.public))
}

fn invalid(message: &'static str) -> Refusal {
    Refusal::Failure(Failure::InvalidSignature(message))
}

//! Signatures of JSON objects. <https://spec.matrix.org/v1.19/appendices/#checking-for-a-signature>
//!
//! The bytes that are checked are the canonical JSON of the object without `signatures` and `unsigned`.

use ruma::UserId;
use vodozemac::{Ed25519PublicKey, Ed25519Signature};

use super::{
    E2eeError,
    parse::{OneTimeKey, Signed, key_id},
};

/// Whether the Ed25519 key (in Base64) made the signature (in Base64) of this canonical JSON.
pub(super) fn matches(body: &str, public: &str, signature: &str) -> bool {
    let (Ok(public), Ok(signature)) = (
        Ed25519PublicKey::from_base64(public),
        Ed25519Signature::from_base64(signature),
    ) else {
        return false;
    };
    public.verify(body.as_bytes(), &signature).is_ok()
}

/// The device's signature of its own keys, if there is one. A device without one is kept and shown as it is: no client
/// will believe it, and that is for clients to say. One that does not match is refused.
pub(super) fn self_signature(
    signed: &Signed,
    public: Option<&str>,
    user: &UserId,
    device: &str,
) -> Result<Option<(String, String)>, E2eeError> {
    let id = key_id(device);
    let Some(signature) = signed.by_key(user, &id) else {
        return Ok(None);
    };
    let valid = public.is_some_and(|public| matches(&signed.body, public, &signature));
    if valid {
        Ok(Some((id, signature)))
    } else {
        Err(wrong("the device's signature of its keys does not match"))
    }
}

/// A one-time or fallback key of a signed algorithm must be signed by its device; one of another algorithm may be.
pub(super) fn one_time_key(
    key: &OneTimeKey,
    public: Option<&str>,
    user: &UserId,
    device: &str,
) -> Result<(), E2eeError> {
    let must = key.algorithm.starts_with("signed_");
    let signature = key
        .signed
        .as_ref()
        .and_then(|signed| signed.by_key(user, &key_id(device)));
    match (&key.signed, signature) {
        (Some(signed), Some(signature)) => {
            if public.is_some_and(|public| matches(&signed.body, public, &signature)) {
                Ok(())
            } else {
                Err(wrong(
                    "the device's signature of a one-time key does not match",
                ))
            }
        }
        _ if must => Err(wrong("a one-time key is not signed by its device")),
        _ => Ok(()),
    }
}

/// A self-signing or user-signing key must be signed by the master key. Gives that signature.
pub(super) fn by_master(
    signed: &Signed,
    master: &str,
    user: &UserId,
) -> Result<(String, String), E2eeError> {
    let id = key_id(master);
    signed
        .by_key(user, &id)
        .filter(|signature| matches(&signed.body, master, signature))
        .map(|signature| (id, signature))
        .ok_or_else(|| wrong("a key is not signed by the master key"))
}

pub(super) fn wrong(message: &str) -> E2eeError {
    E2eeError::InvalidSignature(message.to_owned())
}

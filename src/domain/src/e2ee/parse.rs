//! What may be a key. Everything that is stored has come through here, so that what others are handed has the shape that
//! the spec promises them: a key that cannot be read would break whoever asks for it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#key-algorithms>

use ruma::{CanonicalJsonObject, CanonicalJsonValue, UserId};
use serde_json::value::RawValue;
use vodozemac::Curve25519PublicKey;

use super::{E2eeError, MAX_ID, MAX_KEY};
use crate::schema::{KeyUsage, SignedRow};

/// Signatures of an object by one user: key id and signature.
pub(super) type Signatures = Vec<(String, String)>;

/// An object that is signed, taken apart.
#[derive(Debug)]
pub(super) struct Signed {
    /// Without `signatures` and `unsigned`.
    pub(super) object: CanonicalJsonObject,
    /// The same as canonical JSON: what signatures cover.
    pub(super) body: String,
    signatures: CanonicalJsonObject,
    has_signatures: bool,
}

impl Signed {
    /// Reads a key object; what is not canonical JSON cannot have been signed.
    pub(super) fn read(json: &RawValue) -> Result<Self, E2eeError> {
        if json.get().len() > MAX_KEY {
            let message = format!("a key is larger than {MAX_KEY} bytes");
            return Err(E2eeError::TooLarge(message));
        }
        let mut object: CanonicalJsonObject = serde_json::from_str(json.get())
            .map_err(|error| E2eeError::BadJson(format!("a key: {error}")))?;
        object.remove("unsigned");
        let has_signatures = object.contains_key("signatures");
        let signatures = match object.remove("signatures") {
            None => CanonicalJsonObject::new(),
            Some(CanonicalJsonValue::Object(signatures)) if are_signatures(&signatures) => {
                signatures
            }
            Some(_) => return Err(bad("signatures are a map of users to maps of signatures")),
        };
        let body = canonical(&object)?;
        Ok(Self {
            object,
            body,
            signatures,
            has_signatures,
        })
    }

    /// The signatures that `user` made.
    pub(super) fn by(&self, user: &UserId) -> Signatures {
        let Some(CanonicalJsonValue::Object(signatures)) = self.signatures.get(user.as_str())
        else {
            return Vec::new();
        };
        signatures
            .iter()
            .filter_map(|(id, signature)| Some((id.clone(), signature.as_str()?.to_owned())))
            .collect()
    }

    /// The signature that one key of `user` made.
    pub(super) fn by_key(&self, user: &UserId, key_id: &str) -> Option<String> {
        let signatures = self.by(user);
        signatures
            .into_iter()
            .find(|(id, _)| id == key_id)
            .map(|(_, signature)| signature)
    }

    fn text(&self, name: &str) -> Result<&str, E2eeError> {
        self.object
            .get(name)
            .and_then(CanonicalJsonValue::as_str)
            .ok_or_else(|| E2eeError::BadJson(format!("{name} of a key is a string")))
    }

    fn texts(&self, name: &str) -> Result<Vec<&str>, E2eeError> {
        let wrong = || E2eeError::BadJson(format!("{name} of a key is a list of strings"));
        let Some(CanonicalJsonValue::Array(list)) = self.object.get(name) else {
            return Err(wrong());
        };
        let texts = list.iter().map(CanonicalJsonValue::as_str);
        texts.collect::<Option<_>>().ok_or_else(wrong)
    }

    fn keys(&self) -> Result<Vec<(&str, &str)>, E2eeError> {
        let wrong = || bad("keys are a map of key ids to keys");
        let Some(CanonicalJsonValue::Object(keys)) = self.object.get("keys") else {
            return Err(wrong());
        };
        let keys = keys
            .iter()
            .map(|(id, key)| Some((id.as_str(), key.as_str()?)));
        keys.collect::<Option<_>>().ok_or_else(wrong)
    }
}

/// A device's identity keys, which must be those of this device. Gives the object and its Ed25519 key.
pub(super) fn device_keys(
    json: &RawValue,
    user: &UserId,
    device: &str,
) -> Result<(Signed, Option<String>), E2eeError> {
    let signed = Signed::read(json)?;
    if signed.text("user_id")? != user.as_str() || signed.text("device_id")? != device {
        let message = "device keys are those of the device that uploads them";
        return Err(E2eeError::InvalidParam(message.to_owned()));
    }
    signed.texts("algorithms")?;
    if !signed.has_signatures {
        return Err(bad("device keys have signatures"));
    }
    let mut public = None;
    for (id, key) in signed.keys()? {
        let (algorithm, of) = split_id(id)?;
        if of != device {
            return Err(bad("the ids of device keys end with the device's id"));
        }
        match algorithm {
            "ed25519" => public = Some(key_of_32_bytes(key)?.to_owned()),
            "curve25519" => {
                key_of_32_bytes(key)?;
            }
            _ => {}
        }
    }
    Ok((signed, public))
}

/// A cross-signing key for one use. Gives the object and its public key.
pub(super) fn cross_signing_key(
    json: &RawValue,
    user: &UserId,
    usage: KeyUsage,
) -> Result<(Signed, String), E2eeError> {
    let signed = Signed::read(json)?;
    if signed.text("user_id")? != user.as_str() {
        let message = "cross-signing keys are those of the user who uploads them";
        return Err(E2eeError::InvalidParam(message.to_owned()));
    }
    if !signed.texts("usage")?.contains(&usage.name()) {
        let message = format!("usage does not contain {}", usage.name());
        return Err(E2eeError::InvalidParam(message));
    }
    let keys = signed.keys()?;
    let [(id, key)] = keys.as_slice() else {
        return Err(bad("a cross-signing key has exactly one key"));
    };
    let public = key_of_32_bytes(key)?.to_owned();
    if *id != key_id(&public) {
        return Err(bad("the id of a cross-signing key is ed25519: and the key"));
    }
    Ok((signed, public))
}

/// A one-time or fallback key.
#[derive(Debug)]
pub(super) struct OneTimeKey {
    pub(super) algorithm: String,
    /// Algorithm and name.
    pub(super) id: String,
    /// The key as canonical JSON.
    pub(super) json: String,
    /// With its signatures, unless it is a bare key.
    pub(super) signed: Option<Signed>,
}

/// Reads a one-time or fallback key: a signed object, or a bare key for algorithms whose keys are not signed.
pub(super) fn one_time_key(id: &str, json: &RawValue) -> Result<OneTimeKey, E2eeError> {
    let (algorithm, _) = split_id(id)?;
    let algorithm = algorithm.to_owned();
    if json.get().starts_with('{') {
        let signed = Signed::read(json)?;
        key_of_32_bytes(signed.text("key")?)?;
        let mut whole = signed.object.clone();
        if !signed.signatures.is_empty() {
            let signatures = CanonicalJsonValue::Object(signed.signatures.clone());
            whole.insert("signatures".to_owned(), signatures);
        }
        return Ok(OneTimeKey {
            algorithm,
            id: id.to_owned(),
            json: canonical(&whole)?,
            signed: Some(signed),
        });
    }
    let public: String = serde_json::from_str(json.get())
        .map_err(|_| bad("a one-time key is a string or an object"))?;
    if algorithm.starts_with("signed_") {
        return Err(bad("a key of a signed algorithm is an object"));
    }
    key_of_32_bytes(&public)?;
    Ok(OneTimeKey {
        algorithm,
        id: id.to_owned(),
        json: serde_json::to_string(&public).map_err(|error| bad(&error.to_string()))?,
        signed: None,
    })
}

/// The key id of an Ed25519 key that is named by a device or by itself.
pub(super) fn key_id(name: &str) -> String {
    format!("ed25519:{name}")
}

/// A row as the object it was uploaded as, with these signatures and this `unsigned`.
pub(super) fn whole(
    row: &SignedRow,
    user: &UserId,
    signatures: &[(&str, &str, &str)],
    unsigned: Option<&str>,
) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut out = row.body.strip_suffix('}').unwrap_or("{").to_owned();
    let mut by_user: Vec<(&str, Vec<(&str, &str)>)> = vec![(user.as_str(), Vec::new())];
    for (signer, id, signature) in signatures {
        match by_user.iter_mut().find(|(user, _)| user == signer) {
            Some((_, list)) => list.push((id, signature)),
            None => by_user.push((signer, vec![(id, signature)])),
        }
    }
    out.push_str(if out.len() > 1 {
        ",\"signatures\":{"
    } else {
        "\"signatures\":{"
    });
    let users = by_user.iter().filter(|(_, list)| !list.is_empty());
    let users = users.map(|(user, list)| {
        let list = list
            .iter()
            .map(|(id, signature)| format!("{}:{}", quoted(id), quoted(signature)));
        let list = list.collect::<Vec<_>>().join(",");
        format!("{}:{{{list}}}", quoted(user))
    });
    out.push_str(&users.collect::<Vec<_>>().join(","));
    out.push('}');
    if let Some(unsigned) = unsigned {
        out.push_str(",\"unsigned\":{\"device_display_name\":");
        out.push_str(&quoted(unsigned));
        out.push('}');
    }
    out.push('}');
    out
}

/// Checks an id that becomes part of a row's key.
pub(super) fn short(what: &'static str, id: &str) -> Result<(), E2eeError> {
    if id.is_empty() || id.len() > MAX_ID {
        return Err(E2eeError::InvalidParam(format!(
            "{what} has 1 to {MAX_ID} bytes"
        )));
    }
    Ok(())
}

fn split_id(id: &str) -> Result<(&str, &str), E2eeError> {
    short("a key id", id)?;
    match id.split_once(':') {
        Some((algorithm, name)) if !algorithm.is_empty() && !name.is_empty() => {
            Ok((algorithm, name))
        }
        _ => Err(bad("a key id is an algorithm, a colon and a name")),
    }
}

/// 32 bytes in unpadded Base64: what Ed25519 and Curve25519 keys are.
fn key_of_32_bytes(key: &str) -> Result<&str, E2eeError> {
    let is_one = key.len() == 43 && Curve25519PublicKey::from_base64(key).is_ok();
    if is_one {
        Ok(key)
    } else {
        Err(bad("a public key is 32 bytes in unpadded Base64"))
    }
}

fn are_signatures(signatures: &CanonicalJsonObject) -> bool {
    signatures.values().all(|by| match by {
        CanonicalJsonValue::Object(by) => by.values().all(|it| it.as_str().is_some()),
        _ => false,
    })
}

fn canonical(object: &CanonicalJsonObject) -> Result<String, E2eeError> {
    serde_json::to_string(object).map_err(|error| bad(&error.to_string()))
}

fn bad(message: &str) -> E2eeError {
    E2eeError::BadJson(message.to_owned())
}

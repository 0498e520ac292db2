//! A server's published keys, read and checked. Pure.
//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys>

use std::collections::BTreeMap;

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, ServerName, SigningKeyAlgorithm,
    api::federation::discovery::ServerSigningKeys,
    serde::Base64,
    signatures::{to_canonical_json_string_for_signing, verify_canonical_json_bytes},
};

use crate::{clock::Millis, schema::ServerKeyRow};

/// The most keys of each kind that a server may publish.
const MAX_KEYS: usize = 50;
/// The largest document, in bytes.
pub(super) const MAX_BYTES: usize = 64 << 10;
/// A server's word about its keys holds a week at most.
/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2server>
pub(super) const LONGEST_VALIDITY_MS: Millis = 7 * 24 * 3_600_000;

/// What a server has published, its own signature checked.
#[derive(Debug)]
pub(super) struct Document {
    /// The signed object.
    pub(super) object: CanonicalJsonObject,
    /// Its keys by id.
    pub(super) keys: BTreeMap<String, ServerKeyRow>,
    /// Until when the server says that it holds.
    pub(super) valid_until: Millis,
}

/// Reads what `server` is said to have published: it must name that server and be signed by a key that it lists as in use.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(json: &str, server: &ServerName, now: Millis) -> Result<Document, String> {
    if json.len() > MAX_BYTES {
        return Err(format!("it is larger than {MAX_BYTES} bytes"));
    }
    let object: CanonicalJsonObject =
        serde_json::from_str(json).map_err(|error| error.to_string())?;
    let published: ServerSigningKeys =
        serde_json::from_str(json).map_err(|error| error.to_string())?;
    if published.server_name != *server {
        return Err(format!("it is of {}", published.server_name));
    }
    if published.verify_keys.len() > MAX_KEYS || published.old_verify_keys.len() > MAX_KEYS {
        return Err(format!("it lists more than {MAX_KEYS} keys"));
    }
    let valid_until = u64::from(published.valid_until_ts.0);
    let capped = valid_until.min(now.saturating_add(LONGEST_VALIDITY_MS));
    let mut keys = BTreeMap::new();
    for (id, old) in &published.old_verify_keys {
        let row = ServerKeyRow {
            key: ed25519(&old.key)?,
            valid_until: u64::from(old.expired_ts.0).min(now),
            retired: true,
        };
        keys.insert(id.to_string(), row);
    }
    let mut in_use = BTreeMap::new();
    for (id, current) in &published.verify_keys {
        if id.algorithm() != SigningKeyAlgorithm::Ed25519 {
            continue;
        }
        let key = ed25519(&current.key)?;
        in_use.insert(id.to_string(), key);
        let row = ServerKeyRow {
            key,
            valid_until: capped,
            retired: false,
        };
        keys.insert(id.to_string(), row);
    }
    signed_by(&object, server, &in_use)?;
    Ok(Document {
        object,
        keys,
        valid_until,
    })
}

/// Checks an object's signatures of one server: at least one is of a listed key, and none of a listed key is wrong.
///
/// # Errors
/// What is wrong.
pub(super) fn signed_by(
    object: &CanonicalJsonObject,
    server: &ServerName,
    keys: &BTreeMap<String, [u8; 32]>,
) -> Result<(), String> {
    let signatures = object
        .get("signatures")
        .and_then(CanonicalJsonValue::as_object)
        .and_then(|all| all.get(server.as_str()))
        .and_then(CanonicalJsonValue::as_object)
        .ok_or_else(|| format!("it is not signed by {server}"))?;
    let signed = to_canonical_json_string_for_signing(object).map_err(|error| error.to_string())?;
    let mut checked = false;
    for (id, key) in keys {
        let Some(signature) = signatures.get(id) else {
            continue;
        };
        let signature: Base64 = signature
            .as_str()
            .and_then(|text| Base64::parse(text).ok())
            .ok_or_else(|| format!("the signature of {id} is none"))?;
        verify_canonical_json_bytes(
            &SigningKeyAlgorithm::Ed25519,
            key,
            signature.as_bytes(),
            signed.as_bytes(),
        )
        .map_err(|error| format!("the signature of {id} is wrong: {error}"))?;
        checked = true;
    }
    if checked {
        Ok(())
    } else {
        Err(format!("it is not signed with a usable key of {server}"))
    }
}

fn ed25519(key: &Base64) -> Result<[u8; 32], String> {
    let wrong = |_| "a key is not 32 bytes long".to_owned();
    key.as_bytes().try_into().map_err(wrong)
}

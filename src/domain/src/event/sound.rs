//! Whether a stored event still is what was signed: what `vatra check` asks of each one.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, canonical_json,
    room_version_rules::RoomVersionRules,
    serde::Base64,
    signatures::{PublicKeyMap, content_hash, verify_json},
};

use super::{pdu::Pdu, redact::redact, signer::Signer};

/// What is wrong with an event, in words; empty if nothing is. A redacted event has lost what its content hash was of, but its
/// id and its signatures are of what redaction keeps. Only signatures of this server's own key are looked at.
///
/// `redacted` says that this server has redacted it, or emptied it because its time was over. Costs one parse, three hashes and maybe a signature check.
pub fn faults(pdu: &Pdu, rules: &RoomVersionRules, redacted: bool, signer: &Signer) -> Vec<String> {
    let object = match pdu.to_canonical() {
        Ok(object) => object,
        Err(error) => return vec![error.to_string()],
    };
    let own = pdu.sender.server_name() == signer.server_name();
    let mut faults = Vec::new();
    // Another server's event whose content did not match when it came is kept as redaction leaves it.
    if !redacted && !hash_matches(&object) && (own || !is_bare(pdu, &object, rules)) {
        faults.push("its content is not what was hashed".to_owned());
    }
    match own_signature(object, rules, signer) {
        Signature::Good => {}
        Signature::None if !own => {}
        Signature::None => faults.push(format!("it has no signature by {}", signer.key_id())),
        Signature::Bad(error) => {
            faults.push(format!("this server's signature is wrong: {error}"));
        }
    }
    faults
}

fn hash_matches(object: &CanonicalJsonObject) -> bool {
    let stored = object
        .get("hashes")
        .and_then(CanonicalJsonValue::as_object)
        .and_then(|hashes| hashes.get("sha256"))
        .and_then(CanonicalJsonValue::as_str);
    let computed = content_hash(object).ok().map(|hash| hash.encode());
    stored.is_some() && stored == computed.as_deref()
}

/// Whether redaction would change nothing.
fn is_bare(pdu: &Pdu, object: &CanonicalJsonObject, rules: &RoomVersionRules) -> bool {
    let bare = redact(pdu, rules).and_then(|bare| bare.to_canonical());
    bare.is_ok_and(|bare| bare == *object)
}

enum Signature {
    Good,
    None,
    Bad(String),
}

fn own_signature(
    mut object: CanonicalJsonObject,
    rules: &RoomVersionRules,
    signer: &Signer,
) -> Signature {
    let (name, key_id) = (signer.server_name().to_string(), signer.key_id());
    let signature = object
        .get("signatures")
        .and_then(CanonicalJsonValue::as_object)
        .and_then(|signatures| signatures.get(&name))
        .and_then(CanonicalJsonValue::as_object)
        .and_then(|by_us| by_us.get(&key_id))
        .cloned();
    let Some(signature) = signature else {
        return Signature::None;
    };
    // The others' keys are not at hand: theirs are left out.
    let by_key: CanonicalJsonObject = [(key_id.clone(), signature)].into();
    let only: CanonicalJsonObject = [(name.clone(), CanonicalJsonValue::Object(by_key))].into();
    object.insert("signatures".to_owned(), CanonicalJsonValue::Object(only));
    let keys = [(key_id, Base64::new(signer.public_key().to_vec()))].into();
    let keys: PublicKeyMap = [(name, keys)].into();
    let checked = canonical_json::redact(object, &rules.redaction, None)
        .map_err(|error| error.to_string())
        .and_then(|bare| verify_json(&keys, &bare).map_err(|error| error.to_string()));
    match checked {
        Ok(()) => Signature::Good,
        Err(error) => Signature::Bad(error),
    }
}

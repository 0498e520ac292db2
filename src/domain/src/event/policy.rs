//! Policy servers: a room may name a server that says of each event whether it recommends it, by signing it.
//! <https://spec.matrix.org/v1.19/server-server-api/#policy-servers>

use ruma::{
    OwnedServerName,
    events::{TimelineEventType, room::policy::POLICY_SERVER_ED25519_SIGNING_KEY_ID},
    room_version_rules::RoomVersionRules,
};
use serde::Deserialize;
use vodozemac::{Ed25519PublicKey, Ed25519Signature};

use super::{
    build::{BuildError, with_signature, without_signatures},
    pdu::Pdu,
};

/// The type of the event that names it.
pub const POLICY: &str = "m.room.policy";

/// The server that a room has named.
#[derive(Debug, Clone)]
pub struct PolicyServer {
    /// Its name.
    pub via: OwnedServerName,
    key: Ed25519PublicKey,
}

#[derive(Deserialize)]
struct Content {
    via: OwnedServerName,
    public_keys: Keys,
}

#[derive(Deserialize)]
struct Keys {
    ed25519: String,
}

impl PolicyServer {
    /// The server that a room's `m.room.policy` names; `None` if it names none with a usable key.
    pub fn of(event: &Pdu) -> Option<Self> {
        let content: Content = event.content_as().ok()?;
        // The specification's example is in the other alphabet.
        let key = content
            .public_keys
            .ed25519
            .replace('-', "+")
            .replace('_', "/");
        let key = Ed25519PublicKey::from_base64(key.trim_end_matches('=')).ok()?;
        Some(Self {
            via: content.via,
            key,
        })
    }

    /// Whether events of a type are judged by policy servers at all: all but the one that names or dismisses them.
    pub fn judges(kind: &TimelineEventType, state_key: Option<&str>) -> bool {
        state_key != Some("") || kind.to_string() != POLICY
    }

    /// Whether it recommends an event: by a signature that holds.
    pub fn recommends(&self, event: &Pdu, rules: &RoomVersionRules) -> bool {
        #[derive(Deserialize)]
        struct Signed {
            signatures:
                std::collections::BTreeMap<String, std::collections::BTreeMap<String, String>>,
        }
        let signed: Option<Signed> = serde_json::from_slice(event.bytes()).ok();
        let signature = signed.as_ref().and_then(|signed| {
            let own = signed.signatures.get(self.via.as_str())?;
            own.get(POLICY_SERVER_ED25519_SIGNING_KEY_ID)
        });
        let signature = signature.and_then(|text| Ed25519Signature::from_base64(text).ok());
        let (Some(signature), Ok(form)) = (signature, without_signatures(event, rules)) else {
            return false;
        };
        self.key.verify(form.as_bytes(), &signature).is_ok()
    }

    /// The event with its signature; only if that holds.
    ///
    /// # Errors
    /// [`BuildError::TooLarge`], if there is no room for it.
    pub fn signed(
        &self,
        event: &Pdu,
        signature: &str,
        rules: &RoomVersionRules,
    ) -> Result<Option<Pdu>, BuildError> {
        let key = POLICY_SERVER_ED25519_SIGNING_KEY_ID.to_owned();
        let signed = with_signature(event, self.via.as_str(), key, signature.to_owned(), rules)?;
        Ok(Some(signed).filter(|signed| self.recommends(signed, rules)))
    }
}

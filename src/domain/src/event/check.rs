//! A received event, before anything is done with it: its form, its limits, its signatures and its content hash.
//!
//! Called by whoever takes events from other servers. Events that this server builds need no check.
//! <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>

use bytes::Bytes;
use ruma::{
    CanonicalJsonObject,
    room_version_rules::RoomVersionRules,
    signatures::{PublicKeyMap, Verified, verify_event},
};

use super::{
    build::{MAX_DEPTH, MAX_EVENT_BYTES, MAX_FIELD_BYTES},
    pdu::{Pdu, PduError},
    redact::redact,
};

/// The most `prev_events`.
pub const MAX_PREV_EVENTS: usize = 20;
/// The most `auth_events`.
pub const MAX_AUTH_EVENTS: usize = 10;

/// Why an event is dropped: it is neither stored nor looked at again.
#[derive(Debug, thiserror::Error)]
pub enum Dropped {
    /// It is no event of this room version.
    #[error(transparent)]
    Malformed(#[from] PduError),
    /// It breaks a limit.
    #[error("the event's {0} is beyond its limit")]
    BeyondLimit(&'static str),
    /// A signature is missing or wrong.
    #[error("the event is not signed as it must be: {0}")]
    BadSignature(String),
}

/// An event with good signatures.
#[derive(Debug)]
pub enum Checked {
    /// The content is what was hashed.
    Whole(Pdu),
    /// The content was changed on the way: this is what redaction leaves, to be used in its place.
    Redacted(Pdu),
}

impl Checked {
    /// The event to go on with.
    pub fn into_pdu(self) -> Pdu {
        match self {
            Self::Whole(pdu) | Self::Redacted(pdu) => pdu,
        }
    }
}

/// Checks an event as received. `keys` holds the keys of the servers that must have signed it, valid at its time.
///
/// Costs one parse, two hashes and one signature check (about 50 microseconds) for each server.
pub fn check(
    json: &[u8],
    rules: &RoomVersionRules,
    keys: &PublicKeyMap,
) -> Result<Checked, Dropped> {
    let object: CanonicalJsonObject = serde_json::from_slice(json).map_err(PduError::from)?;
    let canonical = Bytes::from(serde_json::to_vec(&object).map_err(PduError::from)?);
    let pdu = Pdu::parse(canonical, rules, None)?;
    check_limits(&pdu, rules)?;
    match verify_event(keys, &object, rules) {
        Ok(Verified::All) => Ok(Checked::Whole(pdu)),
        Ok(Verified::Signatures) => Ok(Checked::Redacted(redact(&pdu, rules)?)),
        Err(error) => Err(Dropped::BadSignature(error.to_string())),
    }
}

/// The limits of an event's size, fields, references and depth.
/// <https://spec.matrix.org/v1.19/client-server-api/#size-limits>
pub fn check_limits(pdu: &Pdu, rules: &RoomVersionRules) -> Result<(), Dropped> {
    let creates = !rules.event_format.allow_room_create_in_auth_events
        && pdu
            .auth_events
            .iter()
            .any(|id| id.as_str().get(1..) == pdu.room_id.as_str().get(1..));
    let limits = [
        ("size", pdu.bytes().len() <= MAX_EVENT_BYTES),
        ("type", pdu.kind.to_string().len() <= MAX_FIELD_BYTES),
        (
            "state_key",
            pdu.state_key
                .as_ref()
                .is_none_or(|key| key.len() <= MAX_FIELD_BYTES),
        ),
        ("sender", pdu.sender.as_str().len() <= MAX_FIELD_BYTES),
        ("room_id", pdu.room_id.as_str().len() <= MAX_FIELD_BYTES),
        ("event_id", pdu.event_id.as_str().len() <= MAX_FIELD_BYTES),
        ("prev_events", pdu.prev_events.len() <= MAX_PREV_EVENTS),
        (
            "auth_events",
            pdu.auth_events.len() <= MAX_AUTH_EVENTS && !creates,
        ),
        ("depth", pdu.depth <= MAX_DEPTH),
    ];
    match limits.into_iter().find(|(_, kept)| !kept) {
        Some((name, _)) => Err(Dropped::BeyondLimit(name)),
        None => Ok(()),
    }
}

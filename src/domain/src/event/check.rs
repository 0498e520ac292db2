//! A received event, before anything is done with it: its form, its limits, its signatures and its content hash.
//!
//! Called by whoever takes events from other servers. Events that this server builds need no check.
//! <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>

use bytes::Bytes;
use ruma::{
    CanonicalJsonObject,
    room_version_rules::{EventIdFormatVersion, RoomVersionRules},
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

/// Reads an event as received: its form and its limits. What is not part of what was signed is left out.
///
/// # Errors
/// Why it is to be dropped.
pub fn read(json: &[u8], rules: &RoomVersionRules) -> Result<(CanonicalJsonObject, Pdu), Dropped> {
    // What is left out may make it larger, but not without bound.
    if json.len() > 2 * MAX_EVENT_BYTES {
        return Err(Dropped::BeyondLimit("size"));
    }
    let mut object: CanonicalJsonObject = serde_json::from_slice(json).map_err(PduError::from)?;
    object.remove("unsigned");
    if !matches!(rules.event_id_format, EventIdFormatVersion::V1) {
        object.remove("event_id");
    }
    let canonical = Bytes::from(serde_json::to_vec(&object).map_err(PduError::from)?);
    let pdu = Pdu::parse(canonical, rules, None)?;
    check_limits(&pdu, rules)?;
    Ok((object, pdu))
}

/// What to go on with, once the signatures of an event are known to be good.
///
/// # Errors
/// When it cannot be redacted.
pub fn checked(
    pdu: Pdu,
    verified: &Verified,
    rules: &RoomVersionRules,
) -> Result<Checked, Dropped> {
    match verified {
        Verified::All => Ok(Checked::Whole(pdu)),
        Verified::Signatures => Ok(Checked::Redacted(redact(&pdu, rules)?)),
    }
}

/// Checks an event as received. `keys` holds the keys of the servers that must have signed it, valid at its time.
///
/// Costs one parse, two hashes and one signature check (about 50 microseconds) for each server.
///
/// # Errors
/// Why it is to be dropped.
pub fn check(
    json: &[u8],
    rules: &RoomVersionRules,
    keys: &PublicKeyMap,
) -> Result<Checked, Dropped> {
    let (object, pdu) = read(json, rules)?;
    match verify_event(keys, &object, rules) {
        Ok(verified) => checked(pdu, &verified, rules),
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
    // Servers have counted characters up to room version 10, and there are such events.
    let characters = !rules.redaction.content_field_redacts;
    let fits = |text: &str| {
        let length = if characters {
            text.chars().count()
        } else {
            text.len()
        };
        length <= MAX_FIELD_BYTES
    };
    let limits = [
        ("size", pdu.bytes().len() <= MAX_EVENT_BYTES),
        ("type", fits(&pdu.kind.to_string())),
        (
            "state_key",
            pdu.state_key.as_ref().is_none_or(|key| fits(key)),
        ),
        ("sender", fits(pdu.sender.as_str())),
        ("room_id", fits(pdu.room_id.as_str())),
        ("event_id", fits(pdu.event_id.as_str())),
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

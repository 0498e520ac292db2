//! Redaction: an event emptied to what its room version keeps. Its id and signatures stay valid.

use bytes::Bytes;
use ruma::{canonical_json, room_version_rules::RoomVersionRules};

use super::pdu::{Pdu, PduError};

/// The event without what redaction removes.
pub fn redact(pdu: &Pdu, rules: &RoomVersionRules) -> Result<Pdu, PduError> {
    let object = canonical_json::redact(pdu.to_canonical()?, &rules.redaction, None)
        .map_err(|error| PduError::Unhashable(error.to_string()))?;
    let bytes = serde_json::to_vec(&object)?;
    Pdu::parse(Bytes::from(bytes), rules, Some(pdu.event_id.clone()))
}

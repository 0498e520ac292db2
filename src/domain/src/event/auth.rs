//! The auth rules, over state that the caller has read beforehand.
//!
//! <https://spec.matrix.org/v1.19/rooms/v12/#authorization-rules> and the same page of the other versions.

use std::sync::Arc;

use ruma::{
    CanonicalJsonObject, EventId, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
    state_res::{
        auth_types_for_event, check_state_dependent_auth_rules, check_state_independent_auth_rules,
    },
};
use serde_json::value::to_raw_value;

use super::pdu::Pdu;

/// Why the rules say no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuthError(pub String);

/// The state keys whose events decide on an event.
pub fn auth_types(
    kind: &TimelineEventType,
    sender: &UserId,
    state_key: Option<&str>,
    content: &CanonicalJsonObject,
    rules: &RoomVersionRules,
) -> Result<Vec<(StateEventType, String)>, AuthError> {
    let content = to_raw_value(content).map_err(|error| AuthError(error.to_string()))?;
    auth_types_for_event(kind, sender, state_key, &content, &rules.authorization).map_err(AuthError)
}

/// Whether the state allows the event. `fetch` gives the state's event at a key, among those of [`auth_types`] and the
/// create event.
pub fn authorise(
    rules: &RoomVersionRules,
    pdu: &Pdu,
    fetch: impl Fn(&StateEventType, &str) -> Option<Arc<Pdu>>,
) -> Result<(), AuthError> {
    if pdu.kind == TimelineEventType::RoomCreate {
        return check_auth_events(rules, pdu, |_| None);
    }
    check_state_dependent_auth_rules(&rules.authorization, pdu, fetch).map_err(AuthError)
}

/// Whether an event names the right auth events: those that the room version selects, of its own room, each once, none of
/// them rejected. Asked once, on receipt. `fetch` reads an event of the room; in version 12 the create event is asked
/// for too.
pub fn check_auth_events(
    rules: &RoomVersionRules,
    pdu: &Pdu,
    fetch: impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> Result<(), AuthError> {
    check_state_independent_auth_rules(&rules.authorization, pdu, fetch).map_err(AuthError)
}

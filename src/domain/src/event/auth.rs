//! The auth rules, over state that the caller has read beforehand.
//!
//! <https://spec.matrix.org/v1.19/rooms/v12/#authorization-rules> and the same page of the other versions.

use std::sync::Arc;

use ruma::{
    CanonicalJsonObject, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
    state_res::{auth_types_for_event, check_state_dependent_auth_rules},
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
        return ruma::state_res::check_state_independent_auth_rules(
            &rules.authorization,
            pdu,
            |_| None::<Pdu>,
        )
        .map_err(AuthError);
    }
    check_state_dependent_auth_rules(&rules.authorization, pdu, |kind, key| {
        fetch(kind, key).map(Shared)
    })
    .map_err(AuthError)
}

/// A shared event, in ruma's terms.
struct Shared(Arc<Pdu>);

macro_rules! forward {
    ($($name:ident -> $type:ty),* $(,)?) => {$(
        fn $name(&self) -> $type {
            ruma::state_res::Event::$name(&*self.0)
        }
    )*};
}

impl ruma::state_res::Event for Shared {
    type Id = ruma::OwnedEventId;

    forward! {
        event_id -> &Self::Id,
        room_id -> Option<&ruma::RoomId>,
        sender -> &UserId,
        origin_server_ts -> ruma::MilliSecondsSinceUnixEpoch,
        event_type -> &TimelineEventType,
        content -> &serde_json::value::RawValue,
        state_key -> Option<&str>,
        prev_events -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_>,
        auth_events -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_>,
        redacts -> Option<&Self::Id>,
        rejected -> bool,
    }
}

//! The auth rules, over state that the caller has read beforehand.
//!
//! <https://spec.matrix.org/v1.19/rooms/v12/#authorization-rules> and the same page of the other versions.

use std::{collections::BTreeMap, sync::Arc};

use ruma::{
    CanonicalJsonObject, EventId, OwnedUserId, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
    state_res::{
        auth_types_for_event, check_state_dependent_auth_rules, check_state_independent_auth_rules,
    },
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, value::to_raw_value};

use super::pdu::Pdu;

/// Why the rules say no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The state does not let the sender do that.
    #[error("{0}")]
    Forbidden(String),
    /// Nobody could send that, whatever their power.
    #[error("{0}")]
    BadContent(String),
}

/// The state keys whose events decide on an event.
pub fn auth_types(
    kind: &TimelineEventType,
    sender: &UserId,
    state_key: Option<&str>,
    content: &CanonicalJsonObject,
    rules: &RoomVersionRules,
) -> Result<Vec<(StateEventType, String)>, AuthError> {
    let content =
        to_raw_value(content).map_err(|error| AuthError::BadContent(error.to_string()))?;
    auth_types_for_event(kind, sender, state_key, &content, &rules.authorization)
        .map_err(AuthError::BadContent)
}

/// Whether the state allows the event. `fetch` gives the state's event at a key, among those of [`auth_types`] and the
/// create event.
pub fn authorise(
    rules: &RoomVersionRules,
    pdu: &Pdu,
    fetch: impl Fn(&StateEventType, &str) -> Option<Arc<Pdu>>,
) -> Result<(), AuthError> {
    if pdu.kind == TimelineEventType::RoomCreate {
        let checked =
            check_state_independent_auth_rules(&rules.authorization, pdu, |_| None::<Arc<Pdu>>);
        return checked.map_err(AuthError::BadContent);
    }
    check_state_dependent_auth_rules(&rules.authorization, pdu, &fetch).map_err(|reason| {
        if gives_creators_a_level(rules, pdu, &fetch) || are_no_levels(rules, pdu) {
            AuthError::BadContent(reason)
        } else {
            AuthError::Forbidden(reason)
        }
    })
}

/// Whether power levels have a field that no room of the version takes.
fn are_no_levels(rules: &RoomVersionRules, pdu: &Pdu) -> bool {
    if pdu.kind != TimelineEventType::RoomPowerLevels {
        return false;
    }
    let Ok(content) = pdu.content_as::<BTreeMap<String, Value>>() else {
        return true;
    };
    let is_level = |level: &Value| match level {
        Value::String(level) => {
            !rules.authorization.integer_power_levels && level.parse::<i64>().is_ok()
        }
        level => level.is_i64(),
    };
    content.iter().any(|(name, value)| match name.as_str() {
        "users" | "events" | "notifications" => {
            let is_named = |key: &str| name != "users" || UserId::parse(key).is_ok();
            let levels = value.as_object();
            !levels.is_some_and(|levels| {
                let mut levels = levels.iter();
                levels.all(|(key, level)| is_named(key) && is_level(level))
            })
        }
        "users_default" | "events_default" | "state_default" | "ban" | "redact" | "kick"
        | "invite" => !is_level(value),
        _ => false,
    })
}

/// Whether power levels name a creator, who has no level from room version 12 on.
fn gives_creators_a_level(
    rules: &RoomVersionRules,
    pdu: &Pdu,
    fetch: impl Fn(&StateEventType, &str) -> Option<Arc<Pdu>>,
) -> bool {
    #[derive(Deserialize)]
    struct Levels {
        users: BTreeMap<OwnedUserId, IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Create {
        #[serde(default)]
        additional_creators: Vec<OwnedUserId>,
    }
    if pdu.kind != TimelineEventType::RoomPowerLevels
        || !rules.authorization.explicitly_privilege_room_creators
    {
        return false;
    }
    let (Some(levels), Some(create)) = (
        pdu.content_as::<Levels>().ok(),
        fetch(&StateEventType::RoomCreate, ""),
    ) else {
        return false;
    };
    let others = create.content_as::<Create>();
    let others = others.map(|create| create.additional_creators);
    levels.users.contains_key(&create.sender)
        || others.is_ok_and(|others| others.iter().any(|user| levels.users.contains_key(user)))
}

/// Whether an event names the right auth events: those that the room version selects, of its own room, each once, none of
/// them rejected. Asked once, on receipt. `fetch` reads an event of the room; in version 12 the create event is asked
/// for too.
pub fn check_auth_events(
    rules: &RoomVersionRules,
    pdu: &Pdu,
    fetch: impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> Result<(), AuthError> {
    check_state_independent_auth_rules(&rules.authorization, pdu, fetch)
        .map_err(AuthError::Forbidden)
}

//! What becomes of the power levels when a room is upgraded. Pure.
//!
//! Old rooms may hold levels as strings, which room version 10 has forbidden; creators have no level in room version 12,
//! where they may do everything.

use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value, json};

/// The levels of a room that is being made in the place of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Levels {
    /// While it is made: who makes it can send everything that it needs.
    pub(super) first: Value,
    /// In the end, if that is not the same.
    pub(super) last: Option<Value>,
}

/// What a creator or maker of a room has at least.
const MAKER: i64 = 100;

/// The levels of the new room.
///
/// `unwritten` are users whose power is not in `before` but comes from having made the old room; `founders` make the new
/// one, the requester first; `privileged` is whether the new room's version gives them all power.
pub(super) fn upgraded(
    before: Map<String, Value>,
    unwritten: &[OwnedUserId],
    founders: &[OwnedUserId],
    privileged: bool,
) -> Levels {
    let mut levels = numbers(before);
    let top = highest(&levels).max(MAKER);
    let mut users = match levels.remove("users") {
        Some(Value::Object(users)) => users,
        _ => Map::new(),
    };
    for user in unwritten {
        users.insert(user.to_string(), json!(top));
    }
    if privileged {
        for founder in founders {
            users.remove(founder.as_str());
        }
        levels.insert("users".to_owned(), Value::Object(users));
        return Levels {
            first: Value::Object(levels),
            last: None,
        };
    }
    let mut last = levels.clone();
    last.insert("users".to_owned(), Value::Object(users.clone()));
    if let Some(maker) = founders.first() {
        users.insert(maker.to_string(), json!(top));
    }
    levels.insert("users".to_owned(), Value::Object(users));
    Levels {
        last: (levels != last).then_some(Value::Object(last)),
        first: Value::Object(levels),
    }
}

/// The levels of a room that was replaced: only who has power speaks and invites.
pub(super) fn closed(levels: Map<String, Value>) -> Map<String, Value> {
    let mut levels = levels;
    let level = |name: &str| levels.get(name).and_then(number);
    let floor = level("users_default")
        .unwrap_or(0)
        .saturating_add(1)
        .max(50);
    let (events, invite) = (level("events_default"), level("invite"));
    levels.insert(
        "events_default".to_owned(),
        json!(events.unwrap_or(0).max(floor)),
    );
    levels.insert("invite".to_owned(), json!(invite.unwrap_or(0).max(floor)));
    levels
}

/// The same levels, every one of them a number; what is none is left out.
fn numbers(levels: Map<String, Value>) -> Map<String, Value> {
    let read = |(name, value): (String, Value)| match (name.as_str(), value) {
        ("users", Value::Object(users)) => {
            let users = users.into_iter().filter_map(|(user, level)| {
                UserId::parse(&*user).ok()?;
                Some((user, json!(number(&level)?)))
            });
            Some((name, Value::Object(users.collect())))
        }
        ("events" | "notifications", Value::Object(inner)) => {
            let inner = inner
                .into_iter()
                .filter_map(|(kind, level)| Some((kind, json!(number(&level)?))));
            Some((name, Value::Object(inner.collect())))
        }
        (_, value) => number(&value).map(|level| (name, json!(level))),
    };
    levels.into_iter().filter_map(read).collect()
}

fn number(level: &Value) -> Option<i64> {
    match level {
        Value::Number(level) => level.as_i64(),
        Value::String(level) => level.trim().parse().ok(),
        _ => None,
    }
}

/// The highest level that anything asks for or anyone has.
fn highest(levels: &Map<String, Value>) -> i64 {
    let all = levels.values().flat_map(|value| match value {
        Value::Object(inner) => inner.values().filter_map(number).collect(),
        value => number(value).into_iter().collect::<Vec<_>>(),
    });
    all.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn user(name: &str) -> OwnedUserId {
        UserId::parse(name).unwrap()
    }

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_moderator_is_lifted_while_the_room_is_made_and_set_back_after() {
        let before = object(json!({
            "ban": "50", "events": { "m.room.name": 120, "odd": {} },
            "users": { "@mod:b": 60, "@owner:b": "100", "none": 7 },
        }));
        let levels = upgraded(before, &[], &[user("@mod:b")], false);
        let users = json!({ "@mod:b": 120, "@owner:b": 100 });
        let first = json!({ "ban": 50, "events": { "m.room.name": 120 }, "users": users });
        assert_eq!(levels.first, first);
        let last = json!({ "ban": 50, "events": { "m.room.name": 120 }, "users": { "@mod:b": 60, "@owner:b": 100 } });
        assert_eq!(levels.last, Some(last));
    }

    #[test]
    fn creators_lose_their_entry_in_version_12_and_get_one_before_it() {
        let before = object(json!({ "users": { "@a:b": 100, "@c:b": 50 } }));
        let founders = [user("@a:b"), user("@c:b")];
        let levels = upgraded(before, &[], &founders, true);
        assert_eq!((levels.first, levels.last), (json!({ "users": {} }), None));
        let levels = upgraded(Map::new(), &[user("@a:b")], &[user("@a:b")], false);
        assert_eq!(levels.first, json!({ "users": { "@a:b": 100 } }));
        assert_eq!(levels.last, None);
    }

    #[test]
    fn a_closed_room_is_silent_for_who_has_no_power() {
        let silent = closed(object(json!({ "users_default": 60, "invite": 90 })));
        let expected = json!({ "users_default": 60, "invite": 90, "events_default": 61 });
        assert_eq!(Value::Object(silent), expected);
    }
}

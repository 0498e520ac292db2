//! What a user has set for a room goes over to the room that replaces it: push rules and tags.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-18>. Called when a user joins a room: it costs the read of
//! the create event, and more only in a room that has a predecessor.

use ruma::{
    OwnedRoomId, RoomId,
    events::StateEventType,
    push::{ConditionalPushRule, PushCondition, Ruleset},
};
use serde::Deserialize;

use super::FlowError;
use crate::{
    rooms::{Reader, Room, Rooms},
    schema::{Membership, UserSid},
    users::Users,
};

/// The type of the account data that holds a room's tags.
const TAGS: &str = "m.tag";

#[derive(Deserialize)]
struct Create {
    predecessor: Predecessor,
}

#[derive(Deserialize)]
struct Predecessor {
    room_id: OwnedRoomId,
}

#[derive(Deserialize)]
struct Tombstone {
    replacement_room: OwnedRoomId,
}

/// What is there already stays as it is.
struct Unchanged;

/// After a join: if the room replaces one that the user was in, and that one says so too, their settings go over.
pub async fn joined(
    users: &Users,
    rooms: &Rooms,
    user: UserSid,
    room: &Room,
) -> Result<(), FlowError> {
    let reader = rooms.reader();
    let Some(old) = predecessor(&reader, user, room).await? else {
        return Ok(());
    };
    let tombstone = reader
        .state_event(old.sid, &StateEventType::RoomTombstone, "")
        .await?;
    let tombstone: Option<Tombstone> = tombstone.and_then(|event| event.pdu.content_as().ok());
    // Anyone can name any room as a predecessor: the old room must agree.
    if tombstone.is_none_or(|tombstone| tombstone.replacement_room != room.id) {
        return Ok(());
    }
    carry_over(users, user, &old, room).await
}

/// After a room was ended by its tombstone: the settings of local users who are in its replacement already go over.
pub async fn replaced(users: &Users, rooms: &Rooms, old: &RoomId) -> Result<(), FlowError> {
    let reader = rooms.reader();
    let Some(old) = reader.room(old).await? else {
        return Ok(());
    };
    let tombstone = reader
        .state_event(old.sid, &StateEventType::RoomTombstone, "")
        .await?;
    let tombstone: Option<Tombstone> = tombstone.and_then(|event| event.pdu.content_as().ok());
    let Some(tombstone) = tombstone else {
        return Ok(());
    };
    let Some(new) = reader.room(&tombstone.replacement_room).await? else {
        return Ok(());
    };
    let members = reader
        .members(new.sid, Membership::Join, usize::MAX)
        .await?;
    for (user, _) in members {
        let id = reader.user_id(user).await?;
        if id.is_some_and(|id| id.server_name() == reader.server_name()) {
            joined(users, rooms, user, &new).await?;
        }
    }
    Ok(())
}

/// After a user has made a room: they say themselves what it replaces, though the old room's tombstone is still to come.
pub async fn created(
    users: &Users,
    rooms: &Rooms,
    user: UserSid,
    room: &Room,
) -> Result<(), FlowError> {
    match predecessor(&rooms.reader(), user, room).await? {
        Some(old) => carry_over(users, user, &old, room).await,
        None => Ok(()),
    }
}

/// The room that a room says it replaces, if the user was ever in it.
async fn predecessor(
    reader: &Reader,
    user: UserSid,
    room: &Room,
) -> Result<Option<std::sync::Arc<Room>>, FlowError> {
    let create = reader
        .state_event(room.sid, &StateEventType::RoomCreate, "")
        .await?;
    let create: Option<Create> = create.and_then(|event| event.pdu.content_as().ok());
    let Some(create) = create else {
        return Ok(None);
    };
    let Some(old) = reader.room(&create.predecessor.room_id).await? else {
        return Ok(None);
    };
    let was_in = reader
        .membership(user, old.sid)
        .await?
        .is_some_and(|row| row.was_joined());
    Ok((was_in && old.sid != room.sid).then_some(old))
}

/// Copies a user's settings of one room to another; what is set for the other already stays.
pub async fn carry_over(
    users: &Users,
    user: UserSid,
    old: &Room,
    new: &Room,
) -> Result<(), FlowError> {
    let copy = |rules: &mut Ruleset| copy_rules(rules, old, new).then_some(()).ok_or(Unchanged);
    // Nothing to copy is no error.
    let _: Result<(), Unchanged> = users.change_push_rules(user, copy).await?;
    if let Some(tags) = users.account_data(user, old.sid, TAGS).await? {
        let copy = |present: Option<&str>| match present {
            None => Ok(tags.get().to_owned()),
            Some(_) => Err(Unchanged),
        };
        let _: Result<(), Unchanged> = users.change_account_data(user, new.sid, TAGS, copy).await?;
    }
    Ok(())
}

/// Copies the room's rule, and the override rule that clients write to silence a room; whether there was one.
fn copy_rules(rules: &mut Ruleset, old: &Room, new: &Room) -> bool {
    let mut changed = false;
    let rule = rules.room.iter().find(|rule| rule.rule_id == old.id);
    if let Some(mut rule) = rule.cloned() {
        rule.rule_id = new.id.clone();
        changed |= rules.room.insert(rule);
    }
    let about_old = |rule: &&ConditionalPushRule| {
        rule.rule_id == old.id.as_str() && rule.conditions.iter().any(|it| is_room(it, old))
    };
    let rule = rules.override_.iter().find(about_old).cloned();
    if let Some(mut rule) = rule {
        rule.rule_id = new.id.to_string();
        for condition in &mut rule.conditions {
            if is_room(condition, old)
                && let PushCondition::EventMatch(data) = condition
            {
                data.pattern = new.id.to_string();
            }
        }
        let (place, fresh) = rules.override_.insert_full(rule);
        if fresh {
            // The user's own rules come before the server's.
            rules.override_.move_index(place, 0);
        }
        changed |= fresh;
    }
    changed
}

fn is_room(condition: &PushCondition, room: &Room) -> bool {
    matches!(condition, PushCondition::EventMatch(data) if data.key == "room_id" && data.pattern == room.id.as_str())
}

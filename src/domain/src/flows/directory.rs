//! Aliases: who may make, remove and list them, and what `m.room.canonical_alias` may name.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-aliases>. An alias of this server is two rows, by name and by room,
//! changed in one batch. The list of public rooms is in `public_rooms`.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedRoomAliasId, RoomAliasId, RoomId, UserId,
    events::{StateEventType, TimelineEventType},
};
use vatra_store::{Batch, CommitError, Direction, Range};

use super::{FlowError, membership::alias_target};
use crate::{
    appservice::Services,
    event::build::Draft,
    rooms::{Reader, Room, RoomError, Rooms, receive::Receiver},
    schema::{self, AliasRow},
    users::Requester,
};

/// Makes an alias of this server for a room the requester is in.
///
/// # Errors
/// [`FlowError::AliasTaken`] if it exists, wherever it points; [`FlowError::Exclusive`]; [`FlowError::InvalidParam`] for another server's alias.
pub async fn create_alias(
    rooms: &Rooms,
    services: &Services,
    requester: &Requester,
    alias: &RoomAliasId,
    room: &RoomId,
) -> Result<(), FlowError> {
    local(rooms, alias)?;
    services.check_alias(requester.service.as_deref(), alias)?;
    if alias.alias().is_empty() || alias.as_str().len() > 255 {
        return Err(FlowError::InvalidParam(
            "an alias has 1 to 255 bytes".to_owned(),
        ));
    }
    let reader = rooms.reader();
    let room = reader.room(room).await?.ok_or(RoomError::UnknownRoom)?;
    if !governs(requester) && !reader.is_joined(requester.sid, room.sid).await? {
        return Err(RoomError::Forbidden("you are not in that room".to_owned()).into());
    }
    let mut batch = Batch::new();
    let row = AliasRow {
        room: room.id.to_string(),
        creator: requester.user.to_string(),
    };
    batch.assert_absent(&schema::ALIASES, &alias.to_string());
    batch.put(&schema::ALIASES, &alias.to_string(), &row);
    batch.put(&schema::ROOM_ALIASES, &(room.sid, alias.to_string()), &());
    match rooms.store().write(batch).await {
        Err(CommitError::AssertFailed) => Err(FlowError::AliasTaken),
        other => Ok(other.map(|_| ())?),
    }
}

/// Whether someone manages aliases whatever they are to the room: an admin, and an application service within its namespaces, which
/// are looked at before.
fn governs(requester: &Requester) -> bool {
    requester.admin || requester.service.is_some()
}

/// Removes an alias: its maker may, and who may set the room's canonical alias, and an admin. A canonical alias event
/// that names it is changed too, if the requester may.
///
/// # Errors
/// [`FlowError::Exclusive`] for a person if an application service has it for itself, and for a service if it is none of its own.
pub async fn remove_alias(
    receiver: &Receiver,
    services: &Services,
    requester: &Requester,
    alias: &RoomAliasId,
) -> Result<(), FlowError> {
    services.check_alias(requester.service.as_deref(), alias)?;
    let rooms = receiver.rooms();
    let reader = rooms.reader();
    let row = reader
        .view()
        .get(&schema::ALIASES, &alias.to_string())
        .await?
        .ok_or(FlowError::UnknownAlias)?;
    let room = match RoomId::parse(&row.room) {
        Ok(id) => reader.room(&id).await?,
        Err(_) => None,
    };
    let own = row.creator == requester.user.as_str() || governs(requester);
    let may_set = match &room {
        Some(room) => {
            reader.is_joined(requester.sid, room.sid).await?
                && may_set_canonical(&reader, room, &requester.user).await?
        }
        None => false,
    };
    if !own && !may_set {
        return Err(RoomError::Forbidden("you may not remove that alias".to_owned()).into());
    }
    let mut batch = Batch::new();
    batch.assert_equals(&schema::ALIASES, &alias.to_string(), &row);
    batch.delete(&schema::ALIASES, &alias.to_string());
    if let Some(room) = &room {
        batch.delete(&schema::ROOM_ALIASES, &(room.sid, alias.to_string()));
    }
    match rooms.store().write(batch).await {
        Err(CommitError::AssertFailed) => return Err(FlowError::UnknownAlias),
        other => other?,
    };
    match room.filter(|_| may_set) {
        Some(room) => drop_from_canonical(receiver, &reader, requester, &room, alias).await,
        None => Ok(()),
    }
}

/// The aliases that this server has for a room, in order.
pub async fn aliases_of(reader: &Reader, room: &Room) -> Result<Vec<OwnedRoomAliasId>, FlowError> {
    let range = Range::prefix(&(room.sid,));
    let rows = reader
        .view()
        .range(&schema::ROOM_ALIASES, range, Direction::Forward, usize::MAX)
        .await?;
    let aliases = rows.into_iter().map(|((_, alias), ())| alias);
    Ok(aliases
        .filter_map(|alias| RoomAliasId::parse(alias).ok())
        .collect())
}

/// Whether a user has the power to set the room's canonical alias.
pub async fn may_set_canonical(
    reader: &Reader,
    room: &Room,
    user: &UserId,
) -> Result<bool, FlowError> {
    let power = reader.power_levels(room).await?;
    Ok(power.user_can_send_state(user, StateEventType::RoomCanonicalAlias))
}

/// Checks a new `m.room.canonical_alias`: every alias that the current one does not name already must point to the room.
///
/// # Errors
/// [`FlowError::InvalidParam`] for what is no alias, [`FlowError::BadAlias`] for one that points elsewhere or nowhere.
pub async fn check_canonical(
    rooms: &Rooms,
    room: &RoomId,
    content: &CanonicalJsonObject,
) -> Result<(), FlowError> {
    let reader = rooms.reader();
    let known = reader.room(room).await?.ok_or(RoomError::UnknownRoom)?;
    let current = reader
        .state_event(known.sid, &StateEventType::RoomCanonicalAlias, "")
        .await?;
    let current: Option<CanonicalJsonObject> =
        current.and_then(|event| event.pdu.content_as().ok());
    let named_already = match &current {
        Some(content) => named(content).unwrap_or_default(),
        None => Vec::new(),
    };
    for alias in named(content)? {
        if named_already.contains(&alias) {
            continue;
        }
        if alias_target(rooms, &alias).await?.as_deref() != Some(room) {
            return Err(FlowError::BadAlias(format!(
                "{alias} does not point to the room"
            )));
        }
    }
    Ok(())
}

/// The aliases that a canonical alias event names.
fn named(content: &CanonicalJsonObject) -> Result<Vec<OwnedRoomAliasId>, FlowError> {
    let invalid = |what: &str| FlowError::InvalidParam(format!("{what} is no room alias"));
    let mut texts: Vec<&CanonicalJsonValue> = Vec::new();
    texts.extend(content.get("alias"));
    match content.get("alt_aliases") {
        Some(CanonicalJsonValue::Array(aliases)) => texts.extend(aliases),
        None | Some(CanonicalJsonValue::Null) => {}
        Some(_) => {
            return Err(FlowError::InvalidParam(
                "alt_aliases is a list of aliases".to_owned(),
            ));
        }
    }
    let mut aliases = Vec::new();
    for text in texts {
        match text {
            // The canonical alias is taken away so.
            CanonicalJsonValue::Null => {}
            CanonicalJsonValue::String(text) if text.is_empty() => {}
            CanonicalJsonValue::String(text) => {
                aliases.push(RoomAliasId::parse(text).map_err(|_| invalid(text))?);
            }
            _ => return Err(invalid("something that is no string")),
        }
    }
    Ok(aliases)
}

/// Takes a removed alias out of the room's canonical alias event.
async fn drop_from_canonical(
    receiver: &Receiver,
    reader: &Reader,
    requester: &Requester,
    room: &Room,
    alias: &RoomAliasId,
) -> Result<(), FlowError> {
    let event = reader
        .state_event(room.sid, &StateEventType::RoomCanonicalAlias, "")
        .await?;
    let Some(mut content) =
        event.and_then(|event| event.pdu.content_as::<CanonicalJsonObject>().ok())
    else {
        return Ok(());
    };
    let before = content.clone();
    let is_it = |value: &CanonicalJsonValue| value.as_str() == Some(alias.as_str());
    if content.get("alias").is_some_and(is_it) {
        content.remove("alias");
    }
    if let Some(CanonicalJsonValue::Array(aliases)) = content.get_mut("alt_aliases") {
        aliases.retain(|value| !is_it(value));
    }
    if content == before {
        return Ok(());
    }
    let draft = Draft {
        sender: requester.user.clone(),
        kind: TimelineEventType::RoomCanonicalAlias,
        state_key: Some(String::new()),
        content,
        redacts: None,
    };
    receiver.send_one(&room.id, draft, None).await?;
    Ok(())
}

fn local(rooms: &Rooms, alias: &RoomAliasId) -> Result<(), FlowError> {
    if alias.server_name() == rooms.server_name() {
        Ok(())
    } else {
        Err(FlowError::InvalidParam(
            "the alias is not one of this server".to_owned(),
        ))
    }
}

//! Upgrading a room: a new room of another version in the place of an old one, which is closed with a tombstone.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-upgrades>. The old room stays locked until its tombstone is
//! submitted, so that nothing is said in it meanwhile; nobody else knows the new room before, so that holding both cannot
//! block anyone for ever. What the user had set for the old room goes over with `settings`.

use ruma::{
    CanonicalJsonObject, OwnedRoomId, RoomId,
    api::client::room::upgrade_room::v3::Request,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
};
use serde_json::{Map, Value, json};
use vatra_store::{Batch, CommitError};

use super::{
    FlowError, content,
    create_room::{Making, new_room_id, version_rules},
    directory::aliases_of,
    membership::member_content,
    settings,
    upgraded_levels::{Levels, closed, upgraded},
};
use crate::{
    event::build::{BuildError, Draft},
    rooms::{Reader, Room, RoomError, RoomGuard, Rooms},
    schema::{self, AliasRow, Membership},
    users::{Requester, Users},
};

/// State that goes over to the new room as it is.
const TRANSFERRED: [&str; 7] = [
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
];
/// How many bans, and how many rooms of a space, go over.
const MANY: usize = 10_000;

/// Makes the new room and closes the old one. Answers when both are durable.
///
/// # Errors
/// [`RoomError::Forbidden`] for who may not send a tombstone; [`RoomError::UnsupportedVersion`].
pub async fn upgrade(
    users: &Users,
    rooms: &Rooms,
    requester: &Requester,
    request: Request,
) -> Result<OwnedRoomId, FlowError> {
    let rules = version_rules(&request.new_version)?;
    let mut old = rooms.lock(&request.room_id).await?;
    let reader = rooms.reader();
    let may = reader.is_joined(requester.sid, old.room.sid).await?
        && old
            .power_levels()
            .await?
            .user_can_send_state(&requester.user, StateEventType::RoomTombstone);
    if !may {
        return Err(RoomError::Forbidden("you may not close that room".to_owned()).into());
    }
    let id = rules
        .event_format
        .require_room_create_room_id
        .then(|| new_room_id(users))
        .transpose()?;
    let create = create_content(&mut old, requester, &request, &rules).await?;
    let levels = levels(&mut old, requester, &request, &rules).await?;
    let draft = draft(requester, "m.room.create", create);
    let (guard, last) = rooms.create(&request.new_version, id, draft).await?;
    let new = guard.room.clone();
    let mut upgrade = Upgrade {
        reader,
        requester,
        old,
        rules,
        new: Making {
            rooms,
            sender: requester.user.clone(),
            guard,
            last,
        },
    };
    let aliases = upgrade.fill(users, levels).await?;
    let Upgrade {
        reader,
        mut old,
        new: making,
        ..
    } = upgrade;
    drop(making.guard);
    making.last.durable().await?;
    move_names(rooms, &reader, &old.room, &new, &aliases).await?;
    close(rooms, requester, &mut old, &new.id).await?;
    let old = old.room.clone();
    settings::carry_over(users, requester.sid, &old, &new).await?;
    Ok(new.id.clone())
}

/// An upgrade under way: the old room is locked, the new one has its create event.
struct Upgrade<'a> {
    reader: Reader,
    requester: &'a Requester,
    old: RoomGuard,
    rules: RoomVersionRules,
    new: Making<'a>,
}

impl Upgrade<'_> {
    /// Everything of the new room after its create event. Gives the aliases that are to be moved.
    async fn fill(&mut self, users: &Users, levels: Levels) -> Result<Vec<String>, FlowError> {
        let join = member_content(users, self.requester.sid, "join", None).await?;
        self.new
            .send("m.room.member", self.requester.user.as_str(), join)
            .await?;
        self.new
            .send("m.room.power_levels", "", content(levels.first)?)
            .await?;
        for kind in TRANSFERRED {
            if let Some(state) = state(&mut self.old, kind).await? {
                let sent = self.new.send(kind, "", content(Value::Object(state))?);
                match sent.await {
                    // Another server let it in, and it meant nothing there.
                    Err(FlowError::Room(RoomError::Unbuildable(BuildError::NoSuchWord {
                        ..
                    }))) => {}
                    sent => sent?,
                }
            }
        }
        let join_rules = state(&mut self.old, "m.room.join_rules").await?;
        let join_rules = join_rules_for(&self.rules, join_rules);
        self.new
            .send("m.room.join_rules", "", content(Value::Object(join_rules))?)
            .await?;
        self.children().await?;
        let aliases = self.canonical_alias().await?;
        self.bans().await?;
        if let Some(last) = levels.last {
            self.new
                .send("m.room.power_levels", "", content(last)?)
                .await?;
        }
        Ok(aliases)
    }

    /// The rooms of a space.
    async fn children(&mut self) -> Result<(), FlowError> {
        let kind = StateEventType::SpaceChild;
        let children = self
            .reader
            .current_of_type(self.old.room.sid, &kind)
            .await?;
        for child in children.into_iter().take(MANY) {
            let said: CanonicalJsonObject = child.pdu.content_as().unwrap_or_default();
            if let Some(key) = child.pdu.state_key.as_deref().filter(|_| !said.is_empty()) {
                self.new.send("m.space.child", key, said).await?;
            }
        }
        Ok(())
    }

    /// The names of the old room on this server become names of the new one.
    async fn canonical_alias(&mut self) -> Result<Vec<String>, FlowError> {
        let aliases = aliases_of(&self.reader, &self.old.room).await?;
        let aliases: Vec<String> = aliases.iter().map(ToString::to_string).collect();
        if let Some(named) = state(&mut self.old, "m.room.canonical_alias").await? {
            let kept = only_aliases(named, |alias| aliases.iter().any(|own| own == alias));
            if !kept.is_empty() {
                self.new
                    .send("m.room.canonical_alias", "", content(Value::Object(kept))?)
                    .await?;
            }
        }
        Ok(aliases)
    }

    async fn bans(&mut self) -> Result<(), FlowError> {
        let banned = self
            .reader
            .members(self.old.room.sid, Membership::Ban, MANY)
            .await?;
        let events: Vec<_> = banned.into_iter().map(|(_, event)| event).collect();
        for event in self.reader.events(&events).await?.into_iter().flatten() {
            let Some(user) = event.pdu.state_key.as_deref() else {
                continue;
            };
            let said: Map<String, Value> = event.pdu.content_as().unwrap_or_default();
            let mut ban = json!({ "membership": "ban" });
            if let (Some(reason), Some(ban)) = (said.get("reason"), ban.as_object_mut()) {
                ban.insert("reason".to_owned(), reason.clone());
            }
            // A creator of the new room cannot be banned from it.
            match self.new.send("m.room.member", user, content(ban)?).await {
                Ok(()) | Err(FlowError::Room(RoomError::Forbidden(_))) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

async fn create_content(
    old: &mut RoomGuard,
    requester: &Requester,
    request: &Request,
    rules: &RoomVersionRules,
) -> Result<CanonicalJsonObject, FlowError> {
    let before = state(old, "m.room.create").await?.unwrap_or_default();
    let mut predecessor = json!({ "room_id": old.room.id });
    let last = old.last_event();
    if let Some(last) = last.filter(|_| rules.event_format.require_room_create_room_id)
        && let Some(predecessor) = predecessor.as_object_mut()
    {
        predecessor.insert("event_id".to_owned(), json!(last));
    }
    let mut create = Map::new();
    for kept in ["type", "m.federate"] {
        create.extend(
            before
                .get(kept)
                .map(|value| (kept.to_owned(), value.clone())),
        );
    }
    create.insert("predecessor".to_owned(), predecessor);
    create.insert("room_version".to_owned(), json!(request.new_version));
    if !rules.authorization.use_room_create_sender {
        create.insert("creator".to_owned(), json!(requester.user));
    }
    if rules.authorization.additional_room_creators && !request.additional_creators.is_empty() {
        let others = json!(request.additional_creators);
        create.insert("additional_creators".to_owned(), others);
    }
    content(Value::Object(create))
}

async fn levels(
    old: &mut RoomGuard,
    requester: &Requester,
    request: &Request,
    rules: &RoomVersionRules,
) -> Result<Levels, FlowError> {
    let create = old
        .state_event(&StateEventType::RoomCreate, "")
        .await?
        .ok_or(RoomError::UnknownRoom)?;
    let said: Map<String, Value> = create.pdu.content_as().unwrap_or_default();
    let mut creators = vec![create.pdu.sender.clone()];
    if old
        .room
        .rules
        .authorization
        .explicitly_privilege_room_creators
    {
        let others = said.get("additional_creators").cloned();
        creators.extend(
            others
                .and_then(|others| serde_json::from_value::<Vec<_>>(others).ok())
                .unwrap_or_default(),
        );
    }
    let before = state(old, "m.room.power_levels").await?;
    let privileged = old
        .room
        .rules
        .authorization
        .explicitly_privilege_room_creators;
    // A creator's power was never written down in a room of version 12, nor in one without power levels. From one room of
    // version 12 to another it stays with having made the room: who is to keep it is named as creator again.
    let unwritten = match (privileged, &before) {
        (true, _) if rules.authorization.explicitly_privilege_room_creators => Vec::new(),
        (false, Some(_)) => Vec::new(),
        _ => creators,
    };
    let mut founders = vec![requester.user.clone()];
    founders.extend(request.additional_creators.iter().cloned());
    Ok(upgraded(
        before.unwrap_or_default(),
        &unwritten,
        &founders,
        rules.authorization.explicitly_privilege_room_creators,
    ))
}

/// Local aliases, and the place in the list of public rooms.
async fn move_names(
    rooms: &Rooms,
    reader: &Reader,
    old: &Room,
    new: &Room,
    aliases: &[String],
) -> Result<(), FlowError> {
    let rows = reader.view().get_many(&schema::ALIASES, aliases).await?;
    for (alias, row) in aliases.iter().zip(rows) {
        let Some(row) = row.filter(|row| row.room == old.id.as_str()) else {
            continue;
        };
        let mut batch = Batch::new();
        batch.assert_equals(&schema::ALIASES, alias, &row);
        let creator = row.creator;
        let moved = AliasRow {
            room: new.id.to_string(),
            creator,
        };
        batch.put(&schema::ALIASES, alias, &moved);
        batch.delete(&schema::ROOM_ALIASES, &(old.sid, alias.clone()));
        batch.put(&schema::ROOM_ALIASES, &(new.sid, alias.clone()), &());
        match rooms.store().write(batch).await {
            // It was removed or given to another room meanwhile.
            Ok(_) | Err(CommitError::AssertFailed) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let listed = reader.view().get(&schema::PUBLIC_ROOMS, &old.sid).await?;
    if listed.is_some() {
        let mut batch = Batch::new();
        batch.delete(&schema::PUBLIC_ROOMS, &old.sid);
        batch.put(&schema::PUBLIC_ROOMS, &new.sid, &());
        rooms.store().write(batch).await?;
    }
    Ok(())
}

/// The tombstone, and as far as the requester may: no aliases of this server, and nobody without power speaks or invites.
async fn close(
    rooms: &Rooms,
    requester: &Requester,
    old: &mut RoomGuard,
    new: &RoomId,
) -> Result<(), FlowError> {
    let tombstone = json!({ "body": "This room has been replaced", "replacement_room": new });
    let tombstone = draft(requester, "m.room.tombstone", content(tombstone)?);
    let tombstone = rooms.send(old, tombstone, None).await?;
    let mut wishes: Vec<(&str, Map<String, Value>)> = Vec::new();
    if let Some(named) = state(old, "m.room.canonical_alias").await? {
        let server = rooms.server_name();
        let foreign = |alias: &str| alias.split_once(':').is_none_or(|(_, at)| at != server);
        wishes.push(("m.room.canonical_alias", only_aliases(named, foreign)));
    }
    let levels = state(old, "m.room.power_levels").await?.unwrap_or_default();
    wishes.push(("m.room.power_levels", closed(levels)));
    for (kind, wish) in wishes {
        let draft = draft(requester, kind, content(Value::Object(wish))?);
        match rooms.send(old, draft, None).await {
            Ok(sent) => sent.durable().await.map(|_| ())?,
            Err(RoomError::Forbidden(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    tombstone.durable().await?;
    Ok(())
}

/// What a canonical alias event is left with when only some aliases are kept.
fn only_aliases(mut named: Map<String, Value>, keep: impl Fn(&str) -> bool) -> Map<String, Value> {
    let kept = |value: &Value| value.as_str().is_some_and(&keep);
    named.retain(|field, value| match value {
        Value::Array(aliases) if field == "alt_aliases" => {
            aliases.retain(kept);
            !aliases.is_empty()
        }
        value if field == "alias" => kept(value),
        _ => false,
    });
    named
}

/// The old room's join rules as far as the new version has them; what it lacks becomes `invite`.
fn join_rules_for(rules: &RoomVersionRules, old: Option<Map<String, Value>>) -> Map<String, Value> {
    let has = |rule: &str| match rule {
        "public" | "invite" | "private" => true,
        "knock" => rules.authorization.knocking,
        "restricted" => rules.authorization.restricted_join_rule,
        "knock_restricted" => rules.authorization.knock_restricted_join_rule,
        _ => false,
    };
    let old = old.filter(|old| {
        old.get("join_rule")
            .and_then(Value::as_str)
            .is_some_and(has)
    });
    old.unwrap_or_else(|| {
        let mut invite = Map::new();
        invite.insert("join_rule".to_owned(), json!("invite"));
        invite
    })
}

/// The content of a state event with an empty key; `None` if it is missing or says nothing.
async fn state(room: &mut RoomGuard, kind: &str) -> Result<Option<Map<String, Value>>, FlowError> {
    let event = room.state_event(&StateEventType::from(kind), "").await?;
    let content: Option<Map<String, Value>> = event.and_then(|event| event.pdu.content_as().ok());
    Ok(content.filter(|content| !content.is_empty()))
}

fn draft(requester: &Requester, kind: &str, content: CanonicalJsonObject) -> Draft {
    Draft {
        sender: requester.user.clone(),
        kind: TimelineEventType::from(kind),
        state_key: Some(String::new()),
        content,
        redacts: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ruma::RoomVersionId;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn join_rules_that_the_new_version_lacks_become_invite() {
        for (version, rule, expected) in [
            (RoomVersionId::V1, "public", "public"),
            (RoomVersionId::V6, "knock", "invite"),
            (RoomVersionId::V7, "knock", "knock"),
            (RoomVersionId::V7, "restricted", "invite"),
            (RoomVersionId::V8, "restricted", "restricted"),
            (RoomVersionId::V9, "knock_restricted", "invite"),
            (RoomVersionId::V10, "knock_restricted", "knock_restricted"),
            (RoomVersionId::V12, "made up", "invite"),
        ] {
            let rules = version.rules().unwrap();
            let kept = join_rules_for(&rules, Some(object(json!({ "join_rule": rule }))));
            assert_eq!(kept.get("join_rule").unwrap(), expected, "{version} {rule}");
        }
    }

    #[test]
    fn aliases_are_parted() {
        let named = object(json!({ "alias": "#a:b", "alt_aliases": ["#a:b", "#c:d"], "x": 1 }));
        let kept = only_aliases(named.clone(), |alias| alias == "#c:d");
        assert_eq!(Value::Object(kept), json!({ "alt_aliases": ["#c:d"] }));
        assert!(only_aliases(named, |_| false).is_empty());
    }
}

//! `createRoom`: the create event and everything that makes it a room, in the order of the spec, under one guard.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom>

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, OwnedUserId, RoomAliasId, RoomId,
    RoomVersionId,
    api::client::room::{
        Visibility,
        create_room::v3::{Request, RoomPreset},
    },
    events::TimelineEventType,
    room_version_rules::RoomVersionRules,
};
use serde::Deserialize;
use serde_json::{Value, json};
use vatra_store::{Batch, CommitError};

use super::{
    FlowError, content,
    invite::{invite_all, must_take_invites},
    membership::member_content,
    settings,
};
use crate::{
    event::build::Draft,
    random,
    rooms::{Room, RoomError, RoomGuard, Rooms, Sent, receive::Receiver},
    schema::{self, AliasRow},
    users::{Requester, Users},
};

#[derive(Deserialize)]
struct InitialEvent {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    state_key: String,
    content: Value,
}

/// Everything of the request, read and checked before anything is made.
struct Plan {
    version: RoomVersionId,
    rules: RoomVersionRules,
    preset: RoomPreset,
    create: CanonicalJsonObject,
    levels: CanonicalJsonObject,
    initial: Vec<InitialEvent>,
    alias: Option<String>,
}

/// Whether rooms of a version can be made here.
pub fn is_known(version: &RoomVersionId) -> bool {
    version_rules(version).is_ok()
}

/// Makes a room, of version `default` if the request asks for none. Answers when all of it is durable.
///
/// Users of other servers are invited once the room is there. One whose server does not take the invite is not invited, and the
/// room's state does not say otherwise.
pub async fn create_room(
    users: &Users,
    receiver: &Receiver,
    requester: &Requester,
    mut request: Request,
    default: &RoomVersionId,
) -> Result<OwnedRoomId, FlowError> {
    let rooms = receiver.rooms();
    let elsewhere = |user: &OwnedUserId| user.server_name() != users.server_name();
    if !receiver.remote().is_open() && request.invite.iter().any(elsewhere) {
        // An invite that nobody delivers would look as if it had been.
        let message = "this server does not speak with others, and cannot invite their users";
        return Err(FlowError::BadRequest(message.to_owned()));
    }
    // Before anything is made: who makes a room for someone would not want it without them.
    for user in &request.invite {
        must_take_invites(users, user).await?;
    }
    let version = request.room_version.take();
    let plan = plan(
        users,
        requester,
        &request,
        version.as_ref().unwrap_or(default),
    )?;
    if is_taken(rooms, plan.alias.as_ref()).await? {
        return Err(FlowError::AliasTaken);
    }
    let id = plan
        .rules
        .event_format
        .require_room_create_room_id
        .then(|| new_room_id(users))
        .transpose()?;
    let sender = requester.user.clone();
    let create = Draft {
        sender: sender.clone(),
        kind: TimelineEventType::RoomCreate,
        state_key: Some(String::new()),
        content: plan.create.clone(),
        redacts: None,
    };
    // The alias is taken in the batch that founds the room: who loses a race for it makes no room.
    let named = |batch: &mut Batch, room: &Room| {
        if let Some(alias) = &plan.alias {
            batch.assert_absent(&schema::ALIASES, alias);
            batch.put(&schema::ALIASES, alias, &alias_row(requester, room));
            batch.put(&schema::ROOM_ALIASES, &(room.sid, alias.clone()), &());
        }
    };
    let made = rooms.create_with(&plan.version, id, create, &named).await;
    let (guard, first) = match made {
        Err(RoomError::Raced) => {
            let taken = is_taken(rooms, plan.alias.as_ref()).await?;
            return Err(if taken {
                FlowError::AliasTaken
            } else {
                RoomError::Raced.into()
            });
        }
        other => other?,
    };
    let room = guard.room.clone();
    let making = Making {
        rooms,
        sender,
        guard,
        last: first,
    };
    let done = making.finish(users, requester, &request, &plan).await;
    if let (Err(_), Some(alias)) = (&done, &plan.alias) {
        release(rooms, requester, &room, alias).await?;
    }
    done?;
    if request.visibility == Visibility::Public {
        let mut batch = Batch::new();
        batch.put(&schema::PUBLIC_ROOMS, &room.sid, &());
        rooms.store().write(batch).await?;
    }
    settings::created(users, rooms, requester.sid, &room).await?;
    let others = request.invite.iter().filter(|user| elsewhere(user));
    let others = others.cloned().collect();
    invite_all(
        users,
        receiver,
        requester,
        others,
        &room.id,
        request.is_direct,
    )
    .await;
    Ok(room.id.clone())
}

/// An id for a room whose version does not make it of the create event.
pub(super) fn new_room_id(users: &Users) -> Result<OwnedRoomId, FlowError> {
    let name = random::token(&**users.random(), 18);
    RoomId::parse(format!("!{name}:{}", users.server_name()))
        .map_err(|error| FlowError::BadRequest(error.to_string()))
}

fn alias_row(requester: &Requester, room: &Room) -> AliasRow {
    AliasRow {
        room: room.id.to_string(),
        creator: requester.user.to_string(),
    }
}

async fn is_taken(rooms: &Rooms, alias: Option<&String>) -> Result<bool, FlowError> {
    match alias {
        Some(alias) => Ok(rooms
            .store()
            .view()
            .contains(&schema::ALIASES, alias)
            .await?),
        None => Ok(false),
    }
}

/// Gives back the alias of a room that did not come to be whole, so that another attempt may have it.
async fn release(
    rooms: &Rooms,
    requester: &Requester,
    room: &Room,
    alias: &String,
) -> Result<(), FlowError> {
    let mut batch = Batch::new();
    batch.assert_equals(&schema::ALIASES, alias, &alias_row(requester, room));
    batch.delete(&schema::ALIASES, alias);
    batch.delete(&schema::ROOM_ALIASES, &(room.sid, alias.clone()));
    match rooms.store().write(batch).await {
        // Someone has moved it meanwhile: it is theirs.
        Ok(_) | Err(CommitError::AssertFailed) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What a room version means.
///
/// # Errors
/// [`RoomError::UnsupportedVersion`] for one that this server makes no rooms of.
pub(super) fn version_rules(version: &RoomVersionId) -> Result<RoomVersionRules, RoomError> {
    let known = (1..=12).any(|known: u8| version.as_str() == known.to_string());
    version
        .rules()
        .filter(|_| known)
        .ok_or(RoomError::UnsupportedVersion)
}

/// Reads the request.
fn plan(
    users: &Users,
    requester: &Requester,
    request: &Request,
    version: &RoomVersionId,
) -> Result<Plan, FlowError> {
    let bad = |message: &str| FlowError::BadRequest(message.to_owned());
    if !request.invite_3pid.is_empty() {
        return Err(bad(
            "this server cannot invite by e-mail or telephone: leave out invite_3pid",
        ));
    }
    if !matches!(request.visibility, Visibility::Public | Visibility::Private) {
        return Err(bad("visibility is public or private"));
    }
    let rules = version_rules(version)?;
    let preset = request.preset.clone().unwrap_or(match request.visibility {
        Visibility::Public => RoomPreset::PublicChat,
        _ => RoomPreset::PrivateChat,
    });
    let trusted = match preset {
        RoomPreset::TrustedPrivateChat => request.invite.clone(),
        RoomPreset::PrivateChat | RoomPreset::PublicChat => Vec::new(),
        _ => {
            return Err(bad(
                "preset is private_chat, public_chat or trusted_private_chat",
            ));
        }
    };

    let mut create: CanonicalJsonObject = match &request.creation_content {
        Some(raw) => serde_json::from_str(raw.json().get())
            .map_err(|error| bad(&format!("creation_content: {error}")))?,
        None => CanonicalJsonObject::new(),
    };
    create.insert(
        "room_version".to_owned(),
        CanonicalJsonValue::String(version.to_string()),
    );
    if rules.authorization.use_room_create_sender {
        create.remove("creator");
    } else {
        create.insert(
            "creator".to_owned(),
            CanonicalJsonValue::String(requester.user.to_string()),
        );
    }
    let creators_rule = rules.authorization.explicitly_privilege_room_creators;
    if creators_rule {
        add_creators(&mut create, &trusted);
    }

    let levels = levels(requester, request, &preset, &rules, &trusted)?;
    let initial = request
        .initial_state
        .iter()
        .map(|raw| serde_json::from_str(raw.json().get()));
    let initial: Vec<InitialEvent> = initial
        .collect::<Result<_, _>>()
        .map_err(|error| bad(&format!("initial_state: {error}")))?;
    if initial
        .iter()
        .any(|event| event.kind == "m.room.create" || event.kind == "m.room.member")
    {
        return Err(FlowError::InvalidRoomState(
            "initial_state holds a create or member event".to_owned(),
        ));
    }
    let alias = match &request.room_alias_name {
        Some(name) => {
            let alias = format!("#{name}:{}", users.server_name());
            let valid = !name.is_empty() && !name.contains([':', '\0']) && alias.len() <= 255;
            let Some(parsed) = RoomAliasId::parse(&*alias).ok().filter(|_| valid) else {
                return Err(bad("room_alias_name is not the local part of an alias"));
            };
            let by = requester.service.as_deref();
            users.services().check_alias(by, &parsed)?;
            Some(alias)
        }
        None => None,
    };
    Ok(Plan {
        version: version.clone(),
        rules,
        preset,
        create,
        levels,
        initial,
        alias,
    })
}

/// Adds users to the creators whom the request names. What is no list is left for the auth rules to refuse.
fn add_creators(create: &mut CanonicalJsonObject, users: &[OwnedUserId]) {
    if users.is_empty() {
        return;
    }
    let named = create
        .entry("additional_creators".to_owned())
        .or_insert_with(|| CanonicalJsonValue::Array(Vec::new()));
    if let CanonicalJsonValue::Array(named) = named {
        for user in users {
            let user = CanonicalJsonValue::String(user.to_string());
            if !named.contains(&user) {
                named.push(user);
            }
        }
    }
}

/// The power levels: the spec's defaults, what the preset says, then what the request overrides.
fn levels(
    requester: &Requester,
    request: &Request,
    preset: &RoomPreset,
    rules: &RoomVersionRules,
    trusted: &[OwnedUserId],
) -> Result<CanonicalJsonObject, FlowError> {
    let creators_rule = rules.authorization.explicitly_privilege_room_creators;
    let mut users = serde_json::Map::new();
    if !creators_rule {
        users.insert(requester.user.to_string(), json!(100));
        if *preset == RoomPreset::TrustedPrivateChat {
            users.extend(trusted.iter().map(|user| (user.to_string(), json!(100))));
        }
    }
    let tombstone = if creators_rule { 150 } else { 100 };
    // Whoever wants to come to a public room can: there is little need to fetch them.
    let invite = if *preset == RoomPreset::PublicChat {
        50
    } else {
        0
    };
    let mut levels = content(json!({
        "ban": 50, "kick": 50, "redact": 50, "invite": invite,
        "state_default": 50, "events_default": 0, "users_default": 0,
        "users": users,
        "events": {
            "m.room.name": 50, "m.room.avatar": 50, "m.room.canonical_alias": 50, "m.room.power_levels": 100,
            "m.room.history_visibility": 100, "m.room.tombstone": tombstone, "m.room.server_acl": 100,
            "m.room.encryption": 100,
        },
        "notifications": { "room": 50 },
    }))?;
    if let Some(raw) = &request.power_level_content_override {
        let over: CanonicalJsonObject =
            serde_json::from_str(raw.json().get()).map_err(|error| {
                FlowError::BadRequest(format!("power_level_content_override: {error}"))
            })?;
        levels.extend(over);
    }
    Ok(levels)
}

/// A room in the making.
pub(super) struct Making<'a> {
    pub(super) rooms: &'a Rooms,
    pub(super) sender: OwnedUserId,
    pub(super) guard: RoomGuard,
    pub(super) last: Sent,
}

impl Making<'_> {
    /// Sends the first events and waits until they are durable.
    async fn finish(
        mut self,
        users: &Users,
        requester: &Requester,
        request: &Request,
        plan: &Plan,
    ) -> Result<(), FlowError> {
        self.first_events(users, requester, request, plan).await?;
        let Self { guard, last, .. } = self;
        drop(guard);
        last.durable().await?;
        Ok(())
    }

    async fn first_events(
        &mut self,
        users: &Users,
        requester: &Requester,
        request: &Request,
        plan: &Plan,
    ) -> Result<(), FlowError> {
        let join = member_content(users, requester.sid, "join", None).await?;
        self.send("m.room.member", requester.user.as_str(), join)
            .await?;
        self.send("m.room.power_levels", "", plan.levels.clone())
            .await?;
        if let Some(alias) = &plan.alias {
            self.send(
                "m.room.canonical_alias",
                "",
                content(json!({ "alias": alias }))?,
            )
            .await?;
        }
        let (join_rule, history, guests) = match plan.preset {
            RoomPreset::PublicChat => ("public", "shared", "forbidden"),
            _ => ("invite", "shared", "can_join"),
        };
        // That guests are forbidden goes without saying.
        let guests = (guests != "forbidden").then_some(guests);
        let preset = [
            ("m.room.join_rules", json!({ "join_rule": join_rule })),
            (
                "m.room.history_visibility",
                json!({ "history_visibility": history }),
            ),
        ];
        let guests =
            guests.map(|guests| ("m.room.guest_access", json!({ "guest_access": guests })));
        for (kind, value) in preset.into_iter().chain(guests) {
            // What the request says itself comes in its place.
            let said = plan
                .initial
                .iter()
                .any(|event| event.kind == kind && event.state_key.is_empty());
            if !said {
                self.send(kind, "", content(value)?).await?;
            }
        }
        for event in &plan.initial {
            self.send(
                &event.kind,
                &event.state_key,
                content(event.content.clone())?,
            )
            .await?;
        }
        if let Some(name) = &request.name {
            self.send("m.room.name", "", content(json!({ "name": name }))?)
                .await?;
        }
        if let Some(topic) = &request.topic {
            let rich = json!({ "m.text": [{ "body": topic, "mimetype": "text/plain" }] });
            self.send(
                "m.room.topic",
                "",
                content(json!({ "topic": topic, "m.topic": rich }))?,
            )
            .await?;
        }
        let local = request
            .invite
            .iter()
            .filter(|user| user.server_name() == users.server_name());
        for user in local {
            let mut invite = match users.find(user.as_str()).await? {
                Some((_, sid)) => member_content(users, sid, "invite", None).await?,
                None => content(json!({ "membership": "invite" }))?,
            };
            if request.is_direct {
                invite.insert("is_direct".to_owned(), CanonicalJsonValue::Bool(true));
            }
            self.send("m.room.member", user.as_str(), invite).await?;
        }
        Ok(())
    }

    /// Sends a state event as the room's maker.
    pub(super) async fn send(
        &mut self,
        kind: &str,
        key: &str,
        content: CanonicalJsonObject,
    ) -> Result<(), FlowError> {
        let draft = Draft {
            sender: self.sender.clone(),
            kind: TimelineEventType::from(kind),
            state_key: Some(key.to_owned()),
            content,
            redacts: None,
        };
        self.last = self.rooms.send(&mut self.guard, draft, None).await?;
        Ok(())
    }
}

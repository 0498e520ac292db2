//! Making rooms, sending into them and reading their state.
//! <https://spec.matrix.org/v1.19/client-server-api/#rooms-1>

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use ruma::{
    CanonicalJsonObject, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UInt,
    api::{
        client::{
            redact::redact_event::v3 as redact_event,
            room::{create_room::v3 as create_room_request, upgrade_room::v3 as upgrade_room},
        },
        error::ErrorCode,
    },
    events::{StateEventType, TimelineEventType},
};
use serde_json::json;
use std::sync::Arc;
use vatra_domain::{
    event::{build::Draft, client::client_json, relation::Relation},
    flows::{
        FlowError, content,
        create_room::create_room,
        directory::check_canonical,
        member_state,
        suspended::{may_send, may_set_state},
        upgrade as flow,
    },
    rooms::{
        Event, Reader, Room, RoomError, TxnKey,
        serve::{self, Form},
        visible::Viewer,
    },
    schema::{Membership, MembershipRow, RoomOrder, StateRoot},
    users::Requester,
};

use super::super::{
    endpoint::{Input, Unsuspended},
    error::Error,
};
use crate::wiring::App;

/// How many users a new room can have invited at once.
const MAX_INVITES: usize = 100;

pub(super) async fn create(
    app: App,
    Unsuspended(caller): Unsuspended,
    request: create_room_request::Request,
) -> Result<create_room_request::Response, Error> {
    app.rates.join(&caller)?;
    if request.invite.len() > MAX_INVITES {
        let message = format!("invite: at most {MAX_INVITES} users; invite the others afterwards");
        return Err(Error::bad_json(&message));
    }
    app.rates.invites(&caller, request.invite.len())?;
    let version = &app.config.rooms.default_version;
    let room_id = create_room(&app.users, &app.receiver, &caller, request, version).await?;
    Ok(create_room_request::Response { room_id })
}

pub(super) async fn upgrade(
    app: App,
    Unsuspended(caller): Unsuspended,
    request: upgrade_room::Request,
) -> Result<upgrade_room::Response, Error> {
    app.rates.join(&caller)?;
    let replacement_room = flow::upgrade(&app.users, &app.rooms, &caller, request).await?;
    Ok(upgrade_room::Response::new(replacement_room))
}

/// `PUT /rooms/{room}/send/{type}/{txn}`. Read by hand: the body is the content, whatever its type.
pub(super) async fn send(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    app.rates.send(&caller)?;
    let room: &RoomId = input.id(0)?;
    let (kind, txn) = (input.arg(1), input.arg(2));
    let sent = dated(&caller, &input)?;
    let content: CanonicalJsonObject = input.read()?;
    // A redaction may come this way too; then its target is in the content.
    let redacts = content
        .get("redacts")
        .filter(|_| kind == "m.room.redaction")
        .and_then(|value| value.as_str());
    let redacts = redacts.and_then(|id| OwnedEventId::try_from(id).ok());
    let draft = Draft {
        sender: caller.user.clone(),
        kind: TimelineEventType::from(kind),
        state_key: None,
        content,
        redacts,
    };
    may_send(&app.rooms, &caller, room, draft.redacts.as_deref()).await?;
    let endpoint = format!("send/{room}/{kind}");
    let id = send_once(&app, &caller, room, draft, (&endpoint, txn), sent).await?;
    Ok(Json(json!({ "event_id": id })).into_response())
}

pub(super) async fn redact(
    app: App,
    caller: Requester,
    request: redact_event::Request,
) -> Result<redact_event::Response, Error> {
    app.rates.send(&caller)?;
    let reason = request
        .reason
        .map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    let draft = Draft {
        sender: caller.user.clone(),
        kind: TimelineEventType::RoomRedaction,
        state_key: None,
        content: content(reason)?,
        redacts: Some(request.event_id.clone()),
    };
    let target = Some(&*request.event_id);
    may_send(&app.rooms, &caller, &request.room_id, target).await?;
    let endpoint = format!("redact/{}/{}", request.room_id, request.event_id);
    let event_id = send_once(
        &app,
        &caller,
        &request.room_id,
        draft,
        (&endpoint, request.txn_id.as_str()),
        None,
    )
    .await?;
    Ok(redact_event::Response { event_id })
}

async fn send_once(
    app: &App,
    caller: &Requester,
    room: &RoomId,
    draft: Draft,
    (endpoint, txn): (&str, &str),
    sent: Option<MilliSecondsSinceUnixEpoch>,
) -> Result<OwnedEventId, Error> {
    let txn = TxnKey {
        user: caller.sid,
        device: caller.device_key().to_owned(),
        endpoint: endpoint.to_owned(),
        id: txn.to_owned(),
    };
    refuse_second_reaction(app, caller, room, &draft, &txn).await?;
    let id = app.receiver.send_one_at(room, draft, Some(txn), sent);
    Ok(id.await.map_err(FlowError::from)?)
}

/// When an event was sent, as an application service says; what others say is not listened to.
/// <https://spec.matrix.org/v1.19/application-service-api/#timestamp-massaging>
fn dated(caller: &Requester, input: &Input) -> Result<Option<MilliSecondsSinceUnixEpoch>, Error> {
    let ts = input.param("ts").filter(|_| caller.service.is_some());
    let ts = ts.map(|ts| ts.parse::<UInt>().map(MilliSecondsSinceUnixEpoch));
    let ts = ts.transpose();
    ts.map_err(|_| Error::invalid_param("ts is a number of milliseconds since 1970"))
}

/// One reaction of a kind per person and event. <https://spec.matrix.org/v1.19/client-server-api/#annotations-and-reactions>
async fn refuse_second_reaction(
    app: &App,
    caller: &Requester,
    room: &RoomId,
    draft: &Draft,
    txn: &TxnKey,
) -> Result<(), Error> {
    let Some(relation) =
        Relation::in_content(&draft.content).filter(|it| it.rel_type == "m.annotation")
    else {
        return Ok(());
    };
    let reader = app.rooms.reader();
    let room = reader.room(room).await?.ok_or(RoomError::UnknownRoom)?;
    let kind = draft.kind.to_string();
    let related = reader
        .relations(
            room.sid,
            &relation.event_id,
            vatra_store::Direction::Backward,
            10_000,
        )
        .await?;
    for (_, row) in related {
        let same = row.rel_type == "m.annotation"
            && row.kind == kind
            && row.sender == caller.sid
            && row.key == relation.key;
        if !same {
            continue;
        }
        // A client that repeats its own transaction is answered with the first event, not refused.
        let event = reader.event_by_sid(row.event).await?;
        let repeated = event
            .and_then(|event| event.transaction.clone())
            .is_some_and(|(user, device, id)| {
                (user, &device, &id) == (txn.user, &txn.device, &txn.id)
            });
        if !repeated {
            let message = "you have reacted so already";
            return Err(Error::new(
                StatusCode::BAD_REQUEST,
                ErrorCode::DuplicateAnnotation,
                message,
            ));
        }
    }
    Ok(())
}

/// `PUT /rooms/{room}/state/{type}[/{key}]`.
pub(super) async fn set_state(
    app: App,
    caller: Requester,
    input: Input,
) -> Result<Response, Error> {
    app.rates.send(&caller)?;
    let room: &RoomId = input.id(0)?;
    let (kind, key) = (input.arg(1), input.arg(2));
    let sent = dated(&caller, &input)?;
    let content: CanonicalJsonObject = input.read()?;
    may_set_state(&caller, kind, key, &content)?;
    if kind == "m.room.canonical_alias" && key.is_empty() {
        check_canonical(&app.rooms, room, &content).await?;
    }
    // Setting what is set already makes no event.
    let reader = app.rooms.reader();
    if let Some(known) = reader.room(room).await?
        && let Some(event) = reader
            .state_event(known.sid, &StateEventType::from(kind), key)
            .await?
        && event.pdu.sender == caller.user
        && event
            .pdu
            .content_as::<CanonicalJsonObject>()
            .is_ok_and(|current| current == content)
    {
        return Ok(Json(json!({ "event_id": event.pdu.event_id })).into_response());
    }
    let id = if kind == "m.room.member" {
        if content.get("membership").and_then(|value| value.as_str()) == Some("invite") {
            app.rates.invite(&caller)?;
        }
        member_state::set(&app.users, &app.receiver, &caller, room, key, content, sent).await?
    } else {
        let draft = Draft {
            sender: caller.user.clone(),
            kind: TimelineEventType::from(kind),
            state_key: Some(key.to_owned()),
            content,
            redacts: None,
        };
        let id = app.receiver.send_one_at(room, draft, None, sent);
        id.await.map_err(FlowError::from)?
    };
    Ok(Json(json!({ "event_id": id })).into_response())
}

/// `GET /rooms/{room}/state/{type}[/{key}]`, the content or with `format=event` the event.
pub(super) async fn get_state_event(
    app: App,
    caller: Requester,
    input: Input,
) -> Result<Response, Error> {
    let seen = Seen::new(&app, &caller, input.id(0)?).await?;
    let root = seen.root().await?;
    let (kind, key) = (StateEventType::from(input.arg(1)), input.arg(2));
    let event = seen.reader.state_at_key(root, &kind, key).await?;
    let event = event.ok_or_else(|| Error::not_found("the room has no such state"))?;
    Ok(match input.param("format").as_deref() {
        Some("event") => Json(client_json(&event.pdu, true, None)).into_response(),
        None | Some("content") => Json(event.pdu.content()).into_response(),
        Some(_) => return Err(Error::invalid_param("format is content or event")),
    })
}

/// `GET /rooms/{room}/state`.
pub(super) async fn get_state(
    app: App,
    caller: Requester,
    input: Input,
) -> Result<Response, Error> {
    let seen = Seen::new(&app, &caller, input.id(0)?).await?;
    let mut events = seen.reader.state_events_at(seen.root().await?).await?;
    events.sort_by_key(|event| event.order);
    Ok(Json(seen.show(&app, &events).await?).into_response())
}

/// `GET /rooms/{room}/event/{event}`.
pub(super) async fn get_event(
    app: App,
    caller: Requester,
    input: Input,
) -> Result<Response, Error> {
    let room: &RoomId = input.id(0)?;
    let id: &ruma::EventId = input.id(1)?;
    let hidden = || Error::from(RoomError::UnknownEvent);
    let seen = Seen::new(&app, &caller, room).await;
    let seen = seen.map_err(|error| error.hiding(hidden()))?;
    let event = seen.event(id).await?;
    let shown = seen.show(&app, &[event]).await?;
    Ok(Json(shown.into_iter().next().ok_or_else(hidden)?).into_response())
}

/// A room as someone may read it: a member now, or as of when they left; or anyone if it is world readable.
pub(super) struct Seen {
    pub(super) reader: Reader,
    pub(super) room: Arc<Room>,
    pub(super) viewer: Viewer,
    pub(super) membership: Option<MembershipRow>,
}

impl Seen {
    pub(super) async fn new(app: &App, caller: &Requester, id: &RoomId) -> Result<Self, Error> {
        let reader = app.rooms.reader();
        let room = reader.room(id).await?.ok_or(RoomError::UnknownRoom)?;
        let membership = reader.membership(caller.sid, room.sid).await?;
        let seen = Self {
            reader,
            room,
            viewer: viewer(caller),
            membership,
        };
        let was_member = membership.is_some_and(|row| row.was_joined() && !row.forgotten);
        if was_member || seen.is_world_readable().await? {
            Ok(seen)
        } else {
            Err(Error::forbidden("you are not in that room"))
        }
    }

    /// A room as its members see it now, or anyone if it is world readable: not for those who have left.
    pub(super) async fn current(app: &App, caller: &Requester, id: &RoomId) -> Result<Self, Error> {
        let seen = Self::new(app, caller, id).await?;
        let joined = seen
            .membership
            .is_some_and(|row| row.membership == Membership::Join);
        if joined || seen.is_world_readable().await? {
            Ok(seen)
        } else {
            Err(Error::forbidden("you are not in that room"))
        }
    }

    async fn is_world_readable(&self) -> Result<bool, Error> {
        let kind = StateEventType::RoomHistoryVisibility;
        let event = self.reader.state_event(self.room.sid, &kind, "").await?;
        let content: Option<serde_json::Map<String, serde_json::Value>> =
            event.and_then(|event| event.pdu.content_as().ok());
        Ok(content.is_some_and(|content| {
            content.get("history_visibility") == Some(&json!("world_readable"))
        }))
    }

    /// An event that the caller may see; one that they may not is as unknown as one that there is not.
    pub(super) async fn event(&self, id: &EventId) -> Result<Arc<Event>, Error> {
        let (reader, room) = (&self.reader, &self.room);
        if let Some(event) = reader.event(room.sid, id).await?
            && self.viewer.may_see(reader, room, &event).await?
        {
            return Ok(event);
        }
        Err(RoomError::UnknownEvent.into())
    }

    /// Up to when the caller may see the room.
    pub(super) fn until(&self) -> vatra_store::Position {
        match self.membership {
            Some(row) if row.membership != Membership::Join && row.was_joined() => row.joined_until,
            _ => self.reader.watermark(),
        }
    }

    /// The first place of the room that the caller may not see any more, or that is still empty.
    pub(super) async fn end(&self) -> Result<RoomOrder, Error> {
        let newest = self.reader.order_at(self.room.sid, self.until()).await?;
        Ok(newest.map_or(RoomOrder(0), RoomOrder::next))
    }

    /// The state that the caller may see.
    pub(super) async fn root(&self) -> Result<StateRoot, Error> {
        if self.until() < self.reader.watermark() && self.is_world_readable().await? {
            return Ok(self
                .reader
                .root_at(self.room.sid, self.reader.watermark())
                .await?);
        }
        Ok(self.reader.root_at(self.room.sid, self.until()).await?)
    }

    pub(super) async fn show(
        &self,
        app: &App,
        events: &[Arc<Event>],
    ) -> Result<Vec<Box<serde_json::value::RawValue>>, Error> {
        let form = Form::full(app.users.clock().clone());
        Ok(serve::events(&self.reader, &self.viewer, &self.room, events, &form).await?)
    }
}

pub(super) fn viewer(caller: &Requester) -> Viewer {
    Viewer {
        user: caller.user.clone(),
        sid: caller.sid,
        device: caller.device.clone(),
    }
}

//! What a gateway is told. <https://spec.matrix.org/v1.19/push-gateway-api/#post_matrixpushv1notify>

use std::sync::Arc;

use bytes::Bytes;
use quick_cache::sync::Cache;
use ruma::events::{StateEventType, TimelineEventType};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::{
    rooms::{Event, Reader, Room, RoomError, judging::display_name, outside::Outside},
    schema::{EventSid, NoticeRow, PusherRow, UserSid},
};

/// The largest content that is sent along, in bytes. No provider takes more than a few thousand.
const MAX_CONTENT: usize = 16 << 10;
/// Of how many events the names of those concerned are kept: most are told to many at once.
const NAMES: usize = 256;

/// What is known of an event that someone is notified of.
pub(super) struct About {
    event: Arc<Event>,
    room: Arc<Room>,
    /// For gateways that are told all.
    named: Option<Arc<Named>>,
    for_user: bool,
    high: bool,
    tweaks: Box<RawValue>,
}

/// What people call those concerned by events, by the events.
pub(in crate::followers) struct Names {
    known: Cache<EventSid, Arc<Named>>,
}

/// What people call those concerned.
#[derive(Debug, Default, Serialize)]
pub(in crate::followers) struct Named {
    #[serde(
        rename = "sender_display_name",
        skip_serializing_if = "Option::is_none"
    )]
    pub(in crate::followers) sender: Option<String>,
    #[serde(rename = "room_name", skip_serializing_if = "Option::is_none")]
    pub(in crate::followers) room: Option<String>,
    #[serde(rename = "room_alias", skip_serializing_if = "Option::is_none")]
    pub(in crate::followers) alias: Option<String>,
}

/// What state events say that name something.
#[derive(Deserialize)]
struct Name {
    name: Option<String>,
    alias: Option<String>,
    displayname: Option<String>,
}

#[derive(Deserialize)]
struct Stripped {
    #[serde(rename = "type")]
    kind: String,
    state_key: Option<String>,
    content: Value,
}

#[derive(Serialize)]
struct Told<'a> {
    notification: Notification<'a>,
}

#[derive(Serialize)]
struct Notification<'a> {
    #[serde(flatten)]
    event: Option<AboutEvent<'a>>,
    prio: &'static str,
    counts: Counts,
    devices: [Device<'a>; 1],
}

#[derive(Serialize)]
struct AboutEvent<'a> {
    event_id: &'a str,
    room_id: &'a str,
    #[serde(flatten)]
    details: Option<Details<'a>>,
}

/// What gateways are not told that want only ids.
#[derive(Serialize)]
struct Details<'a> {
    #[serde(rename = "type")]
    kind: String,
    sender: &'a str,
    #[serde(flatten)]
    named: &'a Named,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    user_is_target: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Counts {
    unread: u64,
}

#[derive(Serialize)]
struct Device<'a> {
    app_id: &'a str,
    pushkey: &'a str,
    /// In seconds.
    pushkey_ts: u64,
    data: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    tweaks: Option<&'a RawValue>,
}

impl About {
    /// `None` if the event or its room cannot be read. Names are read only for those who are told them.
    pub(super) async fn new(
        reader: &Reader,
        names: &Names,
        user: UserSid,
        notice: &NoticeRow,
        pusher: &PusherRow,
    ) -> Result<Option<Self>, RoomError> {
        let event = reader.event_by_sid(notice.event).await?;
        let room = reader.room_by_sid(notice.room).await?;
        let Some((event, room)) = event.zip(room) else {
            return Ok(None);
        };
        let outside = if notice.invite {
            reader.outside(user, room.sid).await?
        } else {
            None
        };
        let named = match outside {
            _ if only_id(pusher) => None,
            Some(outside) => Some(Arc::new(named_outside(&outside, event.pdu.sender.as_str()))),
            None => Some(names.of(reader, &room, &event).await?),
        };
        let tweaks: Box<RawValue> = RawValue::from_string(notice.tweaks.clone())
            .unwrap_or_else(|_| RawValue::NULL.to_owned());
        // What is encrypted may be anything; what makes a sound or stands out is urgent.
        let high = notice.highlight
            || notice.invite
            || notice.tweaks.contains("\"sound\"")
            || event.pdu.kind == TimelineEventType::RoomEncrypted;
        Ok(Some(Self {
            for_user: notice.invite,
            event,
            room,
            named,
            high,
            tweaks,
        }))
    }
}

/// Whether a gateway is told which event it is, and no more.
fn only_id(pusher: &PusherRow) -> bool {
    #[derive(Deserialize)]
    struct Format {
        format: Option<Value>,
    }
    let format = serde_json::from_str::<Format>(&pusher.data);
    format.is_ok_and(|it| it.format.is_some_and(|it| it == "event_id_only"))
}

/// A notification of an event.
pub(super) fn event(about: &About, pusher: &PusherRow, unread: u64) -> Option<Bytes> {
    let pdu = &about.event.pdu;
    let content = Some(pdu.content()).filter(|it| it.get().len() <= MAX_CONTENT);
    let details = about.named.as_ref().map(|named| Details {
        kind: pdu.kind.to_string(),
        sender: pdu.sender.as_str(),
        named,
        user_is_target: about.for_user,
        content,
    });
    let event = AboutEvent {
        event_id: pdu.event_id.as_str(),
        room_id: about.room.id.as_str(),
        details,
    };
    written(Notification {
        event: Some(event),
        prio: if about.high { "high" } else { "low" },
        // The event itself is unread.
        counts: Counts {
            unread: unread.max(1),
        },
        devices: [device(pusher, Some(&about.tweaks))?],
    })
}

/// How much is unread, and nothing else. Zero is said too: a count that is left out would change no badge.
pub(super) fn count(pusher: &PusherRow, unread: u64) -> Option<Bytes> {
    written(Notification {
        event: None,
        prio: "low",
        counts: Counts { unread },
        devices: [device(pusher, None)?],
    })
}

fn written(notification: Notification<'_>) -> Option<Bytes> {
    let told = Told { notification };
    serde_json::to_vec(&told).ok().map(Bytes::from)
}

/// `None` if its data is no JSON, which was checked when it was set.
fn device<'a>(pusher: &'a PusherRow, tweaks: Option<&'a RawValue>) -> Option<Device<'a>> {
    Some(Device {
        app_id: &pusher.app_id,
        pushkey: &pusher.pushkey,
        pushkey_ts: pusher.set_at / 1_000,
        data: serde_json::from_str(&pusher.data).ok()?,
        tweaks,
    })
}

impl Names {
    pub(in crate::followers) fn new() -> Self {
        Self {
            known: Cache::new(NAMES),
        }
    }

    /// Three reads, for the first who is told of an event.
    pub(in crate::followers) async fn of(
        &self,
        reader: &Reader,
        room: &Room,
        event: &Event,
    ) -> Result<Arc<Named>, RoomError> {
        if let Some(known) = self.known.get(&event.sid) {
            return Ok(known);
        }
        let sender = &event.pdu.sender;
        let member = reader
            .state_event(room.sid, &StateEventType::RoomMember, sender.as_str())
            .await?;
        let state = |kind: StateEventType| async move {
            let event = reader.state_event(room.sid, &kind, "").await?;
            Ok::<_, RoomError>(event.and_then(|event| event.pdu.content_as::<Name>().ok()))
        };
        let (room, alias) = (
            state(StateEventType::RoomName).await?,
            state(StateEventType::RoomCanonicalAlias).await?,
        );
        let named = Arc::new(Named {
            sender: Some(display_name(sender, member.as_deref())),
            room: said(room.and_then(|it| it.name)),
            alias: said(alias.and_then(|it| it.alias)),
        });
        self.known.insert(event.sid, Arc::clone(&named));
        Ok(named)
    }
}

/// The same for a room that this server is not in.
pub(in crate::followers) fn named_outside(outside: &Outside, sender: &str) -> Named {
    let find = |kind: &str, key: &str| {
        let events = outside.state.iter();
        let mut events = events.filter_map(|it| serde_json::from_str::<Stripped>(it.get()).ok());
        let event = events.find(|it| it.kind == kind && it.state_key.as_deref() == Some(key))?;
        serde_json::from_value::<Name>(event.content).ok()
    };
    Named {
        sender: said(find("m.room.member", sender).and_then(|it| it.displayname)),
        room: said(find("m.room.name", "").and_then(|it| it.name)),
        alias: said(find("m.room.canonical_alias", "").and_then(|it| it.alias)),
    }
}

fn said(name: Option<String>) -> Option<String> {
    name.filter(|name| !name.is_empty())
}

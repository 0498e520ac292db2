//! What can be found of an event, and by which words.
//!
//! Found are messages, by their body, and the events that name a room or say what it is about. An edit is not found itself: the message is found
//! by what it says now. What was redacted or is too old is not found, nor what was said in an encrypted room.

use std::sync::Arc;

use ruma::events::{StateEventType, TimelineEventType};
use serde::Deserialize;
use vatra_search::Document;
use vatra_store::Direction;

use crate::{
    clock::Millis,
    event::{pdu::Pdu, relation::Relation},
    rooms::{Event, Reader, RoomError},
    schema::{EventSid, Status},
};

/// How many events that relate to a message are looked at for its newest edit.
const RELATED: usize = 1_000;

/// A kind of text: what the spec calls a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `content.body` of messages.
    Body,
    /// `content.name` of events that name a room.
    Name,
    /// `content.topic`, and the plain text of `content.m.topic`, of events that say what a room is about.
    Topic,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Body, Self::Name, Self::Topic];

    /// Its number in the index. Never changes.
    pub fn number(self) -> u64 {
        match self {
            Self::Body => 0,
            Self::Name => 1,
            Self::Topic => 2,
        }
    }

    /// The type of its events.
    pub fn event_type(self) -> &'static str {
        match self {
            Self::Body => "m.room.message",
            Self::Name => "m.room.name",
            Self::Topic => "m.room.topic",
        }
    }

    /// The kind of an event's text, if it has any.
    pub fn of(pdu: &Pdu) -> Option<Self> {
        match (&pdu.kind, pdu.state_key.as_deref()) {
            (TimelineEventType::RoomMessage, None) => Some(Self::Body),
            (TimelineEventType::RoomName, Some("")) => Some(Self::Name),
            (TimelineEventType::RoomTopic, Some("")) => Some(Self::Topic),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct Message {
    body: String,
}

#[derive(Deserialize)]
struct Edit {
    #[serde(rename = "m.new_content")]
    new_content: Message,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

#[derive(Deserialize)]
struct Topic {
    topic: String,
}

#[derive(Deserialize)]
struct RichTopic {
    #[serde(rename = "m.topic")]
    topic: Representations,
}

#[derive(Deserialize)]
struct Representations {
    #[serde(rename = "m.text")]
    text: Vec<Representation>,
}

#[derive(Deserialize)]
struct Representation {
    body: String,
    #[serde(default)]
    mimetype: Option<String>,
}

/// What an event says that can be found; `None` if that is nothing. Of an edit it is what the message says with it.
pub fn said(pdu: &Pdu) -> Option<String> {
    let text = match Kind::of(pdu)? {
        Kind::Body if replaces(pdu).is_some() => pdu.content_as::<Edit>().ok()?.new_content.body,
        Kind::Body => pdu.content_as::<Message>().ok()?.body,
        Kind::Name => pdu.content_as::<Name>().ok()?.name,
        Kind::Topic => topic(pdu),
    };
    (!text.is_empty()).then_some(text)
}

fn topic(pdu: &Pdu) -> String {
    let old = pdu.content_as::<Topic>().ok().map(|it| it.topic);
    let rich = pdu.content_as::<RichTopic>().ok();
    let rich = rich.and_then(|rich| {
        let mut texts = rich.topic.text.into_iter();
        let plain = |kind: &str| kind == "text/plain";
        texts.find(|it| it.mimetype.as_deref().is_none_or(plain))
    });
    let rich = rich.map(|it| it.body);
    match (old, rich) {
        (Some(old), Some(rich)) if old != rich => format!("{old}\n{rich}"),
        (old, rich) => old.or(rich).unwrap_or_default(),
    }
}

/// The message that an event replaces the content of.
fn replaces(pdu: &Pdu) -> Option<Relation> {
    let message = Kind::of(pdu) == Some(Kind::Body);
    let relation = Relation::of(pdu).filter(|_| message);
    relation.filter(|it| it.rel_type == "m.replace")
}

/// What events may change of what is found.
pub struct Texts<'a> {
    reader: &'a Reader,
    now: Millis,
}

impl<'a> Texts<'a> {
    /// As of a reader and a time.
    pub fn new(reader: &'a Reader, now: Millis) -> Self {
        Self { reader, now }
    }

    /// The events that are found differently because of one: itself, the message that it edits, or the one that it redacts.
    ///
    /// # Errors
    /// The store's.
    pub async fn touched(&self, event: &Arc<Event>) -> Result<Option<Arc<Event>>, RoomError> {
        let target = if event.pdu.kind == TimelineEventType::RoomRedaction {
            event.pdu.redacts.clone()
        } else if let Some(relation) = replaces(&event.pdu) {
            Some(relation.event_id)
        } else {
            return Ok(Kind::of(&event.pdu).map(|_| Arc::clone(event)));
        };
        match target {
            Some(target) => self.reader.event(event.room, &target).await,
            None => Ok(None),
        }
    }

    /// By what an event is found; `None` if it is not.
    ///
    /// # Errors
    /// The store's.
    pub async fn document(&self, event: &Arc<Event>) -> Result<Option<Document>, RoomError> {
        let Some(kind) = Kind::of(&event.pdu) else {
            return Ok(None);
        };
        if replaces(&event.pdu).is_some() || !self.is_open(event).await? {
            return Ok(None);
        }
        let edit = match kind {
            Kind::Body => self.newest_edit(event).await?,
            Kind::Name | Kind::Topic => None,
        };
        let source = match &edit {
            // What it says now was said in an encrypted room.
            Some(edit) if !self.is_open(edit).await? => return Ok(None),
            Some(edit) => edit,
            None => event,
        };
        let Some(text) = said(&source.pdu) else {
            return Ok(None);
        };
        let sender = self.reader.user_sid(&event.pdu.sender).await?;
        // A server that says it is tomorrow does not stand before all others.
        let sent: u64 = event.pdu.origin_server_ts.0.into();
        Ok(Some(Document {
            item: event.sid.0,
            source: source.sid.0,
            room: event.room.0,
            sender: sender.map_or(0, |sender| sender.0),
            kind: kind.number(),
            time: sent.min(self.now),
            text,
        }))
    }

    /// Whether what an event says can be shown to anyone, and was said in a room that was not encrypted.
    async fn is_open(&self, event: &Event) -> Result<bool, RoomError> {
        if event.status != Status::Visible || event.is_empty() {
            return Ok(false);
        }
        let kind = StateEventType::RoomEncryption;
        let encryption = self.reader.state_at_key(event.root_before, &kind, "");
        Ok(encryption.await?.is_none())
    }

    /// The newest edit that counts: by the same person, and with a text.
    async fn newest_edit(&self, event: &Event) -> Result<Option<Arc<Event>>, RoomError> {
        let id = &event.pdu.event_id;
        let related = self
            .reader
            .relations(event.room, id, Direction::Backward, RELATED)
            .await?;
        let edits = related
            .iter()
            .filter(|(_, row)| row.rel_type == "m.replace" && row.kind == "m.room.message");
        let edits: Vec<EventSid> = edits.map(|(_, row)| row.event).collect();
        for edit in self.reader.events(&edits).await?.into_iter().flatten() {
            if edit.pdu.sender == event.pdu.sender && !edit.is_empty() && said(&edit.pdu).is_some()
            {
                return Ok(Some(edit));
            }
        }
        Ok(None)
    }
}

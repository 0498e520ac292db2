//! What a letter says: who has written where, and what, as far as the server may know and the reader may see it.

use std::sync::Arc;

use ruma::events::{StateEventType, TimelineEventType};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use vatra_store::Position;

use super::{
    super::{
        FollowError,
        notices::{Notice, of_users},
        push_sender::message::named_outside,
    },
    Inner, PAGE_PATH,
};
use crate::{
    mail::{
        Letter, List,
        templates::{TemplateError, Value, context},
    },
    rooms::{Event, Reader, Room, visible::Viewer},
    schema::{NoticeRow, PusherRow, RoomSid, UserSid},
    users::pushers::MailWishes,
};

/// The template.
const TEMPLATE: &str = "notification";
/// How many rooms a letter tells of, and how many messages and people of each.
const ROOMS: usize = 10;
const MESSAGES: usize = 5;
const PEOPLE: usize = 5;
/// The longest name, and the longest text of a message, in characters.
const NAME_CHARACTERS: usize = 80;
const TEXT_CHARACTERS: usize = 500;
/// What a program is called that has not said it.
const BRAND: &str = "Matrix";

/// A letter that is being written.
pub(super) struct Writing<'a> {
    pub(super) inner: &'a Inner,
    pub(super) reader: &'a Reader,
    pub(super) user: UserSid,
    pub(super) pusher: &'a PusherRow,
    /// What its link holds that stops further ones.
    pub(super) link: &'a str,
    pub(super) wishes: &'a MailWishes,
    /// It tells of nothing after this.
    pub(super) upto: Position,
}

/// What is told of a room.
struct Told {
    id: Arc<Room>,
    value: Value,
}

impl Writing<'_> {
    /// `None` if there is nothing that the reader may see. The inner error is the template's.
    pub(super) async fn letter(
        &self,
        pending: &[&Notice],
        unread: &[Notice],
    ) -> Result<Result<Option<Letter>, TemplateError>, FollowError> {
        let mut sids: Vec<RoomSid> = Vec::new();
        for (_, row) in pending.iter().rev() {
            if !sids.contains(&row.room) {
                sids.push(row.room);
            }
        }
        let mut rooms = Vec::new();
        for sid in sids.iter().copied().take(ROOMS) {
            let rows = pending.iter().filter(|(_, row)| row.room == sid);
            let rows: Vec<&NoticeRow> = rows.map(|(_, row)| row).collect();
            if let Some(told) = self.room(sid, &rows).await? {
                rooms.push(told);
            }
        }
        let Some(first) = rooms.first().map(|told| Arc::clone(&told.id)) else {
            return Ok(Ok(None));
        };
        let more = sids.len().saturating_sub(ROOMS);
        // Letters about one room are a conversation of their own; those about several, another.
        let thread = if rooms.len() == 1 && more == 0 {
            first.id.as_str()
        } else {
            ""
        };
        Ok(self.rendered(&rooms, more, unread, thread).map(Some))
    }

    fn rendered(
        &self,
        rooms: &[Told],
        more: usize,
        unread: &[Notice],
        thread: &str,
    ) -> Result<Letter, TemplateError> {
        let parts = &self.inner.parts;
        let templates = &parts.templates;
        let language = templates.language(&self.pusher.lang);
        let server = parts.users.server_name();
        let unsubscribe = format!("{}{PAGE_PATH}?token={}", parts.base_url, self.link);
        let highlights = unread.iter().filter(|(_, row)| row.highlight).count();
        let brand = self.wishes.brand.as_deref().unwrap_or(BRAND);
        let values = context! {
            server => server.as_str(), language => language, brand => name(brand), address => self.pusher.pushkey.as_str(),
            rooms => rooms.iter().map(|told| told.value.clone()).collect::<Vec<_>>(), more_rooms => more,
            unread => unread.len(), highlights => highlights, unsubscribe => unsubscribe.as_str(),
        };
        let content = templates.letter(language, TEMPLATE, values)?;
        let id = self.id(&self.upto.0.to_string());
        let mut letter = Letter::new(id, self.pusher.pushkey.clone(), content);
        // The first of a conversation was never sent: all letters refer to it.
        letter.follows = Some(self.id(&format!("room {thread}")));
        letter.list = Some(List {
            id: format!("notifications.{}", server.host()),
            unsubscribe,
        });
        Ok(letter)
    }

    /// A Message-ID: the same for the same thing, and no one else's.
    fn id(&self, of: &str) -> String {
        let hash = Sha256::digest(format!("{}\n{of}", self.link));
        let hash: String = hash.iter().take(16).map(|it| format!("{it:02x}")).collect();
        let server = self.inner.parts.users.server_name();
        format!("<{hash}@{}>", server.host())
    }

    /// `None` if there is nothing that the reader may see.
    async fn room(&self, sid: RoomSid, rows: &[&NoticeRow]) -> Result<Option<Told>, FollowError> {
        let Some(room) = self.reader.room_by_sid(sid).await? else {
            return Ok(None);
        };
        let events = self.seen(&room, rows).await?;
        let Some(newest) = events.last() else {
            return Ok(None);
        };
        let invite = rows.iter().any(|row| row.invite);
        let outside = if invite {
            self.reader.outside(self.user, sid).await?
        } else {
            None
        };
        let here = outside.is_none();
        let mut senders: Vec<String> = Vec::new();
        let mut messages = Vec::new();
        let encryption = StateEventType::RoomEncryption;
        let secret = self.reader.state_event(sid, &encryption, "").await?;
        let encrypted = secret.is_some()
            || events
                .iter()
                .any(|event| event.pdu.kind == TimelineEventType::RoomEncrypted);
        let mut called = None;
        for event in events.iter().rev() {
            if messages.len() >= MESSAGES && senders.len() >= PEOPLE {
                break;
            }
            let sender = event.pdu.sender.as_str();
            let named = match &outside {
                Some(outside) => Arc::new(named_outside(outside, sender)),
                None => self.inner.names.of(self.reader, &room, event).await?,
            };
            let who = named.sender.as_deref().map(name);
            let who = who.filter(|who| !who.is_empty());
            let who = who.unwrap_or_else(|| name(sender));
            if called.is_none() {
                called = Some(named.room.clone().or_else(|| named.alias.clone()));
            }
            if !invite && !encrypted && messages.len() < MESSAGES {
                let (kind, text) = said(event);
                messages.push(context! { sender => who.as_str(), kind => kind, text => text });
            }
            if !senders.contains(&who) && senders.len() < PEOPLE {
                senders.push(who);
            }
        }
        messages.reverse();
        senders.reverse();
        let called = called.flatten().map(|called| name(&called));
        let called = called.filter(|called| !called.is_empty());
        let server = self.inner.parts.users.server_name().to_owned();
        let link = if invite || !here {
            room.id.matrix_to_uri_via([server]).to_string()
        } else {
            let event = newest.pdu.event_id.clone();
            room.id.matrix_to_event_uri_via(event, [server]).to_string()
        };
        let shown = messages.len();
        let value = context! {
            name => called.unwrap_or_else(|| senders.join(", ")), link => link, count => events.len(), invite => invite,
            encrypted => encrypted, senders => senders, messages => messages, more => events.len().saturating_sub(shown),
        };
        Ok(Some(Told { id: room, value }))
    }

    /// The events that the reader may see and wants to, oldest first.
    async fn seen(
        &self,
        room: &Arc<Room>,
        rows: &[&NoticeRow],
    ) -> Result<Vec<Arc<Event>>, FollowError> {
        let Some(user) = self.reader.user_id(self.user).await? else {
            return Ok(Vec::new());
        };
        let users = &self.inner.parts.users;
        let ignored = users.ignored(self.user).await.map_err(of_users)?;
        let sids: Vec<_> = rows.iter().map(|row| row.event).collect();
        let events = self.reader.events(&sids).await?;
        let wanted = events.into_iter().zip(rows).filter_map(|(event, row)| {
            let event = event.filter(|event| !event.is_empty())?;
            (!ignored.contains(&event.pdu.sender)).then_some((event, row.invite))
        });
        let (invites, others): (Vec<_>, Vec<_>) = wanted.partition(|(_, invite)| *invite);
        let others: Vec<_> = others.into_iter().map(|(event, _)| event).collect();
        let viewer = Viewer {
            user,
            sid: self.user,
            device: None,
        };
        let visible = if others.is_empty() {
            Vec::new()
        } else {
            viewer.visible(self.reader, room, &others).await?
        };
        // Whoever is invited may see the invite, whatever the room's rules are.
        let invites = invites.into_iter().map(|(event, _)| event);
        let others = others.into_iter().zip(visible);
        let others = others.filter(|(_, visible)| *visible);
        Ok(invites.chain(others.map(|(event, _)| event)).collect())
    }
}

#[derive(Deserialize)]
struct Message {
    msgtype: Option<String>,
    body: Option<String>,
}

/// What kind of thing was said, and its text.
fn said(event: &Event) -> (&'static str, String) {
    let content = event.pdu.content_as::<Message>().ok();
    let (kind, body) = content.map_or((None, None), |it| (it.msgtype, it.body));
    let kind = match (&event.pdu.kind, kind.as_deref().unwrap_or_default()) {
        (TimelineEventType::RoomMessage, "m.image") => "image",
        (TimelineEventType::RoomMessage, "m.video") => "video",
        (TimelineEventType::RoomMessage, "m.audio") => "audio",
        (TimelineEventType::RoomMessage, "m.file") => "file",
        (TimelineEventType::RoomMessage, "m.emote") => "emote",
        (TimelineEventType::RoomMessage, _) => "text",
        (TimelineEventType::Sticker, _) => "sticker",
        (TimelineEventType::CallInvite, _) => "call",
        _ => "other",
    };
    let body = body.unwrap_or_default();
    let kind = if kind == "text" && body.trim().is_empty() {
        "other"
    } else {
        kind
    };
    (kind, text(without_quote(&body)))
}

/// A reply of an older program begins with lines of what it replies to.
fn without_quote(body: &str) -> &str {
    let mut rest = body;
    if !rest.starts_with("> <") {
        return body;
    }
    while rest.starts_with('>') {
        let Some((_, after)) = rest.split_once('\n') else {
            return body;
        };
        rest = after;
    }
    rest
}

/// Characters that would let a text pose as something else: line ends apart, what is no character, and what turns the direction of others.
fn deceives(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// What people call themselves and their rooms: one line.
fn name(given: &str) -> String {
    let plain = given
        .chars()
        .filter(|it| !deceives(*it) || it.is_whitespace());
    let plain: String = plain
        .map(|it| if it.is_whitespace() { ' ' } else { it })
        .take(NAME_CHARACTERS)
        .collect();
    plain.trim().to_owned()
}

/// What people say, in its lines.
fn text(given: &str) -> String {
    let mut plain = given.chars().filter(|it| *it == '\n' || !deceives(*it));
    let mut kept: String = plain.by_ref().take(TEXT_CHARACTERS).collect();
    if plain.next().is_some() {
        kept.push('…');
    }
    kept.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{name, text, without_quote};

    #[test]
    fn names_are_one_line_and_texts_are_what_they_seem() {
        for (given, kept) in [
            ("Ana\r\nBcc: eve@example.org", "Ana  Bcc: eve@example.org"),
            ("\u{202e}gpj.exe\0", "gpj.exe"),
            ("\u{2028}a\u{2066}b", "ab"),
            ("  ", ""),
        ] {
            assert_eq!(name(given), kept, "{given:?}");
        }
        assert_eq!(name(&"é".repeat(500)).chars().count(), 80);
        assert_eq!(text("a\nb\r\u{202e}c\u{7}"), "a\nbc");
        let long = text(&"é".repeat(600));
        assert!(long.ends_with('…') && long.chars().count() == 501);
    }

    #[test]
    fn what_is_replied_to_is_left_out() {
        for (body, said) in [
            ("> <@a:b> one\n> two\n\nthree", "\nthree"),
            ("> a quote\nof my own", "> a quote\nof my own"),
            ("> <@a:b> one", "> <@a:b> one"),
            ("one", "one"),
        ] {
            assert_eq!(without_quote(body), said);
        }
    }
}

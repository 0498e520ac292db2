//! What an event means to one user: their push rules, held against it with what is known of the room.
//!
//! Used by all who must agree about it: unread counts, the list of notifications, and the followers that notify.

use std::sync::Arc;

use quick_cache::sync::Cache;
use ruma::{
    UserId,
    push::{AnyPushRuleRef, Ruleset},
};
use serde_json::Value;

use super::{Event, Reader, Room, RoomError};
use crate::{
    event::relation::{Relation, THREAD},
    push::{self, Context, Subject},
    schema::EventSid,
    users::Ignored,
};

/// How many contents are kept. They are small, or not worth keeping.
const CONTENTS: usize = 256;
/// The longest content that is kept, in bytes.
const LONGEST_CONTENT: usize = 4 << 10;

/// What a user wants to hear of.
#[derive(Debug, Clone)]
pub struct Taste {
    /// Their push rules.
    pub rules: Arc<Ruleset>,
    /// Whom they ignore.
    pub ignored: Arc<Ignored>,
}

impl Taste {
    /// Whether it is the very same.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.rules, &other.rules) && Arc::ptr_eq(&self.ignored, &other.ignored)
    }
}

/// Holds events against rulesets.
pub struct Judge {
    /// The contents of the events that were judged last: read once, however many rulesets they are held against.
    contents: Cache<EventSid, Arc<Value>>,
}

impl Default for Judge {
    fn default() -> Self {
        Self::new()
    }
}

impl Judge {
    /// One that has judged nothing.
    pub fn new() -> Self {
        Self {
            contents: Cache::new(CONTENTS),
        }
    }

    /// The rule of a user that applies to an event: none for one's own events, for what ignored users say, and for what was redacted.
    pub fn rule<'a>(
        &self,
        taste: &'a Taste,
        event: &Event,
        context: &Context,
    ) -> Option<AnyPushRuleRef<'a>> {
        let hushed = event.pdu.state_key.is_none() && taste.ignored.contains(&event.pdu.sender);
        if hushed || event.is_empty() || event.pdu.sender == context.user {
            return None;
        }
        let subject = Subject::read_before(&event.pdu, self.content(event));
        push::first_match(&taste.rules, &subject, context)
    }

    fn content(&self, event: &Event) -> Arc<Value> {
        if let Some(known) = self.contents.get(&event.sid) {
            return known;
        }
        let content: Arc<Value> = Arc::new(event.pdu.content_as().unwrap_or_default());
        if event.pdu.content().get().len() <= LONGEST_CONTENT {
            self.contents.insert(event.sid, Arc::clone(&content));
        }
        content
    }
}

/// What a user's rules may ask of a room, whose member event is `own`. The room's part comes from memory, unless its state has changed.
///
/// # Errors
/// The store's.
pub async fn context(
    reader: &Reader,
    room: &Room,
    user: &UserId,
    own: Option<&Event>,
) -> Result<Context, RoomError> {
    let state = &reader.recent(room).await?.state;
    Ok(Context {
        user: user.to_owned(),
        display_name: display_name(user, own),
        members: state.members,
        power: state.power.clone(),
        room: room.id.clone(),
    })
}

/// What a member event calls its user.
pub fn display_name(user: &UserId, member: Option<&Event>) -> String {
    let name = member.and_then(|event| event.pdu.member()?.display_name.clone());
    name.unwrap_or_else(|| user.localpart().to_owned())
}

/// The thread an event is in, by its root's id.
pub fn thread_of(event: &Event) -> Option<String> {
    let relation = Relation::of(&event.pdu)?;
    (relation.rel_type == THREAD).then(|| relation.event_id.to_string())
}

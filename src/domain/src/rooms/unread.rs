//! Unread counts: how many events after a user's receipt notify them, and how many highlight.
//!
//! A read over the events after the receipt, each judged by the user's push rules with the state at hand; one's own event counts as
//! a receipt. What was judged is remembered in memory, so that a new event in a room costs one judgement for each user who
//! looks, not one for each unread event. <https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications>

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use quick_cache::sync::Cache;
use ruma::{
    events::{TimelineEventType, receipt::ReceiptThread},
    push::Ruleset,
};
use vatra_store::{Direction, Position};

use super::{Event, Reader, Room, RoomError, ephemeral::Receipts, visible::Viewer};
use crate::{
    event::relation::{Relation, THREAD},
    push::{self, Context},
    schema::{Membership, RoomOrder, RoomSid, UserSid},
    users::Ignored,
};

/// How many events after a receipt are judged; a count that reaches it stays there.
const JUDGED: usize = 200;

/// Counts of notifying and highlighting events.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Events that notify.
    pub notify: u64,
    /// Those of them that highlight.
    pub highlight: u64,
}

/// A room's counts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Of the main timeline.
    pub main: Counts,
    /// Of each thread, by its root.
    pub threads: BTreeMap<String, Counts>,
}

impl Unread {
    /// Of the whole room, for clients that know no threads.
    pub fn total(&self) -> Counts {
        self.threads.values().fold(self.main, |sum, counts| Counts {
            notify: sum.notify + counts.notify,
            highlight: sum.highlight + counts.highlight,
        })
    }
}

/// The counts that were asked for lately.
pub struct Unreads {
    memos: Cache<(UserSid, RoomSid), Arc<Memo>>,
}

/// Counts as of an event, and what they were made of.
struct Memo {
    basis: Basis,
    upto: Option<RoomOrder>,
    unread: Unread,
}

/// What the counts depend on beside the events.
#[derive(Clone)]
struct Basis {
    everywhere: Option<RoomOrder>,
    main: Option<RoomOrder>,
    since: Position,
    rules: Arc<Ruleset>,
    ignored: Arc<Ignored>,
}

impl Basis {
    fn is(&self, other: &Self) -> bool {
        (self.everywhere, self.main, self.since) == (other.everywhere, other.main, other.since)
            && Arc::ptr_eq(&self.rules, &other.rules)
            && Arc::ptr_eq(&self.ignored, &other.ignored)
    }
}

impl Unreads {
    /// Remembers at most `capacity` pairs of user and room.
    pub fn new(capacity: usize) -> Self {
        Self {
            memos: Cache::new(capacity),
        }
    }

    /// Counts what a user has not read of a room, by their push rules and without those they ignore.
    pub async fn of(
        &self,
        reader: &Reader,
        receipts: &Receipts,
        (rules, ignored): (Arc<Ruleset>, Arc<Ignored>),
        viewer: &Viewer,
        room: &Arc<Room>,
    ) -> Result<Unread, RoomError> {
        let joined = reader.membership(viewer.sid, room.sid).await?;
        let read = |thread| receipts.read_up_to(reader, room, viewer.sid, thread);
        let basis = Basis {
            everywhere: read(&ReceiptThread::Unthreaded).await?,
            main: read(&ReceiptThread::Main).await?,
            since: joined.map_or(Position(0), |row| row.position),
            rules,
            ignored,
        };
        let count = Count {
            reader,
            receipts,
            viewer,
            room,
            basis,
        };
        let key = (viewer.sid, room.sid);
        let memo = match self.memos.get(&key) {
            Some(memo) if memo.basis.is(&count.basis) => count.go_on(&memo).await?,
            _ => None,
        };
        let memo = match memo {
            Some(memo) => memo,
            None => count.afresh().await?,
        };
        let unread = memo.unread.clone();
        self.memos.insert(key, Arc::new(memo));
        Ok(unread)
    }
}

/// One count.
struct Count<'a> {
    reader: &'a Reader,
    receipts: &'a Receipts,
    viewer: &'a Viewer,
    room: &'a Arc<Room>,
    basis: Basis,
}

impl Count<'_> {
    /// Judges only what is newer than a memo; `None` when that is not enough.
    async fn go_on(&self, memo: &Memo) -> Result<Option<Memo>, RoomError> {
        let from = memo.upto.map_or(Bound::Unbounded, Bound::Excluded);
        let new = self
            .reader
            .timeline(
                self.room.sid,
                from,
                Bound::Unbounded,
                Direction::Forward,
                JUDGED,
            )
            .await?;
        let simple = |event: &Arc<Event>| {
            event.pdu.sender != self.viewer.user
                && event.pdu.kind != TimelineEventType::RoomRedaction
                && thread_of(event).is_none()
        };
        if new.len() == JUDGED || !memo.unread.threads.is_empty() || !new.iter().all(simple) {
            return Ok(None);
        }
        let mut unread = memo.unread.clone();
        if !new.is_empty() {
            let context = self.context().await?;
            for event in &new {
                self.judge(event, &context, &mut unread.main);
            }
        }
        let limit = u64::try_from(JUDGED).unwrap_or(u64::MAX);
        unread.main.notify = unread.main.notify.min(limit);
        unread.main.highlight = unread.main.highlight.min(limit);
        let upto = new.last().map(|event| event.order).or(memo.upto);
        let basis = self.basis.clone();
        Ok(Some(Memo {
            basis,
            upto,
            unread,
        }))
    }

    /// Judges all events after the receipt.
    async fn afresh(&self) -> Result<Memo, RoomError> {
        let (reader, room) = (self.reader, self.room);
        let since_join = reader.order_at(room.sid, self.basis.since).await?;
        let from = self.basis.everywhere.max(since_join);
        let bound = from.map_or(Bound::Unbounded, Bound::Excluded);
        let newest = reader
            .timeline(
                room.sid,
                bound,
                Bound::Unbounded,
                Direction::Backward,
                JUDGED,
            )
            .await?;
        let upto = newest.first().map(|event| event.order).or(from);
        let mut unread = Unread::default();
        let mut own = BTreeMap::new();
        let mut context = None;
        for event in newest {
            let thread = thread_of(&event);
            if event.pdu.sender == self.viewer.user {
                own.entry(thread).or_insert(event.order);
                continue;
            }
            let receipt = self.receipt(thread.as_deref()).await?;
            let read = own.get(&thread).copied().max(receipt);
            if event.redacted_by.is_some() || read.is_some_and(|read| read >= event.order) {
                continue;
            }
            let context = match &mut context {
                Some(context) => context,
                empty => empty.insert(self.context().await?),
            };
            match thread {
                None => self.judge(&event, context, &mut unread.main),
                Some(thread) => {
                    let mut counts = Counts::default();
                    self.judge(&event, context, &mut counts);
                    if counts != Counts::default() {
                        let sum = unread.threads.entry(thread).or_default();
                        sum.notify += counts.notify;
                        sum.highlight += counts.highlight;
                    }
                }
            }
        }
        let basis = self.basis.clone();
        Ok(Memo {
            basis,
            upto,
            unread,
        })
    }

    fn judge(&self, event: &Event, context: &Context, counts: &mut Counts) {
        let hushed =
            event.pdu.state_key.is_none() && self.basis.ignored.contains(&event.pdu.sender);
        if hushed || event.redacted_by.is_some() {
            return;
        }
        let outcome = push::evaluate(&self.basis.rules, &event.pdu, context);
        counts.notify += u64::from(outcome.notify);
        counts.highlight += u64::from(outcome.notify && outcome.highlight);
    }

    /// How far the user has read the main timeline or a thread.
    async fn receipt(&self, thread: Option<&str>) -> Result<Option<RoomOrder>, RoomError> {
        let Some(root) = thread else {
            return Ok(self.basis.main);
        };
        match ruma::EventId::parse(root) {
            Ok(root) => {
                let thread = ReceiptThread::Thread(root);
                self.receipts
                    .read_up_to(self.reader, self.room, self.viewer.sid, &thread)
                    .await
            }
            Err(_) => Ok(None),
        }
    }

    async fn context(&self) -> Result<Context, RoomError> {
        let (reader, room, user) = (self.reader, self.room, &self.viewer.user);
        let kind = ruma::events::StateEventType::RoomMember;
        let member = reader.state_event(room.sid, &kind, user.as_str()).await?;
        let content: Option<serde_json::Map<String, serde_json::Value>> =
            member.and_then(|event| event.pdu.content_as().ok());
        let name =
            content.and_then(|content| Some(content.get("displayname")?.as_str()?.to_owned()));
        Ok(Context {
            user: user.clone(),
            display_name: name.unwrap_or_else(|| user.localpart().to_owned()),
            members: reader.member_count(room.sid, Membership::Join).await?,
            power: reader.power_levels(room).await.ok(),
            room: room.id.clone(),
        })
    }
}

/// The thread an event is in, by its root's id.
fn thread_of(event: &Event) -> Option<String> {
    let relation = Relation::of(&event.pdu)?;
    (relation.rel_type == THREAD).then(|| relation.event_id.to_string())
}

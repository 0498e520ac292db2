//! Unread counts: how many events after a user's receipt notify them, and how many highlight.
//!
//! A read over the events after the receipt, each judged by the user's push rules with the state at hand; one's own event counts as
//! a receipt. What was judged is remembered in memory, and so are the receipts, so that a new event in a room costs one judgement
//! for each user who looks and no read. <https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications>

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use quick_cache::sync::Cache;
use ruma::events::{TimelineEventType, receipt::ReceiptThread};
use tokio::task::coop::consume_budget;
use vatra_store::{Direction, Position};

use super::{
    Event, Reader, Room, RoomError,
    ephemeral::Receipts,
    judging::{Judge, Taste, context, thread_of},
    visible::Viewer,
};
use crate::{
    push::{self, Context},
    schema::{EventSid, MembershipRow, RoomOrder, RoomSid, UserSid, topic},
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
    judge: Judge,
}

/// Counts as of an event, and what they were made of.
struct Memo {
    basis: Basis,
    /// Receipts and events up to this position are in it.
    at: Position,
    upto: Option<RoomOrder>,
    unread: Unread,
}

/// What the counts depend on beside the events.
#[derive(Clone)]
struct Basis {
    everywhere: Option<RoomOrder>,
    main: Option<RoomOrder>,
    since: Position,
    taste: Taste,
}

impl Basis {
    fn is(&self, other: &Self) -> bool {
        (self.everywhere, self.main, self.since) == (other.everywhere, other.main, other.since)
            && self.taste.is(&other.taste)
    }
}

impl Unreads {
    /// Remembers at most `capacity` pairs of user and room.
    pub fn new(capacity: usize) -> Self {
        Self {
            memos: Cache::new(capacity),
            judge: Judge::new(),
        }
    }

    /// Counts anew from now on.
    pub fn forget(&self) {
        self.memos.clear();
    }

    /// Counts what a user has not read of a room, by their push rules and without those they ignore; `joined` is the user's
    /// membership of it.
    pub async fn of(
        &self,
        reader: &Reader,
        receipts: &Receipts,
        taste: Taste,
        viewer: &Viewer,
        room: &Arc<Room>,
        joined: &MembershipRow,
    ) -> Result<Unread, RoomError> {
        let key = (viewer.sid, room.sid);
        let known = self.memos.get(&key);
        let own = topic::own_receipts(viewer.sid);
        let [everywhere, main] = match &known {
            Some(memo) if !reader.changed_since(own, memo.at) => {
                [memo.basis.everywhere, memo.basis.main]
            }
            _ => {
                let threads = [&ReceiptThread::Unthreaded, &ReceiptThread::Main];
                receipts
                    .read_up_to(reader, room, viewer.sid, threads)
                    .await?
            }
        };
        let basis = Basis {
            everywhere,
            main,
            since: joined.position,
            taste,
        };
        let count = Count {
            reader,
            receipts,
            judge: &self.judge,
            viewer,
            room,
            own_event: joined.event,
            basis,
        };
        let memo = match known {
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
    judge: &'a Judge,
    viewer: &'a Viewer,
    room: &'a Arc<Room>,
    /// The user's member event.
    own_event: EventSid,
    basis: Basis,
}

impl Count<'_> {
    /// Judges only what is newer than a memo; `None` when that is not enough.
    async fn go_on(&self, memo: &Memo) -> Result<Option<Memo>, RoomError> {
        let new = self.newer(memo).await?;
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
                consume_budget().await;
                self.judge(event, &context, &mut unread.main);
            }
        }
        let limit = u64::try_from(JUDGED).unwrap_or(u64::MAX);
        unread.main.notify = unread.main.notify.min(limit);
        unread.main.highlight = unread.main.highlight.min(limit);
        let upto = new.last().map(|event| event.order).or(memo.upto);
        Ok(Some(Memo {
            basis: self.basis.clone(),
            at: memo.at.max(self.reader.watermark()),
            upto,
            unread,
        }))
    }

    /// The events of the timeline that a memo does not know, oldest first: from what is kept of the room, or read.
    async fn newer(&self, memo: &Memo) -> Result<Vec<Arc<Event>>, RoomError> {
        let (reader, room) = (self.reader, self.room.sid);
        let upto = reader.watermark();
        if memo.at >= upto {
            return Ok(Vec::new());
        }
        if let Some(recent) = reader.recent_at(room, upto)
            && let Some(mut rows) = recent.log(memo.at, upto, Direction::Forward, JUDGED)
        {
            // What is new to this server may stand further back in the room.
            rows.retain(|(_, row)| memo.upto.is_none_or(|upto| row.order > upto));
            rows.sort_by_key(|(_, row)| row.order);
            let sids: Vec<EventSid> = rows.into_iter().map(|(_, row)| row.event).collect();
            return Ok(reader.events(&sids).await?.into_iter().flatten().collect());
        }
        let from = memo.upto.map_or(Bound::Unbounded, Bound::Excluded);
        reader
            .timeline(room, from, Bound::Unbounded, Direction::Forward, JUDGED)
            .await
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
            // Many long messages are some work: others have their turn in between.
            consume_budget().await;
            let thread = thread_of(&event);
            if event.pdu.sender == self.viewer.user {
                own.entry(thread).or_insert(event.order);
                continue;
            }
            let receipt = self.receipt(thread.as_deref()).await?;
            let read = own.get(&thread).copied().max(receipt);
            if event.is_empty() || read.is_some_and(|read| read >= event.order) {
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
        Ok(Memo {
            basis: self.basis.clone(),
            at: reader.watermark(),
            upto,
            unread,
        })
    }

    fn judge(&self, event: &Event, context: &Context, counts: &mut Counts) {
        let rule = self.judge.rule(&self.basis.taste, event, context);
        let outcome = rule.map(push::outcome_of).unwrap_or_default();
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
                let [order] = self
                    .receipts
                    .read_up_to(self.reader, self.room, self.viewer.sid, [&thread])
                    .await?;
                Ok(order)
            }
            Err(_) => Ok(None),
        }
    }

    async fn context(&self) -> Result<Context, RoomError> {
        let own = self.reader.event_by_sid(self.own_event).await?;
        context(self.reader, self.room, &self.viewer.user, own.as_deref()).await
    }
}

//! What a user has been notified of, or would have been, the newest first.
//! <https://spec.matrix.org/v1.19/client-server-api/#listing-notifications>
//!
//! Nothing is stored for it: the logs of the user's rooms are read backwards together, and each event is held against the user's rules as
//! they are now. One request looks at a bounded number of events and goes on where it stopped; one read for each of the user's
//! rooms, and one for each [`PAGE`] events of a room that is read on.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use ruma::events::receipt::ReceiptThread;
use serde_json::value::{RawValue, to_raw_value};
use vatra_store::{Direction, Position};

use super::FlowError;
use crate::{
    push::{self, Context},
    rooms::{
        Event, Reader, Room, Rooms,
        ephemeral::Receipts,
        judging::{Judge, Taste, context, thread_of},
        serve::{self, Form},
        visible::Viewer,
    },
    schema::{LogRow, Membership, MembershipRow, RoomOrder, RoomSid},
    users::Users,
};

/// How many events one request looks at.
const LOOKED_AT: usize = 1_000;
/// How many rows of a room are read at a time.
const PAGE: usize = 32;
/// How many are given at once.
const MAX_LIMIT: usize = 100;
/// How many are given if nobody says.
const DEFAULT_LIMIT: usize = 20;

/// What is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// What happened before this position; everything if it is not given.
    pub before: Option<Position>,
    /// How many.
    pub limit: Option<usize>,
    /// Only what highlights.
    pub highlights: bool,
}

/// One notification.
#[derive(Debug)]
pub struct Notification {
    /// The actions of the rule that applies.
    pub actions: Box<RawValue>,
    /// The event.
    pub event: Box<RawValue>,
    /// The user has sent a receipt for it or for a later one.
    pub read: bool,
    /// The room.
    pub room_id: ruma::OwnedRoomId,
    /// When the event was sent, in milliseconds since the Unix epoch.
    pub ts: u64,
}

/// A page of the list.
#[derive(Debug, Default)]
pub struct Page {
    /// The newest first.
    pub notifications: Vec<Notification>,
    /// What to ask for next; `None`: there are no more.
    pub next: Option<Position>,
}

/// What the list is made of.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// The rooms.
    pub rooms: &'a Rooms,
    /// Whose rules they are.
    pub users: &'a Users,
    /// What was read.
    pub receipts: &'a Receipts,
}

/// Lists what a user has been notified of in the rooms they are in.
///
/// # Errors
/// The store's.
pub async fn list(parts: Parts<'_>, viewer: &Viewer, asked: Asked) -> Result<Page, FlowError> {
    let reader = parts.rooms.reader();
    let mut list = List {
        parts,
        viewer,
        reader: &reader,
        taste: Taste {
            rules: parts.users.shared_push_rules(viewer.sid).await?,
            ignored: parts.users.ignored(viewer.sid).await?,
        },
        judge: Judge::new(),
        rooms: HashMap::new(),
    };
    let mut heads = list.newest(asked.before).await?;
    let limit = asked.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let mut page = Page::default();
    for _ in 0..LOOKED_AT {
        let Some((at, (room, row))) = heads.pop_last() else {
            page.next = None;
            return Ok(page);
        };
        page.next = Some(at);
        if let Some(next) = list.next_of(room).await? {
            heads.insert(next.0, (room, next.1));
        }
        if let Some(notification) = list.judge(room, &row, asked.highlights).await? {
            page.notifications.push(notification);
            if page.notifications.len() == limit {
                break;
            }
        }
    }
    if heads.is_empty() {
        page.next = None;
    }
    Ok(page)
}

/// The newest rows of rooms, by position: of each room one.
type Heads = BTreeMap<Position, (RoomSid, LogRow)>;

/// A list while it is made.
struct List<'a> {
    parts: Parts<'a>,
    viewer: &'a Viewer,
    reader: &'a Reader,
    taste: Taste,
    judge: Judge,
    rooms: HashMap<RoomSid, Seen>,
}

/// A room while it is read backwards.
struct Seen {
    member: MembershipRow,
    /// Rows that were read and not looked at, the newest first.
    rows: VecDeque<(Position, LogRow)>,
    /// Everything at or after this was read.
    before: Position,
    /// Nothing is before.
    whole: bool,
    /// Known once an event is judged.
    known: Option<(Arc<Room>, Context)>,
}

impl List<'_> {
    /// The newest row of each room that the user is in.
    async fn newest(&mut self, before: Option<Position>) -> Result<Heads, FlowError> {
        let upto = Position(self.reader.watermark().0.saturating_add(1));
        let before = before.map_or(upto, |before| before.min(upto));
        let mut heads = Heads::new();
        for (room, member) in self.reader.rooms_of(self.viewer.sid).await? {
            if member.membership != Membership::Join || member.position >= before {
                continue;
            }
            let seen = Seen {
                member,
                rows: VecDeque::new(),
                before,
                whole: false,
                known: None,
            };
            self.rooms.insert(room, seen);
            if let Some((at, row)) = self.next_of(room).await? {
                heads.insert(at, (room, row));
            }
        }
        Ok(heads)
    }

    /// The next older row of a room, since the user has joined it.
    async fn next_of(&mut self, room: RoomSid) -> Result<Option<(Position, LogRow)>, FlowError> {
        let Some(seen) = self.rooms.get_mut(&room) else {
            return Ok(None);
        };
        if seen.rows.is_empty() && !seen.whole {
            let upto = Position(seen.before.0.saturating_sub(1));
            // The first page of a room that is not read on is one row.
            let limit = if seen.known.is_some() { PAGE } else { 2 };
            let direction = Direction::Backward;
            let rows = self
                .reader
                .log(room, seen.member.position, upto, direction, limit)
                .await?;
            seen.whole = rows.len() < limit;
            if let Some((last, _)) = rows.last() {
                seen.before = *last;
            }
            seen.rows = rows.into();
        }
        Ok(seen.rows.pop_front())
    }

    /// The notification of a row, if it is one.
    async fn judge(
        &mut self,
        sid: RoomSid,
        row: &LogRow,
        highlights: bool,
    ) -> Result<Option<Notification>, FlowError> {
        let event = self.reader.event_by_sid(row.event).await?;
        let Some(event) = event.filter(|event| event.pdu.sender != self.viewer.user) else {
            return Ok(None);
        };
        let Some((room, context)) = self.known(sid).await? else {
            return Ok(None);
        };
        let rule = self.judge.rule(&self.taste, &event, &context);
        let Some(rule) = rule.filter(|rule| {
            let outcome = push::outcome_of(*rule);
            outcome.notify && (outcome.highlight || !highlights)
        }) else {
            return Ok(None);
        };
        if !self.viewer.may_see(self.reader, &room, &event).await? {
            return Ok(None);
        }
        let form = Form {
            room_id: false,
            ..Form::full(Arc::clone(self.parts.users.clock()))
        };
        let one = std::slice::from_ref(&event);
        let shown = serve::events(self.reader, self.viewer, &room, one, &form).await?;
        let shown = shown.into_iter().next();
        let Some((shown, actions)) = shown.zip(to_raw_value(rule.actions()).ok()) else {
            return Ok(None);
        };
        Ok(Some(Notification {
            actions,
            event: shown,
            read: self.is_read(&room, &event).await?,
            room_id: room.id.clone(),
            ts: event.pdu.origin_server_ts.0.into(),
        }))
    }

    /// A room and what rules may ask of it.
    async fn known(&mut self, sid: RoomSid) -> Result<Option<(Arc<Room>, Context)>, FlowError> {
        let Some(seen) = self.rooms.get_mut(&sid) else {
            return Ok(None);
        };
        if seen.known.is_none()
            && let Some(room) = self.reader.room_by_sid(sid).await?
        {
            let own = self.reader.event_by_sid(seen.member.event).await?;
            let context = context(self.reader, &room, &self.viewer.user, own.as_deref()).await?;
            seen.known = Some((room, context));
        }
        Ok(seen.known.clone())
    }

    async fn is_read(&self, room: &Room, event: &Event) -> Result<bool, FlowError> {
        let root = thread_of(event).and_then(|root| ruma::EventId::parse(root).ok());
        let thread = root.map_or(ReceiptThread::Main, ReceiptThread::Thread);
        let read: [Option<RoomOrder>; 2] = self
            .parts
            .receipts
            .read_up_to(
                self.reader,
                room,
                self.viewer.sid,
                [&ReceiptThread::Unthreaded, &thread],
            )
            .await?;
        Ok(read.into_iter().flatten().any(|read| read >= event.order))
    }
}

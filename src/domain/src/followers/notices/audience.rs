//! Who is notified by an event, of those who are in the room and have pushers.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering},
};

use ruma::{UserId, push::Action};
use serde_json::{Map, Value};
use vatra_store::{Batch, Direction, Position, Range};

use super::{super::FollowError, Inner, book::Book, of_users};
use crate::{
    push,
    rooms::{
        Event, Reader, Room,
        judging::{Taste, context, thread_of},
        membership_of,
        visible::Viewer,
    },
    schema::{
        self, EventSid, LogRow, Membership, MembershipRow, NoticeRow, RoomOrder, RoomSid, UserSid,
        topic,
    },
};

/// How many rows a user keeps: the oldest give way.
pub(super) const MAX_NOTICES: usize = 500;
/// How many more there may be before they are counted.
const GROWTH: usize = 100;
/// The longest tweaks that are kept, in bytes.
const MAX_TWEAKS: usize = 1 << 10;

/// A page of the log while it is judged.
pub(super) struct Round<'a> {
    inner: &'a Inner,
    reader: &'a Reader,
    book: Book<'a>,
    /// Since when users have pushers; `None`: they have none.
    since: HashMap<UserSid, Option<Position>>,
    added: Vec<(UserSid, Position, NoticeRow)>,
    cleared: BTreeSet<(UserSid, Position)>,
}

impl<'a> Round<'a> {
    pub(super) fn new(inner: &'a Inner, reader: &'a Reader) -> Self {
        Self {
            inner,
            reader,
            book: Book::open(reader),
            since: HashMap::new(),
            added: Vec::new(),
            cleared: BTreeSet::new(),
        }
    }

    /// Deals with a row of the log.
    pub(super) async fn turn(&mut self, at: Position, row: &LogRow) -> Result<(), FollowError> {
        let invited = self.comings_and_goings(row, at).await?;
        let users: Vec<UserSid> = self.book.room(row.room).await?.iter().copied().collect();
        if users.is_empty() && invited.is_empty() {
            return Ok(());
        }
        let Some(event) = self.reader.event_by_sid(row.event).await? else {
            return Ok(());
        };
        let Some(room) = self.reader.room_by_sid(row.room).await? else {
            return Ok(());
        };
        self.own_event(&event, &users).await?;
        self.members(&room, &event, at, &users).await?;
        for user in invited {
            self.invite(user, &room, &event, at).await?;
        }
        Ok(())
    }

    /// An invite to a room that this server is not in, if it still stands.
    pub(super) async fn outside_invite(
        &mut self,
        user: UserSid,
        room: RoomSid,
        at: Position,
    ) -> Result<(), FollowError> {
        if !self.subscribed_before(user, at).await? {
            return Ok(());
        }
        let row = self.reader.membership(user, room).await?;
        let Some(row) = row.filter(|row| row.membership == Membership::Invite) else {
            return Ok(());
        };
        let event = self.reader.event_by_sid(row.event).await?;
        let Some((event, room)) = event.zip(self.reader.room_by_sid(room).await?) else {
            return Ok(());
        };
        self.invite(user, &room, &event, at).await
    }

    /// Writes down what came of it.
    pub(super) async fn close(mut self, batch: &mut Batch) -> Result<(), FollowError> {
        let mut woken: BTreeSet<UserSid> = self.cleared.iter().map(|(user, _)| *user).collect();
        woken.extend(self.added.iter().map(|(user, ..)| *user));
        let mut grown: HashMap<UserSid, usize> = HashMap::new();
        for (user, ..) in &self.added {
            *grown.entry(*user).or_default() += 1;
        }
        for (user, by) in grown {
            self.trim(user, by).await?;
        }
        for key in &self.cleared {
            batch.delete(&schema::NOTICES, key);
        }
        for (user, at, row) in &self.added {
            batch.put(&schema::NOTICES, &(*user, *at), row);
        }
        for user in woken {
            batch.wake(topic::notices(user));
        }
        self.book.close(batch);
        Ok(())
    }

    /// The oldest rows of a user give way, now and then.
    async fn trim(&mut self, user: UserSid, by: usize) -> Result<(), FollowError> {
        {
            let mut grown = self.inner.grown.entry(user).or_default();
            *grown += by;
            if *grown < GROWTH {
                return Ok(());
            }
            *grown = 0;
        }
        let range = Range::prefix(&(user,));
        let view = self.reader.view();
        let rows = view
            .range(&schema::NOTICES, range, Direction::Backward, usize::MAX)
            .await?;
        let old = rows.into_iter().skip(MAX_NOTICES);
        self.cleared.extend(old.map(|(key, _)| key));
        Ok(())
    }

    /// Enters who came and went, by the change of the room's state; gives those whom this very event invites.
    async fn comings_and_goings(
        &mut self,
        row: &LogRow,
        at: Position,
    ) -> Result<Vec<UserSid>, FollowError> {
        let mut invited = Vec::new();
        for turn in self.reader.member_turns(row.room, at).await? {
            if turn.user.server_name() != self.reader.server_name() {
                continue;
            }
            let Some(user) = self.reader.user_sid(&turn.user).await? else {
                continue;
            };
            let new = match turn.new {
                Some(sid) => self.reader.event_by_sid(sid).await?,
                None => None,
            };
            match new.as_ref().and_then(|event| membership_of(&event.pdu)) {
                Some(Membership::Join) if self.since_of(user).await?.is_some() => {
                    self.book.enter(row.room, user, true).await?;
                }
                Some(Membership::Join) => {}
                Some(Membership::Invite) if turn.new == Some(row.event) => {
                    self.book.enter(row.room, user, false).await?;
                    if self.subscribed_before(user, at).await? {
                        invited.push(user);
                    }
                }
                _ => self.book.enter(row.room, user, false).await?,
            }
        }
        Ok(invited)
    }

    /// Who speaks in a room has read what was said before, in that thread.
    async fn own_event(&mut self, event: &Event, users: &[UserSid]) -> Result<(), FollowError> {
        if event.pdu.sender.server_name() != self.reader.server_name() {
            return Ok(());
        }
        let sender = self.reader.user_sid(&event.pdu.sender).await?;
        let Some(sender) = sender.filter(|sender| users.contains(sender)) else {
            return Ok(());
        };
        let thread = thread_of(event);
        let read = |row: &NoticeRow| {
            row.room == event.room && row.thread == thread && row.order <= event.order
        };
        let range = Range::prefix(&(sender,));
        let view = self.reader.view();
        let rows = view
            .range(&schema::NOTICES, range, Direction::Forward, usize::MAX)
            .await?;
        let rows = rows.into_iter().filter(|(_, row)| read(row));
        self.cleared.extend(rows.map(|(key, _)| key));
        self.added
            .retain(|(user, _, row)| *user != sender || !read(row));
        Ok(())
    }

    /// Holds an event against the rules of members.
    async fn members(
        &mut self,
        room: &Arc<Room>,
        event: &Arc<Event>,
        at: Position,
        users: &[UserSid],
    ) -> Result<(), FollowError> {
        let keys: Vec<_> = users.iter().map(|user| (*user, room.sid)).collect();
        let view = self.reader.view();
        let rows = view.get_many(&schema::MEMBERSHIPS, &keys).await?;
        self.learn(users).await?;
        let own: Vec<EventSid> = rows.iter().flatten().map(|row| row.event).collect();
        // Into the cache, with one read.
        self.reader.events(&own).await?;
        let state = self.state_was(room, event, at).await?;
        for (user, row) in users.iter().copied().zip(rows) {
            let since = self.since.get(&user).copied().flatten();
            let joined = row.filter(|row| row.membership == Membership::Join);
            let (Some(row), Some(since)) = (joined, since) else {
                self.book.enter(room.sid, user, false).await?;
                continue;
            };
            if row.position <= at && since < at {
                self.member(user, &row, room, event, (at, state)).await?;
            }
        }
        Ok(())
    }

    async fn member(
        &mut self,
        user: UserSid,
        row: &MembershipRow,
        room: &Arc<Room>,
        event: &Arc<Event>,
        (at, state): (Position, bool),
    ) -> Result<(), FollowError> {
        let Some(id) = self.reader.user_id(user).await? else {
            return Ok(());
        };
        let own = self.reader.event_by_sid(row.event).await?;
        let Some(notice) = self.judge(user, &id, own, room, event).await? else {
            return Ok(());
        };
        let viewer = Viewer {
            user: id,
            sid: user,
            device: None,
        };
        // Who was in the room when the event was next in it may see it whatever the room's rules are.
        if state || viewer.may_see(self.reader, room, event).await? {
            self.added.push((user, at, notice));
        }
        Ok(())
    }

    /// An event that invites a user. They may see it, whatever the room's rules are, unless they ignore who invites.
    async fn invite(
        &mut self,
        user: UserSid,
        room: &Arc<Room>,
        event: &Arc<Event>,
        at: Position,
    ) -> Result<(), FollowError> {
        let Some(id) = self.reader.user_id(user).await? else {
            return Ok(());
        };
        let ignored = self.inner.users.ignored(user).await.map_err(of_users)?;
        if ignored.contains(&event.pdu.sender) {
            return Ok(());
        }
        let own = Some(Arc::clone(event));
        if let Some(notice) = self.judge(user, &id, own, room, event).await? {
            let invite = NoticeRow {
                invite: true,
                order: RoomOrder(0),
                thread: None,
                ..notice
            };
            self.added.push((user, at, invite));
        }
        Ok(())
    }

    /// The row of who is notified.
    async fn judge(
        &self,
        user: UserSid,
        id: &UserId,
        own: Option<Arc<Event>>,
        room: &Arc<Room>,
        event: &Arc<Event>,
    ) -> Result<Option<NoticeRow>, FollowError> {
        let users = &self.inner.users;
        let taste = Taste {
            rules: users.shared_push_rules(user).await.map_err(of_users)?,
            ignored: users.ignored(user).await.map_err(of_users)?,
        };
        let context = context(self.reader, room, id, own.as_deref()).await?;
        self.inner.judged.fetch_add(1, Ordering::Relaxed);
        let Some(rule) = self.inner.judge.rule(&taste, event, &context) else {
            return Ok(None);
        };
        let outcome = push::outcome_of(rule);
        Ok(outcome.notify.then(|| NoticeRow {
            room: room.sid,
            event: event.sid,
            order: event.order,
            thread: thread_of(event),
            invite: false,
            highlight: outcome.highlight,
            tweaks: tweaks(rule.actions()),
            ts: self.inner.clock.now(),
        }))
    }

    /// Whether the state before an event is what was the room's just before it came.
    async fn state_was(
        &self,
        room: &Room,
        event: &Event,
        at: Position,
    ) -> Result<bool, FollowError> {
        let before = Position(at.0.saturating_sub(1));
        Ok(self.reader.root_at(room.sid, before).await? == event.root_before)
    }

    async fn subscribed_before(
        &mut self,
        user: UserSid,
        at: Position,
    ) -> Result<bool, FollowError> {
        Ok(self.since_of(user).await?.is_some_and(|since| since < at))
    }

    async fn since_of(&mut self, user: UserSid) -> Result<Option<Position>, FollowError> {
        self.learn(&[user]).await?;
        Ok(self.since.get(&user).copied().flatten())
    }

    /// Reads since when users have pushers, with one read for those that are not known.
    async fn learn(&mut self, users: &[UserSid]) -> Result<(), FollowError> {
        let unknown = users.iter().filter(|user| !self.since.contains_key(user));
        let unknown: Vec<UserSid> = unknown.copied().collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let view = self.reader.view();
        let rows = view.get_many(&schema::PUSHERS, &unknown).await?;
        for (user, row) in unknown.into_iter().zip(rows) {
            let since = row.and_then(|row| row.pushers.iter().map(|it| it.since).min());
            self.since.insert(user, since);
        }
        Ok(())
    }
}

/// The tweaks that a rule sets, passed on as they are. <https://spec.matrix.org/v1.19/client-server-api/#actions>
fn tweaks(actions: &[Action]) -> String {
    let mut tweaks = Map::new();
    for action in actions {
        let Ok(Value::Object(mut action)) = serde_json::to_value(action) else {
            continue;
        };
        if let Some(Value::String(name)) = action.remove("set_tweak") {
            let value = action.remove("value");
            // A highlight without a value is one.
            tweaks.insert(name, value.unwrap_or(Value::Bool(true)));
        }
    }
    let text = Value::Object(tweaks).to_string();
    if text.len() > MAX_TWEAKS {
        return "{}".to_owned();
    }
    text
}

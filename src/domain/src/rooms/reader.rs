//! Questions about rooms, answered from one view of the store.
//!
//! A [`Reader`] is a moment: everything it says is as of its watermark. /sync, /messages and the handlers take one per
//! request. Reads of many rows are batched; events and tree nodes come from the shared caches.
//!
//! - `pages`: questions about many events at once.
//! - `recent`: the newest part of a room's log and the state in force, in memory for rooms that someone waits for.

mod pages;
mod recent;

use std::{ops::Bound, sync::Arc};

use ruma::{
    EventId, OwnedUserId, RoomId, ServerName, UserId,
    events::{StateEventType, room::power_levels::RoomPowerLevels},
};
use vatra_store::{Direction, Position, Range, View};

pub use self::recent::Recent;
pub(super) use self::recent::Recents;
use super::{Event, Inner, Room, RoomError, power::power_levels};
use crate::{
    ids::StateKeyName,
    schema::{
        self, DeltaRow, EventSid, LogRow, Membership, MembershipRow, RelationRow, RoomOrder,
        RoomSid, StateChange, StateKeySid, StateRoot, UserSid,
    },
};

/// A moment of all rooms. Cheap to clone; do not keep one longer than some seconds.
#[derive(Clone)]
pub struct Reader {
    pub(super) inner: Arc<Inner>,
    pub(super) view: View,
}

impl Reader {
    pub(super) fn new(inner: Arc<Inner>, view: View) -> Self {
        Self { inner, view }
    }

    /// The position up to which this reader knows everything.
    pub fn watermark(&self) -> Position {
        self.view.watermark()
    }

    /// The view beneath, for maps that other modules own.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// This server's name.
    pub fn server_name(&self) -> &ServerName {
        self.inner.signer.server_name()
    }

    /// A room by its id.
    pub async fn room(&self, id: &RoomId) -> Result<Option<Arc<Room>>, RoomError> {
        self.inner.room(&self.view, id).await
    }

    /// A room by its number.
    pub async fn room_by_sid(&self, sid: RoomSid) -> Result<Option<Arc<Room>>, RoomError> {
        match self.inner.ids.room_id(sid).await? {
            Some(id) => self.room(&id).await,
            None => Ok(None),
        }
    }

    /// A user by their number.
    pub async fn user_id(&self, sid: UserSid) -> Result<Option<OwnedUserId>, RoomError> {
        Ok(self.inner.ids.user_id(sid).await?)
    }

    /// A user's number.
    pub async fn user_sid(&self, user: &UserId) -> Result<Option<UserSid>, RoomError> {
        Ok(self.inner.ids.user(user).await?)
    }

    // ------------------------------------------------------------ state

    /// An event of the current state.
    pub async fn state_event(
        &self,
        room: RoomSid,
        kind: &StateEventType,
        key: &str,
    ) -> Result<Option<Arc<Event>>, RoomError> {
        let row = (room, kind.to_string(), key.to_owned());
        match self.view.get(&schema::CURRENT_STATE, &row).await? {
            Some(sid) => self.event_by_sid(sid).await,
            None => Ok(None),
        }
    }

    /// The whole current state. Costs a read per state event that is not in the cache.
    pub async fn current_state(&self, room: RoomSid) -> Result<Vec<Arc<Event>>, RoomError> {
        self.current_range(&Range::prefix(&(room,))).await
    }

    /// The current state events of one type.
    pub async fn current_of_type(
        &self,
        room: RoomSid,
        kind: &StateEventType,
    ) -> Result<Vec<Arc<Event>>, RoomError> {
        self.current_range(&Range::prefix(&(room, kind.to_string())))
            .await
    }

    async fn current_range(&self, range: &Range) -> Result<Vec<Arc<Event>>, RoomError> {
        let rows = self
            .view
            .range(
                &schema::CURRENT_STATE,
                range.clone(),
                Direction::Forward,
                usize::MAX,
            )
            .await?;
        let sids: Vec<EventSid> = rows.into_iter().map(|(_, sid)| sid).collect();
        Ok(self.events(&sids).await?.into_iter().flatten().collect())
    }

    /// The state after everything up to and including `at`. Positions after the watermark mean the watermark.
    pub async fn root_at(&self, room: RoomSid, at: Position) -> Result<StateRoot, RoomError> {
        let at = at.min(self.watermark());
        let recent = self.recent_at(room, at);
        if let Some(root) = recent.and_then(|it| it.state.root_at(at)) {
            return Ok(root);
        }
        let newest = self.newest_delta(room, at).await?;
        Ok(newest.and_then(|(_, delta)| delta.root))
    }

    /// The last change of the state at or before `at`.
    async fn newest_delta(
        &self,
        room: RoomSid,
        at: Position,
    ) -> Result<Option<(Position, DeltaRow)>, RoomError> {
        let bounds = Range::between(
            Bound::Included(&(room, Position(0))),
            Bound::Included(&(room, at)),
        );
        let newest = self
            .view
            .first(&schema::STATE_DELTAS, bounds, Direction::Backward)
            .await?;
        Ok(newest.map(|((_, position), delta)| (position, delta)))
    }

    /// The state after an event: with the event itself if it is a state event that took effect.
    pub async fn root_after(&self, event: &Event) -> Result<StateRoot, RoomError> {
        if let Some(root) = event.tail.root_after {
            return Ok(root);
        }
        // An event of before this was kept with it.
        let Some(key) = &event.pdu.state_key else {
            return Ok(event.root_before);
        };
        let kind = event.pdu.kind.to_string();
        let Some(key) = self.inner.ids.state_key(&kind, key).await? else {
            return Ok(event.root_before);
        };
        let after = self.root_at(event.room, event.position).await?;
        let took_effect = self.state_at_sid(after, key).await? == Some(event.sid);
        Ok(if took_effect {
            after
        } else {
            event.root_before
        })
    }

    /// All entries of a state.
    pub async fn state_at(
        &self,
        root: StateRoot,
    ) -> Result<Vec<(StateKeySid, EventSid)>, RoomError> {
        Ok(self.inner.trees.entries(&self.view, root).await?)
    }

    /// The events of a state.
    pub async fn state_events_at(&self, root: StateRoot) -> Result<Vec<Arc<Event>>, RoomError> {
        let sids: Vec<EventSid> = self
            .state_at(root)
            .await?
            .into_iter()
            .map(|(_, sid)| sid)
            .collect();
        Ok(self.events(&sids).await?.into_iter().flatten().collect())
    }

    /// One event of a state.
    pub async fn state_at_key(
        &self,
        root: StateRoot,
        kind: &StateEventType,
        key: &str,
    ) -> Result<Option<Arc<Event>>, RoomError> {
        let Some(key) = self.inner.ids.state_key(&kind.to_string(), key).await? else {
            return Ok(None);
        };
        match self.state_at_sid(root, key).await? {
            Some(sid) => self.event_by_sid(sid).await,
            None => Ok(None),
        }
    }

    async fn state_at_sid(
        &self,
        root: StateRoot,
        key: StateKeySid,
    ) -> Result<Option<EventSid>, RoomError> {
        Ok(self.inner.trees.get(&self.view, root, key).await?)
    }

    /// The difference of two states, in time proportional to it.
    pub async fn diff(
        &self,
        old: StateRoot,
        new: StateRoot,
    ) -> Result<Vec<StateChange>, RoomError> {
        Ok(self.inner.trees.diff(&self.view, old, new).await?)
    }

    /// How a position changed a room's current state; `None` if it did not.
    pub async fn state_changes(
        &self,
        room: RoomSid,
        at: Position,
    ) -> Result<Option<Vec<StateChange>>, RoomError> {
        let Some(delta) = self.view.get(&schema::STATE_DELTAS, &(room, at)).await? else {
            return Ok(None);
        };
        if !delta.changes.is_empty() {
            return Ok(Some(delta.changes));
        }
        let before = self
            .newest_delta(room, Position(at.0.saturating_sub(1)))
            .await?;
        let before = before.and_then(|(_, delta)| delta.root);
        Ok(Some(self.diff(before, delta.root).await?))
    }

    /// The event type and state key behind a number.
    pub async fn state_key_name(
        &self,
        key: StateKeySid,
    ) -> Result<Option<StateKeyName>, RoomError> {
        Ok(self.inner.ids.state_key_name(key).await?)
    }

    /// The power levels in force now.
    pub async fn power_levels(&self, room: &Room) -> Result<RoomPowerLevels, RoomError> {
        let create = self
            .state_event(room.sid, &StateEventType::RoomCreate, "")
            .await?
            .ok_or(RoomError::UnknownRoom)?;
        let levels = self
            .state_event(room.sid, &StateEventType::RoomPowerLevels, "")
            .await?;
        power_levels(
            &create.pdu,
            levels.as_ref().map(|event| &*event.pdu),
            &room.rules.authorization,
        )
    }

    // ------------------------------------------------------------ events

    /// An event of a room by its id, whatever its status.
    pub async fn event(
        &self,
        room: RoomSid,
        id: &EventId,
    ) -> Result<Option<Arc<Event>>, RoomError> {
        let found = self.event_anywhere(id).await?;
        Ok(found.filter(|event| event.room == room))
    }

    /// An event by its id, of whatever room: for those who must know that it is not of theirs.
    pub async fn event_anywhere(&self, id: &EventId) -> Result<Option<Arc<Event>>, RoomError> {
        match self.view.get(&schema::EVENT_SIDS, &id.to_string()).await? {
            Some(sid) => self.event_by_sid(sid).await,
            None => Ok(None),
        }
    }

    /// An event by its number.
    pub async fn event_by_sid(&self, sid: EventSid) -> Result<Option<Arc<Event>>, RoomError> {
        self.inner.events.get(&self.view, sid).await
    }

    /// Events by their numbers, in the same order; one batched read.
    pub async fn events(&self, sids: &[EventSid]) -> Result<Vec<Option<Arc<Event>>>, RoomError> {
        self.inner.events.get_many(&self.view, sids).await
    }

    /// Visible events between two places of the room order.
    pub async fn timeline(
        &self,
        room: RoomSid,
        from: Bound<RoomOrder>,
        to: Bound<RoomOrder>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Arc<Event>>, RoomError> {
        let (from, to) = (
            bound(from, room, RoomOrder(0)),
            bound(to, room, RoomOrder(u64::MAX)),
        );
        let range = Range::between(from.as_ref(), to.as_ref());
        let rows = self
            .view
            .range(&schema::TIMELINE, range, direction, limit)
            .await?;
        let sids: Vec<EventSid> = rows.into_iter().map(|(_, sid)| sid).collect();
        Ok(self.events(&sids).await?.into_iter().flatten().collect())
    }

    /// Whether events are missing before a place of the room order.
    pub async fn is_gap(&self, room: RoomSid, order: RoomOrder) -> Result<bool, RoomError> {
        Ok(self.view.contains(&schema::GAPS, &(room, order)).await?)
    }

    /// The room's part of the log in `(after, upto]`: what clients learnt of then.
    pub async fn log(
        &self,
        room: RoomSid,
        after: Position,
        upto: Position,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Position, LogRow)>, RoomError> {
        let upto = upto.min(self.watermark());
        let recent = self.recent_at(room, upto);
        if let Some(rows) = recent.and_then(|it| it.log(after, upto, direction, limit)) {
            return Ok(rows);
        }
        self.stored_log(room, after, upto, direction, limit).await
    }

    async fn stored_log(
        &self,
        room: RoomSid,
        after: Position,
        upto: Position,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Position, LogRow)>, RoomError> {
        let range = Range::between(
            Bound::Excluded(&(room, after)),
            Bound::Included(&(room, upto)),
        );
        let rows = self
            .view
            .range(&schema::ROOM_LOG, range, direction, limit)
            .await?;
        Ok(rows
            .into_iter()
            .map(|((_, position), row)| (position, row))
            .collect())
    }

    /// Where the newest event at or before a log position stands in the room; `None` before the first.
    pub async fn order_at(
        &self,
        room: RoomSid,
        at: Position,
    ) -> Result<Option<RoomOrder>, RoomError> {
        let newest = self
            .log(room, Position(0), at, Direction::Backward, 1)
            .await?;
        Ok(newest.first().map(|(_, row)| row.order))
    }

    /// Events that relate to `target`, in room order.
    pub async fn relations(
        &self,
        room: RoomSid,
        target: &EventId,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(RoomOrder, RelationRow)>, RoomError> {
        let range = Range::prefix(&(room, target.to_string()));
        let rows = self
            .view
            .range(&schema::RELATIONS, range, direction, limit)
            .await?;
        Ok(rows
            .into_iter()
            .map(|((_, _, order), row)| (order, row))
            .collect())
    }

    /// Replies in threads before a place of the room, the newest first: where each stands, and its root's id.
    pub async fn thread_replies(
        &self,
        room: RoomSid,
        before: RoomOrder,
        limit: usize,
    ) -> Result<Vec<(RoomOrder, String)>, RoomError> {
        let range = Range::between(
            Bound::Included(&(room, RoomOrder(0))),
            Bound::Excluded(&(room, before)),
        );
        let rows = self
            .view
            .range(&schema::THREAD_REPLIES, range, Direction::Backward, limit)
            .await?;
        Ok(rows
            .into_iter()
            .map(|((_, order), root)| (order, root))
            .collect())
    }

    /// Events by when they were sent: from `ts` on and later (`Forward`), or from `ts` on and earlier; beyond `after`, if
    /// that is given.
    pub async fn times(
        &self,
        room: RoomSid,
        ts: u64,
        after: Option<(u64, RoomOrder)>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<((u64, RoomOrder), EventSid)>, RoomError> {
        let (first, last) = (
            (room, 0, RoomOrder(0)),
            (room, u64::MAX, RoomOrder(u64::MAX)),
        );
        let after = after.map(|(ts, order)| (room, ts, order));
        let range = if direction == Direction::Forward {
            let from = (room, ts, RoomOrder(0));
            let from = after
                .as_ref()
                .map_or(Bound::Included(&from), Bound::Excluded);
            Range::between(from, Bound::Included(&last))
        } else {
            let to = (room, ts, RoomOrder(u64::MAX));
            let to = after.as_ref().map_or(Bound::Included(&to), Bound::Excluded);
            Range::between(Bound::Included(&first), to)
        };
        let rows = self
            .view
            .range(&schema::EVENT_TIMES, range, direction, limit)
            .await?;
        Ok(rows
            .into_iter()
            .map(|((_, ts, order), sid)| ((ts, order), sid))
            .collect())
    }

    // ------------------------------------------------------------ members

    /// A user's membership of a room.
    pub async fn membership(
        &self,
        user: UserSid,
        room: RoomSid,
    ) -> Result<Option<MembershipRow>, RoomError> {
        Ok(self.view.get(&schema::MEMBERSHIPS, &(user, room)).await?)
    }

    /// Whether a user is in a room now.
    pub async fn is_joined(&self, user: UserSid, room: RoomSid) -> Result<bool, RoomError> {
        Ok(self
            .membership(user, room)
            .await?
            .is_some_and(|row| row.membership == Membership::Join))
    }

    /// Every room that a user has or had to do with, forgotten ones included.
    pub async fn rooms_of(
        &self,
        user: UserSid,
    ) -> Result<Vec<(RoomSid, MembershipRow)>, RoomError> {
        let range = Range::prefix(&(user,));
        let rows = self
            .view
            .range(&schema::MEMBERSHIPS, range, Direction::Forward, usize::MAX)
            .await?;
        Ok(rows
            .into_iter()
            .map(|((_, room), row)| (room, row))
            .collect())
    }

    /// The users of a room with one membership, and their member events.
    pub async fn members(
        &self,
        room: RoomSid,
        membership: Membership,
        limit: usize,
    ) -> Result<Vec<(UserSid, EventSid)>, RoomError> {
        let range = Range::prefix(&(room, membership));
        let rows = self
            .view
            .range(&schema::ROOM_MEMBERS, range, Direction::Forward, limit)
            .await?;
        Ok(rows
            .into_iter()
            .map(|((_, _, user), event)| (user, event))
            .collect())
    }

    /// How many users of a room have one membership.
    pub async fn member_count(
        &self,
        room: RoomSid,
        membership: Membership,
    ) -> Result<u64, RoomError> {
        let count = self
            .view
            .get(&schema::MEMBER_COUNTS, &(room, membership))
            .await?;
        Ok(u64::try_from(count.unwrap_or(0)).unwrap_or(0))
    }
}

/// A bound of the room order as a bound of the map's key.
fn bound(bound: Bound<RoomOrder>, room: RoomSid, open: RoomOrder) -> Bound<(RoomSid, RoomOrder)> {
    match bound {
        Bound::Included(order) => Bound::Included((room, order)),
        Bound::Excluded(order) => Bound::Excluded((room, order)),
        Bound::Unbounded => Bound::Included((room, open)),
    }
}

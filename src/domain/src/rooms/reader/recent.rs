//! The newest part of a room's log, and what every member's answer needs of its state: kept in memory for rooms that someone
//! waits for, so that an event is looked up once and not once for each member.
//!
//! A [`Recent`] is immutable: it tells what is true up to its position, and the first reader after a change makes the next
//! one. Nobody writes to it from outside; whether it is still true is a comparison of integers
//! ([`vatra_store::Store::changed_since`]). Only numbers are kept: the events themselves come from the cache of events, where a
//! redaction replaces them.

use std::{collections::VecDeque, sync::Arc};

use quick_cache::{Weighter, sync::Cache};
use ruma::events::{StateEventType, room::power_levels::RoomPowerLevels};
use vatra_store::{Direction, Position, Topic};

use super::{
    super::{Room, RoomError, power::power_levels},
    Reader,
};
use crate::schema::{LogRow, Membership, RoomSid, StateRoot, topic};

/// How many log rows of a room are kept.
const KEPT: usize = 64;
/// About how many bytes a [`Recent`] takes.
const WEIGHT: u64 = 4 << 10;

/// What is kept of one room.
#[derive(Debug)]
pub struct Recent {
    /// Everything up to here is known.
    at: Position,
    /// Every log row after this position, up to `at`, is listed.
    after: Position,
    /// Oldest first.
    rows: VecDeque<(Position, LogRow)>,
    /// The state in force.
    pub state: Arc<InForce>,
}

/// What every member's answer needs of the state in force.
#[derive(Debug)]
pub struct InForce {
    root: StateRoot,
    /// The position of the last change.
    since: Position,
    /// Up to where it is known that there was no later change.
    at: Position,
    /// How many have joined.
    pub members: u64,
    /// Who may do what; `None` if that cannot be read, which gives nobody power.
    pub power: Option<Arc<RoomPowerLevels>>,
}

impl InForce {
    /// The state at a position, if it is this one.
    pub(super) fn root_at(&self, at: Position) -> Option<StateRoot> {
        (self.since <= at).then_some(self.root)
    }
}

impl Recent {
    /// The room's part of the log in `(after, upto]`, if all that is asked for is here.
    pub(in super::super) fn log(
        &self,
        after: Position,
        upto: Position,
        direction: Direction,
        limit: usize,
    ) -> Option<Vec<(Position, LogRow)>> {
        let inside = self
            .rows
            .iter()
            .filter(|(position, _)| *position > after && *position <= upto)
            .copied();
        let rows: Vec<_> = match direction {
            Direction::Forward => inside.take(limit).collect(),
            Direction::Backward => inside.rev().take(limit).collect(),
        };
        let filled = direction == Direction::Backward && rows.len() == limit;
        (filled || after >= self.after).then_some(rows)
    }
}

/// What is kept of all rooms, within a bound.
pub(in super::super) struct Recents {
    rooms: Cache<RoomSid, Arc<Recent>, Weight>,
}

impl Recents {
    pub(in super::super) fn new(cache_bytes: u64) -> Self {
        let items = usize::try_from(cache_bytes / WEIGHT)
            .unwrap_or(usize::MAX)
            .max(64);
        Self {
            rooms: Cache::with_weighter(items, cache_bytes.max(64 * WEIGHT), Weight),
        }
    }

    pub(in super::super) fn forget(&self) {
        self.rooms.clear();
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<RoomSid, Arc<Recent>> for Weight {
    fn weight(&self, _: &RoomSid, _: &Arc<Recent>) -> u64 {
        WEIGHT
    }
}

impl Reader {
    /// Whether something may have changed after a position ([`vatra_store::Store::changed_since`]).
    pub(in super::super) fn changed_since(&self, topic: Topic, since: Position) -> bool {
        self.inner.store.changed_since(topic, since)
    }

    /// What is kept of a room, if it tells everything up to `upto`.
    pub(in super::super) fn recent_at(&self, room: RoomSid, upto: Position) -> Option<Arc<Recent>> {
        let recent = self.inner.recents.rooms.get(&room)?;
        let whole = upto <= recent.at || !self.changed_since(topic::room(room), recent.at);
        whole.then_some(recent)
    }

    /// What is kept of a room that someone waits for, up to this reader's moment at least. One read for a room that has changed
    /// since anyone asked (some more if its state has): the next reader finds it in memory.
    pub async fn recent(&self, room: &Room) -> Result<Arc<Recent>, RoomError> {
        let at = self.watermark();
        if let Some(recent) = self.recent_at(room.sid, at) {
            return Ok(recent);
        }
        let known = self.inner.recents.rooms.get(&room.sid);
        let state = match &known {
            Some(known) if !self.changed_since(topic::state(room.sid), known.state.at) => {
                Arc::clone(&known.state)
            }
            _ => Arc::new(self.in_force(room).await?),
        };
        let (after, rows) = match &known {
            Some(known) => self.go_on(room.sid, known).await?,
            None => self.newest(room.sid).await?,
        };
        let recent = Arc::new(Recent {
            at,
            after,
            rows,
            state,
        });
        self.inner
            .recents
            .rooms
            .insert(room.sid, Arc::clone(&recent));
        Ok(recent)
    }

    async fn go_on(
        &self,
        room: RoomSid,
        known: &Recent,
    ) -> Result<(Position, VecDeque<(Position, LogRow)>), RoomError> {
        let at = self.watermark();
        let new = self
            .stored_log(room, known.at, at, Direction::Forward, KEPT)
            .await?;
        if new.len() == KEPT {
            return self.newest(room).await;
        }
        let (mut after, mut rows) = (known.after, known.rows.clone());
        rows.extend(new);
        while rows.len() > KEPT {
            if let Some((position, _)) = rows.pop_front() {
                after = position;
            }
        }
        Ok((after, rows))
    }

    async fn newest(
        &self,
        room: RoomSid,
    ) -> Result<(Position, VecDeque<(Position, LogRow)>), RoomError> {
        let at = self.watermark();
        let rows = self
            .stored_log(room, Position(0), at, Direction::Backward, KEPT)
            .await?;
        let oldest = rows.last().filter(|_| rows.len() == KEPT);
        let after = oldest.map_or(Position(0), |(position, _)| {
            Position(position.0.saturating_sub(1))
        });
        Ok((after, rows.into_iter().rev().collect()))
    }

    async fn in_force(&self, room: &Room) -> Result<InForce, RoomError> {
        let at = self.watermark();
        let (since, root) = match self.newest_delta(room.sid, at).await? {
            Some((position, delta)) => (position, delta.root),
            None => (Position(0), None),
        };
        let create = self
            .state_at_key(root, &StateEventType::RoomCreate, "")
            .await?;
        let levels = self
            .state_at_key(root, &StateEventType::RoomPowerLevels, "")
            .await?;
        let levels = levels.as_ref().map(|event| &*event.pdu);
        let power = create
            .and_then(|create| power_levels(&create.pdu, levels, &room.rules.authorization).ok());
        Ok(InForce {
            root,
            since,
            at,
            members: self.member_count(room.sid, Membership::Join).await?,
            power: power.map(Arc::new),
        })
    }
}

//! The lock of a room and what the next event builds on.
//!
//! [`Rooms::lock`] waits for the room's turn and hands out the [`RoomGuard`]. The head in it is kept in memory between two
//! guards; it moves when a batch is *submitted*, so that a busy room gets group commit. The batch asserts the stored
//! head, so the guard only saves work: the truth is the assert. When a batch fails, it poisons the head and the
//! next lock reads it from the store again.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use dashmap::DashMap;
use ruma::{OwnedEventId, RoomId, events::StateEventType};
use tokio::sync::{Mutex, OwnedMutexGuard};
use vatra_store::View;

use super::{Event, Inner, Room, RoomError, Rooms};
use crate::{
    event::{check::MAX_PREV_EVENTS, pdu::Pdu},
    schema::{self, EventSid, HeadRow, RoomSid, StateRoot},
};

/// How many parsed state events a head remembers.
const REMEMBERED: usize = 512;

/// What a room's next event builds on.
#[derive(Debug, Clone)]
pub struct Head {
    /// The head as the last submitted batch writes it.
    pub row: HeadRow,
    /// State events of the current state that auth has asked for; `None` is known to be absent.
    state: HashMap<(StateEventType, String), Option<Arc<Event>>>,
    /// The states after the extremities, as far as known.
    pub(super) after: HashMap<EventSid, StateRoot>,
    poison: Arc<AtomicBool>,
}

impl Head {
    pub(super) fn new(row: HeadRow) -> Self {
        Self {
            row,
            state: HashMap::new(),
            after: HashMap::new(),
            poison: Arc::default(),
        }
    }

    /// What a failing batch sets.
    pub(super) fn poison(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.poison)
    }

    /// The current state has changed at a key.
    pub(super) fn state_changed(
        &mut self,
        kind: StateEventType,
        key: String,
        event: Option<Arc<Event>>,
    ) {
        if self.state.len() >= REMEMBERED {
            self.state.clear();
        }
        self.state.insert((kind, key), event);
    }

    /// The current state has changed at a key, in a way that must be read from the tree.
    pub(super) fn forget(&mut self, kind: &StateEventType, key: &str) {
        self.state.remove(&(kind.clone(), key.to_owned()));
    }

    /// The depth of the next event.
    pub fn next_depth(&self) -> u64 {
        self.row
            .extremities
            .iter()
            .map(|(_, _, depth)| depth.saturating_add(1))
            .max()
            .unwrap_or(1)
    }

    /// The events the next event follows: the deepest, if there are more than an event may follow.
    pub fn prev_events(&self) -> Vec<OwnedEventId> {
        let mut extremities: Vec<_> = self.row.extremities.iter().collect();
        extremities.sort_by_key(|(_, _, depth)| std::cmp::Reverse(*depth));
        extremities
            .into_iter()
            .take(MAX_PREV_EVENTS)
            .filter_map(|(_, id, _)| OwnedEventId::try_from(id.as_str()).ok())
            .collect()
    }
}

/// The right to write to a room; dropping it lets the next writer in.
pub struct RoomGuard {
    /// The room.
    pub room: Arc<Room>,
    pub(super) head: OwnedMutexGuard<Option<Head>>,
    pub(super) inner: Arc<Inner>,
}

impl std::fmt::Debug for RoomGuard {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("RoomGuard")
            .field("room", &self.room.id)
            .finish_non_exhaustive()
    }
}

impl RoomGuard {
    /// The head; a guard without one cannot be had.
    pub(super) fn head(&self) -> Result<&Head, RoomError> {
        self.head.as_ref().ok_or(RoomError::UnknownRoom)
    }

    pub(super) fn head_mut(&mut self) -> Result<&mut Head, RoomError> {
        self.head.as_mut().ok_or(RoomError::UnknownRoom)
    }

    /// The newest event of the room, as of everything submitted under this guard.
    pub fn last_event(&self) -> Option<OwnedEventId> {
        self.head().ok()?.prev_events().into_iter().next()
    }

    /// An event of the current state, as of everything submitted under this guard. From memory after the first time.
    pub async fn state_event(
        &mut self,
        kind: &StateEventType,
        key: &str,
    ) -> Result<Option<Arc<Event>>, RoomError> {
        let name = (kind.clone(), key.to_owned());
        if let Some(known) = self.head()?.state.get(&name) {
            return Ok(known.clone());
        }
        let view = self.inner.store.view();
        let event = self.read_state_event(&view, kind, key).await?;
        self.head_mut()?
            .state_changed(name.0, name.1, event.clone());
        Ok(event)
    }

    /// The events of the current state that are there, for the auth rules.
    pub async fn auth_state(
        &mut self,
        keys: &[(StateEventType, String)],
    ) -> Result<HashMap<(StateEventType, String), Arc<Pdu>>, RoomError> {
        let mut state = HashMap::with_capacity(keys.len());
        for (kind, key) in keys {
            if let Some(event) = self.state_event(kind, key).await? {
                state.insert((kind.clone(), key.clone()), Arc::clone(&event.pdu));
            }
        }
        Ok(state)
    }

    async fn read_state_event(
        &self,
        view: &View,
        kind: &StateEventType,
        key: &str,
    ) -> Result<Option<Arc<Event>>, RoomError> {
        let root = self.head()?.row.root;
        self.inner.state_at(view, root, kind, key).await
    }

    /// The states after the forward extremities.
    pub(super) async fn after_extremities(
        &mut self,
    ) -> Result<HashMap<EventSid, StateRoot>, RoomError> {
        let head = self.head()?;
        let mut after = HashMap::with_capacity(head.row.extremities.len());
        let view = self.inner.store.view();
        for (sid, _, _) in &head.row.extremities {
            let root = match head.after.get(sid) {
                Some(root) => *root,
                // The only one: what it led to is the current state.
                None if head.row.extremities.len() == 1 => head.row.root,
                None => {
                    let event = self.inner.events.get(&view, *sid).await?;
                    let event = event.ok_or(RoomError::UnknownEvent)?;
                    self.inner.root_after(&view, &event).await?
                }
            };
            after.insert(*sid, root);
        }
        Ok(after)
    }
}

impl Inner {
    /// An event of a state, submitted ones included.
    pub(super) async fn state_at(
        &self,
        view: &View,
        root: StateRoot,
        kind: &StateEventType,
        key: &str,
    ) -> Result<Option<Arc<Event>>, RoomError> {
        let Some(sid) = self.ids.state_key(&kind.to_string(), key).await? else {
            return Ok(None);
        };
        let Some(event) = self.trees.get(view, root, sid).await? else {
            return Ok(None);
        };
        self.events.get(view, event).await
    }

    /// The state after an event whose place was worked out.
    pub(super) async fn root_after(
        self: &Arc<Self>,
        view: &View,
        event: &Event,
    ) -> Result<StateRoot, RoomError> {
        match event.tail.root_after {
            Some(root) => Ok(root),
            None if event.pdu.state_key.is_none() => Ok(event.root_before),
            None => {
                let reader = super::Reader::new(Arc::clone(self), view.clone());
                reader.root_after(event).await
            }
        }
    }
}

/// The heads in memory, each behind its room's lock.
pub(super) struct Heads {
    slots: DashMap<RoomSid, Arc<Mutex<Option<Head>>>>,
    capacity: usize,
}

impl Heads {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            slots: DashMap::new(),
            capacity: capacity.max(16),
        }
    }

    /// How many rooms have one.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The next lock of each room reads its head from the store.
    pub(super) async fn forget(&self) {
        let slots: Vec<_> = self.slots.iter().map(|slot| Arc::clone(&slot)).collect();
        for slot in slots {
            *slot.lock().await = None;
        }
    }

    /// The room's slot. When there are too many, those nobody holds are forgotten (their heads are in the store).
    fn slot(&self, room: RoomSid) -> Arc<Mutex<Option<Head>>> {
        if self.slots.len() > self.capacity {
            self.slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(&self.slots.entry(room).or_default())
    }
}

impl Rooms {
    /// Waits for the room's turn. Costs nothing but the wait while the room's head is in memory.
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`] when this server has no such room.
    pub async fn lock(&self, room: &RoomId) -> Result<RoomGuard, RoomError> {
        let view = self.inner.store.view();
        let room = self
            .inner
            .room(&view, room)
            .await?
            .ok_or(RoomError::UnknownRoom)?;
        let mut guard = self.claim(room).await;
        if guard
            .head
            .as_ref()
            .is_none_or(|head| head.poison.load(Ordering::Acquire))
        {
            let view = self.inner.store.view();
            let row = view
                .get(&schema::ROOM_HEADS, &guard.room.sid)
                .await?
                .ok_or(RoomError::UnknownRoom)?;
            *guard.head = Some(Head::new(row));
        }
        Ok(guard)
    }

    /// The lock alone: a room that is being made has no head yet.
    pub(super) async fn claim(&self, room: Arc<Room>) -> RoomGuard {
        let head = self.inner.heads.slot(room.sid).lock_owned().await;
        RoomGuard {
            room,
            head,
            inner: Arc::clone(&self.inner),
        }
    }
}

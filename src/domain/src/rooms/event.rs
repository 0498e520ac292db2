//! Events as read from the store: parsed once, shared, in one bounded cache.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use dashmap::DashMap;
use quick_cache::{Weighter, sync::Cache};
use ruma::{EventId, OwnedEventId, RoomVersionId};
use vatra_store::{Key, Map, Position, Store, StoreError, Value, View};

use super::RoomError;
use crate::{
    event::pdu::Pdu,
    schema::{
        self, EventHead, EventRow, EventSid, EventTail, RoomOrder, RoomSid, StateRoot, Status,
        UserSid,
    },
};

/// An event and what this server knows of it.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its number.
    pub sid: EventSid,
    /// Its room.
    pub room: RoomSid,
    /// The room's version.
    pub version: RoomVersionId,
    /// The event itself; emptied if it was redacted or its time was over.
    pub pdu: Arc<Pdu>,
    /// Whether clients may see it at all.
    pub status: Status,
    /// When this server's clients learn of it.
    pub position: Position,
    /// Where it stands in the room.
    pub order: RoomOrder,
    /// The state before it.
    pub root_before: StateRoot,
    /// The state event it replaced.
    pub replaces: Option<EventSid>,
    /// The redaction that emptied it.
    pub redacted_by: Option<EventSid>,
    /// The local device's transaction that made it: user, device, transaction id.
    pub transaction: Option<(UserSid, String, String)>,
    /// The state after it, whether events before it are missing, and whether its time was over.
    pub tail: EventTail,
    /// Until when it is known that nothing relates to it.
    pub(super) unrelated: Unrelated,
}

/// The newest position at which an event was known to have no relations; zero if nobody has looked.
#[derive(Debug, Default)]
pub(super) struct Unrelated(AtomicU64);

/// A copy of an event is looked at anew.
impl Clone for Unrelated {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Unrelated {
    pub(super) fn at(&self) -> Option<Position> {
        let at = self.0.load(Ordering::Relaxed);
        (at > 0).then_some(Position(at))
    }

    pub(super) fn note(&self, at: Position) {
        self.0.fetch_max(at.0, Ordering::Relaxed);
    }
}

impl Event {
    /// Reads a row. The id is stored, so nothing is hashed.
    pub(super) fn from_row(sid: EventSid, row: EventRow) -> Result<Self, RoomError> {
        let EventHead {
            room,
            version,
            event_id,
            status,
            position,
            order,
            root_before,
            replaces,
            redacted_by,
            transaction,
            tail,
        } = row.head;
        let version =
            RoomVersionId::try_from(version).map_err(|_| RoomError::UnsupportedVersion)?;
        let rules = version.rules().ok_or(RoomError::UnsupportedVersion)?;
        let event_id = EventId::parse(event_id)
            .map_err(|_| StoreError::corrupt(format!("event {} has no id", sid.0)))?;
        let mut pdu = Pdu::parse(row.pdu, &rules, Some(event_id))?;
        pdu.rejected = status == Status::Rejected;
        Ok(Self {
            sid,
            room,
            version,
            pdu: Arc::new(pdu),
            status,
            position,
            order,
            root_before,
            replaces,
            redacted_by,
            transaction,
            tail,
            unrelated: Unrelated::default(),
        })
    }

    /// The same event, visible since `position`.
    pub(super) fn at(&self, position: Position) -> Self {
        Self {
            position,
            ..self.clone()
        }
    }

    /// Whether what it says is gone: it was redacted, or its time was over.
    pub fn is_empty(&self) -> bool {
        self.redacted_by.is_some() || self.tail.expired
    }

    /// Whether its place in the room was worked out, so that what follows it can be judged: not of outliers.
    pub fn has_state(&self) -> bool {
        match self.status {
            Status::Outlier => false,
            Status::Rejected => self.tail.root_after.is_some(),
            Status::SoftFailed | Status::Held | Status::Visible => true,
        }
    }

    pub(super) fn row(&self) -> EventRow {
        let head = EventHead {
            room: self.room,
            version: self.version.to_string(),
            event_id: self.pdu.event_id.to_string(),
            status: self.status,
            position: self.position,
            order: self.order,
            root_before: self.root_before,
            replaces: self.replaces,
            redacted_by: self.redacted_by,
            transaction: self.transaction.clone(),
            tail: self.tail,
        };
        EventRow {
            head,
            pdu: self.pdu.bytes().clone(),
        }
    }
}

/// How many ids are remembered of events that have become visible: many more than become so while a task holds a view.
const RECENT_IDS: usize = 10_000;

/// The cache of events, and those submitted but not yet visible.
///
/// A room's head names events from the moment they are submitted, and whoever works from it may hold a view from before they became
/// visible. So an event is looked for among those submitted, then among those remembered, then in the view, and then in the newest
/// view: one that is there is never taken for one that is not.
pub struct Events {
    store: Store,
    cache: Cache<EventSid, Arc<Event>, EventWeight>,
    pending: DashMap<EventSid, Arc<Event>>,
    /// The ids of those submitted.
    pending_ids: DashMap<OwnedEventId, EventSid>,
    /// The ids of those that became visible last.
    recent_ids: Cache<OwnedEventId, EventSid>,
    /// Counts rewrites of rows (redactions), so that a slow reader does not put an old row back into the cache.
    rewrites: AtomicU64,
}

impl Events {
    pub(super) fn new(store: Store, cache_bytes: u64) -> Self {
        let items = usize::try_from(cache_bytes / 1024)
            .unwrap_or(usize::MAX)
            .max(64);
        let cache = Cache::with_weighter(items, cache_bytes, EventWeight);
        Self {
            store,
            cache,
            pending: DashMap::new(),
            pending_ids: DashMap::new(),
            recent_ids: Cache::new(RECENT_IDS),
            rewrites: AtomicU64::new(0),
        }
    }

    /// How much memory the cache holds, in bytes.
    pub(super) fn cached_bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// The events behind these numbers, in the same order; one batched read for those not in memory.
    pub(super) async fn get_many(
        &self,
        view: &View,
        sids: &[EventSid],
    ) -> Result<Vec<Option<Arc<Event>>>, RoomError> {
        let mut events: Vec<Option<Arc<Event>>> = sids.iter().map(|sid| self.known(*sid)).collect();
        let unknown: Vec<EventSid> = sids
            .iter()
            .zip(&events)
            .filter(|(_, event)| event.is_none())
            .map(|(sid, _)| *sid)
            .collect();
        if unknown.is_empty() {
            return Ok(events);
        }
        let rewrites = self.rewrites.load(Ordering::Acquire);
        let mut rows = view.get_many(&schema::EVENTS, &unknown).await?;
        self.look_again(view, &schema::EVENTS, &unknown, &mut rows)
            .await?;
        let mut rows = unknown.iter().zip(rows);
        for place in events.iter_mut().filter(|event| event.is_none()) {
            let Some((sid, row)) = rows.next() else { break };
            let Some(row) = row else { continue };
            let event = Arc::new(Event::from_row(*sid, row)?);
            if self.rewrites.load(Ordering::Acquire) == rewrites {
                self.cache.insert(*sid, Arc::clone(&event));
            }
            *place = Some(event);
        }
        Ok(events)
    }

    /// One event.
    pub(super) async fn get(
        &self,
        view: &View,
        sid: EventSid,
    ) -> Result<Option<Arc<Event>>, RoomError> {
        if let Some(event) = self.known(sid) {
            return Ok(Some(event));
        }
        Ok(self.get_many(view, &[sid]).await?.pop().flatten())
    }

    /// Makes a submitted event readable by those who hold its number.
    pub(super) fn submitted(&self, event: &Arc<Event>) {
        self.pending.insert(event.sid, Arc::clone(event));
        self.pending_ids
            .insert(event.pdu.event_id.clone(), event.sid);
    }

    /// The numbers of events by their ids, in the same order; those submitted are found too.
    pub(super) async fn sids(
        &self,
        view: &View,
        ids: &[OwnedEventId],
    ) -> Result<Vec<Option<EventSid>>, StoreError> {
        let mut sids: Vec<Option<EventSid>> = ids.iter().map(|id| self.known_id(id)).collect();
        let unknown: Vec<String> = sids
            .iter()
            .zip(ids)
            .filter(|(sid, _)| sid.is_none())
            .map(|(_, id)| id.to_string())
            .collect();
        if unknown.is_empty() {
            return Ok(sids);
        }
        let mut rows = view.get_many(&schema::EVENT_SIDS, &unknown).await?;
        self.look_again(view, &schema::EVENT_SIDS, &unknown, &mut rows)
            .await?;
        let places = sids.iter_mut().filter(|sid| sid.is_none());
        for (place, row) in places.zip(rows) {
            *place = row;
        }
        Ok(sids)
    }

    /// What a view does not have may have become visible since: that is filled in.
    async fn look_again<K: Key + Clone, V: Value>(
        &self,
        view: &View,
        map: &Map<K, V>,
        keys: &[K],
        rows: &mut [Option<V>],
    ) -> Result<(), StoreError> {
        if rows.iter().all(Option::is_some) {
            return Ok(());
        }
        let newest = self.store.view();
        if newest.watermark() == view.watermark() {
            return Ok(());
        }
        let missing = rows.iter().zip(keys).filter(|(row, _)| row.is_none());
        let missing: Vec<K> = missing.map(|(_, key)| key.clone()).collect();
        let found = newest.get_many(map, &missing).await?;
        let places = rows.iter_mut().filter(|row| row.is_none());
        for (place, row) in places.zip(found) {
            *place = row;
        }
        Ok(())
    }

    /// Events by their ids, in the same order.
    pub(super) async fn by_ids(
        &self,
        view: &View,
        ids: &[OwnedEventId],
    ) -> Result<Vec<Option<Arc<Event>>>, RoomError> {
        let sids = self.sids(view, ids).await?;
        let there: Vec<EventSid> = sids.iter().copied().flatten().collect();
        let mut events = self.get_many(view, &there).await?.into_iter();
        let places = sids.into_iter();
        Ok(places
            .map(|sid| sid.and_then(|_| events.next().flatten()))
            .collect())
    }

    /// Rows were written past the cache: what it holds of them is old.
    pub(super) fn rewritten(&self, sids: impl IntoIterator<Item = EventSid>) {
        self.rewrites.fetch_add(1, Ordering::AcqRel);
        for sid in sids {
            self.cache.remove(&sid);
        }
    }

    /// The batch is visible: `event` is what the row now says.
    pub(super) fn visible(&self, event: Arc<Event>) {
        self.rewrites.fetch_add(1, Ordering::AcqRel);
        self.cache.insert(event.sid, Arc::clone(&event));
        self.recent_ids
            .insert(event.pdu.event_id.clone(), event.sid);
        self.forget_pending(event.sid);
    }

    /// The batch has failed.
    pub(super) fn failed(&self, sid: EventSid) {
        self.rewrites.fetch_add(1, Ordering::AcqRel);
        self.forget_pending(sid);
        self.cache.remove(&sid);
    }

    fn forget_pending(&self, sid: EventSid) {
        if let Some((_, event)) = self.pending.remove(&sid) {
            self.pending_ids
                .remove_if(&event.pdu.event_id, |_, known| *known == sid);
        }
    }

    fn known_id(&self, id: &EventId) -> Option<EventSid> {
        // In this order: one that becomes visible meanwhile is remembered before it is forgotten here.
        let pending = self.pending_ids.get(id).map(|sid| *sid);
        pending.or_else(|| self.recent_ids.get(id))
    }

    fn known(&self, sid: EventSid) -> Option<Arc<Event>> {
        self.pending
            .get(&sid)
            .map(|event| Arc::clone(&event))
            .or_else(|| self.cache.get(&sid))
    }
}

#[derive(Clone)]
struct EventWeight;

impl Weighter<EventSid, Arc<Event>> for EventWeight {
    fn weight(&self, _: &EventSid, event: &Arc<Event>) -> u64 {
        1024 + u64::try_from(event.pdu.bytes().len()).unwrap_or(u64::MAX / 2)
    }
}

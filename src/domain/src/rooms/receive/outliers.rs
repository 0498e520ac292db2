//! Events known for their content only: judged by the events that allow them, and stored.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{
    EventId, OwnedEventId, RoomId, events::StateEventType, room_version_rules::RoomVersionRules,
};
use vatra_store::{Batch, Position};

use super::{
    super::{Event, Inner, Room, RoomError, event::Unrelated},
    ReceiveError, Receiver,
};
use crate::{
    event::{auth, pdu::Pdu},
    schema::{self, EventSid, EventTail, RoomOrder, Status},
};

/// How many events are written at once.
const CHUNK: usize = 200;

/// Events that allow others, by their ids.
pub(in super::super) type Allowing = HashMap<OwnedEventId, Arc<Pdu>>;

/// Whether an event is allowed by the events it names, all of which must be known.
///
/// # Errors
/// The rule that says no.
pub(in super::super) fn judge(
    rules: &RoomVersionRules,
    pdu: &Pdu,
    known: &Allowing,
) -> Result<(), auth::AuthError> {
    auth::check_auth_events(rules, pdu, |id: &EventId| known.get(id).cloned())?;
    let mut state: HashMap<(StateEventType, String), Arc<Pdu>> = HashMap::new();
    let named = pdu.auth_events.iter().filter_map(|id| known.get(id));
    for event in named.chain(create_of(pdu, known)) {
        if let Some(key) = &event.state_key {
            let kind = StateEventType::from(event.kind.to_string());
            state.insert((kind, key.clone()), Arc::clone(event));
        }
    }
    auth::authorise(rules, pdu, |kind, key| {
        state.get(&(kind.clone(), key.to_owned())).cloned()
    })
}

/// From room version 12 on the create event is named by the room id alone.
fn create_of<'a>(pdu: &Pdu, known: &'a Allowing) -> Option<&'a Arc<Pdu>> {
    let id = create_id(&pdu.room_id)?;
    known.get(&id)
}

/// The id of the create event that a room id names, from room version 12 on.
pub(in super::super) fn create_id(room: &RoomId) -> Option<OwnedEventId> {
    let hash = room.as_str().strip_prefix('!')?;
    let named = !hash.contains(':');
    named.then(|| EventId::parse(format!("${hash}")).ok())?
}

/// The ids of the events that decide on an event: those it names, and the create event.
pub(in super::super) fn deciding(pdu: &Pdu) -> impl Iterator<Item = OwnedEventId> + '_ {
    let create = create_id(&pdu.room_id).filter(|id| *id != pdu.event_id);
    pdu.auth_events.iter().cloned().chain(create)
}

/// Events in an order in which each comes after those among them that allow it. What allows itself is left out.
pub(in super::super) fn by_auth(mut events: HashMap<OwnedEventId, Pdu>) -> Vec<Pdu> {
    let mut ids: Vec<OwnedEventId> = events.keys().cloned().collect();
    ids.sort_unstable();
    let mut ordered = Vec::with_capacity(events.len());
    let mut state: HashMap<OwnedEventId, bool> = HashMap::new();
    let mut looping: HashSet<OwnedEventId> = HashSet::new();
    for id in ids {
        let mut stack = vec![(id, false)];
        while let Some((id, done)) = stack.pop() {
            if done {
                state.insert(id.clone(), true);
                if !looping.contains(&id) {
                    ordered.extend(events.remove(&id));
                }
                continue;
            }
            match state.get(&id) {
                Some(true) => continue,
                // It is on the way down: a circle, which no hash can make.
                Some(false) => {
                    looping.insert(id);
                    continue;
                }
                None => {}
            }
            let Some(pdu) = events.get(&id) else { continue };
            state.insert(id.clone(), false);
            stack.push((id, true));
            stack.extend(deciding(pdu).map(|auth| (auth, false)));
        }
    }
    ordered
}

impl Receiver {
    /// Judges and stores outliers; those that name events which are nowhere are dropped.
    pub(super) async fn store_outliers(
        &self,
        room: &Room,
        outliers: HashMap<OwnedEventId, Pdu>,
    ) -> Result<(), ReceiveError> {
        if outliers.is_empty() {
            return Ok(());
        }
        let judged = self.inner().judge_all(room, outliers).await?;
        for chunk in judged.chunks(CHUNK) {
            let mut batch = Batch::new();
            for pdu in chunk {
                self.inner().put_outlier(&mut batch, room, pdu).await?;
            }
            if !batch.is_empty() {
                self.inner()
                    .store
                    .write(batch)
                    .await
                    .map_err(RoomError::from)?;
            }
        }
        Ok(())
    }
}

impl Inner {
    /// Judges events by those that allow them, among them or stored. What cannot be judged is left out.
    pub(in super::super) async fn judge_all(
        &self,
        room: &Room,
        events: HashMap<OwnedEventId, Pdu>,
    ) -> Result<Vec<Pdu>, RoomError> {
        let needed: HashSet<OwnedEventId> = events.values().flat_map(deciding).collect();
        let needed: Vec<OwnedEventId> = needed
            .into_iter()
            .filter(|id| !events.contains_key(id))
            .collect();
        let mut known = self.allowing(room, &needed).await?;
        let mut judged = Vec::with_capacity(events.len());
        for (count, mut pdu) in by_auth(events).into_iter().enumerate() {
            if !deciding(&pdu).all(|id| known.contains_key(&id)) {
                tracing::debug!(event = %pdu.event_id, "what allows an event is missing: it is dropped");
                continue;
            }
            if let Err(error) = judge(&room.rules, &pdu, &known) {
                tracing::debug!(event = %pdu.event_id, %error, "an event is rejected");
                pdu.rejected = true;
            }
            known.insert(pdu.event_id.clone(), Arc::new(pdu.clone()));
            judged.push(pdu);
            if count % 64 == 63 {
                tokio::task::yield_now().await;
            }
        }
        Ok(judged)
    }

    /// Stored events that allow others.
    pub(in super::super) async fn allowing(
        &self,
        room: &Room,
        ids: &[OwnedEventId],
    ) -> Result<Allowing, RoomError> {
        let events = self.events.by_ids(&self.store.view(), ids).await?;
        let events = events.into_iter().flatten();
        Ok(events
            .filter(|event| event.room == room.sid)
            .map(|event| (event.pdu.event_id.clone(), event.pdu.clone()))
            .collect())
    }

    /// Stores an event that has no place in the room, unless it is stored already.
    pub(in super::super) async fn put_outlier(
        &self,
        batch: &mut Batch,
        room: &Room,
        pdu: &Pdu,
    ) -> Result<Option<EventSid>, RoomError> {
        let id = pdu.event_id.to_string();
        let view = self.store.view();
        let known = self
            .events
            .sids(&view, std::slice::from_ref(&pdu.event_id))
            .await?;
        if let Some(sid) = known.into_iter().flatten().next() {
            return Ok(Some(sid));
        }
        let sid = EventSid(self.store.fresh_id()?);
        let event = Event {
            status: if pdu.rejected {
                Status::Rejected
            } else {
                Status::Outlier
            },
            ..outlier(room, sid, pdu.clone())
        };
        batch.assert_absent(&schema::EVENT_SIDS, &id);
        batch.put(&schema::EVENT_SIDS, &id, &sid);
        batch.put(&schema::EVENTS, &sid, &event.row());
        Ok(Some(sid))
    }
}

/// An event without a place.
pub(in super::super) fn outlier(room: &Room, sid: EventSid, pdu: Pdu) -> Event {
    Event {
        sid,
        room: room.sid,
        version: room.version.clone(),
        pdu: Arc::new(pdu),
        status: Status::Outlier,
        position: Position(0),
        order: RoomOrder(0),
        root_before: None,
        replaces: None,
        redacted_by: None,
        transaction: None,
        tail: EventTail::default(),
        unrelated: Unrelated::default(),
    }
}

//! What an event needs and this server has not got: the events before it, the state before those, and the events that allow them.
//! Asked of the server that sent it; nothing here is believed before it is checked, and nothing is unbounded.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures::{StreamExt, stream};
use ruma::{
    EventId, OwnedEventId, ServerName, UInt,
    api::federation::event::{
        get_event::v1 as get_event, get_missing_events::v1 as get_missing_events,
        get_room_state::v1 as get_state, get_room_state_ids::v1 as get_state_ids,
    },
};
use serde_json::value::RawValue as RawJsonValue;

use super::{Gathered, ReceiveError, Receiver, turn};
use crate::{event::pdu::Pdu, remote::Bounds, rooms::Room};

/// How many missing events are asked for at a time.
const PAGE: u32 = 20;
/// How often more of them are asked for.
const PAGES: usize = 10;
/// The most states that are fetched for one event.
const MAX_STATES: usize = 4;
/// The most events that are fetched one by one.
const MAX_FETCHED: usize = 1_000;
/// The most events in a state and its auth chain.
const MAX_STATE: usize = 200_000;
/// If more events of a state are missing, the whole state is fetched at once.
const ONE_BY_ONE: usize = 300;
/// How many events are fetched side by side.
const SIDE_BY_SIDE: usize = 8;

impl Receiver {
    /// Everything that must be here before an event can be placed. Asks `origin`, unless nothing is missing.
    ///
    /// # Errors
    /// [`ReceiveError::MissingBefore`] if the server does not tell of the events right before it: it is not believed when it
    /// only claims what the state was there.
    pub(super) async fn gather(
        &self,
        origin: &ServerName,
        room: &Room,
        pdu: &Pdu,
    ) -> Result<Gathered, ReceiveError> {
        let mut gathered = Gathered::default();
        if !self.unplaced(room, &pdu.prev_events).await?.is_empty() {
            let key = (origin.to_owned(), room.sid);
            let _asking = turn(&self.asking, key).await;
            // Whoever asked before may have brought it.
            if !self.unplaced(room, &pdu.prev_events).await?.is_empty() {
                let found = self.missing_events(origin, room, pdu).await?;
                // Some may have come from elsewhere while this server was asked.
                let unplaced = self.unplaced(room, &pdu.prev_events).await?;
                if !unplaced.iter().all(|id| found.contains_key(id)) {
                    return Err(ReceiveError::MissingBefore);
                }
                gathered.between = oldest_first(found, &pdu.prev_events);
                self.states_before(origin, room, &mut gathered).await?;
            }
        }
        self.auth_events(origin, room, pdu, &mut gathered).await?;
        Ok(gathered)
    }

    /// Which of some events have no place in the room yet.
    pub(super) async fn unplaced(
        &self,
        room: &Room,
        ids: &[OwnedEventId],
    ) -> Result<Vec<OwnedEventId>, ReceiveError> {
        let inner = self.inner();
        let events = inner.events.by_ids(&inner.store.view(), ids).await?;
        let unplaced = ids.iter().zip(events).filter(|(_, event)| {
            event
                .as_ref()
                .is_none_or(|event| event.room != room.sid || !event.has_state())
        });
        Ok(unplaced.map(|(id, _)| id.clone()).collect())
    }

    /// Asks for the events between what is here and an event. Goes on as long as the pages are full.
    async fn missing_events(
        &self,
        origin: &ServerName,
        room: &Room,
        pdu: &Pdu,
    ) -> Result<HashMap<OwnedEventId, Pdu>, ReceiveError> {
        let earliest = self.rooms.extremities(&room.id).await?;
        let mut latest = vec![pdu.event_id.clone()];
        let mut found: HashMap<OwnedEventId, Pdu> = HashMap::new();
        for _ in 0..PAGES {
            let mut request =
                get_missing_events::Request::new(room.id.clone(), earliest.clone(), latest.clone());
            request.limit = UInt::from(PAGE);
            let page = match self.remote.call(origin, request).await {
                Ok(answer) => answer.events,
                Err(error) => {
                    tracing::debug!(%origin, room = %room.id, %error, "missing events cannot be had");
                    break;
                }
            };
            let full = page.len() >= usize::try_from(PAGE).unwrap_or(usize::MAX);
            let page = self.checked_all(room, page, 2 * usize::try_from(PAGE).unwrap_or(20));
            let before = found.len();
            found.extend(
                page.await
                    .into_iter()
                    .map(|pdu| (pdu.event_id.clone(), pdu)),
            );
            if !full || found.len() == before {
                break;
            }
            let wanted: BTreeSet<OwnedEventId> = found
                .values()
                .flat_map(|pdu| &pdu.prev_events)
                .filter(|id| !found.contains_key(*id))
                .cloned()
                .collect();
            let wanted: Vec<OwnedEventId> = wanted.into_iter().collect();
            let open: HashSet<OwnedEventId> =
                self.unplaced(room, &wanted).await?.into_iter().collect();
            if open.is_empty() {
                break;
            }
            let open_ended = found
                .values()
                .filter(|pdu| pdu.prev_events.iter().any(|id| open.contains(id)));
            latest = open_ended
                .map(|pdu| pdu.event_id.clone())
                .take(20)
                .collect();
        }
        found.remove(&pdu.event_id);
        // A server that does not know our newest events tells of all those before: what has its place is not gone beyond.
        self.unplaced_of(room, found).await
    }

    /// The states after the events that are still missing before the oldest of those that were found.
    async fn states_before(
        &self,
        origin: &ServerName,
        room: &Room,
        gathered: &mut Gathered,
    ) -> Result<(), ReceiveError> {
        let between: HashSet<&OwnedEventId> =
            gathered.between.iter().map(|pdu| &pdu.event_id).collect();
        let outside: BTreeSet<OwnedEventId> = gathered
            .between
            .iter()
            .flat_map(|pdu| &pdu.prev_events)
            .filter(|id| !between.contains(id))
            .cloned()
            .collect();
        let outside: Vec<OwnedEventId> = outside.into_iter().collect();
        let missing = self.unplaced(room, &outside).await?;
        if missing.len() > MAX_STATES {
            return Err(ReceiveError::TooMuch("too many branches are missing"));
        }
        for id in missing {
            let event = self.event(origin, room, &id).await;
            let event = event.ok_or(ReceiveError::MissingBefore)?;
            let mut state = self.state_at(origin, room, &id, gathered).await?;
            if event.state_key.is_some() {
                // Last, so that it replaces what was there.
                state.push(id.clone());
            }
            gathered.outliers.insert(id.clone(), event);
            gathered.after.insert(id, state);
        }
        Ok(())
    }

    /// The ids of the state before an event; its events, and those that allow them, are gathered as far as they can be had.
    pub(super) async fn state_at(
        &self,
        origin: &ServerName,
        room: &Room,
        at: &EventId,
        gathered: &mut Gathered,
    ) -> Result<Vec<OwnedEventId>, ReceiveError> {
        let request = get_state_ids::Request::new(at.to_owned(), room.id.clone());
        let bounds = Bounds {
            limit_bytes: 32 << 20,
            ..Bounds::default()
        };
        let answer = self.remote.call_within(origin, request, bounds).await;
        let answer = answer.map_err(|error| {
            tracing::debug!(%origin, room = %room.id, %error, "the state before an event cannot be had");
            ReceiveError::MissingBefore
        })?;
        if answer.pdu_ids.len() + answer.auth_chain_ids.len() > MAX_STATE {
            return Err(ReceiveError::TooMuch("the state is too large"));
        }
        let all: BTreeSet<OwnedEventId> = answer
            .pdu_ids
            .iter()
            .chain(&answer.auth_chain_ids)
            .cloned()
            .collect();
        let all: Vec<OwnedEventId> = all.into_iter().collect();
        let missing = self.absent(room, &all, gathered).await?;
        if missing.len() > ONE_BY_ONE {
            self.whole_state(origin, room, at, &missing, gathered)
                .await?;
        } else {
            self.events(origin, room, missing, gathered).await;
        }
        Ok(answer.pdu_ids)
    }

    /// Which of some events are neither stored nor gathered.
    async fn absent(
        &self,
        room: &Room,
        ids: &[OwnedEventId],
        gathered: &Gathered,
    ) -> Result<Vec<OwnedEventId>, ReceiveError> {
        let inner = self.inner();
        let events = inner.events.by_ids(&inner.store.view(), ids).await?;
        let absent = ids.iter().zip(events).filter(|(id, event)| {
            event.as_ref().is_none_or(|event| event.room != room.sid)
                && !gathered.outliers.contains_key(*id)
        });
        Ok(absent.map(|(id, _)| id.clone()).collect())
    }

    async fn whole_state(
        &self,
        origin: &ServerName,
        room: &Room,
        at: &EventId,
        missing: &[OwnedEventId],
        gathered: &mut Gathered,
    ) -> Result<(), ReceiveError> {
        let request = get_state::Request::new(at.to_owned(), room.id.clone());
        let answer = self
            .remote
            .call_within(origin, request, Bounds::large())
            .await;
        let answer = answer.map_err(|_| ReceiveError::MissingBefore)?;
        let wanted: HashSet<&OwnedEventId> = missing.iter().collect();
        let events = answer.pdus.into_iter().chain(answer.auth_chain);
        for pdu in self.checked_all(room, events, MAX_STATE).await {
            if wanted.contains(&pdu.event_id) {
                gathered.outliers.insert(pdu.event_id.clone(), pdu);
            }
        }
        Ok(())
    }

    /// Fetches the events that allow the event and those before it, and so on, as far as they are missing.
    pub(super) async fn auth_events(
        &self,
        origin: &ServerName,
        room: &Room,
        pdu: &Pdu,
        gathered: &mut Gathered,
    ) -> Result<(), ReceiveError> {
        let between: HashSet<OwnedEventId> = gathered
            .between
            .iter()
            .map(|pdu| pdu.event_id.clone())
            .collect();
        let mut wanted: BTreeSet<OwnedEventId> = pdu.auth_events.iter().cloned().collect();
        let others = gathered.between.iter().chain(gathered.outliers.values());
        wanted.extend(others.flat_map(|pdu| pdu.auth_events.iter().cloned()));
        let mut asked: HashSet<OwnedEventId> = HashSet::new();
        while asked.len() < MAX_FETCHED {
            let ids: Vec<OwnedEventId> = wanted
                .iter()
                .filter(|id| !between.contains(*id) && !asked.contains(*id))
                .cloned()
                .collect();
            let missing = self.absent(room, &ids, gathered).await?;
            if missing.is_empty() {
                break;
            }
            asked.extend(missing.iter().cloned());
            let fetched = self.events(origin, room, missing, gathered).await;
            wanted = fetched
                .iter()
                .filter_map(|id| gathered.outliers.get(id))
                .flat_map(|pdu| pdu.auth_events.iter().cloned())
                .collect();
        }
        Ok(())
    }

    /// Fetches events one by one; says which could be had.
    async fn events(
        &self,
        origin: &ServerName,
        room: &Room,
        ids: Vec<OwnedEventId>,
        gathered: &mut Gathered,
    ) -> Vec<OwnedEventId> {
        let fetches = ids
            .into_iter()
            .take(MAX_FETCHED)
            .map(|id| async move { self.event(origin, room, &id).await });
        let fetched: Vec<Option<Pdu>> = stream::iter(fetches)
            .buffer_unordered(SIDE_BY_SIDE)
            .collect()
            .await;
        let mut had = Vec::new();
        for pdu in fetched.into_iter().flatten() {
            had.push(pdu.event_id.clone());
            gathered.outliers.insert(pdu.event_id.clone(), pdu);
        }
        had
    }

    /// One event of a room, if it can be had and is good.
    pub(super) async fn event(
        &self,
        origin: &ServerName,
        room: &Room,
        id: &EventId,
    ) -> Option<Pdu> {
        let request = get_event::Request::new(id.to_owned());
        let answer = self.remote.call(origin, request).await.ok()?;
        let pdu = self.check(room, &answer.pdu).await.ok()?;
        (pdu.event_id == id).then_some(pdu)
    }

    /// The good ones of some events.
    pub(super) async fn checked_all(
        &self,
        room: &Room,
        events: impl IntoIterator<Item = Box<RawJsonValue>>,
        most: usize,
    ) -> Vec<Pdu> {
        let checks = events
            .into_iter()
            .take(most)
            .map(|event| async move { self.check(room, &event).await });
        let checked = stream::iter(checks).buffered(SIDE_BY_SIDE);
        let good = checked.filter_map(|outcome| {
            if let Err(error) = &outcome {
                tracing::debug!(room = %room.id, %error, "an event of another server is dropped");
            }
            std::future::ready(outcome.ok())
        });
        good.collect().await
    }
}

/// Those that some events lead down to (these included), each after the ones it follows.
pub(super) fn oldest_first(
    mut found: HashMap<OwnedEventId, Pdu>,
    leads_from: &[OwnedEventId],
) -> Vec<Pdu> {
    let mut ordered: Vec<Pdu> = Vec::with_capacity(found.len());
    let mut visited: HashSet<OwnedEventId> = HashSet::new();
    // Depth first; an event is written down when everything it follows has been.
    let mut stack: Vec<(OwnedEventId, bool)> = leads_from
        .iter()
        .rev()
        .map(|id| (id.clone(), false))
        .collect();
    while let Some((id, done)) = stack.pop() {
        if done {
            ordered.extend(found.remove(&id));
            continue;
        }
        let Some(pdu) = found.get(&id) else { continue };
        if !visited.insert(id.clone()) {
            continue;
        }
        stack.push((id, true));
        for prev in pdu.prev_events.iter().rev() {
            stack.push((prev.clone(), false));
        }
    }
    ordered
}

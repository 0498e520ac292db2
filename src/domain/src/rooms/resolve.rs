//! One state out of several, over state trees: only what differs is read.
//!
//! The trees are compared ([`StateTrees::diff`] costs in proportion to the difference); only keys on which they differ, and those that
//! the auth rules ask for, are handed to `event/resolve`. Auth chains are never read whole: an event is stored after the events that
//! allow it, so its number is larger than theirs, and a walk from the largest number down can end as soon as everything left
//! is in all the chains.
//!
//! Called by `receive` and `import`, outside of any guard when it can be. The result depends on the states only, not on their order.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet},
    sync::Arc,
};

use ruma::{EventId, OwnedEventId, events::StateEventType};
use vatra_store::View;

use super::{Inner, Room, RoomError, state::Grown};
use crate::{
    event::{
        auth,
        pdu::Pdu,
        resolve::{Chains, StateMap, resolve_with},
    },
    schema::{EventSid, StateKeySid, StateRoot},
};

/// How often events that the algorithm asked for are loaded before it is given up: each time brings what allows those before.
const ROUNDS: usize = 1_000;

/// The keys that differ, and what each of the states has there.
type Differing = BTreeMap<StateKeySid, Vec<Option<EventSid>>>;

impl Inner {
    /// The state that several resolve to, as a change of `base`: what it must be at the keys where it may differ from it.
    /// `fresh` is an event of these states that is not stored yet, if there is one.
    pub(super) async fn resolve(
        self: &Arc<Self>,
        room: &Room,
        base: StateRoot,
        roots: &[StateRoot],
        fresh: Option<(EventSid, &Pdu)>,
        nodes: &mut Grown,
    ) -> Result<StateRoot, RoomError> {
        let mut roots: Vec<StateRoot> = roots.to_vec();
        roots.sort_unstable();
        roots.dedup();
        match *roots.as_slice() {
            [] => return Ok(base),
            [only] => return Ok(only),
            _ => {}
        }
        let view = self.store.view();
        let differing = self.differing(&view, base, &roots).await?;
        let conflicted: Vec<StateKeySid> = differing
            .iter()
            .filter(|(_, values)| !all_equal(values))
            .map(|(key, _)| *key)
            .collect();
        let mut sets: Vec<(StateKeySid, Option<EventSid>)> = differing
            .iter()
            .filter(|(_, values)| all_equal(values))
            .filter_map(|(key, values)| Some((*key, *values.first()?)))
            .collect();
        if !conflicted.is_empty() {
            let mut resolution = Resolution {
                inner: self,
                view: &view,
                room,
                base,
                differing: &differing,
                fresh: fresh.map(|(sid, pdu)| (sid, Arc::new(pdu.clone()))),
                known: HashMap::new(),
            };
            sets.extend(resolution.resolve(&conflicted, roots.len()).await?);
        }
        Ok(nodes.set(&view, base, &sets).await?)
    }

    /// The keys at which some state differs from `base`.
    async fn differing(
        &self,
        view: &View,
        base: StateRoot,
        roots: &[StateRoot],
    ) -> Result<Differing, RoomError> {
        let mut differing = Differing::new();
        for (place, root) in roots.iter().enumerate() {
            for change in self.trees.diff(view, base, *root).await? {
                let values = differing
                    .entry(change.key)
                    .or_insert_with(|| vec![change.old; roots.len()]);
                if let Some(value) = values.get_mut(place) {
                    *value = change.new;
                }
            }
        }
        Ok(differing)
    }
}

fn all_equal(values: &[Option<EventSid>]) -> bool {
    values.windows(2).all(|pair| pair.first() == pair.last())
}

struct Resolution<'a> {
    inner: &'a Arc<Inner>,
    view: &'a View,
    room: &'a Room,
    base: StateRoot,
    differing: &'a Differing,
    /// An event that is not stored yet.
    fresh: Option<(EventSid, Arc<Pdu>)>,
    /// Events by their ids; `None` is known not to be there.
    known: HashMap<OwnedEventId, Option<Arc<Pdu>>>,
}

impl Resolution<'_> {
    /// What becomes of the conflicted keys.
    async fn resolve(
        &mut self,
        conflicted: &[StateKeySid],
        states: usize,
    ) -> Result<Vec<(StateKeySid, Option<EventSid>)>, RoomError> {
        let mut by_state: Vec<BTreeSet<EventSid>> = vec![BTreeSet::new(); states];
        for key in conflicted {
            let values = self.differing.get(key).into_iter().flatten();
            for (set, sid) in by_state.iter_mut().zip(values) {
                set.extend(*sid);
            }
        }
        let chains = if self.room.rules.state_res.v2_rules().is_some() {
            self.chains(&by_state).await?
        } else {
            Chains::default()
        };
        let events: Vec<EventSid> = by_state.iter().flatten().copied().collect();
        let events = self.load(&events).await?;
        let mut all: Vec<Arc<Pdu>> = events.values().cloned().collect();
        for ids in [&chains.difference, &chains.subgraph] {
            all.extend(self.load_ids(ids).await?);
        }
        let common = self.common(&all, conflicted).await?;
        let mut maps = vec![common; states];
        let mut names: HashMap<StateKeySid, (StateEventType, String)> = HashMap::new();
        for key in conflicted {
            let name = self.name(*key).await?;
            let values = self.differing.get(key).into_iter().flatten();
            for (map, sid) in maps.iter_mut().zip(values) {
                let Some(sid) = sid else { continue };
                // A state without one of its events would be another state.
                let event = events.get(sid).ok_or(RoomError::UnknownEvent)?;
                map.insert(name.clone(), event.event_id.clone());
            }
            names.insert(*key, name);
        }
        let resolved = self.run(&maps, &chains).await?;
        let ids: Vec<OwnedEventId> = conflicted
            .iter()
            .filter_map(|key| resolved.get(names.get(key)?).cloned())
            .collect();
        let sids = self.inner.events.sids(self.view, &ids).await?;
        let mut sids: HashMap<OwnedEventId, Option<EventSid>> = ids.into_iter().zip(sids).collect();
        if let Some((sid, pdu)) = &self.fresh {
            sids.insert(pdu.event_id.clone(), Some(*sid));
        }
        let mut became = Vec::with_capacity(conflicted.len());
        for key in conflicted {
            let id = names.get(key).and_then(|name| resolved.get(name));
            let sid = match id {
                None => None,
                Some(id) => {
                    let sid = sids.get(id).copied().flatten();
                    Some(sid.ok_or(RoomError::UnknownEvent)?)
                }
            };
            became.push((*key, sid));
        }
        Ok(became)
    }

    /// Runs the algorithm, and loads what it asks for, until it asks for nothing new.
    async fn run(&mut self, maps: &[StateMap], chains: &Chains) -> Result<StateMap, RoomError> {
        for _ in 0..ROUNDS {
            let asked: RefCell<HashSet<OwnedEventId>> = RefCell::default();
            let outcome = resolve_with(&self.room.rules, maps, chains, |id: &EventId| {
                let known = self.known.get(id);
                if known.is_none() {
                    asked.borrow_mut().insert(id.to_owned());
                }
                known.cloned().flatten()
            });
            let asked = asked.into_inner();
            if asked.is_empty() {
                return outcome.map_err(|error| RoomError::Unresolvable(error.to_string()));
            }
            let asked: Vec<OwnedEventId> = asked.into_iter().collect();
            self.load_ids(&asked).await?;
        }
        Err(RoomError::Unresolvable(
            "it reads too many events".to_owned(),
        ))
    }

    /// The part on which all states agree that the auth rules ask for.
    async fn common(
        &mut self,
        events: &[Arc<Pdu>],
        conflicted: &[StateKeySid],
    ) -> Result<StateMap, RoomError> {
        let mut wanted: BTreeSet<(String, String)> =
            ["m.room.create", "m.room.power_levels", "m.room.join_rules"]
                .map(|kind| (kind.to_owned(), String::new()))
                .into();
        for pdu in events {
            let content = pdu.content_as().unwrap_or_default();
            let types = auth::auth_types(
                &pdu.kind,
                &pdu.sender,
                pdu.state_key.as_deref(),
                &content,
                &self.room.rules,
            );
            let types = types.unwrap_or_default().into_iter();
            wanted.extend(types.map(|(kind, key)| (kind.to_string(), key)));
        }
        let mut common = StateMap::new();
        for (kind, key) in wanted {
            let Some(sid) = self.inner.ids.state_key(&kind, &key).await? else {
                continue;
            };
            if conflicted.contains(&sid) {
                continue;
            }
            let event = match self.differing.get(&sid) {
                Some(values) => values.first().copied().flatten(),
                None => self.inner.trees.get(self.view, self.base, sid).await?,
            };
            let Some(event) = event else { continue };
            if let Some(event) = self.load(&[event]).await?.into_values().next() {
                let name = (StateEventType::from(kind), key);
                common.insert(name, event.event_id.clone());
            }
        }
        Ok(common)
    }

    /// What of the auth chains of the conflicted events matters.
    async fn chains(&mut self, by_state: &[BTreeSet<EventSid>]) -> Result<Chains, RoomError> {
        let difference = self.difference(by_state).await?;
        let subgraph = self.subgraph(by_state).await?;
        Ok(Chains {
            difference: self.ids(&difference).await?,
            subgraph: self.ids(&subgraph).await?,
        })
    }

    /// The events that are in the auth chain of some state and not of every one.
    async fn difference(
        &mut self,
        by_state: &[BTreeSet<EventSid>],
    ) -> Result<Vec<EventSid>, RoomError> {
        let candidates = self.walk(by_state, &BTreeSet::new(), None).await?;
        let Some(lowest) = candidates.iter().min().copied() else {
            return Ok(candidates);
        };
        // What allows an event of which there is no dispute is in all chains. Only younger events can have it in theirs.
        let disputed: HashSet<EventSid> = by_state.iter().flatten().copied().collect();
        let agreed: BTreeSet<EventSid> = self
            .inner
            .trees
            .entries(self.view, self.base)
            .await?
            .into_iter()
            .filter(|(key, _)| !self.differing.contains_key(key))
            .map(|(_, sid)| sid)
            .chain(
                self.differing
                    .values()
                    .filter(|values| all_equal(values))
                    .filter_map(|values| values.first().copied().flatten()),
            )
            .filter(|sid| *sid > lowest && !disputed.contains(sid))
            .collect();
        if agreed.is_empty() {
            return Ok(candidates);
        }
        self.walk(by_state, &agreed, Some(lowest)).await
    }

    /// Walks down from the events of each state; gives what was reached from some and not from all. `everywhere` is in every state.
    async fn walk(
        &mut self,
        by_state: &[BTreeSet<EventSid>],
        everywhere: &BTreeSet<EventSid>,
        lowest: Option<EventSid>,
    ) -> Result<Vec<EventSid>, RoomError> {
        let full: u64 = (1_u64 << by_state.len().min(63)) - 1;
        let mut reached: HashMap<EventSid, u64> = HashMap::new();
        let mut heap = BinaryHeap::new();
        // How many in the heap are not reached from all states.
        let mut partial = 0_usize;
        let starts = by_state
            .iter()
            .enumerate()
            .flat_map(|(place, set)| set.iter().map(move |sid| (*sid, 1_u64 << place.min(62))));
        let starts: Vec<(EventSid, u64)> = starts
            .chain(everywhere.iter().map(|sid| (*sid, full)))
            .collect();
        // A start is no member of its own chain: it hands its mark down only.
        let mut first: BTreeMap<EventSid, u64> = BTreeMap::new();
        for (sid, mark) in starts {
            *first.entry(sid).or_default() |= mark;
        }
        for (sid, mark) in &first {
            heap.push(*sid);
            partial += usize::from(*mark != full);
        }
        let mut difference = Vec::new();
        let mut done: HashSet<EventSid> = HashSet::new();
        while let Some(sid) = heap.pop() {
            if !done.insert(sid) {
                continue;
            }
            let own = reached.get(&sid).copied().unwrap_or(0);
            let mark = own | first.get(&sid).copied().unwrap_or(0);
            if own != 0 && own != full {
                difference.push(sid);
            }
            partial -= usize::from(mark != full);
            for auth in self.auth_of(sid).await? {
                if lowest.is_some_and(|lowest| auth < lowest) {
                    continue;
                }
                let before = reached.get(&auth).copied();
                let total = |own: u64| own | first.get(&auth).copied().unwrap_or(0);
                let after = before.unwrap_or(0) | mark;
                reached.insert(auth, after);
                let known = before.is_some() || first.contains_key(&auth);
                let was_partial = known && total(before.unwrap_or(0)) != full;
                let is_partial = total(after) != full;
                partial = partial + usize::from(is_partial) - usize::from(was_partial);
                if !known {
                    heap.push(auth);
                }
            }
            // A start reached from some only is in the difference though its own mark is full: those are above what is left.
            if partial == 0 && !self.open(&heap, &reached, full) {
                break;
            }
        }
        Ok(difference)
    }

    /// Whether something that waits was reached from some states only.
    fn open(
        &self,
        heap: &BinaryHeap<EventSid>,
        reached: &HashMap<EventSid, u64>,
        full: u64,
    ) -> bool {
        heap.iter()
            .any(|sid| reached.get(sid).is_some_and(|mark| *mark != full))
    }

    /// The events on paths from one conflicted event to another.
    async fn subgraph(
        &mut self,
        by_state: &[BTreeSet<EventSid>],
    ) -> Result<Vec<EventSid>, RoomError> {
        let consider = self.room.rules.state_res.v2_rules();
        if !consider.is_some_and(|rules| rules.consider_conflicted_state_subgraph) {
            return Ok(Vec::new());
        }
        let conflicted: BTreeSet<EventSid> = by_state.iter().flatten().copied().collect();
        let Some(lowest) = conflicted.first().copied() else {
            return Ok(Vec::new());
        };
        let mut above: HashMap<EventSid, Vec<EventSid>> = HashMap::new();
        let mut seen: HashSet<EventSid> = conflicted.iter().copied().collect();
        let mut to_read: Vec<EventSid> = conflicted.iter().copied().collect();
        while let Some(sid) = to_read.pop() {
            for auth in self.auth_of(sid).await? {
                if auth < lowest {
                    continue;
                }
                above.entry(auth).or_default().push(sid);
                if seen.insert(auth) {
                    to_read.push(auth);
                }
            }
        }
        let mut found: BTreeSet<EventSid> = conflicted.clone();
        let mut to_walk: Vec<EventSid> = conflicted.into_iter().collect();
        while let Some(sid) = to_walk.pop() {
            for sid in above.get(&sid).into_iter().flatten() {
                if found.insert(*sid) {
                    to_walk.push(*sid);
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    /// The numbers of the events that allow an event.
    async fn auth_of(&mut self, sid: EventSid) -> Result<Vec<EventSid>, RoomError> {
        let Some(pdu) = self.load(&[sid]).await?.remove(&sid) else {
            return Ok(Vec::new());
        };
        let sids = self.inner.events.sids(self.view, &pdu.auth_events).await?;
        // By construction; a store in which it were otherwise must not be walked in circles.
        Ok(sids.into_iter().flatten().filter(|it| *it < sid).collect())
    }

    async fn ids(&mut self, sids: &[EventSid]) -> Result<Vec<OwnedEventId>, RoomError> {
        let events = self.load(sids).await?;
        Ok(events
            .into_values()
            .map(|event| event.event_id.clone())
            .collect())
    }

    async fn load(&mut self, sids: &[EventSid]) -> Result<HashMap<EventSid, Arc<Pdu>>, RoomError> {
        let events = self.inner.events.get_many(self.view, sids).await?;
        let events = events.into_iter().flatten();
        let mut events: HashMap<EventSid, Arc<Pdu>> =
            events.map(|event| (event.sid, event.pdu.clone())).collect();
        let fresh = self.fresh.iter().filter(|(sid, _)| sids.contains(sid));
        events.extend(fresh.cloned());
        for pdu in events.values() {
            self.known
                .insert(pdu.event_id.clone(), Some(Arc::clone(pdu)));
        }
        Ok(events)
    }

    async fn load_ids(&mut self, ids: &[OwnedEventId]) -> Result<Vec<Arc<Pdu>>, RoomError> {
        let events = self.inner.events.by_ids(self.view, ids).await?;
        let mut pdus = Vec::with_capacity(ids.len());
        for (id, event) in ids.iter().zip(events) {
            let event = event.filter(|event| event.room == self.room.sid);
            let fresh = self.fresh.iter().find(|(_, pdu)| pdu.event_id == *id);
            let pdu = event.map(|event| event.pdu.clone());
            let pdu = pdu.or_else(|| fresh.map(|(_, pdu)| Arc::clone(pdu)));
            pdus.extend(pdu.clone());
            self.known.insert(id.clone(), pdu);
        }
        Ok(pdus)
    }

    async fn name(&self, key: StateKeySid) -> Result<(StateEventType, String), RoomError> {
        let name = self.inner.ids.state_key_name(key).await?;
        let name = name.ok_or(RoomError::UnknownEvent)?;
        Ok((StateEventType::from(name.0.as_str()), name.1.clone()))
    }
}

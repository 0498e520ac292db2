//! State resolution: one state out of several.
//!
//! Room version 1 has an algorithm of its own, written here; versions 2 to 11 use the second one and version 12 its revision, both ruma's.
//! Hand in only what differs when the states are large: keys on which all states agree come out as they went in, but
//! for versions 1 to 11 the auth rules must find the agreed power levels, join rules, memberships and create event too.
//!
//! The result does not depend on the order of the states (a property test below holds it to that).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use ruma::{
    EventId, OwnedEventId,
    events::StateEventType,
    room_version_rules::{RoomVersionRules, StateResolutionV2Rules},
    state_res::{self, StateMap as RumaStateMap, utils::event_id_set::EventIdSet},
};
use sha1::{Digest, Sha1};

use super::{auth, pdu::Pdu};

/// Event ids by type and state key.
pub type StateMap = RumaStateMap<OwnedEventId>;

/// Why states cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// An event that the algorithm must read is not there, or is malformed.
    #[error("the states cannot be resolved: {0}")]
    Failed(String),
}

/// What of the auth chains of states the second algorithm needs, worked out by a caller that need not read all of them.
#[derive(Debug, Clone, Default)]
pub struct Chains {
    /// Events that are in the auth chain of some state and not of every one.
    pub difference: Vec<OwnedEventId>,
    /// Events on paths of auth events that lead from one conflicted event to another; only its revision (room version 12) asks.
    pub subgraph: Vec<OwnedEventId>,
}

/// Resolves states that differ. `fetch` reads an event of the room: those of the states and of [`Chains`], and what allows
/// these.
///
/// # Errors
/// When an event that must be read is not there.
pub fn resolve_with(
    rules: &RoomVersionRules,
    states: &[StateMap],
    chains: &Chains,
    fetch: impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> Result<StateMap, ResolveError> {
    let Some(v2) = rules.state_res.v2_rules() else {
        let first = First {
            rules,
            fetch: &fetch,
        };
        return Ok(first.resolve(states));
    };
    // What is in one set of several is in the difference.
    let mut sets = vec![EventIdSet::default(); states.len().max(2)];
    if let Some(set) = sets.first_mut() {
        set.extend(chains.difference.iter().cloned());
    }
    let subgraph = |_: &RumaStateMap<Vec<OwnedEventId>>| {
        Some(
            chains
                .subgraph
                .iter()
                .cloned()
                .collect::<EventIdSet<OwnedEventId>>(),
        )
    };
    state_res::resolve(&rules.authorization, v2, states, sets, &fetch, subgraph)
        .map_err(|error| ResolveError::Failed(error.to_string()))
}

/// Resolves states of one room. `fetch` reads an accepted event of the room; the caller has loaded the states' events and their
/// auth chains beforehand. Costs in proportion to those chains when the states differ, and nothing but a comparison when they do
/// not: [`resolve_with`] is for large rooms, and this is what it is measured by.
pub fn resolve(
    rules: &RoomVersionRules,
    states: &[StateMap],
    fetch: impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> Result<StateMap, ResolveError> {
    match states {
        [] => return Ok(StateMap::new()),
        [first, others @ ..] if others.iter().all(|other| other == first) => {
            return Ok(first.clone());
        }
        _ => {}
    }
    match rules.state_res.v2_rules() {
        Some(v2) => second(rules, v2, states, &fetch),
        None => Ok(First {
            rules,
            fetch: &fetch,
        }
        .resolve(states)),
    }
}

fn second(
    rules: &RoomVersionRules,
    v2: &StateResolutionV2Rules,
    states: &[StateMap],
    fetch: &impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> Result<StateMap, ResolveError> {
    let chains = states
        .iter()
        .map(|state| auth_chain(state.values(), fetch).into_iter().collect())
        .collect();
    let subgraph = |conflicted: &RumaStateMap<Vec<OwnedEventId>>| {
        Some(
            conflicted_subgraph(conflicted.values().flatten(), fetch)
                .into_iter()
                .collect::<EventIdSet<_>>(),
        )
    };
    state_res::resolve(&rules.authorization, v2, states, chains, fetch, subgraph)
        .map_err(|error| ResolveError::Failed(error.to_string()))
}

/// The events that allow these events, and those that allow them, and so on; without the events themselves
/// unless one allows another.
fn auth_chain<'a>(
    events: impl Iterator<Item = &'a OwnedEventId>,
    fetch: &impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> HashSet<OwnedEventId> {
    let mut chain = HashSet::new();
    let mut to_read: Vec<OwnedEventId> = events.cloned().collect();
    while let Some(id) = to_read.pop() {
        let Some(event) = fetch(&id) else { continue };
        for id in &event.auth_events {
            if chain.insert(id.clone()) {
                to_read.push(id.clone());
            }
        }
    }
    chain
}

/// The events on any path of auth events that leads from one conflicted event to another, ends included.
fn conflicted_subgraph<'a>(
    conflicted: impl Iterator<Item = &'a OwnedEventId>,
    fetch: &impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> HashSet<OwnedEventId> {
    let conflicted: Vec<OwnedEventId> = conflicted.cloned().collect();
    let chain = auth_chain(conflicted.iter(), fetch);
    let mut allowed_by: HashMap<OwnedEventId, Vec<OwnedEventId>> = HashMap::new();
    for id in chain.iter().chain(&conflicted) {
        for auth in fetch(id).iter().flat_map(|event| &event.auth_events) {
            allowed_by.entry(auth.clone()).or_default().push(id.clone());
        }
    }
    // Everything in the map lies below a conflicted event; what also lies above one is found by walking back up.
    let mut found: HashSet<OwnedEventId> = conflicted.iter().cloned().collect();
    let mut to_walk = conflicted;
    while let Some(id) = to_walk.pop() {
        for above in allowed_by.get(&id).into_iter().flatten() {
            if found.insert(above.clone()) {
                to_walk.push(above.clone());
            }
        }
    }
    found
}

/// The algorithm of room version 1. <https://spec.matrix.org/v1.19/rooms/v1/#state-resolution>
struct First<'a, F> {
    rules: &'a RoomVersionRules,
    fetch: &'a F,
}

type StateKey = (StateEventType, String);

impl<F: Fn(&EventId) -> Option<Arc<Pdu>>> First<'_, F> {
    fn resolve(&self, states: &[StateMap]) -> StateMap {
        let mut candidates: BTreeMap<StateKey, BTreeSet<&OwnedEventId>> = BTreeMap::new();
        for (key, id) in states.iter().flatten() {
            candidates.entry(key.clone()).or_default().insert(id);
        }
        let (agreed, mut conflicts): (BTreeMap<_, _>, BTreeMap<_, _>) =
            candidates.into_iter().partition(|(_, ids)| ids.len() == 1);
        let mut resolved: StateMap = agreed
            .into_iter()
            .filter_map(|(key, ids)| Some((key, (*ids.first()?).clone())))
            .collect();

        for kind in [
            StateEventType::RoomPowerLevels,
            StateEventType::RoomJoinRules,
            StateEventType::RoomMember,
        ] {
            let (of_kind, rest) = conflicts.into_iter().partition(|(key, _)| key.0 == kind);
            conflicts = rest;
            // The keys of a kind are all judged in the state before that kind, so that their order does not matter.
            let of_kind: BTreeMap<StateKey, BTreeSet<&OwnedEventId>> = of_kind;
            let decided: Vec<_> = of_kind
                .iter()
                .filter_map(|(key, ids)| {
                    Some((key.clone(), self.last_allowed(key, ids, &resolved)?))
                })
                .collect();
            resolved.extend(decided);
        }
        let decided: Vec<_> = conflicts
            .iter()
            .filter_map(|(key, ids)| Some((key.clone(), self.deepest_allowed(ids, &resolved)?)))
            .collect();
        resolved.extend(decided);
        resolved
    }

    /// From the oldest on, as far as each is allowed by the one before it.
    fn last_allowed(
        &self,
        key: &StateKey,
        ids: &BTreeSet<&OwnedEventId>,
        state: &StateMap,
    ) -> Option<OwnedEventId> {
        let mut events = self.sorted(ids).into_iter();
        let mut last = events.next()?;
        for event in events {
            if !self.allows(state, Some((key, &last)), &event) {
                break;
            }
            last = event;
        }
        Some(last.event_id.clone())
    }

    /// The deepest that is allowed. The spec does not say what is left if none is: the shallowest, as servers have done.
    fn deepest_allowed(
        &self,
        ids: &BTreeSet<&OwnedEventId>,
        state: &StateMap,
    ) -> Option<OwnedEventId> {
        let events = self.sorted(ids);
        let allowed = events
            .iter()
            .rev()
            .find(|event| self.allows(state, None, event));
        allowed
            .or(events.first())
            .map(|event| event.event_id.clone())
    }

    /// By depth, and at the same depth by descending hash of the id. An event that is not there is left out.
    fn sorted(&self, ids: &BTreeSet<&OwnedEventId>) -> Vec<Arc<Pdu>> {
        let mut events: Vec<_> = ids.iter().filter_map(|id| (self.fetch)(id)).collect();
        events.sort_by_cached_key(|event| {
            (
                event.depth,
                std::cmp::Reverse(Sha1::digest(event.event_id.as_bytes()).to_vec()),
            )
        });
        events
    }

    fn allows(&self, state: &StateMap, over: Option<(&StateKey, &Arc<Pdu>)>, event: &Pdu) -> bool {
        auth::authorise(self.rules, event, |kind, key| match over {
            Some((over, event)) if over.0 == *kind && over.1 == key => Some(Arc::clone(event)),
            _ => (self.fetch)(state.get(&(kind.clone(), key.to_owned()))?),
        })
        .is_ok()
    }
}

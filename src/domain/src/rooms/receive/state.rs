//! The state before an event, from what it follows.

use std::collections::HashMap;

use ruma::{OwnedEventId, events::StateEventType};
use vatra_store::View;

use super::{
    super::{Inner, Room, RoomError, state::Grown},
    Gathered, ReceiveError, Receiver,
};
use crate::{
    event::{auth, pdu::Pdu},
    schema::{EventSid, StateKeySid, StateRoot, Status},
};
use std::sync::Arc;

/// The state before an event.
pub(super) struct Before {
    pub(super) root: StateRoot,
    /// Events it follows that are not here.
    pub(super) missing: Vec<OwnedEventId>,
}

impl Receiver {
    /// Resolves the states after the events that an event follows. `base` is a state that is likely near: the current one.
    pub(super) async fn state_before(
        &self,
        room: &Room,
        pdu: &Pdu,
        gathered: &Gathered,
        base: StateRoot,
        nodes: &mut Grown,
    ) -> Result<Before, ReceiveError> {
        let inner = self.inner();
        let view = inner.store.view();
        let unplaced = self.unplaced(room, &pdu.prev_events).await?;
        if let Some(state) = gathered.before.get(&pdu.event_id) {
            let root = inner.root_of(&view, room, state, base, nodes).await?;
            return Ok(Before {
                root,
                missing: unplaced,
            });
        }
        let mut roots = Vec::with_capacity(pdu.prev_events.len());
        let placed = pdu.prev_events.iter().filter(|id| !unplaced.contains(id));
        let placed: Vec<OwnedEventId> = placed.cloned().collect();
        for event in inner.events.by_ids(&view, &placed).await? {
            // It was there a moment ago.
            let event = event.ok_or(ReceiveError::MissingBefore)?;
            roots.push(inner.root_after(&view, &event).await?);
        }
        for id in &unplaced {
            let state = gathered.after.get(id).ok_or(ReceiveError::MissingBefore)?;
            roots.push(inner.root_of(&view, room, state, base, nodes).await?);
        }
        let root = match roots.as_slice() {
            [] => None,
            roots => inner.resolve(room, base, roots, None, nodes).await?,
        };
        Ok(Before {
            root,
            missing: unplaced,
        })
    }
}

impl Inner {
    /// The state that a list of events is, as a change of `base`. Of two with the same key the later counts; events that are not
    /// here, not state, of another room, or rejected are left out.
    pub(in super::super) async fn root_of(
        &self,
        view: &View,
        room: &Room,
        state: &[OwnedEventId],
        base: StateRoot,
        nodes: &mut Grown,
    ) -> Result<StateRoot, RoomError> {
        let mut wanted: HashMap<StateKeySid, EventSid> = HashMap::with_capacity(state.len());
        for ids in state.chunks(500) {
            let events = self.events.by_ids(view, ids).await?;
            let names: Vec<(String, String)> = events
                .iter()
                .flatten()
                .filter_map(|event| {
                    Some((event.pdu.kind.to_string(), event.pdu.state_key.clone()?))
                })
                .collect();
            self.ids.intern_state_keys(&names).await?;
            for event in events.into_iter().flatten() {
                if event.room != room.sid || event.status == Status::Rejected {
                    continue;
                }
                if let Some(key) = &event.pdu.state_key {
                    let kind = event.pdu.kind.to_string();
                    let key = self.ids.intern_state_key(&kind, key).await?;
                    wanted.insert(key, event.sid);
                }
            }
        }
        let mut sets = Vec::new();
        for (key, sid) in self.trees.entries(view, base).await? {
            match wanted.remove(&key) {
                Some(same) if same == sid => {}
                other => sets.push((key, other)),
            }
        }
        sets.extend(wanted.into_iter().map(|(key, sid)| (key, Some(sid))));
        sets.sort_unstable();
        Ok(nodes.set(view, base, &sets).await?)
    }

    /// Whether a state allows an event.
    ///
    /// # Errors
    /// [`RoomError::Forbidden`] with the rule that says no.
    pub(in super::super) async fn authorise_at(
        &self,
        room: &Room,
        root: StateRoot,
        pdu: &Pdu,
    ) -> Result<(), RoomError> {
        let view = self.store.view();
        let mut state: HashMap<(StateEventType, String), Arc<Pdu>> = HashMap::new();
        for (kind, key) in auth_keys(room, pdu)? {
            if let Some(event) = self.state_at(&view, root, &kind, &key).await? {
                state.insert((kind, key), event.pdu.clone());
            }
        }
        Ok(auth::authorise(&room.rules, pdu, |kind, key| {
            state.get(&(kind.clone(), key.to_owned())).cloned()
        })?)
    }
}

/// The keys of a state that decide on an event, with the create event.
pub(in super::super) fn auth_keys(
    room: &Room,
    pdu: &Pdu,
) -> Result<Vec<(StateEventType, String)>, RoomError> {
    let content = pdu
        .content_as()
        .map_err(|error| RoomError::Forbidden(format!("the content is no object: {error}")))?;
    let mut keys = auth::auth_types(
        &pdu.kind,
        &pdu.sender,
        pdu.state_key.as_deref(),
        &content,
        &room.rules,
    )?;
    let create = (StateEventType::RoomCreate, String::new());
    if !keys.contains(&create) {
        keys.push(create);
    }
    Ok(keys)
}

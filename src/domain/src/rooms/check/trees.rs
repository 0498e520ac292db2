//! State trees: every node that a root reaches is there, and heads and deltas say what the trees say.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use vatra_store::{Direction, Range, View};

use super::super::state::{child, find, slot};
use crate::{
    audit::{Audit, AuditError, PAGE, Pages},
    schema::{
        EVENTS, EventSid, NodeId, NodeRow, ROOM_HEADS, RoomSid, STATE_DELTAS, STATE_NODES,
        StateKeySid, StateRoot,
    },
};

/// How many nodes are remembered as sound.
const SOUND: usize = 1_000_000;
/// How many nodes are kept to look up keys.
const KEPT: usize = 4_096;
/// How many nodes are read at once: each has up to 2 kB.
const NODES: usize = 500;

/// What is known of the nodes.
#[derive(Default)]
pub(super) struct Trees {
    /// Nodes that were walked. Forgetting some only costs walking them again.
    walked: HashSet<NodeId>,
    kept: HashMap<NodeId, Arc<NodeRow>>,
    /// Rooms whose head and last change name different states: nobody knows what follows from them.
    torn: HashSet<RoomSid>,
}

/// What a tree says of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// This event, or none.
    Event(Option<EventSid>),
    /// A node on the way is missing.
    Broken,
}

impl Trees {
    /// Reads all nodes that these roots reach, but for those that were walked before.
    pub(super) async fn walk(
        &mut self,
        audit: &mut Audit<'_>,
        view: &View,
        roots: Vec<NodeId>,
    ) -> Result<(), AuditError> {
        let mut rest = roots;
        while !rest.is_empty() {
            let next = rest.split_off(rest.len().saturating_sub(NODES));
            if self.walked.len() >= SOUND {
                self.walked.clear();
            }
            let new: Vec<NodeId> = next
                .into_iter()
                .filter(|id| self.walked.insert(*id))
                .collect();
            let rows = Audit::read_many(view, &STATE_NODES, &new).await?;
            for (id, row) in new.iter().zip(rows) {
                match row {
                    Some(NodeRow::Branch(children)) => rest.extend(children.iter().flatten()),
                    Some(NodeRow::Leaf(_)) => {}
                    None => audit.damaged(&STATE_NODES, id, "a state has lost this node"),
                }
            }
        }
        Ok(())
    }

    /// Heads and deltas against the trees.
    pub(super) async fn check(&mut self, audit: &mut Audit<'_>) -> Result<(), AuditError> {
        let view = audit.view();
        // Undecodable nodes that no root reaches are reported too.
        let mut nodes = Pages::new(&STATE_NODES, NODES);
        while nodes.next(&view, audit).await?.is_some() {}
        let mut heads = Pages::new(&ROOM_HEADS, PAGE);
        while let Some(page) = heads.next(&view, audit).await? {
            for (room, head) in page {
                let last = view
                    .first(&STATE_DELTAS, Range::prefix(&(room,)), Direction::Backward)
                    .await?;
                let last = last.and_then(|(_, delta)| delta.root);
                if last != head.root && !self.same(&view, last, head.root).await? {
                    self.torn.insert(room);
                    audit.damaged(
                        &ROOM_HEADS,
                        &room,
                        "its state is not the one after the last change",
                    );
                }
                self.walk(audit, &view, head.root.into_iter().collect())
                    .await?;
                let ends: Vec<EventSid> = head.extremities.iter().map(|(sid, ..)| *sid).collect();
                let rows = Audit::read_many(&view, &EVENTS, &ends).await?;
                for (sid, row) in ends.iter().zip(rows) {
                    if row.is_none() {
                        audit.damaged(
                            &EVENTS,
                            sid,
                            format!("no event, though {room:?} ends in it"),
                        );
                    }
                }
            }
        }
        self.check_deltas(audit, &view).await
    }

    async fn check_deltas(&mut self, audit: &mut Audit<'_>, view: &View) -> Result<(), AuditError> {
        let mut before: Option<(RoomSid, StateRoot)> = None;
        let mut deltas = Pages::new(&STATE_DELTAS, PAGE);
        while let Some(page) = deltas.next(view, audit).await? {
            for (key, delta) in page {
                self.walk(audit, view, delta.root.into_iter().collect())
                    .await?;
                let old = before
                    .filter(|(room, _)| *room == key.0)
                    .and_then(|(_, root)| root);
                for change in &delta.changes {
                    let was = self.find(view, old, change.key).await?;
                    let is = self.find(view, delta.root, change.key).await?;
                    let agrees = |found: &Found, said| match found {
                        Found::Event(event) => *event == said,
                        Found::Broken => true,
                    };
                    if !agrees(&was, change.old) || !agrees(&is, change.new) {
                        audit.damaged(
                            &STATE_DELTAS,
                            &key,
                            format!(
                                "the states before and after differ otherwise at {:?}",
                                change.key
                            ),
                        );
                    }
                }
                before = Some((key.0, delta.root));
            }
        }
        Ok(())
    }

    /// Whether it is known what the room's state is.
    pub(super) fn is_whole(&self, room: RoomSid) -> bool {
        !self.torn.contains(&room)
    }

    /// Whether two trees say the same; one state may have been reached on two ways. Reads both whole.
    async fn same(
        &mut self,
        view: &View,
        one: StateRoot,
        other: StateRoot,
    ) -> Result<bool, AuditError> {
        let one = self.entries(view, one).await?;
        Ok(one.is_some() && one == self.entries(view, other).await?)
    }

    /// Everything that a tree says; `None` if a node is missing.
    async fn entries(
        &mut self,
        view: &View,
        root: StateRoot,
    ) -> Result<Option<BTreeSet<(StateKeySid, EventSid)>>, AuditError> {
        let mut found = BTreeSet::new();
        let mut rest: Vec<NodeId> = root.into_iter().collect();
        while let Some(id) = rest.pop() {
            match self.node(view, id).await?.as_deref() {
                Some(NodeRow::Branch(children)) => rest.extend(children.iter().flatten()),
                Some(NodeRow::Leaf(entries)) => found.extend(entries.iter().copied()),
                None => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    /// What the state `root` has at a key.
    pub(super) async fn find(
        &mut self,
        view: &View,
        root: StateRoot,
        key: StateKeySid,
    ) -> Result<Found, AuditError> {
        let mut at = root;
        let mut level = 0;
        while let Some(id) = at {
            let Some(node) = self.node(view, id).await? else {
                return Ok(Found::Broken);
            };
            match &*node {
                NodeRow::Leaf(entries) => return Ok(Found::Event(find(entries, key))),
                NodeRow::Branch(children) => at = child(children, slot(key, level)),
            }
            level += 1;
        }
        Ok(Found::Event(None))
    }

    pub(super) async fn node(
        &mut self,
        view: &View,
        id: NodeId,
    ) -> Result<Option<Arc<NodeRow>>, AuditError> {
        if let Some(node) = self.kept.get(&id) {
            return Ok(Some(Arc::clone(node)));
        }
        let Some(node) = Audit::read(view, &STATE_NODES, &id).await? else {
            return Ok(None);
        };
        let node = Arc::new(node);
        if self.kept.len() >= KEPT {
            self.kept.clear();
        }
        self.kept.insert(id, Arc::clone(&node));
        Ok(Some(node))
    }
}

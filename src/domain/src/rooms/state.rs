//! The state of a room as a persistent tree: each change writes one short path, and every state that ever was keeps its root.
//!
//! A tree maps state keys to events. Keys are scrambled so that the numbers, which are given out in sequence, spread
//! evenly; four bits of the scrambled key choose the child at each level, and a leaf holds up to [`LEAF`] entries. Node ids
//! are never reused nor shared by content, so two equal ids mean two equal subtrees: [`StateTrees::diff`] skips them, and costs
//! time in proportion to the difference.
//!
//! Called by `append` (writes), and by every reader of state. Nodes that are submitted and not yet visible in the
//! store's view are found in `pending`.

use std::{collections::HashMap, sync::Arc};

use dashmap::DashMap;
use quick_cache::{Weighter, sync::Cache};
use vatra_store::{Store, StoreError, View};

use crate::schema::{self, EventSid, NodeId, NodeRow, StateChange, StateKeySid, StateRoot};

/// How many entries a leaf holds before it becomes a branch.
const LEAF: usize = 32;
/// Children of a branch.
const WIDTH: usize = 16;

/// The state trees of all rooms.
pub struct StateTrees {
    store: Store,
    cache: Cache<NodeId, Arc<NodeRow>, NodeWeight>,
    pending: DashMap<NodeId, Arc<NodeRow>>,
}

/// A tree that was changed but not yet written.
#[derive(Debug, Clone, Default)]
pub struct TreeUpdate {
    /// The new root.
    pub root: StateRoot,
    /// The nodes to write.
    pub nodes: Vec<(NodeId, Arc<NodeRow>)>,
}

impl TreeUpdate {
    /// The ids of the new nodes.
    pub fn node_ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|(id, _)| *id).collect()
    }
}

/// New nodes that several states share, until they are in a batch. They can be read at once; those that never get into a batch are
/// forgotten.
pub(super) struct Grown {
    inner: Arc<super::Inner>,
    nodes: Vec<(NodeId, Arc<NodeRow>)>,
}

impl Grown {
    pub(super) fn new(inner: &Arc<super::Inner>) -> Self {
        Self {
            inner: Arc::clone(inner),
            nodes: Vec::new(),
        }
    }

    /// The state `root` with some keys set or removed.
    pub(super) async fn set(
        &mut self,
        view: &View,
        root: StateRoot,
        changes: &[(StateKeySid, Option<EventSid>)],
    ) -> Result<StateRoot, StoreError> {
        if changes.is_empty() {
            return Ok(root);
        }
        let update = self.inner.trees.update(view, root, changes).await?;
        self.inner.trees.submitted(&update);
        self.nodes.extend(update.nodes);
        Ok(update.root)
    }

    /// Hands the nodes over to a batch, with the duty to settle them.
    pub(super) fn take(&mut self) -> Vec<(NodeId, Arc<NodeRow>)> {
        std::mem::take(&mut self.nodes)
    }
}

impl Drop for Grown {
    fn drop(&mut self) {
        let nodes: Vec<NodeId> = self.nodes.iter().map(|(id, _)| *id).collect();
        self.inner.trees.settled(&nodes);
    }
}

impl StateTrees {
    /// Trees in `store`, with a cache of about `cache_bytes`.
    pub fn new(store: Store, cache_bytes: u64) -> Self {
        let items = usize::try_from(cache_bytes / 512)
            .unwrap_or(usize::MAX)
            .max(64);
        Self {
            store,
            cache: Cache::with_weighter(items, cache_bytes, NodeWeight),
            pending: DashMap::new(),
        }
    }

    /// How much memory the cache holds, in bytes.
    pub fn cached_bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// The event at `key` in the state `root`. Costs one node per level (two for a room of 500 members).
    pub async fn get(
        &self,
        view: &View,
        root: StateRoot,
        key: StateKeySid,
    ) -> Result<Option<EventSid>, StoreError> {
        let mut at = root;
        let mut level = 0;
        while let Some(id) = at {
            match &*self.node(view, id).await? {
                NodeRow::Leaf(entries) => return Ok(find(entries, key)),
                NodeRow::Branch(children) => at = child(children, slot(key, level)),
            }
            level += 1;
        }
        Ok(None)
    }

    /// The event at `key` in each of many states, in their order. One batched read per level for what is not in memory.
    pub async fn get_each(
        &self,
        view: &View,
        roots: &[StateRoot],
        key: StateKeySid,
    ) -> Result<Vec<Option<EventSid>>, StoreError> {
        let mut found = vec![None; roots.len()];
        let mut at = roots.to_vec();
        let mut level = 0;
        loop {
            let ids: Vec<NodeId> = at.iter().flatten().copied().collect();
            if ids.is_empty() {
                return Ok(found);
            }
            let mut nodes = self.nodes(view, &ids).await?.into_iter();
            for (at, found) in at.iter_mut().zip(&mut found) {
                if at.is_none() {
                    continue;
                }
                *at = match nodes.next().as_deref() {
                    Some(NodeRow::Branch(children)) => child(children, slot(key, level)),
                    Some(NodeRow::Leaf(entries)) => {
                        *found = find(entries, key);
                        None
                    }
                    None => None,
                };
            }
            level += 1;
        }
    }

    /// Every entry of the state `root`, in no particular order. One batched read per level.
    pub async fn entries(
        &self,
        view: &View,
        root: StateRoot,
    ) -> Result<Vec<(StateKeySid, EventSid)>, StoreError> {
        let mut entries = Vec::new();
        let mut level: Vec<NodeId> = root.into_iter().collect();
        while !level.is_empty() {
            let nodes = self.nodes(view, &level).await?;
            level.clear();
            for node in nodes {
                match &*node {
                    NodeRow::Leaf(leaf) => entries.extend_from_slice(leaf),
                    NodeRow::Branch(children) => level.extend(children.iter().flatten()),
                }
            }
        }
        Ok(entries)
    }

    /// What must change to get from `old` to `new`. Costs time in proportion to the difference.
    pub async fn diff(
        &self,
        view: &View,
        old: StateRoot,
        new: StateRoot,
    ) -> Result<Vec<StateChange>, StoreError> {
        let mut changes = Vec::new();
        let mut pairs = vec![(old, new)];
        while let Some((old, new)) = pairs.pop() {
            if old == new {
                continue;
            }
            if let (Some(old), Some(new)) = (old, new) {
                let (old, new) = (self.node(view, old).await?, self.node(view, new).await?);
                if let (NodeRow::Branch(old), NodeRow::Branch(new)) = (&*old, &*new) {
                    pairs.extend(old.iter().copied().zip(new.iter().copied()));
                    continue;
                }
            }
            let mut before: HashMap<_, _> = self.entries(view, old).await?.into_iter().collect();
            for (key, event) in self.entries(view, new).await? {
                let was = before.remove(&key);
                if was != Some(event) {
                    changes.push(StateChange {
                        key,
                        old: was,
                        new: Some(event),
                    });
                }
            }
            changes.extend(before.into_iter().map(|(key, event)| StateChange {
                key,
                old: Some(event),
                new: None,
            }));
        }
        Ok(changes)
    }

    /// The tree `root` with some keys set or removed. Writes nothing: the caller puts the nodes in its batch and calls
    /// [`StateTrees::submitted`] when the batch is submitted.
    pub async fn update(
        &self,
        view: &View,
        root: StateRoot,
        changes: &[(StateKeySid, Option<EventSid>)],
    ) -> Result<TreeUpdate, StoreError> {
        let mut new = HashMap::new();
        let mut at = root;
        for (key, event) in changes {
            at = self.set(view, &mut new, at, *key, *event).await?;
        }
        Ok(TreeUpdate {
            root: at,
            nodes: new.into_iter().collect(),
        })
    }

    /// Makes the nodes of a submitted batch readable before the batch is visible.
    pub fn submitted(&self, update: &TreeUpdate) {
        for (id, node) in &update.nodes {
            self.pending.insert(*id, Arc::clone(node));
            self.cache.insert(*id, Arc::clone(node));
        }
    }

    /// The batch is visible, or has failed: its nodes are the store's affair.
    pub fn settled(&self, nodes: &[NodeId]) {
        for id in nodes {
            self.pending.remove(id);
        }
    }

    /// One key: down to the leaf, then a new node for each one on the way back.
    async fn set(
        &self,
        view: &View,
        new: &mut HashMap<NodeId, Arc<NodeRow>>,
        root: StateRoot,
        key: StateKeySid,
        event: Option<EventSid>,
    ) -> Result<StateRoot, StoreError> {
        let mut path: Vec<(NodeId, Vec<Option<NodeId>>)> = Vec::new();
        let mut at = root;
        let mut leaf = Vec::new();
        while let Some(id) = at {
            let node = match new.get(&id) {
                Some(node) => Arc::clone(node),
                None => self.node(view, id).await?,
            };
            match &*node {
                NodeRow::Leaf(entries) => {
                    leaf.clone_from(entries);
                    break;
                }
                NodeRow::Branch(children) => {
                    at = child(children, slot(key, path.len()));
                    path.push((id, children.clone()));
                }
            }
        }
        if find(&leaf, key) == event {
            return Ok(root);
        }
        if let Some(id) = at {
            new.remove(&id);
        }
        leaf.retain(|(other, _)| *other != key);
        if let Some(event) = event {
            let place = leaf.partition_point(|(other, _)| *other < key);
            leaf.insert(place, (key, event));
        }
        let mut below = self.make_leaf(new, leaf, path.len())?;
        while let Some((id, mut children)) = path.pop() {
            if let Some(place) = children.get_mut(slot(key, path.len())) {
                *place = below;
            }
            new.remove(&id);
            below = if children.iter().all(Option::is_none) {
                None
            } else {
                Some(self.insert(new, NodeRow::Branch(children))?)
            };
        }
        Ok(below)
    }

    /// A leaf of these entries at `level`, or a branch of leaves when they are too many.
    fn make_leaf(
        &self,
        new: &mut HashMap<NodeId, Arc<NodeRow>>,
        entries: Vec<(StateKeySid, EventSid)>,
        level: usize,
    ) -> Result<StateRoot, StoreError> {
        if entries.is_empty() {
            return Ok(None);
        }
        if entries.len() <= LEAF || level >= WIDTH {
            return Ok(Some(self.insert(new, NodeRow::Leaf(entries))?));
        }
        let mut parts: Vec<Vec<(StateKeySid, EventSid)>> = vec![Vec::new(); WIDTH];
        for entry in entries {
            if let Some(part) = parts.get_mut(slot(entry.0, level)) {
                part.push(entry);
            }
        }
        let mut children = Vec::with_capacity(WIDTH);
        for part in parts {
            children.push(self.make_leaf(new, part, level + 1)?);
        }
        Ok(Some(self.insert(new, NodeRow::Branch(children))?))
    }

    fn insert(
        &self,
        new: &mut HashMap<NodeId, Arc<NodeRow>>,
        node: NodeRow,
    ) -> Result<NodeId, StoreError> {
        let id = NodeId(self.store.fresh_id()?);
        new.insert(id, Arc::new(node));
        Ok(id)
    }

    async fn node(&self, view: &View, id: NodeId) -> Result<Arc<NodeRow>, StoreError> {
        if let Some(node) = self.known(id) {
            return Ok(node);
        }
        let mut node = view.get(&schema::STATE_NODES, &id).await?;
        if node.is_none() {
            // Of a batch that has become visible since.
            node = self.store.view().get(&schema::STATE_NODES, &id).await?;
        }
        let node = node.ok_or_else(|| missing(id))?;
        let node = Arc::new(node);
        self.cache.insert(id, Arc::clone(&node));
        Ok(node)
    }

    async fn nodes(&self, view: &View, ids: &[NodeId]) -> Result<Vec<Arc<NodeRow>>, StoreError> {
        let mut nodes: Vec<Option<Arc<NodeRow>>> = ids.iter().map(|id| self.known(*id)).collect();
        let unknown: Vec<NodeId> = ids
            .iter()
            .zip(&nodes)
            .filter(|(_, node)| node.is_none())
            .map(|(id, _)| *id)
            .collect();
        if !unknown.is_empty() {
            let mut rows = unknown
                .iter()
                .zip(view.get_many(&schema::STATE_NODES, &unknown).await?);
            for place in nodes.iter_mut().filter(|node| node.is_none()) {
                let Some((id, row)) = rows.next() else { break };
                *place = Some(match row {
                    Some(row) => {
                        let node = Arc::new(row);
                        self.cache.insert(*id, Arc::clone(&node));
                        node
                    }
                    None => self.node(view, *id).await?,
                });
            }
        }
        Ok(nodes.into_iter().flatten().collect())
    }

    fn known(&self, id: NodeId) -> Option<Arc<NodeRow>> {
        self.cache
            .get(&id)
            .or_else(|| self.pending.get(&id).map(|node| Arc::clone(&node)))
    }
}

#[derive(Clone)]
struct NodeWeight;

impl Weighter<NodeId, Arc<NodeRow>> for NodeWeight {
    fn weight(&self, _: &NodeId, node: &Arc<NodeRow>) -> u64 {
        let entries = match &**node {
            NodeRow::Leaf(entries) => entries.len(),
            NodeRow::Branch(children) => children.len(),
        };
        64 + 16 * u64::try_from(entries).unwrap_or(u64::MAX / 32)
    }
}

/// Which child of a branch at `level` a key is under.
pub(super) fn slot(key: StateKeySid, level: usize) -> usize {
    let scrambled = key.0.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let shift = 60_usize.saturating_sub(level * 4);
    usize::try_from((scrambled >> shift) & 15).unwrap_or(0)
}

pub(super) fn child(children: &[Option<NodeId>], slot: usize) -> StateRoot {
    children.get(slot).copied().flatten()
}

pub(super) fn find(entries: &[(StateKeySid, EventSid)], key: StateKeySid) -> Option<EventSid> {
    let place = entries.binary_search_by_key(&key, |(key, _)| *key).ok()?;
    entries.get(place).map(|(_, event)| *event)
}

fn missing(id: NodeId) -> StoreError {
    StoreError::corrupt(format!("state node {} is missing", id.0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use vatra_store::{MemoryEngine, Options};

    use super::*;

    async fn trees() -> (Store, StateTrees) {
        let store = Store::open(Arc::new(MemoryEngine::new()), Options::default(), &[])
            .await
            .unwrap();
        (store.clone(), StateTrees::new(store, 1 << 20))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_tree_is_a_map_and_diff_is_the_difference(
            first in prop::collection::vec((1u64..400, prop::option::weighted(0.9, 1u64..9)), 0..300),
            second in prop::collection::vec((1u64..400, prop::option::weighted(0.5, 1u64..9)), 0..60),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (store, trees) = trees().await;
                let view = store.view();
                let mut model = BTreeMap::new();
                let mut roots = vec![None];
                let mut models = vec![model.clone()];
                for part in [first, second] {
                    let changes: Vec<_> =
                        part.iter().map(|(key, event)| (StateKeySid(*key), event.map(EventSid))).collect();
                    let update = trees.update(&view, *roots.last().unwrap(), &changes).await.unwrap();
                    trees.submitted(&update);
                    roots.push(update.root);
                    for (key, event) in changes {
                        match event {
                            Some(event) => model.insert(key, event),
                            None => model.remove(&key),
                        };
                    }
                    models.push(model.clone());
                }
                for (root, model) in roots.iter().zip(&models) {
                    let entries: BTreeMap<_, _> = trees.entries(&view, *root).await.unwrap().into_iter().collect();
                    assert_eq!(&entries, model);
                    for key in 1..400 {
                        let found = trees.get(&view, *root, StateKeySid(key)).await.unwrap();
                        assert_eq!(found, model.get(&StateKeySid(key)).copied());
                        let each = trees.get_each(&view, &roots, StateKeySid(key)).await.unwrap();
                        let expected: Vec<_> =
                            models.iter().map(|model| model.get(&StateKeySid(key)).copied()).collect();
                        assert_eq!(each, expected);
                    }
                }
                let mut rebuilt = models[1].clone();
                for change in trees.diff(&view, roots[1], roots[2]).await.unwrap() {
                    assert_eq!(change.old, rebuilt.get(&change.key).copied());
                    assert_ne!(change.old, change.new);
                    match change.new {
                        Some(event) => rebuilt.insert(change.key, event),
                        None => rebuilt.remove(&change.key),
                    };
                }
                assert_eq!(rebuilt, models[2]);
            });
        }
    }

    #[tokio::test]
    async fn one_change_in_a_large_state_writes_few_nodes() {
        let (store, trees) = trees().await;
        let view = store.view();
        let many: Vec<_> = (1..=5_000)
            .map(|key| (StateKeySid(key), Some(EventSid(key))))
            .collect();
        let update = trees.update(&view, None, &many).await.unwrap();
        trees.submitted(&update);
        let one = trees
            .update(
                &view,
                update.root,
                &[(StateKeySid(77), Some(EventSid(9_999)))],
            )
            .await
            .unwrap();
        assert!(one.nodes.len() <= 4, "{} nodes", one.nodes.len());
    }
}

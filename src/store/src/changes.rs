//! Which topics changed last when: the memory that lets an idle reader compare integers.

use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use crate::{Position, Topic};

/// How many topics are remembered before the memory starts afresh.
const CAPACITY: usize = 1 << 20;

/// The last change of each topic since the floor. A topic that is not listed has not changed after the floor; before it,
/// nothing is known.
pub(crate) struct Changes {
    floor: AtomicU64,
    last: DashMap<Topic, Position>,
    capacity: usize,
}

impl Changes {
    pub(crate) fn new(floor: Position) -> Self {
        Self {
            floor: AtomicU64::new(floor.0),
            last: DashMap::new(),
            capacity: CAPACITY,
        }
    }

    /// Whether the topic may have changed after `since`: certain for what lies after the floor, yes otherwise.
    pub(crate) fn since(&self, topic: Topic, since: Position) -> bool {
        let listed = self.last.get(&topic).is_some_and(|last| *last > since);
        // Read after the list: who starts afresh raises the floor before forgetting.
        listed || since.0 < self.floor.load(Ordering::Acquire)
    }

    /// Topics of a group that is about to be visible at `watermark`.
    pub(crate) fn mark(&self, topics: &[Topic], watermark: Position) {
        if self.last.len() > self.capacity {
            self.forget(watermark);
        }
        for topic in topics {
            self.last.insert(*topic, watermark);
        }
    }

    /// Starts afresh: nothing is known of what happened up to `watermark`.
    pub(crate) fn forget(&self, watermark: Position) {
        self.floor.fetch_max(watermark.0, Ordering::AcqRel);
        self.last.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_counts_as_changed() {
        let mut changes = Changes::new(Position(10));
        changes.capacity = 2;
        let topic = |id| Topic { kind: 1, id };
        assert!(
            changes.since(topic(1), Position(9)),
            "before the floor nothing is known"
        );
        assert!(!changes.since(topic(1), Position(10)));
        changes.mark(&[topic(1)], Position(12));
        assert!(changes.since(topic(1), Position(11)));
        assert!(!changes.since(topic(1), Position(12)));
        assert!(!changes.since(topic(2), Position(10)));
        changes.mark(&[topic(2), topic(3)], Position(13));
        changes.mark(&[topic(4)], Position(14));
        assert!(
            changes.since(topic(1), Position(13)),
            "the memory started afresh at 14"
        );
        assert!(!changes.since(topic(1), Position(14)));
    }
}

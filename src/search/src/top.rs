//! The best matches, a page at a time.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use tantivy::{
    DocId, Score, SegmentOrdinal, SegmentReader, TantivyError,
    collector::{Collector, SegmentCollector},
    columnar::ColumnValues,
};

use crate::index::{Found, Hit};

/// In which order matches come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The best first; of equally good ones the newest.
    Rank,
    /// The newest first.
    Recent,
}

/// Where a match stands in an order: what comes first is greater. Keeps its meaning when documents are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The bits of the score, which are ordered as scores are; zero where the order does not ask.
    pub score: u32,
    /// The time.
    pub time: u64,
    /// The number of the item.
    pub item: u64,
}

impl Hit {
    /// Where it stands.
    pub fn place(&self, order: Order) -> Place {
        Place {
            score: match order {
                Order::Rank => self.score.max(0.0).to_bits(),
                Order::Recent => 0,
            },
            time: self.time,
            item: self.item,
        }
    }
}

/// Names of the columns that are read of a match.
pub(crate) const COLUMNS: [&str; 5] = ["item", "source", "room", "sender", "time"];

/// Collects the first matches after a place, and counts all of them.
pub(crate) struct Top {
    pub(crate) order: Order,
    pub(crate) after: Option<Place>,
    pub(crate) limit: usize,
}

type Values = Arc<dyn ColumnValues<u64>>;

pub(crate) struct SegmentTop {
    order: Order,
    after: Option<Place>,
    limit: usize,
    columns: [Values; 5],
    total: u64,
    best: BinaryHeap<Reverse<(Place, Placed)>>,
}

/// A hit beside its place, which alone orders it.
pub(crate) struct Placed(Hit);

impl PartialEq for Placed {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Placed {}

impl PartialOrd for Placed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Placed {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl Collector for Top {
    type Fruit = Found;
    type Child = SegmentTop;

    fn for_segment(
        &self,
        _: SegmentOrdinal,
        segment: &SegmentReader,
    ) -> Result<SegmentTop, TantivyError> {
        let fields = segment.fast_fields();
        let column = |name: &str| fields.column_first_or_default::<u64>(name);
        let [item, source, room, sender, time] = COLUMNS;
        Ok(SegmentTop {
            order: self.order,
            after: self.after,
            limit: self.limit,
            columns: [
                column(item)?,
                column(source)?,
                column(room)?,
                column(sender)?,
                column(time)?,
            ],
            total: 0,
            best: BinaryHeap::new(),
        })
    }

    fn requires_scoring(&self) -> bool {
        true
    }

    fn merge_fruits(&self, fruits: Vec<(u64, Vec<(Place, Hit)>)>) -> Result<Found, TantivyError> {
        let total = fruits.iter().map(|(total, _)| total).sum();
        let mut hits: Vec<_> = fruits.into_iter().flat_map(|(_, hits)| hits).collect();
        hits.sort_by_key(|(place, _)| Reverse(*place));
        hits.truncate(self.limit);
        Ok(Found {
            hits: hits.into_iter().map(|(_, hit)| hit).collect(),
            total,
        })
    }
}

impl SegmentCollector for SegmentTop {
    type Fruit = (u64, Vec<(Place, Hit)>);

    fn collect(&mut self, doc: DocId, score: Score) {
        self.total += 1;
        let [item, source, room, sender, time] = self.columns.each_ref();
        let mut hit = Hit {
            item: item.get_val(doc),
            source: 0,
            room: 0,
            sender: 0,
            time: time.get_val(doc),
            score,
        };
        let place = hit.place(self.order);
        if self.after.is_some_and(|after| place >= after) {
            return;
        }
        let full = self.best.len() >= self.limit;
        if full && self.best.peek().is_none_or(|worst| place < worst.0.0) {
            return;
        }
        hit.source = source.get_val(doc);
        hit.room = room.get_val(doc);
        hit.sender = sender.get_val(doc);
        if full {
            self.best.pop();
        }
        self.best.push(Reverse((place, Placed(hit))));
    }

    fn harvest(self) -> Self::Fruit {
        let best = self.best.into_iter();
        let hits = best.map(|Reverse((place, Placed(hit)))| (place, hit));
        (self.total, hits.collect())
    }
}

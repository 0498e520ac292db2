//! Ranges of keys within a map.
//!
//! Bounds may be whole keys or the first parts of a tuple key. A bound given by first parts stands for all keys that
//! begin with them: after `(room,)` means after all keys of the room, up to and including `(room,)` means with all of them.

use std::ops::Bound;

use crate::Key;

/// Which way to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Smallest key first.
    Forward,
    /// Largest key first.
    Backward,
}

/// A range of a map's keys: from `start` to before `end`, both encoded without the map's number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    start: Vec<u8>,
    /// `None` is the end of the map.
    end: Option<Vec<u8>>,
}

impl Range {
    /// The whole map.
    pub fn all() -> Self {
        Self {
            start: Vec::new(),
            end: None,
        }
    }

    /// All keys that begin with these parts: `Range::prefix(&(room,))` or `Range::prefix(&room)`.
    pub fn prefix(prefix: &impl Key) -> Self {
        let start = encoded(prefix);
        let end = successor(start.clone());
        Self { start, end }
    }

    /// The key and all after it.
    pub fn from(key: &impl Key) -> Self {
        Self {
            start: encoded(key),
            end: None,
        }
    }

    /// Between two bounds.
    pub fn between<K: Key>(lower: Bound<&K>, upper: Bound<&K>) -> Self {
        let range = match lower {
            Bound::Unbounded => Self::all(),
            Bound::Included(key) => Self::from(key),
            Bound::Excluded(key) => Self::all().after(key),
        };
        match upper {
            Bound::Unbounded => range,
            Bound::Included(key) => range.until(key),
            Bound::Excluded(key) => range.before(key),
        }
    }

    /// What of this range comes after `key`: the next page, reading forward.
    pub fn after(mut self, key: &impl Key) -> Self {
        match successor(encoded(key)) {
            Some(start) => self.start = self.start.max(start),
            None => self.end = Some(Vec::new()),
        }
        self
    }

    /// What of this range comes before `key`: the next page, reading backward.
    pub fn before(self, key: &impl Key) -> Self {
        self.ending(Some(encoded(key)))
    }

    /// What of this range is at or before `key`.
    pub fn until(self, key: &impl Key) -> Self {
        self.ending(successor(encoded(key)))
    }

    fn ending(mut self, end: Option<Vec<u8>>) -> Self {
        self.end = match (self.end.take(), end) {
            (Some(old), Some(new)) => Some(old.min(new)),
            (old, new) => old.or(new),
        };
        self
    }

    /// The stored bounds in the map with this number: start, and the first after the end.
    pub(crate) fn bounds(&self, map: u8) -> (Vec<u8>, Vec<u8>) {
        let whole = |part: &[u8]| {
            let mut key = Vec::with_capacity(part.len() + 1);
            key.push(map);
            key.extend_from_slice(part);
            key
        };
        let end = match &self.end {
            Some(end) => whole(end),
            // A map's number is below 255.
            None => vec![map.saturating_add(1)],
        };
        (whole(&self.start), end)
    }
}

fn encoded(key: &impl Key) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    key.encode(&mut out);
    out
}

/// The smallest string above all that begin with `prefix`; `None` if there is none.
fn successor(mut prefix: Vec<u8>) -> Option<Vec<u8>> {
    while let Some(last) = prefix.last_mut() {
        if let Some(next) = last.checked_add(1) {
            *last = next;
            return Some(prefix);
        }
        prefix.pop();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_its_successor() {
        assert_eq!(successor(vec![1, 2]), Some(vec![1, 3]));
        assert_eq!(successor(vec![1, 0xff]), Some(vec![2]));
        assert_eq!(successor(vec![0xff, 0xff]), None);
        assert_eq!(Range::prefix(&5_u8).bounds(9), (vec![9, 5], vec![9, 6]));
        assert_eq!(Range::prefix(&0xff_u8).bounds(9), (vec![9, 0xff], vec![10]));
    }

    #[test]
    fn bounds_narrow_and_never_widen() {
        let range = Range::prefix(&(1_u8,))
            .after(&(0_u8, 7_u8))
            .before(&(9_u8, 0_u8));
        assert_eq!(range.bounds(9), (vec![9, 1], vec![9, 2]));
        assert_eq!(
            Range::all().after(&0xff_u8).bounds(9),
            (vec![9], vec![9]),
            "nothing comes after the last key"
        );
        assert_eq!(
            Range::between(Bound::Excluded(&1_u8), Bound::Included(&3)).bounds(9),
            (vec![9, 2], vec![9, 4])
        );
    }
}

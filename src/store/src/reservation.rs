//! Numbers that never come twice: positions and fresh ids, reserved in durable blocks.
//!
//! The end of a block is on disk (synced) before any number of it is given out, and each start begins after the last
//! stored end. So numbers that a crash forgot are skipped, never repeated. The committer stores the next end when half of
//! the block is used, in a group it writes anyway.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::StoreError;

/// How many positions are reserved at once. Each start skips what is left of a block.
pub(crate) const POSITION_BLOCK: u64 = 1 << 17;
/// How many fresh ids are reserved at once.
pub(crate) const ID_BLOCK: u64 = 1 << 20;

/// The committer's positions.
#[derive(Debug)]
pub(crate) struct Positions {
    /// The next to give.
    pub(crate) next: u64,
    /// The last that is reserved.
    pub(crate) reserved: u64,
}

impl Positions {
    /// The end to store when the next `wanted` positions would use more than half of the block.
    pub(crate) fn next_end(&self, wanted: u64) -> Option<u64> {
        let left = (self.reserved + 1).saturating_sub(self.next);
        (left < wanted + POSITION_BLOCK / 2).then(|| self.next + wanted + POSITION_BLOCK)
    }

    /// How many can be given before the next end is on disk.
    pub(crate) fn left(&self) -> u64 {
        (self.reserved + 1).saturating_sub(self.next)
    }
}

/// The fresh ids: taken by anyone without a lock, topped up by the committer.
#[derive(Debug)]
pub(crate) struct FreshIds {
    next: AtomicU64,
    reserved: AtomicU64,
}

impl FreshIds {
    /// Ids above `last`, of which those up to `reserved` may be given.
    pub(crate) fn new(last: u64, reserved: u64) -> Self {
        Self {
            next: AtomicU64::new(last + 1),
            reserved: AtomicU64::new(reserved),
        }
    }

    /// One id, and whether the committer should store a new end.
    pub(crate) fn take(&self) -> Result<(u64, bool), StoreError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let reserved = self.reserved.load(Ordering::Acquire);
        if id > reserved {
            return Err(StoreError::OutOfIds);
        }
        // Asking again every 4096 ids makes a lost request harmless.
        let low = reserved - id < ID_BLOCK / 2;
        Ok((id, low && id.is_multiple_of(4096)))
    }

    /// The end to store, if more than half of the block is used.
    pub(crate) fn next_end(&self) -> Option<u64> {
        let (next, reserved) = (
            self.next.load(Ordering::Relaxed),
            self.reserved.load(Ordering::Relaxed),
        );
        (reserved < next + ID_BLOCK / 2).then(|| next + ID_BLOCK)
    }

    /// The end that is on disk.
    pub(crate) fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    /// The new end is on disk.
    pub(crate) fn extend(&self, reserved: u64) {
        self.reserved.fetch_max(reserved, Ordering::Release);
    }
}

//! Counts of requests: written by `observe`, shown by `health`.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of requests, for /metrics.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(super) started: AtomicU64,
    /// Finished requests by the first digit of their status.
    pub(super) by_class: [AtomicU64; 6],
    pub(super) micros: AtomicU64,
}

impl Counts {
    /// How many requests have begun.
    pub(crate) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// How many have ended, by status class (2 is 2xx).
    pub(crate) fn finished(&self) -> impl Iterator<Item = (usize, u64)> {
        self.by_class
            .iter()
            .enumerate()
            .skip(1)
            .map(|(class, count)| (class, count.load(Ordering::Relaxed)))
    }

    /// How long all of them took together, in microseconds.
    pub(crate) fn micros(&self) -> u64 {
        self.micros.load(Ordering::Relaxed)
    }
}

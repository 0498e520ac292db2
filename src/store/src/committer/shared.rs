//! What the committer and the store's handles share.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};

use crate::{
    Health, Position, Stats, View, Wake, changes::Changes, reservation::FreshIds, view::Snapshot,
};

/// Published by the committer, read by everyone without a lock (save for the list of dispatchers).
pub(crate) struct Shared {
    view: ArcSwap<Snapshot>,
    pub(crate) epoch: u64,
    pub(crate) ids: FreshIds,
    pub(crate) changes: Changes,
    pub(crate) watermark: watch::Sender<Position>,
    pub(crate) health: watch::Sender<Health>,
    closed: AtomicBool,
    wakes: Mutex<Vec<mpsc::UnboundedSender<Wake>>>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    groups: AtomicU64,
    batches: AtomicU64,
    assert_failures: AtomicU64,
    engine_failures: AtomicU64,
    queued: AtomicU64,
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

impl Shared {
    pub(crate) fn new(view: View, epoch: u64, ids: FreshIds) -> Self {
        Self {
            changes: Changes::new(view.watermark()),
            watermark: watch::Sender::new(view.watermark()),
            view: ArcSwap::new(view.into_inner()),
            epoch,
            ids,
            health: watch::Sender::new(Health::default()),
            closed: AtomicBool::new(false),
            wakes: Mutex::default(),
            counters: Counters::default(),
        }
    }

    pub(crate) fn view(&self) -> View {
        View::published(self.view.load_full())
    }

    /// Shows a view and its watermark to everyone, together.
    pub(super) fn publish(&self, view: View) {
        let watermark = view.watermark();
        self.view.store(view.into_inner());
        self.watermark
            .send_if_modified(|old| std::mem::replace(old, watermark) != watermark);
    }

    pub(crate) fn subscribe_wakes(&self) -> mpsc::UnboundedReceiver<Wake> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.wakes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(sender);
        receiver
    }

    pub(super) fn wake(&self, wake: Wake) {
        let mut wakes = self.wakes.lock().unwrap_or_else(PoisonError::into_inner);
        // A dispatcher that is gone is forgotten here.
        wakes.retain(|dispatcher| dispatcher.send(wake.clone()).is_ok());
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn set_closed(&self) {
        self.closed.store(true, Ordering::Release);
        self.health.send_modify(|health| health.closed = true);
    }

    pub(super) fn set_read_only(&self, reason: Option<String>) {
        self.health.send_modify(|health| health.read_only = reason);
    }

    pub(super) fn set_healed(&self) {
        self.health.send_modify(|health| {
            health.read_only = None;
            health.reopens += 1;
        });
    }

    pub(crate) fn count_queued(&self) {
        self.counters.queued.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_taken(&self, jobs: usize) {
        self.counters
            .queued
            .fetch_sub(number(jobs), Ordering::Relaxed);
    }

    pub(super) fn count_group(&self, batches: usize) {
        self.counters.groups.fetch_add(1, Ordering::Relaxed);
        self.counters
            .batches
            .fetch_add(number(batches), Ordering::Relaxed);
    }

    pub(super) fn count_assert_failures(&self, batches: usize) {
        self.counters
            .assert_failures
            .fetch_add(number(batches), Ordering::Relaxed);
    }

    pub(super) fn count_engine_failures(&self, batches: usize) {
        self.counters
            .engine_failures
            .fetch_add(number(batches), Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            groups: read(&self.counters.groups),
            batches: read(&self.counters.batches),
            assert_failures: read(&self.counters.assert_failures),
            engine_failures: read(&self.counters.engine_failures),
            queued: read(&self.counters.queued),
            ..Stats::default()
        }
    }
}

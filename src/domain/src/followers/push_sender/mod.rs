//! Tells push gateways what `notices` has noticed, and how much is unread.
//!
//! - [`PushSender`] is woken by [`topic::notices`], and when a user reads or leaves; for each pusher that has something to be told runs
//!   one task, which ends when there is nothing left, or when the gateway does not take it; then it is begun again when its wait is
//!   over. A restart finds all pushers in the store.
//! - `turn` asks [`Notices::unread`] at the moment of sending, tells the oldest that was not told, and the count; if nothing is new and
//!   the count is not what was told last, the count alone.
//! - `states` keeps how far each pusher is: in memory at once, in the store within half a second. What was told in the last moment
//!   before a crash is told again, with the same event id, by which gateways know it.
//! - `message` writes what is told; [`Gateway`] is the way to the network.
//!
//! A gateway that is slow holds up nobody but its own pushers: each has few requests under way, and waiting for one of them takes no
//! place from others. What has waited for a day, or behind a hundred newer ones, is not told any more; the count stays right.
//! <https://spec.matrix.org/v1.19/push-gateway-api/#post_matrixpushv1notify>

mod gateway;
pub(super) mod message;
mod states;
#[cfg(test)]
pub(super) mod tests;
mod turn;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;
use vatra_store::{Direction, Range, Wake};

pub use self::gateway::{Answer, Gateway};
use self::{message::Names, states::States, turn::Turn};
use super::{FollowError, notices::Notices};
use crate::{
    clock::{Millis, SharedClock},
    random::SharedRandom,
    rooms::Rooms,
    schema::{self, PusherKey, PusherKind, UserSid, topic},
    users::Users,
};

/// How often waits are looked at, and what is known of pushers is stored.
const TICK: Duration = Duration::from_millis(500);
/// How many pushers are read at a time at the start.
const PAGE: usize = 200;
/// How many requests are under way at once, to all gateways and to one.
const REQUESTS: usize = 512;
const REQUESTS_OF_GATEWAY: usize = 16;
/// The wait after a failure of this server's own, in milliseconds.
const OWN_FAILURE_MS: Millis = 5_000;

/// The sender. Cheap to clone.
#[derive(Clone)]
pub struct PushSender {
    inner: Arc<Inner>,
}

/// What a sender is made of.
pub struct Parts {
    /// Who is notified of what.
    pub notices: Notices,
    /// The rooms.
    pub rooms: Rooms,
    /// Whose the pushers are.
    pub users: Users,
    /// The way to the gateways.
    pub gateway: Arc<dyn Gateway>,
    /// The time.
    pub clock: SharedClock,
    /// For jitter.
    pub random: SharedRandom,
    /// Where the tasks of pushers run.
    pub tasks: TaskTracker,
    /// When they end.
    pub shutdown: CancellationToken,
}

struct Inner {
    parts: Parts,
    states: States,
    /// Pushers with a task; `true` if there may be something that it has not seen.
    running: Mutex<BTreeMap<PusherKey, bool>>,
    /// Pushers whose gateway did not take something, and until when they wait.
    waits: Mutex<BTreeMap<PusherKey, Millis>>,
    /// Places for requests, of all and by gateway.
    places: Semaphore,
    gateways: DashMap<String, Arc<Semaphore>>,
    /// What people call those concerned by the events that were told last.
    names: Names,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
}

/// How sending goes, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Requests that gateways have taken.
    pub sent: u64,
    /// Requests that they have not.
    pub failed: u64,
    /// Pushers that they have rejected.
    pub rejected: u64,
    /// Pushers that wait because of a failure.
    pub waiting: u64,
}

impl PushSender {
    /// A sender that has not begun: start it with [`PushSender::run`].
    pub fn new(parts: Parts) -> Self {
        Self {
            inner: Arc::new(Inner {
                states: States::new(parts.rooms.store().clone()),
                running: Mutex::default(),
                waits: Mutex::default(),
                places: Semaphore::new(REQUESTS),
                gateways: DashMap::new(),
                names: Names::new(),
                counts: Counts::default(),
                parts,
            }),
        }
    }

    /// How sending goes.
    pub fn figures(&self) -> Figures {
        let counts = &self.inner.counts;
        let waiting = self.inner.waits().len();
        Figures {
            sent: counts.sent.load(Ordering::Relaxed),
            failed: counts.failed.load(Ordering::Relaxed),
            rejected: counts.rejected.load(Ordering::Relaxed),
            waiting: u64::try_from(waiting).unwrap_or(u64::MAX),
        }
    }

    /// Begins tasks for those who have something to be told, until the shutdown.
    pub async fn run(self) {
        let shutdown = self.inner.parts.shutdown.clone();
        // Subscribed before the store is read: what comes between is seen twice.
        let mut wakes = self.inner.parts.rooms.store().wakes();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut begun = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                wake = wakes.recv() => match wake {
                    Some(wake) => self.woken(&wake).await,
                    None => break,
                },
                _ = tick.tick() => {
                    if !begun {
                        match self.knock_all().await {
                            Ok(()) => begun = true,
                            Err(error) => warn!(%error, "pushers cannot be read"),
                        }
                    }
                    self.waits_over();
                    self.store_states().await;
                }
            }
        }
        self.store_states().await;
    }

    async fn woken(&self, wake: &Wake) {
        let kinds = [topic::NOTICES, topic::OWN_RECEIPTS, topic::MEMBERSHIP];
        let topics = wake.topics.iter();
        let users: BTreeSet<UserSid> = topics
            .filter(|topic| kinds.contains(&topic.kind))
            .map(|topic| UserSid(topic.id))
            .collect();
        if users.is_empty() {
            return;
        }
        let users: Vec<UserSid> = users.into_iter().collect();
        if let Err(error) = self.knock(&users).await {
            // They are found when something else happens, or after a restart.
            warn!(%error, "pushers cannot be read");
        }
    }

    /// Something has changed for these users, of whom few have pushers. One batched read.
    async fn knock(&self, users: &[UserSid]) -> Result<(), FollowError> {
        let view = self.inner.parts.rooms.store().view();
        let rows = view.get_many(&schema::PUSHERS, users).await?;
        for (user, row) in users.iter().zip(rows) {
            for pusher in row.unwrap_or_default().pushers {
                if let PusherKind::Http { .. } = pusher.kind {
                    self.tell((pusher.app_id, pusher.pushkey, *user));
                }
            }
        }
        Ok(())
    }

    /// Every pusher looks whether there is something, as after a start.
    async fn knock_all(&self) -> Result<(), FollowError> {
        let mut range = Range::all();
        loop {
            let view = self.inner.parts.rooms.store().view();
            let rows = view
                .range(&schema::PUSHER_STATES, range, Direction::Forward, PAGE)
                .await?;
            let Some((last, _)) = rows.last().cloned() else {
                return Ok(());
            };
            range = Range::all().after(&last);
            let mut users: Vec<UserSid> = rows.into_iter().map(|((_, _, user), _)| user).collect();
            users.sort_unstable();
            users.dedup();
            self.knock(&users).await?;
        }
    }

    fn tell(&self, pusher: PusherKey) {
        if self.inner.waits().contains_key(&pusher) {
            return;
        }
        let mut running = self.inner.running();
        if let Some(knocked) = running.get_mut(&pusher) {
            *knocked = true;
            return;
        }
        running.insert(pusher.clone(), false);
        drop(running);
        let serving = self.clone().serve(pusher);
        self.inner.parts.tasks.spawn(serving);
    }

    fn waits_over(&self) {
        let now = self.inner.parts.clock.now();
        let mut waits = self.inner.waits();
        let over: Vec<PusherKey> = waits
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(pusher, _)| pusher.clone())
            .collect();
        for pusher in &over {
            waits.remove(pusher);
        }
        drop(waits);
        for pusher in over {
            self.tell(pusher);
        }
    }

    /// Tells one pusher what there is, until nothing is left.
    async fn serve(self, pusher: PusherKey) {
        let inner = &self.inner;
        loop {
            let turn = tokio::select! {
                () = inner.parts.shutdown.cancelled() => return,
                turn = inner.turn(&pusher) => turn,
            };
            let until = match turn {
                Ok(Turn::More) => continue,
                Ok(Turn::Nothing) => {
                    let mut running = inner.running();
                    match running.get_mut(&pusher) {
                        Some(knocked) if *knocked => *knocked = false,
                        _ => {
                            running.remove(&pusher);
                            return;
                        }
                    }
                    continue;
                }
                Ok(Turn::Wait(until)) => until,
                Err(error) => {
                    warn!(%error, "a pusher cannot be served");
                    inner.parts.clock.now().saturating_add(OWN_FAILURE_MS)
                }
            };
            inner.waits().insert(pusher.clone(), until);
            inner.running().remove(&pusher);
            return;
        }
    }

    async fn store_states(&self) {
        if let Err(error) = self.inner.states.store().await {
            warn!(%error, "how far pushers are cannot be stored");
        }
        // A gateway that nobody uses now is forgotten.
        self.inner
            .gateways
            .retain(|_, places| Arc::strong_count(places) > 1);
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, BTreeMap<PusherKey, bool>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waits(&self) -> MutexGuard<'_, BTreeMap<PusherKey, Millis>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Waking those who wait: a dispatcher between the log and the long polls.
//!
//! A commit wakes one topic per room, whatever the room's size. The dispatcher keeps `room -> active local users`, which
//! changes when a user becomes active or idle or when a membership passes, never per poll. A user is active from the
//! first poll until some minutes after the last. A waiting /sync subscribes *before* it reads the watermark, so that no
//! change can fall between its answer and its wait.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use tokio::{
    sync::{Mutex, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::error;
use vatra_store::Wake;

use crate::{
    rooms::{RoomError, Rooms},
    schema::{Membership, RoomSid, UserSid, topic},
};

/// How long after the last poll a user is still told of changes.
const IDLE_AFTER: Duration = Duration::from_secs(300);

/// The users who wait or have waited lately. Cheap to clone.
#[derive(Clone)]
pub struct Waiters {
    inner: Arc<Inner>,
}

struct Inner {
    rooms: Rooms,
    users: DashMap<UserSid, Arc<Active>>,
    by_room: DashMap<RoomSid, HashSet<UserSid>>,
    start: Instant,
}

/// An active user.
struct Active {
    changes: watch::Sender<u64>,
    /// The rooms this user is registered in; `None` until they are read.
    joined: Mutex<Option<HashSet<RoomSid>>>,
    last_used_s: AtomicU64,
}

/// A wait for changes that concern one user.
#[derive(Debug)]
pub struct Subscription {
    changes: watch::Receiver<u64>,
}

impl Subscription {
    /// Forgets the changes up to now: called before the watermark is read.
    pub fn reset(&mut self) {
        self.changes.borrow_and_update();
    }

    /// Waits for the next change after the last [`Subscription::reset`].
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // The sender lives as long as the user is active, and a subscriber keeps the user active.
            std::future::pending::<()>().await;
        }
    }
}

impl Waiters {
    /// Waiters on `rooms`; [`Waiters::run`] must run beside.
    pub fn new(rooms: Rooms) -> Self {
        let inner = Inner {
            rooms,
            users: DashMap::new(),
            by_room: DashMap::new(),
            start: Instant::now(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// How many users are active.
    pub fn active_users(&self) -> usize {
        self.inner.users.len()
    }

    /// Subscribes to everything that concerns a user. Reads the user's rooms the first time only.
    pub async fn subscribe(&self, user: UserSid) -> Result<Subscription, RoomError> {
        let inner = &self.inner;
        let entry = inner
            .users
            .entry(user)
            .or_insert_with(|| Arc::new(Active::new()));
        let active = Arc::clone(&entry);
        // While the entry is held no sweep can forget it; once there is a receiver, none will.
        let changes = active.changes.subscribe();
        drop(entry);
        let now = inner.start.elapsed().as_secs();
        active.last_used_s.store(now, Ordering::Relaxed);
        let mut joined = active.joined.lock().await;
        if joined.is_none() {
            inner.register(user, &mut joined).await?;
        }
        Ok(Subscription { changes })
    }

    /// Reads the rooms of all active users anew: memberships were mended.
    pub async fn forget(&self) {
        let users: Vec<UserSid> = self.inner.users.iter().map(|user| *user.key()).collect();
        for user in users {
            self.inner.refresh(user).await;
        }
    }

    /// The dispatcher: turns the store's wakes into the users' until `shutdown`.
    pub async fn run(self, mut wakes: mpsc::UnboundedReceiver<Wake>, shutdown: CancellationToken) {
        let mut sweep = tokio::time::interval(Duration::from_secs(60));
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = sweep.tick() => self.inner.sweep().await,
                wake = wakes.recv() => match wake {
                    Some(wake) => self.inner.dispatch(&wake).await,
                    None => return,
                },
            }
        }
    }
}

impl Active {
    fn new() -> Self {
        Self {
            changes: watch::Sender::new(0),
            joined: Mutex::new(None),
            last_used_s: AtomicU64::new(0),
        }
    }

    fn wake(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Inner {
    async fn dispatch(&self, wake: &Wake) {
        let mut woken = HashSet::new();
        for topic in &wake.topics {
            match topic.kind {
                topic::ROOM | topic::PRESENCE => {
                    if let Some(users) = self.by_room.get(&RoomSid(topic.id)) {
                        woken.extend(users.iter().copied());
                    }
                }
                topic::MEMBERSHIP => {
                    let user = UserSid(topic.id);
                    self.refresh(user).await;
                    woken.insert(user);
                }
                topic::USER | topic::DEVICES => {
                    woken.insert(UserSid(topic.id));
                }
                topic::DEVICE_LIST if topic.id != 0 => {
                    woken.extend(self.in_rooms_of(UserSid(topic.id)).await);
                }
                _ => {}
            }
        }
        for user in woken {
            if let Some(active) = self.users.get(&user) {
                active.wake();
            }
        }
    }

    /// The active users who share a room with a user.
    async fn in_rooms_of(&self, user: UserSid) -> HashSet<UserSid> {
        let rooms = match self.rooms.reader().rooms_of(user).await {
            Ok(rooms) => rooms,
            Err(error) => {
                error!(%error, "the rooms of a user whose keys changed could not be read");
                return HashSet::new();
            }
        };
        let mut found = HashSet::new();
        for (room, row) in rooms {
            if row.membership == Membership::Join
                && let Some(users) = self.by_room.get(&room)
            {
                found.extend(users.iter().copied());
            }
        }
        found
    }

    /// An active user's memberships have changed.
    async fn refresh(&self, user: UserSid) {
        let Some(active) = self.users.get(&user).map(|active| Arc::clone(&active)) else {
            return;
        };
        let mut joined = active.joined.lock().await;
        if let Err(error) = self.register(user, &mut joined).await {
            // The next poll reads them again.
            error!(%error, "the rooms of a waiting user could not be read");
            *joined = None;
        }
    }

    /// Reads a user's rooms and enters the differences.
    async fn register(
        &self,
        user: UserSid,
        joined: &mut Option<HashSet<RoomSid>>,
    ) -> Result<(), RoomError> {
        let rooms = self.rooms.reader().rooms_of(user).await?;
        let now: HashSet<RoomSid> = rooms
            .into_iter()
            .filter(|(_, row)| row.membership == Membership::Join)
            .map(|(room, _)| room)
            .collect();
        let before = joined.take().unwrap_or_default();
        for room in now.difference(&before) {
            self.by_room.entry(*room).or_default().insert(user);
        }
        for room in before.difference(&now) {
            self.leave(user, *room);
        }
        *joined = Some(now);
        Ok(())
    }

    fn leave(&self, user: UserSid, room: RoomSid) {
        self.by_room.remove_if_mut(&room, |_, users| {
            users.remove(&user);
            users.is_empty()
        });
    }

    /// Forgets users who have not polled for a while.
    async fn sweep(&self) {
        let now = self.start.elapsed().as_secs();
        let idle: Vec<UserSid> = self
            .users
            .iter()
            .filter(|active| {
                let unused = now.saturating_sub(active.last_used_s.load(Ordering::Relaxed));
                active.changes.receiver_count() == 0 && unused >= IDLE_AFTER.as_secs()
            })
            .map(|active| *active.key())
            .collect();
        for user in idle {
            let Some((_, active)) = self
                .users
                .remove_if(&user, |_, active| active.changes.receiver_count() == 0)
            else {
                continue;
            };
            if let Some(rooms) = active.joined.lock().await.take() {
                for room in rooms {
                    self.leave(user, room);
                }
            }
        }
    }
}

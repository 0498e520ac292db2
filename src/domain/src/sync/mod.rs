//! `GET /sync`: a reader of the log, and the waiting in front of it.
//!
//! - `wait`: the dispatcher that wakes waiting users; [`Waiters`].
//! - `lazy`: which members a device that loads them lazily has been sent.
//! - `token`: what `since`, `next_batch` and `prev_batch` are.
//! - `room`, `sections`: the providers; each is given a reader, `(since, upto]` and the filter, and says what is new.
//! - `old`: what clients of before /sync ask, answered by the same providers.
//! - `response`: the answer as it goes over the wire.
//!
//! Sync writes nothing. Everything in one answer comes from one view of the store. An idle poll compares integers: which
//! rooms changed is known in memory ([`vatra_store::Store::changed_since`]), and the user's rooms are cached until a membership changes.
//!
//! To show something new in /sync: write a provider here, and wake `topic::room` or `topic::user` in the batch that changes it.

mod lazy;
pub mod old;
mod request;
mod response;
mod room;
mod sections;
#[cfg(test)]
mod tests;
pub mod token;
mod wait;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quick_cache::{Weighter, sync::Cache};
use tokio_util::sync::CancellationToken;
use vatra_store::{Position, Store, StoreError};

use self::{
    lazy::{Lazy, Round},
    sections::{MESSAGES, Span},
    token::SyncToken,
};
pub use self::{
    request::{StateField, SyncRequest},
    response::{DeviceLists, SyncResponse},
    sections::Providers,
    wait::{Subscription, Waiters},
};
use crate::{
    rooms::{Reader, RoomError, Rooms, visible::Viewer},
    schema::{MembershipRow, RoomSid, UserSid, topic},
    users::UsersError,
};

/// The longest a poll waits, whatever the client asks for.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(120);

/// Why a /sync failed.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Something about a room.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// Something about the user.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A user's rooms as of a position.
struct UserRooms {
    at: Position,
    rooms: Vec<(RoomSid, MembershipRow)>,
}

/// About how many bytes a user's rooms take.
#[derive(Clone)]
struct RoomsWeight;

impl Weighter<UserSid, Arc<UserRooms>> for RoomsWeight {
    fn weight(&self, _: &UserSid, rooms: &Arc<UserRooms>) -> u64 {
        let each = std::mem::size_of::<(RoomSid, MembershipRow)>();
        128 + u64::try_from(rooms.rooms.len() * each).unwrap_or(u64::MAX / 2)
    }
}

/// Answers /sync. Cheap to clone.
#[derive(Clone)]
pub struct Syncs {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    rooms: Rooms,
    waiters: Waiters,
    providers: Providers,
    user_rooms: Cache<UserSid, Arc<UserRooms>, RoomsWeight>,
    lazy: Lazy,
    waiting: AtomicU64,
    shutdown: CancellationToken,
}

impl Syncs {
    /// The rooms of users who poll, and the members that their devices were sent, are remembered in at most `cache_bytes`. Polls end when `shutdown` is cancelled.
    pub fn new(
        rooms: Rooms,
        waiters: Waiters,
        providers: Providers,
        cache_bytes: u64,
        shutdown: CancellationToken,
    ) -> Self {
        let half = cache_bytes / 2;
        let users = usize::try_from(half / 1024).unwrap_or(usize::MAX).max(64);
        let inner = Inner {
            store: rooms.store().clone(),
            rooms,
            waiters,
            providers,
            user_rooms: Cache::with_weighter(users, half, RoomsWeight),
            lazy: Lazy::new(half),
            waiting: AtomicU64::new(0),
            shutdown,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Forgets what was read of derived rows, after the rooms have: they were mended.
    pub async fn forget(&self) {
        self.inner.providers.unreads.forget();
        self.inner.waiters.forget().await;
    }

    /// A device asks with a token of this server: what it was sent up to there it has, and is not kept any longer. Called
    /// before [`Syncs::sync`], which writes nothing.
    pub async fn acknowledge(&self, viewer: &Viewer, since: SyncToken) -> Result<(), SyncError> {
        let inner = &self.inner;
        if let Some(device) = &viewer.device
            && inner.is_ours(since, inner.store.watermark())
        {
            let e2ee = &inner.providers.e2ee;
            e2ee.acknowledge(viewer.sid, device.as_str(), since.to_device)
                .await?;
        }
        Ok(())
    }

    /// Whose keys changed since a token, and who shares no room any more. A token that says nothing about this store makes
    /// everyone changed who shares one.
    pub async fn key_changes(
        &self,
        viewer: &Viewer,
        from: SyncToken,
    ) -> Result<DeviceLists, SyncError> {
        let inner = &self.inner;
        let reader = inner.rooms.reader();
        let providers = &inner.providers;
        if !inner.is_ours(from, reader.watermark()) {
            return providers.all_device_lists(&reader, viewer).await;
        }
        let memberships = inner.rooms_of(&reader, viewer.sid).await?;
        providers
            .device_lists(&reader, viewer, from.position, &memberships.rooms)
            .await
    }

    /// How many polls wait for something new.
    pub fn waiting(&self) -> u64 {
        self.inner.waiting.load(Ordering::Relaxed)
    }

    /// One /sync: what is new since the token, waiting for it if nothing is.
    pub async fn sync(
        &self,
        viewer: &Viewer,
        request: &SyncRequest,
    ) -> Result<SyncResponse, SyncError> {
        let inner = &self.inner;
        let mut subscription = inner.waiters.subscribe(viewer.sid).await?;
        let deadline = tokio::time::Instant::now() + request.timeout.min(MAX_TIMEOUT);
        let mut wait = request.since.is_some() && !request.full_state && !request.timeout.is_zero();
        let mut round: Option<Round> = None;
        loop {
            subscription.reset();
            let reader = inner.rooms.reader();
            let since = request
                .since
                .filter(|token| inner.is_ours(*token, reader.watermark()));
            wait &= since.is_some();
            let position = since.map(|token| token.position);
            let filter = &request.filter;
            let round = round.get_or_insert_with(|| inner.lazy.begin(viewer, filter, position));
            round.again();
            let response = inner.answer(&reader, viewer, request, since, round).await?;
            if !wait || !response.is_empty() {
                inner.lazy.end(round, reader.watermark());
                return Ok(response);
            }
            // A view that is held keeps a failed store from being opened anew.
            drop(reader);
            let _waiting = Waiting::count(&inner.waiting);
            tokio::select! {
                () = subscription.changed() => {}
                () = tokio::time::sleep_until(deadline) => wait = false,
                () = inner.shutdown.cancelled() => wait = false,
            }
        }
    }
}

/// One poll that waits, counted until it is dropped.
struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    fn count(waiting: &'a AtomicU64) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Inner {
    /// A token of another epoch, or of a position that this store has not reached, says nothing about this store.
    fn is_ours(&self, token: SyncToken, watermark: Position) -> bool {
        token.epoch == self.store.epoch()
            && token.position <= watermark
            && token.to_device <= token.position
    }

    async fn answer(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        request: &SyncRequest,
        since: Option<SyncToken>,
        round: &Round,
    ) -> Result<SyncResponse, SyncError> {
        let upto = reader.watermark();
        let span = Span {
            since: since.map(|token| token.position),
            upto,
            full_state: request.full_state,
            round,
        };
        let memberships = self.rooms_of(reader, viewer.sid).await?;
        let providers = &self.providers;
        let rooms = providers
            .rooms(reader, viewer, request, span, &memberships.rooms)
            .await?;
        let presence = providers
            .presence(reader, viewer, request, span, &memberships.rooms)
            .await?;
        let account_data = providers
            .account_data(reader, viewer, request, span)
            .await?;
        let after = since.map(|token| token.to_device);
        let to_device = providers
            .to_device(reader, viewer, after, upto, MESSAGES)
            .await?;
        let device_lists = match span.since {
            Some(since) => {
                providers
                    .device_lists(reader, viewer, since, &memberships.rooms)
                    .await?
            }
            None => DeviceLists::default(),
        };
        let counts = providers.key_counts(reader, viewer, span.since).await?;
        let next_batch = SyncToken {
            epoch: self.store.epoch(),
            position: upto,
            to_device: to_device.upto,
        }
        .to_string();
        Ok(SyncResponse {
            next_batch,
            rooms,
            presence,
            account_data,
            to_device: to_device.messages,
            device_lists,
            device_one_time_keys_count: counts.one_time,
            device_unused_fallback_key_types: counts.unused_fallback,
            keys_changed: counts.changed,
        })
    }

    /// The user's rooms, from memory unless a membership has changed since they were read.
    async fn rooms_of(&self, reader: &Reader, user: UserSid) -> Result<Arc<UserRooms>, RoomError> {
        if let Some(known) = self.user_rooms.get(&user)
            && !self.store.changed_since(topic::membership(user), known.at)
        {
            return Ok(known);
        }
        let rooms = Arc::new(UserRooms {
            at: reader.watermark(),
            rooms: reader.rooms_of(user).await?,
        });
        self.user_rooms.insert(user, Arc::clone(&rooms));
        Ok(rooms)
    }
}

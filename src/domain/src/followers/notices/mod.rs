//! Who is to be notified of what: for users with pushers, and for nobody else.
//!
//! - [`Notices`] is the follower: for each event it asks which users with pushers are in the room (`book`, a stored index that it alone
//!   keeps, by the changes of the room's state), holds the event against their push rules (`audience`), and puts a row of
//!   [`schema::NOTICES`] for each who is notified: (user, position). It is a list of what they have not read, bounded for each of them.
//! - [`Notices::unread`] reads it, and takes out what was read meanwhile, left or redacted (`reading`): who sends asks at the moment of
//!   sending, so that what was read elsewhere is not sent, and counts the rest for the badge.
//! - [`Notices::run`] enters the rooms of those who set their first pusher, and takes invites to rooms that this server is not in.
//!
//! Senders read the rows and are woken by [`topic::notices`]; none of them judges anything. A row says all that a sender needs: the
//! event, the thread, whether it highlights, the tweaks, when it was noticed. To send in another way: a pusher of another kind
//! for the user, a task that wakes by the topic, keeps a cursor of its own per pusher, and asks [`Notices::unread`] when its time has
//! come. `push_sender` and `mail_sender` are the examples.
//!
//! A message in a room where nobody has a pusher costs two small reads; in any other, a few batched reads and one row for each who is
//! notified. <https://spec.matrix.org/v1.19/client-server-api/#push-notifications>

mod audience;
mod book;
mod reading;
#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use dashmap::DashMap;
use tokio_util::sync::CancellationToken;
use vatra_store::{Batch, CommitError, Direction, Position, Range};

use self::audience::Round;
pub use self::reading::Notice;
use super::{FollowError, Follower};
use crate::{
    clock::SharedClock,
    rooms::{Reader, Rooms, judging::Judge},
    schema::{self, LogRow, UserSid, topic},
    users::{Users, UsersError},
};

/// Its name among the followers.
const NAME: &str = "notices";
/// How many rows are dealt with at a time.
const PAGE: usize = 100;

/// The follower, and the list that it keeps. Cheap to clone.
#[derive(Clone)]
pub struct Notices {
    inner: Arc<Inner>,
}

struct Inner {
    rooms: Rooms,
    users: Users,
    judge: Judge,
    clock: SharedClock,
    /// How many rows were put for a user since theirs were counted.
    grown: DashMap<UserSid, usize>,
    /// How often an event was held against someone's rules.
    judged: AtomicU64,
}

impl Notices {
    /// A follower that has not begun: start it with [`super::run`] and [`Notices::run`].
    pub fn new(rooms: Rooms, users: Users, clock: SharedClock) -> Self {
        Self {
            inner: Arc::new(Inner {
                rooms,
                users,
                judge: Judge::new(),
                clock,
                grown: DashMap::new(),
                judged: AtomicU64::new(0),
            }),
        }
    }

    /// How often an event was held against someone's rules, since the start.
    pub fn judged(&self) -> u64 {
        self.inner.judged.load(Ordering::Relaxed)
    }

    /// Enters the rooms of new subscribers and takes invites from outside, as they come, until the shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let topics = [topic::newly_subscribed(), topic::outside_invites()];
        let (store, catch_up) = (self.inner.rooms.store(), || self.catch_up());
        super::whenever(
            store,
            &topics,
            "subscribers and invites",
            &shutdown,
            catch_up,
        )
        .await;
    }

    async fn catch_up(&self) -> Result<(), FollowError> {
        while book::enter_new(&self.inner.rooms).await? {}
        while self.take_outside_invites().await? {}
        Ok(())
    }

    /// Takes some invites from outside; says whether there may be more.
    async fn take_outside_invites(&self) -> Result<bool, FollowError> {
        let reader = self.inner.rooms.reader();
        let view = reader.view();
        let rows = view
            .range(
                &schema::OUTSIDE_INVITES,
                Range::all(),
                Direction::Forward,
                PAGE,
            )
            .await?;
        let mut batch = Batch::new();
        let mut round = Round::new(&self.inner, &reader);
        for ((position, user), room) in &rows {
            round.outside_invite(*user, *room, *position).await?;
            batch.delete(&schema::OUTSIDE_INVITES, &(*position, *user));
        }
        if rows.is_empty() {
            return Ok(false);
        }
        round.close(&mut batch).await?;
        match self.inner.rooms.store().write(batch).await {
            Ok(_) | Err(CommitError::AssertFailed) => Ok(rows.len() == PAGE),
            Err(error) => Err(error.into()),
        }
    }
}

#[async_trait]
impl Follower for Notices {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn follow(
        &self,
        page: &[(Position, LogRow)],
        batch: &mut Batch,
    ) -> Result<(), FollowError> {
        let reader = self.inner.rooms.reader();
        if !anyone_subscribes(&reader).await? {
            return Ok(());
        }
        let mut round = Round::new(&self.inner, &reader);
        for (position, row) in page {
            round.turn(*position, row).await?;
        }
        round.close(batch).await
    }

    /// Whoever sends is woken by the topic of the rows.
    async fn stored(&self, _: &[(Position, LogRow)]) {}
}

async fn anyone_subscribes(reader: &Reader) -> Result<bool, FollowError> {
    let first = reader
        .view()
        .first(&schema::PUSHERS, Range::all(), Direction::Forward);
    Ok(first.await?.is_some())
}

/// What went wrong with an account, as a follower says it.
pub(super) fn of_users(error: UsersError) -> FollowError {
    match error {
        UsersError::Store(error) => error.into(),
        UsersError::Commit(error) => error.into(),
        other => FollowError::User(other),
    }
}

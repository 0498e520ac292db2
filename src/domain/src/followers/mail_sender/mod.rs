//! Writes letters to people who are away: of what `notices` has noticed, if it is still unread after a delay, and they were not there meanwhile.
//!
//! - [`MailSender`] keeps in memory when it next looks at a user, and that is all it does when something happens: a new notice can be due
//!   no sooner than a delay from now, so a user for whom it looks sooner anyway costs nothing. A restart finds all in the store.
//! - `turn` asks [`Notices::unread`] when the time has come, decides (`plan`) whether there is a letter, and sends it. Nothing is queued:
//!   what was read, left or redacted while the mail server was away is in no letter.
//! - `plan` says when a letter is due: modes, rooms that rest because nobody reads them, quiet hours. It is pure.
//! - `letter` writes it, after asking again whether each event may be seen.
//!
//! How far a pusher is stands in [`schema::PUSHER_STATES`], as for gateways. Before a letter is sent for the first time, up to where it
//! tells is stored ([`schema::TOLD_BY_MAIL`]), and its Message-ID is made of that: what is sent again after a kill is the same letter, or a
//! shorter one. What was sent and what became of it is one batch.
//!
//! Someone is there if any of their devices made a request within the delay, unless it was a poll of /sync that says to be `unavailable` or
//! `offline`. A mail server that refuses an address for good (5xx) ends the pusher, and the server tells the person in its own room.

mod letter;
mod plan;
#[cfg(test)]
mod tests;
mod turn;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use vatra_store::{Direction, Position, Range, Wake};

use super::{FollowError, notices::Notices, push_sender::message::Names};
use crate::{
    clock::{Millis, SharedClock},
    flows::server_notices::ServerNotices,
    mail::{Mailer, templates::Templates},
    rooms::Rooms,
    schema::{self, PusherKind, UserSid, topic},
    users::Users,
};

/// How often is looked whether something is due.
const TICK: Duration = Duration::from_millis(250);
/// How many users are dealt with at a time, and how many of them at once.
const PAGE: usize = 64;
const AT_ONCE: usize = 4;
/// The wait after a failure of this server's own, in milliseconds.
const OWN_FAILURE_MS: Millis = 30_000;
/// How long nothing is sent after there was no mail server to speak to, in milliseconds: then twice as long, up to the longest.
const FIRST_PAUSE_MS: Millis = 5_000;
const LONGEST_PAUSE_MS: Millis = 60_000;

/// The page that stops letters, on this server.
pub const PAGE_PATH: &str = "/_matrix/client/unstable/vatra.email/unsubscribe";

/// What a sender is made of.
pub struct Parts {
    /// Who is notified of what.
    pub notices: Notices,
    /// The rooms.
    pub rooms: Rooms,
    /// Whose the pushers are, and who is there.
    pub users: Users,
    /// Who tells people that their address is refused; nobody, if the server has no voice.
    pub server_notices: Option<ServerNotices>,
    /// The way to the mail server.
    pub mailer: Mailer,
    /// What letters look like.
    pub templates: Arc<Templates>,
    /// The URL that people reach this server at.
    pub base_url: String,
    /// How long something is unread, and someone away, before they are written to, in milliseconds.
    pub delay_ms: Millis,
    /// The time.
    pub clock: SharedClock,
    /// When it ends.
    pub shutdown: CancellationToken,
}

/// The sender. Cheap to clone.
#[derive(Clone)]
pub struct MailSender {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    timers: Mutex<Timers>,
    pause: Mutex<Pause>,
    names: Names,
    counts: Counts,
}

/// While there is no mail server to speak to.
#[derive(Default)]
struct Pause {
    failures: u32,
    until: Millis,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    failed: AtomicU64,
    ended: AtomicU64,
}

/// How sending goes, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Letters that the mail server has taken.
    pub sent: u64,
    /// Attempts that failed and are made again.
    pub failed: u64,
    /// Pushers that have ended because their address is refused for good.
    pub ended: u64,
    /// Users who may have something to be told.
    pub waiting: u64,
}

/// When users are looked at.
#[derive(Default)]
struct Timers {
    by_user: BTreeMap<UserSid, Millis>,
    by_time: BTreeSet<(Millis, UserSid)>,
}

impl Timers {
    fn of(&self, user: UserSid) -> Option<Millis> {
        self.by_user.get(&user).copied()
    }

    /// At this time, or sooner if it was to be sooner.
    fn set(&mut self, user: UserSid, at: Millis) {
        if let Some(known) = self.of(user) {
            if known <= at {
                return;
            }
            self.by_time.remove(&(known, user));
        }
        self.by_user.insert(user, at);
        self.by_time.insert((at, user));
    }

    fn take_due(&mut self, now: Millis) -> Vec<UserSid> {
        let due = self.by_time.iter().take_while(|(at, _)| *at <= now);
        let due: Vec<_> = due.take(PAGE).copied().collect();
        for key in &due {
            self.by_time.remove(key);
            self.by_user.remove(&key.1);
        }
        due.into_iter().map(|(_, user)| user).collect()
    }
}

impl MailSender {
    /// A sender that has not begun: start it with [`MailSender::run`].
    pub fn new(parts: Parts) -> Self {
        Self {
            inner: Arc::new(Inner {
                parts,
                timers: Mutex::default(),
                pause: Mutex::default(),
                names: Names::new(),
                counts: Counts::default(),
            }),
        }
    }

    /// How sending goes.
    pub fn figures(&self) -> Figures {
        let counts = &self.inner.counts;
        let waiting = self.inner.timers().by_user.len();
        Figures {
            sent: counts.sent.load(Ordering::Relaxed),
            failed: counts.failed.load(Ordering::Relaxed),
            ended: counts.ended.load(Ordering::Relaxed),
            waiting: u64::try_from(waiting).unwrap_or(u64::MAX),
        }
    }

    /// Writes to people until the shutdown.
    pub async fn run(self) {
        tokio::join!(self.listen(), self.send());
    }

    /// Sends what becomes due.
    async fn send(&self) {
        let shutdown = &self.inner.parts.shutdown;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = tick.tick() => {}
            }
            // A letter that is under way when the server stops is sent again, as the same one.
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = async { while self.round().await {} } => {}
            }
        }
    }

    /// Deals with some of those who are due; says whether there may be more.
    pub(crate) async fn round(&self) -> bool {
        let now = self.inner.parts.clock.now();
        let due = self.inner.timers().take_due(now);
        let more = due.len() == PAGE;
        stream::iter(due)
            .for_each_concurrent(AT_ONCE, |user| async move {
                let next = match self.inner.serve(user).await {
                    Ok(next) => next,
                    Err(error) => {
                        warn!(%error, "a user cannot be written to");
                        Some(now.saturating_add(OWN_FAILURE_MS))
                    }
                };
                if let Some(at) = next {
                    self.inner.timers().set(user, at);
                }
            })
            .await;
        more
    }

    /// Notes for whom something has happened.
    async fn listen(&self) {
        let shutdown = &self.inner.parts.shutdown;
        // Subscribed before the store is read: what comes between is seen twice.
        let mut wakes = self.inner.parts.rooms.store().wakes();
        while let Err(error) = self.begin().await {
            warn!(%error, "what is unread cannot be read");
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(5)) => {}
            }
        }
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                wake = wakes.recv() => match wake {
                    Some(wake) => self.woken(&wake).await,
                    None => return,
                },
            }
        }
    }

    /// After a start: everyone who has something unread. One read for each of them.
    pub(crate) async fn begin(&self) -> Result<(), FollowError> {
        let mut range = Range::all();
        loop {
            let view = self.inner.parts.rooms.store().view();
            let first = view.first(&schema::NOTICES, range, Direction::Forward);
            let Some(((user, _), row)) = first.await? else {
                return Ok(());
            };
            let at = row.ts.saturating_add(self.inner.parts.delay_ms);
            self.inner.timers().set(user, at);
            range = Range::all().after(&(user, Position(u64::MAX)));
        }
    }

    /// Something has changed for some users. Those for whom is looked soon anyway cost nothing, the others one batched read.
    async fn woken(&self, wake: &Wake) {
        let at = self.inner.parts.clock.now();
        let at = at.saturating_add(self.inner.parts.delay_ms);
        let mut unknown = Vec::new();
        for topic in wake.topics.iter().filter(|it| it.kind == topic::NOTICES) {
            let user = UserSid(topic.id);
            let mut timers = self.inner.timers();
            if timers.of(user).is_some() {
                timers.set(user, at);
            } else {
                unknown.push(user);
            }
        }
        if unknown.is_empty() {
            return;
        }
        let view = self.inner.parts.rooms.store().view();
        let rows = match view.get_many(&schema::PUSHERS, &unknown).await {
            Ok(rows) => rows.into_iter().map(Option::unwrap_or_default).collect(),
            Err(error) => {
                warn!(%error, "pushers cannot be read");
                Vec::new()
            }
        };
        for (number, user) in unknown.into_iter().enumerate() {
            // Without the row they are looked at in vain.
            let written_to = rows.get(number).is_none_or(|row: &schema::PushersRow| {
                let mut kinds = row.pushers.iter().map(|it| &it.kind);
                kinds.any(|kind| matches!(kind, PusherKind::Email { .. }))
            });
            if written_to {
                self.inner.timers().set(user, at);
            }
        }
    }
}

impl Inner {
    fn timers(&self) -> MutexGuard<'_, Timers> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause(&self) -> MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is no mail server to speak to.
    fn pause_sending(&self, now: Millis) {
        let mut pause = self.pause();
        // Those that failed together count once.
        if pause.until <= now {
            let pause_ms = FIRST_PAUSE_MS.saturating_mul(1 << pause.failures.min(20));
            pause.until = now.saturating_add(pause_ms.min(LONGEST_PAUSE_MS));
            pause.failures = pause.failures.saturating_add(1);
        }
    }
}

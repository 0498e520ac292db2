//! One turn of one pusher: what it is told next, and what its gateway's answer means.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::Uri;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tracing::debug;

use super::{
    super::{
        FollowError,
        notices::{Notice, of_users},
    },
    Inner, REQUESTS_OF_GATEWAY,
    gateway::Answer,
    message::{self, About},
};
use crate::{
    clock::Millis,
    remote::TransportError,
    schema::{PusherKey, PusherKind, PusherRow, PusherStateRow, UserSid},
};

/// How long a gateway has to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// The wait after the first failure, doubled with each further one up to the longest, in milliseconds.
const FIRST_WAIT_MS: Millis = 2_000;
const LONGEST_WAIT_MS: Millis = 3_600_000;
/// What is older than this is not told any more, in milliseconds.
const TOO_OLD_MS: Millis = 24 * 3_600_000;
/// Nor is what stands behind so many newer ones.
const MAX_BEHIND: usize = 100;
/// How often a gateway may refuse one notification before it gives way to the next.
const MAX_REFUSALS: u32 = 5;
/// The longest reason that is kept, in characters.
const REASON_CHARACTERS: usize = 200;

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Something was told; there may be more.
    More,
    /// There is nothing to be told, or the pusher is gone.
    Nothing,
    /// The gateway did not take it: not before this time again.
    Wait(Millis),
}

/// What a gateway answers to a notification.
#[derive(Deserialize)]
struct Taken {
    #[serde(default)]
    rejected: Vec<String>,
}

/// What there is to be told.
enum Next {
    /// This; then the pusher is so far, and there may be more.
    Tell(Bytes, PusherStateRow, bool),
    /// Something that cannot be told: the pusher passes over it.
    PassOver(PusherStateRow),
    Nothing,
}

impl Inner {
    /// Tells a pusher the next thing.
    pub(super) async fn turn(&self, key: &PusherKey) -> Result<Turn, FollowError> {
        let (app_id, pushkey, user) = key;
        let pushers = self.parts.users.pushers(*user).await?;
        let pusher = pushers
            .into_iter()
            .filter(|it| matches!(it.kind, PusherKind::Http { .. }))
            .find(|it| it.app_id == *app_id && it.pushkey == *pushkey);
        let Some((pusher, state)) = pusher.zip(self.states.of(key).await?) else {
            return Ok(Turn::Nothing);
        };
        if state.retry_at > self.parts.clock.now() {
            return Ok(Turn::Wait(state.retry_at));
        }
        let (body, after, more) = match self.next(*user, &pusher, &state).await? {
            Next::Tell(body, after, more) => (body, after, more),
            Next::PassOver(after) => {
                self.states.set(key, state, after);
                return Ok(Turn::More);
            }
            Next::Nothing => return Ok(Turn::Nothing),
        };
        match self.post(&pusher, body).await {
            Ok(Verdict::Taken) => {
                self.counts.sent.fetch_add(1, Ordering::Relaxed);
                self.states.set(key, state, after);
                // What came meanwhile knocks.
                Ok(if more { Turn::More } else { Turn::Nothing })
            }
            Ok(Verdict::Rejected) => {
                self.counts.rejected.fetch_add(1, Ordering::Relaxed);
                debug!(app_id, "a gateway rejects a pusher: it is deleted");
                // Unless it was set anew meanwhile.
                let this = |it: &PusherRow| *it == pusher;
                let dropped = self.parts.users.drop_pushers(*user, this).await;
                dropped.map_err(of_users)?;
                Ok(Turn::Nothing)
            }
            Err(failure) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                let reason = &failure.reason;
                debug!(app_id, reason, "a gateway does not take a notification");
                Ok(self.failed(key, state, after, failure))
            }
        }
    }

    /// The oldest that was not told, with the count; or the count alone, if it is another than was told last.
    async fn next(
        &self,
        user: UserSid,
        pusher: &PusherRow,
        state: &PusherStateRow,
    ) -> Result<Next, FollowError> {
        let unread = self.parts.notices.unread(user).await?;
        let badge = u64::try_from(unread.len()).unwrap_or(u64::MAX);
        let mut after = PusherStateRow {
            sent: state.sent,
            badge,
            ..PusherStateRow::default()
        };
        let now = self.parts.clock.now();
        let Some((at, notice)) = next_of(&unread, state, pusher, now) else {
            if badge == state.badge {
                return Ok(Next::Nothing);
            }
            let body = message::count(pusher, badge);
            return Ok(body.map_or(Next::Nothing, |body| Next::Tell(body, after, false)));
        };
        after.sent = *at;
        let reader = self.parts.rooms.reader();
        let about = About::new(&reader, &self.names, user, notice, pusher).await?;
        let Some(body) = about.and_then(|about| message::event(&about, pusher, badge)) else {
            after.badge = state.badge;
            return Ok(Next::PassOver(after));
        };
        let more = unread.last().is_some_and(|(last, _)| last > at);
        Ok(Next::Tell(body, after, more))
    }

    /// It is tried again later; what the gateway itself refuses, a few times.
    fn failed(
        &self,
        key: &PusherKey,
        state: PusherStateRow,
        next: PusherStateRow,
        failure: Failure,
    ) -> Turn {
        let failures = state.failures.saturating_add(1);
        let wait = self
            .wait(failures)
            .max(failure.wait_ms.min(LONGEST_WAIT_MS));
        let retry_at = self.parts.clock.now().saturating_add(wait);
        let gives_way = failure.refused && failures.is_multiple_of(MAX_REFUSALS);
        let (sent, badge) = if gives_way {
            (next.sent, next.badge)
        } else {
            (state.sent, state.badge)
        };
        let after = PusherStateRow {
            sent,
            badge,
            failures,
            retry_at,
            error: Some(failure.reason.chars().take(REASON_CHARACTERS).collect()),
        };
        self.states.set(key, state, after);
        Turn::Wait(retry_at)
    }

    /// Doubled with each failure, times 0.75 to 1.25.
    fn wait(&self, failures: u32) -> Millis {
        let doubled = FIRST_WAIT_MS.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let capped = doubled.min(LONGEST_WAIT_MS);
        let mut byte = [0_u8; 1];
        self.parts.random.fill(&mut byte);
        let [byte] = byte;
        capped / 4 * 3 + capped / 2 * u64::from(byte) / 255
    }

    /// Posts to a pusher's gateway.
    async fn post(&self, pusher: &PusherRow, body: Bytes) -> Result<Verdict, Failure> {
        let PusherKind::Http { url } = &pusher.kind else {
            return Err(Failure::of("it is no pusher of a gateway"));
        };
        let url: Uri = url.parse().map_err(|_| Failure::of("the URL is none"))?;
        let gateway = url.authority().map_or("", |it| it.as_str()).to_owned();
        let places = Arc::clone(
            &self
                .gateways
                .entry(gateway)
                .or_insert_with(|| Arc::new(Semaphore::new(REQUESTS_OF_GATEWAY))),
        );
        // First a place at the gateway, then one of all: who waits for a slow gateway takes no place from others.
        let closed = |_| Failure::of("this server stops");
        let _at_gateway = places.acquire().await.map_err(closed)?;
        let _of_all = self.places.acquire().await.map_err(closed)?;
        let posted = tokio::time::timeout(PATIENCE, self.parts.gateway.post(&url, body)).await;
        let answer = posted
            .unwrap_or(Err(TransportError::TooSlow))
            .map_err(|error| Failure::of(&error.to_string()))?;
        judged(&answer, pusher)
    }
}

/// What a gateway makes of a notification.
enum Verdict {
    Taken,
    /// There is no such phone any more.
    Rejected,
}

/// Why a notification was not taken.
struct Failure {
    reason: String,
    /// The gateway says that it is the notification's fault.
    refused: bool,
    /// The least wait that it asks for.
    wait_ms: Millis,
}

impl Failure {
    fn of(reason: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            refused: false,
            wait_ms: 0,
        }
    }
}

fn judged(answer: &Answer, pusher: &PusherRow) -> Result<Verdict, Failure> {
    let status = answer.status;
    if !(200..300).contains(&status) {
        let mut failure = Failure::of(&format!("it answered {status}"));
        failure.refused = (300..500).contains(&status) && status != 429;
        if status == 429 {
            failure.wait_ms = 60_000;
        }
        return Err(failure);
    }
    // What cannot be read rejects nobody.
    let taken: Option<Taken> = serde_json::from_slice(&answer.body).ok();
    let rejected = taken.is_some_and(|taken| taken.rejected.contains(&pusher.pushkey));
    Ok(if rejected {
        Verdict::Rejected
    } else {
        Verdict::Taken
    })
}

/// The oldest notice that a pusher has not been told, of those that are still worth telling.
fn next_of<'a>(
    unread: &'a [Notice],
    state: &PusherStateRow,
    pusher: &PusherRow,
    now: Millis,
) -> Option<&'a Notice> {
    let after = state.sent.max(pusher.since);
    let newest = unread
        .iter()
        .rev()
        .take(MAX_BEHIND)
        .take_while(|(at, _)| *at > after);
    let fresh = newest.filter(|(_, row)| row.ts.saturating_add(TOO_OLD_MS) > now);
    fresh.last()
}

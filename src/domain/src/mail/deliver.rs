//! The tasks that send what is queued: one for urgent letters, one for the others.
//!
//! A letter that the mail server puts off (4xx) waits by itself, twice as long each time; one that it refuses (5xx) is recorded as failed.
//! While there is no mail server to speak to, letters stay where they are and the task waits; a letter over which alone it breaks off waits
//! by itself. What was sent and what became of it is
//! one batch: a kill before that sends the letter again, as the same one.

use std::{collections::VecDeque, sync::atomic::Ordering, time::Duration};

use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use vatra_store::{Batch, CommitError, Direction, Range};

use super::{Letter, MailError, Mailer, SendError, Urgency};
use crate::{
    clock::Millis,
    schema::{self, MailOutcomeRow, MailRow},
};

/// How many letters a round takes, and how many of them are under way at once.
const ROUND: usize = 16;
const AT_ONCE: usize = 4;
/// The first wait, in milliseconds, of a letter that was put off and of a task without a mail server; then twice as long.
const FIRST_WAIT_MS: Millis = 5_000;
/// The longest wait of a letter, in milliseconds.
const LONGEST_WAIT_MS: Millis = 30 * 60_000;
/// The longest wait of a task without a mail server, in milliseconds: one attempt to connect costs little.
const LONGEST_PAUSE_MS: Millis = 60_000;
/// The hour of the limit, in milliseconds.
const HOUR_MS: Millis = 3_600_000;
/// How long failures are kept, in milliseconds: thirty days.
const FAILURES_KEPT_MS: Millis = 30 * 24 * HOUR_MS;
/// The longest reason that is kept, in characters.
const REASON_CHARACTERS: usize = 300;

/// The first part of the keys of outcomes.
const SENT: u64 = 0;
const FAILED: u64 = 1;

/// What a round came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// There may be more to do at once.
    Again,
    /// Nothing to do before a time.
    Until(Millis),
    /// Nothing to do.
    Idle,
    /// There is no mail server to speak to.
    Unreachable,
}

/// What became of an attempt to send a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// It was made.
    Made(Result<(), SendError>),
    /// None was made: so many letters were sent that the next may be sent at this time.
    NotBefore(Millis),
}

type Queued = ((u64, u64, String), MailRow);

impl Mailer {
    /// Sends letters of one urgency until `stop`.
    pub async fn run(self, urgency: Urgency, stop: CancellationToken) {
        let mut failures = 0_u32;
        while !stop.is_cancelled() {
            self.visible(urgency).await;
            let wait = match self.round(urgency).await {
                Ok(Round::Again) => {
                    failures = 0;
                    continue;
                }
                Ok(Round::Idle) => LONGEST_PAUSE_MS,
                // The clock may be set meanwhile, so that no wait is long.
                Ok(Round::Until(due)) => due.saturating_sub(self.now()).min(LONGEST_PAUSE_MS),
                Ok(Round::Unreachable) => {
                    failures = failures.saturating_add(1);
                    doubled(failures, LONGEST_PAUSE_MS)
                }
                Err(error) => {
                    warn!(%error, "mail cannot be read from the store or recorded");
                    LONGEST_PAUSE_MS
                }
            };
            let unreachable = failures > 0;
            tokio::select! {
                () = stop.cancelled() => return,
                // A new letter does not make the mail server come back.
                () = self.bell(urgency).notify.notified(), if !unreachable => {}
                () = tokio::time::sleep(Duration::from_millis(wait.max(1))) => {}
            }
        }
    }

    /// Sends what is due, at most some letters.
    ///
    /// # Errors
    /// The store's. What was sent meanwhile may be sent again.
    pub async fn round(&self, urgency: Urgency) -> Result<Round, MailError> {
        let now = self.now();
        let room = match self.room(urgency, now).await? {
            Ok(room) => room.min(ROUND),
            Err(until) => return Ok(Round::Until(until)),
        };
        let range = Range::prefix(&(urgency.key(),));
        let view = self.inner.parts.store.view();
        let rows = view
            .range(&schema::MAIL_QUEUE, range, Direction::Forward, room)
            .await?;
        let (due, later): (Vec<Queued>, Vec<Queued>) =
            rows.into_iter().partition(|((_, due, _), _)| *due <= now);
        if due.is_empty() {
            let next = later.into_iter().next();
            return Ok(next.map_or(Round::Idle, |((_, due, _), _)| Round::Until(due)));
        }
        let delivered: Vec<_> = stream::iter(due)
            .map(|queued| self.deliver(queued))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let (mut answered, mut left) = (false, Vec::new());
        for one in delivered {
            match one? {
                None => answered = true,
                Some(queued) => left.push(queued),
            }
        }
        if !answered {
            return Ok(Round::Unreachable);
        }
        // The mail server is there: what it breaks off over must not stand in the way of the others.
        for (key, row) in left {
            self.put_off(key, &row).await?;
        }
        Ok(Round::Again)
    }

    /// Sends one letter and records what became of it; gives it back as it was if there is no mail server to speak to.
    async fn deliver(&self, (key, row): Queued) -> Result<Option<Queued>, MailError> {
        let id = key.2.clone();
        if row.give_up <= self.now() {
            self.gone(key, &row, Some("it could not be sent in time"))
                .await?;
            return Ok(None);
        }
        match self
            .inner
            .parts
            .sender
            .send(&Letter::of_row(id.clone(), &row))
            .await
        {
            Ok(()) => {
                info!(%id, "mail was sent");
                self.gone(key, &row, None).await?;
            }
            Err(SendError::Never(reason)) => {
                warn!(%id, %reason, "mail was refused");
                self.gone(key, &row, Some(&reason)).await?;
            }
            Err(SendError::Later(reason)) => {
                info!(%id, %reason, "mail was put off");
                self.put_off(key, &row).await?;
            }
            Err(SendError::Unreachable(reason)) => {
                warn!(%reason, "the mail server cannot be used");
                return Ok(Some((key, row)));
            }
        }
        Ok(None)
    }

    /// The letter leaves the queue: sent, or failed.
    async fn gone(
        &self,
        key: (u64, u64, String),
        row: &MailRow,
        error: Option<&str>,
    ) -> Result<(), MailError> {
        let mut batch = Batch::new();
        batch.assert_equals(&schema::MAIL_QUEUE, &key, row);
        batch.delete(&schema::MAIL_QUEUE, &key);
        self.record(&mut batch, &key.2, error).await;
        self.write(batch).await
    }

    /// Notes what became of a letter, which was sent unless there was an `error`: in a batch together with all that this changes.
    pub async fn record(&self, batch: &mut Batch, id: &str, error: Option<&str>) {
        let now = self.now();
        let outcome = MailOutcomeRow {
            error: error.map(|error| error.chars().take(REASON_CHARACTERS).collect()),
        };
        let kind = if error.is_some() { FAILED } else { SENT };
        batch.put(
            &schema::MAIL_OUTCOMES,
            &(kind, now, id.to_owned()),
            &outcome,
        );
        for (kind, kept) in [(SENT, HOUR_MS), (FAILED, FAILURES_KEPT_MS)] {
            let old = (kind, now.saturating_sub(kept), String::new());
            let range = Range::prefix(&(kind,)).before(&old);
            batch.delete_range(&schema::MAIL_OUTCOMES, range);
        }
        if error.is_some() {
            self.inner.counts.failed.fetch_add(1, Ordering::Relaxed);
        } else {
            self.inner.counts.sent.fetch_add(1, Ordering::Relaxed);
            if let Some(recent) = &mut *self.inner.recent.lock().await {
                recent.push_back(now);
            }
        }
    }

    /// Sends a letter that is not queued, since what it says is right only now: once, unless the hour's letters are used up. Whoever
    /// calls decides what comes of it, and calls [`Mailer::record`].
    ///
    /// # Errors
    /// The store's.
    pub async fn attempt(&self, letter: &Letter) -> Result<Attempt, MailError> {
        if let Err(until) = self.room(Urgency::Other, self.now()).await? {
            return Ok(Attempt::NotBefore(until));
        }
        let sent = self.inner.parts.sender.send(letter).await;
        if let Err(SendError::Later(_)) = &sent {
            self.inner.counts.put_off.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Attempt::Made(sent))
    }

    /// The letter is tried again later.
    async fn put_off(&self, key: (u64, u64, String), row: &MailRow) -> Result<(), MailError> {
        let attempts = row.attempts.saturating_add(1);
        let wait = self.scattered(doubled(attempts, LONGEST_WAIT_MS));
        let due = self.now().saturating_add(wait);
        let mut batch = Batch::new();
        batch.assert_equals(&schema::MAIL_QUEUE, &key, row);
        batch.delete(&schema::MAIL_QUEUE, &key);
        let new = MailRow {
            attempts,
            ..row.clone()
        };
        batch.put(&schema::MAIL_QUEUE, &(key.0, due, key.2), &new);
        self.inner.counts.put_off.fetch_add(1, Ordering::Relaxed);
        self.write(batch).await
    }

    /// A letter that is no longer there as it was read was withdrawn meanwhile.
    async fn write(&self, batch: Batch) -> Result<(), MailError> {
        match self.inner.parts.store.write(batch).await {
            Err(CommitError::AssertFailed) => Ok(()),
            other => other.map(|_| ()).map_err(Into::into),
        }
    }

    /// How many letters may be sent now, or when one may.
    async fn room(
        &self,
        urgency: Urgency,
        now: Millis,
    ) -> Result<Result<usize, Millis>, MailError> {
        let hour_ago = now.saturating_sub(HOUR_MS);
        let mut recent = self.inner.recent.lock().await;
        let recent = match &mut *recent {
            Some(recent) => recent,
            unread => unread.insert(self.read_recent(hour_ago).await?),
        };
        while recent.front().is_some_and(|sent| *sent <= hour_ago) {
            recent.pop_front();
        }
        let most = self.inner.parts.max_per_hour;
        let allowed = match urgency {
            Urgency::Urgent => most,
            Urgency::Other => most.saturating_sub(most.div_ceil(10)).max(1),
        };
        match recent.get(recent.len().saturating_sub(allowed)) {
            Some(sent) if recent.len() >= allowed => Ok(Err(sent.saturating_add(HOUR_MS))),
            _ => Ok(Ok(allowed.saturating_sub(recent.len()))),
        }
    }

    async fn read_recent(&self, hour_ago: Millis) -> Result<VecDeque<Millis>, MailError> {
        let view = self.inner.parts.store.view();
        let range = Range::prefix(&(SENT,)).after(&(SENT, hour_ago, String::new()));
        let most = self.inner.parts.max_per_hour;
        let rows = view
            .range(&schema::MAIL_OUTCOMES, range, Direction::Backward, most)
            .await?;
        Ok(rows.into_iter().rev().map(|((_, at, _), _)| at).collect())
    }

    /// Times 0.75 to 1.25: letters that were put off together do not come back together.
    fn scattered(&self, wait: Millis) -> Millis {
        let mut byte = [0_u8; 1];
        self.inner.parts.random.fill(&mut byte);
        let [byte] = byte;
        wait / 4 * 3 + wait / 2 * u64::from(byte) / 255
    }
}

fn doubled(times: u32, longest: Millis) -> Millis {
    let doubled = FIRST_WAIT_MS.saturating_mul(1 << times.saturating_sub(1).min(20));
    doubled.min(longest)
}

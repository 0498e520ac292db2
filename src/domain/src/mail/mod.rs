//! Mail: letters from templates, and a queue that outlives a stop of this server and of the mail server.
//!
//! - `address`: what an address is, and its canonical form
//! - `templates`: letters and pages in people's languages, which an operator can override
//! - `queue`: a letter is queued in the batch of what it tells of; `deliver`: a task for urgent and one for other letters
//! - `transport`: the boundary to the mail server, which the server crate implements over SMTP
//!
//! Called by `users` (addresses are shown to be one's own) and by whoever tells people of something by mail. The queue delivers at least
//! once: a kill between a mail server's "taken" and the commit of it sends a letter again, with the same Message-ID.
//! What is right only at the moment of sending is not queued: who tells it keeps it, and calls [`Mailer::attempt`].
//! To add a kind of letter: its two files in `templates/en` and `templates/ro`, and a line in `templates::LETTERS`.

pub mod address;
mod deliver;
mod letter;
mod queue;
pub mod templates;
#[cfg(test)]
mod tests;
mod transport;

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ruma::OwnedServerName;
use tokio::sync::{Mutex, Notify};
use vatra_store::{CommitError, Store, StoreError};

pub use self::{
    deliver::{Attempt, Round},
    letter::{Letter, List},
    queue::{Delivery, Urgency},
    transport::{SendError, SendMail},
};
use crate::{
    clock::{Millis, SharedClock},
    random::SharedRandom,
};

/// What mail is made of.
pub struct Parts {
    /// The store.
    pub store: Store,
    /// The time.
    pub clock: SharedClock,
    /// For Message-IDs and waits.
    pub random: SharedRandom,
    /// The way to the mail server.
    pub sender: Arc<dyn SendMail>,
    /// The part of Message-IDs after the `@`.
    pub server_name: OwnedServerName,
    /// The most letters that are sent within an hour. A tenth of it is kept for urgent ones.
    pub max_per_hour: usize,
}

/// The queue of letters. Cheap to clone.
#[derive(Clone)]
pub struct Mailer {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    counts: Counts,
    /// When letters were sent within the last hour; read from the store at first.
    recent: Mutex<Option<VecDeque<Millis>>>,
    urgent: Bell,
    other: Bell,
}

/// Wakes a task.
#[derive(Default)]
struct Bell {
    notify: Notify,
    /// The position of the newest letter.
    newest: AtomicU64,
}

/// Figures since the start.
#[derive(Debug, Default)]
pub struct Counts {
    queued: AtomicU64,
    sent: AtomicU64,
    failed: AtomicU64,
    put_off: AtomicU64,
}

impl Counts {
    /// Letters that were queued.
    pub fn queued(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }

    /// Letters that the mail server took.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Letters that were given up.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Attempts that failed and are made again.
    pub fn put_off(&self) -> u64 {
        self.put_off.load(Ordering::Relaxed)
    }
}

/// Why the queue cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not take the rows.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Mailer {
    /// A queue in a store. [`Mailer::run`] sends what is in it.
    pub fn new(parts: Parts) -> Self {
        let inner = Inner {
            parts,
            counts: Counts::default(),
            recent: Mutex::new(None),
            urgent: Bell::default(),
            other: Bell::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Figures since the start.
    pub fn counts(&self) -> &Counts {
        &self.inner.counts
    }

    /// The way to the mail server, for an operator who tries it.
    pub fn sender(&self) -> &dyn SendMail {
        &*self.inner.parts.sender
    }

    fn now(&self) -> Millis {
        self.inner.parts.clock.now()
    }

    fn bell(&self, urgency: Urgency) -> &Bell {
        match urgency {
            Urgency::Urgent => &self.inner.urgent,
            Urgency::Other => &self.inner.other,
        }
    }
}

//! Which servers are left alone for a while because they do not answer.
//!
//! A failure doubles the wait (with jitter, so that a thousand servers do not come back to one at the same moment); an
//! answer, or hearing from the server, ends it. Waits are stored, so that a restart does not knock on every dead door;
//! what strangers can cause (fetching the keys of a server that they name) is only remembered in memory.

use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};
use tracing::{debug, warn};
use vatra_store::{Batch, Store};

use crate::{
    clock::{Millis, SharedClock},
    random::SharedRandom,
    schema::{self, BackoffRow},
};

/// The wait after the first failure, in milliseconds.
const FIRST_WAIT_MS: Millis = 1_000;
/// The longest wait, in milliseconds.
const LONGEST_WAIT_MS: Millis = 3_600_000;

/// The longest reason that is kept, in characters.
const REASON_CHARACTERS: usize = 200;

/// The waits of all destinations.
pub(super) struct Backoffs {
    store: Store,
    clock: SharedClock,
    random: SharedRandom,
    /// What the store says, and what is not stored. `None`: the server is well.
    known: Cache<OwnedServerName, Option<BackoffRow>>,
}

impl Backoffs {
    pub(super) fn new(store: Store, clock: SharedClock, random: SharedRandom) -> Self {
        Self {
            store,
            clock,
            random,
            known: Cache::new(20_000),
        }
    }

    /// The wait that a server is in or has been in, if it has not answered since.
    pub(super) async fn of(&self, server: &ServerName) -> Option<BackoffRow> {
        if let Some(known) = self.known.get(server) {
            return known;
        }
        let row = match self
            .store
            .view()
            .get(&schema::BACKOFFS, &server.to_string())
            .await
        {
            Ok(row) => row,
            Err(error) => {
                warn!(%server, %error, "a server's backoff cannot be read: it is asked again");
                None
            }
        };
        self.known.insert(server.to_owned(), row.clone());
        row
    }

    /// When the server may be asked again, if that is not now.
    pub(super) async fn until(&self, server: &ServerName) -> Option<Millis> {
        let row = self.of(server).await?;
        (row.retry_at > self.clock.now()).then_some(row.retry_at)
    }

    /// An attempt that began at `started` has failed. Attempts that ran side by side count as one.
    pub(super) async fn failed(
        &self,
        server: &ServerName,
        started: Millis,
        reason: &str,
        least_wait_ms: Option<Millis>,
        stored: bool,
    ) {
        let before = self.of(server).await;
        if before.as_ref().is_some_and(|row| row.failed_at >= started) {
            return;
        }
        let failures = before.map_or(0, |row| row.failures).saturating_add(1);
        let now = self.clock.now();
        let wait = self
            .wait(failures)
            .max(least_wait_ms.unwrap_or(0).min(LONGEST_WAIT_MS));
        let row = BackoffRow {
            failures,
            failed_at: now,
            retry_at: now.saturating_add(wait),
            reason: reason.chars().take(REASON_CHARACTERS).collect(),
        };
        debug!(%server, failures, wait_ms = wait, reason, "a server does not answer");
        self.known.insert(server.to_owned(), Some(row.clone()));
        if stored {
            let mut batch = Batch::new();
            batch.put(&schema::BACKOFFS, &server.to_string(), &row);
            self.write(server, batch).await;
        }
    }

    /// The server has answered, or was heard from. Returns whether it was waited for.
    pub(super) async fn ended(&self, server: &ServerName) -> bool {
        if self.of(server).await.is_none() {
            return false;
        }
        self.known.insert(server.to_owned(), None);
        let mut batch = Batch::new();
        batch.delete(&schema::BACKOFFS, &server.to_string());
        self.write(server, batch).await;
        true
    }

    /// A lost row costs one attempt too many or a wait too long: nobody has to wait for it.
    async fn write(&self, server: &ServerName, batch: Batch) {
        if let Err(error) = self.store.write(batch).await {
            warn!(%server, %error, "a server's backoff cannot be stored");
        }
    }

    /// Doubled with each failure, times 0.75 to 1.25.
    fn wait(&self, failures: u32) -> Millis {
        let doubled = FIRST_WAIT_MS.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let capped = doubled.min(LONGEST_WAIT_MS);
        let mut byte = [0_u8; 1];
        self.random.fill(&mut byte);
        let [byte] = byte;
        capped / 4 * 3 + capped / 2 * u64::from(byte) / 255
    }
}

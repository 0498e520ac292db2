//! Getting another server's keys: from itself, else from a notary; once at a time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ruma::{
    OwnedServerName, ServerName,
    api::federation::discovery::{
        ServerSigningKeys, get_remote_server_keys_batch, get_server_keys,
    },
    serde::Raw,
};
use tokio::sync::Mutex;
use tracing::debug;
use vatra_store::Batch;

use super::{Inner, Keys, document};
use crate::{
    clock::Millis,
    remote::Bounds,
    schema::{self, KeyDocumentRow},
};

/// A server whose keys were asked for is not asked again for this long, in milliseconds, whatever came of it.
const PAUSE_MS: Millis = 10_000;

/// What one answer about keys may cost.
fn bounds() -> Bounds {
    Bounds {
        limit_bytes: 4 * document::MAX_BYTES,
        timeout: Duration::from_secs(12),
        // The pause is the wait: a server that is back, and signs, must be believed at once.
        urgent: true,
    }
}

/// A place in the queue for a server's keys. Whoever goes away, also in the middle, leaves nothing behind: strangers name the
/// servers.
struct Place<'a> {
    inner: &'a Inner,
    server: &'a ServerName,
    lock: Arc<Mutex<()>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // Two holders: the map and this place. Whoever waits holds a third.
        self.inner
            .fetching
            .remove_if(self.server, |_, held| Arc::strong_count(held) <= 2);
    }
}

impl Keys {
    /// Fetches what a server publishes, unless that was just done; returns when it is stored, or cannot be had.
    pub(super) async fn fetch(&self, server: &ServerName) {
        let inner = &*self.inner;
        let place = Place {
            inner,
            server,
            lock: inner.fetching.entry(server.to_owned()).or_default().clone(),
        };
        let _alone = place.lock.lock().await;
        let now = inner.clock.now();
        let asked = inner.asked.get(server);
        if asked.is_none_or(|asked| now.saturating_sub(asked) >= PAUSE_MS) {
            // An error would mean that the semaphore is closed, which it never is.
            let _slot = inner.slots.acquire().await;
            self.fetch_now(server).await;
            inner.asked.insert(server.to_owned(), inner.clock.now());
        }
    }

    async fn fetch_now(&self, server: &ServerName) {
        let request = get_server_keys::v2::Request::new();
        let answer = self.inner.remote.ask(server, request, bounds()).await;
        let taken = match answer {
            Ok(answer) => self.take(server, &answer.server_key).await,
            Err(error) => Err(error.to_string()),
        };
        let Err(reason) = taken else { return };
        debug!(%server, reason, "a server's keys cannot be had from itself");
        if self.inner.notaries.iter().any(|notary| notary == server) {
            // Notaries speak for others only: two that asked each other would wait for each other.
            return;
        }
        for notary in &self.inner.notaries {
            match self.ask_notary(notary, server).await {
                Ok(()) => return,
                Err(reason) => debug!(%server, %notary, reason, "a notary has no keys"),
            }
        }
    }

    /// Asks a trusted server about another. What it says must be signed by it, and by the server it is about.
    async fn ask_notary(
        &self,
        notary: &OwnedServerName,
        server: &ServerName,
    ) -> Result<(), String> {
        let about = BTreeMap::from([(server.to_owned(), BTreeMap::new())]);
        let request = get_remote_server_keys_batch::v2::Request::new(about);
        let answer = self.inner.remote.ask(notary, request, bounds()).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let mut reason = "it knows nothing".to_owned();
        for key in answer.server_keys.iter().take(16) {
            let object =
                serde_json::from_str(key.json().get()).map_err(|error| error.to_string())?;
            let now = crate::clock::to_ruma(self.inner.clock.now());
            // The notary's own keys come from itself.
            Box::pin(self.verify_json(notary, &object, now))
                .await
                .map_err(|error| error.to_string())?;
            match self.take(server, key).await {
                Ok(()) => return Ok(()),
                Err(error) => reason = error,
            }
        }
        Err(reason)
    }

    /// Checks and stores what a server has published.
    async fn take(&self, server: &ServerName, key: &Raw<ServerSigningKeys>) -> Result<(), String> {
        let inner = &*self.inner;
        if server == inner.signer.server_name() {
            return Err("nobody tells this server its own keys".to_owned());
        }
        let now = inner.clock.now();
        let read = document::read(key.json().get(), server, now)?;
        let mut batch = Batch::new();
        let mut rows = Vec::new();
        for (id, mut row) in read.keys {
            let name = (server.to_string(), id);
            let view = inner.store.view();
            let known = view.get(&schema::SERVER_KEYS, &name).await;
            let known = known.map_err(|error| error.to_string())?;
            if let Some(known) = known.filter(|known| known.key == row.key && !row.retired) {
                // What it vouched for once stays vouched for.
                row.valid_until = row.valid_until.max(known.valid_until);
            }
            batch.put(&schema::SERVER_KEYS, &name, &row);
            rows.push(((server.to_owned(), name.1), row));
        }
        let document = KeyDocumentRow {
            json: serde_json::to_string(&read.object).map_err(|error| error.to_string())?,
            fetched: now,
            valid_until: read.valid_until,
        };
        batch.put(&schema::KEY_DOCUMENTS, &server.to_string(), &document);
        let written = inner.store.write(batch).await;
        written.map_err(|error| error.to_string())?;
        for (key, row) in rows {
            inner.known.insert(key, row);
        }
        Ok(())
    }
}

//! Other servers, as seen from below: asking them, and knowing their keys. Outbound only; what comes in is `federation`'s.
//!
//! | module | what |
//! |---|---|
//! | [`transport`] | the boundary to the network |
//! | [`error`] | why there is no answer |
//! | [`keys`] | this server's published keys, and the keys of others |
//! | `backoff` | who is left alone for a while |
//!
//! Called by everything above that needs another server: `rooms` fills gaps with it, `federation` joins with it, the sender
//! delivers with it. Invariants: every request names its destination and is signed (except those that the spec has
//! unsigned); a caller decides nothing about retries; nothing here knows rooms. No call may be made under a room guard.

mod backoff;
pub mod error;
pub mod keys;
mod request;
#[cfg(test)]
mod tests;
pub mod transport;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use ruma::{OwnedServerName, ServerName, api::federation::authentication::XMatrix};
use tokio::sync::broadcast;
use vatra_store::Store;

use self::{
    backoff::Backoffs,
    request::{read, refused, written},
};
pub use self::{
    error::{Refusal, RemoteError},
    keys::{KeyError, Keys},
    request::{FixedPath, SignedRequest, UnsignedRequest},
    transport::{ByteStream, Transport, TransportError},
};
use crate::{
    clock::{Millis, SharedClock},
    event::signer::Signer,
    random::SharedRandom,
    schema::BackoffRow,
};

/// What an answer may cost.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The largest answer, in bytes; it is held in memory.
    pub limit_bytes: usize,
    /// How long everything may take, from finding the server to the last byte.
    pub timeout: Duration,
    /// Asks even a server that is being left alone: because a person is waiting for the answer.
    pub urgent: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            limit_bytes: 4 << 20,
            timeout: Duration::from_secs(30),
            urgent: false,
        }
    }
}

impl Bounds {
    /// For what a person waits for.
    pub fn urgent() -> Self {
        Self {
            urgent: true,
            ..Self::default()
        }
    }

    /// For the state of a large room.
    pub fn large() -> Self {
        Self {
            limit_bytes: 256 << 20,
            timeout: Duration::from_secs(180),
            urgent: false,
        }
    }
}

/// Asks other servers. Cheap to clone.
#[derive(Clone)]
pub struct Remote {
    inner: Arc<Inner>,
}

struct Inner {
    signer: Arc<Signer>,
    transport: Arc<dyn Transport>,
    clock: SharedClock,
    backoffs: Backoffs,
    heard: broadcast::Sender<OwnedServerName>,
}

/// What a [`Remote`] is made of.
pub struct Parts {
    /// Where backoffs are kept.
    pub store: Store,
    /// The time.
    pub clock: SharedClock,
    /// Jitter.
    pub random: SharedRandom,
    /// This server's key and name.
    pub signer: Arc<Signer>,
    /// The network.
    pub transport: Arc<dyn Transport>,
}

impl Remote {
    /// Asks with these parts.
    pub fn new(parts: Parts) -> Self {
        let (heard, _) = broadcast::channel(1024);
        Self {
            inner: Arc::new(Inner {
                signer: parts.signer,
                transport: parts.transport,
                clock: parts.clock.clone(),
                backoffs: Backoffs::new(parts.store, parts.clock, parts.random),
                heard,
            }),
        }
    }

    /// This server's name.
    pub fn server_name(&self) -> &ServerName {
        self.inner.signer.server_name()
    }

    /// Whether this server speaks with others at all.
    pub fn is_open(&self) -> bool {
        self.inner.transport.is_open()
    }

    /// Sends a signed request with the default [`Bounds`] and reads the answer.
    ///
    /// # Errors
    /// The answer of a server that says no is [`RemoteError::Answered`]; it counts as reached, unless its status is 429 or 5xx.
    pub async fn call<R: SignedRequest>(
        &self,
        destination: &ServerName,
        request: R,
    ) -> Result<R::IncomingResponse, RemoteError> {
        self.call_within(destination, request, Bounds::default())
            .await
    }

    /// Sends a signed request and reads the answer.
    ///
    /// # Errors
    /// As [`Remote::call`].
    pub async fn call_within<R: SignedRequest>(
        &self,
        destination: &ServerName,
        request: R,
        bounds: Bounds,
    ) -> Result<R::IncomingResponse, RemoteError> {
        let request = self.signed(destination, request)?;
        let response = self.exchange(destination, request, bounds, true).await?;
        read::<R>(response)
    }

    /// Sends a signed request and hands over the answer's body as it comes: for what is too large to be held. The bounds hold for
    /// the head only; the caller bounds the body in size and time.
    ///
    /// # Errors
    /// As [`Remote::call`].
    pub async fn stream<R: SignedRequest>(
        &self,
        destination: &ServerName,
        request: R,
        bounds: Bounds,
    ) -> Result<Response<ByteStream>, RemoteError> {
        let request = self.signed(destination, request)?;
        self.begin(destination, request, bounds).await
    }

    /// The same for a path that needs no signature and is not ruma's.
    ///
    /// # Errors
    /// As [`Remote::call`].
    pub async fn stream_path(
        &self,
        destination: &ServerName,
        path: &str,
        bounds: Bounds,
    ) -> Result<Response<ByteStream>, RemoteError> {
        let request = Request::get(path).body(Bytes::new());
        let request = request.map_err(|error| RemoteError::Unwritable(error.to_string()))?;
        self.begin(destination, request, bounds).await
    }

    async fn begin(
        &self,
        destination: &ServerName,
        request: Request<Bytes>,
        bounds: Bounds,
    ) -> Result<Response<ByteStream>, RemoteError> {
        self.check(destination, bounds).await?;
        let started = self.inner.clock.now();
        let sent = self.inner.transport.send(destination, request);
        let outcome = in_time(bounds.timeout, sent).await;
        self.judge(destination, started, true, verdict(&outcome))
            .await;
        let (head, body) = outcome?.into_parts();
        if head.status.is_success() {
            return Ok(Response::from_parts(head, body));
        }
        let collecting = transport::collect(body, bounds.limit_bytes.min(64 << 10));
        let bytes = in_time(bounds.timeout, collecting).await?;
        Err(refused(&Response::from_parts(head, bytes)))
    }

    /// Fetches a file from a URL that a server named; see [`Transport::fetch`]. The caller bounds the body in size and time.
    ///
    /// # Errors
    /// [`RemoteError::Unreachable`], and [`RemoteError::Answered`] for what is no success.
    pub async fn fetch(
        &self,
        url: &http::Uri,
        timeout: Duration,
    ) -> Result<Response<ByteStream>, RemoteError> {
        let response = in_time(timeout, self.inner.transport.fetch(url)).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refused(&response.map(|_| Bytes::new())))
    }

    /// Sends a request that the spec has unsigned and reads the answer. Since strangers can cause these by naming a server,
    /// failures are remembered only in memory.
    ///
    /// # Errors
    /// As [`Remote::call`].
    pub async fn ask<R: UnsignedRequest>(
        &self,
        destination: &ServerName,
        request: R,
        bounds: Bounds,
    ) -> Result<R::IncomingResponse, RemoteError> {
        let request = written(request)?;
        let response = self.exchange(destination, request, bounds, false).await?;
        read::<R>(response)
    }

    /// A server has made a request of its own, proven by its signature: it is there, and is not left alone any longer.
    pub async fn heard_from(&self, server: &ServerName) {
        if self.inner.backoffs.ended(server).await {
            // Nobody may be listening.
            let _ = self.inner.heard.send(server.to_owned());
        }
    }

    /// Servers that were left alone and are heard from again.
    pub fn heard(&self) -> broadcast::Receiver<OwnedServerName> {
        self.inner.heard.subscribe()
    }

    /// Why and until when a server is left alone, if it has not answered since its last failure.
    pub async fn backoff(&self, server: &ServerName) -> Option<BackoffRow> {
        self.inner.backoffs.of(server).await
    }

    /// An answer that says no to what must succeed in the end (a transaction) is a failure of the server too.
    pub async fn failed(&self, server: &ServerName, started: Millis, reason: &str) {
        self.inner
            .backoffs
            .failed(server, started, reason, None, true)
            .await;
    }

    /// Forgets that a server is being left alone: an operator wants it tried now.
    pub async fn retry_now(&self, server: &ServerName) {
        self.heard_from(server).await;
    }

    fn signed<R: SignedRequest>(
        &self,
        destination: &ServerName,
        request: R,
    ) -> Result<Request<Bytes>, RemoteError> {
        let mut request = written(request)?;
        let input = self.inner.signer.for_request(destination);
        let unwritable = |error: &dyn std::fmt::Display| RemoteError::Unwritable(error.to_string());
        let signature =
            XMatrix::sign_http_request(&request, input).map_err(|error| unwritable(&error))?;
        request
            .headers_mut()
            .insert(http::header::AUTHORIZATION, (&signature).into());
        Ok(request)
    }

    async fn check(&self, destination: &ServerName, bounds: Bounds) -> Result<(), RemoteError> {
        if destination == self.server_name() {
            return Err(RemoteError::Ourselves(destination.to_owned()));
        }
        if !self.is_open() {
            return Err(RemoteError::Closed);
        }
        match self.inner.backoffs.until(destination).await {
            Some(retry_at) if !bounds.urgent => Err(RemoteError::BackingOff { retry_at }),
            _ => Ok(()),
        }
    }

    async fn exchange(
        &self,
        destination: &ServerName,
        request: Request<Bytes>,
        bounds: Bounds,
        stored: bool,
    ) -> Result<Response<Bytes>, RemoteError> {
        self.check(destination, bounds).await?;
        let started = self.inner.clock.now();
        let exchanged = in_time(bounds.timeout, async {
            let sent = self.inner.transport.send(destination, request).await?;
            let (head, body) = sent.into_parts();
            let body = transport::collect(body, bounds.limit_bytes).await?;
            Ok(Response::from_parts(head, body))
        });
        let outcome = exchanged.await;
        self.judge(destination, started, stored, verdict(&outcome))
            .await;
        Ok(outcome?)
    }

    /// Keeps the books: who answers is well, who does not is left alone.
    async fn judge(
        &self,
        destination: &ServerName,
        started: Millis,
        stored: bool,
        verdict: Option<(String, Option<Millis>)>,
    ) {
        let backoffs = &self.inner.backoffs;
        match verdict {
            None => {
                backoffs.ended(destination).await;
            }
            Some((reason, least_wait)) => {
                backoffs
                    .failed(destination, started, &reason, least_wait, stored)
                    .await;
            }
        }
    }
}

/// What is wrong with a server that answers like this, and how long it wants to be left alone.
fn verdict<B>(outcome: &Result<Response<B>, TransportError>) -> Option<(String, Option<Millis>)> {
    match outcome {
        Ok(response) if is_ill(response.status()) => {
            let reason = format!("it answered {}", response.status());
            Some((reason, retry_after(response)))
        }
        // That the answer is too large for the caller is not the server's failure.
        Ok(_) | Err(TransportError::TooLarge(_)) => None,
        Err(error) => Some((error.to_string(), None)),
    }
}

/// Statuses that say that the server cannot answer anything now.
fn is_ill(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

fn retry_after<B>(response: &Response<B>) -> Option<Millis> {
    let header = response.headers().get(http::header::RETRY_AFTER)?;
    let seconds: u64 = header.to_str().ok()?.parse().ok()?;
    Some(seconds.saturating_mul(1000))
}

async fn in_time<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, TransportError>>,
) -> Result<T, TransportError> {
    tokio::time::timeout(timeout, work)
        .await
        .unwrap_or(Err(TransportError::TooSlow))
}

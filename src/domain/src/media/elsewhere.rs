//! Media of other servers: fetched when a local user first asks for it, then kept like an upload.
//!
//! However many ask for one file it is fetched once, and only a few are fetched at a time. A file larger than an upload may be
//! is not kept. Nothing is kept but what was fetched whole.
//! <https://spec.matrix.org/v1.19/server-server-api/#content-repository>

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use http::header;
use ruma::{
    OwnedServerName, ServerName,
    api::federation::authenticated_media::get_content::v1 as get_content,
    http_headers::ContentDisposition,
};
use tokio::sync::Semaphore;
use tracing::debug;
use vatra_store::{Batch, CommitError};

use super::{Media, MediaError, multipart, upload::Names};
use crate::{
    remote::{Bounds, ByteStream, Remote, RemoteError, TransportError},
    schema::{MEDIA, MediaContent, MediaRow, MediaState},
};

/// How many files are fetched at a time.
const SIDE_BY_SIDE: usize = 16;
/// How long the other server may take to begin its answer.
const HEAD: Duration = Duration::from_secs(30);
/// How long a whole file may take.
const WHOLE: Duration = Duration::from_secs(300);

type Key = (String, String);
type Flight = Shared<BoxFuture<'static, Result<MediaContent, MediaError>>>;

/// What is being fetched.
pub(super) struct Elsewhere {
    remote: Remote,
    slots: Semaphore,
    flights: Mutex<HashMap<Key, Flight>>,
}

impl Elsewhere {
    pub(super) fn new(remote: Remote) -> Self {
        Self {
            remote,
            slots: Semaphore::new(SIDE_BY_SIDE),
            flights: Mutex::default(),
        }
    }
}

impl Media {
    /// What another server has under an id: as kept, or fetched now. With `fetch` unset, only as kept.
    pub(super) async fn from_elsewhere(
        &self,
        server: &ServerName,
        id: &str,
        fetch: bool,
    ) -> Result<MediaContent, MediaError> {
        let key = Self::key(server, id).ok_or(MediaError::NotFound)?;
        if let Some(content) = self.kept(&key).await? {
            return Ok(content);
        }
        let Some(elsewhere) = self.inner.elsewhere.as_ref().filter(|_| fetch) else {
            return Err(MediaError::NotFound);
        };
        let flight = {
            let mut flights = elsewhere
                .flights
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            match flights.get(&key) {
                Some(flight) => flight.clone(),
                None => {
                    let flight = self.clone().begin(server.to_owned(), key.clone());
                    flights.insert(key.clone(), flight.clone());
                    flight
                }
            }
        };
        flight.await
    }

    async fn kept(&self, key: &Key) -> Result<Option<MediaContent>, MediaError> {
        let row = self.inner.store.view().get(&MEDIA, key).await?;
        Ok(row.and_then(|row| match row.state {
            MediaState::Stored(content) => Some(content),
            MediaState::Pending { .. } => None,
        }))
    }

    /// A task of its own: it goes on when the asker goes away, since the next one will want the file.
    fn begin(self, server: OwnedServerName, key: Key) -> Flight {
        let task = tokio::spawn(async move {
            let outcome = match tokio::time::timeout(WHOLE, self.fetch(&server, &key)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(RemoteError::Unreachable(TransportError::TooSlow).into()),
            };
            if let Some(elsewhere) = &self.inner.elsewhere {
                let mut flights = elsewhere
                    .flights
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                flights.remove(&key);
            }
            outcome
        });
        let flight = task.map(|done| done.unwrap_or(Err(MediaError::NotFound)));
        flight.boxed().shared()
    }

    async fn fetch(&self, server: &ServerName, key: &Key) -> Result<MediaContent, MediaError> {
        let elsewhere = self.inner.elsewhere.as_ref().ok_or(MediaError::NotFound)?;
        // An error would mean that the semaphore is closed, which it never is.
        let _slot = elsewhere.slots.acquire().await;
        if let Some(content) = self.kept(key).await? {
            return Ok(content);
        }
        let mut request = get_content::Request::new(key.1.clone());
        request.timeout_ms = Duration::from_secs(20);
        let bounds = Bounds {
            timeout: HEAD,
            urgent: true,
            ..Bounds::default()
        };
        let answer = elsewhere.remote.stream(server, request, bounds).await;
        let (head, body) = answer.map_err(not_found)?.into_parts();
        let boundary = head
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| multipart::boundary(value.to_str().ok()?))
            .ok_or_else(|| RemoteError::Unreadable("it has no boundary".to_owned()))?;
        let second = multipart::second_part(body, &boundary);
        let second = tokio::time::timeout(HEAD, second);
        let (headers, file) = second
            .await
            .unwrap_or(Err(TransportError::TooSlow))
            .map_err(RemoteError::from)?;
        let file: ByteStream = match &headers.location {
            None => file,
            Some(url) => self.located(&elsewhere.remote, url).await?,
        };
        let disposition = headers
            .content_disposition
            .as_deref()
            .and_then(|text| ContentDisposition::try_from(text.as_bytes()).ok());
        let filename = disposition.and_then(|disposition| disposition.filename);
        self.keep_fetched(key, headers.content_type, filename, file)
            .await
    }

    /// The file is elsewhere again: on a public address, by https.
    async fn located(&self, remote: &Remote, url: &str) -> Result<ByteStream, MediaError> {
        let unreadable = || RemoteError::Unreadable("the file's place is no URL".to_owned());
        let url = url.parse().map_err(|_| unreadable())?;
        let response = remote.fetch(&url, HEAD).await.map_err(not_found)?;
        Ok(response.into_body())
    }

    async fn keep_fetched(
        &self,
        key: &Key,
        content_type: Option<String>,
        filename: Option<String>,
        file: ByteStream,
    ) -> Result<MediaContent, MediaError> {
        let (blob, size) = self.store_blob(None, file).await?;
        let Names {
            content_type,
            filename,
        } = Names::lenient(content_type, filename);
        let content = MediaContent {
            blob,
            size,
            content_type,
            filename,
        };
        let row = MediaRow {
            // Whose it is, only that server knows.
            uploader: key.0.clone(),
            created: self.now(),
            state: MediaState::Stored(content.clone()),
        };
        let mut batch = Batch::new();
        batch.assert_absent(&MEDIA, key).put(&MEDIA, key, &row);
        self.use_blob(&mut batch, blob, size);
        match self.inner.store.write(batch).await {
            Ok(_) => Ok(content),
            Err(CommitError::AssertFailed) => self.kept(key).await?.ok_or(MediaError::NotFound),
            Err(error) => Err(error.into()),
        }
    }
}

/// That a server has no such file is no failure of the server.
fn not_found(error: RemoteError) -> MediaError {
    debug!(%error, "media of another server cannot be had");
    match error.refusal() {
        Some(refusal) if refusal.status.is_client_error() => MediaError::NotFound,
        _ => MediaError::Remote(error),
    }
}

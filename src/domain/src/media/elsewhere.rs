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
    api::{error::ErrorCode, federation::authenticated_media::get_content::v1 as get_content},
    http_headers::ContentDisposition,
};
use tokio::sync::Semaphore;
use tracing::debug;
use vatra_store::{Batch, CommitError};

use super::{
    Media, MediaError,
    multipart::{self, PartHeaders},
    purge::Key,
    upload::Names,
};
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

impl Elsewhere {
    async fn parts(
        &self,
        server: &ServerName,
        id: &str,
    ) -> Result<(PartHeaders, ByteStream), RemoteError> {
        let mut request = get_content::Request::new(id.to_owned());
        request.timeout_ms = Duration::from_secs(20);
        let answer = self.remote.stream(server, request, bounds()).await?;
        let (head, body) = answer.into_parts();
        let boundary = head
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| multipart::boundary(value.to_str().ok()?))
            .ok_or_else(|| RemoteError::Unreadable("it has no boundary".to_owned()))?;
        let second = tokio::time::timeout(HEAD, multipart::second_part(body, &boundary));
        let (headers, file) = second.await.unwrap_or(Err(TransportError::TooSlow))?;
        match &headers.location {
            None => Ok((headers, file)),
            Some(url) => {
                let file = self.located(url).await?;
                Ok((headers, file))
            }
        }
    }

    /// The file is elsewhere again: on a public address, by https.
    async fn located(&self, url: &str) -> Result<ByteStream, RemoteError> {
        let unreadable = |_| RemoteError::Unreadable("the file's place is no URL".to_owned());
        let url = url.parse().map_err(unreadable)?;
        Ok(self.remote.fetch(&url, HEAD).await?.into_body())
    }

    /// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3downloadservernamemediaid>
    async fn old_path(
        &self,
        server: &ServerName,
        id: &str,
    ) -> Result<(PartHeaders, ByteStream), RemoteError> {
        let path = format!("/_matrix/media/v3/download/{server}/{id}?allow_remote=false");
        let answer = self.remote.stream_path(server, &path, bounds()).await?;
        let (head, body) = answer.into_parts();
        let text = |name| Some(head.headers.get(name)?.to_str().ok()?.to_owned());
        let headers = PartHeaders {
            content_type: text(header::CONTENT_TYPE),
            content_disposition: text(header::CONTENT_DISPOSITION),
            location: None,
        };
        Ok((headers, body))
    }
}

fn bounds() -> Bounds {
    Bounds {
        timeout: HEAD,
        urgent: true,
        ..Bounds::default()
    }
}

/// Whether a server says that it does not know the path, or refuses in words that are none of Matrix (a proxy, or an old server); and not
/// that it does not know the file.
fn is_old(error: &RemoteError) -> bool {
    error.refusal().is_some_and(|refusal| {
        refusal.status.is_client_error()
            && matches!(refusal.code, ErrorCode::Unrecognized | ErrorCode::Unknown)
    })
}

impl Media {
    /// What another server has under an id: as kept, or fetched now. With `fetch` unset, only as kept.
    pub(super) async fn elsewhere(
        &self,
        server: &ServerName,
        key: Key,
        fetch: bool,
    ) -> Result<MediaContent, MediaError> {
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
        let Some(row) = row else { return Ok(None) };
        let MediaState::Stored(content) = &row.state else {
            return Ok(None);
        };
        self.note_read(key, &row).await?;
        Ok(Some(content.clone()))
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
        let (headers, file) = match elsewhere.parts(server, &key.1).await {
            // A server that has only the old path, which needs no signature.
            Err(error) if is_old(&error) => elsewhere.old_path(server, &key.1).await,
            other => other,
        }
        .map_err(not_found)?;
        let disposition = headers
            .content_disposition
            .as_deref()
            .and_then(|text| ContentDisposition::try_from(text.as_bytes()).ok());
        let filename = disposition.and_then(|disposition| disposition.filename);
        self.keep_fetched(key, headers.content_type, filename, file)
            .await
    }

    async fn keep_fetched(
        &self,
        key: &Key,
        content_type: Option<String>,
        filename: Option<String>,
        file: ByteStream,
    ) -> Result<MediaContent, MediaError> {
        let (blob, size, keeping) = self.store_blob(None, file).await?;
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
            Err(CommitError::AssertFailed) => {
                drop(keeping);
                self.forget(blob).await?;
                self.kept(key).await?.ok_or(MediaError::NotFound)
            }
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

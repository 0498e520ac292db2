//! Downloads and thumbnails: from a media id to a stream of bytes.

use std::time::Duration;

use ruma::ServerName;

use super::{BlobReader, Media, MediaError, Wanted};
use crate::schema::{BlobId, MEDIA, MediaContent, MediaState};

/// The longest that a reader may wait for content that has not come yet.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// A file, ready to be sent.
#[derive(Debug)]
pub struct Download {
    /// The content type, as the uploader gave it: not to be believed.
    pub content_type: String,
    /// The file name, as the uploader gave it.
    pub filename: Option<String>,
    /// What it is by its bytes: the same hash is the same file.
    pub blob: BlobId,
    /// The bytes.
    pub body: BlobReader,
}

/// A thumbnail, ready to be sent.
#[derive(Debug)]
pub struct Thumbnail {
    /// `image/png`, `image/jpeg` or `image/webp`, and truly so.
    pub content_type: String,
    /// What it is by its bytes.
    pub blob: BlobId,
    /// The bytes.
    pub body: BlobReader,
}

impl Media {
    /// Opens a file. If its id is reserved and its content has not come yet, waits for it up to `wait` (at most a
    /// minute), then answers [`MediaError::NotYetUploaded`]. Another server's file is fetched if it is not here, and if
    /// `fetch` is set: whoever asks has shown a token.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaid>
    pub async fn open(
        &self,
        server: &ServerName,
        id: &str,
        wait: Duration,
        fetch: bool,
    ) -> Result<Download, MediaError> {
        let content = self.content(server, id, wait, fetch).await?;
        let body = self.read_blob(content.blob, content.size).await?;
        Ok(Download {
            content_type: content.content_type,
            filename: content.filename,
            blob: content.blob,
            body,
        })
    }

    /// Opens a thumbnail of a picture, making it first if needed. It is at least as large as wanted, unless the
    /// picture itself is smaller; it is never animated. Waits and fetches like [`Media::open`].
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#thumbnails>
    pub async fn thumbnail(
        &self,
        server: &ServerName,
        id: &str,
        wanted: Wanted,
        wait: Duration,
        fetch: bool,
    ) -> Result<Thumbnail, MediaError> {
        let content = self.content(server, id, wait, fetch).await?;
        let row = self
            .thumbnail_row(content.blob, content.size, wanted)
            .await?;
        let body = self.read_blob(row.blob, row.size).await?;
        Ok(Thumbnail {
            content_type: row.content_type,
            blob: row.blob,
            body,
        })
    }

    /// What is stored under an id.
    async fn content(
        &self,
        server: &ServerName,
        id: &str,
        wait: Duration,
        fetch: bool,
    ) -> Result<MediaContent, MediaError> {
        if !self.is_own(server) {
            return self.elsewhere(server, id, fetch).await;
        }
        let key = self.own_key(server, id).ok_or(MediaError::NotFound)?;
        // Before the first look, so that no arrival falls between the look and the wait.
        let mut arrivals = self.inner.arrivals.subscribe();
        let patience = tokio::time::sleep(wait.min(MAX_WAIT));
        let mut patience = std::pin::pin!(patience);
        loop {
            let row = self.inner.store.view().get(&MEDIA, &key).await?;
            match row.ok_or(MediaError::NotFound)?.state {
                MediaState::Stored(content) => return Ok(content),
                MediaState::Pending { expires } if expires <= self.now() => {
                    return Err(MediaError::NotFound);
                }
                MediaState::Pending { .. } => {}
            }
            tokio::select! {
                changed = arrivals.changed() => changed.map_err(|_| MediaError::NotYetUploaded)?,
                () = &mut patience => return Err(MediaError::NotYetUploaded),
            }
        }
    }

    /// Opens a blob that a row names; the row's size must be true, since it becomes the `Content-Length`.
    pub(super) async fn read_blob(
        &self,
        blob: BlobId,
        size: u64,
    ) -> Result<BlobReader, MediaError> {
        let reader = self
            .inner
            .blobs
            .open(blob)
            .await?
            .ok_or(MediaError::Damaged(blob))?;
        if reader.size == size {
            Ok(reader)
        } else {
            Err(MediaError::Damaged(blob))
        }
    }
}

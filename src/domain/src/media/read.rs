//! Downloads and thumbnails: from a media id to a stream of bytes.

use std::{ops::Range, time::Duration};

use ruma::ServerName;

use super::{BlobReader, Media, MediaError, Wanted};
use crate::schema::{BLOBS, BlobId, MEDIA, MediaContent, MediaState};

/// The longest that a reader may wait for content that has not come yet.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// A file that was found.
#[derive(Debug)]
pub struct Download {
    /// The content type, as the uploader gave it: not to be believed.
    pub content_type: String,
    /// The file name, as the uploader gave it.
    pub filename: Option<String>,
    /// The bytes.
    pub file: Found,
}

/// A thumbnail that was found or made.
#[derive(Debug)]
pub struct Thumbnail {
    /// `image/png`, `image/jpeg`, `image/webp`, or `image/gif` if it moves; and truly so.
    pub content_type: String,
    /// The bytes.
    pub file: Found,
}

/// Bytes that are there, and not opened yet.
#[derive(Debug)]
pub struct Found {
    /// What they are: the same hash is the same file.
    pub blob: BlobId,
    /// How many they are.
    pub size: u64,
    media: Media,
}

impl Found {
    /// Opens all of them.
    pub async fn whole(&self) -> Result<BlobReader, MediaError> {
        self.part(0..self.size).await
    }

    /// Opens those of a part, which must be within `size`.
    pub async fn part(&self, part: Range<u64>) -> Result<BlobReader, MediaError> {
        let blobs = &self.media.inner.blobs;
        match blobs.open_part(self.blob, part).await? {
            // The row's size must be true, since it becomes the `Content-Length`.
            Some(reader) if reader.size == self.size => Ok(reader),
            Some(_) => Err(MediaError::Damaged(self.blob)),
            None => Err(self.lost().await?),
        }
    }

    /// There is no file: was it taken away with its row, just now?
    async fn lost(&self) -> Result<MediaError, MediaError> {
        let view = self.media.inner.store.view();
        Ok(match view.contains(&BLOBS, &self.blob).await? {
            true => MediaError::Damaged(self.blob),
            false => MediaError::NotFound,
        })
    }
}

impl Media {
    /// Finds a file. If its id is reserved and its content has not come yet, waits for it up to `wait` (at most a
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
        Ok(Download {
            file: self.found(content.blob, content.size),
            content_type: content.content_type,
            filename: content.filename,
        })
    }

    /// Finds a thumbnail of a picture, making it first if needed. It is at least as large as wanted, unless the
    /// picture itself is smaller; it moves only if that is wanted. Waits and fetches like [`Media::open`].
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
        Ok(Thumbnail {
            file: self.found(row.blob, row.size),
            content_type: row.content_type,
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
        let key = Self::key(server, id).ok_or(MediaError::NotFound)?;
        self.must_be_free(&key).await?;
        if !self.is_own(server) {
            return self.elsewhere(server, key, fetch).await;
        }
        // Before the first look, so that no arrival falls between the look and the wait.
        let mut arrivals = self.inner.arrivals.subscribe();
        let patience = tokio::time::sleep(wait.min(MAX_WAIT));
        let mut patience = std::pin::pin!(patience);
        loop {
            let row = self.inner.store.view().get(&MEDIA, &key).await?;
            let row = row.ok_or(MediaError::NotFound)?;
            match &row.state {
                MediaState::Stored(content) => {
                    self.note_read(&key, &row).await?;
                    return Ok(content.clone());
                }
                MediaState::Pending { expires } if *expires <= self.now() => {
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

    fn found(&self, blob: BlobId, size: u64) -> Found {
        let media = self.clone();
        Found { blob, size, media }
    }
}

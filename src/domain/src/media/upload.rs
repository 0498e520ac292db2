//! Uploads: at once, or to an id that was reserved before.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use ruma::{OwnedMxcUri, OwnedUserId, ServerName, UserId};
use sha2::{Digest, Sha256};
use vatra_store::{Batch, CommitError, Direction, Range};

use super::{Media, MediaError};
use crate::{
    clock::Millis,
    random::token,
    schema::{
        BLOB_USES, BLOBS, BlobId, BlobRow, MEDIA, MediaContent, MediaRow, MediaState, PENDING_MEDIA,
    },
};

/// The longest content type and file name, in bytes.
const MAX_CONTENT_TYPE: usize = 255;
const MAX_FILENAME: usize = 1024;
/// How long media ids are: 190 random bits.
const ID_CHARACTERS: usize = 32;

/// Who uploads what.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The user.
    pub uploader: OwnedUserId,
    /// The `Content-Type`; `application/octet-stream` if there is none.
    pub content_type: Option<String>,
    /// The file name, if the user wants one kept.
    pub filename: Option<String>,
    /// How long the client says that the body is, so that what is too large is refused before it is sent.
    pub announced_bytes: Option<u64>,
}

/// An id that waits for its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// The URI that the content will have.
    pub uri: OwnedMxcUri,
    /// Until when the content may come, in milliseconds since the Unix epoch.
    pub expires: Millis,
}

impl Media {
    /// Stores a file and gives it an id. Memory: one piece of the body, and 256 KiB. When it returns, file and row
    /// survive a power cut. If the caller goes away half-way nothing is kept.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav3upload>
    pub async fn upload<E: std::fmt::Display>(
        &self,
        upload: Upload,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<OwnedMxcUri, MediaError> {
        let names = Names::check(&upload)?;
        let (blob, size) = self.store_blob(upload.announced_bytes, body).await?;
        let (key, uri) = self.new_id();
        let row = self.stored(&upload.uploader, names, blob, size);
        let mut batch = Batch::new();
        // 190 random bits do not collide, but a broken source of randomness must not overwrite anyone's media.
        batch.assert_absent(&MEDIA, &key).put(&MEDIA, &key, &row);
        self.use_blob(&mut batch, blob, size);
        self.inner.store.write(batch).await?;
        Ok(uri)
    }

    /// Reserves an id whose content comes later by [`Media::upload_to`].
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav1create>
    pub async fn create(&self, uploader: &UserId) -> Result<Reserved, MediaError> {
        let now = self.now();
        let settings = &self.inner.settings;
        let limit = settings.max_pending_per_user;
        let mut batch = Batch::new();
        let user = uploader.as_str().to_owned();
        // Oldest first: the expired ones are a prefix, and go with this batch.
        let range = Range::prefix(&(user.clone(),));
        let pending = self
            .inner
            .store
            .view()
            .range(&PENDING_MEDIA, range, Direction::Forward, limit)
            .await?;
        let mut first_alive = None;
        let mut alive: usize = 0;
        for (key, ()) in pending {
            if key.1 <= now {
                let media = (settings.server_name.as_str().to_owned(), key.2.clone());
                batch.delete(&PENDING_MEDIA, &key).delete(&MEDIA, &media);
            } else {
                alive = alive.saturating_add(1);
                first_alive = first_alive.or(Some(key.1));
            }
        }
        if alive >= limit {
            let retry_after_ms = first_alive.unwrap_or(now).saturating_sub(now);
            return Err(MediaError::TooManyPending { retry_after_ms });
        }
        let expires = now.saturating_add(settings.unused_expires_after_ms);
        let (key, uri) = self.new_id();
        let state = MediaState::Pending { expires };
        let row = MediaRow {
            uploader: user.clone(),
            created: now,
            state,
        };
        batch.assert_absent(&MEDIA, &key).put(&MEDIA, &key, &row);
        batch.put(&PENDING_MEDIA, &(user, expires, key.1), &());
        self.inner.store.write(batch).await?;
        Ok(Reserved { uri, expires })
    }

    /// Stores the content of an id that [`Media::create`] reserved for the same user. Of several uploads to one id the
    /// first to finish wins; the others get [`MediaError::AlreadyUploaded`].
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixmediav3uploadservernamemediaid>
    pub async fn upload_to<E: std::fmt::Display>(
        &self,
        server: &ServerName,
        id: &str,
        upload: Upload,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<(), MediaError> {
        let key = self.own_key(server, id).ok_or(MediaError::NotFound)?;
        let names = Names::check(&upload)?;
        let row = self
            .inner
            .store
            .view()
            .get(&MEDIA, &key)
            .await?
            .ok_or(MediaError::NotFound)?;
        if row.uploader != upload.uploader.as_str() {
            return Err(MediaError::NotCreator);
        }
        let MediaState::Pending { expires } = row.state else {
            return Err(MediaError::AlreadyUploaded);
        };
        if expires <= self.now() {
            return Err(MediaError::NotFound);
        }
        let (blob, size) = self.store_blob(upload.announced_bytes, body).await?;
        let mut stored = self.stored(&upload.uploader, names, blob, size);
        stored.created = row.created;
        let mut batch = Batch::new();
        batch
            .assert_equals(&MEDIA, &key, &row)
            .put(&MEDIA, &key, &stored);
        batch.delete(&PENDING_MEDIA, &(row.uploader, expires, key.1.clone()));
        self.use_blob(&mut batch, blob, size);
        match self.inner.store.write(batch).await {
            Ok(_) => {}
            Err(CommitError::AssertFailed) => return Err(self.lost_race(&key).await?),
            Err(error) => return Err(error.into()),
        }
        self.inner
            .arrivals
            .send_modify(|count| *count = count.wrapping_add(1));
        Ok(())
    }

    /// The row changed during the upload: another upload has filled it, or it was swept after it expired.
    async fn lost_race(&self, key: &(String, String)) -> Result<MediaError, MediaError> {
        let row = self.inner.store.view().get(&MEDIA, key).await?;
        Ok(row.map_or(MediaError::NotFound, |_| MediaError::AlreadyUploaded))
    }

    /// Streams a body into a durable blob.
    pub(super) async fn store_blob<E: std::fmt::Display>(
        &self,
        announced_bytes: Option<u64>,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<(BlobId, u64), MediaError> {
        let limit_bytes = self.inner.settings.max_upload_bytes;
        if announced_bytes.is_some_and(|bytes| bytes > limit_bytes) {
            return Err(MediaError::TooLarge { limit_bytes });
        }
        let mut writer = self.written(self.inner.blobs.create().await)?;
        let mut body = std::pin::pin!(body);
        let mut hash = Sha256::new();
        let mut size: u64 = 0;
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| MediaError::BrokenBody(error.to_string()))?;
            size = size.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            if size > limit_bytes {
                return Err(MediaError::TooLarge { limit_bytes });
            }
            hash.update(&piece);
            self.written(writer.write(piece).await)?;
        }
        let id = BlobId(hash.finalize().into());
        self.written(writer.finish(id).await)?;
        self.inner.trouble.ended();
        Ok((id, size))
    }

    /// Adds to a batch what every new use of a blob writes. The blob is durable already.
    pub(super) fn use_blob(&self, batch: &mut Batch, blob: BlobId, size: u64) {
        batch.put(
            &BLOBS,
            &blob,
            &BlobRow {
                size,
                created: self.now(),
            },
        );
        batch.add(&BLOB_USES, &blob, 1);
    }

    fn stored(&self, uploader: &UserId, names: Names, blob: BlobId, size: u64) -> MediaRow {
        let Names {
            content_type,
            filename,
        } = names;
        let content = MediaContent {
            blob,
            size,
            content_type,
            filename,
        };
        let state = MediaState::Stored(content);
        MediaRow {
            uploader: uploader.as_str().to_owned(),
            created: self.now(),
            state,
        }
    }

    /// A new media id, as a key and as a URI.
    pub(super) fn new_id(&self) -> ((String, String), OwnedMxcUri) {
        let server = self.inner.settings.server_name.as_str();
        let id = token(&*self.inner.random, ID_CHARACTERS);
        let uri = format!("mxc://{server}/{id}").into();
        ((server.to_owned(), id), uri)
    }
}

/// What the uploader calls it, as it will stand in headers.
pub(super) struct Names {
    pub(super) content_type: String,
    pub(super) filename: Option<String>,
}

impl Names {
    /// What another server calls it, as far as that may stand in headers.
    pub(super) fn lenient(content_type: Option<String>, filename: Option<String>) -> Self {
        let upload = |content_type, filename| Upload {
            uploader: ruma::owned_user_id!("@:elsewhere"),
            content_type,
            filename,
            announced_bytes: None,
        };
        let typed = Self::check(&upload(content_type, None));
        let named = Self::check(&upload(None, filename));
        let octets = || "application/octet-stream".to_owned();
        Self {
            content_type: typed.map_or_else(|_| octets(), |names| names.content_type),
            filename: named.ok().and_then(|names| names.filename),
        }
    }

    fn check(upload: &Upload) -> Result<Self, MediaError> {
        let content_type = upload
            .content_type
            .as_deref()
            .unwrap_or("application/octet-stream");
        let printable = |byte: u8| matches!(byte, b' '..=b'~');
        if content_type.len() > MAX_CONTENT_TYPE || !content_type.bytes().all(printable) {
            return Err(MediaError::BadName(
                "the content type is too long or not printable ASCII",
            ));
        }
        let filename = upload.filename.as_deref().filter(|name| !name.is_empty());
        if filename
            .is_some_and(|name| name.len() > MAX_FILENAME || name.chars().any(char::is_control))
        {
            return Err(MediaError::BadName(
                "the file name is too long or has control characters",
            ));
        }
        Ok(Self {
            content_type: content_type.to_owned(),
            filename: filename.map(str::to_owned),
        })
    }
}

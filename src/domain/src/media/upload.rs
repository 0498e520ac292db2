//! Uploads: at once, or to an id that was reserved before.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use ruma::{OwnedMxcUri, OwnedUserId, ServerName, UserId};
use sha2::{Digest, Sha256};
use vatra_store::{Batch, CommitError, Direction, Range};

use super::{Media, MediaError, purge::Keeping};
use crate::{
    clock::Millis,
    random::token,
    schema::{
        BLOB_USES, BLOBS, BlobId, BlobRow, MEDIA, MediaContent, MediaRow, MediaState,
        PENDING_MEDIA, USER_MEDIA_BYTES,
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
        self.must_have_room(&upload).await?;
        let (blob, size, keeping) = self.store_blob(upload.announced_bytes, body).await?;
        let (key, uri) = self.new_id();
        let after = self.stored(&upload.uploader, names, blob, size);
        let filled = self.fill(key, None, after, (blob, size)).await;
        self.or_forget(filled, blob, keeping).await?;
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
        self.must_have_room(&upload).await?;
        let (blob, size, keeping) = self.store_blob(upload.announced_bytes, body).await?;
        let mut stored = self.stored(&upload.uploader, names, blob, size);
        stored.created = row.created;
        let filled = self.fill(key, Some(row), stored, (blob, size)).await;
        self.or_forget(filled, blob, keeping).await?;
        self.inner
            .arrivals
            .send_modify(|count| *count = count.wrapping_add(1));
        Ok(())
    }

    /// Whether the user may have more media, as far as that is known before it comes.
    async fn must_have_room(&self, upload: &Upload) -> Result<(), MediaError> {
        let user = upload.uploader.as_str().to_owned();
        let used = self
            .inner
            .store
            .view()
            .get(&USER_MEDIA_BYTES, &user)
            .await?;
        self.within_quota(used, upload.announced_bytes.unwrap_or(1))
    }

    fn within_quota(&self, used: Option<i64>, more: u64) -> Result<(), MediaError> {
        let used = u64::try_from(used.unwrap_or(0)).unwrap_or(0);
        match self.inner.settings.max_bytes_per_user {
            Some(limit_bytes) if used.saturating_add(more) > limit_bytes => {
                Err(MediaError::OverQuota { limit_bytes })
            }
            _ => Ok(()),
        }
    }

    /// Writes what an id has become, unless it is no longer what it was before (`None`: not there), and counts it for its user.
    async fn fill(
        &self,
        key: (String, String),
        before: Option<MediaRow>,
        after: MediaRow,
        (blob, size): (BlobId, u64),
    ) -> Result<(), MediaError> {
        let (user, store) = (after.uploader.clone(), &self.inner.store);
        loop {
            let mut batch = Batch::new();
            let used = store.view().get(&USER_MEDIA_BYTES, &user).await?;
            self.within_quota(used, size)?;
            if self.inner.settings.max_bytes_per_user.is_some() {
                match used {
                    Some(used) => batch.assert_equals(&USER_MEDIA_BYTES, &user, &used),
                    None => batch.assert_absent(&USER_MEDIA_BYTES, &user),
                };
            }
            match &before {
                Some(row) => batch.assert_equals(&MEDIA, &key, row),
                // 190 random bits do not collide, but a broken source of randomness must not overwrite anyone's media.
                None => batch.assert_absent(&MEDIA, &key),
            };
            if let Some(MediaState::Pending { expires }) = before.as_ref().map(|row| &row.state) {
                batch.delete(&PENDING_MEDIA, &(user.clone(), *expires, key.1.clone()));
            }
            batch.put(&MEDIA, &key, &after);
            self.use_blob(&mut batch, blob, size);
            let bytes = i64::try_from(size).unwrap_or(i64::MAX);
            batch.add(&USER_MEDIA_BYTES, &user, bytes);
            match store.write(batch).await {
                Ok(_) => return Ok(()),
                Err(CommitError::AssertFailed) => {}
                Err(error) => return Err(error.into()),
            }
            let row = store.view().get(&MEDIA, &key).await?;
            // If it is as before, another upload of the user was counted meanwhile, and there may still be room for this one.
            if row != before {
                return Err(row.map_or(MediaError::NotFound, |_| MediaError::AlreadyUploaded));
            }
        }
    }

    /// After an upload that came to nothing, takes its blob away again, unless a row names it.
    async fn or_forget(
        &self,
        filled: Result<(), MediaError>,
        blob: BlobId,
        keeping: Keeping,
    ) -> Result<(), MediaError> {
        drop(keeping);
        // What a failed write has left is not known.
        if let Err(
            MediaError::OverQuota { .. } | MediaError::NotFound | MediaError::AlreadyUploaded,
        ) = &filled
        {
            self.forget(blob).await?;
        }
        filled
    }

    /// Streams a body into a durable blob; it is not taken away before what is given third is dropped.
    pub(super) async fn store_blob<E: std::fmt::Display>(
        &self,
        announced_bytes: Option<u64>,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<(BlobId, u64, Keeping), MediaError> {
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
        let keeping = self.keeping().await;
        self.written(writer.finish(id).await)?;
        self.inner.trouble.ended();
        Ok((id, size, keeping))
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

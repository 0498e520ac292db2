//! Why media could not be stored or served: reasons, without HTTP.

use std::sync::Arc;

use vatra_store::{CommitError, StoreError};

use crate::{remote::RemoteError, schema::BlobId};

/// The place where blobs are kept could not read or write.
#[derive(Debug, Clone, thiserror::Error)]
#[error("media storage: {0}")]
pub struct BlobError(#[from] Arc<std::io::Error>);

impl From<std::io::Error> for BlobError {
    fn from(error: std::io::Error) -> Self {
        Self(Arc::new(error))
    }
}

/// Why a media operation failed. Cheap to clone, since everyone who waits for one thumbnail gets the same answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MediaError {
    /// The upload is larger than the server takes.
    #[error("the content is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The most that it takes.
        limit_bytes: u64,
    },
    /// The user's media would have more bytes than the server keeps for one.
    #[error(
        "your files have more than {limit_bytes} bytes together, which is all this server keeps for one user"
    )]
    OverQuota {
        /// The most that it keeps.
        limit_bytes: u64,
    },
    /// The client's body ended in an error; nothing was stored.
    #[error("the body could not be read: {0}")]
    BrokenBody(String),
    /// The content type or the file name is too long or not printable.
    #[error("{0}")]
    BadName(&'static str),
    /// The server whose media it is does not give it.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// There is no such media, or its id is not one.
    #[error("there is no such media")]
    NotFound,
    /// The id was reserved, and its content has not come in the time that the reader wanted to wait.
    #[error("the content has not been uploaded yet")]
    NotYetUploaded,
    /// The id was reserved by another user.
    #[error("another user created this media id")]
    NotCreator,
    /// The id has content already.
    #[error("this media id has content already")]
    AlreadyUploaded,
    /// The user has reserved as many ids as he may without using them.
    #[error("too many media ids await their content")]
    TooManyPending {
        /// When the first of them expires, from now.
        retry_after_ms: u64,
    },
    /// The content is no picture that this server can read, or a broken one.
    #[error("this content cannot be thumbnailed")]
    CannotThumbnail,
    /// The picture has more pixels, or would need more memory or time, than this server spends on one.
    #[error("the picture is too large to thumbnail")]
    PictureTooLarge,
    /// The stored file is missing or has another length than its row says.
    #[error("the stored file {0} is missing or damaged")]
    Damaged(BlobId),
    /// The place where blobs are kept could not read.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The place where blobs are kept takes none: the disk is full, say. Nothing was stored.
    #[error("takes no files: {0}")]
    Unwritable(BlobError),
    /// The store could not read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store could not write; the outcome may be unknown.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

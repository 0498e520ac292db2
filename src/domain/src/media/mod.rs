//! The media repository: files that users upload, and thumbnails of pictures.
//!
//! Bytes live outside the store, as *blobs* named by their SHA-256 behind [`BlobBackend`]; the store holds who uploaded
//! what under which id ([`crate::schema::MEDIA`]), what each blob is and how many rows name it, and which thumbnails
//! were made. Equal files are kept once.
//!
//! The server's media handlers call it, [`crate::url_preview`], and the operator's commands `check` and `backup`.
//!
//! # Invariants
//!
//! - A blob survives a power cut before the batch with the row that names it is submitted. A crash in between leaves a
//!   blob without a row, which [`Media::check`] lists; never a row without its blob.
//! - No file is whole in memory, up or down. A thumbnail is, and so is the picture while it is decoded, and a picture of a URL's preview,
//!   within limits.
//! - Media ids hold 190 random bits: knowing one is the permission to read it. Names of files are hashes; nothing a
//!   client sends becomes part of a path.
//! - A blob that a row names is never taken away: see `purge`.
//! - Media of other servers is fetched only for local users who show a token, and kept like an upload.
//!
//! # To extend
//!
//! Another place for blobs implements [`BlobBackend`]. Other thumbnails: `thumbnail/sizes` says which exist,
//! `thumbnail/render` makes them.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#content-repository>.

mod blob;
mod carry;
mod check;
mod copy;
mod elsewhere;
mod error;
mod found;
mod local;
mod multipart;
mod purge;
mod quarantine;
mod read;
mod retracted;
mod thumbnail;
mod trouble;
mod upload;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use ruma::{MxcUri, OwnedServerName, ServerName};
use tokio::sync::watch;
use vatra_store::Store;

pub use self::{
    blob::{BlobBackend, BlobPage, BlobReader, BlobStream, BlobWriter, SeekRead},
    carry::Carried,
    check::{CheckSummary, Problem},
    error::{BlobError, MediaError},
    found::FoundPicture,
    local::LocalBlobs,
    purge::{Choice, Gone, Purged, Undisturbed},
    read::{Download, Found, Thumbnail},
    thumbnail::{Method, Wanted},
    upload::{Reserved, Upload},
};
use self::{elsewhere::Elsewhere, purge::Tidiness, thumbnail::Thumbnailer, trouble::Trouble};
use crate::{
    clock::{Millis, SharedClock},
    random::SharedRandom,
    remote::Remote,
};

/// What an operator can set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This server's name: the first part of its media's `mxc://` URIs.
    pub server_name: OwnedServerName,
    /// The largest upload, in bytes.
    pub max_upload_bytes: u64,
    /// How long an id reserved by [`Media::create`] waits for its content.
    pub unused_expires_after_ms: Millis,
    /// How many ids without content a user may have at a time.
    pub max_pending_per_user: usize,
    /// How many bytes the media of one user may have; `None`: any.
    pub max_bytes_per_user: Option<u64>,
    /// How long media of other servers is kept after it was last read; `None`: for good.
    pub remote_max_age_ms: Option<Millis>,
    /// How many bytes of it are kept, as the sum of its rows; `None`: all.
    pub remote_max_bytes: Option<u64>,
    /// How long this server's media is kept after it was last read; `None`: for good.
    pub local_max_age_ms: Option<Millis>,
    /// How long media is kept of which all that has shown it is redacted or expired; `None`: for good.
    pub retracted_max_age_ms: Option<Millis>,
    /// The most pixels (width times height) of a picture that is thumbnailed.
    pub max_picture_pixels: u64,
    /// The most memory, in bytes, for the decoded form of a picture that is thumbnailed.
    pub max_picture_memory_bytes: u64,
    /// The most pictures of an animation whose thumbnail moves; one of a longer animation stands still.
    pub max_animation_frames: usize,
    /// The most pixels of all its pictures together; likewise.
    pub max_animation_pixels: u64,
    /// The longest that one thumbnail may take.
    pub max_thumbnail_time: Duration,
    /// How many pictures are decoded at a time.
    pub concurrent_thumbnails: usize,
}

impl Settings {
    /// What holds unless an operator says otherwise.
    pub fn new(server_name: OwnedServerName) -> Self {
        Self {
            server_name,
            max_upload_bytes: 50 * 1024 * 1024,
            unused_expires_after_ms: 24 * 60 * 60 * 1000,
            max_pending_per_user: 10,
            max_bytes_per_user: None,
            remote_max_age_ms: None,
            remote_max_bytes: None,
            local_max_age_ms: None,
            retracted_max_age_ms: None,
            max_picture_pixels: 64_000_000,
            max_picture_memory_bytes: 256 * 1024 * 1024,
            max_animation_frames: 500,
            max_animation_pixels: 256_000_000,
            max_thumbnail_time: Duration::from_secs(30),
            concurrent_thumbnails: 2,
        }
    }
}

struct Inner {
    store: Store,
    blobs: Arc<dyn BlobBackend>,
    clock: SharedClock,
    random: SharedRandom,
    settings: Settings,
    thumbnailer: Thumbnailer,
    /// Where other servers' media comes from; `None`: from nowhere.
    elsewhere: Option<Elsewhere>,
    /// Counts uploads to reserved ids; who waits for one looks again when it moves.
    arrivals: watch::Sender<u64>,
    trouble: Trouble,
    tidiness: Tidiness,
}

/// The media repository. Cheap to clone.
#[derive(Clone)]
pub struct Media {
    inner: Arc<Inner>,
}

impl Media {
    /// Puts the parts together. No I/O. Without `remote`, media of other servers is not found.
    pub fn new(
        store: Store,
        blobs: Arc<dyn BlobBackend>,
        clock: SharedClock,
        random: SharedRandom,
        settings: Settings,
        remote: Option<Remote>,
    ) -> Self {
        let thumbnailer = Thumbnailer::new(settings.concurrent_thumbnails);
        let arrivals = watch::Sender::new(0);
        Self {
            inner: Arc::new(Inner {
                store,
                blobs,
                clock,
                random,
                settings,
                thumbnailer,
                elsewhere: remote.map(Elsewhere::new),
                arrivals,
                trouble: Trouble::default(),
                tidiness: Tidiness::default(),
            }),
        }
    }

    /// The largest upload, in bytes, for the configuration endpoint.
    pub fn max_upload_bytes(&self) -> u64 {
        self.inner.settings.max_upload_bytes
    }

    /// The id of media of this server. `None` if it is another's, or none.
    pub fn own_id(&self, uri: &str) -> Option<String> {
        let (server, id) = <&MxcUri>::from(uri).parts().ok()?;
        Some(self.own_key(server, id)?.1)
    }

    fn now(&self) -> Millis {
        self.inner.clock.now()
    }

    fn is_own(&self, server: &ServerName) -> bool {
        *server == *self.inner.settings.server_name
    }

    /// The key of this server's media with this id. `None` if it is another server's, or no media id at all.
    fn own_key(&self, server: &ServerName, id: &str) -> Option<(String, String)> {
        Self::key(server, id).filter(|_| self.is_own(server))
    }

    /// The key of a server's media with this id. `None` if it is no media id: those have letters, digits, `_` and `-` only.
    fn key(server: &ServerName, id: &str) -> Option<(String, String)> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let is_id = (1..=255).contains(&id.len()) && id.bytes().all(fits);
        is_id.then(|| (server.as_str().to_owned(), id.to_owned()))
    }
}

impl std::fmt::Debug for Media {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Media of {}", self.inner.settings.server_name)
    }
}

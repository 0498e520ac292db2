//! Thumbnails: made when first asked for, kept as blobs with rows.
//!
//! However many ask for one thumbnail at once, it is made once; and however many are asked for, only a few pictures are
//! decoded at a time, each within bounds of pixels, memory, pictures and time. The work goes on when the asker goes away, since the next one will want it.

mod moving;
mod plain;
mod render;
mod sizes;
mod stop;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use vatra_store::Batch;

pub use self::sizes::{Method, Wanted};
use self::{
    render::{Bounds, Rendered, render},
    stop::{Stop, Stoppable},
};
use super::{Media, MediaError, SeekRead};
use crate::schema::{BLOBS, BlobId, THUMBNAILS, ThumbnailKey, ThumbnailRow};

/// The largest file that is read as a picture: some decoders hold it whole.
const MAX_SOURCE_BYTES: u64 = 64 * 1024 * 1024;

type Flight = Shared<BoxFuture<'static, Result<ThumbnailRow, MediaError>>>;
type Flights = Arc<Mutex<HashMap<ThumbnailKey, Flight>>>;

/// What is being made.
pub(super) struct Thumbnailer {
    permits: Arc<Semaphore>,
    flights: Flights,
}

impl Thumbnailer {
    pub(super) fn new(concurrent: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(concurrent.max(1))),
            flights: Flights::default(),
        }
    }

    /// Joins whoever makes this thumbnail, or begins.
    fn join(
        &self,
        key: ThumbnailKey,
        make: impl FnOnce() -> BoxFuture<'static, Result<ThumbnailRow, MediaError>>,
    ) -> Flight {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key) {
            return flight.clone();
        }
        let landing = Landing {
            flights: self.flights.clone(),
            key,
        };
        let work = make();
        let task = tokio::spawn(async move {
            let _landing = landing;
            work.await
        });
        // An error means that a decoder panicked: the picture is at fault.
        let flight = task
            .map(|done| done.unwrap_or(Err(MediaError::CannotThumbnail)))
            .boxed()
            .shared();
        flights.insert(key, flight.clone());
        flight
    }
}

/// Takes a flight off the list when it ends, however it ends.
struct Landing {
    flights: Flights,
    key: ThumbnailKey,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}

impl Media {
    /// The thumbnail of a blob of this length, made if needed.
    pub(super) async fn thumbnail_row(
        &self,
        blob: BlobId,
        size: u64,
        wanted: Wanted,
    ) -> Result<ThumbnailRow, MediaError> {
        if wanted.width == 0 || wanted.height == 0 {
            return Err(MediaError::CannotThumbnail);
        }
        if size > MAX_SOURCE_BYTES {
            return Err(MediaError::PictureTooLarge);
        }
        let wanted = wanted.rounded();
        let key = (
            blob,
            wanted.width,
            wanted.height,
            u8::from(wanted.method == Method::Crop) + 2 * u8::from(wanted.animated),
        );
        if let Some(row) = self.inner.store.view().get(&THUMBNAILS, &key).await? {
            return Ok(row);
        }
        let media = self.clone();
        let make = || async move { media.make(key, size, wanted).await }.boxed();
        self.inner.thumbnailer.join(key, make).await
    }

    async fn make(
        &self,
        key: ThumbnailKey,
        size: u64,
        wanted: Wanted,
    ) -> Result<ThumbnailRow, MediaError> {
        let permit = self.inner.thumbnailer.permits.clone().acquire_owned().await;
        // Made by the flight before this one, perhaps.
        if let Some(row) = self.inner.store.view().get(&THUMBNAILS, &key).await? {
            return Ok(row);
        }
        let settings = &self.inner.settings;
        let bounds = Bounds {
            pixels: settings.max_picture_pixels,
            memory_bytes: settings.max_picture_memory_bytes,
            frames: settings.max_animation_frames,
            frames_pixels: settings.max_animation_pixels,
        };
        let stop = Stop::default();
        let source = self.source(key.0, &stop).await?;
        let moving = match wanted.animated {
            true => Some(self.source(key.0, &stop).await?),
            false => None,
        };
        let work = tokio::task::spawn_blocking(move || {
            // Given back when the work has ended, which may be after it was given up.
            let _permit = permit;
            if let Some(moving) = moving
                && let Some(rendered) = moving::render(moving, wanted, bounds)?
            {
                return Ok(rendered);
            }
            render(source, wanted, bounds)
        });
        let rendered = match tokio::time::timeout(settings.max_thumbnail_time, work).await {
            Ok(done) => done.map_err(|_| MediaError::CannotThumbnail)??,
            Err(_) => {
                stop.now();
                return Err(MediaError::PictureTooLarge);
            }
        };
        self.keep(key, size, rendered).await
    }

    /// A blob as a decoder reads it: until the work is stopped.
    async fn source(&self, blob: BlobId, stop: &Stop) -> Result<Box<dyn SeekRead>, MediaError> {
        let source = self.inner.blobs.open_seekable(blob).await?;
        let source = source.ok_or(MediaError::Damaged(blob))?;
        Ok(Box::new(Stoppable::new(source, stop.clone())))
    }

    async fn keep(
        &self,
        key: ThumbnailKey,
        size: u64,
        rendered: Rendered,
    ) -> Result<ThumbnailRow, MediaError> {
        let _keeping = self.keeping().await;
        // It may have been taken away meanwhile, and its thumbnails with it.
        if !self.inner.store.view().contains(&BLOBS, &key.0).await? {
            return Err(MediaError::NotFound);
        }
        let mut batch = Batch::new();
        let (blob, size, content_type) = match rendered {
            // Not counted as a use: a picture does not keep itself alive.
            Rendered::Itself(content_type) => (key.0, size, content_type),
            Rendered::Made(bytes, content_type) => {
                let blob = BlobId(Sha256::digest(&bytes).into());
                let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                let mut writer = self.written(self.inner.blobs.create().await)?;
                self.written(writer.write(Bytes::from(bytes)).await)?;
                self.written(writer.finish(blob).await)?;
                if blob != key.0 {
                    self.use_blob(&mut batch, blob, size);
                }
                (blob, size, content_type)
            }
        };
        let row = ThumbnailRow {
            blob,
            size,
            content_type: content_type.to_owned(),
            created: self.now(),
        };
        batch
            .assert_absent(&THUMBNAILS, &key)
            .put(&THUMBNAILS, &key, &row);
        self.inner.store.write(batch).await?;
        Ok(row)
    }
}

//! Whether files can be stored: what operators are told, and when it is tried again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{BlobError, Media, MediaError};
use crate::clock::Millis;

/// How often it is tried again at most: whoever asks for the health makes it try.
const TRY_EVERY_MS: Millis = 1_000;

/// Why no file could be stored when it was last tried.
#[derive(Default)]
pub(super) struct Trouble(Mutex<Option<Failed>>);

struct Failed {
    reason: String,
    tried: Millis,
}

impl Trouble {
    fn last(&self) -> MutexGuard<'_, Option<Failed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Files are stored.
    pub(super) fn ended(&self) {
        if self.last().take().is_some() {
            tracing::info!("files can be stored again");
        }
    }
}

impl Media {
    /// Why no file can be stored, as far as is known; `None` while it can. After a failure a small file is tried, at most once a
    /// second, so that what asks for it again and again sees it heal.
    pub async fn trouble(&self) -> Option<String> {
        let now = self.now();
        if let Some(failed) = self.inner.trouble.last().as_mut() {
            if now < failed.tried.saturating_add(TRY_EVERY_MS) {
                return Some(failed.reason.clone());
            }
            failed.tried = now;
        } else {
            return None;
        }
        match self.inner.blobs.probe().await {
            Ok(()) => {
                self.inner.trouble.ended();
                None
            }
            Err(error) => Some(self.failed(&error)),
        }
    }

    /// What writing a file has come to.
    pub(super) fn written<T>(&self, result: Result<T, BlobError>) -> Result<T, MediaError> {
        result.map_err(|error| {
            self.failed(&error);
            MediaError::Unwritable(error)
        })
    }

    fn failed(&self, error: &BlobError) -> String {
        let (reason, tried) = (error.to_string(), self.now());
        let failed = Failed {
            reason: reason.clone(),
            tried,
        };
        let before = self.inner.trouble.last().replace(failed);
        if before.is_none() {
            tracing::error!(%error, "no files can be stored until this is mended");
        }
        reason
    }
}

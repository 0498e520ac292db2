//! Copies of all files, for backups.

use futures::StreamExt;
use sha2::{Digest, Sha256};

use super::{BlobBackend, Media, MediaError, check::Pages};
use crate::schema::{BLOBS, BlobId};

impl Media {
    /// Copies every blob that has a row to another place, hashing on the way; blobs that are there already with the
    /// right length are left alone, so that a copy can be resumed. `each` hears of every blob and its length. Gives
    /// the bytes copied. A damaged blob ends it with [`MediaError::Damaged`].
    pub async fn copy_to(
        &self,
        target: &dyn BlobBackend,
        mut each: impl FnMut(BlobId, u64),
    ) -> Result<u64, MediaError> {
        let view = self.inner.store.view();
        let mut copied: u64 = 0;
        let mut blobs = Pages::new(&BLOBS);
        while let Some(page) = blobs.next(&view).await? {
            for (blob, row) in page {
                let there = target
                    .open(blob)
                    .await?
                    .is_some_and(|there| there.size == row.size);
                if !there {
                    copied =
                        copied.saturating_add(copy_blob(&*self.inner.blobs, target, blob).await?);
                }
                each(blob, row.size);
            }
        }
        Ok(copied)
    }
}

/// Copies one blob, hashing on the way; gives its length.
async fn copy_blob(
    from: &dyn BlobBackend,
    to: &dyn BlobBackend,
    blob: BlobId,
) -> Result<u64, MediaError> {
    let mut reader = from.open(blob).await?.ok_or(MediaError::Damaged(blob))?;
    let mut writer = to.create().await?;
    let mut hash = Sha256::new();
    while let Some(piece) = reader.stream.next().await {
        let piece = piece?;
        hash.update(&piece);
        writer.write(piece).await?;
    }
    if BlobId(hash.finalize().into()) != blob {
        return Err(MediaError::Damaged(blob));
    }
    writer.finish(blob).await?;
    Ok(reader.size)
}

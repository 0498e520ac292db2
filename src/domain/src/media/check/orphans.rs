//! Files and rows that nothing names: left by a crash between a file and its row, or by damage. `--repair` takes them away.
//!
//! Each is looked at again before it goes, so that what a running server has begun to name meanwhile stays.

use vatra_store::{Batch, CommitError, Range};

use super::{
    super::{Media, MediaError},
    Problem,
};
use crate::schema::{BLOB_USES, BLOBS, BlobId, BlobRow, THUMBNAILS, ThumbnailKey, ThumbnailRow};

impl Media {
    /// A blob's row is named by nothing: it goes, with what was made of it, and its file.
    pub(super) async fn orphan_row(
        &self,
        blob: BlobId,
        row: &BlobRow,
        repair: bool,
        report: &mut impl FnMut(Problem),
    ) -> Result<(), MediaError> {
        report(Problem::OrphanRow(blob));
        if !repair {
            return Ok(());
        }
        let mut batch = Batch::new();
        // Whoever names it writes its row anew.
        batch.assert_equals(&BLOBS, &blob, row);
        batch.delete(&BLOBS, &blob).delete(&BLOB_USES, &blob);
        batch.delete_range(&THUMBNAILS, Range::prefix(&(blob,)));
        if self.unless_it_changed(batch).await? {
            self.forget(blob).await?;
        }
        Ok(())
    }

    /// A thumbnail's picture is not there: its row goes.
    pub(super) async fn orphan_thumbnail(
        &self,
        key: ThumbnailKey,
        row: &ThumbnailRow,
        repair: bool,
        report: &mut impl FnMut(Problem),
    ) -> Result<(), MediaError> {
        report(Problem::OrphanThumbnail(key.0));
        if repair {
            let mut batch = Batch::new();
            batch
                .assert_absent(&BLOBS, &key.0)
                .assert_equals(&THUMBNAILS, &key, row)
                .delete(&THUMBNAILS, &key);
            self.unless_it_changed(batch).await?;
        }
        Ok(())
    }

    /// A file had no row when its name was read: it goes, if it has none now, and no upload is about to write one.
    pub(super) async fn orphan_file(
        &self,
        blob: BlobId,
        size: u64,
        repair: bool,
        report: &mut impl FnMut(Problem),
    ) -> Result<(), MediaError> {
        if self.is_named(blob).await? {
            return Ok(());
        }
        report(Problem::OrphanFile { blob, size });
        if repair {
            self.forget(blob).await?;
        }
        Ok(())
    }

    /// Says whether it was done.
    async fn unless_it_changed(&self, batch: Batch) -> Result<bool, MediaError> {
        match self.inner.store.write(batch).await {
            Ok(_) => Ok(true),
            Err(CommitError::AssertFailed) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

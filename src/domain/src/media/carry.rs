//! All files carried from where they are to another place: what `vatra media move` does.
//!
//! It can be interrupted and run again, also while the server runs: what is there is not copied twice, and nothing is taken away
//! where it was. What was copied is read back and hashed.

use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use vatra_store::View;

use super::{BlobBackend, BlobReader, Media, MediaError, check::Pages};
use crate::schema::{BLOBS, BlobId};

/// How many files are on their way at a time. Each takes some MB of memory where the place wants large pieces.
const SIDE_BY_SIDE: usize = 4;

/// How far it is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// How many files were dealt with.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many files there are.
    pub all_files: u64,
    /// Their bytes.
    pub all_bytes: u64,
    /// How many of those dealt with were not there yet.
    pub copied_files: u64,
    /// Their bytes.
    pub copied_bytes: u64,
}

/// What became of a file.
enum Outcome {
    Copied,
    WasThere,
    /// It was taken away meanwhile, with its row.
    Gone,
    /// It is missing or damaged where it was, or arrived as something else.
    Damaged,
}

impl Media {
    /// Carries every file that has a row to another place. What has its name and length there already is left alone; with `again`, it is
    /// read and hashed too, and copied anew if it is damaged there. `each` hears of progress. Gives how much there was, and the files that
    /// are missing or damaged here, which are not carried.
    ///
    /// # Errors
    /// If either place, or the store, cannot be read or written. What was carried stays there.
    pub async fn carry_to(
        &self,
        target: &dyn BlobBackend,
        again: bool,
        mut each: impl FnMut(Carried),
    ) -> Result<(Carried, Vec<BlobId>), MediaError> {
        let mut carried = count(&self.inner.store.view()).await?;
        let mut damaged = Vec::new();
        let mut blobs = Pages::new(&BLOBS);
        // A view for each page: they go through files for hours.
        while let Some(page) = blobs.next(&self.inner.store.view()).await? {
            let files = page.into_iter().map(|(blob, row)| async move {
                let outcome = self.carry(target, blob, row.size, again).await?;
                Ok::<_, MediaError>((blob, row.size, outcome))
            });
            let mut files = stream::iter(files).buffer_unordered(SIDE_BY_SIDE);
            while let Some(done) = files.next().await {
                let (blob, size, outcome) = done?;
                carried.files += 1;
                carried.bytes = carried.bytes.saturating_add(size);
                match outcome {
                    Outcome::Copied => {
                        carried.copied_files += 1;
                        carried.copied_bytes = carried.copied_bytes.saturating_add(size);
                    }
                    Outcome::Damaged => damaged.push(blob),
                    Outcome::WasThere | Outcome::Gone => {}
                }
                each(carried);
            }
        }
        Ok((carried, damaged))
    }

    async fn carry(
        &self,
        target: &dyn BlobBackend,
        blob: BlobId,
        size: u64,
        again: bool,
    ) -> Result<Outcome, MediaError> {
        let there = target.open_part(blob, 0..0).await?;
        if there.is_some_and(|there| there.size == size)
            && (!again || is_whole(target, blob).await?)
        {
            return Ok(Outcome::WasThere);
        }
        let Some(source) = self.inner.blobs.open(blob).await? else {
            let row = self.inner.store.view().contains(&BLOBS, &blob).await?;
            return Ok(if row { Outcome::Damaged } else { Outcome::Gone });
        };
        let mut writer = target.create().await?;
        let mut hash = Sha256::new();
        let mut pieces = source.stream;
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            hash.update(&piece);
            writer.write(piece).await?;
        }
        if BlobId(hash.finalize().into()) != blob {
            return Ok(Outcome::Damaged);
        }
        writer.finish(blob).await?;
        Ok(if is_whole(target, blob).await? {
            Outcome::Copied
        } else {
            Outcome::Damaged
        })
    }
}

/// Whether a file is there and is what its name says.
async fn is_whole(place: &dyn BlobBackend, blob: BlobId) -> Result<bool, MediaError> {
    let Some(BlobReader { mut stream, .. }) = place.open(blob).await? else {
        return Ok(false);
    };
    let mut hash = Sha256::new();
    while let Some(piece) = stream.next().await {
        hash.update(piece?);
    }
    Ok(BlobId(hash.finalize().into()) == blob)
}

/// How much there is to carry.
async fn count(view: &View) -> Result<Carried, MediaError> {
    let mut all = Carried::default();
    let mut blobs = Pages::new(&BLOBS);
    while let Some(page) = blobs.next(view).await? {
        for (_, row) in page {
            all.all_files += 1;
            all.all_bytes = all.all_bytes.saturating_add(row.size);
        }
    }
    Ok(all)
}

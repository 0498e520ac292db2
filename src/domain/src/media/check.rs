//! What `vatra check` needs: whether files and rows agree.
//!
//! While it runs blobs are only added, which is what uploads do: nothing is purged.

mod orphans;
mod rows;

use std::{
    collections::{HashMap, HashSet},
    ops::Bound,
};

use futures::StreamExt;
use sha2::{Digest, Sha256};
use vatra_store::{Batch, CommitError, Direction, Key, Map, Range, Value, View};

use super::{BlobReader, Media, MediaError};
use crate::schema::{BLOB_USES, BLOBS, BlobId, MEDIA, MediaState, QUARANTINED, THUMBNAILS};

const PAGE: usize = 1000;
/// How many blobs' uses are counted at once.
const BLOBS_A_PART: usize = 200_000;

/// Something that does not agree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A blob has a row but no file: its media cannot be served. Uploading the same file again mends it.
    #[error("blob {0}: the file is missing")]
    MissingFile(BlobId),
    /// A file's content is not what its name says: damage on the disk.
    #[error("blob {0}: the file does not match its hash")]
    WrongHash(BlobId),
    /// A blob's row has another length than its file.
    #[error("blob {blob}: its row says {row} bytes, the file has {file}")]
    WrongSize {
        /// The blob.
        blob: BlobId,
        /// The row's length.
        row: u64,
        /// The file's length.
        file: u64,
    },
    /// A media or thumbnail row names a blob that has no row.
    #[error("blob {0}: named by {1} rows, and has none itself")]
    MissingRow(BlobId, i64),
    /// A blob's row is named by no media and no thumbnail. `--repair` deletes it, and its file.
    #[error("blob {0}: nothing names it")]
    OrphanRow(BlobId),
    /// A blob's counter of uses is wrong. `--repair` writes the true one.
    #[error("blob {blob}: counted as used {stored} times, used {counted} times")]
    WrongUses {
        /// The blob.
        blob: BlobId,
        /// What the counter says.
        stored: i64,
        /// What the rows say.
        counted: i64,
    },
    /// The bytes of a user's media are counted wrong. `--repair` writes the true number.
    #[error("{user}: counted as having {stored} bytes of media, has {counted} (derived)")]
    WrongBytes {
        /// The user.
        user: String,
        /// What the counter says.
        stored: i64,
        /// What the rows say.
        counted: i64,
    },
    /// It is noted when media was read that is not there. `--repair` removes the row.
    #[error("mxc://{0}/{1}: noted as read, and not there (derived)")]
    StrayRead(String, String),
    /// A thumbnail's picture has no row. `--repair` deletes the thumbnail's.
    #[error("thumbnail of {0}: there is no such blob")]
    OrphanThumbnail(BlobId),
    /// A file that no row names: left by a crash between file and row. `--repair` deletes it.
    #[error("blob {blob}: no row names the file ({size} bytes)")]
    OrphanFile {
        /// The blob.
        blob: BlobId,
        /// Its length in bytes.
        size: u64,
    },
    /// A file or folder among the blobs that no server made.
    #[error("{0}: not a blob")]
    StrangeFile(String),
}

impl Problem {
    /// Whether `--repair` mends it.
    pub fn is_derived(&self) -> bool {
        matches!(
            self,
            Self::WrongUses { .. }
                | Self::WrongBytes { .. }
                | Self::StrayRead(..)
                | Self::OrphanRow(_)
                | Self::OrphanThumbnail(_)
                | Self::OrphanFile { .. }
        )
    }
}

/// What was looked at.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct CheckSummary {
    /// Media ids.
    pub media: u64,
    /// Blobs with a row.
    pub blobs: u64,
    /// Bytes that were read and hashed.
    pub bytes: u64,
    /// Problems reported.
    pub problems: u64,
}

impl Media {
    /// Reads every file and every row and reports what does not agree. `repair` writes derived rows anew (counters), takes away files and
    /// rows that nothing names, and does nothing else. Memory: 10 MB; time: that of reading all files once, and the rows once for each 200,000 blobs.
    pub async fn check(
        &self,
        repair: bool,
        mut report: impl FnMut(Problem),
    ) -> Result<CheckSummary, MediaError> {
        let _still = self.undisturbed().await;
        let view = self.inner.store.view();
        let mut summary = CheckSummary::default();
        let mut problems = 0;
        let mut report = |problem| {
            problems += 1;
            report(problem);
        };
        let mut rowless = HashSet::new();
        for part in Part::all(count_blobs(&view).await?) {
            let missing = self.check_part(&view, part, repair, &mut summary, &mut report);
            rowless.extend(missing.await?);
        }
        self.check_reads(&view, repair, &mut report).await?;
        self.check_bytes(&view, repair, &mut report).await?;
        // Nothing else says what these say: they can only be readable.
        let mut quarantined = Pages::new(&QUARANTINED);
        while quarantined.next(&view).await?.is_some() {}
        self.check_folder(&rowless, repair, &mut report).await?;
        summary.problems = problems;
        Ok(summary)
    }

    /// Files, rows and counters of a part of the blobs. Gives those that are named and have no row.
    async fn check_part(
        &self,
        view: &View,
        part: Part,
        repair: bool,
        summary: &mut CheckSummary,
        report: &mut impl FnMut(Problem),
    ) -> Result<Vec<BlobId>, MediaError> {
        let mut uses = self.count_uses(view, part, repair, summary, report).await?;
        let mut blobs = Pages::within(&BLOBS, part.range());
        while let Some(page) = blobs.next(view).await? {
            for (blob, row) in page {
                summary.blobs += 1;
                summary.bytes += self.check_file(blob, row.size, report).await?;
                let counted = uses.remove(&blob).unwrap_or(0);
                let before = row;
                let row = view.get(&BLOB_USES, &blob).await?;
                let stored = row.unwrap_or(0);
                if counted == 0 {
                    self.orphan_row(blob, &before, repair, report).await?;
                    continue;
                }
                if stored == counted {
                    continue;
                }
                report(Problem::WrongUses {
                    blob,
                    stored,
                    counted,
                });
                if repair {
                    self.mend(&BLOB_USES, &blob, row, counted).await?;
                }
            }
        }
        for (blob, uses) in &uses {
            report(Problem::MissingRow(*blob, *uses));
        }
        Ok(uses.into_keys().collect())
    }

    /// Writes a counter anew, unless a server that runs meanwhile has counted on.
    async fn mend<K: Key>(
        &self,
        map: &Map<K, i64>,
        key: &K,
        found: Option<i64>,
        counted: i64,
    ) -> Result<(), MediaError> {
        let mut batch = Batch::new();
        match found {
            Some(found) => batch.assert_equals(map, key, &found),
            None => batch.assert_absent(map, key),
        };
        batch.put(map, key, &counted);
        match self.inner.store.write(batch).await {
            Ok(_) | Err(CommitError::AssertFailed) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// How often rows name each blob of a part.
    async fn count_uses(
        &self,
        view: &View,
        part: Part,
        repair: bool,
        summary: &mut CheckSummary,
        report: &mut impl FnMut(Problem),
    ) -> Result<HashMap<BlobId, i64>, MediaError> {
        let mut uses: HashMap<BlobId, i64> = HashMap::new();
        let mut count = |blob| {
            if part.has(blob) {
                *uses.entry(blob).or_default() += 1;
            }
        };
        let mut media = Pages::new(&MEDIA);
        while let Some(page) = media.next(view).await? {
            for (_, row) in page {
                summary.media += u64::from(part.first == 0);
                if let MediaState::Stored(content) = row.state {
                    count(content.blob);
                }
            }
        }
        let mut thumbnails = Pages::new(&THUMBNAILS);
        while let Some(page) = thumbnails.next(view).await? {
            for (key, row) in page {
                let source = key.0;
                if row.blob != source {
                    count(row.blob);
                }
                if part.has(source) && !view.contains(&BLOBS, &source).await? {
                    self.orphan_thumbnail(key, &row, repair, report).await?;
                }
            }
        }
        Ok(uses)
    }

    /// Reads one blob's file; gives the bytes read.
    async fn check_file(
        &self,
        blob: BlobId,
        row: u64,
        report: &mut impl FnMut(Problem),
    ) -> Result<u64, MediaError> {
        let Some(reader) = self.inner.blobs.open(blob).await? else {
            report(Problem::MissingFile(blob));
            return Ok(0);
        };
        let file = reader.size;
        if file != row {
            report(Problem::WrongSize { blob, row, file });
        }
        if hash(reader).await? != blob {
            report(Problem::WrongHash(blob));
        }
        Ok(file)
    }

    /// Looks for files without rows.
    async fn check_folder(
        &self,
        rowless: &HashSet<BlobId>,
        repair: bool,
        report: &mut impl FnMut(Problem),
    ) -> Result<(), MediaError> {
        let mut next = Some(0);
        while let Some(page) = next {
            let page = self.inner.blobs.list(page).await?;
            page.strange
                .into_iter()
                .map(Problem::StrangeFile)
                .for_each(&mut *report);
            let ids: Vec<_> = page.blobs.iter().map(|(blob, _)| *blob).collect();
            let rows = self.inner.store.view().get_many(&BLOBS, &ids).await?;
            for ((blob, size), row) in page.blobs.into_iter().zip(rows) {
                // What media names stays, whatever became of its row.
                if row.is_none() && !rowless.contains(&blob) {
                    self.orphan_file(blob, size, repair, report).await?;
                }
            }
            next = page.next;
        }
        Ok(())
    }
}

async fn hash(mut reader: BlobReader) -> Result<BlobId, MediaError> {
    let mut hash = Sha256::new();
    while let Some(piece) = reader.stream.next().await {
        hash.update(piece?);
    }
    Ok(BlobId(hash.finalize().into()))
}

/// How many blobs there are.
async fn count_blobs(view: &View) -> Result<usize, MediaError> {
    let mut count = 0;
    let mut blobs = Pages::new(&BLOBS);
    while let Some(page) = blobs.next(view).await? {
        count += page.len();
    }
    Ok(count)
}

/// The blobs whose ids begin with bytes from `first` to `last`: uses are counted a part at a time, so that it takes no more memory
/// for more blobs. Hashes spread evenly.
#[derive(Debug, Clone, Copy)]
struct Part {
    first: u8,
    last: u8,
}

impl Part {
    /// All blobs, when there are so many.
    fn all(blobs: usize) -> impl Iterator<Item = Self> {
        let parts = (blobs / BLOBS_A_PART + 1).min(256);
        let width = 256_usize.div_ceil(parts);
        (0..=u8::MAX).step_by(width).map(move |first| {
            let more = u8::try_from(width - 1).unwrap_or(u8::MAX);
            let last = first.saturating_add(more);
            Self { first, last }
        })
    }

    fn has(self, blob: BlobId) -> bool {
        blob.0
            .first()
            .is_some_and(|byte| (self.first..=self.last).contains(byte))
    }

    fn range(self) -> Range {
        let mut from = [0; 32];
        let mut to = [u8::MAX; 32];
        if let (Some(from), Some(to)) = (from.first_mut(), to.first_mut()) {
            (*from, *to) = (self.first, self.last);
        }
        Range::between(Bound::Included(&BlobId(from)), Bound::Included(&BlobId(to)))
    }
}

/// Reads a whole map, a page at a time.
pub(super) struct Pages<K: 'static, V: 'static> {
    map: &'static Map<K, V>,
    /// What is left; `None` at the end.
    rest: Option<Range>,
}

impl<K: Key, V: Value> Pages<K, V> {
    pub(super) fn new(map: &'static Map<K, V>) -> Self {
        Self {
            map,
            rest: Some(Range::all()),
        }
    }

    fn within(map: &'static Map<K, V>, range: Range) -> Self {
        Self {
            map,
            rest: Some(range),
        }
    }

    pub(super) async fn next(&mut self, view: &View) -> Result<Option<Vec<(K, V)>>, MediaError> {
        let Some(range) = self.rest.take() else {
            return Ok(None);
        };
        let page = view
            .range(self.map, range.clone(), Direction::Forward, PAGE)
            .await?;
        if page.len() == PAGE {
            self.rest = page.last().map(|(key, _)| range.after(key));
        }
        Ok(Some(page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_blob_is_in_one_part_however_many_there_are() {
        for blobs in [0, 1_000_000, 10_000_000, usize::MAX] {
            for byte in 0..=u8::MAX {
                let blob = BlobId([byte; 32]);
                let parts = Part::all(blobs).filter(|part| part.has(blob)).count();
                assert_eq!(parts, 1, "{byte} of {blobs}");
            }
        }
    }
}

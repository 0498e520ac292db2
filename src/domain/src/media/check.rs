//! What `vatra check` and `vatra backup` need: whether files and rows agree, and copies of everything.
//!
//! Both are for a store that nobody writes to, or for one whose blobs are only added to, which is what uploads do: a
//! backup copies the store first and the blobs after it, so that the copy has every blob that its rows name.

use std::collections::HashMap;

use futures::StreamExt;
use sha2::{Digest, Sha256};
use vatra_store::{Batch, Direction, Key, Map, Range, Value, View};

use super::{BlobBackend, BlobReader, Media, MediaError};
use crate::schema::{BLOB_USES, BLOBS, BlobId, MEDIA, MediaState, THUMBNAILS};

const PAGE: usize = 1000;

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
    /// A blob's row is named by no media and no thumbnail.
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
    /// A thumbnail's picture has no row.
    #[error("thumbnail of {0}: there is no such blob")]
    OrphanThumbnail(BlobId),
    /// A file that no row names: left by a crash between file and row. It is safe to delete.
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
    /// Reads every file and every row and reports what does not agree. `repair` writes derived rows anew (the counters
    /// of uses) and nothing else. Memory: 50 bytes a blob; time: that of reading all files once.
    pub async fn check(
        &self,
        repair: bool,
        mut report: impl FnMut(Problem),
    ) -> Result<CheckSummary, MediaError> {
        let view = self.inner.store.view();
        let mut summary = CheckSummary::default();
        let mut problems = 0;
        let mut report = |problem| {
            problems += 1;
            report(problem);
        };
        let mut uses = self.count_uses(&view, &mut summary, &mut report).await?;
        let mut blobs = Pages::new(&BLOBS);
        while let Some(page) = blobs.next(&view).await? {
            for (blob, row) in page {
                summary.blobs += 1;
                summary.bytes += self.check_file(blob, row.size, &mut report).await?;
                let counted = uses.remove(&blob).unwrap_or(0);
                if counted == 0 {
                    report(Problem::OrphanRow(blob));
                }
                let stored = view.get(&BLOB_USES, &blob).await?.unwrap_or(0);
                if stored != counted {
                    report(Problem::WrongUses {
                        blob,
                        stored,
                        counted,
                    });
                    if repair {
                        let mut batch = Batch::new();
                        batch.put(&BLOB_USES, &blob, &counted);
                        self.inner.store.write(batch).await?;
                    }
                }
            }
        }
        for (blob, uses) in uses {
            report(Problem::MissingRow(blob, uses));
        }
        self.check_folder(&view, &mut report).await?;
        summary.problems = problems;
        Ok(summary)
    }

    /// How often rows name each blob.
    async fn count_uses(
        &self,
        view: &View,
        summary: &mut CheckSummary,
        report: &mut impl FnMut(Problem),
    ) -> Result<HashMap<BlobId, i64>, MediaError> {
        let mut uses: HashMap<BlobId, i64> = HashMap::new();
        let mut count = |blob| *uses.entry(blob).or_default() += 1;
        let mut media = Pages::new(&MEDIA);
        while let Some(page) = media.next(view).await? {
            for (_, row) in page {
                summary.media += 1;
                if let MediaState::Stored(content) = row.state {
                    count(content.blob);
                }
            }
        }
        let mut thumbnails = Pages::new(&THUMBNAILS);
        while let Some(page) = thumbnails.next(view).await? {
            for ((source, ..), row) in page {
                if row.blob != source {
                    count(row.blob);
                }
                if !view.contains(&BLOBS, &source).await? {
                    report(Problem::OrphanThumbnail(source));
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
        view: &View,
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
            let rows = view.get_many(&BLOBS, &ids).await?;
            for ((blob, size), row) in page.blobs.into_iter().zip(rows) {
                if row.is_none() {
                    report(Problem::OrphanFile { blob, size });
                }
            }
            next = page.next;
        }
        Ok(())
    }

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

async fn hash(mut reader: BlobReader) -> Result<BlobId, MediaError> {
    let mut hash = Sha256::new();
    while let Some(piece) = reader.stream.next().await {
        hash.update(piece?);
    }
    Ok(BlobId(hash.finalize().into()))
}

/// Reads a whole map, a page at a time.
struct Pages<K: 'static, V: 'static> {
    map: &'static Map<K, V>,
    /// What is left; `None` at the end.
    rest: Option<Range>,
}

impl<K: Key, V: Value> Pages<K, V> {
    fn new(map: &'static Map<K, V>) -> Self {
        Self {
            map,
            rest: Some(Range::all()),
        }
    }

    async fn next(&mut self, view: &View) -> Result<Option<Vec<(K, V)>>, MediaError> {
        let Some(range) = self.rest.take() else {
            return Ok(None);
        };
        let page = view
            .range(self.map, range, Direction::Forward, PAGE)
            .await?;
        if page.len() == PAGE {
            self.rest = page.last().map(|(key, _)| Range::all().after(key));
        }
        Ok(Some(page))
    }
}

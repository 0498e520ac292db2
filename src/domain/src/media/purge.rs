//! Taking media away: what nobody has read for long, what is more than there is room for, and what nobody shows any more.
//!
//! A row goes, and with it its blob if no other row names that; a blob's thumbnails go with it. What is left of media that is
//! quarantined is the quarantine.
//!
//! Uploads and thumbnails hold [`Keeping`] while a blob has its name and its row is not written yet; whoever takes blobs away
//! waits until nobody does. So a blob that is uploaded again while it goes is there afterwards.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use futures::{StreamExt, stream};
use tokio::sync::{OwnedMutexGuard, OwnedRwLockReadGuard, RwLock};
use vatra_store::{Batch, Direction, Range, View};

use super::{Media, MediaError};
use crate::{
    clock::Millis,
    schema::{
        BLOB_USES, BLOBS, BlobId, MEDIA, MEDIA_READS, MediaContent, MediaRow, MediaState,
        RETRACTED_MEDIA, THUMBNAILS, USER_MEDIA_BYTES,
    },
};

/// How many rows are looked at, and how many go, at a time.
const PAGE: usize = 1_000;
const AT_ONCE: usize = 100;
/// How many files are deleted at a time.
const REMOVED_AT_ONCE: usize = 16;
/// How exactly the media that was read last is found, when there is too much of it.
const HOUR: Millis = 60 * 60 * 1_000;
/// How often it is noted that media is read.
const NOTE_EVERY: Millis = 24 * HOUR;

/// A server and an id.
pub(super) type Key = (String, String);

/// Held while a blob has its name and no row yet.
pub(super) type Keeping = OwnedRwLockReadGuard<()>;

/// While it is held, nothing is taken away.
#[derive(Debug)]
pub struct Undisturbed {
    _held: OwnedMutexGuard<()>,
}

/// Who may take blobs away, and when.
#[derive(Default)]
pub(super) struct Tidiness {
    kept: Arc<RwLock<()>>,
    purges: Arc<tokio::sync::Mutex<()>>,
}

/// What stays, and what goes beside what is too old or too much.
#[derive(Debug, Default)]
pub struct Choice {
    /// Ids of this server's media that stay.
    pub spared: HashSet<String>,
    /// What goes, unless it is spared: see [`Media::retracted`].
    pub retracted: HashSet<(String, String)>,
}

/// Media that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// The server whose it is.
    pub server: String,
    /// Its id.
    pub id: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last read, to a day, or uploaded or fetched.
    pub used: Millis,
}

/// What went, or would go.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Purged {
    /// Media ids.
    pub media: u64,
    /// Files: blobs that nothing names any more, thumbnails among them.
    pub files: u64,
    /// The bytes of those files.
    pub bytes: u64,
}

/// A row that may go.
struct Candidate {
    key: Key,
    row: MediaRow,
    content: MediaContent,
    used: Millis,
}

/// What goes.
#[derive(Debug, Clone, Copy, Default)]
struct Limits {
    /// Media of other servers last used before this.
    remote_before: Option<Millis>,
    /// Of the media of other servers last used in this hour, this many bytes more.
    remote_hour: Option<(Millis, u64)>,
    /// This server's media last used before this.
    local_before: Option<Millis>,
}

impl Media {
    /// Whether anything is ever to be purged.
    pub fn purges(&self) -> bool {
        let settings = &self.inner.settings;
        settings.remote_max_age_ms.is_some()
            || settings.remote_max_bytes.is_some()
            || settings.local_max_age_ms.is_some()
            || settings.retracted_max_age_ms.is_some()
    }

    /// Whether media of this server's users is ever to be purged.
    pub fn purges_local(&self) -> bool {
        self.inner.settings.local_max_age_ms.is_some()
    }

    /// Takes away what the settings and `choice` say. With `dry_run` nothing is
    /// changed, and the answer is what would go. `each` hears of every media id. Cost: reads all rows of media, twice if there
    /// is a bound of bytes. Memory: that of a page; in a dry run also 60 bytes for each file that would go.
    pub async fn purge(
        &self,
        dry_run: bool,
        choice: &Choice,
        mut each: impl FnMut(&Gone),
    ) -> Result<Purged, MediaError> {
        let _alone = self.inner.tidiness.purges.lock().await;
        let mut limits = self.limits().await?;
        let (mut purged, mut left) = (Purged::default(), HashMap::new());
        let mut range = Range::all();
        while let Some((page, next)) = self.candidates(range).await? {
            range = next;
            let mut goes = Vec::new();
            for one in page {
                let local = one.key.0 == self.inner.settings.server_name.as_str();
                if local && choice.spared.contains(&one.key.1) {
                    continue;
                }
                if choice.retracted.contains(&one.key) || limits.judge(local, &one) {
                    goes.push(one);
                }
            }
            for some in goes.chunks(AT_ONCE) {
                let went = match dry_run {
                    true => self.would_go(some, &mut left).await?,
                    false => self.take_away(some).await?,
                };
                purged.media += went.media;
                purged.files += went.files;
                purged.bytes += went.bytes;
                for one in some {
                    each(&Gone {
                        server: one.key.0.clone(),
                        id: one.key.1.clone(),
                        size: one.content.size,
                        used: one.used,
                    });
                }
            }
        }
        Ok(purged)
    }

    /// Waits until nothing is being taken away, and keeps it so: for copies of store and files, which are not made at one moment.
    pub async fn undisturbed(&self) -> Undisturbed {
        let held = self.inner.tidiness.purges.clone().lock_owned().await;
        Undisturbed { _held: held }
    }

    /// Before a blob gets its name, until its row is written.
    pub(super) async fn keeping(&self) -> Keeping {
        self.inner.tidiness.kept.clone().read_owned().await
    }

    /// Whether a row names a blob, once no upload is about to write one.
    pub(super) async fn is_named(&self, blob: BlobId) -> Result<bool, MediaError> {
        let _alone = self.inner.tidiness.kept.write().await;
        Ok(self.inner.store.view().contains(&BLOBS, &blob).await?)
    }

    /// Deletes a blob that no row names.
    pub(super) async fn forget(&self, blob: BlobId) -> Result<(), MediaError> {
        let _alone = self.inner.tidiness.kept.write().await;
        if !self.inner.store.view().contains(&BLOBS, &blob).await? {
            self.inner.blobs.remove(blob).await?;
        }
        Ok(())
    }

    /// Notes that media is read, unless that was noted in the last day. Nobody waits for it.
    pub(super) async fn note_read(&self, key: &Key, row: &MediaRow) -> Result<(), MediaError> {
        let store = &self.inner.store;
        let noted = store.view().get(&MEDIA_READS, key).await?;
        let now = self.now();
        if now.saturating_sub(noted.unwrap_or(row.created)) >= NOTE_EVERY {
            let mut batch = Batch::new();
            batch
                .assert_equals(&MEDIA, key, row)
                .put(&MEDIA_READS, key, &now);
            drop(store.submit(batch));
        }
        Ok(())
    }

    /// What goes by age; and of the rest, if it is more than there is room for, what was used longest ago.
    async fn limits(&self) -> Result<Limits, MediaError> {
        let settings = &self.inner.settings;
        let before = |age: Option<Millis>| age.map(|age| self.now().saturating_sub(age));
        let mut limits = Limits {
            remote_before: before(settings.remote_max_age_ms),
            remote_hour: None,
            local_before: before(settings.local_max_age_ms),
        };
        let Some(room) = settings.remote_max_bytes else {
            return Ok(limits);
        };
        let mut hours: BTreeMap<Millis, u64> = BTreeMap::new();
        let mut range = Range::all();
        while let Some((page, next)) = self.candidates(range).await? {
            range = next;
            for one in page {
                let local = one.key.0 == settings.server_name.as_str();
                if !local && !limits.judge(false, &one) {
                    let bytes = hours.entry(one.used / HOUR).or_default();
                    *bytes = bytes.saturating_add(one.content.size);
                }
            }
        }
        let whole: u64 = hours
            .values()
            .fold(0, |sum, bytes| sum.saturating_add(*bytes));
        let mut surplus = whole.saturating_sub(room);
        for (hour, bytes) in hours {
            if surplus == 0 {
                break;
            }
            limits.remote_hour = Some((hour, surplus));
            surplus = surplus.saturating_sub(bytes);
        }
        Ok(limits)
    }

    /// A page of media that has content, and where the next begins. `None` at the end.
    async fn candidates(
        &self,
        range: Range,
    ) -> Result<Option<(Vec<Candidate>, Range)>, MediaError> {
        let view = self.inner.store.view();
        let rows = view.range(&MEDIA, range, Direction::Forward, PAGE).await?;
        let Some((last, _)) = rows.last() else {
            return Ok(None);
        };
        let next = Range::all().after(last);
        let keys: Vec<_> = rows.iter().map(|(key, _)| key.clone()).collect();
        let reads = view.get_many(&MEDIA_READS, &keys).await?;
        let mut page = Vec::new();
        for ((key, row), read) in rows.into_iter().zip(reads) {
            let MediaState::Stored(content) = &row.state else {
                continue;
            };
            page.push(Candidate {
                content: content.clone(),
                used: row.created.max(read.unwrap_or(0)),
                key,
                row,
            });
        }
        Ok(Some((page, next)))
    }

    async fn would_go(
        &self,
        goes: &[Candidate],
        left: &mut HashMap<BlobId, i64>,
    ) -> Result<Purged, MediaError> {
        let view = self.inner.store.view();
        let (mut batch, mut gone) = (Batch::new(), Vec::new());
        let mut purged = Purged::default();
        for one in goes {
            self.unname(&view, one.content.blob, left, &mut batch, &mut gone)
                .await?;
            purged.media += 1;
        }
        purged.count(&view, &gone).await?;
        Ok(purged)
    }

    /// Rows in one batch, then the files. What a crash leaves between both are files without rows.
    async fn take_away(&self, goes: &[Candidate]) -> Result<Purged, MediaError> {
        let _alone = self.inner.tidiness.kept.write().await;
        let view = self.inner.store.view();
        let keys: Vec<_> = goes.iter().map(|one| one.key.clone()).collect();
        let rows = view.get_many(&MEDIA, &keys).await?;
        let (mut batch, mut gone, mut left) = (Batch::new(), Vec::new(), HashMap::new());
        let mut purged = Purged::default();
        for (one, row) in goes.iter().zip(rows) {
            if row.as_ref() != Some(&one.row) {
                continue;
            }
            batch
                .delete(&MEDIA, &one.key)
                .delete(&MEDIA_READS, &one.key)
                .delete(&RETRACTED_MEDIA, &one.key);
            if one.key.0 == self.inner.settings.server_name.as_str() {
                let bytes = i64::try_from(one.content.size).unwrap_or(i64::MAX);
                batch.add(&USER_MEDIA_BYTES, &one.row.uploader, -bytes);
            }
            self.unname(&view, one.content.blob, &mut left, &mut batch, &mut gone)
                .await?;
            purged.media += 1;
        }
        purged.count(&view, &gone).await?;
        if batch.is_empty() {
            return Ok(purged);
        }
        self.inner.store.write(batch).await?;
        // Side by side: uploads wait meanwhile, and a bucket is far away.
        let removals = gone.into_iter().map(|blob| async move {
            if let Err(error) = self.inner.blobs.remove(blob).await {
                tracing::warn!(%blob, %error, "a file that nothing names cannot be deleted");
            }
        });
        let removals = stream::iter(removals).buffer_unordered(REMOVED_AT_ONCE);
        removals.collect::<()>().await;
        Ok(purged)
    }

    /// A row names a blob no more; nor do its thumbnails name theirs, if it goes. `left` is how often what was seen so far is
    /// still named.
    async fn unname(
        &self,
        view: &View,
        blob: BlobId,
        left: &mut HashMap<BlobId, i64>,
        batch: &mut Batch,
        gone: &mut Vec<BlobId>,
    ) -> Result<(), MediaError> {
        let mut unnamed = vec![blob];
        while let Some(blob) = unnamed.pop() {
            let uses = match left.get(&blob) {
                Some(uses) => *uses,
                None => view.get(&BLOB_USES, &blob).await?.unwrap_or(0),
            };
            let uses = uses.saturating_sub(1);
            left.insert(blob, uses);
            batch.add(&BLOB_USES, &blob, -1);
            if uses != 0 {
                continue;
            }
            batch.delete(&BLOB_USES, &blob).delete(&BLOBS, &blob);
            gone.push(blob);
            let range = Range::prefix(&(blob,));
            let thumbnails = view
                .range(&THUMBNAILS, range, Direction::Forward, usize::MAX)
                .await?;
            for (key, row) in thumbnails {
                batch.delete(&THUMBNAILS, &key);
                if row.blob != blob {
                    unnamed.push(row.blob);
                }
            }
        }
        Ok(())
    }
}

impl Limits {
    /// Whether it goes.
    fn judge(&mut self, local: bool, one: &Candidate) -> bool {
        if local {
            return self.local_before.is_some_and(|before| one.used < before);
        }
        if self.remote_before.is_some_and(|before| one.used < before) {
            return true;
        }
        let Some((hour, surplus)) = &mut self.remote_hour else {
            return false;
        };
        let used = one.used / HOUR;
        if used == *hour && *surplus > 0 {
            *surplus = surplus.saturating_sub(one.content.size);
            return true;
        }
        used < *hour
    }
}

impl Purged {
    async fn count(&mut self, view: &View, gone: &[BlobId]) -> Result<(), MediaError> {
        for row in view.get_many(&BLOBS, gone).await?.into_iter().flatten() {
            self.files += 1;
            self.bytes = self.bytes.saturating_add(row.size);
        }
        Ok(())
    }
}

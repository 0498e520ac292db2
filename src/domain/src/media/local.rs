//! Blobs on the local disk: `blobs/ab/cd/<the other 60 digits>` under the media folder, and `tmp/` for what is being
//! written.
//!
//! Invariants: a file under `blobs/` is complete and was synced before it got its name, and its folder was synced
//! before [`BlobWriter::finish`] returned; names are made of a hash's digits only, so no request can choose a path.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream;

use super::{
    blob::{BlobBackend, BlobPage, BlobReader, BlobWriter, SeekRead},
    error::BlobError,
};
use crate::schema::BlobId;

/// How many bytes go to or come from the disk at once: large enough that the hop to the blocking pool costs little.
const PIECE: usize = 256 * 1024;
/// How many bytes are written to see whether there is room.
const PROBE: usize = 64 * 1024;

/// Blobs in a folder.
#[derive(Debug, Clone)]
pub struct LocalBlobs {
    root: Arc<Path>,
    /// Numbers temporary files; begins anew at each start, when there are none.
    next: Arc<AtomicU64>,
}

impl LocalBlobs {
    /// A file that has no name of its own yet.
    async fn temporary(&self) -> Result<Temporary, BlobError> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let path = self.root.join("tmp").join(name);
        blocking(move || {
            let file = File::options().write(true).create_new(true).open(&path)?;
            Ok(Temporary {
                file: Arc::new(file),
                path,
            })
        })
        .await
    }

    /// Opens the folder, making it if needed, and removes what uploads cut short by a crash have left. One server at a
    /// time may have it open.
    pub async fn open(root: PathBuf) -> Result<Self, BlobError> {
        let root: Arc<Path> = root.into();
        let made = root.clone();
        blocking(move || {
            fs::create_dir_all(made.join("tmp"))?;
            fs::create_dir_all(made.join("blobs"))?;
            for left in fs::read_dir(made.join("tmp"))? {
                fs::remove_file(left?.path())?;
            }
            sync_folder(&made)?;
            made.parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .map_or(Ok(()), sync_folder)
        })
        .await?;
        Ok(Self {
            root,
            next: Arc::default(),
        })
    }

    /// Where a blob lies below the media folder, for copies of it.
    pub fn relative_path(id: BlobId) -> PathBuf {
        let hex = id.to_string();
        let (first, rest) = hex.split_at(2);
        let (second, rest) = rest.split_at(2);
        ["blobs", first, second, rest].iter().collect()
    }

    fn path(&self, id: BlobId) -> PathBuf {
        self.root.join(Self::relative_path(id))
    }
}

#[async_trait]
impl BlobBackend for LocalBlobs {
    async fn create(&self) -> Result<Box<dyn BlobWriter>, BlobError> {
        Ok(Box::new(LocalWriter {
            blobs: self.clone(),
            temporary: self.temporary().await?,
            waiting: Vec::new(),
            waiting_bytes: 0,
        }))
    }

    async fn open_part(
        &self,
        id: BlobId,
        part: Range<u64>,
    ) -> Result<Option<BlobReader>, BlobError> {
        let path = self.path(id);
        blocking(move || {
            let Some(mut file) = found(File::open(path))? else {
                return Ok(None);
            };
            let size = file.metadata()?.len();
            if part.start > 0 {
                file.seek(SeekFrom::Start(part.start.min(size)))?;
            }
            let mut file = file.take(part.end.saturating_sub(part.start));
            // The first piece comes with the same hop: most files are one piece.
            let first = read_piece(&mut file)?;
            let rest = stream::try_unfold((Some(first), Some(file)), |(first, file)| async move {
                if let Some(piece) = first.filter(|piece| !piece.is_empty()) {
                    let more = piece.len() == PIECE;
                    return Ok(Some((piece, (None, file.filter(|_| more)))));
                }
                let Some(mut file) = file else {
                    return Ok(None);
                };
                let (piece, file) = blocking(move || Ok((read_piece(&mut file)?, file))).await?;
                let more = piece.len() == PIECE;
                let next = (None, Some(file).filter(|_| more));
                Ok(Some((piece, next)).filter(|(piece, _)| !piece.is_empty()))
            });
            Ok(Some(BlobReader {
                size,
                stream: Box::pin(rest),
            }))
        })
        .await
    }

    async fn open_seekable(&self, id: BlobId) -> Result<Option<Box<dyn SeekRead>>, BlobError> {
        let path = self.path(id);
        let file = blocking(move || found(File::open(path))).await?;
        let Some(file) = file else { return Ok(None) };
        Ok(Some(Box::new(BufReader::new(file))))
    }

    async fn remove(&self, id: BlobId) -> Result<(), BlobError> {
        let path = self.path(id);
        blocking(move || found(fs::remove_file(path)).map(|_| ())).await
    }

    async fn probe(&self) -> Result<(), BlobError> {
        let temporary = self.temporary().await?;
        blocking(move || {
            (&*temporary.file).write_all(&[0; PROBE])?;
            temporary.file.sync_all()
        })
        .await
    }

    /// A page is one of the 256 folders.
    async fn list(&self, page: u16) -> Result<BlobPage, BlobError> {
        let root = self.root.clone();
        blocking(move || {
            let mut found = BlobPage {
                next: page.checked_add(1).filter(|next| *next < 256),
                ..BlobPage::default()
            };
            let blobs = root.join("blobs");
            if page == 0 {
                let is_shard = |name: &str| name.len() == 2 && is_hex(name);
                found.strange.extend(strangers(&blobs, is_shard)?);
            }
            let shard = blobs.join(format!("{page:02x}"));
            found
                .strange
                .extend(strangers(&shard, |name| name.len() == 2 && is_hex(name))?);
            for folder in entries(&shard)? {
                for file in entries(&folder)? {
                    match name_of(&file) {
                        Some(id) if file.is_file() => {
                            found.blobs.push((id, fs::metadata(&file)?.len()))
                        }
                        _ => found.strange.push(file.display().to_string()),
                    }
                }
            }
            Ok(found)
        })
        .await
    }
}

/// A file without a name of its own yet; removed when dropped.
struct Temporary {
    file: Arc<File>,
    path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After `finish` it is no longer there; otherwise a failure costs an orphan that the next start removes.
        let _ = fs::remove_file(&self.path);
    }
}

struct LocalWriter {
    blobs: LocalBlobs,
    temporary: Temporary,
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
}

impl LocalWriter {
    async fn flush(&mut self) -> Result<(), BlobError> {
        let pieces = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let file = self.temporary.file.clone();
        blocking(move || {
            pieces
                .iter()
                .try_for_each(|piece| (&*file).write_all(piece))
        })
        .await
    }
}

#[async_trait]
impl BlobWriter for LocalWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        self.waiting_bytes = self.waiting_bytes.saturating_add(bytes.len());
        self.waiting.push(bytes);
        if self.waiting_bytes >= PIECE {
            self.flush().await
        } else {
            Ok(())
        }
    }

    async fn finish(mut self: Box<Self>, id: BlobId) -> Result<(), BlobError> {
        self.flush().await?;
        let path = self.blobs.path(id);
        let temporary = self.temporary;
        blocking(move || {
            temporary.file.sync_all()?;
            let folder = path.parent().unwrap_or(&path);
            make_folder(folder)?;
            fs::rename(&temporary.path, &path)?;
            sync_folder(folder)
        })
        .await
    }
}

/// Makes a shard's folder, and the one above it, durable: also when another upload made them a moment ago and has
/// not synced them yet. Costs two syncs of unchanged folders in the common case, which journalling file systems
/// answer at once.
fn make_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let above = folder.ancestors().skip(1).take(2);
    for parent in above {
        sync_folder(parent)?;
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn read_piece(file: &mut impl Read) -> io::Result<Bytes> {
    let mut piece = Vec::with_capacity(PIECE);
    file.take(PIECE.try_into().unwrap_or(u64::MAX))
        .read_to_end(&mut piece)?;
    Ok(piece.into())
}

/// What is not there is `None`.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn is_hex(name: &str) -> bool {
    name.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The folders and files in a folder; none if it is not there or no folder.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect()
}

/// What in a folder has another name than it should, or is no folder.
fn strangers(folder: &Path, fits: impl Fn(&str) -> bool) -> io::Result<Vec<String>> {
    let mut strange = entries(folder)?;
    strange.retain(|path| {
        !path.is_dir() || !path.file_name().and_then(OsStr::to_str).is_some_and(&fits)
    });
    Ok(strange
        .iter()
        .map(|path| path.display().to_string())
        .collect())
}

/// The blob that a path `.../ab/cd/<60 digits>` names.
fn name_of(path: &Path) -> Option<BlobId> {
    let parts: Option<Vec<_>> = path.iter().rev().take(3).map(OsStr::to_str).collect();
    let hex: String = parts?.into_iter().rev().collect();
    let id = BlobId::from_hex(&hex)?;
    path.ends_with(LocalBlobs::relative_path(id)).then_some(id)
}

/// Runs file work on the blocking pool. It runs to its end even if the caller goes away.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, BlobError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(error) => Err(io::Error::other(error).into()),
    }
}

//! Files on their way to or from the service, on this machine: without a name, so that they go with the process, however it ends.

use std::{
    fs::{self, File},
    io::{self, BufReader, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use crate::folders;

/// How many bytes go to the disk at once.
const AT_ONCE: usize = 256 << 10;

/// A folder for them. Cheap to clone.
#[derive(Clone)]
pub(super) struct Spool {
    folder: Arc<Path>,
    next: Arc<AtomicU64>,
}

impl Spool {
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        folders::make(folder)?;
        Ok(Self {
            folder: folder.into(),
            next: Arc::default(),
        })
    }

    /// An empty file.
    pub(super) async fn create(&self) -> io::Result<Spooled> {
        let spool = self.clone();
        let file = blocking(move || spool.nameless()).await?;
        Ok(Spooled {
            file: Arc::new(file),
            length: 0,
            waiting: Vec::new(),
            waiting_bytes: 0,
        })
    }

    fn nameless(&self) -> io::Result<File> {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let path = self.folder.join(format!("spool-{number}"));
            let opened = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path);
            match opened {
                Ok(file) => {
                    fs::remove_file(&path)?;
                    return Ok(file);
                }
                // Of a process that was killed between the two.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A file without a name.
pub(super) struct Spooled {
    file: Arc<File>,
    length: u64,
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
}

impl Spooled {
    /// How many bytes it has.
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Appends bytes.
    pub(super) async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.waiting_bytes = self.waiting_bytes.saturating_add(bytes.len());
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.length = self.length.saturating_add(length);
        self.waiting.push(bytes);
        if self.waiting_bytes >= AT_ONCE {
            return self.flush().await;
        }
        Ok(())
    }

    /// What was written can be read.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        let pieces = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let file = self.file.clone();
        blocking(move || {
            let mut file = &*file;
            pieces.iter().try_for_each(|piece| file.write_all(piece))
        })
        .await
    }

    /// Bytes from a place on, as many as there are up to a limit.
    pub(super) async fn read_at(&self, at: u64, limit: usize) -> io::Result<Bytes> {
        let left = usize::try_from(self.length.saturating_sub(at)).unwrap_or(usize::MAX);
        let (file, length) = (self.file.clone(), left.min(limit));
        blocking(move || {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, at)?;
            Ok(bytes.into())
        })
        .await
    }

    /// Reads it from the beginning.
    pub(super) async fn into_reader(mut self) -> io::Result<BufReader<File>> {
        self.flush().await?;
        let file = self.file.clone();
        blocking(move || {
            let mut file = file.try_clone()?;
            file.seek(SeekFrom::Start(0))?;
            Ok(BufReader::new(file))
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

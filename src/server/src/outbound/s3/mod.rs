//! Pictures and files in a bucket of an S3-compatible service, under the names that they would have in the media folder.
//!
//! What is written goes to a file on this machine first ([`spool`]), since its name is known when it is hashed, and the service cannot
//! rename. It is sent in parts of some MB, each with its hash, which the service checks; it answers when what it took is durable. What
//! is read comes straight from the service, in parts too if a client asks for one.
//!
//! The service is the operator's word, so that it is connected to wherever it is.

mod line;
mod spool;

use std::{io, ops::Range, path::Path as FilePath, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use object_store::{
    BackoffConfig, Error, GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt,
    RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};
use vatra_domain::{
    media::{
        BlobBackend, BlobError, BlobPage, BlobReader, BlobStream, BlobWriter, LocalBlobs, SeekRead,
    },
    schema::BlobId,
};

use self::{
    line::Line,
    spool::{Spool, Spooled},
};
use super::dial::Dialer;

/// How many bytes are sent at once; services take no less than 5 MiB, but for the last.
const PART: usize = 8 << 20;
/// The largest piece that is handed on.
const PIECE: usize = 256 << 10;
/// How long the next piece, or the next names, may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The name under which it is tried whether there is room.
const PROBE: &str = "probe";

/// Which bucket, and who asks.
#[derive(Clone)]
pub(crate) struct Bucket {
    pub(crate) name: String,
    /// The service's URL; empty: Amazon's of the region.
    pub(crate) endpoint: String,
    pub(crate) region: String,
    /// What all names begin with.
    pub(crate) prefix: String,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    /// Whether the bucket's name stands in the host's, not in the path.
    pub(crate) in_host: bool,
}

impl Bucket {
    /// Where requests go; empty: to Amazon.
    fn url(&self) -> String {
        match self.endpoint.split_once("://") {
            Some((scheme, host)) if self.in_host => format!("{scheme}://{}.{host}", self.name),
            _ => self.endpoint.clone(),
        }
    }
}

/// Why a bucket cannot be used.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// The service refuses: the settings are wrong.
    Refused(String),
    /// The service does not answer, or has trouble of its own.
    Away(String),
}

/// Blobs in a bucket. Cheap to clone.
#[derive(Clone)]
pub(crate) struct S3Blobs {
    store: Arc<AmazonS3>,
    prefix: Arc<str>,
    spool: Spool,
}

impl S3Blobs {
    /// Opens nothing yet. `folder` is for files on their way.
    ///
    /// # Errors
    /// A message for people.
    pub(crate) fn new(bucket: Bucket, dialer: Dialer, folder: &FilePath) -> Result<Self, String> {
        let endpoint = bucket.url();
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket.name)
            .with_region(bucket.region)
            .with_access_key_id(bucket.access_key_id)
            .with_secret_access_key(bucket.secret_access_key)
            .with_virtual_hosted_style_request(bucket.in_host)
            .with_retry(RetryConfig {
                // Someone waits.
                backoff: BackoffConfig {
                    max_backoff: Duration::from_secs(5),
                    ..BackoffConfig::default()
                },
                max_retries: 3,
                retry_timeout: Duration::from_secs(30),
            })
            .with_http_connector(Line::new(dialer));
        if !endpoint.is_empty() {
            builder = builder
                .with_allow_http(endpoint.starts_with("http://"))
                .with_endpoint(endpoint);
        }
        let store = builder.build().map_err(|error| error.to_string())?;
        let trimmed = bucket.prefix.trim_matches('/');
        let prefix = if trimmed.is_empty() {
            String::new()
        } else {
            format!("{trimmed}/")
        };
        Ok(Self {
            store: Arc::new(store),
            prefix: prefix.into(),
            spool: Spool::new(folder).map_err(|error| format!("{}: {error}", folder.display()))?,
        })
    }

    /// Writes something and takes it away again: whether the settings are right, and the service is there.
    pub(crate) async fn try_it(&self) -> Result<(), Unusable> {
        self.put_and_delete().await.map_err(|error| match error {
            Error::NotFound { .. }
            | Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. } => Unusable::Refused(plain(&error)),
            error => Unusable::Away(plain(&error)),
        })
    }

    async fn put_and_delete(&self) -> Result<(), Error> {
        let path = self.named(PROBE);
        self.store.put(&path, vec![0].into()).await?;
        self.store.delete(&path).await
    }

    fn named(&self, name: &str) -> Path {
        Path::from(format!("{}{name}", self.prefix))
    }

    fn path(&self, id: BlobId) -> Path {
        self.named(&LocalBlobs::relative_path(id).to_string_lossy())
    }

    /// The blob that a name stands for.
    fn id_of(&self, path: &Path) -> Option<BlobId> {
        let name = path.as_ref().strip_prefix(&*self.prefix)?;
        let hex = name.strip_prefix("blobs/")?.replace('/', "");
        let id = BlobId::from_hex(&hex)?;
        (self.path(id) == *path).then_some(id)
    }

    /// A blob's length.
    async fn size(&self, id: BlobId) -> Result<Option<u64>, BlobError> {
        let head = self.store.head(&self.path(id)).await;
        Ok(found(head)?.map(|meta| meta.size))
    }

    /// Sends a file in parts.
    async fn send(
        &self,
        spooled: &Spooled,
        upload: &mut Box<dyn MultipartUpload>,
    ) -> Result<(), BlobError> {
        let mut at = 0;
        while at < spooled.len() {
            let part = spooled.read_at(at, PART).await?;
            at += u64::try_from(part.len()).unwrap_or(u64::MAX);
            upload.put_part(part.into()).await.map_err(failed)?;
        }
        upload.complete().await.map(|_| ()).map_err(failed)
    }
}

#[async_trait]
impl BlobBackend for S3Blobs {
    async fn create(&self) -> Result<Box<dyn BlobWriter>, BlobError> {
        Ok(Box::new(S3Writer {
            blobs: self.clone(),
            spooled: self.spool.create().await?,
        }))
    }

    async fn open_part(
        &self,
        id: BlobId,
        part: Range<u64>,
    ) -> Result<Option<BlobReader>, BlobError> {
        let range = match (part.start, part.end) {
            (0, u64::MAX) => None,
            (start, u64::MAX) => Some(GetRange::Offset(start)),
            (start, end) if start < end => Some(GetRange::Bounded(start..end)),
            // Services have no word for nothing.
            _ => return Ok(self.size(id).await?.map(nothing)),
        };
        let options = GetOptions {
            range,
            ..GetOptions::default()
        };
        match self.store.get_opts(&self.path(id), options).await {
            Ok(got) => Ok(Some(BlobReader {
                size: got.meta.size,
                stream: in_pieces(got.into_stream()),
            })),
            Err(Error::NotFound { .. }) => Ok(None),
            // It may begin behind the end.
            Err(error) if part.start > 0 => match self.size(id).await? {
                Some(size) if size <= part.start => Ok(Some(nothing(size))),
                _ => Err(failed(error)),
            },
            Err(error) => Err(failed(error)),
        }
    }

    async fn open_seekable(&self, id: BlobId) -> Result<Option<Box<dyn SeekRead>>, BlobError> {
        let Some(mut reader) = self.open(id).await? else {
            return Ok(None);
        };
        let mut spooled = self.spool.create().await?;
        while let Some(piece) = reader.stream.next().await {
            spooled.write(piece?).await?;
        }
        Ok(Some(Box::new(spooled.into_reader().await?)))
    }

    async fn remove(&self, id: BlobId) -> Result<(), BlobError> {
        found(self.store.delete(&self.path(id)).await).map(|_| ())
    }

    async fn probe(&self) -> Result<(), BlobError> {
        self.put_and_delete().await.map_err(failed)
    }

    /// A page is what begins with one of the 256 first bytes.
    async fn list(&self, page: u16) -> Result<BlobPage, BlobError> {
        let mut listed = BlobPage {
            next: page.checked_add(1).filter(|next| *next < 256),
            ..BlobPage::default()
        };
        if page == 0 {
            let top = self.named("blobs");
            let top = in_time(self.store.list_with_delimiter(Some(&top))).await?;
            let is_shard = |name: &str| name.len() == 2 && u8::from_str_radix(name, 16).is_ok();
            let folders = top.common_prefixes.iter();
            let strange = folders.filter(|folder| !folder.filename().is_some_and(is_shard));
            listed.strange.extend(strange.map(Path::to_string));
            let files = top.objects.iter().map(|meta| meta.location.to_string());
            listed.strange.extend(files);
        }
        let shard = self.named(&format!("blobs/{page:02x}"));
        let mut names = self.store.list(Some(&shard));
        while let Some(meta) = in_time(async { names.next().await.transpose() }).await? {
            match self.id_of(&meta.location) {
                Some(id) => listed.blobs.push((id, meta.size)),
                None => listed.strange.push(meta.location.to_string()),
            }
        }
        Ok(listed)
    }
}

/// A blob on its way: on this machine until it is finished.
struct S3Writer {
    blobs: S3Blobs,
    spooled: Spooled,
}

#[async_trait]
impl BlobWriter for S3Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        Ok(self.spooled.write(bytes).await?)
    }

    async fn finish(mut self: Box<Self>, id: BlobId) -> Result<(), BlobError> {
        self.spooled.flush().await?;
        let (store, path) = (&self.blobs.store, self.blobs.path(id));
        if self.spooled.len() <= u64::try_from(PART).unwrap_or(u64::MAX) {
            let bytes = self.spooled.read_at(0, PART).await?;
            return store
                .put(&path, bytes.into())
                .await
                .map(|_| ())
                .map_err(failed);
        }
        let mut upload = store.put_multipart(&path).await.map_err(failed)?;
        let sent = self.blobs.send(&self.spooled, &mut upload).await;
        if sent.is_err() {
            // What cannot be taken back now is what the service's rule for parts without a whole is for.
            let _ = upload.abort().await;
        }
        sent
    }
}

/// A blob of this length, of which nothing is read.
fn nothing(size: u64) -> BlobReader {
    BlobReader {
        size,
        stream: Box::pin(stream::empty()),
    }
}

/// Small pieces, each of which comes in time.
fn in_pieces(
    pieces: impl Stream<Item = Result<Bytes, Error>> + Send + Unpin + 'static,
) -> BlobStream {
    let read = stream::try_unfold(
        (pieces, Bytes::new()),
        |(mut pieces, mut held)| async move {
            while held.is_empty() {
                match in_time(async { pieces.next().await.transpose() }).await? {
                    Some(piece) => held = piece,
                    None => return Ok(None),
                }
            }
            let piece = held.split_to(held.len().min(PIECE));
            Ok(Some((piece, (pieces, held))))
        },
    );
    Box::pin(read)
}

async fn in_time<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, BlobError> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done.map_err(failed),
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

/// What is not there is `None`.
fn found<T>(result: Result<T, Error>) -> Result<Option<T>, BlobError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn failed(error: Error) -> BlobError {
    io::Error::other(plain(&error)).into()
}

/// On one line: services answer with XML.
fn plain(error: &Error) -> String {
    let text = error.to_string();
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").chars().take(500).collect()
}

//! The boundary to where blobs are kept: the local disk ([`super::LocalBlobs`]), or what the server's wiring brings (a bucket).
//!
//! A backend knows names and bytes. It neither hashes nor counts: that is done once, above it. To add one, implement
//! [`BlobBackend`] and run the module's tests over it.
//!
//! Invariant: when [`BlobWriter::finish`] returns, the blob survives a power cut. Rows that name it are written after.

use std::{
    io::{BufRead, Seek},
    ops::Range,
    pin::Pin,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;

use super::error::BlobError;
use crate::schema::BlobId;

/// The bytes of a blob as they are read, in pieces of at most 256 KiB.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes, BlobError>> + Send>>;

/// What a decoder reads from; used on the blocking pool.
pub trait SeekRead: BufRead + Seek + Send {}
impl<T: BufRead + Seek + Send> SeekRead for T {}

/// A blob opened for reading.
pub struct BlobReader {
    /// The length of the whole blob, in bytes.
    pub size: u64,
    /// The bytes of the part that was asked for, all of them unless an error comes first.
    pub stream: BlobStream,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobReader({} bytes)", self.size)
    }
}

/// A page of what a backend holds.
#[derive(Debug, Default)]
pub struct BlobPage {
    /// The blobs with their lengths, in no particular order.
    pub blobs: Vec<(BlobId, u64)>,
    /// Names that are no blob's, as an operator would look for them.
    pub strange: Vec<String>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<u16>,
}

/// A place where blobs are kept, under the SHA-256 of their bytes.
#[async_trait]
pub trait BlobBackend: Send + Sync + 'static {
    /// Begins a blob whose name is not known yet. Dropping the writer leaves nothing behind; a crash leaves at most a
    /// temporary file that the next start removes.
    async fn create(&self) -> Result<Box<dyn BlobWriter>, BlobError>;

    /// Opens a part of a blob: of what is asked for, the bytes that it has. `None` if it is not there.
    async fn open_part(
        &self,
        id: BlobId,
        part: Range<u64>,
    ) -> Result<Option<BlobReader>, BlobError>;

    /// Opens a whole blob. `None` if it is not there.
    async fn open(&self, id: BlobId) -> Result<Option<BlobReader>, BlobError> {
        self.open_part(id, 0..u64::MAX).await
    }

    /// Opens a blob for a decoder. `None` if it is not there.
    async fn open_seekable(&self, id: BlobId) -> Result<Option<Box<dyn SeekRead>>, BlobError>;

    /// Deletes a blob, if it is there. Who has it open reads on.
    async fn remove(&self, id: BlobId) -> Result<(), BlobError>;

    /// Writes a small file and takes it away again: whether there is room.
    async fn probe(&self) -> Result<(), BlobError>;

    /// A page of everything that is there. Begin with 0.
    async fn list(&self, page: u16) -> Result<BlobPage, BlobError>;
}

/// A blob that is being written.
#[async_trait]
pub trait BlobWriter: Send {
    /// Appends bytes.
    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError>;

    /// Makes what was written durable and names it. If the name is taken its content is replaced, which by the name
    /// is the same content, so that a damaged file is mended by uploading it again.
    async fn finish(self: Box<Self>, id: BlobId) -> Result<(), BlobError>;
}

//! The boundary to the network: one request to one server, however that server is found and reached.
//!
//! The server crate implements it over TLS; tests connect two servers in memory.

use std::pin::Pin;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http::{Request, Response};
use ruma::ServerName;

/// A body as it comes.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, TransportError>> + Send>>;

/// Sends requests to servers by their names.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends a request and returns once the answer's head is there.
    ///
    /// The request's URI is a path with a query; the transport finds out where the server is, checks its certificate, and
    /// sets `Host`. It follows no redirects of the API and keeps no time: the caller does, by dropping the future.
    async fn send(
        &self,
        destination: &ServerName,
        request: Request<Bytes>,
    ) -> Result<Response<ByteStream>, TransportError>;

    /// Fetches a file from an `https` URL that a server named (media on a content delivery network): without signatures, and
    /// only from public addresses. Redirects are not followed.
    async fn fetch(&self, url: &http::Uri) -> Result<Response<ByteStream>, TransportError>;

    /// Whether this server speaks with others at all.
    fn is_open(&self) -> bool {
        true
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The name leads to no address.
    #[error("the server's name leads nowhere: {0}")]
    Unresolved(String),
    /// The address is one that this server does not connect to (loopback, private networks).
    #[error("the server's address {0} is not public")]
    NotPublic(std::net::IpAddr),
    /// No connection.
    #[error("no connection: {0}")]
    NoConnection(String),
    /// The certificate is not that of the server.
    #[error("no trusted TLS connection: {0}")]
    NotTrusted(String),
    /// It took too long.
    #[error("no answer in time")]
    TooSlow,
    /// The answer is larger than the caller can use.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The connection ended in the middle.
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// A whole body, unless it is larger than `limit_bytes`; no more than that is ever in memory.
///
/// # Errors
/// [`TransportError::TooLarge`], and what the stream says.
pub async fn collect(mut body: ByteStream, limit_bytes: usize) -> Result<Bytes, TransportError> {
    let mut whole = BytesMut::new();
    while let Some(piece) = body.next().await {
        let piece = piece?;
        if whole.len() + piece.len() > limit_bytes {
            return Err(TransportError::TooLarge(limit_bytes));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// A body that is already there.
pub fn ready(bytes: Bytes) -> ByteStream {
    Box::pin(futures::stream::once(async { Ok(bytes) }))
}

//! The boundary to the network: one notification to one push gateway.

use async_trait::async_trait;
use bytes::Bytes;
use http::Uri;

use crate::remote::TransportError;

/// What a gateway answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body, of bounded size.
    pub body: Bytes,
}

/// Reaches push gateways.
#[async_trait]
pub trait Gateway: Send + Sync + 'static {
    /// Posts a JSON body to a gateway's URL. The addresses that are connected to are judged as those of servers that strangers name:
    /// the URL is the word of a user. Follows no redirects, reads a bounded answer, and keeps no time: the caller does, by
    /// dropping the future.
    async fn post(&self, url: &Uri, body: Bytes) -> Result<Answer, TransportError>;
}

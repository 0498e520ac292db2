//! Getting what is at a URL: redirects are followed by hand, and every hop is judged.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{Response, Uri, header};
use url::Url;

use super::{PreviewError, Settings, hosts::Hosts};
use crate::remote::{ByteStream, TransportError, transport::collect};

/// How often one URL may lead to another.
const MAX_REDIRECTS: usize = 5;

/// The web. Tests have their own.
#[async_trait]
pub trait Web: Send + Sync + 'static {
    /// Gets an `http` or `https` URL, and returns once the answer's head is there. Asks for what `accept` says, without compression; sends
    /// nothing that says who asks. It connects only to addresses that this server may speak to, judged after the look-up, and follows
    /// no redirects. It keeps no time: the caller does, by dropping the future.
    async fn get(
        &self,
        url: &Uri,
        accept: &'static str,
    ) -> Result<Response<ByteStream>, TransportError>;
}

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Page,
    Oembed,
    Picture,
}

impl Kind {
    fn accept(self) -> &'static str {
        match self {
            Self::Page => "text/html, application/xhtml+xml, image/*;q=0.9, */*;q=0.5",
            Self::Oembed => "application/json+oembed, application/json;q=0.9",
            Self::Picture => "image/png, image/jpeg, image/webp, image/gif",
        }
    }
}

/// Gets what is at URLs.
pub(super) struct Fetcher {
    web: Arc<dyn Web>,
    hosts: Hosts,
}

impl Fetcher {
    pub(super) fn new(web: Arc<dyn Web>, settings: &Settings) -> Self {
        let hosts = Hosts::new(&settings.allow_hosts, &settings.deny_hosts);
        Self { web, hosts }
    }

    /// Whether a URL is one that is asked, as far as it says so itself.
    pub(super) fn check(&self, url: &Url) -> Result<(), PreviewError> {
        let has_login = !url.username().is_empty() || url.password().is_some();
        if !matches!(url.scheme(), "http" | "https") || has_login {
            return Err(PreviewError::BadUrl);
        }
        let host = url.host_str().unwrap_or_default();
        if host.is_empty() {
            return Err(PreviewError::BadUrl);
        }
        if !self.hosts.may_be_asked(host) {
            return Err(PreviewError::Excluded(host.to_owned()));
        }
        Ok(())
    }

    /// Gets a URL and follows where it leads, up to the head of an answer that is there.
    pub(super) async fn follow(&self, url: Url, kind: Kind) -> Result<Fetched, PreviewError> {
        let mut url = url;
        for _ in 0..=MAX_REDIRECTS {
            // Only what the asker wrote is told to be bad: where it leads is nothing that they learn.
            let bad = PreviewError::Unreadable("it leads to no URL of the web");
            match self.check(&url) {
                Err(PreviewError::BadUrl) => return Err(bad),
                other => other?,
            }
            url.set_fragment(None);
            let uri: Uri = url.as_str().parse().map_err(|_| bad)?;
            let response = self.web.get(&uri, kind.accept()).await?;
            let (head, body) = response.into_parts();
            let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
            if head.status.is_redirection() {
                let next = text(header::LOCATION).and_then(|place| url.join(place).ok());
                url = next.ok_or(PreviewError::Unreadable("a redirect leads nowhere"))?;
                continue;
            }
            if head.status != http::StatusCode::OK {
                return Err(PreviewError::Status(head.status.as_u16()));
            }
            // Nothing compressed was asked for, and what a few bytes become is better not found out.
            if text(header::CONTENT_ENCODING).is_some_and(|it| !it.eq_ignore_ascii_case("identity"))
            {
                return Err(PreviewError::Unreadable("it is compressed"));
            }
            let content_type = text(header::CONTENT_TYPE).map(str::to_owned);
            return Ok(Fetched {
                url,
                content_type,
                body,
            });
        }
        Err(PreviewError::TooManyRedirects)
    }
}

/// An answer whose body is yet to come.
pub(super) struct Fetched {
    /// Where it was in the end.
    pub(super) url: Url,
    pub(super) content_type: Option<String>,
    body: ByteStream,
}

impl Fetched {
    /// The type without its parameters.
    fn essence(&self) -> String {
        let whole = self.content_type.as_deref().unwrap_or("text/html");
        let essence = whole.split(';').next().unwrap_or_default();
        essence.trim().to_ascii_lowercase()
    }

    pub(super) fn is_picture(&self) -> bool {
        self.essence().starts_with("image/")
    }

    pub(super) fn is_page(&self) -> bool {
        matches!(&*self.essence(), "text/html" | "application/xhtml+xml")
    }

    /// The whole body, unless it is larger than `limit_bytes`.
    pub(super) async fn whole(self, limit_bytes: usize) -> Result<Bytes, PreviewError> {
        Ok(collect(self.body, limit_bytes).await?)
    }

    /// The first bytes of the body. What breaks after some have come is as good as at its end.
    pub(super) async fn beginning(self, limit_bytes: usize) -> Result<Bytes, PreviewError> {
        let mut body = self.body;
        let mut read = BytesMut::new();
        while let Some(piece) = body.next().await {
            match piece {
                Ok(piece) => read.extend_from_slice(&piece),
                Err(_) if !read.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
            if read.len() >= limit_bytes {
                read.truncate(limit_bytes);
                break;
            }
        }
        Ok(read.freeze())
    }
}

//! The way to push gateways, whose URLs are the word of users: the same rules on addresses as for other servers, connections that are
//! used again, no redirects, small answers.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::io::{AsyncRead, AsyncWrite};
use vatra_domain::{
    followers::push_sender::{Answer, Gateway},
    remote::{TransportError, transport::collect},
};

use super::{
    IDLE, IDLE_CONNECTIONS, USER_AGENT,
    dial::{Dialer, Host},
    reason,
    stream::Stream,
    streamed,
};

/// The largest answer, in bytes: it names rejected pushkeys, of which one was sent.
const MAX_ANSWER: usize = 64 << 10;

/// The real gateways.
pub(crate) struct Gateways {
    client: Client<Connector, Full<Bytes>>,
}

impl Gateways {
    pub(crate) fn new(dialer: Dialer) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_timer(TokioTimer::new())
            .build(Connector { dialer });
        Self { client }
    }
}

#[async_trait]
impl Gateway for Gateways {
    async fn post(&self, url: &Uri, body: Bytes) -> Result<Answer, TransportError> {
        let request = Request::post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, USER_AGENT)
            .body(Full::new(body))
            .map_err(|error| TransportError::Unresolved(error.to_string()))?;
        let response = self.client.request(request).await;
        let response = response.map_err(|error| reason(&error))?;
        let (head, body) = response.into_parts();
        Ok(Answer {
            status: head.status.as_u16(),
            body: collect(streamed(body.boxed()), MAX_ANSWER).await?,
        })
    }
}

/// A stream, with or without TLS.
pub(super) trait Either: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Either for S {}

/// Opens connections to where URLs say: without TLS only to the operator's own addresses.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) dialer: Dialer,
}

impl Connector {
    async fn connect(self, url: Uri) -> Result<Box<dyn Either>, TransportError> {
        let host = Host::parse(url.host().unwrap_or_default());
        if url.scheme_str() == Some("http") {
            let stream = self
                .dialer
                .plain(&host, url.port_u16().unwrap_or(80))
                .await?;
            return Ok(Box::new(stream));
        }
        let target = (host.clone(), url.port_u16().unwrap_or(443));
        let stream = self.dialer.secure(&[target], &host.tls_name()?).await?;
        Ok(Box::new(stream))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream<Box<dyn Either>>>;
    type Error = TransportError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, TransportError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let connecting = self.clone().connect(url);
        Box::pin(async move { Ok(TokioIo::new(Stream(connecting.await?))) })
    }
}

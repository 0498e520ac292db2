//! The network below `vatra_domain::remote`: other servers are found, reached over TLS, and asked.
//!
//! - [`resolve`]: from a server's name to a place, by literals, [`well_known`] files and services
//! - [`dns`]: names and services looked up
//! - [`policy`]: which addresses are connected to at all
//! - [`dial`]: a TLS stream; certificates are always checked
//! - [`services`]: application services, which are not found but written down
//! - [`once`]: one GET over one connection
//! - [`gateway`]: push gateways
//! - [`pages`]: pages that people speak of
//! - [`s3`]: a service that keeps pictures and files
//! - [`mail`]: letters handed to the operator's mail server
//!
//! Connections are kept and used again, by place: who shares a place shares connections, and a server that moves gets new
//! ones. HTTP/1.1 only, so that `Host` is what the spec wants.

pub(crate) mod dial;
pub(crate) mod dns;
pub(crate) mod gateway;
pub(crate) mod mail;
mod once;
pub(crate) mod pages;
pub(crate) mod policy;
mod resolve;
pub(crate) mod s3;
pub(crate) mod services;
mod stream;
pub(crate) mod web;
mod well_known;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper_util::{
    client::legacy::{Client, Error as ClientError},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::Mutex;
use vatra_domain::{
    clock::{Millis, SharedClock},
    random::SharedRandom,
    remote::{ByteStream, Transport, TransportError},
};

use self::{dial::Dialer, resolve::Place, stream::Stream, well_known::WellKnowns};

/// How this server calls itself.
pub(crate) const USER_AGENT: &str = concat!("vatra/", env!("CARGO_PKG_VERSION"));

/// For how long a place is used before it is looked up again, in milliseconds.
const PLACE_MS: Millis = 300_000;
/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(60);
/// How many idle connections are kept for a place.
const IDLE_CONNECTIONS: usize = 8;

/// Where a server is, until when.
type Believed = (Arc<Place>, Millis);

/// The real network.
pub(crate) struct Outbound {
    dialer: Dialer,
    well_knowns: WellKnowns,
    clock: SharedClock,
    random: SharedRandom,
    /// Where servers are.
    places: Cache<OwnedServerName, Arc<Mutex<Option<Believed>>>>,
    /// The same by key, for the connector.
    by_key: Arc<Cache<String, Arc<Place>>>,
    client: Client<Connector, Full<Bytes>>,
}

impl Outbound {
    pub(crate) fn new(dialer: Dialer, clock: SharedClock, random: SharedRandom) -> Self {
        let by_key = Arc::new(Cache::new(20_000));
        let connector = Connector {
            dialer: dialer.clone(),
            by_key: by_key.clone(),
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self {
            well_knowns: WellKnowns::new(Arc::new(dialer.clone()), clock.clone()),
            dialer,
            clock,
            random,
            places: Cache::new(20_000),
            by_key,
            client,
        }
    }

    /// Where a server is. Many callers cause one look-up.
    async fn place(&self, server: &ServerName) -> Arc<Place> {
        let fresh = || Ok::<_, std::convert::Infallible>(Arc::default());
        let entry = match self.places.get_or_insert_with(server, fresh) {
            Ok(entry) => entry,
            Err(never) => match never {},
        };
        let mut entry = entry.lock().await;
        let now = self.clock.now();
        if let Some((place, _)) = entry.as_ref().filter(|(_, until)| now < *until) {
            return place.clone();
        }
        let dns = self.dialer.dns();
        let found = resolve::resolve(server, &self.well_knowns, dns, &*self.random).await;
        let found = Arc::new(found);
        *entry = Some((found.clone(), now.saturating_add(PLACE_MS)));
        found
    }
}

#[async_trait]
impl Transport for Outbound {
    async fn send(
        &self,
        destination: &ServerName,
        mut request: Request<Bytes>,
    ) -> Result<Response<ByteStream>, TransportError> {
        let unusable = |what: &dyn std::fmt::Display| TransportError::Unresolved(what.to_string());
        let place = self.place(destination).await;
        let key = place.key();
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let uri: Uri = format!("https://{key}{path}")
            .parse()
            .map_err(|error| unusable(&error))?;
        let host = HeaderValue::from_str(&place.host_header).map_err(|error| unusable(&error))?;
        *request.uri_mut() = uri;
        request.headers_mut().insert(header::HOST, host);
        request
            .headers_mut()
            .insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        self.by_key.insert(key, place);
        match self.client.request(request.map(Full::new)).await {
            Ok(response) => Ok(response.map(|body| streamed(body.boxed()))),
            Err(error) => {
                if error.is_connect() {
                    // It may have moved.
                    self.places.remove(destination);
                }
                Err(reason(&error))
            }
        }
    }

    async fn fetch(&self, url: &Uri) -> Result<Response<ByteStream>, TransportError> {
        once::get(&self.dialer, url).await
    }
}

/// No network: this server does not speak with others.
pub(crate) struct Closed;

#[async_trait]
impl Transport for Closed {
    async fn send(
        &self,
        _: &ServerName,
        _: Request<Bytes>,
    ) -> Result<Response<ByteStream>, TransportError> {
        Err(TransportError::NoConnection(
            "federation.enabled is not set".to_owned(),
        ))
    }

    async fn fetch(&self, _: &Uri) -> Result<Response<ByteStream>, TransportError> {
        Err(TransportError::NoConnection(
            "federation.enabled is not set".to_owned(),
        ))
    }

    fn is_open(&self) -> bool {
        false
    }
}

/// A body as the domain takes it.
fn streamed(body: BoxBody<Bytes, hyper::Error>) -> ByteStream {
    let pieces = body.into_data_stream();
    Box::pin(futures::StreamExt::map(pieces, |piece| {
        piece.map_err(|error| TransportError::Broken(error.to_string()))
    }))
}

/// What the connector said, if it said something; else what the client says.
fn reason(error: &ClientError) -> TransportError {
    let mut source = std::error::Error::source(error);
    let mut innermost = error.to_string();
    while let Some(inner) = source {
        if let Some(ours) = inner.downcast_ref::<TransportError>() {
            return ours.clone();
        }
        innermost = inner.to_string();
        source = inner.source();
    }
    TransportError::Broken(innermost)
}

/// Opens connections for the client, which knows places by their keys.
#[derive(Clone)]
struct Connector {
    dialer: Dialer,
    by_key: Arc<Cache<String, Arc<Place>>>,
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = TransportError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, TransportError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let place = self.by_key.get(uri.host().unwrap_or_default());
        let dialer = self.dialer.clone();
        Box::pin(async move {
            let place = place.ok_or_else(|| TransportError::Unresolved("no place".to_owned()))?;
            let name = place.certificate.tls_name()?;
            let stream = dialer.secure(&place.targets, &name).await?;
            Ok(TokioIo::new(Stream(stream)))
        })
    }
}

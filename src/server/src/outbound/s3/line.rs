//! How requests to the service travel: over this server's own connections, whose certificates are always checked. No redirects.

use std::time::Duration;

use async_trait::async_trait;
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
        HttpResponse, HttpResponseBody, HttpService,
    },
};
use vatra_domain::remote::TransportError;

use super::super::{IDLE, IDLE_CONNECTIONS, dial::Dialer, gateway::Connector, reason};

/// How long a request may take until its answer begins: it may have to send a part of some MB.
const PATIENCE: Duration = Duration::from_secs(120);

/// Connections to the service. Cheap to clone.
#[derive(Clone)]
pub(super) struct Line {
    client: Client<Connector, HttpRequestBody>,
}

impl Line {
    pub(super) fn new(dialer: Dialer) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_timer(TokioTimer::new())
            .build(Connector { dialer });
        Self { client }
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Line")
    }
}

impl HttpConnector for Line {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Line {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = tokio::time::timeout(PATIENCE, self.client.request(request)).await;
        let Ok(answer) = answer else {
            return Err(HttpError::new(
                HttpErrorKind::Timeout,
                TransportError::TooSlow,
            ));
        };
        let response = answer.map_err(|error| {
            let kind = if error.is_connect() {
                HttpErrorKind::Connect
            } else {
                HttpErrorKind::Interrupted
            };
            HttpError::new(kind, reason(&error))
        })?;
        Ok(response.map(|body| {
            let told = |error: hyper::Error| HttpError::new(HttpErrorKind::Interrupted, error);
            HttpResponseBody::new(body.map_err(told))
        }))
    }
}

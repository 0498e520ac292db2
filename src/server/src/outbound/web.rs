//! The way to services on the web that take part in logins: identity providers, judges of captchas. The operator names them, but what they say leads on
//! (endpoints, keys), so that the rules on addresses are those for other servers. No redirects, small answers.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use vatra_domain::remote::{TransportError, transport::collect};

use super::{
    IDLE, IDLE_CONNECTIONS, USER_AGENT, dial::Dialer, gateway::Connector, reason, streamed,
};

/// The largest answer, in bytes: key sets are the largest.
const MAX_ANSWER: usize = 512 << 10;
/// How long an answer may take. Someone waits.
const PATIENCE: Duration = Duration::from_secs(15);

/// A client. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Web {
    client: Client<Connector, Full<Bytes>>,
}

impl Web {
    pub(crate) fn new(dialer: Dialer) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_timer(TokioTimer::new())
            .build(Connector { dialer });
        Self { client }
    }

    /// Sends a request to an `https` URL, or to an `http` one of the operator's own; gives whatever the answer is.
    ///
    /// # Errors
    /// If there is none, or a large or slow one.
    pub(crate) async fn send(
        &self,
        request: Request<Vec<u8>>,
    ) -> Result<Response<Vec<u8>>, TransportError> {
        let (mut head, body) = request.into_parts();
        let unusable = |reason: &str| TransportError::Unresolved(format!("{}: {reason}", head.uri));
        if !matches!(head.uri.scheme_str(), Some("http" | "https")) {
            return Err(unusable("only https is used"));
        }
        let authority = head.uri.authority();
        if authority.is_none_or(|authority| authority.as_str().contains('@')) {
            return Err(unusable("it names no host, or carries a login"));
        }
        let agent = header::HeaderValue::from_static(USER_AGENT);
        head.headers.insert(header::USER_AGENT, agent);
        let request = Request::from_parts(head, Full::new(Bytes::from(body)));
        let asked = async {
            let response = self.client.request(request).await;
            let (head, body) = response.map_err(|error| reason(&error))?.into_parts();
            let body = collect(streamed(body.boxed()), MAX_ANSWER).await?;
            Ok(Response::from_parts(head, body.to_vec()))
        };
        let answer = tokio::time::timeout(PATIENCE, asked).await;
        answer.unwrap_or(Err(TransportError::TooSlow))
    }
}

//! The network towards application services.
//!
//! Their addresses are the operator's own words, so that every address is connected to: this machine, private networks, and whatever a
//! name there resolves to. Redirects are not followed, since those would be a service's words.

use std::{error::Error as _, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use reqwest::{Client, redirect::Policy};
use rustls::ClientConfig;
use vatra_domain::appservice::line::{Line, LineError, MAX_ANSWER};

use super::{USER_AGENT, dial};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How many idle connections are kept to a service.
const IDLE_CONNECTIONS: usize = 4;

/// HTTP, with TLS where the URL says so; certificates are checked.
pub(crate) struct Services {
    client: Client,
}

impl Services {
    /// Certificates must come from the public authorities or from those in the file `trusted_ca`.
    ///
    /// # Errors
    /// A message that names the file.
    pub(crate) fn new(trusted_ca: Option<&Path>) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(dial::authorities(trusted_ca)?)
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(Policy::none())
            .no_proxy()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { client })
    }
}

#[async_trait]
impl Line for Services {
    async fn send(
        &self,
        request: Request<Bytes>,
        patience: Duration,
    ) -> Result<Response<Bytes>, LineError> {
        let asked = async {
            let request =
                reqwest::Request::try_from(request).map_err(|error| unreachable(&error))?;
            let mut answer = self.client.execute(request).await;
            let answer = answer.as_mut().map_err(|error| {
                if error.is_timeout() {
                    LineError::TimedOut
                } else {
                    unreachable(error)
                }
            })?;
            let mut body = BytesMut::new();
            while let Some(part) = answer.chunk().await.map_err(|error| unreachable(&error))? {
                if body.len() + part.len() > MAX_ANSWER {
                    let message = format!("its answer is larger than {MAX_ANSWER} bytes");
                    return Err(LineError::Unreachable(message));
                }
                body.extend_from_slice(&part);
            }
            let mut read = Response::new(body.freeze());
            *read.status_mut() = answer.status();
            Ok(read)
        };
        let answer = tokio::time::timeout(patience, asked).await;
        answer.unwrap_or(Err(LineError::TimedOut))
    }
}

/// What went wrong, without the URL, down to the cause.
fn unreachable(error: &reqwest::Error) -> LineError {
    let mut text = "no connection".to_owned();
    let mut source = error.source();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    LineError::Unreachable(text)
}

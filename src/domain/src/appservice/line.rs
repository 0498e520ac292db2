//! How a service is asked and told something.
//!
//! The address was written by the operator, not by a stranger: unlike other servers, a service may be on this machine or in a private
//! network, and mostly is.
//! <https://spec.matrix.org/v1.19/application-service-api/#homeserver---application-service-api>

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};

use super::Service;

/// The most that is read of an answer, in bytes.
pub const MAX_ANSWER: usize = 1 << 20;

/// The network towards services.
#[async_trait]
pub trait Line: Send + Sync + 'static {
    /// Sends one request and reads the whole answer, at most [`MAX_ANSWER`] bytes, in at most `patience`. Redirects are not followed.
    async fn send(
        &self,
        request: Request<Bytes>,
        patience: Duration,
    ) -> Result<http::Response<Bytes>, LineError>;
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LineError {
    /// The service wants to hear nothing.
    #[error("the application service has no url")]
    NoUrl,
    /// It took too long.
    #[error("the application service did not answer in time")]
    TimedOut,
    /// It cannot be reached, or does not speak HTTP.
    #[error("the application service cannot be reached: {0}")]
    Unreachable(String),
}

/// Asks services. Cheap to clone.
#[derive(Clone)]
pub struct Asking {
    line: Arc<dyn Line>,
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// The method.
    pub method: Method,
    /// The path, encoded, such as `/_matrix/app/v1/users/@a:b`, maybe with a query.
    pub path: String,
    /// Where older services have it.
    pub legacy: Option<String>,
    /// The body, JSON.
    pub body: Bytes,
}

impl Asking {
    /// Asks over this network.
    pub fn new(line: Arc<dyn Line>) -> Self {
        Self { line }
    }

    /// Asks a service; where its answer says that it does not have the path, once more at the old one.
    ///
    /// # Errors
    /// [`LineError`]; an answer that is no success is an answer.
    pub async fn ask(
        &self,
        service: &Service,
        question: Question,
        patience: Duration,
    ) -> Result<http::Response<Bytes>, LineError> {
        let first = self
            .once(service, &question, &question.path, patience)
            .await?;
        match &question.legacy {
            Some(legacy) if is_elsewhere(first.status()) => {
                self.once(service, &question, legacy, patience).await
            }
            _ => Ok(first),
        }
    }

    async fn once(
        &self,
        service: &Service,
        question: &Question,
        path: &str,
        patience: Duration,
    ) -> Result<http::Response<Bytes>, LineError> {
        let base = service.url.as_ref().ok_or(LineError::NoUrl)?;
        let request = Request::builder()
            .method(question.method.clone())
            .uri(format!("{base}{path}"))
            .header(
                header::AUTHORIZATION,
                format!("Bearer {}", service.hs_token()),
            )
            .header(header::CONTENT_TYPE, "application/json")
            .body(question.body.clone())
            .map_err(|error| LineError::Unreachable(error.to_string()))?;
        self.line.send(request, patience).await
    }
}

/// The old paths are for services that do not know the new ones. One that is overloaded, or does not know this server, would
/// only be asked twice.
fn is_elsewhere(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::NOT_IMPLEMENTED
    )
}

/// A part of a path or query, percent-encoded.
pub fn encoded(part: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(part.len());
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

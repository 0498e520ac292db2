//! One GET over one connection, to a host that is named by a URL: well-known files, media elsewhere.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use vatra_domain::remote::{ByteStream, TransportError};

use super::dial::{Dialer, Host};

/// How long a connection may live after its head was read; the caller keeps a stricter time.
const LIFE: Duration = Duration::from_secs(600);

/// Gets an `https` URL; follows nothing.
///
/// # Errors
/// Also for URLs of other schemes.
pub(crate) async fn get(
    dialer: &Dialer,
    url: &Uri,
) -> Result<Response<ByteStream>, TransportError> {
    let unusable = |reason: &str| TransportError::Unresolved(format!("{url}: {reason}"));
    if url.scheme_str() != Some("https") {
        return Err(unusable("only https is used"));
    }
    let authority = url
        .authority()
        .ok_or_else(|| unusable("it names no host"))?;
    if authority.as_str().contains('@') {
        return Err(unusable("it carries a login"));
    }
    let host = Host::parse(authority.host());
    let port = authority.port_u16().unwrap_or(443);
    let stream = dialer
        .secure(&[(host.clone(), port)], &host.tls_name()?)
        .await?;
    let broken = |error: hyper::Error| TransportError::Broken(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(64 << 10)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    tokio::spawn(async move {
        // How it ends is told to whoever reads the body.
        let _ = tokio::time::timeout(LIFE, connection).await;
    });
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority.as_str())
        .header(header::USER_AGENT, super::USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| unusable(&error.to_string()))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    Ok(response.map(|body| -> ByteStream { super::streamed(body.boxed()) }))
}

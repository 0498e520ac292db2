//! One GET over one connection, to a host that is named by a URL: well-known files, media elsewhere, pages.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri, header, uri::Authority};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
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
    if url.scheme_str() != Some("https") {
        return Err(unusable(url, "only https is used"));
    }
    let authority = authority(url)?;
    let request = Request::get(path(url)).header(header::USER_AGENT, super::USER_AGENT);
    let stream = secure(dialer, authority).await?;
    ask(stream, url, authority, request).await
}

/// Gets an `https` or `http` URL with these headers; follows nothing.
///
/// # Errors
/// Also for URLs of other schemes.
pub(super) async fn get_page(
    dialer: &Dialer,
    url: &Uri,
    headers: &[(http::HeaderName, &'static str)],
) -> Result<Response<ByteStream>, TransportError> {
    let authority = authority(url)?;
    let request = Request::get(path(url));
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(name, *value)
    });
    match url.scheme_str() {
        Some("https") => {
            let stream = secure(dialer, authority).await?;
            ask(stream, url, authority, request).await
        }
        Some("http") => {
            let host = Host::parse(authority.host());
            let port = authority.port_u16().unwrap_or(80);
            let stream = dialer.connect(&host, port).await?;
            ask(stream, url, authority, request).await
        }
        _ => Err(unusable(url, "only http and https are used")),
    }
}

fn unusable(url: &Uri, reason: &str) -> TransportError {
    TransportError::Unresolved(format!("{url}: {reason}"))
}

fn authority(url: &Uri) -> Result<&Authority, TransportError> {
    let authority = url
        .authority()
        .ok_or_else(|| unusable(url, "it names no host"))?;
    if authority.as_str().contains('@') {
        return Err(unusable(url, "it carries a login"));
    }
    Ok(authority)
}

fn path(url: &Uri) -> &str {
    url.path_and_query().map_or("/", |path| path.as_str())
}

async fn secure(
    dialer: &Dialer,
    authority: &Authority,
) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static + use<>, TransportError> {
    let host = Host::parse(authority.host());
    let port = authority.port_u16().unwrap_or(443);
    dialer
        .secure(&[(host.clone(), port)], &host.tls_name()?)
        .await
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    url: &Uri,
    authority: &Authority,
    request: http::request::Builder,
) -> Result<Response<ByteStream>, TransportError> {
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
    let request = request
        .header(header::HOST, authority.as_str())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| unusable(url, &error.to_string()))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    Ok(response.map(|body| -> ByteStream { super::streamed(body.boxed()) }))
}

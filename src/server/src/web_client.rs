//! The web client at `/`: the one of `web/`, which is part of this program where it was built first, or another's folder.

use std::convert::Infallible;

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use rust_embed::{EmbeddedFile, RustEmbed};
use tower::ServiceExt;
use tower_http::services::ServeDir;

use crate::config::{self, set};

/// What `make web` has built; nothing where that was not done.
#[derive(RustEmbed)]
#[folder = "../../web/dist"]
#[allow_missing = true]
struct Built;

/// What our own client may do. wasm is its cryptography; everything that it fetches comes from this server.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob:; \
                      media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A web client to serve.
#[derive(Clone)]
pub enum WebClient {
    /// Our own.
    Built,
    /// Another's.
    Folder(ServeDir),
}

impl WebClient {
    /// What the settings want, unless it is our own and this program was built without it.
    pub fn build(config: &config::WebClient) -> Option<Self> {
        if !config.enabled {
            return None;
        }
        match set(&config.path) {
            Some(folder) => Some(Self::Folder(
                ServeDir::new(folder)
                    .precompressed_br()
                    .precompressed_gzip(),
            )),
            None => Built::get("index.html").map(|_| Self::Built),
        }
    }

    /// The file that is asked for, if there is one.
    pub(crate) async fn file(&self, request: Request) -> Option<Response> {
        let path = request.uri().path();
        // What begins so is the API's, or nobody's.
        if path.starts_with("/_") || path.starts_with("/.") {
            return None;
        }
        match self {
            Self::Built => {
                let name = path.trim_start_matches('/');
                let name = if name.is_empty() { "index.html" } else { name };
                built(name, request.headers())
            }
            Self::Folder(files) => {
                let Ok::<_, Infallible>(answer) = files.clone().oneshot(request).await;
                let found = answer.status() != StatusCode::NOT_FOUND;
                found.then(|| safe(answer.map(Body::new)))
            }
        }
    }
}

fn built(name: &str, asked: &HeaderMap) -> Option<Response> {
    let plain = Built::get(name)?;
    let (file, encoding) = compressed(name, asked).unwrap_or((plain, "identity"));
    let tag = tag(&file, encoding)?;
    let known = asked.get(header::IF_NONE_MATCH) == Some(&tag);
    // Names below assets/ hold the hash of what is in the file.
    let keep = if name.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let mut answer = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        file.data.into_owned().into_response()
    };
    let headers = answer.headers_mut();
    if encoding != "identity" && !known {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    headers.insert(header::ETAG, tag);
    let fixed: [(HeaderName, &'static str); 5] = [
        (header::CONTENT_TYPE, content_type(name)),
        (header::CACHE_CONTROL, keep),
        (header::VARY, "accept-encoding"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Some(safe(answer))
}

/// What holds of every client.
fn safe(mut answer: Response) -> Response {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        answer
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// The file as it was compressed when the client was built, in the best way that the browser takes.
fn compressed(name: &str, asked: &HeaderMap) -> Option<(EmbeddedFile, &'static str)> {
    let taken = asked.get(header::ACCEPT_ENCODING)?.to_str().ok()?;
    [("br", "br"), ("gzip", "gz")]
        .into_iter()
        .find_map(|(encoding, extension)| {
            let takes = taken.split(',').any(|one| takes(one, encoding));
            let file = takes.then(|| Built::get(&format!("{name}.{extension}")))??;
            Some((file, encoding))
        })
}

/// Whether one element of `Accept-Encoding` names it, and not only to refuse it.
fn takes(one: &str, encoding: &str) -> bool {
    let (name, weight) = one.split_once(';').unwrap_or((one, ""));
    let refused = weight
        .trim()
        .strip_prefix("q=")
        .is_some_and(|q| q.parse() == Ok(0.0_f32));
    name.trim() == encoding && !refused
}

fn tag(file: &EmbeddedFile, encoding: &str) -> Option<HeaderValue> {
    use std::fmt::Write;

    let mut tag = format!("\"{encoding}-");
    for byte in file.metadata.sha256_hash().iter().take(12) {
        write!(tag, "{byte:02x}").ok()?;
    }
    tag.push('"');
    HeaderValue::from_str(&tag).ok()
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("wasm") => "application/wasm",
        Some("svg") => "image/svg+xml",
        Some("md" | "txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::takes;

    #[test]
    fn an_encoding_is_used_only_where_the_browser_takes_it() {
        assert!(takes(" br", "br"));
        assert!(takes("gzip;q=0.5", "gzip"));
        assert!(!takes("br;q=0", "br"));
        assert!(!takes("br; q=0.0", "br"));
        assert!(!takes("brotli", "br"));
    }
}

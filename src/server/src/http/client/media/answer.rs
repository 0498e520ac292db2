//! What is answered with a file: the part that is wanted, and headers.
//!
//! What a browser may do with a file is said by headers: only types that cannot run scripts are shown in place, everything
//! else is saved, and nothing is sniffed. What is behind an id never changes, so an answer may be kept for good.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use ruma::{
    api::error::ErrorCode,
    http_headers::{ContentDisposition, ContentDispositionType},
};
use vatra_domain::media::{Download, Found, Thumbnail};

use crate::http::{
    conditions::{Conditions, Part},
    error::Error,
    fixed,
};

/// Who may keep a copy. What is behind an id never changes.
#[derive(Clone, Copy)]
pub(crate) enum Cache {
    /// The client: it had to show a token.
    Private,
    /// Anyone on the way.
    Public,
}

impl Cache {
    fn control(self) -> HeaderValue {
        fixed(match self {
            Self::Private => "private, max-age=31536000, immutable",
            Self::Public => "public, max-age=31536000, immutable",
        })
    }
}

/// The answer with a file. `named` is the name that the client gave in the path.
pub(crate) async fn file(
    found: Download,
    named: Option<String>,
    cache: Cache,
    conditions: &Conditions,
) -> Result<Response, Error> {
    let kind = if is_harmless(&found.content_type) {
        ContentDispositionType::Inline
    } else {
        ContentDispositionType::Attachment
    };
    let disposition = ContentDisposition::new(kind).with_filename(named.or(found.filename));
    let headers = headers(&found.content_type, &disposition);
    reply(&found.file, headers, cache, conditions).await
}

/// The answer with a thumbnail.
pub(crate) async fn picture(
    found: Thumbnail,
    cache: Cache,
    conditions: &Conditions,
) -> Result<Response, Error> {
    let extension = found.content_type.strip_prefix("image/").unwrap_or("png");
    let name = Some(format!("thumbnail.{extension}"));
    let disposition = ContentDisposition::new(ContentDispositionType::Inline).with_filename(name);
    let headers = headers(&found.content_type, &disposition);
    reply(&found.file, headers, cache, conditions).await
}

type Headers = [(HeaderName, HeaderValue); 5];

/// What a browser may do with it.
fn headers(content_type: &str, disposition: &ContentDisposition) -> Headers {
    let typed = HeaderValue::from_str(content_type).unwrap_or(fixed("application/octet-stream"));
    let disposition =
        HeaderValue::from_str(&disposition.to_string()).unwrap_or(fixed("attachment"));
    [
        (header::CONTENT_TYPE, typed),
        (header::CONTENT_DISPOSITION, disposition),
        (header::CONTENT_SECURITY_POLICY, fixed(POLICY)),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            fixed("cross-origin"),
        ),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
    ]
}

/// Of a file, what the request wants: all, a part, or nothing, since the client has it.
async fn reply(
    found: &Found,
    headers: Headers,
    cache: Cache,
    conditions: &Conditions,
) -> Result<Response, Error> {
    let (tag, size) = (format!("\"{}\"", found.blob), found.size);
    let kept = [
        (header::CACHE_CONTROL, cache.control()),
        (header::ETAG, text(&tag)),
        (header::ACCEPT_RANGES, fixed("bytes")),
    ];
    let (status, part) = match conditions.judge(&tag, size) {
        Part::Nothing => return Ok((StatusCode::NOT_MODIFIED, kept).into_response()),
        Part::Missing => return Ok(missing(size)),
        Part::Whole => (StatusCode::OK, 0..size),
        Part::Some(part) => (StatusCode::PARTIAL_CONTENT, part),
    };
    let length = part.end.saturating_sub(part.start);
    let place = format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1));
    let body = found.part(part).await?;
    let length = [(header::CONTENT_LENGTH, HeaderValue::from(length))];
    let body = Body::from_stream(body.stream);
    let mut answer = (status, kept, headers, length, body).into_response();
    if status == StatusCode::PARTIAL_CONTENT {
        answer
            .headers_mut()
            .insert(header::CONTENT_RANGE, text(&place));
    }
    Ok(answer)
}

/// The file ends before what is wanted begins.
fn missing(size: u64) -> Response {
    let error = Error::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        ErrorCode::InvalidParam,
        format!("the file has {size} bytes"),
    );
    let size = [(header::CONTENT_RANGE, text(&format!("bytes */{size}")))];
    (size, error).into_response()
}

/// Digits and the like are always a header's value.
fn text(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(fixed(""))
}

/// The policy that the spec recommends.
const POLICY: &str = "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
                      style-src 'unsafe-inline'; object-src 'self';";

/// Whether a browser may show a file of this type in place.
/// <https://spec.matrix.org/v1.19/client-server-api/#serving-inline-content>
fn is_harmless(content_type: &str) -> bool {
    let essence = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let Some((kind, subtype)) = essence.split_once('/') else {
        return false;
    };
    let allowed: &[&str] = match kind {
        "text" => &["css", "plain", "csv"],
        "application" => &["json", "ld+json"],
        "image" => &["jpeg", "gif", "png", "apng", "webp", "avif"],
        "video" => &["mp4", "webm", "ogg", "quicktime"],
        "audio" => &[
            "mp4", "webm", "aac", "mpeg", "ogg", "wave", "wav", "x-wav", "x-pn-wav", "flac",
            "x-flac",
        ],
        _ => &[],
    };
    allowed.contains(&subtype)
}

#[cfg(test)]
mod tests {
    use super::is_harmless;

    #[test]
    fn only_types_that_run_nothing_are_shown_in_place() {
        for shown in [
            "image/png",
            "Text/Plain; charset=utf-8",
            "audio/x-flac",
            "application/ld+json",
        ] {
            assert!(is_harmless(shown), "{shown}");
        }
        for saved in [
            "text/html",
            "image/svg+xml",
            "image/svg",
            "application/pdf",
            "application/octet-stream",
            "",
            "png",
        ] {
            assert!(!is_harmless(saved), "{saved}");
        }
    }
}

//! Uploads, downloads and thumbnails. <https://spec.matrix.org/v1.19/client-server-api/#content-repository>
//!
//! Files are streamed both ways. What a client may do with one is said by headers: only types that cannot run scripts
//! are shown in place, everything else is saved, and nothing is sniffed.
//!
//! Media of other servers is fetched from them.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, header};
use ruma::{
    api::client::{
        authenticated_media::{
            get_content::v1 as get_content, get_content_as_filename::v1 as get_content_as_filename,
            get_content_thumbnail::v1 as get_content_thumbnail,
            get_media_config::v1 as get_media_config,
        },
        media::{
            create_content::v3 as create_content, create_content_async::v3 as create_content_async,
            create_mxc_uri::v1 as create_mxc_uri,
        },
    },
    http_headers::{ContentDisposition, ContentDispositionType},
    media::Method as RumaMethod,
};
use vatra_domain::{
    clock::to_ruma,
    media::{BlobReader, Download, Method, Thumbnail, Upload as MediaUpload, Wanted},
    users::Requester,
};

use super::super::{
    endpoint::{Routes, Upload},
    error::Error,
    fixed,
};
use crate::wiring::App;

/// The endpoints of this section.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .stream(upload)
        .stream(upload_to)
        .add(create)
        .add(config)
        .stream(download)
        .stream(download_as)
        .stream(thumbnail)
}

async fn upload(
    app: App,
    caller: Requester,
    request: create_content::Request,
    sent: Upload,
) -> Result<Response, Error> {
    app.rates.media(&caller)?;
    let upload = MediaUpload {
        uploader: caller.user,
        content_type: request.content_type,
        filename: request.filename,
        announced_bytes: sent.announced_bytes,
    };
    let uri = app
        .media
        .upload(upload, sent.body.into_data_stream())
        .await?;
    Ok(axum::Json(serde_json::json!({ "content_uri": uri })).into_response())
}

async fn upload_to(
    app: App,
    caller: Requester,
    request: create_content_async::Request,
    sent: Upload,
) -> Result<Response, Error> {
    app.rates.media(&caller)?;
    let upload = MediaUpload {
        uploader: caller.user,
        content_type: request.content_type,
        filename: request.filename,
        announced_bytes: sent.announced_bytes,
    };
    let body = sent.body.into_data_stream();
    app.media
        .upload_to(&request.server_name, &request.media_id, upload, body)
        .await?;
    Ok(axum::Json(serde_json::json!({})).into_response())
}

async fn create(
    app: App,
    caller: Requester,
    _: create_mxc_uri::Request,
) -> Result<create_mxc_uri::Response, Error> {
    app.rates.media(&caller)?;
    let reserved = app.media.create(&caller.user).await?;
    let mut response = create_mxc_uri::Response::new(reserved.uri);
    response.unused_expires_at = Some(to_ruma(reserved.expires));
    Ok(response)
}

async fn config(
    app: App,
    _: Requester,
    _: get_media_config::Request,
) -> Result<get_media_config::Response, Error> {
    Ok(get_media_config::Response::new(ruma::UInt::new_saturating(
        app.media.max_upload_bytes(),
    )))
}

async fn download(
    app: App,
    _: Requester,
    request: get_content::Request,
    _: Upload,
) -> Result<Response, Error> {
    let found = app
        .media
        .open(
            &request.server_name,
            &request.media_id,
            request.timeout_ms,
            true,
        )
        .await?;
    Ok(file(found, None, Cache::Private))
}

async fn download_as(
    app: App,
    _: Requester,
    request: get_content_as_filename::Request,
    _: Upload,
) -> Result<Response, Error> {
    let found = app
        .media
        .open(
            &request.server_name,
            &request.media_id,
            request.timeout_ms,
            true,
        )
        .await?;
    Ok(file(found, Some(request.filename), Cache::Private))
}

async fn thumbnail(
    app: App,
    _: Requester,
    request: get_content_thumbnail::Request,
    _: Upload,
) -> Result<Response, Error> {
    let wanted = wanted(request.width, request.height, request.method.as_ref())?;
    let found = app
        .media
        .thumbnail(
            &request.server_name,
            &request.media_id,
            wanted,
            request.timeout_ms,
            true,
        )
        .await?;
    Ok(picture(found, Cache::Private))
}

/// The thumbnail that the parameters ask for. Without a method it is scaled. Animation is a preference that the spec
/// lets a server not meet: thumbnails here stand still.
pub(crate) fn wanted(
    width: ruma::UInt,
    height: ruma::UInt,
    method: Option<&RumaMethod>,
) -> Result<Wanted, Error> {
    let method = match method {
        None | Some(RumaMethod::Scale) => Method::Scale,
        Some(RumaMethod::Crop) => Method::Crop,
        Some(_) => return Err(Error::invalid_param("method is neither crop nor scale")),
    };
    let length = |length: ruma::UInt| u32::try_from(u64::from(length)).unwrap_or(u32::MAX);
    Ok(Wanted {
        width: length(width),
        height: length(height),
        method,
    })
}

/// Who may keep a copy. What is behind an id never changes.
#[derive(Clone, Copy)]
pub(super) enum Cache {
    /// The client: it had to show a token.
    Private,
    /// Anyone on the way.
    Public,
}

/// The answer with a file. `named` is the name that the client gave in the path.
pub(super) fn file(found: Download, named: Option<String>, cache: Cache) -> Response {
    let kind = if is_harmless(&found.content_type) {
        ContentDispositionType::Inline
    } else {
        ContentDispositionType::Attachment
    };
    let disposition = ContentDisposition::new(kind).with_filename(named.or(found.filename));
    reply(&found.content_type, &disposition, found.body, cache)
}

/// The answer with a thumbnail.
pub(super) fn picture(found: Thumbnail, cache: Cache) -> Response {
    let extension = found.content_type.strip_prefix("image/").unwrap_or("png");
    let name = Some(format!("thumbnail.{extension}"));
    let disposition = ContentDisposition::new(ContentDispositionType::Inline).with_filename(name);
    reply(&found.content_type, &disposition, found.body, cache)
}

fn reply(
    content_type: &str,
    disposition: &ContentDisposition,
    body: BlobReader,
    cache: Cache,
) -> Response {
    let cache = match cache {
        Cache::Private => "private, max-age=31536000, immutable",
        Cache::Public => "public, max-age=31536000, immutable",
    };
    let typed = HeaderValue::from_str(content_type).unwrap_or(fixed("application/octet-stream"));
    let disposition =
        HeaderValue::from_str(&disposition.to_string()).unwrap_or(fixed("attachment"));
    let headers: [(HeaderName, HeaderValue); 7] = [
        (header::CONTENT_TYPE, typed),
        (header::CONTENT_LENGTH, HeaderValue::from(body.size)),
        (header::CONTENT_DISPOSITION, disposition),
        (header::CONTENT_SECURITY_POLICY, fixed(POLICY)),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            fixed("cross-origin"),
        ),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (header::CACHE_CONTROL, fixed(cache)),
    ];
    (headers, Body::from_stream(body.stream)).into_response()
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

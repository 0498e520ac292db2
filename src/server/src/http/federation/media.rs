//! Files of this server's users for other servers: the metadata and the file as two parts of one body, streamed.
//! <https://spec.matrix.org/v1.19/server-server-api/#content-repository>

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header;
use ruma::{
    api::federation::authenticated_media::{
        get_content::v1 as get_content, get_content_thumbnail::v1 as get_thumbnail,
    },
    http_headers::{ContentDisposition, ContentDispositionType},
};
use vatra_domain::media::BlobReader;

use super::{
    super::{client::media_wanted, endpoint::Routes, error::Error},
    Origin,
};
use crate::wiring::App;

/// The endpoints of this section.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .signed_raw::<get_content::Request, _, _>(download)
        .signed_raw::<get_thumbnail::Request, _, _>(thumbnail)
}

async fn download(app: App, _: Origin, request: get_content::Request) -> Result<Response, Error> {
    let found = app
        .media
        .open(
            &app.server_name,
            &request.media_id,
            request.timeout_ms,
            false,
        )
        .await?;
    let disposition =
        ContentDisposition::new(ContentDispositionType::Attachment).with_filename(found.filename);
    let file = found.file.whole().await?;
    Ok(two_parts(&app, &found.content_type, &disposition, file))
}

async fn thumbnail(
    app: App,
    _: Origin,
    request: get_thumbnail::Request,
) -> Result<Response, Error> {
    let wanted = media_wanted(
        request.width,
        request.height,
        request.method.as_ref(),
        request.animated,
    )?;
    let found = app
        .media
        .thumbnail(
            &app.server_name,
            &request.media_id,
            wanted,
            request.timeout_ms,
            false,
        )
        .await?;
    let disposition = ContentDisposition::new(ContentDispositionType::Inline);
    let file = found.file.whole().await?;
    Ok(two_parts(&app, &found.content_type, &disposition, file))
}

/// An empty JSON object, then the file.
fn two_parts(
    app: &App,
    content_type: &str,
    disposition: &ContentDisposition,
    file: BlobReader,
) -> Response {
    // 190 random bits: they do not stand in the file.
    let boundary = vatra_domain::random::token(&**app.users.random(), 32);
    let head = format!(
        "--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n\
         Content-Type: {content_type}\r\nContent-Disposition: {disposition}\r\n\r\n"
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let framing = u64::try_from(head.len() + tail.len()).unwrap_or(u64::MAX);
    let length = file.size.saturating_add(framing);
    let text = |text: String| stream::once(std::future::ready(Ok(Bytes::from(text))));
    let body = text(head).chain(file.stream).chain(text(tail));
    let headers = [
        (
            header::CONTENT_TYPE,
            format!("multipart/mixed; boundary={boundary}"),
        ),
        (header::CONTENT_LENGTH, length.to_string()),
    ];
    (headers, Body::from_stream(body)).into_response()
}

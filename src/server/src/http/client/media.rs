//! Uploads, downloads and thumbnails. <https://spec.matrix.org/v1.19/client-server-api/#content-repository>
//!
//! Files are streamed both ways; what stands in the answers' headers is said by [`answer`].
//!
//! Media of other servers is fetched from them.

mod answer;

use axum::response::{IntoResponse, Response};
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
    media::Method as RumaMethod,
};
use vatra_domain::{
    clock::to_ruma,
    media::{Method, Upload as MediaUpload, Wanted},
    users::Requester,
};

pub(super) use self::answer::{Cache, file, picture};
use super::super::{
    endpoint::{Routes, Upload},
    error::Error,
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
    sent: Upload,
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
    file(found, None, Cache::Private, &sent.conditions).await
}

async fn download_as(
    app: App,
    _: Requester,
    request: get_content_as_filename::Request,
    sent: Upload,
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
    file(
        found,
        Some(request.filename),
        Cache::Private,
        &sent.conditions,
    )
    .await
}

async fn thumbnail(
    app: App,
    _: Requester,
    request: get_content_thumbnail::Request,
    sent: Upload,
) -> Result<Response, Error> {
    let wanted = wanted(
        request.width,
        request.height,
        request.method.as_ref(),
        request.animated,
    )?;
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
    picture(found, Cache::Private, &sent.conditions).await
}

/// The thumbnail that the parameters ask for. Without a method it is scaled; it moves only if that is said.
pub(crate) fn wanted(
    width: ruma::UInt,
    height: ruma::UInt,
    method: Option<&RumaMethod>,
    animated: Option<bool>,
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
        animated: animated.unwrap_or(false),
    })
}

//! The old media paths, `/_matrix/media/{r0,v3}/...`, which need no token.
//!
//! They serve files only if `media.legacy_unauthenticated` is set: the spec wants servers to freeze them, and a frozen
//! server answers 404. The configuration needs a token and is there either way.
#![allow(deprecated)]

use axum::response::Response;
use ruma::{
    ServerName,
    api::client::media::{
        get_content::v3 as get_content, get_content_as_filename::v3 as get_content_as_filename,
        get_content_thumbnail::v3 as get_content_thumbnail,
        get_media_config::v3 as get_media_config,
    },
};
use vatra_domain::users::Requester;

use super::{
    super::{
        endpoint::{Routes, Upload},
        error::Error,
    },
    media::{Cache, file, picture, wanted},
};
use crate::wiring::App;

/// The endpoints.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .add(config)
        .stream(download)
        .stream(download_as)
        .stream(thumbnail)
}

/// Whether the operator serves files without a token; and, if so, whether another server's file may be fetched for it: all who
/// have no token share one limit, since what they cause fills the disk.
fn check(app: &App, server: &ServerName, allow_remote: bool) -> Result<bool, Error> {
    if !app.config.media.legacy_unauthenticated {
        let message = "media is served at /_matrix/client/v1/media, with a token";
        return Err(Error::not_found(message));
    }
    let fetch = allow_remote && *server != app.server_name;
    if fetch {
        app.rates.media_for_anyone()?;
    }
    Ok(fetch)
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
    (): (),
    request: get_content::Request,
    sent: Upload,
) -> Result<Response, Error> {
    let fetch = check(&app, &request.server_name, request.allow_remote)?;
    let found = app
        .media
        .open(
            &request.server_name,
            &request.media_id,
            request.timeout_ms,
            fetch,
        )
        .await?;
    file(found, None, Cache::Public, &sent.conditions).await
}

async fn download_as(
    app: App,
    (): (),
    request: get_content_as_filename::Request,
    sent: Upload,
) -> Result<Response, Error> {
    let fetch = check(&app, &request.server_name, request.allow_remote)?;
    let found = app
        .media
        .open(
            &request.server_name,
            &request.media_id,
            request.timeout_ms,
            fetch,
        )
        .await?;
    file(
        found,
        Some(request.filename),
        Cache::Public,
        &sent.conditions,
    )
    .await
}

async fn thumbnail(
    app: App,
    (): (),
    request: get_content_thumbnail::Request,
    sent: Upload,
) -> Result<Response, Error> {
    let fetch = check(&app, &request.server_name, request.allow_remote)?;
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
            fetch,
        )
        .await?;
    picture(found, Cache::Public, &sent.conditions).await
}

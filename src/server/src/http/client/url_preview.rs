//! Previews of URLs. <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url>
//!
//! The old path needs a token too. It is served with the old paths of files: a client that does not know the new ones could not show the picture.
#![allow(deprecated)]

use http::StatusCode;
use ruma::api::client::{
    authenticated_media::get_media_preview::v1 as get_preview,
    media::get_media_preview::v3 as old_get_preview,
};
use vatra_domain::{url_preview::Preview, users::Requester};

use super::super::{endpoint::Routes, error::Error};
use crate::wiring::App;

/// The endpoints.
pub(super) fn routes(routes: Routes) -> Routes {
    routes.add(preview).add(old_preview)
}

async fn preview(
    app: App,
    caller: Requester,
    request: get_preview::Request,
) -> Result<get_preview::Response, Error> {
    let found = find(&app, &caller, &request.url).await?;
    Ok(get_preview::Response::from_raw_value((*found).to_owned()))
}

async fn old_preview(
    app: App,
    caller: Requester,
    request: old_get_preview::Request,
) -> Result<old_get_preview::Response, Error> {
    if !app.config.media.legacy_unauthenticated {
        let message = "previews are at /_matrix/client/v1/media/preview_url";
        return Err(Error::not_found(message));
    }
    let found = find(&app, &caller, &request.url).await?;
    Ok(old_get_preview::Response::from_raw_value(
        (*found).to_owned(),
    ))
}

/// The newest preview: there is none of another time.
async fn find(app: &App, caller: &Requester, url: &str) -> Result<Preview, Error> {
    app.rates.preview(caller)?;
    let previews = app.previews.as_ref();
    let previews = previews.ok_or_else(|| Error::unrecognized(StatusCode::NOT_FOUND))?;
    Ok(previews.of(url).await?)
}

//! Whose an OpenID token is. <https://spec.matrix.org/v1.19/server-server-api/#openid>

use http::StatusCode;
use ruma::api::{error::ErrorCode, federation::openid::get_openid_userinfo::v1 as get_userinfo};

use super::super::error::Error;
use crate::wiring::App;

pub(super) async fn user(
    app: App,
    (): (),
    request: get_userinfo::Request,
) -> Result<get_userinfo::Response, Error> {
    match app.users.openid_user(&request.access_token).await? {
        Some(user) => Ok(get_userinfo::Response::new(user)),
        None => Err(Error::new(
            StatusCode::UNAUTHORIZED,
            ErrorCode::UnknownToken,
            "the token is unknown or has expired",
        )),
    }
}

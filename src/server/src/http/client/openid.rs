//! Tokens for third parties. <https://spec.matrix.org/v1.19/client-server-api/#openid>

use std::time::Duration;

use ruma::{
    api::client::account::request_openid_token::v3 as request_token, authentication::TokenType,
};
use vatra_domain::users::{Requester, openid::OPENID_LIFE_MS};

use super::super::error::Error;
use crate::wiring::App;

pub(super) async fn token(
    app: App,
    caller: Requester,
    request: request_token::Request,
) -> Result<request_token::Response, Error> {
    if request.user_id != caller.user {
        return Err(Error::forbidden("a token of another user"));
    }
    let token = app.users.issue_openid(caller.sid).await?;
    Ok(request_token::Response::new(
        token,
        TokenType::Bearer,
        app.server_name.clone(),
        Duration::from_millis(OPENID_LIFE_MS),
    ))
}

//! Callers whom an endpoint lets in under other conditions than most: a handler's signature says which.

use ruma::api::auth_scheme::AccessToken;
use vatra_domain::users::{AuthFailure, Requester};

use super::caller::{Caller, masquerade};
use crate::{http::error::Error, wiring::App};

/// Who logs out: also with an account that is locked.
pub(crate) struct EvenLocked(pub(crate) Requester);

impl Caller<AccessToken> for EvenLocked {
    async fn identify(app: &App, token: Option<String>, query: &str) -> Result<Self, Error> {
        let token = token.ok_or_else(Error::missing_token)?;
        match app.users.identify(&token, || masquerade(query)).await {
            Err(AuthFailure::Locked) => {}
            other => return Ok(Self(other?)),
        }
        Ok(Self(app.users.authenticate_even_locked(&token).await?))
    }

    fn requester(&self) -> Option<&Requester> {
        Some(&self.0)
    }
}

/// Who comes, speaks or shows themselves: not with an account that is suspended.
pub(crate) struct Unsuspended(pub(crate) Requester);

impl Caller<AccessToken> for Unsuspended {
    async fn identify(app: &App, token: Option<String>, query: &str) -> Result<Self, Error> {
        let requester = <Requester as Caller<AccessToken>>::identify(app, token, query).await?;
        requester.must_be_free()?;
        Ok(Self(requester))
    }

    fn requester(&self) -> Option<&Requester> {
        Some(&self.0)
    }
}

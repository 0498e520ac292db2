//! Who sends a request of the server-server API: the server whose key has signed it, for this server.
//! <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>

use bytes::Bytes;
use http::{Request, StatusCode};
use ruma::{
    OwnedServerName,
    api::{error::ErrorCode, federation::authentication::XMatrix},
};
use vatra_domain::clock::to_ruma;

use super::super::{error::Error, observe};
use crate::wiring::App;

/// Another server. There is no other way to get one than [`Claim::prove`].
#[derive(Debug, Clone)]
pub(crate) struct Origin(OwnedServerName);

impl Origin {
    /// Its name.
    pub(crate) fn name(&self) -> &OwnedServerName {
        &self.0
    }
}

/// Who a request's head says has sent it.
pub(crate) struct Claim(XMatrix);

impl Claim {
    /// Reads the head, before the body is taken.
    pub(crate) fn read<B>(app: &App, head: &Request<B>) -> Result<Self, Error> {
        let claim = XMatrix::extract_from_http_headers(head.headers())
            .map_err(|error| unauthorized(&error.to_string()))?;
        if claim
            .destination
            .as_ref()
            .is_some_and(|to| *to != app.server_name)
        {
            return Err(unauthorized("the request is for another server"));
        }
        if claim.origin == app.server_name {
            return Err(unauthorized(
                "the request says that it comes from this server",
            ));
        }
        Ok(Self(claim))
    }

    /// Checks the signature, of which the whole request is a part. May fetch the origin's keys.
    pub(crate) async fn prove(self, app: &App, request: &Request<Bytes>) -> Result<Origin, Error> {
        let Self(claim) = self;
        let wanted = [(claim.origin.clone(), claim.key.clone())];
        let keys = app.keys.verifying(&wanted, to_ruma(app.clock.now())).await;
        if keys.is_empty() {
            return Err(unauthorized(
                "the key that signed the request cannot be had",
            ));
        }
        claim
            .verify_http_request(request, &app.server_name, &keys)
            .map_err(|error| unauthorized(&error.to_string()))?;
        observe::name_caller(request, claim.origin.as_str());
        app.remote.heard_from(&claim.origin).await;
        Ok(Origin(claim.origin))
    }
}

fn unauthorized(reason: &str) -> Error {
    Error::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, reason)
}

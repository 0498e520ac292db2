//! Who calls, by the endpoint's kind of authentication.

use std::{future::Future, sync::Arc};

use ruma::api::auth_scheme::{
    AccessToken, AccessTokenOptional, AppserviceToken, AppserviceTokenOptional, AuthScheme,
    NoAccessToken, NoAuthentication,
};
use vatra_domain::{
    appservice::Service,
    users::{AuthFailure, Requester, services::Masquerade},
};

use super::input::params;
use crate::{http::error::Error, wiring::App};

/// Who calls an endpoint with the authentication `A`.
pub(crate) trait Caller<A: AuthScheme>: Sized + Send {
    /// Identifies the caller by token and query, or says why not.
    fn identify(
        app: &App,
        token: Option<String>,
        query: &str,
    ) -> impl Future<Output = Result<Self, Error>> + Send;

    /// Whose request it is, if it is someone's.
    fn requester(&self) -> Option<&Requester>;
}

/// Whom the query of an application service names. <https://spec.matrix.org/v1.19/application-service-api/#identity-assertion>
pub(super) fn masquerade(query: &str) -> Masquerade {
    let first = |name| params(query, name).next();
    let unstable = || first("org.matrix.msc3202.device_id");
    Masquerade {
        user: first("user_id"),
        device: first("device_id").or_else(unstable),
    }
}

impl Caller<AccessToken> for Requester {
    async fn identify(app: &App, token: Option<String>, query: &str) -> Result<Self, Error> {
        let token = token.ok_or_else(Error::missing_token)?;
        Ok(app.users.identify(&token, || masquerade(query)).await?)
    }

    fn requester(&self) -> Option<&Requester> {
        Some(self)
    }
}

impl Caller<AccessTokenOptional> for Option<Requester> {
    async fn identify(app: &App, token: Option<String>, query: &str) -> Result<Self, Error> {
        match token {
            Some(token) => Ok(Some(
                app.users.identify(&token, || masquerade(query)).await?,
            )),
            None => Ok(None),
        }
    }

    fn requester(&self) -> Option<&Requester> {
        self.as_ref()
    }
}

/// Where only application services have a token: who has one, if it is needed. Clients that come to log in again may still send
/// their old one, which says nothing.
#[derive(Debug, Clone)]
pub(crate) enum ByService {
    /// There is no token.
    Nobody,
    /// There is one, which is no service's.
    Unknown,
    /// A service's.
    Service(Arc<Service>),
}

impl ByService {
    /// The service, where nobody else can be meant.
    pub(crate) fn needed(self) -> Result<Arc<Service>, Error> {
        match self {
            Self::Service(service) => Ok(service),
            Self::Nobody => Err(Error::missing_token()),
            Self::Unknown => Err(AuthFailure::Unknown.into()),
        }
    }
}

impl Caller<AppserviceTokenOptional> for ByService {
    async fn identify(app: &App, token: Option<String>, _: &str) -> Result<Self, Error> {
        let Some(token) = token else {
            return Ok(Self::Nobody);
        };
        let service = app.users.services().by_token(&token);
        Ok(service.map_or(Self::Unknown, |service| Self::Service(service.clone())))
    }

    fn requester(&self) -> Option<&Requester> {
        None
    }
}

impl Caller<AppserviceToken> for Arc<Service> {
    async fn identify(app: &App, token: Option<String>, _: &str) -> Result<Self, Error> {
        let token = token.ok_or_else(Error::missing_token)?;
        match app.users.services().by_token(&token) {
            Some(service) => Ok(service.clone()),
            None => {
                app.users.authenticate(&token).await?;
                Err(Error::forbidden("only application services may do this"))
            }
        }
    }

    fn requester(&self) -> Option<&Requester> {
        None
    }
}

macro_rules! no_caller {
    ($($scheme:ty),*) => {$(
        impl Caller<$scheme> for () {
            async fn identify(_: &App, _: Option<String>, _: &str) -> Result<Self, Error> {
                Ok(())
            }

            fn requester(&self) -> Option<&Requester> {
                None
            }
        }
    )*};
}
no_caller!(NoAuthentication, NoAccessToken);

//! User-interactive authentication at the edge: which flows an operation asks for, and what a client has shown.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api>

use std::fmt::Debug;

use ruma::{
    UserId,
    api::{
        client::uiaa::{
            AuthData, AuthFlow, AuthType, MatrixUserIdentifier, UiaaInfo, UserIdentifier,
        },
        error::{ErrorKind, StandardErrorBody},
    },
};
use subtle::ConstantTimeEq;
use vatra_domain::users::Requester;

use super::error::Error;
use crate::wiring::App;

/// One operation that wants authentication.
pub(crate) struct Operation<'a> {
    /// Names endpoint, user and parameters: a session of one operation is of no use for another.
    pub(crate) name: String,
    /// Flows, any of which will do.
    pub(crate) flows: Vec<AuthFlow>,
    /// Who must show their password, if a flow has that stage.
    pub(crate) user: Option<&'a Requester>,
}

impl<'a> Operation<'a> {
    /// An operation of a logged-in user, who shows the password again.
    pub(crate) fn by_password(name: &str, parameters: &impl Debug, user: &'a Requester) -> Self {
        let flows = vec![AuthFlow {
            stages: vec![AuthType::Password],
        }];
        Self {
            name: format!("{name} {} {parameters:?}", user.user),
            flows,
            user: Some(user),
        }
    }

    /// Ok once one flow is complete; otherwise the answer that says what is missing.
    pub(crate) async fn check(&self, app: &App, auth: Option<&AuthData>) -> Result<(), Error> {
        let sessions = app.users.uiaa();
        let now = app.users.clock().now();
        let session = match auth.and_then(AuthData::session) {
            Some(session) if sessions.completed(session, &self.name, now).is_some() => {
                session.to_owned()
            }
            // Old clients send a stage without a session; then this request alone must complete a flow.
            _ => sessions.start(&**app.users.random(), &self.name, now),
        };
        let mut failure = None;
        if let Some(auth) = auth {
            match self.stage(app, auth).await? {
                Some(Ok(stage)) => sessions.complete(&session, stage.as_str()),
                Some(Err(message)) => failure = Some(message),
                None => {}
            }
        }
        let completed = sessions
            .completed(&session, &self.name, now)
            .unwrap_or_default();
        let is_done = |stage: &AuthType| completed.iter().any(|done| done == stage.as_str());
        if self
            .flows
            .iter()
            .any(|flow| flow.stages.iter().all(is_done))
        {
            sessions.end(&session);
            return Ok(());
        }
        let auth_error = failure.map(|message| {
            Box::new(StandardErrorBody {
                kind: ErrorKind::Forbidden,
                message: message.to_owned(),
            })
        });
        Err(Error::uiaa(&UiaaInfo {
            flows: self.flows.clone(),
            completed: completed.into_iter().map(AuthType::from).collect(),
            params: serde_json::value::to_raw_value(&serde_json::json!({})).ok(),
            session: Some(session),
            auth_error,
        }))
    }

    /// Judges what the client shows: `None` if it shows nothing, else the stage or why not.
    async fn stage(
        &self,
        app: &App,
        auth: &AuthData,
    ) -> Result<Option<Result<AuthType, &'static str>>, Error> {
        let asked = |stage: &AuthType| self.flows.iter().any(|flow| flow.stages.contains(stage));
        let judged = match auth {
            AuthData::Dummy(_) if asked(&AuthType::Dummy) => Ok(AuthType::Dummy),
            AuthData::RegistrationToken(token) if asked(&AuthType::RegistrationToken) => {
                let expected = app.config.registration.token.as_bytes();
                let matches = bool::from(token.token.as_bytes().ct_eq(expected));
                if matches {
                    Ok(AuthType::RegistrationToken)
                } else {
                    Err("unknown registration token")
                }
            }
            AuthData::Password(password) if asked(&AuthType::Password) => {
                let Some(requester) = self.user else {
                    return Ok(None);
                };
                if !names(&password.identifier, requester, app) {
                    // No other password would do, so the client is not asked to try again.
                    let message = "only the user themselves can confirm this";
                    return Err(Error::forbidden(message));
                }
                // Whoever has found a device unlocked does not guess the password with it.
                app.rates.confirm(requester.user.as_str())?;
                if app
                    .users
                    .check_password(Some(requester.sid), password.password.clone())
                    .await?
                {
                    Ok(AuthType::Password)
                } else {
                    Err("wrong password")
                }
            }
            AuthData::FallbackAcknowledgement(_) => return Ok(None),
            _ => Err("this stage is not part of any flow"),
        };
        Ok(Some(judged))
    }
}

/// Whether an identifier means the requester.
fn names(identifier: &UserIdentifier, requester: &Requester, app: &App) -> bool {
    let UserIdentifier::Matrix(MatrixUserIdentifier { user }) = identifier else {
        return false;
    };
    let full = UserId::parse_with_server_name(user.as_str(), &app.server_name);
    full.is_ok_and(|full| full == requester.user)
}

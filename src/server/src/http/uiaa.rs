//! User-interactive authentication at the edge: which flows an operation asks for, and what a client has shown.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api>

use std::{collections::BTreeMap, fmt::Debug};

use http::StatusCode;
use ruma::{
    DeviceId, UserId,
    api::{
        client::uiaa::{
            AuthData, AuthFlow, AuthType, EmailUserIdentifier, MatrixUserIdentifier, UiaaInfo,
            UserIdentifier,
        },
        error::{ErrorCode, ErrorKind, StandardErrorBody},
    },
};
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq;
use vatra_domain::{
    schema::EmailPurpose,
    users::{Requester, UsersError},
};

use super::error::Error;
use crate::wiring::App;

/// The stage of e-mail.
const EMAIL: &str = "m.login.email.identity";

/// One operation that wants authentication.
pub(crate) struct Operation<'a> {
    /// Names endpoint, user and parameters: a session of one operation is of no use for another.
    pub(crate) name: String,
    /// Flows, any of which will do.
    pub(crate) flows: Vec<AuthFlow>,
    /// Who must show their password, if a flow has that stage.
    pub(crate) user: Option<&'a Requester>,
    /// For what an e-mail address must have been validated, if a flow has that stage.
    pub(crate) email: EmailPurpose,
}

/// What a client has shown.
enum Judged {
    /// A stage.
    Done(AuthType),
    /// The stage of e-mail, with the id of the session whose address was validated.
    Email(String),
    /// Not what it should be.
    Refused(ErrorKind, &'static str),
    /// Nothing.
    Nothing,
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
            email: EmailPurpose::Add,
        }
    }

    /// Ok once one flow is complete, with the session of the validated address if that was shown; otherwise the answer that says
    /// what is missing.
    ///
    /// Application services have no password to show: their token is enough. What they may not do at all says so with
    /// [`no_service`]. <https://spec.matrix.org/v1.19/application-service-api/#device-management>
    pub(crate) async fn check(
        &self,
        app: &App,
        auth: Option<&AuthData>,
    ) -> Result<Option<String>, Error> {
        if self.user.is_some_and(|user| user.service.is_some()) {
            return Ok(None);
        }
        let flows = self.flows(app).await?;
        let sessions = app.users.uiaa();
        let now = app.users.clock().now();
        let session = match auth.and_then(AuthData::session) {
            Some(session) if sessions.completed(session, &self.name, now).is_some() => {
                session.to_owned()
            }
            // Old clients send a stage without a session; then this request alone must complete a flow.
            _ => {
                let owner = self.user.map(|user| user.sid);
                sessions.start_of(&**app.users.random(), &self.name, owner, now)
            }
        };
        let mut failure = None;
        if let Some(auth) = auth {
            match self.stage(app, &flows, auth).await? {
                Judged::Done(stage) => sessions.complete(&session, stage.as_str()),
                Judged::Email(shown) => sessions.complete_with(&session, EMAIL, shown),
                Judged::Refused(kind, message) => failure = Some((kind, message)),
                Judged::Nothing => {}
            }
        }
        let completed = sessions
            .completed(&session, &self.name, now)
            .unwrap_or_default();
        let is_done = |stage: &AuthType| completed.iter().any(|done| done == stage.as_str());
        if flows.iter().any(|flow| flow.stages.iter().all(is_done)) {
            let email = sessions.shown(&session, EMAIL);
            sessions.end(&session);
            return Ok(email);
        }
        let auth_error = failure.map(|(kind, message)| {
            Box::new(StandardErrorBody {
                kind,
                message: message.to_owned(),
            })
        });
        Err(Error::uiaa(&UiaaInfo {
            flows: flows.clone(),
            completed: completed.into_iter().map(AuthType::from).collect(),
            params: serde_json::value::to_raw_value(&params(app, &flows)).ok(),
            session: Some(session),
            auth_error,
        }))
    }

    /// The flows for this user: who logs in with an identity provider confirms with it, and who has no password only so.
    async fn flows(&self, app: &App) -> Result<Vec<AuthFlow>, Error> {
        let (Some(user), Some(sso)) = (self.user, &app.sso) else {
            return Ok(self.flows.clone());
        };
        let identities = app.users.identities(user.sid).await?;
        if !identities
            .iter()
            .any(|it| sso.provider(&it.provider).is_some())
        {
            return Ok(self.flows.clone());
        }
        let account = app.users.account(user.sid).await?;
        let has_password = account.is_some_and(|account| account.password.is_some());
        let mut flows = if has_password {
            self.flows.clone()
        } else {
            Vec::new()
        };
        let stages = vec![AuthType::Sso];
        flows.push(AuthFlow { stages });
        Ok(flows)
    }

    /// Judges what the client shows.
    async fn stage(&self, app: &App, flows: &[AuthFlow], auth: &AuthData) -> Result<Judged, Error> {
        let asked = |stage: &AuthType| flows.iter().any(|flow| flow.stages.contains(stage));
        let refused = |message| Judged::Refused(ErrorKind::Forbidden, message);
        Ok(match auth {
            AuthData::Dummy(_) if asked(&AuthType::Dummy) => Judged::Done(AuthType::Dummy),
            AuthData::RegistrationToken(token) if asked(&AuthType::RegistrationToken) => {
                let expected = app.config.registration.token.as_bytes();
                let matches = bool::from(token.token.as_bytes().ct_eq(expected));
                if matches {
                    Judged::Done(AuthType::RegistrationToken)
                } else {
                    refused("unknown registration token")
                }
            }
            AuthData::Password(password) if asked(&AuthType::Password) => {
                let Some(requester) = self.user else {
                    return Ok(Judged::Nothing);
                };
                if !names(&password.identifier, requester, app).await? {
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
                    Judged::Done(AuthType::Password)
                } else {
                    refused("wrong password")
                }
            }
            AuthData::EmailIdentity(email) if asked(&AuthType::EmailIdentity) => {
                let shown = &email.thirdparty_id_creds;
                let (sid, secret) = (shown.sid.as_str(), shown.client_secret.as_str());
                match app.users.validated(sid, secret, self.email).await {
                    Ok(_) => Judged::Email(sid.to_owned()),
                    Err(UsersError::EmailNotValidated) => {
                        let message = "the e-mail address has not been validated";
                        Judged::Refused(ErrorKind::ThreepidAuthFailed, message)
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            AuthData::ReCaptcha(answer) if asked(&AuthType::ReCaptcha) => {
                match is_person(app, &answer.response).await? {
                    true => Judged::Done(AuthType::ReCaptcha),
                    false => {
                        let message = "the puzzle was not solved";
                        Judged::Refused(ErrorKind::CaptchaInvalid, message)
                    }
                }
            }
            AuthData::Terms(_) if asked(&AuthType::Terms) => Judged::Done(AuthType::Terms),
            AuthData::FallbackAcknowledgement(_) => Judged::Nothing,
            _ => refused("this stage is not part of any flow"),
        })
    }
}

/// Whether an answer to the puzzle is right. What the judge does not say is no.
pub(crate) async fn is_person(app: &App, answer: &str) -> Result<bool, Error> {
    let Some(captcha) = &app.captcha else {
        return Ok(false);
    };
    captcha.is_right(answer).await.map_err(|error| {
        tracing::warn!(%error, "the judge of puzzles does not answer");
        let message = "whether you are a person cannot be found out now; try again later";
        Error::new(StatusCode::BAD_GATEWAY, ErrorCode::Unknown, message)
    })
}

/// What clients need to know for the stages.
fn params(app: &App, flows: &[AuthFlow]) -> Value {
    let asked = |stage: &AuthType| flows.iter().any(|flow| flow.stages.contains(stage));
    let mut params = Map::new();
    if let Some(captcha) = app.captcha.as_ref().filter(|_| asked(&AuthType::ReCaptcha)) {
        let key = json!({ "public_key": captcha.site_key });
        params.insert(AuthType::ReCaptcha.to_string(), key);
    }
    if asked(&AuthType::Terms) {
        let mut policies: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
        for terms in &app.config.registration.terms {
            let policy = policies.entry(&terms.id).or_default();
            policy.insert("version".to_owned(), json!(terms.version));
            let shown = json!({ "name": terms.name, "url": terms.url });
            policy.insert(terms.language.clone(), shown);
        }
        params.insert(AuthType::Terms.to_string(), json!({ "policies": policies }));
    }
    params.into()
}

/// Refuses application services what belongs to the management of accounts.
/// <https://spec.matrix.org/v1.19/application-service-api/#identity-assertion>
pub(crate) fn no_service(caller: &Requester) -> Result<(), Error> {
    if caller.service.is_none() {
        return Ok(());
    }
    Err(Error::forbidden(
        "application services do not manage accounts: only the user themselves can do this",
    ))
}

/// The device of a request that makes no sense without one.
pub(crate) fn own_device(caller: &Requester) -> Result<&DeviceId, Error> {
    let message = "this is done with a device: name one of the user's in device_id";
    let device = caller.device.as_deref();
    device.ok_or_else(|| Error::invalid_param(message))
}

/// Whether an identifier means the requester.
async fn names(
    identifier: &UserIdentifier,
    requester: &Requester,
    app: &App,
) -> Result<bool, Error> {
    match identifier {
        UserIdentifier::Matrix(MatrixUserIdentifier { user }) => {
            let full = UserId::parse_with_server_name(user.as_str(), &app.server_name);
            Ok(full.is_ok_and(|full| full == requester.user))
        }
        UserIdentifier::Email(EmailUserIdentifier { address }) => {
            Ok(app.users.email_owner(address).await? == Some(requester.sid))
        }
        _ => Ok(false),
    }
}

//! Logging in and out. <https://spec.matrix.org/v1.19/client-server-api/#login>

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use ruma::{
    OwnedDeviceId, OwnedUserId,
    api::{
        client::session::{
            get_login_token::v1 as get_login_token, logout, logout_all,
            refresh_token::v3 as refresh_token,
        },
        error::ErrorCode,
    },
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use vatra_domain::{
    schema::UserSid,
    users::{Login, Requester, Session, UsersError, login_tokens::LOGIN_TOKEN_LIFE_MS},
};

use super::super::{
    address::Address,
    endpoint::{ByService, EvenLocked, Input},
    error::Error,
    uiaa::{Operation, no_service, own_device},
};
use crate::{jwt::LOGIN_TYPE, sso::Sso, wiring::App};

pub(super) async fn flows(app: App, (): (), _: Input) -> Result<Response, Error> {
    let mut flows = vec![
        json!({ "type": "m.login.password" }),
        json!({ "type": "m.login.token", "get_login_token": true }),
    ];
    flows.extend(app.sso.as_ref().map(Sso::flow));
    if app.jwt.is_some() {
        flows.push(json!({ "type": LOGIN_TYPE }));
    }
    if !app.users.services().is_empty() {
        flows.push(json!({ "type": "m.login.application_service" }));
    }
    Ok(Json(json!({ "flows": flows })).into_response())
}

/// Read by hand: old clients name the user in three ways.
#[derive(Deserialize)]
struct LoginBody {
    #[serde(rename = "type")]
    kind: String,
    identifier: Option<Identifier>,
    user: Option<String>,
    medium: Option<String>,
    address: Option<String>,
    password: Option<String>,
    token: Option<String>,
    device_id: Option<OwnedDeviceId>,
    initial_device_display_name: Option<String>,
    #[serde(default)]
    refresh_token: bool,
}

#[derive(Deserialize)]
struct Identifier {
    #[serde(rename = "type")]
    kind: String,
    user: Option<String>,
    medium: Option<String>,
    address: Option<String>,
}

/// How someone says who they are.
enum Named {
    User(String),
    Email(String),
}

pub(super) async fn login(app: App, by: ByService, input: Input) -> Result<Response, Error> {
    let mut body: LoginBody = input.read()?;
    let (user, sid) = match body.kind.as_str() {
        "m.login.password" => by_password(&app, &mut body, input.address).await?,
        "m.login.application_service" => {
            let Named::User(name) = named(&mut body)? else {
                return Err(Error::invalid_param("identifier is to be an m.id.user"));
            };
            app.users.login_for(&*by.needed()?, &name).await?
        }
        LOGIN_TYPE => by_jwt(&app, &body, input.address).await?,
        "m.login.token" => by_token(&app, &body, input.address).await?,
        _ => return Err(unknown_type()),
    };
    let login = Login {
        device: body.device_id,
        display_name: body.initial_device_display_name,
        refresh: body.refresh_token,
    };
    let session = app.users.login(user, sid, login).await?;
    let mut answer = session_json(&app, &session);
    let base_url = &app.config.client.base_url;
    if !base_url.is_empty() {
        answer.insert(
            "well_known".to_owned(),
            json!({ "m.homeserver": { "base_url": base_url } }),
        );
    }
    Ok(Json(answer).into_response())
}

/// Who has a token that another session of theirs was given.
async fn by_token(
    app: &App,
    body: &LoginBody,
    address: Option<Address>,
) -> Result<(OwnedUserId, UserSid), Error> {
    app.rates.login_with_token(address)?;
    let token = token_of(body)?;
    let wrong = || Error::forbidden("the token is unknown, used or expired");
    let sid = app.users.take_login_token(token).await?.ok_or_else(wrong)?;
    let account = app.users.account(sid).await?.ok_or_else(wrong)?;
    if account.deactivated {
        return Err(UsersError::Deactivated.into());
    }
    let user = app.rooms.reader().user_id(sid).await?;
    Ok((user.ok_or_else(wrong)?, sid))
}

/// Who has a token that the operator's service has signed.
async fn by_jwt(
    app: &App,
    body: &LoginBody,
    address: Option<Address>,
) -> Result<(OwnedUserId, UserSid), Error> {
    let Some(jwt) = &app.jwt else {
        return Err(unknown_type());
    };
    app.rates.login_with_token(address)?;
    let token = token_of(body)?;
    let name = jwt.subject(token).map_err(Error::forbidden)?;
    let make = app.config.jwt.create_accounts;
    match app.users.vouched_for(&name, make).await {
        Err(UsersError::NotFound) => Err(Error::forbidden("you have no account here")),
        other => Ok(other?),
    }
}

fn token_of(body: &LoginBody) -> Result<&str, Error> {
    body.token.as_deref().ok_or_else(|| {
        let code = ErrorCode::MissingParam;
        Error::new(StatusCode::BAD_REQUEST, code, "token is needed")
    })
}

fn unknown_type() -> Error {
    let code = ErrorCode::Unknown;
    Error::new(StatusCode::BAD_REQUEST, code, "unknown login type")
}

/// Who shows their password.
async fn by_password(
    app: &App,
    body: &mut LoginBody,
    address: Option<Address>,
) -> Result<(OwnedUserId, UserSid), Error> {
    let named = named(body)?;
    let password = body.password.take().ok_or_else(|| {
        let code = ErrorCode::MissingParam;
        Error::new(StatusCode::BAD_REQUEST, code, "password is needed")
    })?;
    let (name, found) = match named {
        Named::User(name) => (name.clone(), app.users.find(&name).await?),
        Named::Email(address) => (address.clone(), app.users.find_by_email(&address).await?),
    };
    // One account has many spellings, and one limit.
    let who = found.as_ref().map_or(&*name, |(user, _)| user.as_str());
    app.rates.login(who, address)?;
    let right = app
        .users
        .check_password(found.as_ref().map(|(_, sid)| *sid), password)
        .await?;
    match found {
        Some(found) if right => Ok(found),
        Some((_, sid))
            if app
                .users
                .account(sid)
                .await?
                .is_some_and(|account| account.deactivated) =>
        {
            Err(UsersError::Deactivated.into())
        }
        _ => Err(UsersError::WrongPassword.into()),
    }
}

/// Who wants to log in.
fn named(body: &mut LoginBody) -> Result<Named, Error> {
    let Some(identifier) = body.identifier.take() else {
        let by_email = body.medium.as_deref() == Some("email");
        let email = body.address.take().filter(|_| by_email);
        let user = body.user.take().map(Named::User);
        return user.or(email.map(Named::Email)).ok_or_else(|| {
            let code = ErrorCode::MissingParam;
            Error::new(StatusCode::BAD_REQUEST, code, "identifier is needed")
        });
    };
    let named = match (identifier.kind.as_str(), identifier.medium.as_deref()) {
        ("m.id.user", _) => identifier.user.map(Named::User),
        ("m.id.thirdparty", Some("email")) => identifier.address.map(Named::Email),
        _ => None,
    };
    named.ok_or_else(|| {
        Error::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::Unknown,
            "unknown identifier type",
        )
    })
}

/// A token with which another device of the user can log in once.
pub(super) async fn login_token(
    app: App,
    caller: Requester,
    request: get_login_token::Request,
) -> Result<get_login_token::Response, Error> {
    no_service(&caller)?;
    let operation = Operation::by_password("login token", &(), &caller);
    operation.check(&app, request.auth.as_ref()).await?;
    let token = app.users.issue_login_token(caller.sid).await?;
    let life = Duration::from_millis(LOGIN_TOKEN_LIFE_MS);
    Ok(get_login_token::Response::new(life, token))
}

/// A session as login and registration answer it.
pub(super) fn session_json(app: &App, session: &Session) -> Map<String, Value> {
    let mut answer = Map::new();
    let mut put = |name: &str, value: Value| answer.insert(name.to_owned(), value);
    put("user_id", json!(session.user));
    put("device_id", json!(session.device));
    put("access_token", json!(session.access_token));
    put("home_server", json!(app.server_name));
    if let (Some(refresh), Some(expires)) = (&session.refresh_token, session.expires_in_ms) {
        put("refresh_token", json!(refresh));
        put("expires_in_ms", json!(expires));
    }
    answer
}

pub(super) async fn refresh(
    app: App,
    (): (),
    request: refresh_token::Request,
) -> Result<refresh_token::Response, Error> {
    let session = app.users.refresh(&request.refresh_token).await?;
    Ok(refresh_token::Response {
        access_token: session.access_token,
        refresh_token: session.refresh_token,
        expires_in_ms: session.expires_in_ms.map(Duration::from_millis),
    })
}

pub(super) async fn logout(
    app: App,
    EvenLocked(caller): EvenLocked,
    _: logout::v3::Request,
) -> Result<logout::v3::Response, Error> {
    let device = own_device(&caller)?;
    app.users.logout(caller.sid, device.as_str()).await?;
    Ok(logout::v3::Response {})
}

pub(super) async fn logout_all(
    app: App,
    EvenLocked(caller): EvenLocked,
    _: logout_all::v3::Request,
) -> Result<logout_all::v3::Response, Error> {
    app.users.logout_all(caller.sid, None).await?;
    Ok(logout_all::v3::Response {})
}

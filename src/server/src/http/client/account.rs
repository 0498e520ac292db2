//! Accounts. <https://spec.matrix.org/v1.19/client-server-api/#account-registration-and-management>

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
    routing::on,
};
use hmac::{Hmac, KeyInit, Mac};
use http::{Method, StatusCode};
use ruma::{
    OwnedDeviceId, OwnedUserId,
    api::{
        client::{
            account::{
                ThirdPartyIdRemovalStatus, deactivate::v3 as deactivate, whoami::v3 as whoami,
            },
            uiaa::{AuthData, AuthFlow, AuthType},
        },
        error::ErrorCode,
    },
};
use serde::Deserialize;
use serde_json::json;
use sha1::Sha1;
use subtle::ConstantTimeEq;
use vatra_domain::{
    schema::{EmailPurpose, UserSid},
    users::{Login, NewAccount, Requester, UsersError},
};

use super::{
    super::{
        address::Address,
        endpoint::{ByService, Input, Routes, read_body},
        error::Error,
        uiaa::{Operation, no_service},
    },
    session::session_json,
};
use vatra_domain::flows::leave::leave_all;

use crate::wiring::App;

#[derive(Deserialize)]
struct RegisterBody {
    username: Option<String>,
    password: Option<String>,
    device_id: Option<OwnedDeviceId>,
    initial_device_display_name: Option<String>,
    auth: Option<AuthData>,
    #[serde(default)]
    inhibit_login: bool,
    #[serde(default)]
    refresh_token: bool,
    #[serde(rename = "type")]
    login_type: Option<String>,
    guest_access_token: Option<String>,
}

pub(super) async fn register(app: App, by: ByService, input: Input) -> Result<Response, Error> {
    let body: RegisterBody = input.read()?;
    match input.param("kind").as_deref() {
        None | Some("user") => {}
        Some("guest") => return register_guest(&app, body, input.address).await,
        Some(_) => return Err(Error::invalid_param("kind is user or guest")),
    }
    if body.login_type.as_deref() == Some("m.login.application_service") {
        return register_for(&app, by, body).await;
    }
    let settings = &app.config.registration;
    if !settings.open && settings.token.is_empty() {
        return Err(Error::forbidden("registration is closed on this server"));
    }
    app.rates.register(input.address)?;
    let guest = match &body.guest_access_token {
        Some(token) => Some(app.users.guest(token, body.username.as_deref()).await?),
        None => None,
    };
    if let (Some(name), None) = (&body.username, &guest) {
        app.users.available(&name.to_lowercase()).await?;
    }
    let name = format!(
        "register {:?} {:?} {}",
        body.username,
        body.initial_device_display_name,
        guest.is_some()
    );
    let operation = Operation {
        name,
        flows: registration_flows(&app),
        user: None,
        email: EmailPurpose::Register,
    };
    let sid = operation.check(&app, body.auth.as_ref()).await?;
    let email = match sid {
        Some(sid) => Some(
            app.users
                .validated_session(&sid, EmailPurpose::Register)
                .await?
                .speaking(&input.languages),
        ),
        None => None,
    };
    let login = Login {
        device: body.device_id,
        display_name: body.initial_device_display_name,
        refresh: body.refresh_token,
    };
    login.check()?;
    let new = NewAccount {
        name: body.username,
        password: body.password,
        email,
        ..NewAccount::default()
    };
    let account = match guest {
        Some(guest) => {
            app.users.upgrade_guest(guest.sid, new).await?;
            (guest.user, guest.sid)
        }
        None => app.users.register(new).await?,
    };
    registered(&app, account, body.inhibit_login, login).await
}

/// Who does not register. Nothing of what they send counts but the name of their device.
async fn register_guest(
    app: &App,
    body: RegisterBody,
    address: Option<Address>,
) -> Result<Response, Error> {
    if !app.config.registration.guests {
        return Err(Error::no_guests("this server has no guest accounts"));
    }
    app.rates.register(address)?;
    let login = Login {
        display_name: body.initial_device_display_name,
        ..Login::default()
    };
    login.check()?;
    let account = app.users.register_guest().await?;
    registered(app, account, false, login).await
}

/// An application service makes one of its users. <https://spec.matrix.org/v1.19/application-service-api/#server-admin-style-permissions>
async fn register_for(app: &App, by: ByService, body: RegisterBody) -> Result<Response, Error> {
    let service = by.needed()?;
    let name = body.username.ok_or_else(|| {
        let code = ErrorCode::MissingParam;
        Error::new(StatusCode::BAD_REQUEST, code, "username is missing")
    })?;
    let login = Login {
        device: body.device_id,
        display_name: body.initial_device_display_name,
        refresh: body.refresh_token,
    };
    login.check()?;
    let account = app.users.register_for(&service, name).await?;
    registered(app, account, body.inhibit_login, login).await
}

/// What the maker of an account is told: a session, unless it wants none.
async fn registered(
    app: &App,
    (user, sid): (OwnedUserId, UserSid),
    inhibit_login: bool,
    login: Login,
) -> Result<Response, Error> {
    if inhibit_login {
        return Ok(
            Json(json!({ "user_id": user, "home_server": app.server_name })).into_response(),
        );
    }
    let session = app.users.login(user, sid, login).await?;
    Ok(Json(session_json(app, &session)).into_response())
}

/// With a token if there is one to know; with an e-mail address if that is required, and if not, with or without; with a puzzle and terms if there are
/// any.
fn registration_flows(app: &App) -> Vec<AuthFlow> {
    let settings = &app.config.registration;
    let mut stages = Vec::new();
    if app.captcha.is_some() {
        stages.push(AuthType::ReCaptcha);
    }
    if !settings.terms.is_empty() {
        stages.push(AuthType::Terms);
    }
    if !settings.token.is_empty() {
        stages.push(AuthType::RegistrationToken);
    }
    // The address first: all that comes after it would complete the other flow.
    let email = AuthType::EmailIdentity;
    let with = AuthFlow {
        stages: [vec![email], stages.clone()].concat(),
    };
    if stages.is_empty() {
        stages.push(AuthType::Dummy);
    }
    let without = AuthFlow { stages };
    match (app.mail.is_some(), settings.require_email) {
        (false, _) => vec![without],
        (true, false) => vec![without, with],
        (true, true) => vec![with],
    }
}

pub(super) async fn available(app: App, (): (), input: Input) -> Result<Response, Error> {
    app.rates.register(input.address)?;
    app.users.available(&needed(&input, "username")?).await?;
    Ok(Json(json!({ "available": true })).into_response())
}

pub(super) async fn token_validity(app: App, (): (), input: Input) -> Result<Response, Error> {
    app.rates.register(input.address)?;
    let token = needed(&input, "token")?;
    let expected = &app.config.registration.token;
    if expected.is_empty() {
        return Err(Error::forbidden("this server takes no registration token"));
    }
    let valid = bool::from(token.as_bytes().ct_eq(expected.as_bytes()));
    Ok(Json(json!({ "valid": valid })).into_response())
}

fn needed(input: &Input, name: &str) -> Result<String, Error> {
    let missing = || {
        let message = format!("{name} is missing");
        Error::new(StatusCode::BAD_REQUEST, ErrorCode::MissingParam, message)
    };
    input.param(name).ok_or_else(missing)
}

pub(super) async fn whoami(
    _: App,
    caller: Requester,
    _: whoami::Request,
) -> Result<whoami::Response, Error> {
    Ok(whoami::Response {
        user_id: caller.user,
        device_id: caller.device,
        is_guest: caller.guest,
    })
}

#[derive(Deserialize)]
struct PasswordBody {
    new_password: String,
    #[serde(default = "yes")]
    logout_devices: bool,
    auth: Option<AuthData>,
}

fn yes() -> bool {
    true
}

/// Read by hand: where it comes from is of interest.
pub(super) async fn change_password(
    app: App,
    caller: Option<Requester>,
    input: Input,
) -> Result<Response, Error> {
    let request: PasswordBody = input.read()?;
    let Some(caller) = caller else {
        return reset_password(app, request, input.address).await;
    };
    no_service(&caller)?;
    let operation = Operation::by_password("change password", &request.logout_devices, &caller);
    operation.check(&app, request.auth.as_ref()).await?;
    app.users
        .set_password(caller.sid, request.new_password)
        .await?;
    if request.logout_devices {
        app.users
            .logout_all(caller.sid, Some(caller.device_key()))
            .await?;
    }
    Ok(Json(json!({})).into_response())
}

/// Who has lost the password shows that an e-mail address of the account is theirs.
async fn reset_password(
    app: App,
    request: PasswordBody,
    address: Option<Address>,
) -> Result<Response, Error> {
    if app.mail.is_none() {
        return Err(Error::missing_token());
    }
    app.rates.login_with_token(address)?;
    let stages = vec![AuthType::EmailIdentity];
    let operation = Operation {
        name: format!("reset password {}", request.logout_devices),
        flows: vec![AuthFlow { stages }],
        user: None,
        email: EmailPurpose::Password,
    };
    let sid = operation.check(&app, request.auth.as_ref()).await?;
    let sid = sid.ok_or(UsersError::EmailNotValidated)?;
    let email = app
        .users
        .validated_session(&sid, EmailPurpose::Password)
        .await?;
    let user = app
        .users
        .reset_password(&email, request.new_password)
        .await?;
    if request.logout_devices {
        app.users.logout_all(user, None).await?;
    }
    Ok(Json(json!({})).into_response())
}

pub(super) async fn deactivate(
    app: App,
    caller: Option<Requester>,
    request: deactivate::Request,
) -> Result<deactivate::Response, Error> {
    let caller = caller.ok_or_else(Error::missing_token)?;
    no_service(&caller)?;
    Operation::by_password("deactivate", &request.erase, &caller)
        .check(&app, request.auth.as_ref())
        .await?;
    leave_all(&app.users, &app.receiver, &caller).await?;
    app.users.deactivate(caller.sid, request.erase).await?;
    Ok(deactivate::Response {
        id_server_unbind_result: ThirdPartyIdRemovalStatus::NoSupport,
    })
}

/// Registration by who knows the shared secret, as other servers have it: a nonce, and an HMAC-SHA1 over the request.
pub(super) fn shared_secret_routes(routes: Routes) -> Routes {
    const PATH: &str = "/_synapse/admin/v1/register";
    routes
        .path(&Method::GET, PATH, |filter| on(filter, nonce))
        .path(&Method::POST, PATH, |filter| {
            on(filter, register_with_secret)
        })
}

async fn nonce(
    State(app): State<App>,
    address: Option<Extension<Address>>,
) -> Result<Response, Error> {
    secret(&app)?;
    app.rates.nonce(address.map(|Extension(address)| address))?;
    let nonce = app.users.nonces().start(
        &**app.users.random(),
        SECRET_OPERATION,
        app.users.clock().now(),
    );
    Ok(Json(json!({ "nonce": nonce })).into_response())
}

/// The name under which nonces are kept: they are single-use sessions.
const SECRET_OPERATION: &str = "register with the shared secret";

#[derive(Deserialize)]
struct SecretBody {
    nonce: String,
    username: String,
    password: String,
    #[serde(default)]
    admin: bool,
    user_type: Option<String>,
    displayname: Option<String>,
    mac: String,
}

async fn register_with_secret(
    State(app): State<App>,
    request: axum::extract::Request,
) -> Result<Response, Error> {
    let secret = secret(&app)?;
    let bytes = read_body(request.into_body(), app.limits.request_bytes).await?;
    let body: SecretBody = Input::of_body(bytes)?.read()?;
    let sessions = app.users.nonces();
    if sessions
        .completed(&body.nonce, SECRET_OPERATION, app.users.clock().now())
        .is_none()
    {
        return Err(Error::bad_json("unknown nonce"));
    }
    sessions.end(&body.nonce);
    let mut parts = vec![body.nonce.as_str(), &body.username, &body.password];
    parts.push(if body.admin { "admin" } else { "notadmin" });
    parts.extend(body.user_type.as_deref());
    let mut mac =
        Hmac::<Sha1>::new_from_slice(secret.as_bytes()).map_err(|error| Error::internal(&error))?;
    mac.update(parts.join("\0").as_bytes());
    let expected: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if !bool::from(
        expected
            .as_bytes()
            .ct_eq(body.mac.to_lowercase().as_bytes()),
    ) {
        return Err(Error::forbidden("the mac is wrong"));
    }
    let new = NewAccount {
        name: Some(body.username),
        password: Some(body.password),
        admin: body.admin,
        ..NewAccount::default()
    };
    let (user, sid) = app.users.register(new).await?;
    if let Some(name) = body.displayname {
        app.users
            .set_profile_field(sid, "displayname", Some(name.into()))
            .await?;
    }
    let session = app.users.login(user, sid, Login::default()).await?;
    Ok(Json(session_json(&app, &session)).into_response())
}

fn secret(app: &App) -> Result<&str, Error> {
    let secret = app.config.registration.shared_secret.as_str();
    if secret.is_empty() {
        Err(Error::unrecognized(StatusCode::NOT_FOUND))
    } else {
        Ok(secret)
    }
}

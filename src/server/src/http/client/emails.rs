//! E-mail addresses of accounts, and how they are validated. Phone numbers and identity servers there are none.
//! <https://spec.matrix.org/v1.19/client-server-api/#adding-account-administrative-contact-information>

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::on,
};
use http::{Method, StatusCode};
use ruma::{
    UInt,
    api::{
        auth_scheme::extract_bearer_or_query_token,
        client::{
            account::{
                ThirdPartyIdRemovalStatus, add_3pid::v3 as add_3pid, bind_3pid::v3 as bind_3pid,
                delete_3pid::v3 as delete_3pid, get_3pids::v3 as get_3pids,
                request_3pid_management_token_via_email::v3 as add_by_email,
                request_3pid_management_token_via_msisdn::v3 as add_by_phone,
                request_password_change_token_via_email::v3 as password_by_email,
                request_password_change_token_via_msisdn::v3 as password_by_phone,
                request_registration_token_via_email::v3 as register_by_email,
                request_registration_token_via_msisdn::v3 as register_by_phone,
                unbind_3pid::v3 as unbind_3pid,
            },
            uiaa::AuthData,
        },
        error::ErrorCode,
    },
    thirdparty::{Medium, ThirdPartyIdentifier, ThirdPartyIdentifierInit},
};
use serde::Deserialize;
use serde_json::json;
use vatra_domain::{
    clock::to_ruma,
    schema::EmailPurpose,
    users::{Requester, validation::Ask},
};

use super::super::{
    endpoint::{Input, Routes, Unsuspended, read_body},
    error::Error,
    uiaa::Operation,
};
use crate::wiring::App;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .json::<register_by_email::Request, _, _, _>(register_token)
        .json::<password_by_email::Request, _, _, _>(password_token)
        .json::<add_by_email::Request, _, _, _>(add_token)
        .add(register_phone)
        .add(password_phone)
        .add(add_phone)
        .add(list)
        .json::<add_3pid::Request, _, _, _>(add)
        .add(delete)
        .add(bind)
        .add(unbind)
        .path(&Method::POST, "/_matrix/client/v3/account/3pid", |filter| {
            on(filter, add_bound)
        })
        .path(&Method::POST, "/_matrix/client/r0/account/3pid", |filter| {
            on(filter, add_bound)
        })
}

/// ruma's types of the three are the same.
#[derive(Deserialize)]
struct TokenBody {
    client_secret: String,
    email: String,
    send_attempt: UInt,
    next_link: Option<String>,
}

async fn register_token(app: App, (): (), input: Input) -> Result<Response, Error> {
    let settings = &app.config.registration;
    if !settings.open && settings.token.is_empty() {
        return Err(denied("registration is closed on this server"));
    }
    let off = || denied("this server sends no mail");
    request_token(&app, input, EmailPurpose::Register, off).await
}

async fn password_token(app: App, (): (), input: Input) -> Result<Response, Error> {
    let off = || denied("this server sends no mail");
    request_token(&app, input, EmailPurpose::Password, off).await
}

async fn add_token(app: App, (): (), input: Input) -> Result<Response, Error> {
    let off = || not_supported("this server sends no mail");
    request_token(&app, input, EmailPurpose::Add, off).await
}

async fn request_token(
    app: &App,
    input: Input,
    purpose: EmailPurpose,
    off: impl FnOnce() -> Error,
) -> Result<Response, Error> {
    let body: TokenBody = input.read()?;
    let mail = app.mail.as_ref().ok_or_else(off)?;
    app.rates.mail(&body.email, input.address)?;
    let ask = Ask {
        purpose,
        address: body.email,
        secret: body.client_secret,
        attempt: body.send_attempt.into(),
        next_link: body.next_link,
        languages: input.languages,
    };
    let sid = mail.validations.request(ask).await?;
    Ok(Json(json!({ "sid": sid })).into_response())
}

async fn register_phone(
    _: App,
    (): (),
    _: register_by_phone::Request,
) -> Result<register_by_phone::Response, Error> {
    Err(denied("this server knows no phone numbers"))
}

async fn password_phone(
    _: App,
    (): (),
    _: password_by_phone::Request,
) -> Result<password_by_phone::Response, Error> {
    Err(denied("this server knows no phone numbers"))
}

async fn add_phone(
    _: App,
    (): (),
    _: add_by_phone::Request,
) -> Result<add_by_phone::Response, Error> {
    Err(not_supported("this server knows no phone numbers"))
}

async fn list(
    app: App,
    caller: Requester,
    _: get_3pids::Request,
) -> Result<get_3pids::Response, Error> {
    let emails = app.users.emails(caller.sid).await?;
    let threepids = emails.into_iter().map(|email| {
        let init = ThirdPartyIdentifierInit {
            address: email.address,
            medium: Medium::Email,
            validated_at: to_ruma(email.row.validated),
            added_at: to_ruma(email.row.added),
        };
        ThirdPartyIdentifier::from(init)
    });
    Ok(get_3pids::Response {
        threepids: threepids.collect(),
    })
}

#[derive(Deserialize)]
struct AddBody {
    sid: String,
    client_secret: String,
    auth: Option<AuthData>,
}

async fn add(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    let body: AddBody = input.read()?;
    let (sid, secret) = (body.sid.as_str(), body.client_secret.as_str());
    // First: nobody shows their password for an address that was not validated.
    let email = app.users.validated(sid, secret, EmailPurpose::Add).await?;
    let operation = Operation::by_password("add 3pid", &sid, &caller);
    operation.check(&app, body.auth.as_ref()).await?;
    let email = email.speaking(&input.languages);
    app.users.add_email(caller.sid, &email).await?;
    Ok(Json(json!({})).into_response())
}

/// Not for who is suspended: the admins may want to write to them.
async fn delete(
    app: App,
    Unsuspended(caller): Unsuspended,
    request: delete_3pid::Request,
) -> Result<delete_3pid::Response, Error> {
    match request.medium {
        Medium::Email => {
            app.users.remove_email(caller.sid, &request.address).await?;
        }
        // Nobody has one.
        Medium::Msisdn => {}
        _ => return Err(Error::invalid_param("medium is email or msisdn")),
    }
    Ok(delete_3pid::Response {
        id_server_unbind_result: ThirdPartyIdRemovalStatus::NoSupport,
    })
}

/// The old way, whose addresses an identity server vouches for: this server believes none.
async fn add_bound(State(app): State<App>, request: Request) -> Result<Response, Error> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(rename = "three_pid_creds")]
        _credentials: Credentials,
    }
    #[derive(Deserialize)]
    struct Credentials {
        #[serde(rename = "client_secret")]
        _client_secret: String,
        #[serde(rename = "sid")]
        _sid: String,
    }
    let token = extract_bearer_or_query_token(&request).map_err(|_| Error::missing_token())?;
    app.users
        .authenticate(&token.ok_or_else(Error::missing_token)?)
        .await?;
    let body = read_body(request.into_body(), app.limits.request_bytes).await?;
    let _: Body = Input::of_body(body)?.read()?;
    Err(Error::new(
        StatusCode::FORBIDDEN,
        ErrorCode::ThreepidAuthFailed,
        "this server believes no identity server: use /account/3pid/add",
    ))
}

async fn bind(_: App, _: Requester, _: bind_3pid::Request) -> Result<bind_3pid::Response, Error> {
    Err(Error::new(
        StatusCode::BAD_REQUEST,
        ErrorCode::ServerNotTrusted,
        "this server speaks to no identity server",
    ))
}

async fn unbind(
    _: App,
    _: Requester,
    request: unbind_3pid::Request,
) -> Result<unbind_3pid::Response, Error> {
    if !matches!(request.medium, Medium::Email | Medium::Msisdn) {
        return Err(Error::invalid_param("medium is email or msisdn"));
    }
    // Nothing was bound through this server.
    Ok(unbind_3pid::Response {
        id_server_unbind_result: ThirdPartyIdRemovalStatus::NoSupport,
    })
}

fn denied(message: &str) -> Error {
    Error::new(StatusCode::FORBIDDEN, ErrorCode::ThreepidDenied, message)
}

fn not_supported(message: &str) -> Error {
    let code = ErrorCode::ThreepidMediumNotSupported;
    Error::new(StatusCode::BAD_REQUEST, code, message)
}

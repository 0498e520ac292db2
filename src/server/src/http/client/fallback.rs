//! Pages for clients that do not know a stage of user-interactive authentication themselves.
//! <https://spec.matrix.org/v1.19/client-server-api/#fallback>

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
    routing::on,
};
use http::{Method, StatusCode};
use ruma::api::auth_scheme::NoAccessToken;
use vatra_domain::mail::templates::{Value, context};

use super::{
    super::{
        address::Address,
        endpoint::{Input, Routes, languages, read_body},
        error::Error,
        uiaa::is_person,
    },
    pages::{Rights, page},
};
use crate::wiring::App;

const CAPTCHA: &str = "/_matrix/client/v3/auth/m.login.recaptcha/fallback/web";
const TERMS: &str = "/_matrix/client/v3/auth/m.login.terms/fallback/web";
/// Where the puzzle comes from, as a page's policy has it.
const PUZZLE: &str = "https://www.google.com/recaptcha/ https://www.gstatic.com/recaptcha/";

/// The page with a puzzle.
struct Captcha;
ruma::metadata! {
    @for Captcha,
    method: GET,
    rate_limited: false,
    authentication: NoAccessToken,
    path: "/_matrix/client/v3/auth/m.login.recaptcha/fallback/web",
}

/// The page with terms.
struct Terms;
ruma::metadata! {
    @for Terms,
    method: GET,
    rate_limited: false,
    authentication: NoAccessToken,
    path: "/_matrix/client/v3/auth/m.login.terms/fallback/web",
}

/// All of them.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .json::<Captcha, _, _, _>(puzzle)
        .json::<Terms, _, _, _>(terms)
        .path(&Method::POST, CAPTCHA, |filter| on(filter, solve))
        .path(&Method::POST, TERMS, |filter| on(filter, accept))
}

async fn puzzle(app: App, (): (), input: Input) -> Result<Response, Error> {
    app.rates.register(input.address)?;
    let session = session_of(&app, input.query.as_bytes())?;
    show_puzzle(&app, &input.languages, &session)
}

fn show_puzzle(app: &App, languages: &str, session: &str) -> Result<Response, Error> {
    let off = || Error::unrecognized(StatusCode::NOT_FOUND);
    let captcha = app.captcha.as_ref().ok_or_else(off)?;
    let values =
        context! { session => session, site_key => captcha.site_key.as_str(), action => CAPTCHA };
    let rights = Rights {
        script: true,
        guests: PUZZLE,
        ..Rights::default()
    };
    page(app, languages, StatusCode::OK, "captcha", values, &rights)
}

async fn solve(
    State(app): State<App>,
    address: Option<Extension<Address>>,
    request: Request,
) -> Result<Response, Error> {
    app.rates
        .register(address.map(|Extension(address)| address))?;
    let languages = languages(request.headers());
    let body = read_body(request.into_body(), app.limits.request_bytes).await?;
    let session = session_of(&app, &body)?;
    if !is_person(&app, &field(&body, "g-recaptcha-response")).await? {
        return show_puzzle(&app, &languages, &session);
    }
    app.users.uiaa().complete(&session, "m.login.recaptcha");
    done(&app, &languages)
}

async fn terms(app: App, (): (), input: Input) -> Result<Response, Error> {
    app.rates.register(input.address)?;
    let session = session_of(&app, input.query.as_bytes())?;
    let documents = app.config.registration.terms.iter();
    let documents =
        documents.map(|it| context! { name => it.name.as_str(), link => it.url.as_str() });
    let documents: Vec<Value> = documents.collect();
    let values = context! { session => session, documents => documents, action => TERMS };
    page(
        &app,
        &input.languages,
        StatusCode::OK,
        "terms",
        values,
        &Rights::default(),
    )
}

async fn accept(
    State(app): State<App>,
    address: Option<Extension<Address>>,
    request: Request,
) -> Result<Response, Error> {
    app.rates
        .register(address.map(|Extension(address)| address))?;
    let languages = languages(request.headers());
    let body = read_body(request.into_body(), app.limits.request_bytes).await?;
    let session = session_of(&app, &body)?;
    app.users.uiaa().complete(&session, "m.login.terms");
    done(&app, &languages)
}

/// The page that tells a client that the stage is done.
fn done(app: &App, languages: &str) -> Result<Response, Error> {
    let rights = Rights {
        script: true,
        ..Rights::default()
    };
    page(
        app,
        languages,
        StatusCode::OK,
        "auth_done",
        context! {},
        &rights,
    )
}

/// The session that a page is for, if there is one.
fn session_of(app: &App, form: &[u8]) -> Result<String, Error> {
    let session = field(form, "session");
    if app.users.uiaa().is_there(&session, app.clock.now()) {
        return Ok(session);
    }
    Err(Error::invalid_param(
        "there is no such session, or it took too long",
    ))
}

fn field(form: &[u8], name: &str) -> String {
    let mut pairs = form_urlencoded::parse(form);
    let found = pairs.find(|(key, _)| key == name);
    found
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

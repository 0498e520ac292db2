//! The page that letters lead to. Looking at it changes nothing (mail programs and their scanners follow links); its button validates the
//! address. Clients that are given a token submit it here as JSON, as to an identity server.
//! <https://spec.matrix.org/v1.19/identity-service-api/#post_matrixidentityv2validateemailsubmittoken>

use axum::{
    Json,
    extract::{Request, State},
    response::{Html, IntoResponse, Response},
    routing::on,
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use ruma::api::error::ErrorCode;
use serde::Deserialize;
use serde_json::json;
use vatra_domain::{
    mail::templates::context,
    random::token,
    users::{
        Validations,
        validation::{PAGE, origin},
    },
};

use super::super::{
    endpoint::{Input, Routes, languages, read_body},
    error::Error,
    fixed,
};
use crate::{mail::Mail, wiring::App};

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .path(&Method::GET, PAGE, |filter| on(filter, look))
        .path(&Method::POST, PAGE, |filter| on(filter, submit))
}

pub(super) fn mail(app: &App) -> Result<&Mail, Error> {
    let off = || Error::unrecognized(StatusCode::NOT_FOUND);
    app.mail.as_ref().ok_or_else(off)
}

/// What the link and the page's form hold, and what a client sends.
#[derive(Deserialize)]
pub(super) struct Submitted {
    sid: String,
    pub(super) token: String,
    client_secret: Option<String>,
}

impl Submitted {
    pub(super) fn of_form(text: &[u8]) -> Self {
        let field = |name: &str| {
            let mut pairs = form_urlencoded::parse(text);
            let found = pairs.find(|(key, _)| key == name);
            found
                .map(|(_, value)| value.into_owned())
                .unwrap_or_default()
        };
        Self {
            sid: field("sid"),
            token: field("token"),
            client_secret: None,
        }
    }
}

async fn look(State(app): State<App>, request: Request) -> Result<Response, Error> {
    let page = Page::new(&app, &mail(&app)?.validations, &request, PAGE);
    let given = Submitted::of_form(request.uri().query().unwrap_or_default().as_bytes());
    match app.users.linked(&given.sid, &given.token).await? {
        Some(row) => {
            // Browsers let a form lead on only to where its page says.
            let next = row.next_link.as_deref().and_then(origin);
            page.show(StatusCode::OK, "confirm", &row.address, &given, next)
        }
        None => page.show(StatusCode::BAD_REQUEST, "not_confirmed", "", &given, None),
    }
}

async fn submit(State(app): State<App>, request: Request) -> Result<Response, Error> {
    let page = Page::new(&app, &mail(&app)?.validations, &request, PAGE);
    let kind = request.headers().get(header::CONTENT_TYPE);
    let is_form = kind.is_some_and(|kind| {
        kind.as_bytes()
            .starts_with(b"application/x-www-form-urlencoded")
    });
    let body = read_body(request.into_body(), app.limits.request_bytes).await?;
    if !is_form {
        return submit_json(&app, body).await;
    }
    let given = Submitted::of_form(&body);
    let row = app
        .users
        .submit_token(&given.sid, &given.token, None)
        .await?;
    match row {
        Some(row) => match row.next_link {
            Some(link) => page.lead_on(&link),
            None => page.show(StatusCode::OK, "confirmed", &row.address, &given, None),
        },
        None => page.show(StatusCode::BAD_REQUEST, "not_confirmed", "", &given, None),
    }
}

async fn submit_json(app: &App, body: Bytes) -> Result<Response, Error> {
    let given: Submitted = Input::of_body(body).read()?;
    let missing = || {
        let code = ErrorCode::MissingParam;
        Error::new(StatusCode::BAD_REQUEST, code, "client_secret is missing")
    };
    let secret = given.client_secret.ok_or_else(missing)?;
    let row = app
        .users
        .submit_token(&given.sid, &given.token, Some(&secret))
        .await?;
    if row.is_none() {
        return Err(Error::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::ThreepidAuthFailed,
            "the token is unknown, used or expired",
        ));
    }
    Ok(Json(json!({ "success": true })).into_response())
}

/// A page in the language of who looks at it.
pub(super) struct Page<'a> {
    app: &'a App,
    validations: &'a Validations,
    language: String,
    action: &'static str,
}

impl<'a> Page<'a> {
    /// A page whose form goes to `action`.
    pub(super) fn new(
        app: &'a App,
        validations: &'a Validations,
        request: &Request,
        action: &'static str,
    ) -> Self {
        let languages = languages(request.headers());
        let language = validations.templates().language(&languages).to_owned();
        Self {
            app,
            validations,
            language,
            action,
        }
    }

    pub(super) fn show(
        &self,
        status: StatusCode,
        name: &str,
        address: &str,
        given: &Submitted,
        leads_to: Option<String>,
    ) -> Result<Response, Error> {
        let nonce = token(&**self.app.users.random(), 22);
        let values = context! {
            server => self.app.server_name.as_str(), language => self.language.as_str(), address => address,
            sid => given.sid.as_str(), token => given.token.as_str(), action => self.action, nonce => nonce.as_str(),
        };
        let page = self
            .validations
            .templates()
            .page(&self.language, name, values)
            .map_err(|error| Error::internal(&error))?;
        let leads_to = leads_to.unwrap_or_default();
        let policy = format!(
            "default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self' {leads_to}; base-uri 'none'; frame-ancestors 'none'"
        );
        let mut response = (status, Html(page)).into_response();
        let policy = HeaderValue::from_str(&policy).map_err(|error| Error::internal(&error))?;
        response
            .headers_mut()
            .insert(header::CONTENT_SECURITY_POLICY, policy);
        Ok(kept_private(response))
    }

    fn lead_on(&self, link: &str) -> Result<Response, Error> {
        let location = HeaderValue::from_str(link).map_err(|error| Error::internal(&error))?;
        let head = [(header::LOCATION, location)];
        Ok(kept_private((StatusCode::SEE_OTHER, head).into_response()))
    }
}

/// The token stands in the page's address: nobody else learns it, and nothing keeps it.
fn kept_private(mut response: Response) -> Response {
    let headers: [(HeaderName, &'static str); 4] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, fixed(value));
    }
    response
}

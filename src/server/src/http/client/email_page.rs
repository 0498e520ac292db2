//! The page that letters lead to. Looking at it changes nothing (mail programs and their scanners follow links); its button validates the
//! address. Clients that are given a token submit it here as JSON, as to an identity server.
//! <https://spec.matrix.org/v1.19/identity-service-api/#post_matrixidentityv2validateemailsubmittoken>

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::on,
};
use bytes::Bytes;
use http::{Method, StatusCode, header};
use ruma::api::error::ErrorCode;
use serde::Deserialize;
use serde_json::json;
use vatra_domain::{
    mail::templates::context,
    users::validation::{PAGE, origin},
};

use super::{
    super::{
        endpoint::{Input, Routes, languages, read_body},
        error::Error,
    },
    pages::{Rights, lead_on, page},
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
    mail(&app)?;
    let page = Page::new(&app, &request, PAGE);
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
    mail(&app)?;
    let page = Page::new(&app, &request, PAGE);
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
            Some(link) => lead_on(StatusCode::SEE_OTHER, &link),
            None => page.show(StatusCode::OK, "confirmed", &row.address, &given, None),
        },
        None => page.show(StatusCode::BAD_REQUEST, "not_confirmed", "", &given, None),
    }
}

async fn submit_json(app: &App, body: Bytes) -> Result<Response, Error> {
    let given: Submitted = Input::of_body(body)?.read()?;
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

/// A page of letters, for who looks at it.
pub(super) struct Page<'a> {
    app: &'a App,
    languages: String,
    action: &'static str,
}

impl<'a> Page<'a> {
    /// A page whose form goes to `action`.
    pub(super) fn new(app: &'a App, request: &Request, action: &'static str) -> Self {
        Self {
            app,
            languages: languages(request.headers()),
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
        let values = context! {
            address => address, sid => given.sid.as_str(), token => given.token.as_str(), action => self.action,
        };
        let leads_to = leads_to.unwrap_or_default();
        let rights = Rights {
            leads_to: &leads_to,
            ..Rights::default()
        };
        page(self.app, &self.languages, status, name, values, &rights)
    }
}

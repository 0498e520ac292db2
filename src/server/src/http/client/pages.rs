//! Pages for people's browsers: nothing on them is another's, nobody else shows them, and nobody keeps them.

use axum::response::{Html, IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use vatra_domain::{
    mail::templates::{Value, context},
    random::token,
};

use super::super::{error::Error, fixed};
use crate::wiring::App;

/// What a page may do beside showing itself.
#[derive(Debug, Default)]
pub(super) struct Rights<'a> {
    /// Where else its form may lead.
    pub(super) leads_to: &'a str,
    /// Its own script runs.
    pub(super) script: bool,
    /// Whose scripts run and whose frames are shown: sources as a policy has them.
    pub(super) guests: &'a str,
}

/// A page in the language of who looks at it.
pub(super) fn page(
    app: &App,
    languages: &str,
    status: StatusCode,
    name: &str,
    values: Value,
    rights: &Rights<'_>,
) -> Result<Response, Error> {
    let language = app.pages.language(languages).to_owned();
    let nonce = token(&**app.users.random(), 22);
    let values = context! {
        server => app.server_name.as_str(), language => language.as_str(), nonce => nonce.as_str(), ..values
    };
    let page = app
        .pages
        .page(&language, name, values)
        .map_err(|error| Error::internal(&error))?;
    let Rights {
        leads_to,
        script,
        guests,
    } = rights;
    let scripts = if *script {
        format!("script-src 'nonce-{nonce}' {guests}; ")
    } else {
        String::new()
    };
    let frames = if guests.is_empty() {
        String::new()
    } else {
        format!("frame-src {guests}; ")
    };
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; {scripts}{frames}form-action 'self' {leads_to}; base-uri 'none'; frame-ancestors 'none'"
    );
    let mut response = (status, Html(page)).into_response();
    let policy = HeaderValue::from_str(&policy).map_err(|error| Error::internal(&error))?;
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, policy);
    Ok(kept_private(response))
}

/// Leads a browser on.
pub(super) fn lead_on(status: StatusCode, to: &str) -> Result<Response, Error> {
    let location = HeaderValue::from_str(to).map_err(|error| Error::internal(&error))?;
    let head = [(header::LOCATION, location)];
    Ok(kept_private((status, head).into_response()))
}

/// What the address of a page holds, or the page itself, is nobody else's: nobody else learns it, and nothing keeps it.
pub(super) fn kept_private(mut response: Response) -> Response {
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

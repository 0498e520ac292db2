//! The page that stops letters to people who are away. It works logged out, by the link alone. Looking at it changes nothing; its button does,
//! and so does the one POST that mail programs make (RFC 8058).

use axum::{
    extract::{Request, State},
    response::Response,
    routing::on,
};
use http::{Method, StatusCode};
use vatra_domain::followers::mail_sender::PAGE_PATH;

use super::{
    super::{
        endpoint::{Routes, read_body},
        error::Error,
    },
    email_page::{Page, Submitted, mail},
};
use crate::wiring::App;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .path(&Method::GET, PAGE_PATH, |filter| on(filter, look))
        .path(&Method::POST, PAGE_PATH, |filter| on(filter, stop))
}

fn linked(request: &Request) -> Submitted {
    Submitted::of_form(request.uri().query().unwrap_or_default().as_bytes())
}

async fn look(State(app): State<App>, request: Request) -> Result<Response, Error> {
    mail(&app)?;
    let page = Page::new(&app, &request, PAGE_PATH);
    let given = linked(&request);
    match app.users.subscription(&given.token).await? {
        Some(address) => page.show(StatusCode::OK, "unsubscribe", &address, &given, None),
        None => page.show(StatusCode::NOT_FOUND, "unsubscribed", "", &given, None),
    }
}

async fn stop(State(app): State<App>, request: Request) -> Result<Response, Error> {
    mail(&app)?;
    let page = Page::new(&app, &request, PAGE_PATH);
    let mut given = linked(&request);
    let body = read_body(request.into_body(), app.limits.request_bytes).await?;
    if given.token.is_empty() {
        // The page's own button.
        given = Submitted::of_form(&body);
    }
    // Whoever stops them twice has stopped them.
    let address = app.users.unsubscribe(&given.token).await?;
    let address = address.unwrap_or_default();
    page.show(StatusCode::OK, "unsubscribed", &address, &given, None)
}

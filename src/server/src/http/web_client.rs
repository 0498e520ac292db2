//! What is no endpoint may be a file of the web client.

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode};

use super::error::Error;
use crate::wiring::App;

pub(super) async fn file(State(app): State<App>, request: Request) -> Response {
    let file = match &app.web_client {
        Some(client) if [Method::GET, Method::HEAD].contains(request.method()) => {
            client.file(request).await
        }
        _ => None,
    };
    file.unwrap_or_else(|| Error::unrecognized(StatusCode::NOT_FOUND).into_response())
}

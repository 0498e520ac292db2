//! HTTP: from the outermost layer to the handlers.
//!
//! - [`endpoint`]: how a handler becomes a route
//! - [`error`]: the one table from reasons to answers
//! - [`client`]: the handlers of the client-server API, a file per section of the spec
//! - [`address`]: where a request came from, through proxies
//! - [`conditions`]: which part of a file a request wants, and whether it has it already
//! - [`federation`]: those of the server-server API
//! - [`observe`]: one log line a request, and counts
//! - [`web_client`]: what is no endpoint may be a file of the web client
//! - [`unread`]: says when a connection ends because a body was not read
//!
//! Handlers decide nothing: extract, one domain call, reply.

pub mod address;
mod claims;
pub(crate) mod client;
pub(crate) mod conditions;
pub(crate) mod counts;
pub(crate) mod endpoint;
pub(crate) mod error;
pub(crate) mod federation;
pub(crate) mod health;
pub mod limits;
pub(crate) mod observe;
pub(crate) mod uiaa;
mod unread;
mod web_client;

use axum::{Router, response::IntoResponse};
use http::{HeaderValue, Method, StatusCode, header};
use tower_http::{catch_panic::CatchPanicLayer, cors};

use self::error::Error;
use crate::wiring::App;

/// Everything both listeners serve.
pub fn router(app: App) -> Router {
    let observed = axum::middleware::from_fn_with_state(app.clone(), observe::observe);
    let routes = if app.config.federation.enabled {
        client::routes().and(federation::routes())
    } else {
        client::routes()
    };
    routes
        .into_router()
        .merge(health::router())
        .fallback(web_client::file)
        .method_not_allowed_fallback(|| async {
            Error::unrecognized(StatusCode::METHOD_NOT_ALLOWED)
        })
        .layer(CatchPanicLayer::custom(|_| {
            Error::internal(&"a handler panicked").into_response()
        }))
        .layer(cors())
        .layer(observed)
        .layer(axum::middleware::from_fn(unread::tell))
        .with_state(app)
}

/// Every method and path of the API that is routed; the variable parts of paths are in braces. For tests that walk them.
pub fn routes() -> Vec<(Method, String)> {
    client::routes().and(federation::routes()).known()
}

/// The metrics page, for a listener of its own.
pub fn metrics_router(app: App) -> Router {
    health::metrics().with_state(app)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#web-browser-clients>
fn cors() -> cors::CorsLayer {
    cors::CorsLayer::new()
        .allow_origin(cors::Any)
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::OPTIONS,
        ])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_NONE_MATCH,
            header::IF_RANGE,
            header::RANGE,
            header::HeaderName::from_static("x-requested-with"),
        ])
        .expose_headers([
            header::HeaderName::from_static("retry-after"),
            header::ACCEPT_RANGES,
            header::CONTENT_DISPOSITION,
            header::CONTENT_RANGE,
            header::ETAG,
        ])
        .max_age(std::time::Duration::from_secs(86_400))
}

/// A header value of our own making.
pub(crate) const fn fixed(value: &'static str) -> HeaderValue {
    HeaderValue::from_static(value)
}

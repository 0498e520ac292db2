//! One line a request: id, user, endpoint, status, duration. Never a query, a token or a password.

use std::{
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Instant,
};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use tracing::info;

use super::address::Address;
use crate::{listen::Peer, wiring::App};

/// Where the endpoint writes down who called, for the request's line.
#[derive(Clone, Default)]
struct CallerName(Arc<OnceLock<String>>);

/// Writes down who called.
pub(crate) fn name_caller<B>(request: &http::Request<B>, name: &str) {
    if let Some(cell) = request.extensions().get::<CallerName>() {
        // Named twice can only be the same caller.
        let _ = cell.0.set(name.to_owned());
    }
}

/// The middleware.
pub(crate) async fn observe(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = app.counts.started.fetch_add(1, Ordering::Relaxed);
    let caller = CallerName::default();
    request.extensions_mut().insert(caller.clone());
    if let Some(Peer(peer)) = request.extensions().get::<Peer>().copied() {
        let client = app.proxies.client(peer.ip(), request.headers());
        request.extensions_mut().insert(Address(client));
    }
    let method = request.method().clone();
    let endpoint = request
        .extensions()
        .get::<MatchedPath>()
        .map(|path| path.as_str().to_owned());
    let response = next.run(request).await;
    let (status, took) = (response.status(), start.elapsed());
    if let Some(count) = app.counts.by_class.get(usize::from(status.as_u16() / 100)) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    app.counts.micros.fetch_add(micros, Ordering::Relaxed);
    info!(
        id,
        user = caller.0.get().map_or("-", String::as_str),
        %method,
        endpoint = endpoint.as_deref().unwrap_or("-"),
        status = status.as_u16(),
        micros,
        "request"
    );
    response
}

//! Credentials for a TURN server. <https://spec.matrix.org/v1.19/client-server-api/#voice-over-ip>

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use ruma::api::client::voip::get_turn_server_info::v3 as get_turn_server;
use sha1::Sha1;
use vatra_domain::{clock::Millis, users::Requester};

use super::super::error::Error;
use crate::{config::Turn, wiring::App};

pub(super) async fn turn_server(
    app: App,
    caller: Requester,
    _: get_turn_server::Request,
) -> Result<get_turn_server::Response, Error> {
    let turn = &app.config.turn;
    if turn.uris.is_empty() {
        return Err(Error::not_found("this server has no TURN server"));
    }
    let (username, password) = if turn.shared_secret.is_empty() {
        (turn.username.clone(), turn.password.clone())
    } else {
        credentials(turn, caller.user.as_str(), app.clock.now())?
    };
    let ttl = Duration::from_secs(turn.ttl_s);
    let uris = turn.uris.clone();
    Ok(get_turn_server::Response::new(
        username, password, uris, ttl,
    ))
}

/// A name that says until when it holds, and its HMAC-SHA-1: what TURN servers call the REST API, coturn `use-auth-secret`.
fn credentials(turn: &Turn, user: &str, now: Millis) -> Result<(String, String), Error> {
    let expires = (now / 1000).saturating_add(turn.ttl_s);
    let username = format!("{expires}:{user}");
    let mut mac = Hmac::<Sha1>::new_from_slice(turn.shared_secret.as_bytes())
        .map_err(|error| Error::internal(&error))?;
    mac.update(username.as_bytes());
    Ok((username, STANDARD.encode(mac.finalize().into_bytes())))
}

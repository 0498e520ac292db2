//! Whether settings make sense, and how to say that they do not.

use std::{fmt::Display, net::SocketAddr, path::Path};

use ruma::ServerName;
use vatra_domain::flows::create_room;

use super::Config;
use crate::{http::address::Proxies, outbound::policy::Network};

/// A message with file, key and remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(super) fn unreadable(file: Option<&Path>, error: &dyn Display) -> Self {
        Self(format!(
            "{}: {error}. config/default.toml lists every key.",
            place(file)
        ))
    }

    fn at(file: Option<&Path>, key: &str, remedy: &str) -> Self {
        Self(format!("{}: {key}: {remedy}", place(file)))
    }
}

fn place(file: Option<&Path>) -> String {
    file.map_or_else(
        || "the environment (VATRA__...)".to_owned(),
        |file| file.display().to_string(),
    )
}

impl Config {
    pub(super) fn checked(self, file: Option<&Path>) -> Result<Self, ConfigError> {
        let refuse = |key: &str, remedy: &str| Err(ConfigError::at(file, key, remedy));
        if ServerName::parse(&self.server_name).is_err() {
            return refuse("server_name", "write a host name such as example.org");
        }
        if let Err(text) = Proxies::read(&self.client.trusted_proxies) {
            let remedy = format!(
                "{text} is neither an address nor a network: write one such as 127.0.0.1 or 10.0.0.0/8"
            );
            return refuse("client.trusted_proxies", &remedy);
        }
        let registration = &self.registration;
        let open = registration.open && registration.token.is_empty();
        // Both listeners serve every API.
        let public = !self.client.listen.ip().is_loopback()
            || (self.federation.enabled && !self.federation.listen.ip().is_loopback());
        if open && public && !registration.allow_open_on_public_address {
            return refuse(
                "registration.open",
                "anyone who reaches this address could register. Set registration.token, or set \
                 registration.allow_open_on_public_address = true if that is what you want",
            );
        }
        let turn = &self.turn;
        if !turn.uris.is_empty() && turn.shared_secret.is_empty() && turn.password.is_empty() {
            return refuse(
                "turn.shared_secret",
                "write the TURN server's static-auth-secret, or a turn.username and turn.password",
            );
        }
        if turn.uris.iter().any(|uri| !uri.starts_with("turn")) {
            return refuse("turn.uris", "write URIs such as turn:turn.example.org");
        }
        let federation = &self.federation;
        if federation.tls_cert.as_os_str().is_empty() != federation.tls_key.as_os_str().is_empty() {
            return refuse(
                "federation.tls_key",
                "set both federation.tls_cert and federation.tls_key, or neither",
            );
        }
        if !create_room::is_known(&self.rooms.default_version) {
            return refuse(
                "rooms.default_version",
                "write a room version from \"1\" to \"12\"; \"12\" is the newest",
            );
        }
        let no_network = |network: &String| network.parse::<Network>().is_err();
        if federation.allowed_networks.iter().any(no_network) {
            return refuse(
                "federation.allowed_networks",
                "write networks such as 10.0.0.0/8 or fd00::/8",
            );
        }
        let no_server = |name: &String| ServerName::parse(name).is_err();
        if federation.trusted_key_servers.iter().any(no_server) {
            return refuse(
                "federation.trusted_key_servers",
                "write names of servers such as matrix.org",
            );
        }
        if !federation.delegate.is_empty() && no_server(&federation.delegate) {
            return refuse(
                "federation.delegate",
                "write a host name, with a port if it is not 8448, such as matrix.example.org:443",
            );
        }
        if !self.metrics.listen.is_empty() && self.metrics.listen.parse::<SocketAddr>().is_err() {
            return refuse(
                "metrics.listen",
                "write an address and a port, such as 127.0.0.1:9009, or leave it empty",
            );
        }
        if self.storage.memory_budget_bytes < 32 << 20 {
            return refuse(
                "storage.memory_budget_bytes",
                "give it at least 33554432 (32 MiB)",
            );
        }
        Ok(self)
    }
}

//! A server with application services, and requests of theirs.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::harness::{Engine, Server, encoded, succeeds};

/// What the service shows the server, and the server the service.
pub(super) const AS_TOKEN: &str = "the_token_of_the_irc_bridge";
pub(super) const HS_TOKEN: &str = "the_token_of_the_homeserver";

/// The registration of a bridge at a URL, which may be `null`.
pub(super) fn bridge(url: &str) -> String {
    format!(
        r##"
id: irc
url: {url}
as_token: {AS_TOKEN}
hs_token: {HS_TOKEN}
sender_localpart: irc_bot
org.example.unknown: 1
protocols: [irc]
namespaces:
  users:
    - exclusive: true
      regex: "@irc_.*"
    - exclusive: false
      regex: "@shared_.*"
  aliases:
    - exclusive: true
      regex: "#irc_.*"
  rooms: []
"##
    )
}

/// A server with these registrations.
pub(super) async fn start(engine: Engine, registrations: &[&str]) -> Server {
    start_with(engine, registrations, |_| {}).await
}

/// The same with other settings.
pub(super) async fn start_with(
    engine: Engine,
    registrations: &[&str],
    change: impl FnOnce(&mut vatra::config::Config),
) -> Server {
    Server::start_with(engine, |config| {
        let folder = config.data_dir.parent().unwrap().to_owned();
        for (number, text) in registrations.iter().enumerate() {
            let file = folder.join(format!("service{number}.yaml"));
            std::fs::write(&file, text).unwrap();
            config.appservices.files.push(file);
        }
        change(config);
    })
    .await
}

/// A request with the service's token; the path begins after `/_matrix/client/v3`, or is whole.
pub(super) fn by_service(server: &Server, method: Method, path: &str) -> RequestBuilder {
    let path = match path.starts_with("/_matrix/") {
        true => path.to_owned(),
        false => format!("/_matrix/client/v3{path}"),
    };
    server.request(method, &path).bearer_auth(AS_TOKEN)
}

/// The same as one of its users.
pub(super) fn acting(server: &Server, method: Method, path: &str, user: &str) -> RequestBuilder {
    let join = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{join}user_id={}", encoded(user));
    by_service(server, method, &path)
}

/// A request that makes one of the service's users.
pub(super) fn registration(server: &Server, name: &str) -> RequestBuilder {
    let body = json!({ "type": "m.login.application_service", "username": name });
    by_service(server, Method::POST, "/register").json(&body)
}

/// Makes one of its users, without a session; gives the id.
pub(super) async fn ghost(server: &Server, name: &str) -> String {
    let body = json!({
        "type": "m.login.application_service", "username": name, "inhibit_login": true,
    });
    let made = succeeds(by_service(server, Method::POST, "/register").json(&body)).await;
    assert_eq!(made.get("access_token"), None);
    made["user_id"].as_str().unwrap().to_owned()
}

/// Sends what must be taken, as one of its users.
pub(super) async fn does(
    server: &Server,
    user: &str,
    (method, path): (Method, &str),
    body: Value,
) -> Value {
    succeeds(acting(server, method, path, user).json(&body)).await
}

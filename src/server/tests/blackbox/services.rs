//! What a server says of services beside it: calls, other networks.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::json;
use sha1::Sha1;

use crate::harness::{Engine, Server, both_engines, refused};

both_engines!(third_party_networks_are_none);

async fn third_party_networks_are_none(server: Server) {
    let alice = server.register("alice").await;
    assert_eq!(alice.get("/thirdparty/protocols").await, json!({}));
    for path in ["protocol/irc", "location/irc", "user/irc"] {
        let request = alice.request(Method::GET, &format!("/thirdparty/{path}"));
        refused(request, 404, "M_NOT_FOUND").await;
    }
    let of = alice.get("/thirdparty/location?alias=%23a%3Alocalhost");
    assert_eq!(of.await, json!([]));
    let of = alice.get("/thirdparty/user?userid=%40a%3Alocalhost");
    assert_eq!(of.await, json!([]));
    let bad = alice.request(Method::GET, "/thirdparty/location?alias=none");
    let (status, _) = crate::harness::answer(bad).await;
    assert_eq!(status, 400);
    let anyone = server.request(Method::GET, "/_matrix/client/v3/thirdparty/protocols");
    refused(anyone, 401, "M_MISSING_TOKEN").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_for_calls_are_made_for_each_user_and_expire() {
    let without = Server::start(Engine::Memory).await;
    let alice = without.register("alice").await;
    let request = alice.request(Method::GET, "/voip/turnServer");
    refused(request, 404, "M_NOT_FOUND").await;

    let uris = vec!["turn:turn.example.org?transport=udp".to_owned()];
    let fixed = Server::start_with(Engine::Memory, |config| {
        config.turn.uris.clone_from(&uris);
        config.turn.username = "everyone".to_owned();
        config.turn.password = "known".to_owned();
    });
    let fixed = fixed.await;
    let told = fixed.register("alice").await.get("/voip/turnServer").await;
    let expected =
        json!({ "username": "everyone", "password": "known", "uris": uris, "ttl": 86_400 });
    assert_eq!(told, expected);

    let shared = Server::start_with(Engine::Memory, |config| {
        config.turn.uris.clone_from(&uris);
        config.turn.shared_secret = "north".to_owned();
        config.turn.ttl_s = 600;
    });
    let shared = shared.await;
    let bob = shared.register("bob").await;
    let told = bob.get("/voip/turnServer").await;
    let username = told["username"].as_str().unwrap();
    let (until, who) = username.split_once(':').unwrap();
    assert_eq!(who, bob.id);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let left = until.parse::<u64>().unwrap() - now;
    assert!((590..=600).contains(&left), "{left}");
    let mut mac = Hmac::<Sha1>::new_from_slice(b"north").unwrap();
    mac.update(username.as_bytes());
    let password = STANDARD.encode(mac.finalize().into_bytes());
    assert_eq!(told["password"], password.as_str());
    assert_eq!(told["ttl"], 600);
}

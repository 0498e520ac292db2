//! Limits on how often one may ask.

use futures::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::harness::{Engine, PASSWORD, Server, answer, encoded, on_both_engines, succeeds};

on_both_engines!(
    too_many_logins_are_told_when_to_come_back,
    an_address_is_limited_whatever_names_it_tries_and_a_trusted_proxy_names_the_address,
    sends_joins_invites_and_uploads_have_limits,
    an_account_is_limited_however_its_name_is_spelt_and_wherever_its_password_is_shown,
    names_and_registration_tokens_cannot_be_tried_one_after_the_other,
    nonces_are_limited,
    invitations_are_limited_in_whatever_way_they_are_sent,
);

async fn limited_server(engine: Engine) -> Server {
    Server::start_with(engine, |config| config.rate_limits.enabled = true).await
}

/// How many of these are refused because they are too many; the refusals say when to come back.
async fn refused(requests: impl Iterator<Item = RequestBuilder>) -> usize {
    let mut refused = 0;
    for (status, body) in join_all(requests.map(answer)).await {
        if status == 429 {
            assert_eq!(body["errcode"], "M_LIMIT_EXCEEDED");
            assert!(body["retry_after_ms"].as_u64().unwrap() > 0, "{body}");
            refused += 1;
        }
    }
    refused
}

async fn too_many_logins_are_told_when_to_come_back(engine: Engine) {
    let server = limited_server(engine).await;
    let body = json!({ "type": "m.login.password", "user": "nobody", "password": "wrong" });
    for _ in 0..50 {
        let request = server
            .request(Method::POST, "/_matrix/client/v3/login")
            .json(&body);
        let answer = request.send().await.unwrap();
        if answer.status() == 429 {
            assert!(
                answer.headers()["retry-after"]
                    .to_str()
                    .unwrap()
                    .parse::<u64>()
                    .unwrap()
                    >= 1
            );
            let body: serde_json::Value = answer.json().await.unwrap();
            assert_eq!(body["errcode"], "M_LIMIT_EXCEEDED");
            assert!(body["retry_after_ms"].as_u64().unwrap() > 0);
            return;
        }
    }
    panic!("no limit on logins");
}

async fn an_address_is_limited_whatever_names_it_tries_and_a_trusted_proxy_names_the_address(
    engine: Engine,
) {
    // How many of 60 requests are refused, each with a name of its own and as if from one of so many addresses.
    async fn limited(server: &Server, endpoint: &str, addresses: usize) -> usize {
        let mut limited = 0;
        for number in 0..60 {
            let body = json!({
                "type": "m.login.password", "user": format!("nobody{number}"), "password": "wrong",
            });
            let request = server
                .request(Method::POST, &format!("/_matrix/client/v3/{endpoint}"))
                .header("X-Forwarded-For", format!("192.0.2.{}", number % addresses))
                .json(&body);
            limited += usize::from(answer(request).await.0 == 429);
        }
        limited
    }
    let mut server = limited_server(engine).await;
    for endpoint in ["login", "register"] {
        let refused = limited(&server, endpoint, 60).await;
        assert!(refused > 0, "{endpoint}: nobody's word is taken");
    }
    server
        .replace(|config| config.client.trusted_proxies = vec!["127.0.0.0/8".to_owned()])
        .await;
    for endpoint in ["login", "register"] {
        assert_eq!(limited(&server, endpoint, 60).await, 0, "{endpoint}");
        assert!(limited(&server, endpoint, 1).await > 0, "{endpoint}");
    }
}

async fn sends_joins_invites_and_uploads_have_limits(engine: Engine) {
    let server = limited_server(engine).await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = alice.create_room(json!({})).await;
    let rooms = format!("/rooms/{}", encoded(&room));
    let sends = (0..300).map(|number| {
        let path = format!("{rooms}/send/m.room.message/{number}");
        let body = json!({ "msgtype": "m.text", "body": "hello" });
        alice.request(Method::PUT, &path).json(&body)
    });
    assert!(refused(sends).await > 0, "sends");
    let invites = (0..60).map(|number| {
        let body = json!({ "user_id": format!("@someone{number}:localhost") });
        let path = format!("{rooms}/invite");
        alice.request(Method::POST, &path).json(&body)
    });
    assert!(refused(invites).await > 0, "invites");
    let joins = (0..60).map(|_| {
        let path = format!("/join/{}", encoded(&room));
        bob.request(Method::POST, &path).json(&json!({}))
    });
    assert!(refused(joins).await > 0, "joins");
    let uploads = (0..200).map(|_| {
        let upload = bob.request(Method::POST, "/_matrix/media/v3/upload");
        upload.header("content-type", "text/plain").body("hello")
    });
    assert!(refused(uploads).await > 0, "uploads");
    // What alice has used up is still there for bob.
    let whoami = bob.request(Method::GET, "/account/whoami");
    succeeds(whoami).await;
    let carol = server.register("carol").await;
    carol.create_room(json!({})).await;
}

async fn an_account_is_limited_however_its_name_is_spelt_and_wherever_its_password_is_shown(
    engine: Engine,
) {
    let mut server = limited_server(engine).await;
    // Each from an address of its own.
    server
        .replace(|config| config.client.trusted_proxies = vec!["127.0.0.1".to_owned()])
        .await;
    let alice = server.register("alice").await;
    let spellings = (0..32_u8).map(|number| {
        let letters = "alice".chars().enumerate();
        let name: String = letters
            .map(|(place, letter)| match number >> place & 1 {
                1 => letter.to_ascii_uppercase(),
                _ => letter,
            })
            .collect();
        let body = json!({ "type": "m.login.password", "user": name, "password": "wrong" });
        let login = server.request(Method::POST, "/_matrix/client/v3/login");
        login
            .header("X-Forwarded-For", format!("192.0.2.{number}"))
            .json(&body)
    });
    assert!(refused(spellings).await > 0, "logins");
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let changes = (0..30).map(|number| {
        let auth = json!({ "type": "m.login.password", "password": format!("wrong{number}"),
            "identifier": { "type": "m.id.user", "user": "alice" } });
        let body = json!({ "new_password": PASSWORD, "auth": auth });
        alice.request(Method::POST, "/account/password").json(&body)
    });
    assert!(refused(changes).await > 0, "passwords shown again");
}

async fn names_and_registration_tokens_cannot_be_tried_one_after_the_other(engine: Engine) {
    let server = Server::start_with(engine, |config| {
        config.rate_limits.enabled = true;
        config.registration.token = "secret".to_owned();
    })
    .await;
    for path in [
        "/_matrix/client/v3/register/available?username=name",
        "/_matrix/client/v1/register/m.login.registration_token/validity?token=guess",
    ] {
        let asked = (0..100).map(|number| server.request(Method::GET, &format!("{path}{number}")));
        assert!(refused(asked).await > 0, "{path}");
    }
}

async fn nonces_are_limited(engine: Engine) {
    let server = Server::start_with(engine, |config| {
        config.rate_limits.enabled = true;
        config.registration.shared_secret = "shared".to_owned();
    });
    let server = server.await;
    let nonce = || server.request(Method::GET, "/_synapse/admin/v1/register");
    let refused = refused((0..300).map(|_| nonce())).await;
    assert!((1..=100).contains(&refused), "{refused}");
}

async fn invitations_are_limited_in_whatever_way_they_are_sent(engine: Engine) {
    let server = limited_server(engine).await;
    let alice = server.register("alice").await;
    let users = |from: usize, count: usize| -> Vec<String> {
        (from..from + count)
            .map(|number| format!("@user{number}:localhost"))
            .collect()
    };
    let make = |invite: Vec<String>| {
        let body = json!({ "preset": "private_chat", "invite": invite });
        alice.request(Method::POST, "/createRoom").json(&body)
    };
    let (status, body) = answer(make(users(0, 101))).await;
    assert_eq!((status, &body["errcode"]), (400, &json!("M_BAD_JSON")));
    let room = succeeds(make(users(0, 20))).await;
    let room = room["room_id"].as_str().unwrap();
    assert_eq!(refused([make(users(0, 20))].into_iter()).await, 1);
    let path = |user: &String| {
        let (room, user) = (encoded(room), encoded(user));
        format!("/rooms/{room}/state/m.room.member/{user}")
    };
    let invite = json!({ "membership": "invite" });
    let by_state = users(50, 20);
    let by_state = by_state
        .iter()
        .map(|user| alice.request(Method::PUT, &path(user)).json(&invite));
    assert!(refused(by_state).await > 0);
}

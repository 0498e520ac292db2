//! What is no request, and servers that send no mail.

use reqwest::Method;
use serde_json::{Value, json};

use super::World;
use crate::harness::{Engine, Server, refused};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_refused_and_send_nothing() {
    let world = World::start().await;
    let alice = world.server.register("alice").await;
    let good = json!({ "client_secret": "s", "email": "a@example.org", "send_attempt": 1 });
    for path in ["/register", "/account/password", "/account/3pid"] {
        let path = format!("{path}/email/requestToken");
        for (field, wrong) in [
            ("client_secret", json!("")),
            ("client_secret", json!("a b")),
            ("client_secret", json!("a".repeat(256))),
            ("email", json!("nobody")),
            ("email", json!("a@example.org\r\nBcc: b@example.org")),
            ("email", json!("a@example.org,b@example.org")),
            ("email", json!("a".repeat(300) + "@example.org")),
            ("next_link", json!("javascript:alert(1)")),
        ] {
            let mut body = good.clone();
            body[field] = wrong;
            refused(world.post(&path, &body), 400, "M_INVALID_PARAM").await;
        }
        for (field, wrong) in [
            ("send_attempt", json!(-1)),
            ("send_attempt", json!("1")),
            ("email", json!(1)),
            ("client_secret", Value::Null),
        ] {
            let mut body = good.clone();
            body[field] = wrong;
            refused(world.post(&path, &body), 400, "M_BAD_JSON").await;
        }
        refused(world.post(&path, &json!({})), 400, "M_BAD_JSON").await;
    }
    let phone =
        json!({ "client_secret": "s", "country": "RO", "phone_number": "0700", "send_attempt": 1 });
    refused(
        world.post("/register/msisdn/requestToken", &phone),
        403,
        "M_THREEPID_DENIED",
    )
    .await;
    refused(
        world.post("/account/password/msisdn/requestToken", &phone),
        403,
        "M_THREEPID_DENIED",
    )
    .await;
    let path = "/account/3pid/msisdn/requestToken";
    refused(
        world.post(path, &phone),
        400,
        "M_THREEPID_MEDIUM_NOT_SUPPORTED",
    )
    .await;
    let post = |path: &str, body: Value| alice.request(Method::POST, path).json(&body);
    let made_up = json!({ "sid": "1.x", "client_secret": "s" });
    refused(
        post("/account/3pid/add", made_up.clone()),
        400,
        "M_THREEPID_AUTH_FAILED",
    )
    .await;
    let old = json!({ "three_pid_creds": made_up });
    refused(
        post("/account/3pid", old.clone()),
        403,
        "M_THREEPID_AUTH_FAILED",
    )
    .await;
    refused(post("/account/3pid", json!({})), 400, "M_BAD_JSON").await;
    refused(world.post("/account/3pid", &old), 401, "M_MISSING_TOKEN").await;
    let bound =
        json!({ "sid": "s", "client_secret": "s", "id_server": "a", "id_access_token": "t" });
    refused(
        post("/account/3pid/bind", bound),
        400,
        "M_SERVER_NOT_TRUSTED",
    )
    .await;
    for path in ["/account/3pid/delete", "/account/3pid/unbind"] {
        let fax = json!({ "medium": "fax", "address": "a" });
        refused(post(path, fax), 400, "M_INVALID_PARAM").await;
        for medium in ["email", "msisdn"] {
            let gone = alice
                .post(path, json!({ "medium": medium, "address": "a@b.c" }))
                .await;
            assert_eq!(gone["id_server_unbind_result"], "no-support");
        }
    }
    assert!(world.sink.letters().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_mail_server_the_spec_has_an_error_for_each() {
    let server = Server::start(Engine::Memory).await;
    let alice = server.register("alice").await;
    let body = json!({ "client_secret": "s", "email": "a@example.org", "send_attempt": 1 });
    for (path, status, code) in [
        ("/register", 403, "M_THREEPID_DENIED"),
        ("/account/password", 403, "M_THREEPID_DENIED"),
        ("/account/3pid", 400, "M_THREEPID_MEDIUM_NOT_SUPPORTED"),
    ] {
        let path = format!("/_matrix/client/v3{path}/email/requestToken");
        refused(
            server.request(Method::POST, &path).json(&body),
            status,
            code,
        )
        .await;
    }
    let path = "/_matrix/client/v3/account/password";
    let body = json!({ "new_password": "a new password" });
    refused(
        server.request(Method::POST, path).json(&body),
        401,
        "M_MISSING_TOKEN",
    )
    .await;
    let page = "/_matrix/client/unstable/vatra.email/submit_token?sid=1.x&token=t";
    refused(server.request(Method::GET, page), 404, "M_UNRECOGNIZED").await;
    let capabilities = alice.get("/capabilities").await;
    assert_eq!(
        capabilities["capabilities"]["m.3pid_changes"]["enabled"],
        false
    );
    assert_eq!(alice.get("/account/3pid").await, json!({ "threepids": [] }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_server_sends_strangers_no_letters() {
    let world = World::start_with(Engine::Memory, |config| config.registration.open = false).await;
    let body = json!({ "client_secret": "s", "email": "a@example.org", "send_attempt": 1 });
    let request = world.post("/register/email/requestToken", &body);
    refused(request, 403, "M_THREEPID_DENIED").await;
}

//! What surrounds every request: CORS, unknown paths, discovery, shutdown, two servers beside each other.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::harness::{Engine, Server, answer, both_engines, refused, succeeds};

both_engines!(
    unknown_paths_and_methods_are_unrecognized,
    every_answer_may_be_read_by_a_web_page,
    old_clients_reach_the_classic_paths_as_r0_and_send_their_token_in_the_query,
    the_server_says_that_it_is_ready,
);

async fn unknown_paths_and_methods_are_unrecognized(server: Server) {
    for path in [
        "/",
        "/_matrix/client/v3/nothing",
        "/_matrix/federation/v1/nothing",
    ] {
        refused(server.request(Method::GET, path), 404, "M_UNRECOGNIZED").await;
    }
    let request = server.request(Method::PATCH, "/_matrix/client/v3/login");
    refused(request, 405, "M_UNRECOGNIZED").await;
}

async fn every_answer_may_be_read_by_a_web_page(server: Server) {
    for (method, path) in [
        (Method::GET, "/_matrix/client/versions"),
        (Method::GET, "/_matrix/client/v3/account/whoami"),
        (Method::GET, "/_matrix/client/v3/nothing"),
        (Method::OPTIONS, "/_matrix/client/v3/login"),
        (Method::OPTIONS, "/_matrix/client/v3/nothing"),
    ] {
        let options = method == Method::OPTIONS;
        let answer = server
            .request(method, path)
            .header("origin", "https://app.example")
            .send()
            .await
            .unwrap();
        assert_eq!(
            answer.headers()["access-control-allow-origin"],
            "*",
            "{path}"
        );
        if options {
            assert!(answer.status().is_success(), "{path}");
            let allowed = answer.headers()["access-control-allow-headers"]
                .to_str()
                .unwrap()
                .to_lowercase();
            assert!(allowed.contains("authorization") && allowed.contains("content-type"));
        }
    }
}

async fn old_clients_reach_the_classic_paths_as_r0_and_send_their_token_in_the_query(
    server: Server,
) {
    let alice = server.register("alice").await;
    let path = format!(
        "/_matrix/client/r0/account/whoami?access_token={}",
        alice.token
    );
    assert_eq!(
        succeeds(server.request(Method::GET, &path)).await["user_id"],
        alice.id
    );
    let path = "/_matrix/client/r0/account/whoami";
    refused(server.request(Method::GET, path), 401, "M_MISSING_TOKEN").await;
    let body = refused(
        server.request(Method::GET, path).bearer_auth("no"),
        401,
        "M_UNKNOWN_TOKEN",
    )
    .await;
    assert_eq!(body["soft_logout"], false);
}

async fn the_server_says_that_it_is_ready(server: Server) {
    assert_eq!(
        succeeds(server.request(Method::GET, "/health/ready")).await["ready"],
        true
    );
    succeeds(server.request(Method::GET, "/health/live")).await;
    let versions = succeeds(server.request(Method::GET, "/_matrix/client/versions")).await;
    assert!(
        versions["versions"]
            .as_array()
            .unwrap()
            .contains(&json!("v1.13"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_in_one_process_share_nothing() {
    let one = Server::start(Engine::Memory).await;
    let two = Server::start(Engine::Memory).await;
    let alice = one.register("alice").await;
    let path = "/_matrix/client/v3/account/whoami";
    refused(
        two.request(Method::GET, path).bearer_auth(&alice.token),
        401,
        "M_UNKNOWN_TOKEN",
    )
    .await;
    two.register("alice").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_and_tokens_survive_a_restart() {
    let mut server = Server::start(Engine::RocksDb).await;
    let alice = server.register("alice").await;
    server.restart().await;
    let alice = alice.moved_to(&server);
    assert_eq!(
        alice.get("/account/whoami").await["device_id"],
        alice.device.as_str()
    );
    assert_eq!(server.login("alice").await.id, alice.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_the_same_data_is_refused_in_words() {
    let server = Server::start(Engine::RocksDb).await;
    let error = vatra::server::open_engine(server.config())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("another vatra is using"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_takes_less_than_seconds_though_connections_are_kept_alive() {
    let mut server = Server::start(Engine::Memory).await;
    let alice = server.register("alice").await;
    alice.get("/account/whoami").await;
    let start = Instant::now();
    server.stop().await;
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_logins_are_told_when_to_come_back() {
    let server =
        Server::start_with(Engine::Memory, |config| config.rate_limits.enabled = true).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_limited_whatever_names_it_tries_and_a_trusted_proxy_names_the_address() {
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
    let mut server =
        Server::start_with(Engine::Memory, |config| config.rate_limits.enabled = true).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_token_does_not_keep_anyone_from_logging_in() {
    let server = Server::start(Engine::Memory).await;
    server.register("alice").await;
    let body = json!({ "type": "m.login.password", "user": "alice", "password": crate::harness::PASSWORD });
    let request = server
        .request(Method::POST, "/_matrix/client/v3/login")
        .bearer_auth("stale");
    let (status, body) = answer(request.json(&body)).await;
    assert_eq!(status, 200, "{body}");
}

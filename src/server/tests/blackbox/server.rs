//! What surrounds every request: CORS, unknown paths, discovery, shutdown, two servers beside each other.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::json;
use vatra_store::{MemoryEngine, testing::FaultyEngine};
use vatra_store_rocksdb::{RocksEngine, Settings};

use crate::harness::{Engine, Server, answer, both_engines, encoded, refused, succeeds};

both_engines!(
    unknown_paths_and_methods_are_unrecognized,
    every_answer_may_be_read_by_a_web_page,
    old_clients_reach_the_classic_paths_as_r0_and_send_their_token_in_the_query,
    the_server_says_that_it_is_ready,
    a_poll_writes_nothing,
);

async fn unknown_paths_and_methods_are_unrecognized(server: Server) {
    for path in [
        "/nothing",
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

async fn a_poll_writes_nothing(server: Server) {
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let since = alice.sync(None).await["next_batch"].clone();
    bob.send(&room, "hello").await;
    // When each of them was last seen is written once, beside their first requests.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let store = &server.running().app.store;
    let before = store.stats().batches;
    for since in [None, since.as_str()] {
        let sync = alice.sync(since).await;
        assert!(sync["rooms"]["join"][&room].is_object(), "{sync}");
    }
    assert_eq!(store.stats().batches, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_page_tells_of_requests_polls_commits_and_caches() {
    let server = Server::start_with(Engine::RocksDb, |config| {
        config.metrics.listen = "127.0.0.1:0".to_owned();
    })
    .await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let since = alice.sync(None).await["next_batch"].clone();
    let path = format!("/sync?timeout=20000&since={}", since.as_str().unwrap());
    let poll = tokio::spawn(succeeds(alice.request(Method::GET, &path)));
    let url = format!("http://{}/metrics", server.running().metrics.unwrap());
    let page = async || reqwest::get(&url).await.unwrap().text().await.unwrap();
    let begin = Instant::now();
    while !page().await.contains("vatra_syncs_waiting 1\n") {
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "{}",
            page().await
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    alice.send(&room, "hello").await;
    poll.await.unwrap();
    let page = page().await;
    for name in [
        "requests_started_total",
        "requests_finished_total{status=\"2xx\"}",
        "commit_groups_total",
        "users_active",
        "cache_events_bytes",
        "cache_state_bytes",
        "cache_rooms",
        "store_block_cache_bytes",
    ] {
        let line = page
            .lines()
            .find(|line| line.starts_with(&format!("vatra_{name} ")));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        assert!(value.is_some_and(|value| value > 0), "{name} in {page}");
    }
    assert!(page.contains("vatra_syncs_waiting 0\n"), "{page}");
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

/// Waits until the server says that it is well.
async fn healed(server: &Server) {
    let begin = Instant::now();
    while answer(server.request(Method::GET, "/health")).await.0 != 200 {
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "it does not heal"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_that_wait_do_not_keep_a_store_that_has_failed_from_healing() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        memory_budget_bytes: 64 << 20,
    };
    let store = RocksEngine::open(folder.path(), &settings).await.unwrap();
    let engine = Arc::new(FaultyEngine::new(Arc::new(store)));
    let server = Server::start_on(engine.clone()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let since = bob.sync(None).await["next_batch"].clone();
    let poll = format!("/sync?timeout=20000&since={}", since.as_str().unwrap());
    let poll = tokio::spawn(succeeds(bob.request(Method::GET, &poll)));
    tokio::time::sleep(Duration::from_millis(300)).await;

    engine.fail_commits.store(true, Ordering::SeqCst);
    let path = format!("/rooms/{}/send/m.room.message/1", encoded(&room));
    let body = json!({ "msgtype": "m.text", "body": "told" });
    let send = || alice.request(Method::PUT, &path).json(&body);
    refused(send(), 503, "M_UNKNOWN").await;
    engine.fail_commits.store(false, Ordering::SeqCst);
    let begin = Instant::now();
    healed(&server).await;
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    // And whoever waits is told what comes then.
    succeeds(send()).await;
    let told = poll.await.unwrap();
    let events = &told["rooms"]["join"][&room]["timeline"]["events"];
    assert_eq!(events[0]["content"]["body"], "told", "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_takes_no_writes_reads_are_served_and_health_is_red_until_it_does() {
    let engine = Arc::new(FaultyEngine::new(Arc::new(MemoryEngine::new())));
    let server = Server::start_on(engine.clone()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    alice.sync(None).await;
    let since = bob.sync(None).await["next_batch"].clone();
    let since = since.as_str().unwrap();
    alice.send(&room, "before").await;

    engine.fail_commits.store(true, Ordering::SeqCst);
    engine.fail_reopen.store(true, Ordering::SeqCst);
    let path = format!("/rooms/{}/send/m.room.message/1", encoded(&room));
    let send = || {
        let body = json!({ "msgtype": "m.text", "body": "meanwhile" });
        alice.request(Method::PUT, &path).json(&body)
    };
    for _ in 0..3 {
        refused(send(), 503, "M_UNKNOWN").await;
        for path in ["/health", "/health/ready"] {
            let (status, health) = answer(server.request(Method::GET, path)).await;
            let reason = health["read_only"].as_str().unwrap_or_default();
            assert!(status == 503 && reason.contains("No space"), "{health}");
        }
        succeeds(server.request(Method::GET, "/health/live")).await;
        // Being away is news that cannot be told now: the polls are answered all the same.
        alice.get("/sync?timeout=0&set_presence=unavailable").await;
        let sync = bob.sync(Some(since)).await;
        let events = &sync["rooms"]["join"][&room]["timeline"]["events"];
        assert_eq!(events[0]["content"]["body"], "before", "{sync}");
        let messages = format!("/rooms/{}/messages?dir=b", encoded(&room));
        bob.get(&messages).await;
    }
    let presence = format!("/presence/{}/status", encoded(&alice.id));
    assert_eq!(bob.get(&presence).await["presence"], "online");
    let body = json!({ "presence": "unavailable" });
    let own = alice.request(Method::PUT, &presence).json(&body);
    refused(own, 503, "M_UNKNOWN").await;

    engine.fail_commits.store(false, Ordering::SeqCst);
    engine.fail_reopen.store(false, Ordering::SeqCst);
    healed(&server).await;
    succeeds(send()).await;
    alice.get("/sync?timeout=0&set_presence=unavailable").await;
    let sync = bob.sync(Some(since)).await;
    let told = sync["presence"]["events"].as_array().unwrap();
    let away = |event: &serde_json::Value| {
        event["sender"] == alice.id.as_str() && event["content"]["presence"] == "unavailable"
    };
    assert!(told.iter().any(away), "{sync}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_no_file_can_be_stored_uploads_are_refused_and_health_is_red_until_one_can() {
    let server = Server::start(Engine::Memory).await;
    let alice = server.register("alice").await;
    let upload = || {
        let upload = alice.request(Method::POST, "/_matrix/media/v3/upload");
        upload.body("a picture")
    };
    succeeds(upload()).await;
    // What a disk refuses, whoever runs the test: files where there is no folder.
    let place = server.config().media_dir.join("tmp");
    std::fs::remove_dir(&place).unwrap();
    std::fs::write(&place, "").unwrap();
    succeeds(server.request(Method::GET, "/health")).await;
    for _ in 0..2 {
        refused(upload(), 503, "M_UNKNOWN").await;
        let (status, health) = answer(server.request(Method::GET, "/health/ready")).await;
        let reason = health["media"].as_str().unwrap_or_default();
        assert!(
            status == 503 && reason.contains("media storage"),
            "{health}"
        );
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    let (status, health) = answer(server.request(Method::GET, "/health/ready")).await;
    assert_eq!(status, 503, "trying it has not helped: {health}");
    alice.create_room(json!({})).await;
    std::fs::remove_file(&place).unwrap();
    std::fs::create_dir(&place).unwrap();
    healed(&server).await;
    succeeds(upload()).await;
}

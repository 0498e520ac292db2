//! Phones: what their gateways are told, and what is listed for their owners.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Json, Router, extract::State, routing::post};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    Engine, PASSWORD, Server, User, answer, both_engines, encoded, refused, succeeds,
};

both_engines!(
    pushers_are_listed_changed_and_deleted,
    pushers_go_with_their_session,
    notifications_are_listed_page_by_page,
    wrong_pushers_and_questions_are_refused,
);

/// A gateway on this machine.
struct Gateway {
    got: Arc<Mutex<Vec<Value>>>,
    url: String,
}

type Got = Arc<Mutex<Vec<Value>>>;

async fn take(State(got): State<Got>, Json(body): Json<Value>) -> Json<Value> {
    got.lock().unwrap().push(body["notification"].clone());
    Json(json!({ "rejected": [] }))
}

impl Gateway {
    async fn start() -> Self {
        let got = Got::default();
        let router = Router::new()
            .route("/_matrix/push/v1/notify", post(take))
            .with_state(got.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "http://{}/_matrix/push/v1/notify",
            listener.local_addr().unwrap()
        );
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { got, url }
    }

    fn got(&self) -> Vec<Value> {
        self.got.lock().unwrap().clone()
    }

    /// What came, once it is that many.
    async fn got_many(&self, count: usize) -> Vec<Value> {
        for _ in 0..500 {
            if self.got().len() >= count {
                return self.got();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?}", self.got());
    }
}

fn pusher(url: &str, pushkey: &str) -> Value {
    json!({
        "kind": "http", "app_id": "org.example.app", "pushkey": pushkey, "app_display_name": "App",
        "device_display_name": "Phone", "profile_tag": "tag", "lang": "en", "data": { "url": url },
    })
}

const DUMMY: &str = "https://push.example/_matrix/push/v1/notify";

async fn set(user: &User, body: Value) {
    assert_eq!(user.post("/pushers/set", body).await, json!({}));
}

async fn pushkeys(user: &User) -> Vec<String> {
    let listed = user.get("/pushers").await;
    let pushers = listed["pushers"].as_array().unwrap().iter();
    pushers
        .map(|it| it["pushkey"].as_str().unwrap().to_owned())
        .collect()
}

async fn with_loopback(engine: Engine) -> Server {
    Server::start_with(engine, |config| config.push.allow_loopback = true).await
}

/// Alice and Bob in a room.
async fn two(server: &Server) -> (User, User, String) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    (alice, bob, room)
}

async fn read(user: &User, room: &str, event: &str) {
    let path = format!("/rooms/{}/receipt/m.read/{}", encoded(room), encoded(event));
    user.post(&path, json!({})).await;
}

async fn pushers_are_listed_changed_and_deleted(server: Server) {
    let alice = server.register("alice").await;
    assert_eq!(alice.get("/pushers").await, json!({ "pushers": [] }));
    let data = json!({ "url": DUMMY, "format": "event_id_only", "own": { "a": 1 } });
    let mut asked = pusher(DUMMY, "one");
    asked["data"] = data;
    set(&alice, asked.clone()).await;
    set(&alice, pusher(DUMMY, "two")).await;
    let listed = alice.get("/pushers").await;
    assert_eq!(listed["pushers"][0], asked);
    asked["lang"] = json!("ro");
    set(&alice, asked.clone()).await;
    assert_eq!(alice.get("/pushers").await["pushers"][0], asked);
    let delete = json!({ "kind": null, "app_id": "org.example.app", "pushkey": "one" });
    set(&alice, delete.clone()).await;
    assert_eq!(pushkeys(&alice).await, ["two"]);
    set(&alice, delete).await;
    // A phone that changes hands.
    let bob = server.register("bob").await;
    let mut beside = pusher(DUMMY, "two");
    beside["append"] = json!(true);
    set(&bob, beside).await;
    assert_eq!(pushkeys(&alice).await, ["two"]);
    set(&bob, pusher(DUMMY, "two")).await;
    assert!(pushkeys(&alice).await.is_empty());
    assert_eq!(pushkeys(&bob).await, ["two"]);
}

async fn pushers_go_with_their_session(server: Server) {
    let phone = server.register("alice").await;
    let mut sessions = Vec::new();
    for name in ["a", "b", "c"] {
        let session = server.login("alice").await;
        set(&session, pusher(DUMMY, name)).await;
        sessions.push(session);
    }
    set(&phone, pusher(DUMMY, "phone")).await;
    assert_eq!(pushkeys(&phone).await, ["a", "b", "c", "phone"]);
    sessions[0].post("/logout", json!({})).await;
    assert_eq!(pushkeys(&phone).await, ["b", "c", "phone"]);
    let auth = |password: &str| {
        json!({ "type": "m.login.password", "password": password,
            "identifier": { "type": "m.id.user", "user": "alice" } })
    };
    let path = format!("/devices/{}", sessions[1].device);
    let request = phone.request(Method::DELETE, &path);
    succeeds(request.json(&json!({ "auth": auth(PASSWORD) }))).await;
    assert_eq!(pushkeys(&phone).await, ["c", "phone"]);
    let change = json!({ "new_password": "another long one", "auth": auth(PASSWORD) });
    phone.post("/account/password", change).await;
    assert_eq!(pushkeys(&phone).await, ["phone"]);
    phone.post("/logout/all", json!({})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phone_is_told_of_messages_and_of_what_is_read_elsewhere() {
    let server = with_loopback(Engine::Memory).await;
    let (alice, bob, room) = two(&server).await;
    let (full, ids) = (Gateway::start().await, Gateway::start().await);
    set(&bob, pusher(&full.url, "full")).await;
    let mut short = pusher(&ids.url, "ids");
    short["data"]["format"] = json!("event_id_only");
    set(&bob, short).await;
    let event = alice.send(&room, "hello").await;
    let got = full.got_many(1).await[0].clone();
    assert_eq!(
        (&got["event_id"], &got["room_id"], &got["content"]["body"]),
        (&json!(event), &json!(room), &json!("hello"))
    );
    assert_eq!(got["sender_display_name"], "alice");
    assert_eq!(got["counts"], json!({ "unread": 1 }));
    assert_eq!(got["devices"][0]["pushkey"], "full");
    assert!(got["devices"][0]["data"].get("url").is_none());
    let got = ids.got_many(1).await[0].clone();
    assert_eq!(got["event_id"], json!(event));
    assert!(got.get("content").is_none() && got.get("sender").is_none());
    read(&bob, &room, &event).await;
    for gateway in [&full, &ids] {
        let got = gateway.got_many(2).await[1].clone();
        assert_eq!(got["counts"], json!({ "unread": 0 }));
        assert!(got.get("event_id").is_none());
    }
    // Nothing more, once the session is over.
    bob.post("/logout", json!({})).await;
    alice.send(&room, "gone").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((full.got().len(), ids.got().len()), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invite_is_pushed() {
    let server = with_loopback(Engine::RocksDb).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let gateway = Gateway::start().await;
    set(&bob, pusher(&gateway.url, "phone")).await;
    let room = alice.create_room(json!({ "name": "Hearth" })).await;
    alice.invite(&room, &bob).await;
    let got = gateway.got_many(1).await[0].clone();
    assert_eq!(got["type"], "m.room.member");
    assert_eq!(
        (&got["user_is_target"], &got["room_name"]),
        (&json!(true), &json!("Hearth"))
    );
    bob.join(&room).await;
    assert_eq!(gateway.got_many(2).await[1]["counts"]["unread"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushers_and_what_they_were_told_survive_a_restart() {
    let mut server = with_loopback(Engine::RocksDb).await;
    let (alice, bob, room) = two(&server).await;
    let gateway = Gateway::start().await;
    set(&bob, pusher(&gateway.url, "phone")).await;
    alice.send(&room, "before").await;
    gateway.got_many(1).await;
    server.restart().await;
    let (alice, bob) = (alice.moved_to(&server), bob.moved_to(&server));
    assert_eq!(pushkeys(&bob).await, ["phone"]);
    alice.send(&room, "after").await;
    let got = gateway.got_many(2).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(gateway.got().len(), 2, "{:?}", gateway.got());
    assert_eq!(
        (&got[1]["content"]["body"], &got[1]["counts"]["unread"]),
        (&json!("after"), &json!(2))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_on_this_machine_is_not_connected_to_unless_the_operator_says_so() {
    let mut server = Server::start_with(Engine::RocksDb, |config| {
        config.push.allowed_networks = vec!["10.213.0.0/16".to_owned()];
    })
    .await;
    let (alice, bob, room) = two(&server).await;
    let gateway = Gateway::start().await;
    // Taken, since there may be a gateway without TLS; but its address is judged when it is connected to, also under a name.
    set(&bob, pusher(&gateway.url, "phone")).await;
    let named = gateway.url.replace("127.0.0.1", "localhost");
    set(&bob, pusher(&named, "named")).await;
    set(&bob, pusher(&gateway.url.replace("http:", "https:"), "tls")).await;
    alice.send(&room, "hello").await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(gateway.got().is_empty());
    server
        .replace(|config| config.push.allow_loopback = true)
        .await;
    let alice = alice.moved_to(&server);
    alice.send(&room, "again").await;
    let got = gateway.got_many(2).await;
    assert_eq!(got[0]["content"]["body"], "hello");
    // Without the setting, TLS is needed.
    server
        .replace(|config| config.push = vatra::config::Push::default())
        .await;
    let bob = bob.moved_to(&server);
    let request = bob.request(Method::POST, "/pushers/set");
    refused(
        request.json(&pusher(&gateway.url, "phone")),
        400,
        "M_INVALID_PARAM",
    )
    .await;
}

async fn notifications_are_listed_page_by_page(server: Server) {
    let (alice, bob, room) = two(&server).await;
    let other = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&other).await;
    let mut sent = Vec::new();
    for number in 0..5 {
        let room = if number % 2 == 0 { &room } else { &other };
        sent.push(alice.send(room, &format!("message {number}")).await);
    }
    bob.send(&room, "of bob").await;
    read(&bob, &room, &sent[2]).await;
    let all = bob.get("/notifications").await;
    assert!(all.get("next_token").is_none(), "{all}");
    let listed = all["notifications"].as_array().unwrap();
    let of = |name: &str| -> Vec<Value> { listed.iter().map(|it| it[name].clone()).collect() };
    let ids: Vec<Value> = listed
        .iter()
        .map(|it| it["event"]["event_id"].clone())
        .collect();
    let newest_first: Vec<Value> = sent.iter().rev().map(|id| json!(id)).collect();
    assert_eq!(ids, newest_first);
    assert_eq!(of("read"), [false, false, true, false, true]);
    assert_eq!(of("room_id")[..2], [json!(room), json!(other)]);
    assert_eq!(listed[0]["actions"][0], "notify");
    assert_eq!(listed[0]["ts"], listed[0]["event"]["origin_server_ts"]);
    assert!(listed[0]["event"].get("room_id").is_none());

    let (mut from, mut paged) = (String::new(), Vec::new());
    for _ in 0..5 {
        let page = bob.get(&format!("/notifications?limit=2{from}")).await;
        for it in page["notifications"].as_array().unwrap() {
            paged.push(it["event"]["event_id"].clone());
        }
        match page["next_token"].as_str() {
            Some(token) => from = format!("&from={token}"),
            None => break,
        }
    }
    assert_eq!(paged, newest_first);

    assert_eq!(
        bob.get("/notifications?only=highlight").await["notifications"],
        json!([])
    );
    let content =
        json!({ "msgtype": "m.text", "body": "x", "m.mentions": { "user_ids": [bob.id] } });
    let mention = alice
        .send_event(&room, "m.room.message", "m", content)
        .await;
    let found = bob.get("/notifications?only=highlight").await;
    assert_eq!(found["notifications"].as_array().unwrap().len(), 1);
    assert_eq!(
        found["notifications"][0]["event"]["event_id"],
        json!(mention)
    );
    // Of a room that was left nothing is listed.
    bob.post(&format!("/rooms/{}/leave", encoded(&room)), json!({}))
        .await;
    let left = bob.get("/notifications").await;
    assert_eq!(left["notifications"].as_array().unwrap().len(), 2);
    assert_eq!(
        alice.get("/notifications").await["notifications"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

async fn wrong_pushers_and_questions_are_refused(server: Server) {
    let alice = server.register("alice").await;
    let good = pusher(DUMMY, "one");
    for (field, value, code) in [
        ("kind", json!("pigeon"), "M_INVALID_PARAM"),
        ("kind", json!("email"), "M_INVALID_PARAM"),
        ("kind", json!(5), "M_BAD_JSON"),
        ("app_id", json!(null), "M_MISSING_PARAM"),
        ("app_id", json!("x".repeat(65)), "M_INVALID_PARAM"),
        ("pushkey", json!("x".repeat(513)), "M_INVALID_PARAM"),
        ("pushkey", json!([]), "M_BAD_JSON"),
        ("lang", json!(null), "M_MISSING_PARAM"),
        ("app_display_name", json!(null), "M_MISSING_PARAM"),
        ("data", json!(null), "M_MISSING_PARAM"),
        ("data", json!({}), "M_MISSING_PARAM"),
        ("data", json!({ "url": 1 }), "M_INVALID_PARAM"),
        ("data", json!({ "url": "no url" }), "M_INVALID_PARAM"),
        (
            "data",
            json!({ "url": "http://push.example/_matrix/push/v1/notify" }),
            "M_INVALID_PARAM",
        ),
        (
            "data",
            json!({ "url": "https://push.example/elsewhere" }),
            "M_INVALID_PARAM",
        ),
        (
            "data",
            json!({ "url": DUMMY, "x": "y".repeat(5_000) }),
            "M_INVALID_PARAM",
        ),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let request = alice.request(Method::POST, "/pushers/set").json(&body);
        refused(request, 400, code).await;
    }
    let mut body = good.clone();
    body.as_object_mut().unwrap().remove("kind");
    let request = alice.request(Method::POST, "/pushers/set").json(&body);
    refused(request, 400, "M_MISSING_PARAM").await;
    assert!(pushkeys(&alice).await.is_empty());
    for query in ["from=x", "from=-1", "limit=x", "limit=-5"] {
        let request = alice.request(Method::GET, &format!("/notifications?{query}"));
        refused(request, 400, "M_INVALID_PARAM").await;
    }
    for query in [
        "from=18446744073709551615",
        "limit=0",
        "limit=18446744073709551615",
        "only=x",
    ] {
        let request = alice.request(Method::GET, &format!("/notifications?{query}"));
        let (status, _) = answer(request).await;
        assert_eq!(status, 200, "{query}");
    }
    for path in ["/pushers", "/notifications"] {
        let path = format!("/_matrix/client/v3{path}");
        refused(server.request(Method::GET, &path), 401, "M_MISSING_TOKEN").await;
    }
}

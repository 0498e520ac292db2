//! A service is told what happens, asked what it knows, and may be gone.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Json, Router, extract::Request, response::IntoResponse};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use super::service::{AS_TOKEN, HS_TOKEN, acting, bridge, by_service, does, ghost, start};
use crate::harness::{Engine, Server, User, answer, encoded, refused, succeeds};

/// What a service was asked: method, path with query, body.
type Asked = (Method, String, Value);
/// Makes something in the server before the service answers.
type Makes = Arc<dyn Fn(&str) -> Option<reqwest::RequestBuilder> + Send + Sync>;

/// A real service on this machine.
struct Bridge {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    answers: Arc<Mutex<HashMap<String, (u16, Value)>>>,
    makes: Arc<Mutex<Option<Makes>>>,
    serving: JoinHandle<()>,
}

impl Bridge {
    async fn start() -> Self {
        Self::at("127.0.0.1:0").await
    }

    async fn at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let answers: Arc<Mutex<HashMap<String, (u16, Value)>>> = Arc::default();
        let makes: Arc<Mutex<Option<Makes>>> = Arc::default();
        let (seen, with, making) = (asked.clone(), answers.clone(), makes.clone());
        let serve = move |request: Request| {
            let (seen, with, making) = (seen.clone(), with.clone(), making.clone());
            async move {
                let (head, body) = request.into_parts();
                let token = format!("Bearer {HS_TOKEN}");
                assert_eq!(head.headers["authorization"], token.as_str());
                let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let path = head.uri.path_and_query().unwrap().to_string();
                let makes = making.lock().unwrap().clone();
                if let Some(made) = makes.and_then(|makes| makes(&path)) {
                    succeeds(made).await;
                }
                seen.lock().unwrap().push((head.method, path.clone(), body));
                let answers = with.lock().unwrap();
                let found = answers.iter().find(|(start, _)| path.starts_with(*start));
                let (status, body) = found.map_or((200, json!({})), |(_, answer)| answer.clone());
                let status = axum::http::StatusCode::from_u16(status).unwrap();
                // The next request is another connection: nobody answers when this is gone.
                (status, [("connection", "close")], Json(body)).into_response()
            }
        };
        let router = Router::new().fallback(serve);
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        });
        Self {
            url,
            asked,
            answers,
            makes,
            serving,
        }
    }

    /// How it answers what begins with a path.
    fn answers(&self, path: &str, status: u16, body: Value) {
        let mut answers = self.answers.lock().unwrap();
        answers.insert(path.to_owned(), (status, body));
    }

    fn makes(
        &self,
        make: impl Fn(&str) -> Option<reqwest::RequestBuilder> + Send + Sync + 'static,
    ) {
        *self.makes.lock().unwrap() = Some(Arc::new(make));
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn transactions(&self) -> Vec<(String, Vec<Value>)> {
        let asked = self.asked().into_iter();
        let told = asked.filter_map(|(_, path, body)| {
            let id = path
                .strip_prefix("/_matrix/app/v1/transactions/")?
                .to_owned();
            Some((id, body["events"].as_array()?.clone()))
        });
        told.collect()
    }

    /// The texts of the messages that it was told, in order.
    fn heard(&self) -> Vec<String> {
        let told = self.transactions().into_iter();
        let events = told.flat_map(|(_, events)| events);
        events
            .filter_map(|event| Some(event["content"]["body"].as_str()?.to_owned()))
            .collect()
    }

    async fn hears(&self, expected: &[&str]) {
        for _ in 0..1_000 {
            if self.heard() == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?} is not {expected:?}", self.heard());
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A room of alice's with one of the service's users.
async fn shared(server: &Server, alice: &User) -> String {
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let user = ghost(server, "irc_heard").await;
    let join = format!("/join/{}", encoded(&room));
    does(server, &user, (Method::POST, &join), json!({})).await;
    room
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_told_in_order_what_is_said_where_its_users_are() {
    let bridge_ = Bridge::start().await;
    let server = start(Engine::Memory, &[&bridge(&bridge_.url)]).await;
    let alice = server.register("alice").await;
    let room = shared(&server, &alice).await;
    let private = alice.create_room(json!({})).await;
    alice.send(&private, "secret").await;
    let texts: Vec<_> = (0..20).map(|number| number.to_string()).collect();
    for text in &texts {
        alice.send(&room, text).await;
    }
    let expected: Vec<_> = texts.iter().map(String::as_str).collect();
    bridge_.hears(&expected).await;
    let told = bridge_.transactions();
    let ids: std::collections::HashSet<_> = told.iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), told.len(), "none was sent twice");
    let member = &told[0].1[0];
    assert_eq!(member["type"], "m.room.member");
    assert_eq!(member["state_key"], "@irc_heard:localhost");
    assert_eq!(member["room_id"], room.as_str());
    // Who is invited is told, wherever.
    let invite = format!("/rooms/{}/invite", encoded(&private));
    alice
        .post(&invite, json!({ "user_id": "@irc_bot:localhost" }))
        .await;
    alice.send(&room, "last").await;
    let mut expected = expected;
    expected.push("last");
    bridge_.hears(&expected).await;
    let told = bridge_
        .transactions()
        .into_iter()
        .flat_map(|(_, events)| events);
    let invited = |event: &Value| event["content"]["membership"] == "invite";
    assert_eq!(told.filter(|event| invited(event)).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_down_holds_up_nobody_and_hears_all_of_it_later_once() {
    let first = Bridge::start().await;
    let address = first.url.strip_prefix("http://").unwrap().to_owned();
    let mut server = start(Engine::RocksDb, &[&bridge(&first.url)]).await;
    let alice = server.register("alice").await;
    let room = shared(&server, &alice).await;
    alice.send(&room, "one").await;
    first.hears(&["one"]).await;
    first.answers("/_matrix/app/v1/transactions", 502, json!({}));
    alice.send(&room, "two").await;
    first.hears(&["one", "two"]).await;
    let refused_as = first.transactions().pop().unwrap();
    drop(first);
    let begun = std::time::Instant::now();
    for number in 0..10 {
        alice.send(&room, &format!("down {number}")).await;
    }
    alice.sync(None).await;
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    server.restart().await;
    let alice = alice.moved_to(&server);
    let second = Bridge::at(&address).await;
    alice.send(&room, "three").await;
    let mut expected = vec!["two".to_owned()];
    expected.extend((0..10).map(|number| format!("down {number}")));
    expected.push("three".to_owned());
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    second.hears(&expected).await;
    let again = second.transactions().remove(0);
    assert_eq!(again.0, refused_as.0, "the same transaction");
    let ids = |events: &[Value]| {
        events
            .iter()
            .map(|it| it["event_id"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&again.1), ids(&refused_as.1), "with the same events");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_asks_whether_it_can_be_reached() {
    let bridge_ = Bridge::start().await;
    let server = start(Engine::Memory, &[&bridge(&bridge_.url)]).await;
    let path = "/_matrix/client/v1/appservice/irc/ping";
    let ping =
        || by_service(&server, Method::POST, path).json(&json!({ "transaction_id": "meow" }));
    let told = succeeds(ping()).await;
    assert!(told["duration_ms"].is_u64(), "{told}");
    let asked = bridge_.asked();
    let expected = (
        Method::POST,
        "/_matrix/app/v1/ping".to_owned(),
        json!({ "transaction_id": "meow" }),
    );
    assert!(asked.contains(&expected), "{asked:?}");
    bridge_.answers(
        "/_matrix/app/v1/ping",
        403,
        json!({ "errcode": "M_FORBIDDEN" }),
    );
    let told = refused(ping(), 502, "M_BAD_STATUS").await;
    assert_eq!(told["status"], 403);
    assert_eq!(told["body"], r#"{"errcode":"M_FORBIDDEN"}"#);
    // Only itself, and only by its own name.
    let other = by_service(
        &server,
        Method::POST,
        "/_matrix/client/v1/appservice/xmpp/ping",
    );
    refused(other.json(&json!({})), 403, "M_FORBIDDEN").await;
    let alice = server.register("alice").await;
    refused(
        alice.request(Method::POST, path).json(&json!({})),
        403,
        "M_FORBIDDEN",
    )
    .await;
    refused(
        server.request(Method::POST, path).json(&json!({})),
        401,
        "M_MISSING_TOKEN",
    )
    .await;
    drop(bridge_);
    tokio::time::sleep(Duration::from_millis(50)).await;
    refused(ping(), 502, "M_CONNECTION_FAILED").await;
    let silent = start(Engine::Memory, &[&bridge("null")]).await;
    let ping = by_service(&silent, Method::POST, path).json(&json!({}));
    refused(ping, 400, "M_URL_NOT_SET").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_makes_users_and_aliases_when_somebody_looks_for_them() {
    let bridge_ = Bridge::start().await;
    let server = start(Engine::Memory, &[&bridge(&bridge_.url)]).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let address = format!("http://{}/_matrix/client/v3", server.running().client);
    let (at, target) = (address.clone(), room.clone());
    bridge_.makes(move |path| {
        let client = reqwest::Client::new();
        if path.ends_with("/users/%40irc_new%3Alocalhost") {
            let body = json!({
                "type": "m.login.application_service", "username": "irc_new", "inhibit_login": true,
            });
            return Some(
                client
                    .post(format!("{at}/register"))
                    .bearer_auth(AS_TOKEN)
                    .json(&body),
            );
        }
        if path.ends_with("/rooms/%23irc_new%3Alocalhost") {
            let url = format!("{at}/directory/room/%23irc_new%3Alocalhost");
            let body = json!({ "room_id": target });
            return Some(client.put(url).bearer_auth(AS_TOKEN).json(&body));
        }
        None
    });
    let path = format!("/rooms/{}/invite", encoded(&room));
    alice
        .post(&path, json!({ "user_id": "@irc_new:localhost" }))
        .await;
    let found = alice.get("/directory/room/%23irc_new%3Alocalhost").await;
    assert_eq!(found["room_id"], room.as_str());
    bridge_.answers("/_matrix/app/v1/users", 404, json!({}));
    bridge_.answers("/_matrix/app/v1/rooms", 404, json!({}));
    bridge_.answers("/users", 404, json!({}));
    bridge_.answers("/rooms", 404, json!({}));
    let invite = alice.request(Method::POST, &path);
    let invite = invite.json(&json!({ "user_id": "@irc_none:localhost" }));
    refused(invite, 404, "M_NOT_FOUND").await;
    let none = alice.request(Method::GET, "/directory/room/%23irc_none%3Alocalhost");
    refused(none, 404, "M_NOT_FOUND").await;
    let join = alice.request(Method::POST, "/join/%23irc_none%3Alocalhost");
    refused(join.json(&json!({})), 404, "M_NOT_FOUND").await;
    // It is not asked for what is not its own, nor for what is there.
    let before = bridge_.asked().len();
    let none = alice.request(Method::GET, "/directory/room/%23none%3Alocalhost");
    refused(none, 404, "M_NOT_FOUND").await;
    alice.get("/directory/room/%23irc_new%3Alocalhost").await;
    let asked: Vec<_> = bridge_.asked().into_iter().skip(before).collect();
    assert!(
        asked.iter().all(|it| it.1.contains("/transactions/")),
        "{asked:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_are_what_their_services_say() {
    let bridge_ = Bridge::start().await;
    let server = start(Engine::Memory, &[&bridge(&bridge_.url)]).await;
    let alice = server.register("alice").await;
    let about = json!({
        "user_fields": ["nick"], "location_fields": ["channel"], "icon": "mxc://a/b", "field_types": {},
        "instances": [{ "network_id": "libera", "desc": "Libera", "fields": {} }],
    });
    bridge_.answers(
        "/_matrix/app/v1/thirdparty/protocol/irc",
        200,
        about.clone(),
    );
    let mut expected = about;
    expected["instances"][0]["instance_id"] = json!("irc|libera");
    assert_eq!(
        alice.get("/thirdparty/protocols").await,
        json!({ "irc": expected })
    );
    assert_eq!(alice.get("/thirdparty/protocol/irc").await, expected);
    let none = alice.request(Method::GET, "/thirdparty/protocol/xmpp");
    refused(none, 404, "M_NOT_FOUND").await;

    let place =
        json!({ "alias": "#irc_a:localhost", "protocol": "irc", "fields": { "channel": "#a" } });
    let list = json!([place, { "alias": "no alias" }, 1]);
    bridge_.answers("/_matrix/app/v1/thirdparty/location", 200, list);
    let user =
        json!({ "userid": "@irc_a:localhost", "protocol": "irc", "fields": { "nick": "a" } });
    bridge_.answers("/_matrix/app/v1/thirdparty/user", 200, json!([user]));
    for (path, expected) in [
        ("location/irc?channel=%23a", json!([place])),
        ("location?alias=%23irc_a%3Alocalhost", json!([place])),
        ("location?alias=%23b%3Alocalhost", json!([])),
        ("user/irc?nick=a", json!([user])),
        ("user?userid=%40irc_a%3Alocalhost", json!([user])),
        ("user?userid=%40b%3Alocalhost", json!([])),
    ] {
        assert_eq!(
            alice.get(&format!("/thirdparty/{path}")).await,
            expected,
            "{path}"
        );
    }
    let asked = bridge_.asked();
    let location = "/_matrix/app/v1/thirdparty/location/irc?channel=%23a";
    assert!(asked.iter().any(|it| it.1 == location), "{asked:?}");
    // A service that answers nonsense has nothing to say.
    bridge_.answers("/_matrix/app/v1/thirdparty/user", 200, json!("nonsense"));
    assert_eq!(alice.get("/thirdparty/user/irc").await, json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_lists_rooms_for_its_networks() {
    let server = start(Engine::Memory, &[&bridge("null")]).await;
    let alice = server.register("alice").await;
    let (bridged, public) = (
        alice.create_room(json!({})).await,
        json!({ "visibility": "public" }),
    );
    let own = alice.create_room(public.clone()).await;
    let path = format!("/directory/list/appservice/libera/{}", encoded(&bridged));
    let put = |body: &Value| by_service(&server, Method::PUT, &path).json(body);
    succeeds(put(&public)).await;
    let listed = async |body: Value| {
        let page = alice.post("/publicRooms", body).await;
        let chunk = page["chunk"].as_array().unwrap().clone();
        let mut ids: Vec<_> = chunk
            .iter()
            .map(|it| it["room_id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids
    };
    let of = |instance: &str| json!({ "third_party_instance_id": instance });
    assert_eq!(listed(json!({})).await, [own.as_str()]);
    assert_eq!(listed(of("irc|libera")).await, [bridged.as_str()]);
    for other in ["irc|other", "xmpp|libera", "libera", "irc|"] {
        assert!(listed(of(other)).await.is_empty(), "{other}");
    }
    let mut both = vec![own, bridged];
    both.sort();
    assert_eq!(listed(json!({ "include_all_networks": true })).await, both);
    refused(
        alice.request(Method::PUT, &path).json(&public),
        403,
        "M_FORBIDDEN",
    )
    .await;
    let unknown = by_service(
        &server,
        Method::PUT,
        "/directory/list/appservice/libera/!none:localhost",
    );
    assert_eq!(answer(unknown.json(&public)).await.0, 403);
    succeeds(put(&json!({ "visibility": "private" }))).await;
    assert!(listed(of("irc|libera")).await.is_empty());
    let bad = acting(&server, Method::PUT, &path, "@irc_bot:localhost");
    refused(
        bad.json(&json!({ "visibility": "secret" })),
        400,
        "M_INVALID_PARAM",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_hears_who_types_if_it_wants_to() {
    for (wants, extra) in [(true, "receive_ephemeral: true\n"), (false, "")] {
        let bridge_ = Bridge::start().await;
        let registration = bridge(&bridge_.url).replace("protocols", &format!("{extra}protocols"));
        let server = start(Engine::Memory, &[&registration]).await;
        let alice = server.register("alice").await;
        let room = shared(&server, &alice).await;
        let typing = format!("/rooms/{}/typing/{}", encoded(&room), encoded(&alice.id));
        let body = json!({ "typing": true, "timeout": 30_000 });
        alice.put(&typing, body).await;
        let heard = || {
            let asked = bridge_.asked().into_iter();
            let units = asked.filter_map(|(_, _, body)| body["ephemeral"].as_array().cloned());
            units.flatten().find(|unit| unit["type"] == "m.typing")
        };
        for _ in 0..if wants { 500 } else { 10 } {
            if heard().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let expected = json!({
            "type": "m.typing", "room_id": room, "content": { "user_ids": [alice.id] },
        });
        assert_eq!(heard(), wants.then_some(expected));
    }
}

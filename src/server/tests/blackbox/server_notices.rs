//! What the server says to its users itself. <https://spec.matrix.org/v1.19/client-server-api/#server-notices>

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{
    harness::{Engine, PASSWORD, Server, User, encoded, on_both_engines, refused, succeeds},
    moderation::admin,
};

on_both_engines!(
    a_notice_comes_in_a_room_that_is_tagged_and_cannot_be_refused,
    only_admins_send_notices_and_only_to_users_of_this_server,
    a_server_without_notices_knows_no_such_request,
);

const SEND: &str = "/_synapse/admin/v1/send_server_notice";

async fn server(engine: Engine) -> Server {
    Server::start_with(engine, |config| {
        config.server_notices.localpart = "server".to_owned();
        config.server_notices.display_name = "The Server".to_owned();
    })
    .await
}

fn notice(to: &User, body: &str) -> Value {
    json!({ "user_id": to.id, "content": { "msgtype": "m.text", "body": body } })
}

/// The only room in a section of /sync.
async fn room_in(user: &User, section: &str) -> String {
    let sync = user.sync(None).await;
    let rooms = sync["rooms"][section].as_object().unwrap();
    assert_eq!(rooms.len(), 1);
    rooms.keys().next().unwrap().clone()
}

async fn a_notice_comes_in_a_room_that_is_tagged_and_cannot_be_refused(engine: Engine) {
    let server = server(engine).await;
    let (root, alice) = (admin(&server, "root").await, server.register("alice").await);
    let sent = root.post(SEND, notice(&alice, "hello")).await;
    let room = room_in(&alice, "invite").await;
    let at = encoded(&room);
    let sync = alice.sync(None).await;
    let state = &sync["rooms"]["invite"][&room]["invite_state"]["events"];
    assert_eq!(state[0]["sender"], "@server:localhost");
    assert!(state.to_string().contains("The Server"));
    let refusals: [(Method, String, Value); 3] = [
        (Method::POST, format!("/rooms/{at}/leave"), json!({})),
        (
            Method::POST,
            format!("/rooms/{at}/kick"),
            json!({ "user_id": alice.id }),
        ),
        (
            Method::PUT,
            format!("/rooms/{at}/state/m.room.member/{}", encoded(&alice.id)),
            json!({ "membership": "leave" }),
        ),
    ];
    for (method, path, body) in refusals {
        let request = alice.request(method, &path).json(&body);
        refused(request, 403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM").await;
    }
    alice.join(&room).await;
    let sync = alice.sync(None).await;
    let joined = &sync["rooms"]["join"][&room];
    let events = joined["timeline"]["events"].as_array().unwrap();
    assert!(
        events
            .iter()
            .any(|event| event["event_id"] == sent["event_id"])
    );
    let data = &joined["account_data"]["events"][0]["content"];
    assert_eq!(data, &json!({ "tags": { "m.server_notice": {} } }));
    // Nobody but the server speaks there.
    let path = format!("/rooms/{at}/send/m.room.message/1");
    let message = alice
        .request(Method::PUT, &path)
        .json(&json!({ "body": "hi" }));
    refused(message, 403, "M_FORBIDDEN").await;
    // She may leave, and is invited to the same room again, once.
    alice.post(&format!("/rooms/{at}/leave"), json!({})).await;
    let once = format!("{SEND}/txn");
    let first = root.put(&once, notice(&alice, "again")).await;
    assert_eq!(root.put(&once, notice(&alice, "again")).await, first);
    assert_eq!(room_in(&alice, "invite").await, room);
    // Who ends their account leaves that room too.
    let auth = json!({
        "type": "m.login.password", "password": PASSWORD,
        "identifier": { "type": "m.id.user", "user": alice.id },
    });
    alice
        .post("/account/deactivate", json!({ "auth": auth }))
        .await;
    let request = root
        .request(Method::POST, SEND)
        .json(&notice(&alice, "gone?"));
    refused(request, 404, "M_NOT_FOUND").await;
}

async fn only_admins_send_notices_and_only_to_users_of_this_server(engine: Engine) {
    let server = server(engine).await;
    let (root, alice) = (admin(&server, "root").await, server.register("alice").await);
    let by = |user: &User, body: Value| -> RequestBuilder {
        user.request(Method::POST, SEND).json(&body)
    };
    refused(alice.request(Method::POST, SEND), 403, "M_FORBIDDEN").await;
    refused(by(&alice, notice(&root, "hi")), 403, "M_FORBIDDEN").await;
    refused(server.request(Method::POST, SEND), 401, "M_MISSING_TOKEN").await;
    for body in [
        json!({}),
        json!({ "user_id": alice.id }),
        json!({ "user_id": alice.id, "content": "hello" }),
        json!({ "user_id": 1, "content": {} }),
        json!({ "user_id": alice.id, "content": { "n": 1.5 } }),
    ] {
        refused(by(&root, body), 400, "M_BAD_JSON").await;
    }
    let to = |id: &str| json!({ "user_id": id, "content": { "body": "hi" } });
    refused(by(&root, to("@nobody:localhost")), 404, "M_NOT_FOUND").await;
    refused(
        by(&root, to("@alice:elsewhere.example")),
        400,
        "M_INVALID_PARAM",
    )
    .await;
    refused(by(&root, to("@server:localhost")), 400, "M_INVALID_PARAM").await;
    let large = json!({ "user_id": alice.id, "content": { "body": "a".repeat(70_000) } });
    refused(by(&root, large), 413, "M_TOO_LARGE").await;
    // Its name is taken.
    let body =
        json!({ "username": "server", "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
    let request = server
        .request(Method::POST, "/_matrix/client/v3/register")
        .json(&body);
    refused(request, 400, "M_USER_IN_USE").await;
    // Two notices at once make one room.
    let bob = server.register("bob").await;
    let (one, two) = tokio::join!(
        succeeds(by(&root, notice(&bob, "one"))),
        succeeds(by(&root, notice(&bob, "two")))
    );
    assert_ne!(one["event_id"], two["event_id"]);
    room_in(&bob, "invite").await;
}

async fn a_server_without_notices_knows_no_such_request(engine: Engine) {
    let server = Server::start(engine).await;
    let (root, alice) = (admin(&server, "root").await, server.register("alice").await);
    let request = root.request(Method::POST, SEND).json(&notice(&alice, "hi"));
    refused(request, 404, "M_UNRECOGNIZED").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_room_outlives_a_restart_and_a_person_is_never_made_to_speak() {
    let mut server = server(Engine::RocksDb).await;
    let (root, alice) = (admin(&server, "root").await, server.register("alice").await);
    root.post(SEND, notice(&alice, "hello")).await;
    let room = room_in(&alice, "invite").await;
    server.restart().await;
    let (root, alice) = (root.moved_to(&server), alice.moved_to(&server));
    root.post(SEND, notice(&alice, "hello again")).await;
    assert_eq!(room_in(&alice, "invite").await, room);
    server.stop().await;
    let mut config = server.config().clone();
    config.server_notices.localpart = "alice".to_owned();
    let engine = vatra::server::open_engine(&config).await.unwrap();
    let Err(error) = vatra::wiring::App::build(config, engine).await else {
        panic!("alice speaks for the server");
    };
    assert!(error.to_string().contains("@alice:localhost"), "{error}");
}

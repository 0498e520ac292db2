//! What is left of people who wanted all they had said erased.
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate>

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    federation::Authority,
    harness::{Engine, PASSWORD, Server, User, both_engines, encoded, refused},
    operate::does,
    shared_rooms::{joins_via, sees},
};

both_engines!(
    who_was_there_reads_on_and_who_comes_later_finds_it_emptied,
    without_erase_everything_stays_to_be_read,
);

async fn deactivate(user: &User, erase: bool) {
    let auth = json!({
        "type": "m.login.password", "password": PASSWORD,
        "identifier": { "type": "m.id.user", "user": user.id },
    });
    let body = json!({ "auth": auth, "erase": erase });
    user.post("/account/deactivate", body).await;
}

/// The bodies of all messages of a room, oldest first; null for those that are empty.
async fn bodies(user: &User, room: &str) -> Vec<Value> {
    let path = format!("/rooms/{}/messages?dir=b&limit=100", encoded(room));
    let page = user.get(&path).await;
    let events = page["chunk"].as_array().unwrap().iter().rev();
    let messages = events.filter(|event| event["type"] == "m.room.message");
    messages
        .map(|event| event["content"]["body"].clone())
        .collect()
}

async fn who_was_there_reads_on_and_who_comes_later_finds_it_emptied(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (carol, dora) = (
        server.register("carol").await,
        server.register("dora").await,
    );
    let name = format!("/profile/{}/displayname", encoded(&bob.id));
    bob.put(&name, json!({ "displayname": "Bob the Secret" }))
        .await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let first = bob.send(&room, "first secret").await;
    let edit = json!({
        "msgtype": "m.text", "body": "* secret edit",
        "m.new_content": { "msgtype": "m.text", "body": "secret edit" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": first },
    });
    bob.send_event(&room, "m.room.message", "edit", edit).await;
    // She is there for a while, he comes late but in time.
    dora.join(&room).await;
    let at = encoded(&room);
    dora.post(&format!("/rooms/{at}/leave"), json!({})).await;
    carol.join(&room).await;
    alice.send(&room, "mine").await;
    let last = bob.send(&room, "last secret").await;
    deactivate(&bob, true).await;
    assert_eq!(alice.get(&name).await, json!({}));

    let late = server.register("late").await;
    late.join(&room).await;
    let whole = [
        json!("first secret"),
        json!("* secret edit"),
        json!("mine"),
        json!("last secret"),
    ];
    assert_eq!(bodies(&alice, &room).await, whole);
    assert_eq!(bodies(&carol, &room).await, whole);
    let emptied = [Value::Null, Value::Null, json!("mine"), Value::Null];
    assert_eq!(bodies(&late, &room).await, emptied);
    // What she could see before she left she still sees.
    assert_eq!(bodies(&dora, &room).await, whole[..2]);
    // Nothing of it is found by another way.
    let threads = format!(
        "/_matrix/client/v1/rooms/{at}/relations/{}",
        encoded(&first)
    );
    let ways = [
        "/sync".to_owned(),
        format!("/rooms/{at}/context/{}", encoded(&last)),
        format!("/rooms/{at}/event/{}", encoded(&first)),
        format!("/rooms/{at}/messages?dir=f&limit=100"),
        format!("/rooms/{at}/members"),
        threads,
    ];
    for way in ways {
        let found = late.get(&way).await.to_string();
        assert!(!found.to_lowercase().contains("secret"), "{way}: {found}");
    }
    let event = alice
        .get(&format!("/rooms/{at}/event/{}", encoded(&first)))
        .await;
    assert_eq!(
        event["unsigned"]["m.relations"]["m.replace"]["content"]["body"],
        "* secret edit"
    );
    // Coming back later, she is one who comes later.
    dora.join(&room).await;
    assert_eq!(bodies(&dora, &room).await[3], Value::Null);
}

async fn without_erase_everything_stays_to_be_read(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    bob.send(&room, "hello").await;
    let body = json!({ "erase": "yes" });
    let request = bob.request(Method::POST, "/account/deactivate").json(&body);
    refused(request, 400, "M_BAD_JSON").await;
    deactivate(&bob, false).await;
    let late = server.register("late").await;
    late.join(&room).await;
    assert_eq!(bodies(&late, &room).await, [json!("hello")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_later_is_given_it_emptied() {
    let authority = Authority::new();
    let (here, there) = (authority.server().await, authority.server().await);
    let (alice, bob) = (here.register("alice").await, here.register("bob").await);
    let friend = there.register("friend").await;
    let mut rooms = Vec::new();
    for _ in 0..2 {
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        bob.send(&room, "a secret").await;
        rooms.push(room);
    }
    // Their server is in one of the rooms in time, and in the other too late.
    joins_via(&friend, &rooms[0], &here).await;
    sees(&alice, &rooms[0], &friend, "join").await;
    deactivate(&bob, true).await;
    joins_via(&friend, &rooms[1], &here).await;
    sees(&alice, &rooms[1], &friend, "join").await;
    assert_eq!(bodies(&friend, &rooms[0]).await, [json!("a secret")]);
    assert_eq!(bodies(&friend, &rooms[1]).await, [Value::Null]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_erases_also_what_is_left_of_an_account_that_has_ended() {
    let mut server = Server::start(Engine::RocksDb).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    bob.send(&room, "hello").await;
    let config = server.config().clone();
    does(&config, &["user", "deactivate", "bob"], "").await;
    let late = server.register("late").await;
    late.join(&room).await;
    assert_eq!(bodies(&late, &room).await, [json!("hello")]);
    does(&config, &["user", "deactivate", "bob", "--erase"], "").await;
    let later = server.register("later").await;
    later.join(&room).await;
    assert_eq!(bodies(&later, &room).await, [Value::Null]);
    server.restart().await;
    let (late, later) = (late.moved_to(&server), later.moved_to(&server));
    assert_eq!(bodies(&later, &room).await, [Value::Null]);
    assert_eq!(bodies(&late, &room).await, [json!("hello")]);
}

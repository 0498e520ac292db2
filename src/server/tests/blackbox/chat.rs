//! The main job: two people meet in a room and talk.

use serde_json::{Value, json};

use crate::harness::{Engine, Server, both_engines, encoded};

both_engines!(
    two_people_meet_and_talk,
    a_repeated_txn_id_returns_the_first_event,
    rooms_made_in_the_same_moment_are_different_rooms,
);

/// The texts of a room's messages in a /sync answer.
fn messages(sync: &Value, room: &str) -> Vec<String> {
    let timeline = &sync["rooms"]["join"][room]["timeline"]["events"];
    let events = timeline.as_array().into_iter().flatten();
    let messages = events.filter(|event| event["type"] == "m.room.message");
    messages
        .map(|event| event["content"]["body"].as_str().unwrap().to_owned())
        .collect()
}

async fn two_people_meet_and_talk(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice
        .create_room(json!({ "name": "by the fire", "preset": "private_chat" }))
        .await;
    alice.invite(&room, &bob).await;
    let invited = bob.sync(None).await;
    assert!(invited["rooms"]["invite"][&room].is_object(), "{invited}");
    bob.join(&room).await;
    let before = bob.sync(None).await["next_batch"]
        .as_str()
        .unwrap()
        .to_owned();
    alice.send(&room, "good evening").await;
    alice.send(&room, "is it warm there?").await;
    let news = bob.sync(Some(&before)).await;
    assert_eq!(
        messages(&news, &room),
        ["good evening", "is it warm there?"]
    );
    let since = news["next_batch"].as_str().unwrap();
    assert!(messages(&bob.sync(Some(since)).await, &room).is_empty());
}

async fn a_repeated_txn_id_returns_the_first_event(server: Server) {
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let content = |body: &str| json!({ "msgtype": "m.text", "body": body });
    let first = alice
        .send_event(&room, "m.room.message", "t1", content("one"))
        .await;
    let again = alice
        .send_event(&room, "m.room.message", "t1", content("two"))
        .await;
    assert_eq!(first, again);
    let other = alice
        .send_event(&room, "m.room.message", "t2", content("two"))
        .await;
    assert_ne!(first, other);
}

/// In room version 12 the room id is the create event's hash, so two equal events would be one room.
async fn rooms_made_in_the_same_moment_are_different_rooms(server: Server) {
    let alice = server.register("alice").await;
    let making = (0..40).map(|_| {
        let alice = alice.clone();
        tokio::spawn(async move { alice.create_room(json!({})).await })
    });
    let mut rooms = std::collections::HashSet::new();
    for room in making.collect::<Vec<_>>() {
        rooms.insert(room.await.unwrap());
    }
    assert_eq!(rooms.len(), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_survives_a_restart() {
    let mut server = Server::start(Engine::RocksDb).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let event = alice.send(&room, "kept").await;
    server.restart().await;
    let alice = alice.moved_to(&server);
    let path = format!("/rooms/{}/event/{}", encoded(&room), encoded(&event));
    assert_eq!(alice.get(&path).await["content"]["body"], "kept");
    alice.send(&room, "and more").await;
    assert_eq!(
        messages(&alice.sync(None).await, &room),
        ["kept", "and more"]
    );
}

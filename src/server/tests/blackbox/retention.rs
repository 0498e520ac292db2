//! Messages that are older than their room keeps them: `m.room.retention`, MSC1763.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Engine, Server, User, encoded, on_both_engines};

on_both_engines!(
    an_old_message_loses_what_it_said_and_nothing_else,
    a_room_is_not_emptied_sooner_than_the_server_allows,
);

async fn server(engine: Engine, least_s: u64) -> Server {
    Server::start_with(engine, |config| {
        config.retention.enabled = true;
        config.retention.interval_s = 1;
        config.retention.allowed_min_lifetime_s = least_s;
    })
    .await
}

async fn keep_for_a_moment(user: &User, room: &str) {
    let path = format!("/rooms/{}/state/m.room.retention", encoded(room));
    user.put(&path, json!({ "max_lifetime": 1 })).await;
}

async fn event(user: &User, room: &str, id: &str) -> Value {
    let path = format!("/rooms/{}/event/{}", encoded(room), encoded(id));
    user.get(&path).await
}

async fn an_old_message_loses_what_it_said_and_nothing_else(engine: Engine) {
    let server = server(engine, 0).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({ "name": "Hearth" })).await;
    let content = json!({ "msgtype": "m.text", "body": "first word" });
    let said = alice
        .send_event(&room, "m.room.message", "t", content)
        .await;
    keep_for_a_moment(&alice, &room).await;
    let newest = alice.send(&room, "last word").await;
    let mut old = event(&alice, &room, &said).await;
    for _ in 0..200 {
        if old["content"] == json!({}) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        old = event(&alice, &room, &said).await;
    }
    assert_eq!(
        (&old["content"], &old["type"]),
        (&json!({}), &json!("m.room.message"))
    );
    assert!(old["unsigned"]["redacted_because"].is_null());
    let kept = event(&alice, &room, &newest).await;
    assert_eq!(kept["content"]["body"], "last word");
    let path = format!("/rooms/{}/messages?dir=f&limit=100", encoded(&room));
    let page = alice.get(&path).await;
    let chunk = page["chunk"].as_array().unwrap();
    let names = chunk.iter().filter(|it| it["content"]["name"] == "Hearth");
    assert_eq!(names.count(), 1, "state stays");
    assert!(!page.to_string().contains("first word"));
    let criteria = json!({ "search_term": "word", "keys": ["content.body"] });
    let body = json!({ "search_categories": { "room_events": criteria } });
    let found = alice.post("/search", body).await;
    let found = &found["search_categories"]["room_events"];
    assert_eq!(found["count"], 1, "{found}");
    alice.send(&room, "the room goes on").await;
}

async fn a_room_is_not_emptied_sooner_than_the_server_allows(engine: Engine) {
    let server = server(engine, 3_600).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let said = alice.send(&room, "word").await;
    keep_for_a_moment(&alice, &room).await;
    alice.send(&room, "newest").await;
    // Two rounds.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let kept = event(&alice, &room, &said).await;
    assert_eq!(kept["content"]["body"], "word");
}

//! What clients of before /sync ask: everything at once, and the stream of what happens.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, User, both_engines, encoded, refused};

both_engines!(
    a_first_answer_holds_every_room_with_state_and_newest_messages,
    a_room_alone_is_shown_as_its_member_or_reader_may_see_it,
    the_stream_tells_everything_once_and_in_order,
    the_stream_waits_for_what_happens,
    the_stream_of_one_room_is_for_those_who_may_read_it,
    one_event_is_found_by_its_id_alone,
    what_is_no_such_request_is_refused,
);

fn bodies(events: &Value) -> Vec<String> {
    let events = events.as_array().unwrap().iter();
    let bodies = events.filter_map(|event| event["content"]["body"].as_str());
    bodies.map(str::to_owned).collect()
}

fn token(value: &Value) -> String {
    encoded(value.as_str().unwrap())
}

/// All that the stream has from a token on, without waiting; and the last token.
async fn rest(user: &User, from: &Value) -> (Vec<Value>, Value) {
    let (mut events, mut from) = (Vec::new(), from.clone());
    loop {
        let path = format!("/events?timeout=0&from={}", token(&from));
        let answer = user.get(&path).await;
        assert_eq!(answer["start"], from);
        let chunk = answer["chunk"].as_array().unwrap();
        let of_rooms = chunk.iter().filter(|event| event["event_id"].is_string());
        let count = of_rooms.clone().count();
        assert!(count <= 100);
        events.extend(of_rooms.cloned());
        from = answer["end"].clone();
        if count == 0 {
            return (events, from);
        }
    }
}

async fn a_first_answer_holds_every_room_with_state_and_newest_messages(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice
        .create_room(json!({ "visibility": "public", "name": "Tea" }))
        .await;
    bob.join(&room).await;
    for count in 0..5 {
        alice.send(&room, &format!("message {count}")).await;
    }
    let left = bob.create_room(json!({})).await;
    bob.send(&left, "bye").await;
    bob.post(&format!("/rooms/{}/leave", encoded(&left)), json!({}))
        .await;
    let invited = alice.create_room(json!({ "invite": [bob.id] })).await;
    let data = format!("/user/{}/account_data/org.example.data", encoded(&bob.id));
    bob.put(&data, json!({ "key": "value" })).await;
    let tag = format!(
        "/user/{}/rooms/{}/tags/work",
        encoded(&bob.id),
        encoded(&room)
    );
    bob.put(&tag, json!({})).await;

    let answer = bob.get("/initialSync?limit=2").await;
    let rooms = answer["rooms"].as_array().unwrap();
    let find = |id: &str| rooms.iter().find(|room| room["room_id"] == id);
    let tea = find(&room).unwrap();
    assert_eq!(
        (&tea["membership"], &tea["visibility"]),
        (&json!("join"), &json!("public"))
    );
    assert_eq!(
        bodies(&tea["messages"]["chunk"]),
        ["message 3", "message 4"]
    );
    assert_eq!(tea["messages"]["chunk"][0]["room_id"], room.as_str());
    let state = tea["state"].as_array().unwrap();
    let named = state
        .iter()
        .find(|event| event["type"] == "m.room.name")
        .unwrap();
    assert_eq!(
        (&named["content"]["name"], &named["room_id"]),
        (&json!("Tea"), &json!(room))
    );
    assert_eq!(tea["account_data"][0]["type"], "m.tag");
    let invite = find(&invited).unwrap();
    assert_eq!(invite["membership"], "invite");
    assert_eq!(invite["invite"]["content"]["membership"], "invite");
    assert_eq!(invite["invite"]["state_key"], bob.id.as_str());
    assert!(invite.get("messages").is_none());
    assert!(find(&left).is_none());
    assert!(answer["presence"].is_array());
    let own = answer["account_data"].as_array().unwrap();
    assert!(own.iter().any(|event| event["type"] == "org.example.data"));
    // Where the messages begin one reads back, where all of it ends the stream goes on.
    let start = token(&tea["messages"]["start"]);
    let path = format!(
        "/rooms/{}/messages?dir=b&limit=2&from={start}",
        encoded(&room)
    );
    assert_eq!(
        bodies(&bob.get(&path).await["chunk"]),
        ["message 2", "message 1"]
    );
    assert!(rest(&bob, &answer["end"]).await.0.is_empty());
    let since = answer["end"].as_str();
    assert!(bob.sync(since).await["rooms"].is_null());

    let answer = bob.get("/initialSync?archived=true").await;
    let rooms = answer["rooms"].as_array().unwrap();
    let gone = rooms
        .iter()
        .find(|room| room["room_id"] == left.as_str())
        .unwrap();
    assert_eq!(gone["membership"], "leave");
    assert!(bodies(&gone["messages"]["chunk"]).contains(&"bye".to_owned()));
}

async fn a_room_alone_is_shown_as_its_member_or_reader_may_see_it(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice
        .create_room(json!({ "preset": "public_chat", "name": "Tea" }))
        .await;
    let path = format!("/rooms/{}/initialSync", encoded(&room));
    refused(bob.request(Method::GET, &path), 403, "M_FORBIDDEN").await;
    bob.join(&room).await;
    for count in 0..3 {
        alice.send(&room, &format!("message {count}")).await;
    }
    let answer = bob.get(&format!("{path}?limit=2")).await;
    assert_eq!(answer["room_id"], room.as_str());
    assert_eq!(
        (&answer["membership"], &answer["visibility"]),
        (&json!("join"), &json!("private"))
    );
    assert_eq!(
        bodies(&answer["messages"]["chunk"]),
        ["message 1", "message 2"]
    );
    assert!(answer["state"].to_string().contains("Tea"));
    alice.send(&room, "later").await;
    let end = token(&answer["messages"]["end"]);
    let after = format!("/rooms/{}/messages?dir=f&from={end}", encoded(&room));
    assert_eq!(bodies(&bob.get(&after).await["chunk"]), ["later"]);
    assert_eq!(
        bodies(&json!(rest(&bob, &answer["messages"]["end"]).await.0)),
        ["later"]
    );
    // Who has left sees it as it was then.
    bob.post(&format!("/rooms/{}/leave", encoded(&room)), json!({}))
        .await;
    alice.send(&room, "among us").await;
    let answer = bob.get(&path).await;
    assert_eq!(answer["membership"], "leave");
    assert_eq!(
        bodies(&answer["messages"]["chunk"]).last().unwrap(),
        "later"
    );

    let open = json!({ "type": "m.room.history_visibility", "state_key": "",
        "content": { "history_visibility": "world_readable" } });
    let open = alice.create_room(json!({ "initial_state": [open] })).await;
    alice.send(&open, "to the world").await;
    let answer = bob
        .get(&format!("/rooms/{}/initialSync", encoded(&open)))
        .await;
    assert!(answer.get("membership").is_none());
    assert_eq!(bodies(&answer["messages"]["chunk"]), ["to the world"]);
}

async fn the_stream_tells_everything_once_and_in_order(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let rooms = [
        alice.create_room(json!({ "invite": [bob.id] })).await,
        alice.create_room(json!({ "preset": "public_chat" })).await,
    ];
    bob.join(&rooms[0]).await;
    let end = bob.get("/initialSync").await["end"].clone();
    alice.send(&rooms[1], "before he comes").await;
    bob.join(&rooms[1]).await;
    // More than an answer holds, and more than a window of /sync.
    let mut said = Vec::new();
    for count in 0..130 {
        let message = format!("message {count}");
        let room = &rooms[usize::from(count % 13 == 0)];
        alice.send(room, &message).await;
        said.push(message);
    }
    let (events, end) = rest(&bob, &end).await;
    assert_eq!(bodies(&json!(events)), said);
    // His own coming is told, with where it was.
    assert_eq!(events[0]["content"]["membership"], "join");
    assert_eq!(events[0]["room_id"], rooms[1].as_str());
    let invited = alice.create_room(json!({ "invite": [bob.id] })).await;
    let (events, end) = rest(&bob, &end).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["room_id"], invited.as_str());
    alice.send(&rooms[0], "the last that he hears").await;
    bob.post(&format!("/rooms/{}/leave", encoded(&rooms[0])), json!({}))
        .await;
    alice.send(&rooms[0], "among us").await;
    let (events, _) = rest(&bob, &end).await;
    assert_eq!(bodies(&json!(events)), ["the last that he hears"]);
    assert_eq!(events[1]["content"]["membership"], "leave");
}

async fn the_stream_waits_for_what_happens(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    // A message to the device is none of the stream's, and does not keep it from waiting.
    let message = json!({ "messages": { bob.id.clone(): { "*": { "n": 1 } } } });
    alice.put("/sendToDevice/org.example.type/1", message).await;
    let end = rest(&bob, &bob.get("/initialSync").await["end"]).await.1;
    let before = Instant::now();
    let path = |end: &Value, timeout: u32| format!("/events?timeout={timeout}&from={}", token(end));
    let answer = bob.get(&path(&end, 700)).await;
    assert!(before.elapsed() >= Duration::from_millis(700));
    assert_eq!(answer["chunk"], json!([]));
    let waiting = {
        let (bob, path) = (bob.clone(), path(&answer["end"], 20_000));
        tokio::spawn(async move { bob.get(&path).await })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    alice.send(&room, "now").await;
    let answer = waiting.await.unwrap();
    assert_eq!(bodies(&answer["chunk"]), ["now"]);
    // Typing names its room here.
    let typing = format!("/rooms/{}/typing/{}", encoded(&room), encoded(&alice.id));
    alice
        .put(&typing, json!({ "typing": true, "timeout": 30_000 }))
        .await;
    let answer = bob.get(&path(&answer["end"], 20_000)).await;
    let typing = answer["chunk"].as_array().unwrap();
    let typing = typing
        .iter()
        .find(|event| event["type"] == "m.typing")
        .unwrap();
    assert_eq!(typing["room_id"], room.as_str());
    // The message to the device is still there for /sync.
    let sync = bob.sync(answer["end"].as_str()).await;
    assert_eq!(sync["to_device"]["events"][0]["type"], "org.example.type");
    // Without a token it begins now, with another server's as well.
    for from in ["", "&from=s1_99999999"] {
        let answer = bob.get(&format!("/events?timeout=0{from}")).await;
        assert!(bodies(&answer["chunk"]).is_empty());
    }
}

async fn the_stream_of_one_room_is_for_those_who_may_read_it(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let open = json!({ "type": "m.room.history_visibility", "state_key": "",
        "content": { "history_visibility": "world_readable" } });
    let open = alice.create_room(json!({ "initial_state": [open] })).await;
    let closed = alice.create_room(json!({})).await;
    let path = |room: &str, more: &str| format!("/events?room_id={}{more}", encoded(room));
    for room in [&*closed, "!nothing:localhost"] {
        refused(
            bob.request(Method::GET, &path(room, "")),
            403,
            "M_FORBIDDEN",
        )
        .await;
    }
    refused(
        bob.request(Method::GET, &path("nonsense", "")),
        400,
        "M_INVALID_PARAM",
    )
    .await;
    let start = bob.get(&path(&open, "&timeout=0")).await["end"].clone();
    alice.send(&open, "hello").await;
    alice.send(&closed, "secret").await;
    let from = format!("&timeout=0&from={}", token(&start));
    let answer = bob.get(&path(&open, &from)).await;
    assert_eq!(bodies(&answer["chunk"]), ["hello"]);
    let waiting = {
        let more = format!("&timeout=20000&from={}", token(&answer["end"]));
        let (bob, path) = (bob.clone(), path(&open, &more));
        tokio::spawn(async move { bob.get(&path).await })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    alice.send(&open, "and again").await;
    assert_eq!(bodies(&waiting.await.unwrap()["chunk"]), ["and again"]);
}

async fn one_event_is_found_by_its_id_alone(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({})).await;
    let event = alice.send(&room, "hello").await;
    let path = format!("/events/{}", encoded(&event));
    let found = alice.get(&path).await;
    assert_eq!(
        (&found["content"]["body"], &found["room_id"]),
        (&json!("hello"), &json!(room))
    );
    let old = format!("/_matrix/client/r0/events/{}", encoded(&event));
    assert_eq!(alice.get(&old).await["event_id"], event.as_str());
    refused(bob.request(Method::GET, &path), 404, "M_NOT_FOUND").await;
    refused(
        alice.request(Method::GET, "/events/%24nothing"),
        404,
        "M_NOT_FOUND",
    )
    .await;
    refused(
        alice.request(Method::GET, "/events/nothing"),
        400,
        "M_INVALID_PARAM",
    )
    .await;
}

async fn what_is_no_such_request_is_refused(server: Server) {
    let alice = server.register("alice").await;
    for path in [
        "/initialSync?limit=many",
        "/initialSync?archived=perhaps",
        "/rooms/nonsense/initialSync",
        "/events?from=nonsense",
        "/events?from=t1&timeout=0",
        "/events?timeout=-1",
        "/events?timeout=soon",
    ] {
        refused(alice.request(Method::GET, path), 400, "M_INVALID_PARAM").await;
    }
    for path in [
        "initialSync",
        "events",
        "events/%24a",
        "rooms/!a%3Ab/initialSync",
    ] {
        let path = format!("/_matrix/client/r0/{path}");
        refused(server.request(Method::GET, &path), 401, "M_MISSING_TOKEN").await;
    }
    // As much as one likes is asked for, and a bounded answer given.
    alice.get("/initialSync?limit=99999999999").await;
    alice.get("/initialSync?limit=0").await;
}

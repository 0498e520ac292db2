//! Typing, receipts, read markers and presence, as others see them in /sync.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    harness::{Server, User, both_engines, encoded, refused},
    rooms::room_path,
};

both_engines!(
    typing_is_seen_and_ends_by_itself,
    receipts_are_seen_by_others_unless_private,
    receipts_of_threads_must_fit,
    receipts_follow_what_an_event_relates_to,
    a_read_marker_is_account_data,
    presence_is_seen_by_those_who_share_a_room,
);

async fn two_in_a_room(server: &Server) -> (User, User, String) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    (alice, bob, room)
}

/// The events of a type in the room's `ephemeral`, and where to go on.
async fn ephemeral(user: &User, room: &str, since: &str, kind: &str) -> (Vec<Value>, String) {
    let path = format!("/sync?timeout=5000&since={}", encoded(since));
    let sync = user.get(&path).await;
    let events = sync["rooms"]["join"][room]["ephemeral"]["events"].clone();
    let events = events.as_array().cloned().unwrap_or_default();
    let found = events.into_iter().filter(|event| event["type"] == kind);
    (found.collect(), token(&sync))
}

fn token(sync: &Value) -> String {
    sync["next_batch"].as_str().unwrap().to_owned()
}

async fn typing_is_seen_and_ends_by_itself(server: Server) {
    let (alice, bob, room) = two_in_a_room(&server).await;
    let since = token(&alice.sync(None).await);
    let path = room_path(&room, &format!("/typing/{}", encoded(&bob.id)));
    bob.put(&path, json!({ "typing": true, "timeout": 300 }))
        .await;
    let (typing, since) = ephemeral(&alice, &room, &since, "m.typing").await;
    assert_eq!(typing[0]["content"]["user_ids"], json!([bob.id]));
    let (typing, _) = ephemeral(&alice, &room, &since, "m.typing").await;
    assert_eq!(typing[0]["content"]["user_ids"], json!([]));
    let forged = alice
        .request(Method::PUT, &path)
        .json(&json!({ "typing": true }));
    refused(forged, 403, "M_FORBIDDEN").await;
}

async fn receipts_are_seen_by_others_unless_private(server: Server) {
    let (alice, bob, room) = two_in_a_room(&server).await;
    let (first, second) = (alice.send(&room, "1").await, alice.send(&room, "2").await);
    let since = token(&alice.sync(None).await);
    let receipt =
        |kind: &str, event: &str| room_path(&room, &format!("/receipt/{kind}/{}", encoded(event)));
    bob.post(&receipt("m.read.private", &second), json!({}))
        .await;
    bob.post(&receipt("m.read", &first), json!({})).await;
    let (receipts, _) = ephemeral(&alice, &room, &since, "m.receipt").await;
    let content = &receipts[0]["content"];
    assert!(
        content[&first]["m.read"][&bob.id]["ts"].is_u64(),
        "{content}"
    );
    assert!(content.get(&second).is_none(), "{content}");
    let (own, _) = ephemeral(&bob, &room, &since, "m.receipt").await;
    assert!(own[0]["content"][&second]["m.read.private"].is_object());
    let unknown = bob.request(Method::POST, &receipt("m.unknown", &first));
    refused(unknown.json(&json!({})), 400, "M_INVALID_PARAM").await;
}

async fn receipts_of_threads_must_fit(server: Server) {
    let (alice, bob, room) = two_in_a_room(&server).await;
    let root = alice.send(&room, "root").await;
    let other = alice.send(&room, "other").await;
    let content = json!({
        "msgtype": "m.text", "body": "reply",
        "m.relates_to": { "rel_type": "m.thread", "event_id": root },
    });
    let reply = alice
        .send_event(&room, "m.room.message", "t", content)
        .await;
    let path = room_path(&room, &format!("/receipt/m.read/{}", encoded(&reply)));
    bob.post(&path, json!({ "thread_id": root })).await;
    for thread in [json!(other), json!(""), json!(5)] {
        let request = bob.request(Method::POST, &path);
        let body = json!({ "thread_id": thread });
        let (status, _) = crate::harness::answer(request.json(&body)).await;
        assert_eq!(status, 400, "{body}");
    }
}

async fn receipts_follow_what_an_event_relates_to(server: Server) {
    let (alice, bob, room) = two_in_a_room(&server).await;
    let root = alice.send(&room, "root").await;
    let main = alice.send(&room, "in the main timeline").await;
    let related = |kind: &str, to: &str| json!({ "msgtype": "m.text", "body": "b", "m.relates_to": { "rel_type": kind, "event_id": to, "key": "+" } });
    let reply = related("m.thread", &root);
    let reply = alice.send_event(&room, "m.room.message", "1", reply).await;
    let reaction = related("m.annotation", &reply);
    let reaction = alice.send_event(&room, "m.reaction", "2", reaction).await;
    let aside = related("m.reference", &root);
    let aside = alice.send_event(&room, "m.room.message", "3", aside).await;
    let liked = related("m.annotation", &aside);
    let liked = alice.send_event(&room, "m.reaction", "4", liked).await;
    for (event, thread, status) in [
        (&aside, "main", 200),
        (&liked, "main", 200),
        (&liked, root.as_str(), 200),
        (&root, "main", 200),
        (&root, root.as_str(), 200),
        (&main, "main", 200),
        (&main, root.as_str(), 400),
        (&main, "$nothread", 400),
        (&reply, root.as_str(), 200),
        (&reply, "main", 400),
        (&reaction, root.as_str(), 200),
        (&reaction, "main", 400),
        (&"$nope".to_owned(), "main", 400),
        (&"$nope".to_owned(), root.as_str(), 400),
    ] {
        let path = room_path(&room, &format!("/receipt/m.read/{}", encoded(event)));
        let request = bob.request(Method::POST, &path);
        let asked = request.json(&json!({ "thread_id": thread }));
        let (told, body) = crate::harness::answer(asked).await;
        assert_eq!(told, status, "{event} in {thread}: {body}");
        assert!(
            status == 200 || body["errcode"] == "M_INVALID_PARAM",
            "{body}"
        );
    }
}

async fn a_read_marker_is_account_data(server: Server) {
    let (alice, _, room) = two_in_a_room(&server).await;
    let id = alice.send(&room, "read").await;
    let markers = json!({ "m.fully_read": id, "m.read": id });
    alice
        .post(&room_path(&room, "/read_markers"), markers)
        .await;
    let sync = alice.sync(None).await;
    let data = &sync["rooms"]["join"][&room]["account_data"]["events"];
    let marker = data
        .as_array()
        .unwrap()
        .iter()
        .find(|event| event["type"] == "m.fully_read");
    assert_eq!(marker.unwrap()["content"]["event_id"], json!(id));
}

async fn presence_is_seen_by_those_who_share_a_room(server: Server) {
    let (alice, bob, _) = two_in_a_room(&server).await;
    let carol = server.register("carol").await;
    let path = format!("/presence/{}/status", encoded(&bob.id));
    let long = json!({ "presence": "online", "status_msg": "x".repeat(2049) });
    let request = bob.request(Method::PUT, &path).json(&long);
    refused(request, 400, "M_BAD_JSON").await;
    bob.put(
        &path,
        json!({ "presence": "unavailable", "status_msg": "tea" }),
    )
    .await;
    let seen = alice.get(&path).await;
    assert_eq!(
        (&seen["presence"], &seen["status_msg"]),
        (&json!("unavailable"), &json!("tea"))
    );
    refused(carol.request(Method::GET, &path), 403, "M_FORBIDDEN").await;
    let forged = carol.request(Method::PUT, &path);
    refused(
        forged.json(&json!({ "presence": "online" })),
        403,
        "M_FORBIDDEN",
    )
    .await;
    let of_bob = |sync: &Value| -> Vec<Value> {
        let events = sync["presence"]["events"].as_array().cloned();
        let events = events.unwrap_or_default().into_iter();
        events
            .filter(|event| event["sender"] == json!(bob.id))
            .collect()
    };
    let seen = of_bob(&alice.sync(None).await);
    assert_eq!(seen[0]["content"]["presence"], "unavailable");
    assert!(of_bob(&carol.sync(None).await).is_empty());
}

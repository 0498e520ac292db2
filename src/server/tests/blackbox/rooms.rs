//! Rooms: made, spoken in, read, left.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, User, both_engines, encoded, refused};

both_engines!(
    rooms_of_every_version_are_made_and_spoken_in,
    the_first_events_come_in_the_order_of_the_spec,
    what_cannot_be_a_room_is_refused,
    what_nobody_may_say_of_a_rooms_creators_is_a_bad_request,
    a_repeated_transaction_returns_the_first_event,
    outsiders_read_nothing,
    who_has_left_sees_the_room_as_it_was_then,
    history_for_joined_members_hides_what_was_before_the_join,
    messages_page_back_and_forth,
    context_shows_both_sides_of_an_event,
    a_redaction_empties_an_event_and_says_why,
    people_are_kicked_banned_and_let_in_again,
    a_forgotten_room_is_gone,
    sync_shows_only_the_event_fields_asked_for,
);

pub(crate) fn room_path(room: &str, rest: &str) -> String {
    format!("/rooms/{}{rest}", encoded(room))
}

async fn public_room(user: &User) -> String {
    user.create_room(json!({ "preset": "public_chat" })).await
}

fn bodies(events: &Value) -> Vec<String> {
    let events = events.as_array().unwrap();
    let bodies = events
        .iter()
        .filter(|event| event["type"] == "m.room.message");
    bodies
        .map(|event| event["content"]["body"].as_str().unwrap_or("-").to_owned())
        .collect()
}

async fn rooms_of_every_version_are_made_and_spoken_in(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    for version in 1..=12 {
        let body = json!({ "room_version": version.to_string(), "invite": [bob.id], "name": "n" });
        let room = alice.create_room(body).await;
        bob.join(&room).await;
        let id = bob.send(&room, &format!("hello {version}")).await;
        let path = room_path(&room, &format!("/event/{}", encoded(&id)));
        let event = alice.get(&path).await;
        assert_eq!(event["sender"], json!(bob.id), "version {version}");
        assert_eq!(event["unsigned"]["membership"], "join");
        let create = alice.get(&room_path(&room, "/state/m.room.create")).await;
        assert_eq!(create["room_version"], json!(version.to_string()));
        assert_eq!(
            create.get("creator").is_some(),
            version < 11,
            "version {version}"
        );
        let levels = alice
            .get(&room_path(&room, "/state/m.room.power_levels/"))
            .await;
        assert_eq!(
            levels["users"].get(&alice.id).is_some(),
            version < 12,
            "{levels}"
        );
    }
}

async fn the_first_events_come_in_the_order_of_the_spec(server: Server) {
    let alice = server.register("alice").await;
    let room = alice
        .create_room(json!({
            "preset": "private_chat", "room_alias_name": "order", "name": "The name", "topic": "The topic",
            "initial_state": [{ "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } }],
            "power_level_content_override": { "events_default": 10 },
            "creation_content": { "m.federate": false },
        }))
        .await;
    let page = alice
        .get(&room_path(&room, "/messages?dir=f&limit=50"))
        .await;
    let kinds: Vec<&str> = page["chunk"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    let expected = [
        "m.room.create",
        "m.room.member",
        "m.room.power_levels",
        "m.room.canonical_alias",
        "m.room.join_rules",
        "m.room.history_visibility",
        "m.room.guest_access",
        "m.room.encryption",
        "m.room.name",
        "m.room.topic",
    ];
    assert_eq!(kinds, expected);
    let state = |kind: &str| room_path(&room, &format!("/state/{kind}"));
    assert_eq!(
        alice.get(&state("m.room.power_levels")).await["events_default"],
        10
    );
    assert_eq!(
        alice.get(&state("m.room.create")).await["m.federate"],
        false
    );
    let topic = alice.get(&state("m.room.topic")).await;
    assert_eq!(topic["m.topic"]["m.text"][0]["body"], "The topic");
    let event = alice
        .get(&format!("{}?format=event", state("m.room.name")))
        .await;
    assert_eq!(event["content"]["name"], "The name");
}

async fn what_cannot_be_a_room_is_refused(server: Server) {
    let alice = server.register("alice").await;
    alice
        .create_room(json!({ "room_alias_name": "taken" }))
        .await;
    let cases = [
        (
            json!({ "room_version": "99" }),
            "M_UNSUPPORTED_ROOM_VERSION",
        ),
        (json!({ "room_alias_name": "taken" }), "M_ROOM_IN_USE"),
        (json!({ "room_alias_name": "a:b" }), "M_BAD_JSON"),
        (json!({ "name": 5 }), "M_BAD_JSON"),
        (json!({ "invite": ["@bob:elsewhere"] }), "M_BAD_JSON"),
        (
            json!({ "initial_state": [{ "type": "m.room.member", "state_key": "@x:y", "content": {} }] }),
            "M_INVALID_ROOM_STATE",
        ),
    ];
    for (body, code) in cases {
        refused(
            alice.request(Method::POST, "/createRoom").json(&body),
            400,
            code,
        )
        .await;
    }
}

async fn a_repeated_transaction_returns_the_first_event(server: Server) {
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let first = alice.send(&room, "once").await;
    assert_eq!(alice.send(&room, "once").await, first);
    let phone = server.login("alice").await;
    assert_ne!(phone.send(&room, "once").await, first);
    let path = room_path(&room, &format!("/event/{}", encoded(&first)));
    assert_eq!(alice.get(&path).await["unsigned"]["transaction_id"], "once");
    let other = phone.get(&path).await;
    assert!(other["unsigned"].get("transaction_id").is_none());
}

async fn outsiders_read_nothing(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({})).await;
    alice.send(&room, "secret").await;
    for room in [room.as_str(), "!unknown:localhost"] {
        for rest in [
            "/messages?dir=b",
            "/state",
            "/members",
            "/joined_members",
            "/aliases",
        ] {
            let request = bob.request(Method::GET, &room_path(room, rest));
            refused(request, 403, "M_FORBIDDEN").await;
        }
        let path = room_path(room, "/send/m.room.message/1");
        refused(
            bob.request(Method::PUT, &path).json(&json!({})),
            403,
            "M_FORBIDDEN",
        )
        .await;
    }
}

async fn who_has_left_sees_the_room_as_it_was_then(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice).await;
    bob.join(&room).await;
    alice.send(&room, "before").await;
    bob.post(&room_path(&room, "/leave"), json!({})).await;
    alice.send(&room, "after").await;
    alice
        .put(
            &room_path(&room, "/state/m.room.name"),
            json!({ "name": "new" }),
        )
        .await;
    let page = bob.get(&room_path(&room, "/messages?dir=b&limit=50")).await;
    assert_eq!(bodies(&page["chunk"]), ["before"]);
    let name = bob.request(Method::GET, &room_path(&room, "/state/m.room.name"));
    refused(name, 404, "M_NOT_FOUND").await;
    let members = bob
        .get(&room_path(&room, "/members?membership=leave"))
        .await;
    assert_eq!(members["chunk"][0]["state_key"], json!(bob.id));
}

async fn history_for_joined_members_hides_what_was_before_the_join(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let hidden = json!([{ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } }]);
    let room = alice
        .create_room(json!({ "preset": "public_chat", "initial_state": hidden }))
        .await;
    let early = alice.send(&room, "early").await;
    bob.join(&room).await;
    alice.send(&room, "late").await;
    let page = bob.get(&room_path(&room, "/messages?dir=b&limit=50")).await;
    assert_eq!(bodies(&page["chunk"]), ["late"]);
    let path = room_path(&room, &format!("/event/{}", encoded(&early)));
    refused(bob.request(Method::GET, &path), 404, "M_NOT_FOUND").await;
}

async fn messages_page_back_and_forth(server: Server) {
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let start = alice.sync(None).await["next_batch"]
        .as_str()
        .unwrap()
        .to_owned();
    for number in 0..7 {
        alice.send(&room, &format!("m{number}")).await;
    }
    let filter = encoded(r#"{"types":["m.room.message"]}"#);
    let page =
        |rest: String| room_path(&room, &format!("/messages?limit=3&filter={filter}&{rest}"));
    let first = alice.get(&page("dir=b".to_owned())).await;
    assert_eq!(bodies(&first["chunk"]), ["m6", "m5", "m4"]);
    let end = first["end"].as_str().unwrap();
    let second = alice.get(&page(format!("dir=b&from={end}"))).await;
    assert_eq!(bodies(&second["chunk"]), ["m3", "m2", "m1"]);
    let forward = alice.get(&page(format!("dir=f&from={start}"))).await;
    assert_eq!(bodies(&forward["chunk"]), ["m0", "m1", "m2"]);
    let back = alice
        .get(&page(format!("dir=b&to={}", encoded(&start))))
        .await;
    assert_eq!(bodies(&back["chunk"]), ["m6", "m5", "m4"]);
    for bad in ["dir=x", "dir=b&from=nonsense", "dir=b&limit=x"] {
        let path = room_path(&room, &format!("/messages?{bad}"));
        refused(alice.request(Method::GET, &path), 400, "M_INVALID_PARAM").await;
    }
}

async fn context_shows_both_sides_of_an_event(server: Server) {
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(alice.send(&room, &format!("m{number}")).await);
    }
    let path = room_path(&room, &format!("/context/{}?limit=4", encoded(&ids[2])));
    let context = alice.get(&path).await;
    assert_eq!(context["event"]["content"]["body"], "m2");
    assert_eq!(bodies(&context["events_before"]), ["m1", "m0"]);
    assert_eq!(bodies(&context["events_after"]), ["m3", "m4"]);
    let kinds = context["state"].as_array().unwrap().iter();
    assert!(kinds.clone().any(|event| event["type"] == "m.room.create"));
}

async fn a_redaction_empties_an_event_and_says_why(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice).await;
    bob.join(&room).await;
    let id = alice.send(&room, "regretted").await;
    let redact = |txn: &str| room_path(&room, &format!("/redact/{}/{txn}", encoded(&id)));
    let request = bob.request(Method::PUT, &redact("b")).json(&json!({}));
    refused(request, 403, "M_FORBIDDEN").await;
    let redaction = alice.put(&redact("a"), json!({ "reason": "why" })).await;
    assert_eq!(alice.put(&redact("a"), json!({})).await, redaction);
    let path = room_path(&room, &format!("/event/{}", encoded(&id)));
    let event = bob.get(&path).await;
    assert_eq!(event["content"], json!({}));
    let because = &event["unsigned"]["redacted_because"];
    assert_eq!(because["event_id"], redaction["event_id"]);
    assert_eq!(because["content"]["reason"], "why");
}

async fn people_are_kicked_banned_and_let_in_again(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice).await;
    bob.join(&room).await;
    let act = |what: &str| room_path(&room, &format!("/{what}"));
    let whom = json!({ "user_id": bob.id, "reason": "noise" });
    let request = bob.request(Method::POST, &act("kick"));
    refused(
        request.json(&json!({ "user_id": alice.id })),
        403,
        "M_FORBIDDEN",
    )
    .await;
    alice.post(&act("kick"), whom.clone()).await;
    assert_eq!(bob.get("/joined_rooms").await["joined_rooms"], json!([]));
    bob.join(&room).await;
    alice.post(&act("ban"), whom.clone()).await;
    let join = bob.request(Method::POST, &act("join")).json(&json!({}));
    refused(join, 403, "M_FORBIDDEN").await;
    let member = alice
        .get(&room_path(
            &room,
            &format!("/state/m.room.member/{}", encoded(&bob.id)),
        ))
        .await;
    assert_eq!(
        (&member["membership"], &member["reason"]),
        (&json!("ban"), &json!("noise"))
    );
    alice.post(&act("unban"), whom).await;
    bob.join(&room).await;
    let knock = json!([{ "type": "m.room.join_rules", "content": { "join_rule": "knock" } }]);
    let closed = alice.create_room(json!({ "initial_state": knock })).await;
    bob.post(&format!("/knock/{}", encoded(&closed)), json!({}))
        .await;
    alice.invite(&closed, &bob).await;
    bob.join(&closed).await;
}

async fn a_forgotten_room_is_gone(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice).await;
    bob.join(&room).await;
    let forget = room_path(&room, "/forget");
    let early = bob.request(Method::POST, &forget).json(&json!({}));
    refused(early, 400, "M_UNKNOWN").await;
    bob.post(&room_path(&room, "/leave"), json!({})).await;
    bob.post(&forget, json!({})).await;
    let read = bob.request(Method::GET, &room_path(&room, "/messages?dir=b"));
    refused(read, 403, "M_FORBIDDEN").await;
    bob.join(&room).await;
    bob.get(&room_path(&room, "/messages?dir=b")).await;
}

async fn sync_shows_only_the_event_fields_asked_for(server: Server) {
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.send(&room, "short").await;
    let filter = encoded(r#"{"event_fields":["content.body","type"]}"#);
    let sync = alice.get(&format!("/sync?filter={filter}")).await;
    let events = &sync["rooms"]["join"][&room]["timeline"]["events"];
    let last = events.as_array().unwrap().last().unwrap();
    let expected = json!({ "content": { "body": "short" }, "type": "m.room.message" });
    assert_eq!(*last, expected);
}

async fn what_nobody_may_say_of_a_rooms_creators_is_a_bad_request(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let make = |body: Value| alice.request(Method::POST, "/createRoom").json(&body);
    for creators in [json!("bob"), json!([42]), json!(["bob"]), json!(["@bob:"])] {
        let body = json!({ "room_version": "12", "creation_content": { "additional_creators": creators } });
        refused(make(body), 400, "M_BAD_JSON").await;
    }
    let levels = json!({ "users": { &alice.id: 100 } });
    let body = json!({ "room_version": "12", "power_level_content_override": levels });
    refused(make(body), 400, "M_BAD_JSON").await;

    let creation = json!({ "additional_creators": ["@carol:elsewhere.example"] });
    let body = json!({
        "room_version": "12", "preset": "trusted_private_chat", "invite": [bob.id], "creation_content": creation,
    });
    let room = alice.create_room(body).await;
    let create = alice.get(&room_path(&room, "/state/m.room.create")).await;
    let creators = json!(["@carol:elsewhere.example", bob.id]);
    assert_eq!(create["additional_creators"], creators);
    for creator in [alice.id.as_str(), &bob.id, "@carol:elsewhere.example"] {
        let path = room_path(&room, "/state/m.room.power_levels");
        let levels = json!({ "users": { creator: 50 } });
        refused(
            alice.request(Method::PUT, &path).json(&levels),
            400,
            "M_BAD_JSON",
        )
        .await;
    }
    let path = room_path(&room, "/state/m.room.create");
    let create = json!({ "room_version": "12" });
    refused(
        alice.request(Method::PUT, &path).json(&create),
        400,
        "M_BAD_JSON",
    )
    .await;
}

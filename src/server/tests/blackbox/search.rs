//! Full-text search. <https://spec.matrix.org/v1.19/client-server-api/#server-side-search>

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Engine, Server, User, both_engines, encoded, refused, succeeds};

both_engines!(
    what_was_said_is_found_at_once_with_what_stands_around_it,
    a_search_is_paged_to_its_end,
    results_are_grouped_and_a_group_is_paged,
    what_is_redacted_is_found_in_no_order,
    filters_narrow_a_search,
    the_state_and_the_names_of_then_are_shown_to_who_asks_for_them,
    who_has_left_does_not_find_what_was_said_since,
    what_makes_no_sense_is_refused,
);

/// A search in the category of room events.
async fn search(user: &User, next: Option<&str>, criteria: &Value) -> Value {
    let found = succeeds(request(user, next, criteria)).await;
    found["search_categories"]["room_events"].clone()
}

fn request(user: &User, next: Option<&str>, criteria: &Value) -> reqwest::RequestBuilder {
    let next = next.map(|next| format!("?next_batch={}", encoded(next)));
    let path = format!("/search{}", next.unwrap_or_default());
    let body = json!({ "search_categories": { "room_events": criteria } });
    user.request(Method::POST, &path).json(&body)
}

/// The texts of what is found.
fn bodies(found: &Value) -> Vec<&str> {
    let results = found["results"].as_array().unwrap().iter();
    results
        .map(|it| it["result"]["content"]["body"].as_str().unwrap())
        .collect()
}

async fn what_was_said_is_found_at_once_with_what_stands_around_it(server: Server) {
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    for number in 1..=7 {
        alice.send(&room, &format!("Message number {number}")).await;
    }
    let criteria = json!({
        "keys": ["content.body"], "search_term": "message 4", "order_by": "recent",
        "filter": { "limit": 1, "rooms": [room] },
        "event_context": { "before_limit": 2, "after_limit": 2 },
    });
    let found = search(&alice, None, &criteria).await;
    assert_eq!(found["count"], 1);
    assert_eq!(found["highlights"], json!(["message", "4"]));
    assert!(
        found["next_batch"].is_string(),
        "a full page may not be the last"
    );
    let result = &found["results"][0];
    assert!(result["rank"].as_f64().unwrap() > 0.0);
    assert_eq!(result["result"]["content"]["body"], "Message number 4");
    assert_eq!(result["result"]["room_id"], room.as_str());
    let around = |side: &str| {
        let events = result["context"][side].as_array().unwrap();
        let last = |it: &Value| it["content"]["body"].as_str().unwrap().chars().next_back();
        events.iter().filter_map(last).collect::<String>()
    };
    assert_eq!(around("events_before"), "32", "the nearest first");
    assert_eq!(around("events_after"), "56");
    let before = result["context"]["start"].as_str().unwrap();
    let path = format!(
        "/rooms/{}/messages?dir=b&limit=1&from={before}",
        encoded(&room)
    );
    let page = alice.get(&path).await;
    assert_eq!(page["chunk"][0]["content"]["body"], "Message number 1");
    // Context is for who asks for it, and of the usual size if they do not say how much.
    let plain = json!({ "search_term": "number 4", "event_context": {} });
    let found = search(&alice, None, &plain).await;
    let context = &found["results"][0]["context"];
    assert_eq!(context["events_after"].as_array().unwrap().len(), 3);
    assert!(context["profile_info"].is_null());
    let found = search(&alice, None, &json!({ "search_term": "number 4" })).await;
    assert!(found["results"][0]["context"].is_null());
    assert!(found["state"].is_null() && found["groups"].is_null());
}

async fn a_search_is_paged_to_its_end(server: Server) {
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let mut sent = Vec::new();
    for number in 0..20 {
        sent.push(alice.send(&room, &format!("Message {number}")).await);
    }
    sent.reverse();
    for order in ["recent", "rank"] {
        let criteria = json!({ "search_term": "message", "order_by": order });
        let (mut ids, mut next, mut pages) = (Vec::new(), None, 0);
        loop {
            let found = search(&alice, next.as_deref(), &criteria).await;
            assert_eq!(found["count"], 20);
            let results = found["results"].as_array().unwrap();
            ids.extend(results.iter().map(|it| it["result"]["event_id"].clone()));
            pages += 1;
            match found["next_batch"].as_str() {
                Some(token) => next = Some(token.to_owned()),
                None => break,
            }
        }
        assert_eq!((ids.len(), pages), (20, 3));
        assert_eq!(ids, sent, "equally good ones are in order of time");
    }
}

async fn results_are_grouped_and_a_group_is_paged(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let rooms = [
        alice.create_room(json!({ "preset": "public_chat" })).await,
        alice.create_room(json!({ "preset": "public_chat" })).await,
    ];
    for (number, room) in rooms.iter().enumerate() {
        bob.join(room).await;
        for text in ["word a", "word b", "word c"] {
            alice.send(room, &format!("{text}{number}")).await;
        }
    }
    bob.send(&rooms[1], "word d1").await;
    let criteria = json!({
        "search_term": "word", "order_by": "recent", "filter": { "limit": 2 },
        "groupings": { "group_by": [{ "key": "room_id" }, { "key": "sender" }] },
    });
    let found = search(&alice, None, &criteria).await;
    assert_eq!(bodies(&found), ["word d1", "word c1"]);
    let groups = &found["groups"];
    assert_eq!(groups["room_id"].as_object().unwrap().len(), 1);
    let of_room = &groups["room_id"][&rooms[1]];
    assert_eq!(of_room["results"].as_array().unwrap().len(), 2);
    let of_bob = &groups["sender"][&bob.id];
    let of_alice = &groups["sender"][&alice.id];
    assert_eq!(
        (&of_bob["order"], &of_alice["order"]),
        (&json!(1), &json!(2))
    );
    let next = of_room["next_batch"].as_str();
    let found = search(&alice, next, &criteria).await;
    assert_eq!(bodies(&found), ["word b1", "word a1"]);
    let next = found["groups"]["room_id"][&rooms[1]]["next_batch"].as_str();
    let found = search(&alice, next, &criteria).await;
    assert_eq!(bodies(&found), [""; 0], "not the other room");
    let next = of_bob["next_batch"].as_str();
    let found = search(&alice, next, &criteria).await;
    assert_eq!(bodies(&found), [""; 0], "Bob has said no more");
    let next = of_alice["next_batch"].as_str();
    let found = search(&alice, next, &criteria).await;
    assert_eq!(bodies(&found), ["word b1", "word a1"]);
}

async fn what_is_redacted_is_found_in_no_order(server: Server) {
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let gone = alice.send(&room, "this is to be redacted").await;
    alice.send(&room, "this is not to be redacted").await;
    let path = format!("/rooms/{}/redact/{}/t", encoded(&room), encoded(&gone));
    alice.put(&path, json!({})).await;
    for order in ["recent", "rank"] {
        let criteria = json!({ "search_term": "redacted", "order_by": order });
        let found = search(&alice, None, &criteria).await;
        assert_eq!(bodies(&found), ["this is not to be redacted"]);
        assert_eq!(found["count"], 1);
    }
}

async fn filters_narrow_a_search(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let public = json!({ "preset": "public_chat", "name": "Word room", "topic": "word topic" });
    let room = alice.create_room(public).await;
    let other = alice.create_room(json!({})).await;
    bob.join(&room).await;
    alice.send(&room, "word alice").await;
    bob.send(&room, "word bob").await;
    alice.send(&other, "word other").await;
    let content = json!({ "msgtype": "m.file", "body": "word file", "url": "mxc://x/y" });
    alice
        .send_event(&room, "m.room.message", "file", content)
        .await;
    for (keys, filter, expected) in [
        (
            json!(null),
            json!({ "types": ["m.room.message"], "not_rooms": [other] }),
            vec!["word file", "word bob", "word alice"],
        ),
        (
            json!(["content.body"]),
            json!({ "senders": [bob.id] }),
            vec!["word bob"],
        ),
        (
            json!(["content.body"]),
            json!({ "not_senders": [bob.id], "rooms": [room] }),
            vec!["word file", "word alice"],
        ),
        (
            json!(["content.body"]),
            json!({ "contains_url": true }),
            vec!["word file"],
        ),
        (
            json!(["content.body"]),
            json!({ "contains_url": false, "rooms": [other] }),
            vec!["word other"],
        ),
        (
            json!(["content.body"]),
            json!({ "rooms": ["!nowhere:localhost"] }),
            vec![],
        ),
        (
            json!(["content.body"]),
            json!({ "types": ["m.room.name"] }),
            vec![],
        ),
        (json!([]), json!({}), vec![]),
    ] {
        let criteria =
            json!({ "search_term": "word", "order_by": "recent", "keys": keys, "filter": filter });
        let found = search(&alice, None, &criteria).await;
        assert_eq!(bodies(&found), expected, "{keys} {filter}");
        assert_eq!(found["count"], expected.len(), "{keys} {filter}");
    }
    let criteria = json!({ "search_term": "word", "keys": ["content.name", "content.topic"] });
    let found = search(&alice, None, &criteria).await;
    assert_eq!(found["count"], 2);
    // Whom one ignores is not found.
    let list = json!({ "ignored_users": { bob.id.clone(): {} } });
    let path = format!(
        "/user/{}/account_data/m.ignored_user_list",
        encoded(&alice.id)
    );
    alice.put(&path, list).await;
    let criteria = json!({ "search_term": "bob" });
    assert_eq!(search(&alice, None, &criteria).await["count"], 0);
}

async fn the_state_and_the_names_of_then_are_shown_to_who_asks_for_them(server: Server) {
    let alice = server.register("alice").await;
    let name = format!("/profile/{}/displayname", encoded(&alice.id));
    alice.put(&name, json!({ "displayname": "Before" })).await;
    let room = alice.create_room(json!({ "name": "Hearth" })).await;
    alice.send(&room, "word").await;
    alice.put(&name, json!({ "displayname": "After" })).await;
    let criteria = json!({
        "search_term": "word", "include_state": true, "event_context": { "include_profile": true },
    });
    let found = search(&alice, None, &criteria).await;
    let profiles = &found["results"][0]["context"]["profile_info"];
    let state = found["state"][&room].as_array().unwrap();
    assert!(state.iter().any(|it| it["content"]["name"] == "Hearth"));
    let profile = &profiles[&alice.id]["displayname"];
    assert!(profile == "Before", "{profiles}");
}

async fn who_has_left_does_not_find_what_was_said_since(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    alice.send(&room, "word before").await;
    bob.post(&format!("/rooms/{}/leave", encoded(&room)), json!({}))
        .await;
    alice.send(&room, "word after").await;
    let criteria = json!({ "search_term": "word", "include_state": true });
    let found = search(&bob, None, &criteria).await;
    assert_eq!(
        (bodies(&found), &found["count"]),
        (vec!["word before"], &json!(1))
    );
    let carol = server.register("carol").await;
    let found = search(&carol, None, &criteria).await;
    assert_eq!(found["count"], 0, "she was never there");
    bob.post(&format!("/rooms/{}/forget", encoded(&room)), json!({}))
        .await;
    let found = search(&bob, None, &criteria).await;
    assert_eq!(found["count"], 0);
}

async fn what_makes_no_sense_is_refused(server: Server) {
    let alice = server.register("alice").await;
    let post = |body: Value| alice.request(Method::POST, "/search").json(&body);
    refused(
        post(json!({ "search_categories": { "room_events": {} } })),
        400,
        "M_BAD_JSON",
    )
    .await;
    refused(post(json!({})), 400, "M_BAD_JSON").await;
    let nothing = succeeds(post(json!({ "search_categories": {} }))).await;
    assert_eq!(nothing, json!({ "search_categories": {} }));
    for criteria in [
        json!({ "search_term": 5 }),
        json!({ "search_term": "x", "keys": ["content.other"] }),
        json!({ "search_term": "x", "order_by": "oldest" }),
        json!({ "search_term": "x", "event_context": { "before_limit": -1 } }),
        json!({ "search_term": "x", "groupings": { "group_by": [{ "key": "type" }] } }),
        json!({ "search_term": "x", "groupings": { "group_by": [{}] } }),
    ] {
        refused(request(&alice, None, &criteria), 400, "M_BAD_JSON").await;
    }
    let many: Vec<String> = (0..40).map(|number| format!("w{number}")).collect();
    let rooms: Vec<String> = (0..1_001).map(|number| format!("!r{number}:x")).collect();
    for criteria in [
        json!({ "search_term": many.join(" ") }),
        json!({ "search_term": "本".repeat(100) }),
        json!({ "search_term": "x", "filter": { "rooms": rooms } }),
    ] {
        refused(request(&alice, None, &criteria), 400, "M_INVALID_PARAM").await;
    }
    let criteria = json!({ "search_term": "x" });
    for token in ["", "x", "s1_2", "f1_t_0_1_1_a"] {
        // The last one is of a search in the other order.
        refused(
            request(&alice, Some(token), &criteria),
            400,
            "M_INVALID_PARAM",
        )
        .await;
    }
    let nothing = search(&alice, None, &json!({ "search_term": "!?" })).await;
    assert_eq!(
        (&nothing["count"], &nothing["results"]),
        (&json!(0), &json!([]))
    );
    let body = json!({ "search_categories": { "room_events": criteria } });
    let nobody = server
        .request(Method::POST, "/_matrix/client/v3/search")
        .json(&body);
    refused(nobody, 401, "M_MISSING_TOKEN").await;
}

#[tokio::test]
async fn an_index_outlives_a_restart_and_is_made_anew_when_it_is_gone() {
    let mut server = Server::start(Engine::RocksDb).await;
    let mut alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.send(&room, "山田太郎 word").await;
    let folder = server.config().data_dir.join("search");
    for gone in [false, true] {
        server.stop().await;
        if gone {
            std::fs::remove_dir_all(&folder).unwrap();
        }
        server.replace(|_| {}).await;
        alice = alice.moved_to(&server);
        for term in ["word", "太郎"] {
            let found = search(&alice, None, &json!({ "search_term": term })).await;
            assert_eq!(found["count"], 1, "{term}");
        }
    }
    server.replace(|config| config.search.enabled = false).await;
    alice = alice.moved_to(&server);
    let request = request(&alice, None, &json!({ "search_term": "word" }));
    refused(request, 404, "M_UNRECOGNIZED").await;
}

#[tokio::test]
async fn searches_are_limited() {
    let server = Server::start_with(Engine::Memory, |config| {
        config.rate_limits.enabled = true;
    })
    .await;
    let alice = server.register("alice").await;
    let mut last = 200;
    for _ in 0..40 {
        let criteria = json!({ "search_term": "x" });
        let answer = request(&alice, None, &criteria).send().await.unwrap();
        last = answer.status().as_u16();
        if last == 429 {
            break;
        }
    }
    assert_eq!(last, 429);
}

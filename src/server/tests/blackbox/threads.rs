//! Threads, relations and moments. <https://spec.matrix.org/v1.19/client-server-api/#threading>

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, User, both_engines, encoded, refused};

both_engines!(
    threads_are_listed_by_their_newest_reply,
    threads_are_paged_and_narrowed_to_those_one_took_part_in,
    a_redacted_reply_does_not_hold_its_thread_up,
    an_unthreaded_receipt_wins_over_a_threaded_one_of_the_same_event,
    an_edit_is_bundled_and_an_edit_of_an_edit_is_not,
    the_event_nearest_to_a_moment_is_found,
    messages_are_narrowed_to_kinds_of_relations,
);

fn v1(room: &str, rest: &str) -> String {
    format!("/_matrix/client/v1/rooms/{}/{rest}", encoded(room))
}

async fn related(user: &User, room: &str, text: &str, kind: &str, to: &str) -> String {
    let content = json!({ "msgtype": "m.text", "body": text, "m.relates_to": { "rel_type": kind, "event_id": to } });
    user.send_event(room, "m.room.message", text, content).await
}

/// Pairs of a thread's root and its newest reply.
fn pairs(page: &Value) -> Vec<(String, String)> {
    let chunk = page["chunk"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pair = |root: &Value| {
        let latest = &root["unsigned"]["m.relations"]["m.thread"]["latest_event"];
        (text(&root["event_id"]), text(&latest["event_id"]))
    };
    chunk.iter().map(pair).collect()
}

async fn threads_are_listed_by_their_newest_reply(server: Server) {
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let one = alice.send(&room, "one").await;
    let two = alice.send(&room, "two").await;
    let reply = related(&alice, &room, "1a", "m.thread", &one).await;
    let other = related(&alice, &room, "2a", "m.thread", &two).await;
    let page = alice.get(&v1(&room, "threads")).await;
    let expected = [(two.clone(), other.clone()), (one.clone(), reply)];
    assert_eq!(pairs(&page), expected);
    let newest = related(&alice, &room, "1b", "m.thread", &one).await;
    let page = alice.get(&v1(&room, "threads")).await;
    assert_eq!(pairs(&page), [(one, newest), (two, other)]);
    let bob = server.register("bob").await;
    let request = bob.request(Method::GET, &v1(&room, "threads"));
    refused(request, 403, "M_FORBIDDEN").await;
}

async fn threads_are_paged_and_narrowed_to_those_one_took_part_in(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let mut roots = Vec::new();
    for number in 0..5 {
        let root = alice.send(&room, &format!("root {number}")).await;
        for reply in 0..3 {
            related(
                &alice,
                &room,
                &format!("{number} {reply}"),
                "m.thread",
                &root,
            )
            .await;
        }
        roots.push(root);
    }
    related(&bob, &room, "mine", "m.thread", &roots[1]).await;
    let page = alice.get(&v1(&room, "threads?limit=2")).await;
    let first: Vec<_> = pairs(&page).into_iter().map(|(root, _)| root).collect();
    assert_eq!(first, [roots[1].clone(), roots[4].clone()]);
    let from = format!(
        "threads?limit=9&from={}",
        page["next_batch"].as_str().unwrap()
    );
    let page = alice.get(&v1(&room, &from)).await;
    let second: Vec<_> = pairs(&page).into_iter().map(|(root, _)| root).collect();
    assert_eq!(
        second,
        [roots[3].clone(), roots[2].clone(), roots[0].clone()]
    );
    assert!(page["next_batch"].is_null());
    let page = bob.get(&v1(&room, "threads?include=participated")).await;
    assert_eq!(pairs(&page).len(), 1);
    for query in ["include=some", "limit=0", "limit=x", "from=x"] {
        let request = alice.request(Method::GET, &v1(&room, &format!("threads?{query}")));
        refused(request, 400, "M_INVALID_PARAM").await;
    }
}

async fn a_redacted_reply_does_not_hold_its_thread_up(server: Server) {
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let one = alice.send(&room, "one").await;
    let two = alice.send(&room, "two").await;
    let first = related(&alice, &room, "1a", "m.thread", &one).await;
    let other = related(&alice, &room, "2a", "m.thread", &two).await;
    let second = related(&alice, &room, "1b", "m.thread", &one).await;
    let path = format!("/rooms/{}/redact/{}/t", encoded(&room), encoded(&second));
    alice.put(&path, json!({})).await;
    let page = alice.get(&v1(&room, "threads")).await;
    assert_eq!(pairs(&page), [(two, other), (one, first)]);
}

async fn an_unthreaded_receipt_wins_over_a_threaded_one_of_the_same_event(server: Server) {
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let root = alice.send(&room, "root").await;
    let reply = related(&alice, &room, "reply", "m.thread", &root).await;
    let path = format!(
        "/rooms/{}/receipt/m.read/{}",
        encoded(&room),
        encoded(&reply)
    );
    alice.post(&path, json!({})).await;
    alice.post(&path, json!({ "thread_id": root })).await;
    let sync = alice.sync(None).await;
    let receipt = &sync["rooms"]["join"][&room]["ephemeral"]["events"][0]["content"][&reply]["m.read"]
        [&alice.id];
    assert!(
        receipt["ts"].is_u64() && receipt["thread_id"].is_null(),
        "{receipt}"
    );
}

async fn an_edit_is_bundled_and_an_edit_of_an_edit_is_not(server: Server) {
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let event = alice.send(&room, "frist").await;
    let edit = related(&alice, &room, "first", "m.replace", &event).await;
    related(&alice, &room, "firstest", "m.replace", &edit).await;
    related(&alice, &room, "see there", "m.reference", &event).await;
    let path = |rest: &str| format!("/rooms/{}/{rest}", encoded(&room));
    let alone = alice
        .get(&path(&format!("event/{}", encoded(&event))))
        .await;
    let page = alice.get(&path("messages?dir=b&limit=9")).await;
    let around = alice
        .get(&path(&format!("context/{}", encoded(&edit))))
        .await;
    let sync = alice.sync(None).await;
    let lists = [
        json!([alone]),
        page["chunk"].clone(),
        around["events_before"].clone(),
        sync["rooms"]["join"][&room]["timeline"]["events"].clone(),
    ];
    for list in lists {
        let events = list.as_array().unwrap().iter();
        let shown = events
            .clone()
            .find(|it| it["event_id"] == json!(event))
            .unwrap();
        let bundled = &shown["unsigned"]["m.relations"];
        assert_eq!(bundled["m.replace"]["event_id"], json!(edit));
        assert_eq!(bundled["m.reference"]["chunk"].as_array().unwrap().len(), 1);
    }
    let edited = alice.get(&path(&format!("event/{}", encoded(&edit)))).await;
    assert!(edited["unsigned"]["m.relations"].is_null());
}

async fn the_event_nearest_to_a_moment_is_found(server: Server) {
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let pause = || tokio::time::sleep(std::time::Duration::from_millis(5));
    pause().await;
    let (one, _) = (alice.send(&room, "one").await, pause().await);
    let (two, _) = (alice.send(&room, "two").await, pause().await);
    let sent = |event: Value| event["origin_server_ts"].as_u64().unwrap();
    let path = |event: &str| format!("/rooms/{}/event/{}", encoded(&room), encoded(event));
    let (first, second) = (
        sent(alice.get(&path(&one)).await),
        sent(alice.get(&path(&two)).await),
    );
    let at = |ts: u64, dir: &str| v1(&room, &format!("timestamp_to_event?ts={ts}&dir={dir}"));
    for (ts, dir, expected) in [
        (first, "f", &one),
        (first, "b", &one),
        (first + 1, "f", &two),
        (second - 1, "b", &one),
        (second + 100_000, "b", &two),
    ] {
        let found = alice.get(&at(ts, dir)).await;
        assert_eq!(found["event_id"], json!(expected), "{ts} {dir}");
    }
    for (ts, dir) in [(second + 1, "f"), (0, "b")] {
        let request = alice.request(Method::GET, &at(ts, dir));
        refused(request, 404, "M_NOT_FOUND").await;
    }
    let bob = server.register("bob").await;
    let request = bob.request(Method::GET, &at(first, "f"));
    refused(request, 403, "M_FORBIDDEN").await;
}

/// MSC3874, by the name that it has until it is in the specification.
async fn messages_are_narrowed_to_kinds_of_relations(server: Server) {
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let root = alice.send(&room, "root").await;
    let thread = related(&alice, &room, "a", "m.thread", &root).await;
    let reference = related(&alice, &room, "b", "m.reference", &root).await;
    let narrowed = async |filter: Value| -> Vec<String> {
        let mut filter = filter;
        filter["types"] = json!(["m.room.message"]);
        let filter = encoded(&filter.to_string());
        let path = format!("/rooms/{}/messages?dir=f&filter={filter}", encoded(&room));
        let page = alice.get(&path).await;
        let chunk = page["chunk"].as_array().unwrap().iter();
        chunk
            .map(|event| event["event_id"].as_str().unwrap().to_owned())
            .collect()
    };
    let (only, but) = (
        "org.matrix.msc3874.rel_types",
        "org.matrix.msc3874.not_rel_types",
    );
    for (filter, expected) in [
        (json!({ only: ["m.thread"] }), vec![&thread]),
        (
            json!({ only: ["m.thread", "m.reference"] }),
            vec![&thread, &reference],
        ),
        (json!({ only: [] }), vec![]),
        (json!({ but: ["m.thread"] }), vec![&root, &reference]),
        (json!({ but: ["m.thread", "m.reference"] }), vec![&root]),
        (json!({ only: ["m.thread"], but: ["m.thread"] }), vec![]),
        (json!({}), vec![&root, &thread, &reference]),
    ] {
        let got = narrowed(filter.clone()).await;
        assert_eq!(got.iter().collect::<Vec<_>>(), expected, "{filter}");
    }
    let bad = encoded(&json!({ only: "m.thread" }).to_string());
    let path = format!("/rooms/{}/messages?dir=f&filter={bad}", encoded(&room));
    refused(alice.request(Method::GET, &path), 400, "M_INVALID_PARAM").await;
}

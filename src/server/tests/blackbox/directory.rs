//! Aliases, the list of public rooms, relations, push rules and unread counts.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    harness::{Server, both_engines, encoded, refused},
    rooms::room_path,
};

both_engines!(
    an_alias_leads_to_its_room_until_it_is_removed,
    a_canonical_alias_must_point_to_its_room,
    public_rooms_are_listed_searched_and_paged,
    relations_are_listed_by_type_in_both_directions,
    edits_threads_and_references_are_bundled,
    what_is_bundled_ends_when_the_reader_leaves,
    the_same_reaction_twice_is_refused,
    push_rules_are_kept_and_the_defaults_stay,
    unread_counts_follow_receipts_and_threads,
);

async fn an_alias_leads_to_its_room_until_it_is_removed(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let body = json!({ "preset": "public_chat", "room_alias_name": "main" });
    let room = alice.create_room(body).await;
    let path = |name: &str| format!("/directory/room/{}", encoded(&format!("#{name}:localhost")));
    let found = bob.get(&path("main")).await;
    assert_eq!(found, json!({ "room_id": room, "servers": ["localhost"] }));
    let outside = bob.request(Method::PUT, &path("bobs"));
    refused(
        outside.json(&json!({ "room_id": room })),
        403,
        "M_FORBIDDEN",
    )
    .await;
    bob.join("#main:localhost").await;
    bob.put(&path("bobs"), json!({ "room_id": room })).await;
    let again = alice.request(Method::PUT, &path("bobs"));
    refused(again.json(&json!({ "room_id": room })), 409, "M_UNKNOWN").await;
    let aliases = alice.get(&room_path(&room, "/aliases")).await;
    assert_eq!(
        aliases["aliases"],
        json!(["#bobs:localhost", "#main:localhost"])
    );
    let request = bob.request(Method::DELETE, &path("main"));
    refused(request, 403, "M_FORBIDDEN").await;
    for (who, name) in [(&bob, "bobs"), (&alice, "main")] {
        let (status, _) = crate::harness::answer(who.request(Method::DELETE, &path(name))).await;
        assert_eq!(status, 200);
        refused(bob.request(Method::GET, &path(name)), 404, "M_NOT_FOUND").await;
    }
    let canonical = alice
        .get(&room_path(&room, "/state/m.room.canonical_alias"))
        .await;
    assert!(canonical.get("alias").is_none(), "{canonical}");
}

async fn a_canonical_alias_must_point_to_its_room(server: Server) {
    let alice = server.register("alice").await;
    let room = alice
        .create_room(json!({ "room_alias_name": "here" }))
        .await;
    alice
        .create_room(json!({ "room_alias_name": "there" }))
        .await;
    let path = room_path(&room, "/state/m.room.canonical_alias");
    let cases = [
        (json!({ "alias": "#nowhere:localhost" }), "M_BAD_ALIAS"),
        (json!({ "alias": "#there:localhost" }), "M_BAD_ALIAS"),
        (
            json!({ "alt_aliases": ["#there:localhost"] }),
            "M_BAD_ALIAS",
        ),
        (json!({ "alias": "no alias" }), "M_INVALID_PARAM"),
        (json!({ "alt_aliases": "x" }), "M_INVALID_PARAM"),
    ];
    for (body, code) in cases {
        refused(alice.request(Method::PUT, &path).json(&body), 400, code).await;
    }
    alice
        .put(&path, json!({ "alt_aliases": ["#here:localhost"] }))
        .await;
    alice.put(&path, json!({})).await;
}

async fn public_rooms_are_listed_searched_and_paged(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let make = |name: &str, visibility: &str| json!({ "preset": "public_chat", "visibility": visibility, "name": name });
    let small = alice.create_room(make("Small", "public")).await;
    let large = alice.create_room(make("Large", "public")).await;
    let private = alice.create_room(make("Private", "private")).await;
    let space = json!({ "visibility": "public", "name": "Space", "creation_content": { "type": "m.space" } });
    let space = alice.create_room(space).await;
    bob.join(&large).await;
    let ids = |list: &Value| -> Vec<String> {
        let chunk = list["chunk"].as_array().unwrap().iter();
        chunk
            .map(|room| room["room_id"].as_str().unwrap().to_owned())
            .collect()
    };
    let list = bob.get("/publicRooms").await;
    assert_eq!(ids(&list).len(), 3);
    assert_eq!(list["total_room_count_estimate"], 3);
    assert_eq!(
        list["chunk"][0]["room_id"],
        json!(large),
        "the largest first"
    );
    assert_eq!(list["chunk"][0]["num_joined_members"], 2);
    let first = bob.get("/publicRooms?limit=2").await;
    let next = first["next_batch"].as_str().unwrap();
    let second = bob.get(&format!("/publicRooms?limit=2&since={next}")).await;
    assert_eq!((ids(&first).len(), ids(&second).len()), (2, 1));
    assert!(second.get("next_batch").is_none());
    let found = bob
        .post(
            "/publicRooms",
            json!({ "filter": { "generic_search_term": "SMALL" } }),
        )
        .await;
    assert_eq!(ids(&found), [small]);
    let spaces = bob
        .post(
            "/publicRooms",
            json!({ "filter": { "room_types": ["m.space"] } }),
        )
        .await;
    assert_eq!(ids(&spaces), [space]);
    let plain = bob
        .post(
            "/publicRooms",
            json!({ "filter": { "room_types": [null] } }),
        )
        .await;
    assert_eq!(ids(&plain).len(), 2);
    let visibility = |room: &str| format!("/directory/list/room/{}", encoded(room));
    assert_eq!(
        bob.get(&visibility(&private)).await["visibility"],
        "private"
    );
    let hide = json!({ "visibility": "private" });
    refused(
        bob.request(Method::PUT, &visibility(&large)).json(&hide),
        403,
        "M_FORBIDDEN",
    )
    .await;
    alice.put(&visibility(&large), hide).await;
    assert!(!ids(&bob.get("/publicRooms").await).contains(&large));
    refused(
        bob.request(Method::GET, "/publicRooms?since=x"),
        400,
        "M_INVALID_PARAM",
    )
    .await;
    let unknown = bob.request(Method::GET, &visibility("!unknown:localhost"));
    refused(unknown, 404, "M_NOT_FOUND").await;
}

fn relating(kind: &str, target: &str, body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body, "m.relates_to": { "rel_type": kind, "event_id": target } })
}

async fn relations_are_listed_by_type_in_both_directions(server: Server) {
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let root = alice.send(&room, "root").await;
    let mut ids = Vec::new();
    for number in 0..3 {
        let content = relating("m.thread", &root, &number.to_string());
        ids.push(
            alice
                .send_event(&room, "m.room.message", &format!("t{number}"), content)
                .await,
        );
    }
    let reference = alice
        .send_event(
            &room,
            "m.room.message",
            "r",
            relating("m.reference", &ids[0], "r"),
        )
        .await;
    let url = |rest: &str| {
        format!(
            "/../v1{}",
            room_path(&room, &format!("/relations/{}{rest}", encoded(&root)))
        )
    };
    let found = |page: &Value| -> Vec<Value> {
        page["chunk"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["event_id"].clone())
            .collect()
    };
    let page = alice.get(&url("/m.thread?limit=2")).await;
    assert_eq!(found(&page), [json!(ids[2]), json!(ids[1])]);
    let next = page["next_batch"].as_str().unwrap();
    let page = alice
        .get(&url(&format!("/m.thread?limit=2&from={next}")))
        .await;
    assert_eq!(found(&page), [json!(ids[0])]);
    assert!(page.get("next_batch").is_none());
    let forward = alice.get(&url("/m.thread/m.room.message?dir=f")).await;
    assert_eq!(
        found(&forward),
        [json!(ids[0]), json!(ids[1]), json!(ids[2])]
    );
    assert!(found(&alice.get(&url("/m.thread/m.sticker")).await).is_empty());
    let deep = alice.get(&url("?recurse=true")).await;
    assert_eq!(found(&deep)[0], json!(reference));
    let bob = server.register("bob").await;
    refused(bob.request(Method::GET, &url("")), 403, "M_FORBIDDEN").await;
}

async fn edits_threads_and_references_are_bundled(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let root = alice.send(&room, "root").await;
    let mut edit = relating("m.replace", &root, "* better");
    edit["m.new_content"] = json!({ "msgtype": "m.text", "body": "better" });
    let forged = bob
        .send_event(&room, "m.room.message", "f", edit.clone())
        .await;
    let edited = alice.send_event(&room, "m.room.message", "e", edit).await;
    assert_ne!(forged, edited);
    let reply = bob
        .send_event(
            &room,
            "m.room.message",
            "t",
            relating("m.thread", &root, "reply"),
        )
        .await;
    let refers = bob
        .send_event(
            &room,
            "m.room.message",
            "r",
            relating("m.reference", &root, "see"),
        )
        .await;
    let path = room_path(&room, &format!("/event/{}", encoded(&root)));
    let bundle = alice.get(&path).await["unsigned"]["m.relations"].clone();
    assert_eq!(bundle["m.replace"]["event_id"], json!(edited));
    assert_eq!(bundle["m.thread"]["latest_event"]["event_id"], json!(reply));
    assert_eq!(bundle["m.thread"]["count"], 1);
    assert_eq!(bundle["m.thread"]["current_user_participated"], true);
    assert_eq!(
        bundle["m.reference"]["chunk"],
        json!([{ "event_id": refers }])
    );
}

async fn the_same_reaction_twice_is_refused(server: Server) {
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let id = alice.send(&room, "nice").await;
    let like =
        json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": id, "key": "+" } });
    let first = alice
        .send_event(&room, "m.reaction", "1", like.clone())
        .await;
    assert_eq!(
        alice
            .send_event(&room, "m.reaction", "1", like.clone())
            .await,
        first
    );
    let path = room_path(&room, "/send/m.reaction/2");
    let request = alice.request(Method::PUT, &path).json(&like);
    refused(request, 400, "M_DUPLICATE_ANNOTATION").await;
}

async fn push_rules_are_kept_and_the_defaults_stay(server: Server) {
    let alice = server.register("alice").await;
    let rules = alice.get("/pushrules/").await;
    assert_eq!(rules["global"]["override"][0]["rule_id"], ".m.rule.master");
    let path = "/pushrules/global/content/cake";
    alice
        .put(path, json!({ "pattern": "cake", "actions": ["notify"] }))
        .await;
    assert_eq!(alice.get(path).await["pattern"], "cake");
    alice
        .put(&format!("{path}/enabled"), json!({ "enabled": false }))
        .await;
    assert_eq!(
        alice.get(&format!("{path}/enabled")).await["enabled"],
        false
    );
    alice
        .put(&format!("{path}/actions"), json!({ "actions": [] }))
        .await;
    assert_eq!(
        alice.get(&format!("{path}/actions")).await["actions"],
        json!([])
    );
    let (status, _) = crate::harness::answer(alice.request(Method::DELETE, path)).await;
    assert_eq!(status, 200);
    refused(alice.request(Method::GET, path), 404, "M_NOT_FOUND").await;
    let default = alice.request(Method::DELETE, "/pushrules/global/override/.m.rule.master");
    refused(default, 400, "M_INVALID_PARAM").await;
    let own = alice.request(Method::PUT, "/pushrules/global/room/.mine");
    refused(own.json(&json!({ "actions": [] })), 400, "M_INVALID_PARAM").await;
}

async fn unread_counts_follow_receipts_and_threads(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    bob.send(&room, "ready").await;
    let root = alice.send(&room, "one").await;
    alice.send(&room, "hello bob").await;
    let reply = alice
        .send_event(
            &room,
            "m.room.message",
            "t",
            relating("m.thread", &root, "in thread"),
        )
        .await;
    let filter = encoded(r#"{"room":{"timeline":{"unread_thread_notifications":true}}}"#);
    let counts = async |filter: Option<&str>| {
        let filter = filter
            .map(|filter| format!("&filter={filter}"))
            .unwrap_or_default();
        let sync = bob.get(&format!("/sync?timeout=0{filter}")).await;
        let joined = &sync["rooms"]["join"][&room];
        let count = |value: &Value| value["notification_count"].as_u64().unwrap_or(0);
        (
            count(&joined["unread_notifications"]),
            count(&joined["unread_thread_notifications"][&root]),
        )
    };
    assert_eq!(counts(None).await, (3, 0));
    assert_eq!(counts(Some(&filter)).await, (2, 1));
    let receipt = |event: &str| room_path(&room, &format!("/receipt/m.read/{}", encoded(event)));
    bob.post(&receipt(&reply), json!({ "thread_id": root }))
        .await;
    assert_eq!(counts(Some(&filter)).await, (2, 0));
    bob.post(&receipt(&root), json!({ "thread_id": "main" }))
        .await;
    assert_eq!(counts(Some(&filter)).await, (1, 0));
    bob.post(&receipt(&reply), json!({})).await;
    assert_eq!(counts(None).await, (0, 0));
}

async fn what_is_bundled_ends_when_the_reader_leaves(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let root = alice.send(&room, "root").await;
    let early = relating("m.thread", &root, "early");
    let early = alice.send_event(&room, "m.room.message", "1", early).await;
    bob.post(&room_path(&room, "/leave"), json!({})).await;
    for (txn, kind) in [("2", "m.replace"), ("3", "m.thread"), ("4", "m.reference")] {
        let content = relating(kind, &root, "late");
        alice
            .send_event(&room, "m.room.message", txn, content)
            .await;
    }
    let path = room_path(&room, &format!("/event/{}", encoded(&root)));
    let bundle = bob.get(&path).await["unsigned"]["m.relations"].clone();
    assert_eq!(bundle["m.thread"]["latest_event"]["event_id"], json!(early));
    assert_eq!(bundle["m.thread"]["count"], 1);
    assert!(!bundle.to_string().contains("late\""), "{bundle}");
    assert!(bundle.get("m.replace").is_none() && bundle.get("m.reference").is_none());
    let all = alice.get(&path).await["unsigned"]["m.relations"].clone();
    assert_eq!(all["m.thread"]["count"], 2);
    assert_eq!(all["m.replace"]["content"]["body"], "late");
}

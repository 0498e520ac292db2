//! Upgrading rooms. <https://spec.matrix.org/v1.19/client-server-api/#room-upgrades>

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, User, answer, both_engines, encoded, refused};

both_engines!(
    an_upgraded_room_is_replaced_by_one_like_it,
    a_room_can_be_upgraded_to_every_version,
    who_may_not_close_a_room_cannot_upgrade_it,
    push_rules_and_tags_go_over_to_the_upgraded_room,
    settings_do_not_follow_a_room_that_only_claims_to_replace_another,
);

async fn upgrade(user: &User, room: &str, version: &str) -> String {
    let path = format!("/rooms/{}/upgrade", encoded(room));
    let answer = user.post(&path, json!({ "new_version": version })).await;
    answer["replacement_room"].as_str().unwrap().to_owned()
}

async fn state(user: &User, room: &str, kind: &str, key: &str) -> Value {
    let path = format!("/rooms/{}/state/{kind}/{}", encoded(room), encoded(key));
    user.get(&path).await
}

async fn an_upgraded_room_is_replaced_by_one_like_it(server: Server) {
    let alice = server.register("alice").await;
    let mallory = server.register("mallory").await;
    let old = alice
        .create_room(json!({
            "room_version": "9", "preset": "public_chat", "visibility": "public", "name": "Hearth", "topic": "warm",
            "room_alias_name": "hearth", "creation_content": { "type": "m.space" },
            "power_level_content_override": { "users": { alice.id.clone(): 100, "@bob:localhost": 50 } },
            "initial_state": [{ "type": "m.space.child", "state_key": "!child:elsewhere.example", "content": { "via": ["elsewhere.example"] } }],
        }))
        .await;
    let path = format!("/rooms/{}/ban", encoded(&old));
    alice
        .post(&path, json!({ "user_id": mallory.id, "reason": "spam" }))
        .await;

    let new = upgrade(&alice, &old, "10").await;
    let tombstone = state(&alice, &old, "m.room.tombstone", "").await;
    assert_eq!(tombstone["replacement_room"], json!(new));
    let create = state(&alice, &new, "m.room.create", "").await;
    assert_eq!(create["predecessor"]["room_id"], json!(old));
    assert_eq!(
        (&create["room_version"], &create["type"]),
        (&json!("10"), &json!("m.space"))
    );
    let name = state(&alice, &new, "m.room.name", "").await;
    assert_eq!(name, json!({ "name": "Hearth" }));
    let rules = state(&alice, &new, "m.room.join_rules", "").await;
    assert_eq!(rules["join_rule"], "public");
    let levels = state(&alice, &new, "m.room.power_levels", "").await;
    assert_eq!(
        levels["users"],
        json!({ alice.id.clone(): 100, "@bob:localhost": 50 })
    );
    let child = state(&alice, &new, "m.space.child", "!child:elsewhere.example").await;
    assert_eq!(child, json!({ "via": ["elsewhere.example"] }));
    let ban = state(&alice, &new, "m.room.member", &mallory.id).await;
    assert_eq!(ban, json!({ "membership": "ban", "reason": "spam" }));

    // The alias and the place in the list have moved.
    let alias = encoded(&format!("#hearth:{}", server.config().server_name));
    let found = alice.get(&format!("/directory/room/{alias}")).await;
    assert_eq!(found["room_id"], json!(new));
    let named = state(&alice, &new, "m.room.canonical_alias", "").await;
    assert_eq!(
        named["alias"],
        json!(format!("#hearth:{}", server.config().server_name))
    );
    let named = state(&alice, &old, "m.room.canonical_alias", "").await;
    assert_eq!(named, json!({}));
    let list = alice.get("/publicRooms").await;
    assert_eq!(list["chunk"].as_array().unwrap().len(), 1);
    assert_eq!(list["chunk"][0]["room_id"], json!(new));

    // Nobody without power speaks in the old room.
    let levels = state(&alice, &old, "m.room.power_levels", "").await;
    assert_eq!(
        (&levels["events_default"], &levels["invite"]),
        (&json!(50), &json!(50))
    );
}

async fn a_room_can_be_upgraded_to_every_version(server: Server) {
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let mut room = alice
        .create_room(json!({ "room_version": "1", "preset": "public_chat" }))
        .await;
    for version in (1..=12).chain([12, 11, 1]) {
        room = upgrade(&alice, &room, &version.to_string()).await;
        let create = state(&alice, &room, "m.room.create", "").await;
        assert_eq!(create["room_version"], json!(version.to_string()));
        alice.send(&room, "still warm").await;
        bob.join(&room).await;
    }
    let path = format!("/rooms/{}/upgrade", encoded(&room));
    for version in ["13", "", "org.example.mine"] {
        let request = alice.request(Method::POST, &path);
        let (status, body) = answer(request.json(&json!({ "new_version": version }))).await;
        assert_eq!(status, 400, "{body}");
    }
}

async fn who_may_not_close_a_room_cannot_upgrade_it(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let path = format!("/rooms/{}/upgrade", encoded(&room));
    let request = || {
        bob.request(Method::POST, &path)
            .json(&json!({ "new_version": "12" }))
    };
    refused(request(), 403, "M_FORBIDDEN").await;
    bob.join(&room).await;
    refused(request(), 403, "M_FORBIDDEN").await;
    let sync = bob.sync(None).await;
    assert_eq!(sync["rooms"]["join"].as_object().unwrap().len(), 1);
}

async fn silence(user: &User, room: &str) {
    let path = format!("/pushrules/global/room/{}", encoded(room));
    user.put(&path, json!({ "actions": [] })).await;
    let path = format!("/pushrules/global/override/{}", encoded(room));
    let condition = json!({ "kind": "event_match", "key": "room_id", "pattern": room });
    user.put(&path, json!({ "actions": [], "conditions": [condition] }))
        .await;
    let path = format!(
        "/user/{}/rooms/{}/tags/m.favourite",
        encoded(&user.id),
        encoded(room)
    );
    user.put(&path, json!({ "order": 0.5 })).await;
}

/// Whether the room is silenced by both rules and has the tag.
async fn is_silenced(user: &User, room: &str) -> bool {
    let rules = user.get("/pushrules/").await;
    let room_rule = rules["global"]["room"]
        .as_array()
        .unwrap()
        .iter()
        .any(|rule| rule["rule_id"] == json!(room));
    let override_rule = rules["global"]["override"]
        .as_array()
        .unwrap()
        .iter()
        .any(|rule| {
            rule["rule_id"] == json!(room) && rule["conditions"][0]["pattern"] == json!(room)
        });
    let path = format!("/user/{}/rooms/{}/tags", encoded(&user.id), encoded(room));
    let tags = user.get(&path).await;
    let tagged = tags["tags"].get("m.favourite").is_some();
    assert_eq!((room_rule, override_rule), (tagged, tagged));
    tagged
}

async fn push_rules_and_tags_go_over_to_the_upgraded_room(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let old = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&old).await;
    silence(&alice, &old).await;
    silence(&bob, &old).await;
    let since = bob.sync(None).await["next_batch"].clone();
    let new = upgrade(&alice, &old, "11").await;
    assert!(is_silenced(&alice, &new).await);
    assert!(!is_silenced(&bob, &new).await);
    bob.join(&new).await;
    assert!(is_silenced(&bob, &new).await);
    let sync = bob.sync(since.as_str()).await;
    assert_eq!(sync["account_data"]["events"][0]["type"], "m.push_rules");

    // Made by hand: the new room names the old one, and then the old one the new one.
    let predecessor = json!({ "predecessor": { "room_id": new } });
    let third = alice
        .create_room(json!({ "preset": "public_chat", "creation_content": predecessor }))
        .await;
    assert!(is_silenced(&alice, &third).await);
    let path = format!("/rooms/{}/state/m.room.tombstone", encoded(&new));
    alice
        .put(&path, json!({ "body": "moved", "replacement_room": third }))
        .await;
    bob.join(&third).await;
    assert!(is_silenced(&bob, &third).await);
}

async fn settings_do_not_follow_a_room_that_only_claims_to_replace_another(server: Server) {
    let alice = server.register("alice").await;
    let mallory = server.register("mallory").await;
    let old = alice.create_room(json!({ "preset": "public_chat" })).await;
    silence(&alice, &old).await;
    let predecessor = json!({ "predecessor": { "room_id": old } });
    let trap = mallory
        .create_room(json!({ "preset": "public_chat", "creation_content": predecessor }))
        .await;
    alice.join(&trap).await;
    assert!(!is_silenced(&alice, &trap).await);
}

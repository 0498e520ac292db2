//! Joining, leaving and forgetting, as the user's other devices and the room see it.

use reqwest::Method;
use ruma::RoomVersionId;
use serde_json::json;

use crate::{
    harness::{Engine, Server, both_engines, encoded, refused},
    rooms::room_path,
};

both_engines!(
    who_joins_adds_to_the_member_event_but_not_what_the_rules_say_there,
    a_room_forgotten_at_once_is_still_told_to_other_devices_as_left,
    an_invite_refused_is_state_after_the_timeline_too,
    members_are_those_of_the_moment_that_sync_spoke_of,
    who_joins_anew_is_told_that_the_timeline_does_not_follow_on,
    joined_members_have_both_keys,
    the_password_of_another_confirms_nothing,
    text_that_is_not_utf8_is_no_json_wherever_it_stands,
);

async fn who_joins_adds_to_the_member_event_but_not_what_the_rules_say_there(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let body = json!({
        "foo": "bar",
        "reason": "curious",
        "membership": "ban",
        "join_authorised_via_users_server": alice.id,
    });
    bob.post(&format!("/join/{}", encoded(&room)), body).await;
    let path = room_path(&room, &format!("/state/m.room.member/{}", encoded(&bob.id)));
    let member = alice.get(&path).await;
    assert_eq!(
        member,
        json!({ "membership": "join", "foo": "bar", "reason": "curious" })
    );
}

async fn a_room_forgotten_at_once_is_still_told_to_other_devices_as_left(server: Server) {
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let since = alice.sync(None).await["next_batch"].clone();
    alice.post(&room_path(&room, "/leave"), json!({})).await;
    alice.post(&room_path(&room, "/forget"), json!({})).await;
    let news = alice.sync(since.as_str()).await;
    assert!(news["rooms"]["leave"].get(&room).is_some(), "{news}");
    let later = alice.sync(news["next_batch"].as_str()).await;
    assert!(later["rooms"]["leave"].get(&room).is_none(), "{later}");
    let everything = alice
        .get("/sync?timeout=0&filter=%7B%22room%22%3A%7B%22include_leave%22%3Atrue%7D%7D")
        .await;
    assert!(
        everything["rooms"]["leave"].get(&room).is_none(),
        "{everything}"
    );
}

async fn an_invite_refused_is_state_after_the_timeline_too(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({})).await;
    for (parameter, field) in [
        ("use_state_after=true", "state_after"),
        ("use_state_after=false", "state"),
    ] {
        alice.invite(&room, &bob).await;
        let since = bob.sync(None).await["next_batch"].clone();
        bob.post(&room_path(&room, "/leave"), json!({})).await;
        let path = format!(
            "/sync?timeout=0&since={}&{parameter}",
            since.as_str().unwrap()
        );
        let news = bob.get(&path).await;
        let left = &news["rooms"]["leave"][&room];
        let timeline = left["timeline"]["events"].as_array().unwrap();
        assert_eq!(timeline[0]["content"]["membership"], "leave", "{news}");
        // Before it there is nothing that they may know.
        let state = left[field]["events"].as_array().unwrap();
        assert_eq!(state.is_empty(), field == "state", "{news}");
        let same = |event: &serde_json::Value| event["event_id"] == timeline[0]["event_id"];
        assert!(state.iter().all(same), "{news}");
    }
}

async fn members_are_those_of_the_moment_that_sync_spoke_of(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let sync = alice.sync(None).await;
    let batch = &sync["rooms"]["join"][&room]["timeline"]["prev_batch"];
    let batch = batch.as_str().unwrap().to_owned();
    bob.join(&room).await;
    let at = |token: &str| room_path(&room, &format!("/members?at={}", encoded(token)));
    let then = alice.get(&at(&batch)).await;
    let names = |members: &serde_json::Value| -> Vec<String> {
        let events = members["chunk"].as_array().unwrap().iter();
        events
            .map(|event| event["state_key"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&then), std::slice::from_ref(&alice.id));
    let now = alice.get(&room_path(&room, "/members")).await;
    assert_eq!(names(&now), [alice.id.clone(), bob.id.clone()]);
    for (parameter, left) in [
        ("membership=join", 2),
        ("membership=ban", 0),
        ("not_membership=join", 0),
        ("not_membership=leave", 2),
    ] {
        let path = room_path(&room, &format!("/members?{parameter}"));
        assert_eq!(names(&alice.get(&path).await).len(), left, "{parameter}");
    }
    for parameter in ["membership=zz", "not_membership="] {
        let path = room_path(&room, &format!("/members?{parameter}"));
        refused(alice.request(Method::GET, &path), 400, "M_INVALID_PARAM").await;
    }
    // The same token is a place to read on from.
    let older = alice
        .get(&room_path(
            &room,
            &format!("/messages?dir=b&from={}", encoded(&batch)),
        ))
        .await;
    assert_eq!(older["chunk"], json!([]));
    let junk = alice.request(Method::GET, &at("t1_x"));
    refused(junk, 400, "M_INVALID_PARAM").await;
}

async fn who_joins_anew_is_told_that_the_timeline_does_not_follow_on(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let since = bob.sync(None).await["next_batch"].clone();
    bob.join(&room).await;
    let news = bob.sync(since.as_str()).await;
    let timeline = &news["rooms"]["join"][&room]["timeline"];
    assert_eq!(timeline["limited"], true, "{timeline}");
    alice.send(&room, "hello").await;
    let news = bob.sync(news["next_batch"].as_str()).await;
    let timeline = &news["rooms"]["join"][&room]["timeline"];
    assert_ne!(timeline["limited"], true, "{timeline}");
}

async fn joined_members_have_both_keys(server: Server) {
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let members = alice.get(&room_path(&room, "/joined_members")).await;
    let nobody = json!({ "display_name": null, "avatar_url": null });
    assert_eq!(members["joined"][&alice.id], nobody);
}

async fn the_password_of_another_confirms_nothing(server: Server) {
    let alice = server.register("alice").await;
    let other_device = server.login("alice").await;
    let bob = server.register("bob").await;
    let auth = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": bob.id },
        "password": crate::harness::PASSWORD,
    });
    let path = format!("/devices/{}", encoded(&other_device.device));
    let request = alice
        .request(Method::DELETE, &path)
        .json(&json!({ "auth": auth }));
    refused(request, 403, "M_FORBIDDEN").await;
    alice.get(&path).await;
}

async fn text_that_is_not_utf8_is_no_json_wherever_it_stands(server: Server) {
    let body = b"{\"username\":\"carol\",\"nobody reads this\":\"\xff\"}";
    let request = server
        .request(Method::POST, "/_matrix/client/v3/register")
        .body(body.to_vec());
    refused(request, 400, "M_NOT_JSON").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_is_of_the_version_that_the_operator_has_chosen() {
    let server = Server::start_with(Engine::Memory, |config| {
        config.rooms.default_version = RoomVersionId::V10;
    })
    .await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let create = alice.get(&room_path(&room, "/state/m.room.create")).await;
    assert_eq!(create["room_version"], "10");
    let can = alice.get("/capabilities").await["capabilities"].clone();
    assert_eq!(can["m.room_versions"]["default"], "10");
    assert_eq!(can["m.change_password"]["enabled"], true);
}

//! Members that are loaded lazily: sent when they are first needed, and not again and again.

use serde_json::{Value, json};

use crate::harness::{Server, User, both_engines, encoded};

both_engines!(
    a_member_who_speaks_is_sent_once,
    a_repeated_poll_has_the_members_again,
    a_member_who_changes_is_sent_anew,
    who_is_sent_away_is_state_after_the_timeline,
);

const LAZY: &str = r#"{"room":{"state":{"lazy_load_members":true}}}"#;
const REDUNDANT: &str =
    r#"{"room":{"state":{"lazy_load_members":true,"include_redundant_members":true}}}"#;

struct World {
    alice: User,
    bob: User,
    room: String,
}

async fn world(server: &Server) -> World {
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    for number in 0..20 {
        alice.send(&room, &format!("filler {number}")).await;
    }
    World { alice, bob, room }
}

impl World {
    /// A poll of alice's; gives the token and the members in its state.
    async fn poll(&self, filter: &str, since: Option<&str>) -> (String, Vec<String>) {
        let since = since.map(|since| format!("&since={}", encoded(since)));
        let path = format!(
            "/sync?timeout=0&filter={}{}",
            encoded(filter),
            since.unwrap_or_default()
        );
        let sync = self.alice.get(&path).await;
        let state = &sync["rooms"]["join"][&self.room]["state"]["events"];
        let events = state.as_array().cloned().unwrap_or_default();
        let members = events
            .iter()
            .filter(|event| event["type"] == "m.room.member");
        let members = members.map(|event| event["state_key"].as_str().unwrap().to_owned());
        (text(&sync["next_batch"]), members.collect())
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

async fn a_member_who_speaks_is_sent_once(server: Server) {
    let world = world(&server).await;
    let (mut since, members) = world.poll(LAZY, None).await;
    assert_eq!(members, [&*world.alice.id], "bob has said nothing");
    for (said, expected) in [("one", true), ("two", false), ("three", false)] {
        world.bob.send(&world.room, said).await;
        let (next, members) = world.poll(LAZY, Some(&since)).await;
        assert_eq!(
            members.contains(&world.bob.id),
            expected,
            "{said}: {members:?}"
        );
        since = next;
    }
    world.bob.send(&world.room, "four").await;
    let (next, members) = world.poll(REDUNDANT, Some(&since)).await;
    assert!(members.contains(&world.bob.id), "{members:?}");
    // Another device of alice's was sent nothing yet.
    let other = World {
        alice: server.login("alice").await,
        bob: world.bob.clone(),
        room: world.room.clone(),
    };
    world.bob.send(&world.room, "five").await;
    let (_, members) = other.poll(LAZY, Some(&next)).await;
    assert!(members.contains(&world.bob.id), "{members:?}");
    // And who begins anew gets them anew.
    let (_, members) = world.poll(LAZY, None).await;
    assert!(members.contains(&world.bob.id), "{members:?}");
}

async fn a_repeated_poll_has_the_members_again(server: Server) {
    let world = world(&server).await;
    let (since, _) = world.poll(LAZY, None).await;
    world.bob.send(&world.room, "hello").await;
    for _ in 0..3 {
        let (_, members) = world.poll(LAZY, Some(&since)).await;
        assert!(
            members.contains(&world.bob.id),
            "the answer may have been lost: {members:?}"
        );
    }
}

async fn a_member_who_changes_is_sent_anew(server: Server) {
    let world = world(&server).await;
    let (since, _) = world.poll(LAZY, None).await;
    world.bob.send(&world.room, "hello").await;
    let (since, members) = world.poll(LAZY, Some(&since)).await;
    assert!(members.contains(&world.bob.id), "{members:?}");
    let name = format!("/profile/{}/displayname", encoded(&world.bob.id));
    world
        .bob
        .put(&name, json!({ "displayname": "Robert" }))
        .await;
    for number in 0..20 {
        world.bob.send(&world.room, &format!("more {number}")).await;
    }
    // The change itself is left out of the timeline.
    let (_, members) = world.poll(LAZY, Some(&since)).await;
    assert!(members.contains(&world.bob.id), "{members:?}");
}

async fn who_is_sent_away_is_state_after_the_timeline(server: Server) {
    let World { alice, bob, room } = world(&server).await;
    let path = |since: &str| {
        let filter = encoded(LAZY);
        format!("/sync?timeout=0&use_state_after=true&filter={filter}{since}")
    };
    let since = text(&alice.get(&path("")).await["next_batch"]);
    let ban = format!("/rooms/{}/ban", encoded(&room));
    alice.post(&ban, json!({ "user_id": bob.id })).await;
    // Only alice has said something; what it made of bob is told all the same.
    let sync = alice
        .get(&path(&format!("&since={}", encoded(&since))))
        .await;
    let state = sync["rooms"]["join"][&room]["state_after"]["events"].as_array();
    let of_bob = |event: &&Value| event["state_key"] == bob.id.as_str();
    let event = state.unwrap().iter().find(of_bob);
    assert_eq!(event.unwrap()["content"]["membership"], "ban", "{sync}");
}

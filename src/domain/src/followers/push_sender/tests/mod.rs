//! Phones are told what their owners have not read, whatever their gateways do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod faults;
pub(in crate::followers) mod world;

use serde_json::json;
use vatra_store::{Direction, Range};

use self::world::{Mood, World, draft, member};
use crate::{schema, users::pushers::PusherError};

#[tokio::test]
async fn a_phone_is_told_what_was_said_by_whom_where_and_how_much_is_unread() {
    let world = World::new().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&alice).await;
    world.join(&room, &bob).await;
    let name = draft(
        "@alice:here",
        "m.room.name",
        Some(""),
        json!({ "name": "Hearth" }),
    );
    world.send(&room, name).await;
    world.say(&room, &alice, "before the pusher").await;
    world.push(&bob, "phone").await;
    let event = world.say(&room, &alice, "hello").await;
    world.say(&room, &alice, "are you there?").await;
    world
        .told_only("phone", &["hello 1", "are you there? 2"])
        .await;
    let got = &world.gateways.got("phone")[0];
    let expected = json!({
        "event_id": event, "room_id": room, "type": "m.room.message", "sender": "@alice:here", "sender_display_name": "alice",
        "room_name": "Hearth", "prio": "high", "content": { "msgtype": "m.text", "body": "hello" }, "counts": { "unread": 1 },
        "devices": [{
            "app_id": "app", "pushkey": format!("phone{}", bob.sid.0), "pushkey_ts": 1_700_000_000, "data": {},
            // A room of two: the rule for these makes a sound.
            "tweaks": { "sound": "default" },
        }],
    });
    assert_eq!(*got, expected);
}

#[tokio::test]
async fn a_gateway_that_wants_only_ids_gets_only_ids() {
    let world = World::new().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&alice).await;
    world.join(&room, &bob).await;
    let data = json!({ "url": "https://phone/_matrix/push/v1/notify", "format": "event_id_only", "own": [1] });
    world
        .set(&bob, "phone", json!({ "data": data }))
        .await
        .unwrap();
    world.settled().await;
    let event = world.say(&room, &alice, "secret").await;
    world.told_only("phone", &["- 1"]).await;
    let mut got = world.gateways.got("phone")[0].clone();
    assert_eq!(
        got["devices"][0]["data"],
        json!({ "format": "event_id_only", "own": [1] })
    );
    got.as_object_mut().unwrap().remove("devices");
    let expected =
        json!({ "event_id": event, "room_id": room, "prio": "high", "counts": { "unread": 1 } });
    assert_eq!(got, expected);
}

#[tokio::test]
async fn nobody_is_told_what_they_said_read_ignore_muted_or_cannot_see() {
    let world = World::new().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let carol = world.user("carol").await;
    let room = world.room(&alice).await;
    for user in [&bob, &carol] {
        world.join(&room, user).await;
        world.push(user, user.user.localpart()).await;
    }
    let ignored = json!({ "ignored_users": { "@alice:here": {} } }).to_string();
    let kind = "m.ignored_user_list";
    let set = world
        .users
        .set_account_data(carol.sid, schema::GLOBAL, kind, ignored);
    set.await.unwrap();
    world.say(&room, &bob, "of bob").await;
    world.say(&room, &alice, "of alice").await;
    world.told_only("bob", &["of alice 1"]).await;
    world.told_only("carol", &["of bob 1"]).await;
    // Whoever speaks has read.
    world.say(&room, &carol, "of carol").await;
    world.told("carol", &["of bob 1", "- 0"]).await;
    // Out of the room, out of mind.
    world
        .send(&room, member("@carol:here", "@carol:here", "leave"))
        .await;
    world.say(&room, &alice, "without carol").await;
    world
        .told_only("bob", &["of alice 1", "of carol 2", "without carol 3"])
        .await;
    world.told_only("carol", &["of bob 1", "- 0"]).await;
    // Redacted is gone.
    world
        .send(&room, member("@bob:here", "@bob:here", "leave"))
        .await;
    world
        .told(
            "bob",
            &["of alice 1", "of carol 2", "without carol 3", "- 0"],
        )
        .await;
    let view = world.store.view();
    let none = view.first(&schema::NOTICES, Range::all(), Direction::Forward);
    assert!(none.await.unwrap().is_none());
}

#[tokio::test]
async fn the_count_goes_down_when_something_is_read_elsewhere_left_or_redacted() {
    let world = World::new().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&alice).await;
    world.join(&room, &bob).await;
    world.push(&bob, "phone").await;
    let one = world.say(&room, &alice, "one").await;
    let two = world.say(&room, &alice, "two").await;
    world.say(&room, &alice, "three").await;
    world.told("phone", &["one 1", "two 2", "three 3"]).await;
    world.read(&room, &bob, &one).await;
    world
        .told_only("phone", &["one 1", "two 2", "three 3", "- 2"])
        .await;
    let mut redaction = draft("@alice:here", "m.room.redaction", None, json!({}));
    redaction.redacts = Some(two);
    world.send(&room, redaction).await;
    let four = world.say(&room, &alice, "four").await;
    world
        .told_only("phone", &["one 1", "two 2", "three 3", "- 2", "four 2"])
        .await;
    world.read(&room, &bob, &four).await;
    world
        .told_only(
            "phone",
            &["one 1", "two 2", "three 3", "- 2", "four 2", "- 0"],
        )
        .await;
    let last = world.gateways.got("phone").pop().unwrap();
    assert!(last.get("event_id").is_none() && last["devices"][0]["pushkey"].is_string());
}

#[tokio::test]
async fn an_invite_is_told_and_over_once_it_is_answered() {
    let world = World::new().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&alice).await;
    world.push(&bob, "phone").await;
    world
        .send(&room, member("@alice:here", "@bob:here", "invite"))
        .await;
    world.told_only("phone", &["invite 1"]).await;
    assert_eq!(world.gateways.got("phone")[0]["user_is_target"], true);
    world
        .say(&room, &alice, "not for those who are outside")
        .await;
    world.join(&room, &bob).await;
    world.told_only("phone", &["invite 1", "- 0"]).await;
    world.say(&room, &alice, "welcome").await;
    world
        .told_only("phone", &["invite 1", "- 0", "welcome 1"])
        .await;
}

#[tokio::test]
async fn an_invite_to_a_room_elsewhere_is_told_with_what_is_known_of_it() {
    let world = World::new().await;
    let bob = world.user("bob").await;
    world.push(&bob, "phone").await;
    // The event of another server, which stands in no log here.
    let other = World::new().await;
    let eve = other.user("eve").await;
    let room = other.room(&eve).await;
    let invite = other
        .send(&room, member("@eve:here", "@bob:here", "invite"))
        .await;
    let event = other
        .rooms
        .reader()
        .event_anywhere(&invite)
        .await
        .unwrap()
        .unwrap();
    let known = world.rooms.heard_of(&room, &event.version).await.unwrap();
    let state = json!({ "type": "m.room.name", "state_key": "", "sender": "@eve:here", "content": { "name": "Elsewhere" } });
    let outside = crate::rooms::outside::Outside {
        state: vec![serde_json::value::to_raw_value(&state).unwrap()],
        servers: Vec::new(),
    };
    let pdu = (*event.pdu).clone();
    let set = world
        .rooms
        .set_outside(&known, &bob.user, pdu, Some(outside));
    set.await.unwrap();
    world.told_only("phone", &["invite 1"]).await;
    let got = &world.gateways.got("phone")[0];
    assert_eq!(
        (&got["room_name"], &got["room_id"]),
        (&json!("Elsewhere"), &json!(room))
    );
}

#[tokio::test]
async fn a_pusher_goes_with_its_device_and_a_pushkey_with_its_new_user() {
    let world = World::new().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let tablet = world.device(&alice.user, alice.sid).await;
    world.push(&alice, "phone").await;
    world.push(&tablet, "tablet").await;
    let keys = |rows: Vec<schema::PusherRow>| -> Vec<String> {
        rows.into_iter().map(|row| row.pushkey).collect()
    };
    let (one, two) = (
        format!("phone{}", alice.sid.0),
        format!("tablet{}", alice.sid.0),
    );
    let users = world.users.clone();
    let of = |user| {
        let users = users.clone();
        async move { keys(users.pushers(user).await.unwrap()) }
    };
    assert_eq!(of(alice.sid).await, [one.clone(), two.clone()]);
    world
        .users
        .logout_all(alice.sid, Some(alice.device_key()))
        .await
        .unwrap();
    assert_eq!(of(alice.sid).await, vec![one.clone()]);
    let gone = world.set(&tablet, "tablet", json!({})).await;
    assert!(matches!(gone, Err(PusherError::DeviceGone)), "{gone:?}");
    // Beside the other user, then instead of them.
    world
        .set(&bob, "phone", json!({ "pushkey": one, "append": true }))
        .await
        .unwrap();
    assert_eq!((of(alice.sid).await.len(), of(bob.sid).await.len()), (1, 1));
    world
        .set(&bob, "phone", json!({ "pushkey": one }))
        .await
        .unwrap();
    assert_eq!((of(alice.sid).await.len(), of(bob.sid).await.len()), (0, 1));
    world
        .set(&bob, "phone", json!({ "pushkey": one, "kind": null }))
        .await
        .unwrap();
    assert!(of(bob.sid).await.is_empty());
    world.push(&bob, "phone").await;
    world.users.deactivate(bob.sid, false).await.unwrap();
    let view = world.store.view();
    assert!(
        view.first(&schema::PUSHERS, Range::all(), Direction::Forward)
            .await
            .unwrap()
            .is_none()
    );
    let states = view.first(&schema::PUSHER_STATES, Range::all(), Direction::Forward);
    assert!(states.await.unwrap().is_none());
}

#[tokio::test]
async fn pushers_are_bounded_and_checked() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let url = json!({ "url": "https://x/_matrix/push/v1/notify" });
    for (change, wrong) in [
        (json!({ "kind": "email" }), "NoEmail"),
        (json!({ "kind": "pigeon" }), "UnknownKind"),
        (json!({ "app_id": null }), "Missing(\"app_id\")"),
        (json!({ "lang": null }), "Missing(\"lang\")"),
        (json!({ "data": null }), "Missing(\"data\")"),
        (json!({ "data": {} }), "Missing(\"data.url\")"),
        (json!({ "data": { "url": 5 } }), "BadUrl"),
        (json!({ "data": { "url": "https://x/" } }), "BadUrl"),
        (
            json!({ "data": { "url": url["url"], "a": "x".repeat(2_000) } }),
            "BadLength(\"data\")",
        ),
        (json!({ "app_id": "x".repeat(65) }), "BadLength(\"app_id\")"),
        (
            json!({ "pushkey": "x".repeat(513) }),
            "BadLength(\"pushkey\")",
        ),
        (json!({ "pushkey": "" }), "BadLength(\"pushkey\")"),
        (
            json!({ "device_display_name": "x".repeat(300) }),
            "BadLength(\"device_display_name\")",
        ),
    ] {
        let error = world.set(&alice, "x", change.clone()).await.unwrap_err();
        assert_eq!(format!("{error:?}"), wrong, "{change}");
    }
    assert!(world.users.pushers(alice.sid).await.unwrap().is_empty());
    for number in 0..30 {
        let key = json!({ "pushkey": number.to_string() });
        world.set(&alice, "x", key).await.unwrap();
    }
    let error = world
        .set(&alice, "x", json!({ "pushkey": "30" }))
        .await
        .unwrap_err();
    assert!(matches!(error, PusherError::TooMany));
    // One that is there can still be changed.
    world
        .set(&alice, "x", json!({ "pushkey": "7", "lang": "ro" }))
        .await
        .unwrap();
    let pushers = world.users.pushers(alice.sid).await.unwrap();
    assert_eq!((pushers.len(), pushers[7].lang.as_str()), (30, "ro"));
}

#[tokio::test]
async fn of_a_gateway_that_rejects_a_pushkey_nothing_is_left() {
    let world = World::new().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&alice).await;
    world.join(&room, &bob).await;
    let gone = json!({ "pushkey": "gone" });
    world.set(&bob, "phone", gone).await.unwrap();
    world.push(&bob, "tablet").await;
    world.gateways.set("phone", &[Mood::Rejects("gone")]);
    world
        .gateways
        .set("tablet", &[Mood::Rejects("of someone else")]);
    world.say(&room, &alice, "one").await;
    world.told("phone", &["one 1"]).await;
    world.told("tablet", &["one 1"]).await;
    world.settled().await;
    world.say(&room, &alice, "two").await;
    world.told_only("tablet", &["one 1", "two 2"]).await;
    world.told("phone", &["one 1"]).await;
    let left = world.users.pushers(bob.sid).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(world.sender.figures().rejected, 1);
}

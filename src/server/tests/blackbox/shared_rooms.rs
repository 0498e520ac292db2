//! Rooms that live on two servers, over loopback TLS.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    federation::Authority,
    harness::{Server, User, answer, encoded, refused},
};

/// Syncs until an answer has something; gives what was found.
async fn until<T>(user: &User, mut found: impl FnMut(&Value) -> Option<T>) -> T {
    let mut answer = user.sync(None).await;
    for _ in 0..40 {
        if let Some(found) = found(&answer) {
            return found;
        }
        let since = encoded(answer["next_batch"].as_str().unwrap());
        answer = user.get(&format!("/sync?timeout=500&since={since}")).await;
    }
    panic!("{} never saw it; last: {answer}", user.id);
}

/// Waits for a message in a room.
async fn hears(user: &User, room: &str, message: &str) {
    until(user, |answer| {
        let events = answer["rooms"]["join"][room]["timeline"]["events"].as_array()?;
        let mut bodies = events.iter().map(|event| &event["content"]["body"]);
        bodies.any(|body| body == message).then_some(())
    })
    .await;
}

/// Waits until a room is in a section of /sync; gives what it has there.
pub(crate) async fn has(user: &User, section: &str, room: &str) -> Value {
    until(user, |answer| {
        let found = &answer["rooms"][section][room];
        (!found.is_null()).then(|| found.clone())
    })
    .await
}

/// Waits until someone has a membership in a room, as another one sees it.
pub(crate) async fn sees(user: &User, room: &str, of: &User, membership: &str) {
    let path = format!(
        "/rooms/{}/state/m.room.member/{}",
        encoded(room),
        encoded(&of.id)
    );
    for _ in 0..40 {
        let (_, member) = answer(user.request(Method::GET, &path)).await;
        if member["membership"] == membership {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{} never saw {} as {membership}", user.id, of.id);
}

fn name(server: &Server) -> &str {
    &server.config().server_name
}

pub(crate) async fn joins_via(user: &User, room: &str, server: &Server) {
    let path = format!("/join/{}?via={}", encoded(room), encoded(name(server)));
    user.post(&path, json!({})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_is_joined_by_the_alias_of_another_server_and_spoken_in_both_ways() {
    let authority = Authority::new();
    let (here, there) = (authority.server().await, authority.server().await);
    let (alice, bob) = (here.register("alice").await, there.register("bob").await);
    let body = json!({ "preset": "public_chat", "room_alias_name": "tea", "name": "Tea" });
    let room = bob.create_room(body).await;
    for count in 0..30 {
        bob.send(&room, &format!("before {count}")).await;
    }
    alice.join(&format!("#tea:{}", name(&there))).await;
    alice.send(&room, "hello").await;
    hears(&bob, &room, "hello").await;
    bob.send(&room, "hello alice").await;
    hears(&alice, &room, "hello alice").await;
    let state = alice
        .get(&format!("/rooms/{}/state/m.room.name", encoded(&room)))
        .await;
    assert_eq!(state, json!({ "name": "Tea" }));

    // What was said before she came is fetched when she reads back.
    let mut from = String::new();
    let mut heard = Vec::new();
    for _ in 0..20 {
        let path = format!("/rooms/{}/messages?dir=b&limit=10{from}", encoded(&room));
        let page = alice.get(&path).await;
        let events = page["chunk"].as_array().unwrap();
        heard.extend(events.iter().filter_map(|event| {
            let body = event["content"]["body"].as_str()?;
            Some(body.to_owned())
        }));
        let Some(end) = page["end"].as_str() else {
            break;
        };
        from = format!("&from={}", encoded(end));
    }
    let mut expected: Vec<String> = (0..30).map(|count| format!("before {count}")).collect();
    expected.extend(["hello".to_owned(), "hello alice".to_owned()]);
    expected.reverse();
    assert_eq!(heard, expected);

    // Another one from here joins without asking there.
    let carol = here.register("carol").await;
    carol.join(&room).await;
    sees(&bob, &room, &carol, "join").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invite_from_another_server_is_shown_refused_and_accepted() {
    let authority = Authority::new();
    let (here, there) = (authority.server().await, authority.server().await);
    let (alice, bob) = (here.register("alice").await, there.register("bob").await);
    let body = json!({ "name": "Secrets", "invite": [alice.id], "is_direct": true });
    let room = bob.create_room(body).await;
    let invited = has(&alice, "invite", &room).await;
    let state = invited["invite_state"]["events"].as_array().unwrap();
    let of = |kind: &str| {
        let event = state.iter().find(|event| event["type"] == kind);
        event.unwrap_or_else(|| panic!("no {kind}: {state:?}"))
    };
    assert_eq!(of("m.room.name")["content"]["name"], "Secrets");
    let members = state
        .iter()
        .filter(|event| event["type"] == "m.room.member");
    let own = members
        .filter(|event| event["state_key"] == alice.id.as_str())
        .collect::<Vec<_>>();
    assert_eq!(own.len(), 1, "{state:?}");
    assert_eq!(own[0]["content"]["is_direct"], true);
    assert_eq!(own[0]["sender"], bob.id.as_str());
    assert!(state.iter().all(|event| event["auth_events"].is_null()));

    alice
        .post(&format!("/rooms/{}/leave", encoded(&room)), json!({}))
        .await;
    sees(&bob, &room, &alice, "leave").await;
    let path = format!("/join/{}?via={}", encoded(&room), encoded(name(&there)));
    refused(
        alice.request(Method::POST, &path).json(&json!({})),
        403,
        "M_FORBIDDEN",
    )
    .await;

    // An invite can be taken back, though nobody from here is in the room.
    bob.invite(&room, &alice).await;
    has(&alice, "invite", &room).await;
    let since = alice.sync(None).await["next_batch"].clone();
    let kick = json!({ "user_id": alice.id });
    bob.post(&format!("/rooms/{}/kick", encoded(&room)), kick)
        .await;
    let since = encoded(since.as_str().unwrap());
    let left = alice
        .get(&format!("/sync?timeout=10000&since={since}"))
        .await;
    assert!(left["rooms"]["leave"][&room].is_object(), "{left}");

    bob.invite(&room, &alice).await;
    has(&alice, "invite", &room).await;
    // The invite tells who may be asked.
    alice.join(&room).await;
    bob.send(&room, "psst").await;
    hears(&alice, &room, "psst").await;

    // Nobody is invited of whom their server does not know.
    let nobody = json!({ "user_id": format!("@nobody:{}", name(&here)) });
    let path = format!("/rooms/{}/invite", encoded(&room));
    let (status, _) = answer(bob.request(Method::POST, &path).json(&nobody)).await;
    assert!(status >= 400, "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knocks_from_another_server_is_let_in() {
    let authority = Authority::new();
    let (here, there) = (authority.server().await, authority.server().await);
    let (alice, bob) = (here.register("alice").await, there.register("bob").await);
    let rule = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
    let body = json!({ "name": "Parlour", "initial_state": [rule] });
    let room = bob.create_room(body).await;
    let path = format!("/knock/{}?via={}", encoded(&room), encoded(name(&there)));
    alice.post(&path, json!({ "reason": "tea?" })).await;
    let knocked = has(&alice, "knock", &room).await;
    let state = knocked["knock_state"]["events"].as_array().unwrap();
    let named = state.iter().any(|event| event["type"] == "m.room.name");
    assert!(named, "{state:?}");
    sees(&bob, &room, &alice, "knock").await;
    bob.invite(&room, &alice).await;
    has(&alice, "invite", &room).await;
    alice.join(&room).await;
    alice.send(&room, "thanks").await;
    hears(&bob, &room, "thanks").await;
    // Whoever is thrown out is told, though their server has nobody left there.
    let kick = json!({ "user_id": alice.id, "reason": "no more tea" });
    bob.post(&format!("/rooms/{}/kick", encoded(&room)), kick)
        .await;
    sees(&alice, &room, &alice, "leave").await;
    let path = format!("/rooms/{}/send/m.room.message/x", encoded(&room));
    refused(
        alice.request(Method::PUT, &path).json(&json!({})),
        403,
        "M_FORBIDDEN",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_space_of_two_servers_is_walked_and_its_members_may_join_its_rooms() {
    let authority = Authority::new();
    let (here, there) = (authority.server().await, authority.server().await);
    let (alice, bob) = (here.register("alice").await, there.register("bob").await);
    let space = json!({
        "preset": "public_chat", "name": "Village", "creation_content": { "type": "m.space" },
    });
    let space = bob.create_room(space).await;
    let allow = json!([{ "type": "m.room_membership", "room_id": space }]);
    let rule = json!({
        "type": "m.room.join_rules",
        "content": { "join_rule": "restricted", "allow": allow },
    });
    let inn = bob
        .create_room(json!({ "name": "Inn", "initial_state": [rule] }))
        .await;
    let secret = bob.create_room(json!({ "name": "Cellar" })).await;
    for child in [&inn, &secret] {
        let path = format!(
            "/rooms/{}/state/m.space.child/{}",
            encoded(&space),
            encoded(child)
        );
        bob.put(&path, json!({ "via": [name(&there)] })).await;
    }
    joins_via(&alice, &space, &there).await;
    let path = format!("/_matrix/client/v1/rooms/{}/hierarchy", encoded(&space));
    let tree = alice.get(&path).await;
    let rooms: Vec<_> = tree["rooms"].as_array().unwrap().iter().collect();
    let names: Vec<_> = rooms.iter().map(|room| room["name"].as_str()).collect();
    assert_eq!(names, [Some("Village"), Some("Inn")], "{tree}");
    assert_eq!(rooms[1]["allowed_room_ids"], json!([space]));

    joins_via(&alice, &inn, &there).await;
    let path = format!(
        "/rooms/{}/state/m.room.member/{}",
        encoded(&inn),
        encoded(&alice.id)
    );
    let member = alice.get(&path).await;
    assert_eq!(
        member["join_authorised_via_users_server"],
        bob.id.as_str(),
        "{member}"
    );
    let outside = here.register("outside").await;
    let path = format!("/join/{}?via={}", encoded(&inn), encoded(name(&there)));
    let (status, body) = answer(outside.request(Method::POST, &path).json(&json!({}))).await;
    assert_eq!(status, 403, "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_before_one_came_is_found_on_another_server() {
    let authority = Authority::new();
    let (here, there) = (authority.server().await, authority.server().await);
    let (alice, bob) = (here.register("alice").await, there.register("bob").await);
    let room = bob.create_room(json!({ "preset": "public_chat" })).await;
    let long_ago = bob.send(&room, "long ago").await;
    let sent = bob
        .get(&format!(
            "/rooms/{}/event/{}",
            encoded(&room),
            encoded(&long_ago)
        ))
        .await["origin_server_ts"]
        .as_u64()
        .unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    bob.send(&room, "later").await;
    joins_via(&alice, &room, &there).await;
    let path = format!(
        "/_matrix/client/v1/rooms/{}/timestamp_to_event?dir=b&ts={sent}",
        encoded(&room)
    );
    assert_eq!(alice.get(&path).await["event_id"], long_ago.as_str());
    let path = format!(
        "/rooms/{}/context/{}?limit=0",
        encoded(&room),
        encoded(&long_ago)
    );
    let around = alice.get(&path).await;
    assert_eq!(around["event"]["content"]["body"], "long ago");
    assert_eq!(around["events_before"], json!([]));
    let end = encoded(around["end"].as_str().unwrap());
    let path = format!(
        "/rooms/{}/messages?dir=f&limit=1&from={end}",
        encoded(&room)
    );
    let next = alice.get(&path).await;
    assert_eq!(next["chunk"][0]["content"]["body"], "later", "{next}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_nobody_can_be_asked_for_is_not_joined() {
    let authority = Authority::new();
    let here = authority.server().await;
    let alice = here.register("alice").await;
    let request = alice.request(Method::POST, &format!("/join/{}", encoded("!nowhere")));
    let (status, body) = answer(request.json(&json!({}))).await;
    assert_eq!(
        (status, &body["errcode"]),
        (404, &json!("M_NOT_FOUND")),
        "{body}"
    );
    let path = format!("/join/{}?via=localhost:1", encoded("!nowhere"));
    let (status, _) = answer(alice.request(Method::POST, &path).json(&json!({}))).await;
    assert_eq!(status, 502);
    let path = format!("/join/{}?via=not%20a%20name", encoded("!nowhere"));
    refused(
        alice.request(Method::POST, &path).json(&json!({})),
        400,
        "M_INVALID_PARAM",
    )
    .await;
}
